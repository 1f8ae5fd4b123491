"""The encoder of a variational autoencoder: the generative baseline of lesion search.

Kingma and Welling, "Auto-encoding variational Bayes", ICLR 2014. Qi, Cheng and Haehn (arXiv 2311.11014) take the
autoencoder of Lightning Bolts: ResNet-18 with the small stem, global average, one linear layer each for mean and
log-variance. The decoder serves training alone, and is not here.
"""

from __future__ import annotations

from torch import Tensor, nn

from LesionLib.networks.base import LesionNet
from LesionLib.networks.resnet import last_map, resnet_trunk, stage_channels


class VAEEncoder(LesionNet):
    """Lesions are compared by the mean of their latent distribution, which also feeds the classifier.

    ``latent_size``: 256 as in Lightning Bolts; the paper gives none. The trunk has the names and shapes of
    `LesionSearchNet`'s, which can therefore start from it. ``classes``: 8, DeepLesion's types. ``width`` "tiny"
    narrows the trunk, not the latent space.
    """

    def __init__(self, *, classes: int = 8, channels: int = 1, latent_size: int = 256, width: str = "full") -> None:
        super().__init__()
        if type(latent_size) is not int or latent_size < 1:
            msg = f"latent_size must be a whole number from 1, not {latent_size!r}"
            raise ValueError(msg)
        self.trunk = resnet_trunk(depth=18, channels=channels, width=width, stem="small")
        size = stage_channels(18, width)[-1]
        self.mean = nn.Linear(size, latent_size)
        self.log_variance = nn.Linear(size, latent_size)
        self.classifier = nn.Linear(latent_size, classes)

    def features(self, x: Tensor) -> Tensor:
        """(batch, channel, row, column) -> (batch, 512, row / 8, column / 8)."""
        return last_map(self.trunk, x)

    def distribution(self, f: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the latent normal distribution, each (batch, latent), from a feature map."""
        average = f.flatten(2).mean(dim=2)
        return self.mean(average), self.log_variance(average)

    def descriptor(self, f: Tensor) -> Tensor:
        """The mean, (batch, latent), not normalised; nothing is drawn, so that a lesion is always found alike."""
        return self.mean(f.flatten(2).mean(dim=2))

    def head(self, f: Tensor) -> Tensor:
        """Logits (batch, class), linear in the mean."""
        return self.classifier(self.descriptor(f))
