"""The generative baseline of Lesion Search: a variational autoencoder, searched by its mean (papers 1.4)."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lesiontraining.data.augment import Augmentation
from lesiontraining.data.lesions import LesionDataset
from lesiontraining.data.loading import FlatImages, Plan, every_image, lesion_loader
from lesiontraining.losses import negative_evidence
from lesiontraining.optim import adamw, with_cosine
from lesiontraining.tasks.base import LesionTask

_FIRST = 4  # rows and columns that the decoder starts from

_AUGMENTATION = Augmentation(flips=True)


class Decoder(nn.Module):
    """Latent (batch, d) -> image (batch, channel, size, size): doubled until it is large enough, size a power of 2 from 8."""

    def __init__(self, latent: int, channels: int, size: int, *, width: int) -> None:
        super().__init__()
        if size < 8 or size & (size - 1):
            msg = f"the autoencoder's images have 8, 16, 32, 64, ... rows and columns, not {size}"
            raise ValueError(msg)
        doublings = size.bit_length() - _FIRST.bit_length()
        sizes = [max(16, width >> step) for step in range(doublings + 1)]
        self.start = nn.Linear(latent, sizes[0] * _FIRST * _FIRST)
        blocks = [_block(a, b) for a, b in pairwise(sizes)]
        self.blocks = nn.Sequential(*blocks, nn.Conv2d(sizes[-1], channels, 3, padding=1), nn.Tanh())

    def forward(self, latent: Tensor) -> Tensor:
        """Within -1 ... 1, as the images."""
        return self.blocks(self.start(latent).view(len(latent), -1, _FIRST, _FIRST))


class VAETask(LesionTask):
    """Without labels: encode, draw, rebuild. ``size``: rows and columns of the images."""

    classifies = False
    needs_labels = False

    def __init__(
        self,
        *,
        class_names: list[str],
        arguments: dict[str, Any] | None = None,
        weights: Path | None = None,
        size: int = 64,
        decoder_width: int = 256,
        divergence_weight: float = 1.0,
        batch_size: int = 128,
        epoch_size: int | None = None,
        lr: float = 1e-4,
        augmentation: Augmentation = _AUGMENTATION,
    ) -> None:
        super().__init__(
            class_names=class_names, network="vae_encoder", arguments=arguments or {}, weights=weights,
            batch_size=batch_size, epoch_size=epoch_size, augmentation=augmentation,
        )  # fmt: skip
        channels = self.arguments.get("channels", 1)
        self.decoder = Decoder(self.network.mean.out_features, channels, size, width=decoder_width)
        self.divergence_weight, self.lr = divergence_weight, lr

    def plan(self, flat: FlatImages) -> Plan:
        """All images."""
        return every_image(len(flat))

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Negative evidence lower bound, with one draw an image; ``y`` is not looked at."""
        mean, log_variance = self.network.distribution(self.network.features(x[:, 0]))
        drawn = mean + (log_variance / 2).exp() * torch.randn_like(mean)
        return negative_evidence(x[:, 0], self.decoder(drawn), mean, log_variance, weight=self.divergence_weight)

    def val_loader(self, images: LesionDataset, *, workers: int) -> DataLoader:
        """All lesions, labelled or not."""
        return lesion_loader(images, lesions_at_once=8, workers=workers)

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        """The bound at the mean of the latent distribution: nothing is drawn, so that epochs can be compared."""
        mean, log_variance = self.network.distribution(self.network.features(batch["x"]))
        loss = negative_evidence(batch["x"], self.decoder(mean), mean, log_variance, weight=self.divergence_weight)
        self._log_validation(loss, len(batch["x"]))

    def configure_optimizers(self) -> dict[str, Any]:
        """Adam, cosine."""
        return with_cosine(adamw(self, lr=self.lr, weight_decay=0.0), self.trainer)


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Upsample(scale_factor=2, mode="nearest"),
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )
