"""Siamese ResNet: a short descriptor whose distances mean likeness, learned from pairs, for retrieval.

Chung and Weng, "Learning deep representations of medical images using Siamese CNNs with application to content-based
image retrieval", 2017: both patches of a pair go through this one network; the loss compares their descriptors.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from LesionLib.networks.base import LesionNet
from LesionLib.networks.resnet import last_map, resnet_trunk, stage_channels


class SiameseNet(LesionNet):
    """ResNet -> global average -> dropout -> linear. The paper leaves the descriptor's length open; 128 is ours.

    ``normalize``: `head` returns descriptors of length 1, which bounds distances by 2; the paper does not.
    """

    def __init__(
        self,
        *,
        depth: int = 50,
        channels: int = 3,
        descriptor_size: int = 128,
        normalize: bool = False,
        dropout: float = 0.25,
        width: str = "full",
    ) -> None:
        super().__init__()
        self.trunk = resnet_trunk(depth=depth, channels=channels, width=width)
        self.projection = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(stage_channels(depth, width)[-1], descriptor_size)
        )
        self.normalize = normalize

    def features(self, x: Tensor) -> Tensor:
        """(batch, channel, row, column) -> (batch, 2048 or 512, row / 32, column / 32)."""
        return last_map(self.trunk, x)

    def descriptor(self, f: Tensor) -> Tensor:
        """(batch, descriptor_size), not normalised."""
        return self.projection(f.flatten(2).mean(dim=2))

    def head(self, f: Tensor) -> Tensor:
        """The descriptor that is compared, (batch, descriptor_size): there are no classes."""
        descriptor = self.descriptor(f)
        return functional.normalize(descriptor, dim=1) if self.normalize else descriptor

    def probabilities(self, logits: Tensor, temperature: float = 1.0) -> Tensor:
        """Refused with TypeError: numbers of a descriptor must not read as probabilities."""
        msg = "a Siamese network compares; it has no classes. Use embed() and the case library"
        raise TypeError(msg)
