"""Inception-V3 with torchvision's parameter names.

Szegedy et al., "Rethinking the Inception architecture for computer vision", CVPR 2016, in the form whose ImageNet weights
are published (torchvision; timm uses the same names). The published weights saw patches in -1..1: what torchvision calls
``transform_input`` brings patches that were scaled by ImageNet's mean and deviation back to that range. There is no such
step here, because our windowed patches are in -1..1 from the start.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTHS = {"full": 1, "tiny": 16}  # tiny: all layers of the full network, a sixteenth of its channels
_MIN_CHANNELS = 4
_AUXILIARY_GRID = 5
_AUXILIARY_SEES = 17  # rows and columns of the map that the auxiliary classifier was published for
Channels = Callable[[int], int]


def channels_at(width: str) -> Channels:
    """What makes the published number of channels that of ``width``; never fewer than four. Raises ValueError."""
    if width not in WIDTHS:
        msg = f"width must be one of {', '.join(map(repr, WIDTHS))}, not {width!r}"
        raise ValueError(msg)
    divisor = WIDTHS[width]
    return lambda channels: max(min(channels, _MIN_CHANNELS), channels // divisor)


def he_initialised(network: nn.Module) -> None:
    """Convolutions as in He et al., ICCV 2015: torch's own default fades to nothing over this many layers."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")


class ConvBN(nn.Module):
    """Convolution, batch norm (epsilon 0.001 as published), ReLU. ``padding`` None keeps rows and columns at stride 1."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int] = 1,
        *,
        stride: int = 1,
        padding: int | None = None,
    ) -> None:
        super().__init__()
        rows, columns = (kernel, kernel) if isinstance(kernel, int) else kernel
        pad = (rows // 2, columns // 2) if padding is None else padding
        self.out_channels = outputs
        self.conv = nn.Conv2d(inputs, outputs, (rows, columns), stride, pad, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs, h, w) -> (batch, outputs, h', w')."""
        return functional.relu(self.bn(self.conv(x)))


def reduction(inputs: int, outputs: int) -> ConvBN:
    """3 x 3 at stride 2 without padding, as wherever a map gets smaller."""
    return ConvBN(inputs, outputs, 3, stride=2, padding=0)


def smaller(x: Tensor) -> Tensor:
    """Maximum of 3 x 3 at stride 2: (batch, c, h, w) -> (batch, c, (h - 1) // 2, (w - 1) // 2)."""
    return functional.max_pool2d(x, 3, stride=2)


def _blurred(x: Tensor) -> Tensor:
    # The zeros around the patch count in the average, as in the published network.
    return functional.avg_pool2d(x, 3, stride=1, padding=1)


class _Grid35(nn.Module):
    """Paper, figure 5 (a 5 x 5 is kept where the paper draws two 3 x 3, as in the published network)."""

    def __init__(self, inputs: int, pooled: int, c: Channels) -> None:
        super().__init__()
        self.branch1x1 = ConvBN(inputs, c(64))
        self.branch5x5_1 = ConvBN(inputs, c(48))
        self.branch5x5_2 = ConvBN(c(48), c(64), 5)
        self.branch3x3dbl_1 = ConvBN(inputs, c(64))
        self.branch3x3dbl_2 = ConvBN(c(64), c(96), 3)
        self.branch3x3dbl_3 = ConvBN(c(96), c(96), 3)
        self.branch_pool = ConvBN(inputs, c(pooled))
        self.out_channels = 2 * c(64) + c(96) + c(pooled)

    def forward(self, x: Tensor) -> Tensor:
        five = self.branch5x5_2(self.branch5x5_1(x))
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), five, double, self.branch_pool(_blurred(x))], dim=1)


