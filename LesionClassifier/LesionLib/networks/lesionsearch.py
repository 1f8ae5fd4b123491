"""Lesion search: a ResNet-18 learned without labels, whose descriptor finds lesions that look alike.

Qi, Cheng and Haehn, "Lesion Search with Self-supervised Learning", 2023 (arXiv 2311.11014): SimCLR teaches a ResNet-18 on
64 x 64 crops; two more convolutions, GeM and L2 normalisation follow for retrieval and for the eight types of DeepLesion.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from LesionLib.networks.base import GeM, LesionNet
from LesionLib.networks.resnet import chosen, last_map, resnet_trunk, stage_channels


class LesionSearchNet(LesionNet):
    """ResNet-18 with the small stem -> two 3 x 3 convolutions -> GeM -> L2 -> linear.

    The stem is 3 x 3 without stride and pooling, as in the authors' code: 64 pixels leave an 8 x 8 map. The paper does
    not say how wide the two convolutions are; here they keep the trunk's channels, each with batch norm and ReLU.

    The classifier reads the descriptor at length 1, in the paper's order: what is classified is what is compared. No logit
    exceeds the length of its class's weights plus the bias, so that all are small at first; such a classifier wants about
    ten times the learning rate of one that reads the plain GeM.

    ``descriptor``: "gem", or "logits": the sigmoid of each type's logit, for the paper also speaks of descriptors "from
    the sigmoid classification layer". Only the comparison changes; the types exclude each other, so that `probabilities`
    is the softmax in either case. ``reduction``: length of a shorter descriptor, by a linear layer on the normalised GeM
    (Radenovic et al. reduce there); 256 is the length in the authors' code, which reduces an average. None keeps the
    trunk's 512. ``classes``: 8, DeepLesion's types. ``width`` "tiny" narrows the trunk, not the reduction. ``pooling``: "average" is
    the paper's row without GeM.
    """

    def __init__(
        self,
        *,
        classes: int = 8,
        channels: int = 1,
        descriptor: str = "gem",
        reduction: int | None = None,
        width: str = "full",
        pooling: str = "gem",
    ) -> None:
        super().__init__()
        chosen(descriptor, ("gem", "logits"), "descriptor")
        chosen(pooling, ("gem", "average"), "pooling")
        if reduction is not None and (type(reduction) is not int or reduction < 1):
            msg = f"reduction must be a whole number from 1, or None for the trunk's own length, not {reduction!r}"
            raise ValueError(msg)
        self.compares_types = descriptor == "logits"
        self.trunk = resnet_trunk(depth=18, channels=channels, width=width, stem="small")
        size = stage_channels(18, width)[-1]
        self.convs = nn.Sequential(_convolution(size), _convolution(size))
        self.pool = GeM() if pooling == "gem" else nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.reduction = None if reduction is None else nn.Linear(size, reduction)
        self.classifier = nn.Linear(reduction or size, classes)

    def features(self, x: Tensor) -> Tensor:
        """(batch, channel, row, column) -> (batch, 512, row / 8, column / 8), after the two convolutions."""
        return self.convs(last_map(self.trunk, x))

    def pooled(self, f: Tensor) -> Tensor:
        """GeM of the map, reduced where asked for, (batch, 512 or reduction); not normalised."""
        pooled = self.pool(f)
        return pooled if self.reduction is None else self.reduction(functional.normalize(pooled, dim=1))

    def descriptor(self, f: Tensor) -> Tensor:
        """`pooled`, or for "logits" one number from 0 to 1 per type, (batch, class); not normalised."""
        return self.head(f).sigmoid() if self.compares_types else self.pooled(f)

    def head(self, f: Tensor) -> Tensor:
        """Logits (batch, class)."""
        return self.classifier(functional.normalize(self.pooled(f), dim=1))


def _convolution(channels: int) -> nn.Sequential:
    conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels), nn.ReLU())
