"""Siamese ResNet: a short descriptor whose distances mean likeness, learned from pairs, for retrieval.

Chung and Weng, "Learning deep representations of medical images using Siamese CNNs with application to content-based
image retrieval", 2017: both patches of a pair go through this one network; the loss compares their descriptors.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from LesionLib.metric import COSINE, EUCLIDEAN, HEIGHT, METRICS
from LesionLib.networks.base import LesionNet
from LesionLib.networks.resnet import chosen, last_map, resnet_trunk, stage_channels


class SiameseNet(LesionNet):
    """ResNet -> global average -> dropout -> linear. The paper leaves the descriptor's length open; 128 is ours.

    ``normalize``: `head` returns descriptors of length 1, which bounds distances by 2; the paper does not. ``metric``: the paper
    compares by Euclidean distance; models made before it was an argument are compared by cosine.
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
        metric: str = COSINE,
    ) -> None:
        super().__init__()
        chosen(metric, METRICS, "metric")
        self.metric = metric
        self.trunk = resnet_trunk(depth=depth, channels=channels, width=width)
        self.projection = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(stage_channels(depth, width)[-1], descriptor_size)
        )
        self.normalize = normalize

    def features(self, x: Tensor) -> Tensor:
        """(batch, channel, row, column) -> (batch, 2048 or 512, row / 32, column / 32)."""
        return last_map(self.trunk, x)

    def descriptor(self, f: Tensor) -> Tensor:
        """(batch, descriptor_size), not normalised; of the Euclidean metric (batch, descriptor_size + 1), see `LesionLib.metric`."""
        if self.metric != EUCLIDEAN:
            return self._projected(f)
        points = self.head(f)
        return torch.cat([points, points.new_full((len(points), 1), HEIGHT)], dim=1)

    def head(self, f: Tensor) -> Tensor:
        """The descriptor that is compared, (batch, descriptor_size): there are no classes."""
        descriptor = self._projected(f)
        return functional.normalize(descriptor, dim=1) if self.normalize else descriptor

    def _projected(self, f: Tensor) -> Tensor:
        return self.projection(f.flatten(2).mean(dim=2))

    def probabilities(self, logits: Tensor, temperature: float = 1.0) -> Tensor:
        """Refused with TypeError: numbers of a descriptor must not read as probabilities."""
        msg = "a Siamese network compares; it has no classes. Use embed() and the case library"
        raise TypeError(msg)


class SingleCNN(LesionNet):
    """The classifier that the Siamese network is compared with: ResNet -> average -> dropout -> linear, ReLU -> linear.

    ``descriptor``: what is compared, as in the paper's table: "third_last" (the average, 2048 for ResNet-50), "second_last" (the
    linear layer's ``descriptor_size``) or "softmax" (the class probabilities). ``metric``: as in `SiameseNet`.
    """

    def __init__(
        self,
        *,
        depth: int = 50,
        classes: int = 5,
        channels: int = 3,
        descriptor: str = "third_last",
        descriptor_size: int = 128,
        dropout: float = 0.25,
        width: str = "full",
        metric: str = EUCLIDEAN,
    ) -> None:
        super().__init__()
        chosen(metric, METRICS, "metric")
        chosen(descriptor, ("third_last", "second_last", "softmax"), "descriptor")
        self.metric, self.compared = metric, descriptor
        self.trunk = resnet_trunk(depth=depth, channels=channels, width=width)
        size = stage_channels(depth, width)[-1]
        self.projection = nn.Sequential(nn.Dropout(dropout), nn.Linear(size, descriptor_size), nn.ReLU())
        self.classifier = nn.Linear(descriptor_size, classes)

    def features(self, x: Tensor) -> Tensor:
        """(batch, channel, row, column) -> (batch, 2048 or 512, row / 32, column / 32)."""
        return last_map(self.trunk, x)

    def descriptor(self, f: Tensor) -> Tensor:
        """(batch, length), not normalised; of the Euclidean metric (batch, length + 1), see `LesionLib.metric`."""
        average = f.flatten(2).mean(dim=2)
        if self.compared == "third_last":
            compared = average
        else:
            second = self.projection(average)
            compared = second if self.compared == "second_last" else self.classifier(second).softmax(dim=1)
        if self.metric != EUCLIDEAN:
            return compared
        return torch.cat([compared, compared.new_full((len(compared), 1), HEIGHT)], dim=1)

    def head(self, f: Tensor) -> Tensor:
        """Logits (batch, class)."""
        return self.classifier(self.projection(f.flatten(2).mean(dim=2)))