class _To17(nn.Module):
    """Paper, figure 10."""

    def __init__(self, inputs: int, c: Channels) -> None:
        super().__init__()
        self.branch3x3 = reduction(inputs, c(384))
        self.branch3x3dbl_1 = ConvBN(inputs, c(64))
        self.branch3x3dbl_2 = ConvBN(c(64), c(96), 3)
        self.branch3x3dbl_3 = reduction(c(96), c(96))
        self.out_channels = inputs + c(384) + c(96)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, smaller(x)], dim=1)


class _Grid17(nn.Module):
    """Paper, figure 6 with n = 7; ``inner`` channels within its branches."""

    def __init__(self, inputs: int, inner: int, c: Channels) -> None:
        super().__init__()
        self.branch1x1 = ConvBN(inputs, c(192))
        self.branch7x7_1 = ConvBN(inputs, c(inner))
        self.branch7x7_2 = ConvBN(c(inner), c(inner), (1, 7))
        self.branch7x7_3 = ConvBN(c(inner), c(192), (7, 1))
        self.branch7x7dbl_1 = ConvBN(inputs, c(inner))
        self.branch7x7dbl_2 = ConvBN(c(inner), c(inner), (7, 1))
        self.branch7x7dbl_3 = ConvBN(c(inner), c(inner), (1, 7))
        self.branch7x7dbl_4 = ConvBN(c(inner), c(inner), (7, 1))
        self.branch7x7dbl_5 = ConvBN(c(inner), c(192), (1, 7))
        self.branch_pool = ConvBN(inputs, c(192))
        self.out_channels = 4 * c(192)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), seven, double, self.branch_pool(_blurred(x))], dim=1)


class _To8(nn.Module):
    def __init__(self, inputs: int, c: Channels) -> None:
        super().__init__()
        self.branch3x3_1 = ConvBN(inputs, c(192))
        self.branch3x3_2 = reduction(c(192), c(320))
        self.branch7x7x3_1 = ConvBN(inputs, c(192))
        self.branch7x7x3_2 = ConvBN(c(192), c(192), (1, 7))
        self.branch7x7x3_3 = ConvBN(c(192), c(192), (7, 1))
        self.branch7x7x3_4 = reduction(c(192), c(192))
        self.out_channels = inputs + c(320) + c(192)

    def forward(self, x: Tensor) -> Tensor:
        three = self.branch3x3_2(self.branch3x3_1(x))
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        return torch.cat([three, self.branch7x7x3_4(seven), smaller(x)], dim=1)


class _Grid8(nn.Module):
    """Paper, figure 7: wider, not deeper."""

    def __init__(self, inputs: int, c: Channels) -> None:
        super().__init__()
        self.branch1x1 = ConvBN(inputs, c(320))
        self.branch3x3_1 = ConvBN(inputs, c(384))
        self.branch3x3_2a = ConvBN(c(384), c(384), (1, 3))
        self.branch3x3_2b = ConvBN(c(384), c(384), (3, 1))
        self.branch3x3dbl_1 = ConvBN(inputs, c(448))
        self.branch3x3dbl_2 = ConvBN(c(448), c(384), 3)
        self.branch3x3dbl_3a = ConvBN(c(384), c(384), (1, 3))
        self.branch3x3dbl_3b = ConvBN(c(384), c(384), (3, 1))
        self.branch_pool = ConvBN(inputs, c(192))
        self.out_channels = c(320) + 4 * c(384) + c(192)

    def forward(self, x: Tensor) -> Tensor:
        three = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        wide = [self.branch3x3_2a(three), self.branch3x3_2b(three)]
        wide += [self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)]
        return torch.cat([self.branch1x1(x), *wide, self.branch_pool(_blurred(x))], dim=1)


