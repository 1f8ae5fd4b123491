"""What every network promises: features, head, embedding."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class LesionNet(nn.Module, ABC):
    """``forward(x) = head(features(x))``: Grad-CAM then differentiates the head alone.

    ``x``: float32, shape (batch, channel, row, column), or (batch, channel, slice, row, column) for 3-D networks.
    """

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """The map that Grad-CAM weighs: (batch, feature, h, w) or (batch, feature, d, h, w)."""

    @abstractmethod
    def head(self, f: Tensor) -> Tensor:
        """Logits (batch, class) from a feature map."""

    @abstractmethod
    def descriptor(self, f: Tensor) -> Tensor:
        """What is compared in retrieval, (batch, d), from a feature map; not normalised."""

    def features_of_lesions(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        """`features` of the pictures of several lesions, ``counts[i]`` of the i-th; for networks that must tell them apart."""
        return self.features(x)

    def reference_values(self, f: Tensor) -> Tensor:
        """What must be the same on every machine, (batch, n), continuous in the features: the logits."""
        return self.head(f)

    def embed(self, x: Tensor) -> Tensor:
        """L2-normalised descriptor, (batch, d)."""
        return functional.normalize(self.descriptor(self.features(x)), dim=1)

    def probabilities(self, logits: Tensor, temperature: float = 1.0) -> Tensor:
        """Class probabilities (batch, class) from what `head` returns."""
        return (logits / temperature).softmax(dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (batch, class)."""
        return self.head(self.features(x))


def device_of(network: nn.Module) -> torch.device:
    """Where the network's weights are."""
    return next(network.parameters()).device
