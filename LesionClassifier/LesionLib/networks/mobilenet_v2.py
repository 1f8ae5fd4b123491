"""MobileNetV2 with the usual parameter names, dense enough for small lesions.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018, table 2. With ``stem_stride=1`` and
``output_stride=8`` the 64 x 64 patch of a nodule gives an 8 x 8 map instead of 2 x 2; the weights keep their shapes,
so that ImageNet weights still load. Strides that are left out are replaced by dilation (Yu et al., CVPR 2017) in the blocks
after them, as in `resnet`.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from LesionLib.networks.base import LesionNet

# expansion, output channels, repeats, stride
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
_STEM_CHANNELS, _LAST_CHANNELS = 32, 1280


def _scaled(channels: int, width: float) -> int:
    """Channels times width, rounded to a multiple of 8 but never down by more than a tenth (as published)."""
    rounded = max(8, int(channels * width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels * width else rounded


def _conv_bn_relu6(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1, groups: int = 1, dilation: int = 1):
    padding = (kernel - 1) // 2 * dilation
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU6(inplace=True))


class InvertedResidual(nn.Module):
    """Expand, filter depth-wise, project; added to the input where the shapes allow."""

    def __init__(self, inputs: int, outputs: int, *, expansion: int, stride: int, dilation: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        expand = [_conv_bn_relu6(inputs, hidden, kernel=1)] if expansion != 1 else []
        self.conv = nn.Sequential(
            *expand,
            _conv_bn_relu6(hidden, hidden, stride=stride, groups=hidden, dilation=dilation),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.adds_input = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs, h, w) -> (batch, outputs, h / stride, w / stride)."""
        return x + self.conv(x) if self.adds_input else self.conv(x)


class MobileNetV2(LesionNet):
    """MobileNetV2 classifier; descriptor = global average of its last map (1280 up to full width).

    ``width`` scales all channels; ``stem_stride`` 1 or 2; ``output_stride`` (8, 16 or 32) relative to the input.
    """

    def __init__(
        self,
        *,
        classes: int = 2,
        channels: int = 3,
        width: float = 1.0,
        stem_stride: int = 2,
        output_stride: int = 32,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        if stem_stride not in (1, 2) or output_stride not in (8, 16, 32):
            msg = f"stem_stride must be 1 or 2 and output_stride 8, 16 or 32, not {stem_stride} and {output_stride}"
            raise ValueError(msg)
        self.stride = min(output_stride, stem_stride * math.prod(stride for *_, stride in _STAGES))
        stem = _scaled(_STEM_CHANNELS, width)
        last = _scaled(_LAST_CHANNELS, max(1.0, width))  # as published: narrow nets keep their 1280 descriptors
        blocks: list[nn.Module] = [_conv_bn_relu6(channels, stem, stride=stem_stride)]
        blocks += self._stages(stem, width, stride_so_far=stem_stride, output_stride=output_stride)
        blocks.append(_conv_bn_relu6(_scaled(_STAGES[-1][1], width), last, kernel=1))
        self.features_ = nn.Sequential(*blocks)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(last, classes))

    @property
    def cell_centres(self) -> tuple[float, float]:
        """See `LesionNet.cell_centres`; its kernels are odd and padded by half, so that each stride keeps the first sample."""
        return 0.0, float(self.stride)

    @staticmethod
    def _stages(inputs: int, width: float, *, stride_so_far: int, output_stride: int) -> list[nn.Module]:
        blocks: list[nn.Module] = []
        dilation = 1
        for expansion, channels, repeats, stage_stride in _STAGES:
            outputs, stride, before = _scaled(channels, width), stage_stride, dilation
            if stride == 2 and stride_so_far >= output_stride:
                stride, dilation = 1, dilation * 2
            stride_so_far *= stride
            for repeat in range(repeats):
                # The block that loses its stride still sees an undilated map; those after it make up for it.
                step, spread = (stride, before) if repeat == 0 else (1, dilation)
                blocks.append(InvertedResidual(inputs, outputs, expansion=expansion, stride=step, dilation=spread))
                inputs = outputs
        return blocks

    def features(self, x: Tensor) -> Tensor:
        """(batch, channel, row, column) -> (batch, 1280, row / output_stride, column / output_stride)."""
        return self.features_(x)

    def descriptor(self, f: Tensor) -> Tensor:
        """Global average of the map."""
        return f.mean(dim=(2, 3))

    def head(self, f: Tensor) -> Tensor:
        """Logits (batch, class)."""
        return self.classifier(self.descriptor(f))