class InceptionAux(nn.Module):
    """The auxiliary classifier: logits from the map after Mixed_6e, so that the layers before it learn sooner.

    Published for 17 x 17 maps, of which it averages 5 x 5 places. A smaller map, 14 x 11 for 252 x 210 patches, would
    leave fewer places than its 5 x 5 convolution needs: there the places are chosen so that they are 5 x 5 again.
    """

    def __init__(self, inputs: int, classes: int, c: Channels) -> None:
        super().__init__()
        self.conv0 = ConvBN(inputs, c(128))
        self.conv1 = ConvBN(c(128), c(768), _AUXILIARY_GRID, padding=0)
        self.fc = nn.Linear(c(768), classes)

    def forward(self, middle: Tensor) -> Tensor:
        """(batch, 768, h, w) -> (batch, class)."""
        if min(middle.shape[2:]) >= _AUXILIARY_SEES:
            x = functional.avg_pool2d(middle, 5, stride=3)
        else:
            x = functional.adaptive_avg_pool2d(middle, _AUXILIARY_GRID)
        return self.fc(self.conv1(self.conv0(x)).mean(dim=(2, 3)))


class InceptionV3Trunk(nn.Module):
    """Everything before the global average: 2048 maps, 6 x 5 of them for 252 x 210 (rows x columns)."""

    smallest_side = 75  # a map of one place is left of it
    cell_centres = (
        37.0,
        32.0,
    )  # what gets smaller is not padded: 1 + 2 + 2 + 4 + 4 + 8 + 16 samples are left before the first

    def __init__(self, *, channels: int = 3, width: str = "full") -> None:
        super().__init__()
        c = channels_at(width)
        self.Conv2d_1a_3x3 = reduction(channels, c(32))
        self.Conv2d_2a_3x3 = ConvBN(c(32), c(32), 3, padding=0)
        self.Conv2d_2b_3x3 = ConvBN(c(32), c(64), 3)
        self.Conv2d_3b_1x1 = ConvBN(c(64), c(80))
        self.Conv2d_4a_3x3 = ConvBN(c(80), c(192), 3, padding=0)
        self.Mixed_5b = _Grid35(c(192), 32, c)
        self.Mixed_5c = _Grid35(self.Mixed_5b.out_channels, 64, c)
        self.Mixed_5d = _Grid35(self.Mixed_5c.out_channels, 64, c)
        self.Mixed_6a = _To17(self.Mixed_5d.out_channels, c)
        self.Mixed_6b = _Grid17(self.Mixed_6a.out_channels, 128, c)
        self.Mixed_6c = _Grid17(self.Mixed_6b.out_channels, 160, c)
        self.Mixed_6d = _Grid17(self.Mixed_6c.out_channels, 160, c)
        self.Mixed_6e = _Grid17(self.Mixed_6d.out_channels, 192, c)
        self.Mixed_7a = _To8(self.Mixed_6e.out_channels, c)
        self.Mixed_7b = _Grid8(self.Mixed_7a.out_channels, c)
        self.Mixed_7c = _Grid8(self.Mixed_7b.out_channels, c)
        self.middle_channels, self.out_channels = self.Mixed_6e.out_channels, self.Mixed_7c.out_channels
        he_initialised(self)

    def middle(self, x: Tensor) -> Tensor:
        """(batch, channel, row, column) -> (batch, 768, h, w), what the auxiliary classifier sees."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = smaller(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(smaller(x))))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        x = self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))
        return self.Mixed_6e(self.Mixed_6d(x))

    def last(self, middle: Tensor) -> Tensor:
        """The last map, (batch, 2048, h, w), from that of `middle`."""
        return self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(middle)))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channel, row, column) -> (batch, 2048, h, w)."""
        return self.last(self.middle(x))


class InceptionV3(InceptionV3Trunk):
    """The published classifier, all of whose names are torchvision's. Rows and columns: at least 75."""

    def __init__(self, *, classes: int = 1000, channels: int = 3, width: str = "full", auxiliary: bool = True) -> None:
        super().__init__(channels=channels, width=width)
        if auxiliary:
            self.AuxLogits = InceptionAux(self.middle_channels, classes, channels_at(width))
            he_initialised(self.AuxLogits)
        self.fc = nn.Linear(self.out_channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (batch, class), those of the auxiliary classifier left out."""
        return self.fc(super().forward(x).mean(dim=(2, 3)))
