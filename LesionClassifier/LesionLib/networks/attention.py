"""Spatial and channel attention, each normalised by sigmoid or softmax.

The dual attention of Fu et al., CVPR 2019 (DANet), in the variants of the dual attention dilated residual network: A
weighs by sigmoid, B by softmax. A sigmoid is not normalised: its rows add up to about half their length.
"""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor, nn


class SpatialAttention(nn.Module):
    """Every position gathers from all positions: y_j = A_j + beta * sum_i alpha_ji D_i.

    alpha_ji = sigmoid or softmax over i of S_ji = B1_j . B2_i, where B1, B2 (C / 8 channels) and D (C) are 1 x 1
    convolutions of the input A. ``scale`` divides S by sqrt(C / 8), else its size grows with the channels.
    """

    def __init__(self, channels: int, *, normalise: str, scale: bool) -> None:
        super().__init__()
        self.normalise = normalise
        self.query = nn.Conv2d(channels, channels // 8, 1)
        self.key = nn.Conv2d(channels, channels // 8, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.beta = nn.Parameter(torch.zeros(1))  # starts as the identity, as DANet's
        self.divisor = sqrt(channels // 8) if scale else 1.0

    def weights(self, a: Tensor) -> Tensor:
        """alpha, (batch, position j, position i)."""
        s = self.query(a).flatten(2).transpose(1, 2) @ self.key(a).flatten(2) / self.divisor
        return s.sigmoid() if self.normalise == "sigmoid" else s.softmax(dim=2)

    def forward(self, a: Tensor) -> Tensor:
        """(batch, C, h, w) -> the same shape."""
        o = self.value(a).flatten(2) @ self.weights(a).transpose(1, 2)
        return a + self.beta * o.view_as(a)


class ChannelAttention(nn.Module):
    """Every channel gathers from all channels: y_j = A_j + beta * sum_i alpha_ji A_i; no convolutions.

    alpha_ji = sigmoid(S_ji), or softmax over i of max_i(S_ji) - S_ji as in DANet, where S = A A^T over the positions.
    ``scale`` divides S by the number of positions: a sum over 784 of them saturates either.
    """

    def __init__(self, *, normalise: str, scale: bool) -> None:
        super().__init__()
        self.normalise, self.scale = normalise, scale
        self.beta = nn.Parameter(torch.zeros(1))

    def weights(self, a: Tensor) -> Tensor:
        """alpha, (batch, channel j, channel i)."""
        flat = a.flatten(2)
        # Divided before the product: a sum over many positions would overflow half precision.
        s = flat / (flat.shape[2] if self.scale else 1.0) @ flat.transpose(1, 2)
        return s.sigmoid() if self.normalise == "sigmoid" else (s.amax(dim=2, keepdim=True) - s).softmax(dim=2)

    def forward(self, a: Tensor) -> Tensor:
        """(batch, C, h, w) -> the same shape."""
        o = self.weights(a) @ a.flatten(2)
        return a + self.beta * o.view_as(a)


class Attention(nn.Module):
    """One or both attentions on a map, each behind its own 3 x 3 reduction where asked for (DANet reduces to 512).

    ``kind``: "dual", "spatial" or "channel". ``fusion`` of "dual": "sum" or "concat". ``out_channels``: of the result.
    """

    def __init__(
        self, channels: int, *, kind: str, normalise: str, fusion: str, scale: bool, reduce: int | None
    ) -> None:
        super().__init__()
        inner = reduce or channels
        branches: dict[str, nn.Module] = {}
        if kind in ("dual", "spatial"):
            branches["spatial"] = SpatialAttention(inner, normalise=normalise, scale=scale)
        if kind in ("dual", "channel"):
            branches["channel"] = ChannelAttention(normalise=normalise, scale=scale)
        self.branches = nn.ModuleDict(
            {name: nn.Sequential(_reduction(channels, reduce), branch) for name, branch in branches.items()}
        )
        self.concatenates = fusion == "concat"
        self.out_channels = inner * (len(branches) if self.concatenates else 1)

    def forward(self, a: Tensor) -> Tensor:
        """(batch, C, h, w) -> (batch, out_channels, h, w)."""
        maps = [branch(a) for branch in self.branches.values()]
        return torch.cat(maps, dim=1) if self.concatenates else sum(maps[1:], maps[0])


def _reduction(channels: int, reduce: int | None) -> nn.Module:
    if reduce is None:
        return nn.Identity()
    conv = nn.Conv2d(channels, reduce, 3, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(reduce), nn.ReLU())
