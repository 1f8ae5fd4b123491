"""ResNet and SE-ResNet with the published parameter names, dense enough for small lesions; in 3-D ResNet-18 and one for shapes.

He et al., CVPR 2016; Hu et al., CVPR 2018. Published ImageNet files load as they are. Names and numbers are those of
``monai.networks.nets.resnet.ResNet``, which a test holds them to; MONAI itself takes seconds to import, and only the SE-ResNet is
made of its blocks. Strides beyond ``output_stride`` are left out and replaced by dilation (Yu et al., CVPR 2017): same weights,
and at every k-th position the same numbers, but a finer map.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from LesionLib.networks.base import LesionNet

_CONVOLUTIONS = {2: nn.Conv2d, 3: nn.Conv3d}
_NORMS = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_POOLS = {2: nn.MaxPool2d, 3: nn.MaxPool3d}


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and what was there before."""

    expansion = 1

    def __init__(
        self,
        inputs: int,
        planes: int,
        *,
        dimensions: int = 2,
        stride: int = 1,
        downsample: nn.Module | None = None,
    ) -> None:
        super().__init__()
        convolution, norm = _CONVOLUTIONS[dimensions], _NORMS[dimensions]
        self.conv1 = convolution(inputs, planes, 3, padding=1, stride=stride, bias=False)
        self.bn1 = norm(planes)
        self.act = nn.ReLU(inplace=True)
        self.conv2 = convolution(planes, planes, 3, padding=1, bias=False)
        self.bn2 = norm(planes)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs, ...) -> (batch, planes, ...)."""
        out = self.bn2(self.conv2(self.act(self.bn1(self.conv1(x)))))
        out += x if self.downsample is None else self.downsample(x)
        return self.act(out)


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions, the stride in the middle one, and what was there before."""

    expansion = 4

    def __init__(
        self,
        inputs: int,
        planes: int,
        *,
        dimensions: int = 2,
        stride: int = 1,
        downsample: nn.Module | None = None,
    ) -> None:
        super().__init__()
        convolution, norm = _CONVOLUTIONS[dimensions], _NORMS[dimensions]
        self.conv1 = convolution(inputs, planes, 1, bias=False)
        self.bn1 = norm(planes)
        self.conv2 = convolution(planes, planes, 3, stride=stride, padding=1, bias=False)
        self.bn2 = norm(planes)
        self.conv3 = convolution(planes, planes * self.expansion, 1, bias=False)
        self.bn3 = norm(planes * self.expansion)
        self.act = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs, ...) -> (batch, 4 x planes, ...)."""
        out = self.act(self.bn1(self.conv1(x)))
        out = self.bn3(self.conv3(self.act(self.bn2(self.conv2(out)))))
        out += x if self.downsample is None else self.downsample(x)
        return self.act(out)


class ResidualTrunk(nn.Module):
    """The stem and four stages. ``planes`` and ``layers``: channels and blocks of each stage; ``kernel``, ``stride``: the stem's."""

    def __init__(
        self,
        block: type[BasicBlock | Bottleneck],
        layers: Sequence[int],
        planes: Sequence[int],
        *,
        dimensions: int,
        channels: int,
        kernel: int,
        stride: int,
        pooled: bool,
    ) -> None:
        super().__init__()
        convolution, norm = _CONVOLUTIONS[dimensions], _NORMS[dimensions]
        self.dimensions, self.inputs, self.pooled = dimensions, planes[0], pooled
        self.stem_stride = stride * (2 if pooled else 1)
        self.conv1 = convolution(channels, planes[0], kernel, stride=stride, padding=kernel // 2, bias=False)
        self.bn1 = norm(planes[0])
        self.act = nn.ReLU(inplace=True)
        self.maxpool = _POOLS[dimensions](3, stride=2, padding=1)
        self.layer1 = self._stage(block, planes[0], layers[0], stride=1)
        self.layer2 = self._stage(block, planes[1], layers[1], stride=2)
        self.layer3 = self._stage(block, planes[2], layers[2], stride=2)
        self.layer4 = self._stage(block, planes[3], layers[3], stride=2)
        for module in self.modules():
            if isinstance(module, convolution):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @property
    def cell_centres(self) -> tuple[float, float]:
        """See `LesionNet.cell_centres`; its kernels are odd and padded by half, so that each stride keeps the first sample."""
        return 0.0, float(self.stem_stride * stride_of(stages_of(self)))

    def _stage(self, block: type[BasicBlock | Bottleneck], planes: int, count: int, *, stride: int) -> nn.Sequential:
        outputs, downsample, blocks = planes * block.expansion, None, []
        if stride != 1 or self.inputs != outputs:
            convolution = _CONVOLUTIONS[self.dimensions](self.inputs, outputs, 1, stride=stride, bias=False)
            downsample = nn.Sequential(convolution, _NORMS[self.dimensions](outputs))
        for number in range(count):
            first = number == 0
            blocks.append(
                block(
                    self.inputs, planes,
                    dimensions=self.dimensions, stride=stride if first else 1, downsample=downsample if first else None,
                )
            )  # fmt: skip
            self.inputs = outputs
        return nn.Sequential(*blocks)


# depth -> block, blocks per stage (He et al., table 1)
_DEPTHS = {
    18: (BasicBlock, [2, 2, 2, 2]),
    34: (BasicBlock, [3, 4, 6, 3]),
    50: (Bottleneck, [3, 4, 6, 3]),
    101: (Bottleneck, [3, 4, 23, 3]),
    152: (Bottleneck, [3, 8, 36, 3]),
}
_PLANES = (64, 128, 256, 512)
WIDTH_DIVISORS = {"full": 1, "tiny": 16}  # tiny: all layers of the full network, a sixteenth of its channels
# stem -> kernel, stride, pooled; "small" is that of small patches (He et al., section 4.2)
_STEMS = {"imagenet": (7, 2, True), "small": (3, 1, False)}


def chosen(value: object, allowed: Iterable[object], name: str) -> None:
    """Raise ValueError unless ``value`` is one of ``allowed``; types count: True is not 1."""
    if not any(type(value) is type(a) and value == a for a in allowed):
        msg = f"{name} must be one of {', '.join(map(repr, allowed))}, not {value!r}"
        raise ValueError(msg)


def stage_channels(depth: int, width: str) -> tuple[int, int, int, int]:
    """Channels of the four stages' maps: 256, 512, 1024, 2048 for ResNet-50 and deeper."""
    expansion = _DEPTHS[depth][0].expansion
    return tuple(planes // WIDTH_DIVISORS[width] * expansion for planes in _PLANES)


def resnet_trunk(
    *,
    depth: int,
    channels: int,
    width: str,
    output_stride: int = 32,
    stem: str = "imagenet",
    spatial_dims: int = 2,
    stem_stride: int | None = None,
    block: type[BasicBlock | Bottleneck] | None = None,
) -> ResidualTrunk:
    """A ResNet without its classifier. ``stem_stride`` replaces the stem's own, ``block`` the depth's. Raises ValueError."""
    chosen(depth, _DEPTHS, "depth")
    chosen(width, WIDTH_DIVISORS, "width")
    chosen(output_stride, (32, 16, 8), "output_stride")
    chosen(stem, _STEMS, "stem")
    own_block, layers = _DEPTHS[depth]
    kernel, own_stride, pooled = _STEMS[stem]
    stride = stem_stride or own_stride
    trunk = ResidualTrunk(
        block or own_block,
        layers,
        [planes // WIDTH_DIVISORS[width] for planes in _PLANES],
        dimensions=spatial_dims,
        channels=channels,
        kernel=kernel,
        stride=stride,
        pooled=pooled,
    )
    replace_strides(stages_of(trunk), stride_so_far=trunk.stem_stride, output_stride=output_stride)
    return trunk


def stages_of(trunk: nn.Module) -> list[nn.Sequential]:
    """The four stages."""
    return [trunk.layer1, trunk.layer2, trunk.layer3, trunk.layer4]


def stride_of(stages: list[nn.Sequential]) -> int:
    """How many samples of their input lie between two cells of the last stage's map."""
    return math.prod(max(max(conv.stride) for conv in _convolutions(stage)) for stage in stages)


def stage_maps(trunk: ResidualTrunk, x: Tensor) -> Iterator[Tensor]:
    """The maps after the four stages, first to last; each is computed when it is asked for."""
    x = trunk.act(trunk.bn1(trunk.conv1(x)))
    x = trunk.maxpool(x) if trunk.pooled else x
    for stage in stages_of(trunk):
        x = stage(x)
        yield x


def last_map(trunk: ResidualTrunk, x: Tensor) -> Tensor:
    """The map after the fourth stage."""
    return deque(stage_maps(trunk, x), maxlen=1).pop()  # earlier maps are let go as soon as they are used


def replace_strides(stages: list[nn.Sequential], *, stride_so_far: int, output_stride: int) -> None:
    """Leave out the strides beyond ``output_stride`` (in place) and dilate what comes after them."""
    dilation = 1
    for stage in stages:
        convs = _convolutions(stage)
        strided = any(max(conv.stride) > 1 for conv in convs)
        if strided and stride_so_far < output_stride:
            stride_so_far *= 2
        elif strided:
            dilation = _dilate(convs, dilation)


def _convolutions(stage: nn.Module) -> list[nn.Conv2d | nn.Conv3d]:
    return [module for module in stage.modules() if isinstance(module, nn.Conv2d | nn.Conv3d)]


def _dilate(convs: list[nn.Module], dilation: int) -> int:
    # The convolution that loses its stride still sees its input as before; those after it see a map twice as dense.
    # torchvision and timm do the same; fyu/drn keeps the whole first block of a stage undilated, with equal shapes.
    current = dilation
    for conv in convs:
        if conv.kernel_size[0] > 1:
            conv.dilation = conv.padding = (current,) * len(conv.kernel_size)
        if max(conv.stride) > 1:
            conv.stride = (1,) * len(conv.kernel_size)
            current = 2 * dilation
    return current


class PooledNet(LesionNet):
    """Last map -> global average -> dropout -> linear; Grad-CAM of such a network is its CAM."""

    def __init__(self, feature_count: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(feature_count, classes))

    def descriptor(self, f: Tensor) -> Tensor:
        """Global average of the map, (batch, feature)."""
        return f.flatten(2).mean(dim=2)

    def head(self, f: Tensor) -> Tensor:
        """Logits (batch, class)."""
        return self.classifier(self.descriptor(f))


class ResNet(PooledNet):
    """ResNet-18 to 152. ``output_stride`` is the largest stride of the last map; with the small stem it is at most 8."""

    def __init__(
        self,
        *,
        depth: int = 50,
        classes: int = 2,
        channels: int = 3,
        output_stride: int = 32,
        stem: str = "imagenet",
        width: str = "full",
        dropout: float = 0.0,
    ) -> None:
        trunk = resnet_trunk(depth=depth, channels=channels, width=width, output_stride=output_stride, stem=stem)
        super().__init__(stage_channels(depth, width)[-1], classes, dropout)
        self.trunk = trunk

    def features(self, x: Tensor) -> Tensor:
        """(batch, channel, row, column) -> (batch, 2048 or 512, row / output_stride, column / output_stride)."""
        return last_map(self.trunk, x)


def _se_trunk(channels: int, divisor: int) -> nn.Module:
    """MONAI's SE-ResNet-50 whose stages can be narrow: its own constructor fixes their channels."""
    from monai.networks.nets.senet import SENet  # takes five seconds, and no other network needs it

    class NarrowSENet(SENet):
        def _make_layer(self, block: type, planes: int, blocks: int, **arguments: int) -> nn.Sequential:
            return super()._make_layer(block, planes // divisor, blocks, **arguments)

    trunk = NarrowSENet(
        spatial_dims=2,
        in_channels=channels,
        block="se_resnet_bottleneck",
        layers=_DEPTHS[50][1],
        groups=1,
        reduction=16,
        dropout_prob=None,
        inplanes=64 // divisor,
        downsample_kernel_size=1,
        input_3x3=False,
    )
    del trunk.last_linear, trunk.adaptive_avg_pool
    return trunk


class SEResNet50(PooledNet):
    """ResNet-50 with squeeze and excitation, strides in the first 1 x 1 convolutions as in the published weights."""

    def __init__(
        self,
        *,
        classes: int = 2,
        channels: int = 3,
        output_stride: int = 32,
        width: str = "full",
        dropout: float = 0.0,
    ) -> None:
        chosen(width, WIDTH_DIVISORS, "width")
        chosen(output_stride, (32, 16, 8), "output_stride")
        super().__init__(stage_channels(50, width)[-1], classes, dropout)
        self.trunk = _se_trunk(channels, WIDTH_DIVISORS[width])
        replace_strides(stages_of(self.trunk), stride_so_far=4, output_stride=output_stride)
        # MONAI pools the stem without padding: its first cell is centred on the third sample.
        self.trunk.cell_centres = 2.0, 4.0 * stride_of(stages_of(self.trunk))

    def features(self, x: Tensor) -> Tensor:
        """(batch, channel, row, column) -> (batch, 2048, row / output_stride, column / output_stride)."""
        return self.trunk.features(x)


class ResNet3D(PooledNet):
    """ResNet-18 in three dimensions, for small cubes of CT and for shape masks.

    ``stem_stride`` 1: 28 -> 4 voxels; 2: 28 -> 2, an eighth of the computing. He et al., CVPR 2016, with 3 x 3 x 3 kernels
    (Hara et al., CVPR 2018) and the stem of small patches: a cube of 28 voxels has nothing to lose to a pooled 7 x 7 x 7 stem
    (Yang et al., "MedMNIST v2", Sci Data 2023, do the same).
    """

    def __init__(
        self,
        *,
        classes: int = 2,
        channels: int = 1,
        stem_stride: int = 1,
        width: str = "full",
        dropout: float = 0.0,
    ) -> None:
        chosen(stem_stride, (1, 2), "stem_stride")
        trunk = resnet_trunk(
            depth=18, channels=channels, width=width, stem="small", stem_stride=stem_stride, spatial_dims=3
        )
        super().__init__(stage_channels(18, width)[-1], classes, dropout)
        self.trunk = trunk

    def features(self, x: Tensor) -> Tensor:
        """(batch, channel, slice, row, column) -> (batch, 512, slice / s, row / s, column / s), s = 8 x stem_stride."""
        return last_map(self.trunk, x)


_MIRRORED = tuple(tuple(axis + 2 for axis in range(3) if number >> axis & 1) for number in range(8))
_LARGEST_SHAPE_WIDTH = 64


class ShapeNet(LesionNet):
    """Five convolutions of 3-D, global average, dropout, linear; 28 -> 4 voxels.

    A mask has no grey values to learn from, and masks are made in frames that nobody wrote down. So in evaluation the shape is
    seen from its eight mirror images along the axes, whose maps stand one after the other among the features, each turned back into
    the given frame, and whose logits are averaged: left and right glands get one answer. In training it is seen once; there the
    augmentation mirrors. ``width``: channels of the first convolution; 8 is enough for a thousand shapes.
    """

    def __init__(self, *, classes: int = 2, channels: int = 1, width: int = 40, dropout: float = 0.2) -> None:
        super().__init__()
        if not 1 <= width <= _LARGEST_SHAPE_WIDTH:
            msg = f"width must be from 1 to {_LARGEST_SHAPE_WIDTH}, not {width}"
            raise ValueError(msg)
        self.trunk = nn.Sequential(
            _block(channels, width, stride=2, kernel=4),
            _block(width, 2 * width, stride=2),
            _block(2 * width, 2 * width),
            _block(2 * width, 4 * width, stride=2),
            _block(4 * width, 4 * width),
        )
        self.size = 4 * width
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(self.size, classes))

    def features(self, x: Tensor) -> Tensor:
        """(batch, channel, slice, row, column) -> (batch, 8 x 4 x width, slice / 8, row / 8, column / 8); one view in training."""
        if self.training:
            return self.trunk(x)
        return torch.cat([self.trunk(x.flip(axes)).flip(axes) if axes else self.trunk(x) for axes in _MIRRORED], dim=1)

    def descriptor(self, f: Tensor) -> Tensor:
        """Global average, (batch, 4 x width), mean over the views."""
        return f.flatten(2).mean(dim=2).unflatten(1, (-1, self.size)).mean(dim=1)

    def head(self, f: Tensor) -> Tensor:
        """Logits (batch, class): linear, so that those of the mean descriptor are the mean of the views' logits."""
        return self.classifier(self.descriptor(f))


def _block(inputs: int, outputs: int, *, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    convolution = nn.Conv3d(inputs, outputs, kernel, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm3d(outputs), nn.ReLU(inplace=True))
