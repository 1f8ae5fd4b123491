"""Inception-ResNet-V2 with the parameter names of its published PyTorch weights (Cadene's pretrained-models).

Szegedy et al., "Inception-v4, Inception-ResNet and the impact of residual connections on learning", AAAI 2017. The widths
are those of the published TensorFlow weights, which differ a little from the paper's figures. Patches in -1..1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from LesionLib.networks.inception_v3 import Channels, ConvBN, channels_at, he_initialised, reduction, smaller

_Kernel = int | tuple[int, int]


def _chain(inputs: int, *layers: tuple[int, _Kernel]) -> nn.Sequential:
    """One convolution after another, each given by its output channels and kernel."""
    convolutions = []
    for outputs, kernel in layers:
        convolutions.append(ConvBN(inputs, outputs, kernel))
        inputs = outputs
    return nn.Sequential(*convolutions)


class _Mixed5b(nn.Module):
    def __init__(self, inputs: int, c: Channels) -> None:
        super().__init__()
        self.branch0 = ConvBN(inputs, c(96))
        self.branch1 = _chain(inputs, (c(48), 1), (c(64), 5))
        self.branch2 = _chain(inputs, (c(64), 1), (c(96), 3), (c(96), 3))
        # Here zeros around the patch do not count, unlike in Inception-V3.
        blur = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
        self.branch3 = nn.Sequential(blur, ConvBN(inputs, c(64)))
        self.out_channels = 2 * c(96) + 2 * c(64)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch0(x), self.branch1(x), self.branch2(x), self.branch3(x)], dim=1)


class ResidualInception(nn.Module):
    """x + scale * conv(branches(x)), then ReLU unless it is the last: section 3.3 of the paper."""

    def __init__(self, inputs: int, branches: list[nn.Module], merged: int, *, scale: float, relu: bool = True) -> None:
        super().__init__()
        self.branch_count = len(branches)
        for i, branch in enumerate(branches):
            self.add_module(f"branch{i}", branch)
        self.conv2d = nn.Conv2d(merged, inputs, 1)
        self.scale, self.relu = scale, relu

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs, h, w) -> the same shape."""
        merged = torch.cat([self.get_submodule(f"branch{i}")(x) for i in range(self.branch_count)], dim=1)
        x = x + self.scale * self.conv2d(merged)
        return functional.relu(x) if self.relu else x


def _block35(inputs: int, c: Channels) -> ResidualInception:
    first, second = ConvBN(inputs, c(32)), _chain(inputs, (c(32), 1), (c(32), 3))
    third = _chain(inputs, (c(32), 1), (c(48), 3), (c(64), 3))
    return ResidualInception(inputs, [first, second, third], 2 * c(32) + c(64), scale=0.17)


def _block17(inputs: int, c: Channels) -> ResidualInception:
    second = _chain(inputs, (c(128), 1), (c(160), (1, 7)), (c(192), (7, 1)))
    return ResidualInception(inputs, [ConvBN(inputs, c(192)), second], 2 * c(192), scale=0.10)


def _block8(inputs: int, c: Channels, *, scale: float = 0.20, relu: bool = True) -> ResidualInception:
    second = _chain(inputs, (c(192), 1), (c(224), (1, 3)), (c(256), (3, 1)))
    return ResidualInception(inputs, [ConvBN(inputs, c(192)), second], c(192) + c(256), scale=scale, relu=relu)


class _Mixed6a(nn.Module):
    def __init__(self, inputs: int, c: Channels) -> None:
        super().__init__()
        self.branch0 = reduction(inputs, c(384))
        self.branch1 = _chain(inputs, (c(256), 1), (c(256), 3)).append(reduction(c(256), c(384)))
        self.out_channels = inputs + 2 * c(384)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch0(x), self.branch1(x), smaller(x)], dim=1)


class _Mixed7a(nn.Module):
    def __init__(self, inputs: int, c: Channels) -> None:
        super().__init__()
        self.branch0 = _chain(inputs, (c(256), 1)).append(reduction(c(256), c(384)))
        self.branch1 = _chain(inputs, (c(256), 1)).append(reduction(c(256), c(288)))
        self.branch2 = _chain(inputs, (c(256), 1), (c(288), 3)).append(reduction(c(288), c(320)))
        self.out_channels = inputs + c(384) + c(288) + c(320)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch0(x), self.branch1(x), self.branch2(x), smaller(x)], dim=1)


class InceptionResNetV2Trunk(nn.Module):
    """Everything before the global average: 1536 maps, 6 x 5 of them for 252 x 210 (rows x columns)."""

    smallest_side = 75  # a map of one place is left of it
    cell_centres = (
        37.0,
        32.0,
    )  # what gets smaller is not padded: 1 + 2 + 2 + 4 + 4 + 8 + 16 samples are left before the first

    def __init__(self, *, channels: int = 3, width: str = "full") -> None:
        super().__init__()
        c = channels_at(width)
        self.conv2d_1a = reduction(channels, c(32))
        self.conv2d_2a = ConvBN(c(32), c(32), 3, padding=0)
        self.conv2d_2b = ConvBN(c(32), c(64), 3)
        self.conv2d_3b = ConvBN(c(64), c(80))
        self.conv2d_4a = ConvBN(c(80), c(192), 3, padding=0)
        self.mixed_5b = _Mixed5b(c(192), c)
        first = self.mixed_5b.out_channels
        self.repeat = nn.Sequential(*(_block35(first, c) for _ in range(10)))
        self.mixed_6a = _Mixed6a(first, c)
        second = self.mixed_6a.out_channels
        self.repeat_1 = nn.Sequential(*(_block17(second, c) for _ in range(20)))
        self.mixed_7a = _Mixed7a(second, c)
        third = self.mixed_7a.out_channels
        self.repeat_2 = nn.Sequential(*(_block8(third, c) for _ in range(9)))
        self.block8 = _block8(third, c, scale=1.0, relu=False)
        self.conv2d_7b = ConvBN(third, c(1536))
        self.out_channels = c(1536)
        he_initialised(self)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channel, row, column) -> (batch, 1536, h, w)."""
        x = self.conv2d_2b(self.conv2d_2a(self.conv2d_1a(x)))
        x = smaller(self.conv2d_4a(self.conv2d_3b(smaller(x))))
        x = self.repeat(self.mixed_5b(x))
        x = self.repeat_1(self.mixed_6a(x))
        x = self.repeat_2(self.mixed_7a(x))
        return self.conv2d_7b(self.block8(x))


class InceptionResNetV2(InceptionResNetV2Trunk):
    """The published classifier, all of whose names are Cadene's. Rows and columns: at least 75."""

    def __init__(self, *, classes: int = 1000, channels: int = 3, width: str = "full") -> None:
        super().__init__(channels=channels, width=width)
        self.last_linear = nn.Linear(self.out_channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (batch, class)."""
        return self.last_linear(super().forward(x).mean(dim=(2, 3)))
