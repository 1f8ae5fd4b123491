"""DMRN: deep multi-scale resemblance network, for adrenal masses.

A ResNet learned from pairs: at each of its four stages a residual pooling unit makes a descriptor, and a contrastive loss
compares the pair's descriptors there (paper, eq. 1 to 5). The answer comes from a linear support vector machine on the
last descriptor. "Combining" the scales (paper, eq. 2) is read as the sum of the four losses; the concatenated descriptor
is a variant. Beside it the networks of its tables that stand nowhere else: VGG-19, a CNN of 3-D convolutions, ARL and SDL.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from LesionLib.networks.base import LesionNet
from LesionLib.networks.resnet import (
    WIDTH_DIVISORS,
    Bottleneck,
    PooledNet,
    chosen,
    last_map,
    resnet_trunk,
    stage_channels,
    stage_maps,
)
from LesionLib.networks.svm import LinearSVM, SVMNet

_STAGES = 4


class ResidualPoolingUnit(nn.Module):
    """FC(average(x + conv(ReLU(conv(ReLU(x)))))): RefineNet's residual unit (Lin et al., CVPR 2017), no batch norm.

    The descriptor has a quarter of the map's channels. ``width``: channels inside, after a 1 x 1 convolution; None (the
    paper) keeps the map's, which costs 76.55 M parameters at 2048.
    """

    def __init__(self, channels: int, width: int | None) -> None:
        super().__init__()
        if width is not None and width < 1:
            msg = f"rpu_width must be at least 1, or None for the map's own, not {width}"
            raise ValueError(msg)
        self.inner = channels if width is None else width
        self.descriptor_size = channels // 4
        self.reduce = nn.Identity() if width is None else nn.Conv2d(channels, width, 1)
        self.conv1 = nn.Conv2d(self.inner, self.inner, 3, padding=1)
        self.conv2 = nn.Conv2d(self.inner, self.inner, 3, padding=1)
        self.fc = nn.Linear(self.inner, self.descriptor_size)

    def refine(self, x: Tensor) -> Tensor:
        """What is averaged: (batch, channels, h, w) -> (batch, inner, h, w)."""
        x = self.reduce(x)
        return x + self.conv2(functional.relu(self.conv1(functional.relu(x))))

    def pool(self, refined: Tensor) -> Tensor:
        """(batch, inner, h, w) -> (batch, descriptor_size)."""
        return self.fc(refined.mean(dim=(2, 3)))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, h, w) -> (batch, channels / 4)."""
        return self.pool(self.refine(x))


class DMRN(SVMNet):
    """ResNet, residual pooling units at its last ``supervised_stages`` stages, linear support vector machine.

    ``supervised_stages`` 4 trains as in the paper; 1 is its "without multi-scale" and all that an answer from the last
    descriptor needs: see `inference_state`. ``descriptor``: "last" (512 for ResNet-101) or "concat" (64 + 128 + 256 + 512).

    The features are the trunk's last map for "last"; the pooling unit belongs to the head, so that Grad-CAM explains the
    margin of the support vector machine. For "concat" they are all refined maps, averaged down to the last one's grid,
    one after the other along the channels: where sizes divide, the average of averages is the average, so that the head
    finds the very descriptors in them. Rows and columns must therefore be multiples of 32.
    """

    def __init__(
        self,
        *,
        depth: int = 101,
        classes: int = 5,
        channels: int = 3,
        descriptor: str = "last",
        supervised_stages: int = 4,
        rpu_width: int | None = None,
        width: str = "full",
    ) -> None:
        super().__init__()
        chosen(descriptor, ("last", "concat"), "descriptor")
        chosen(supervised_stages, tuple(range(1, _STAGES + 1)), "supervised_stages")
        if descriptor == "concat" and supervised_stages != _STAGES:
            msg = f"descriptor 'concat' needs the units of all {_STAGES} stages, not of {supervised_stages}"
            raise ValueError(msg)
        self.trunk = resnet_trunk(depth=depth, channels=channels, width=width)
        self.concatenates = descriptor == "concat"
        stages = range(_STAGES - supervised_stages, _STAGES)
        stage_sizes = stage_channels(depth, width)
        self.units = nn.ModuleDict({f"stage{s + 1}": ResidualPoolingUnit(stage_sizes[s], rpu_width) for s in stages})
        sizes = [unit.descriptor_size for unit in self.units.values()]
        self.svm = LinearSVM(sum(sizes) if self.concatenates else sizes[-1], classes)

    @property
    def cell_centres(self) -> tuple[float, float] | None:
        """Those of the trunk; for "concat" none: each stage's cells are centred elsewhere."""
        return None if self.concatenates else self.trunk.cell_centres

    def stage_descriptors(self, x: Tensor) -> list[Tensor]:
        """One descriptor (batch, d) per supervised stage, first to last, for the sum of losses over the stages."""
        return [unit(f) for unit, f in self._units_and_maps(x)]

    def features(self, x: Tensor) -> Tensor:
        """(batch, 2048, row / 32, column / 32); for "concat" (batch, 256 + 512 + 1024 + 2048, row / 32, column / 32)."""
        if not self.concatenates:
            return last_map(self.trunk, x)
        if x.shape[2] % 32 or x.shape[3] % 32:
            msg = f"descriptor 'concat' takes rows and columns in multiples of 32, not {x.shape[2]} x {x.shape[3]}"
            raise ValueError(msg)
        grid = (x.shape[2] // 32, x.shape[3] // 32)
        refined = [functional.adaptive_avg_pool2d(unit.refine(f), grid) for unit, f in self._units_and_maps(x)]
        return torch.cat(refined, dim=1)

    def descriptor(self, f: Tensor) -> Tensor:
        """(batch, 512), or (batch, 960) for "concat", not normalised."""
        if not self.concatenates:
            return self.units[f"stage{_STAGES}"](f)
        units = list(self.units.values())
        parts = f.split([unit.inner for unit in units], dim=1)
        return torch.cat([unit.pool(part) for unit, part in zip(units, parts, strict=True)], dim=1)

    def inference_state(self) -> dict[str, Tensor]:
        """The weights that an answer reads; for "last" they fit the same network with ``supervised_stages=1``."""
        read = ("trunk.", "svm.", "units." if self.concatenates else f"units.stage{_STAGES}.")
        return {name: tensor for name, tensor in self.state_dict().items() if name.startswith(read)}

    def _units_and_maps(self, x: Tensor) -> list[tuple[ResidualPoolingUnit, Tensor]]:
        maps = list(stage_maps(self.trunk, x))
        return list(zip(self.units.values(), maps[-len(self.units) :], strict=True))


_VGG19 = (
    (64, 2),
    (128, 2),
    (256, 4),
    (512, 4),
    (512, 4),
)  # channels and convolutions of each stage (Simonyan and Zisserman)
_VGG_GRID = 7
_CNN3D = (32, 32, 64, 64, 128, 128)


class VGG19(LesionNet):
    """VGG-19 without batch norm, with the published names of its weights; DMRN's paper compares with it.

    The descriptor is the second of the three fully connected layers. ``width`` "tiny": a sixteenth of the channels.
    """

    def __init__(self, *, classes: int = 2, channels: int = 3, dropout: float = 0.5, width: str = "full") -> None:
        super().__init__()
        chosen(width, WIDTH_DIVISORS, "width")
        narrower = WIDTH_DIVISORS[width]
        layers: list[nn.Module] = []
        for count, repeats in _VGG19:
            for _ in range(repeats):
                layers += [nn.Conv2d(channels, count // narrower, 3, padding=1), nn.ReLU()]
                channels = count // narrower
            layers.append(nn.MaxPool2d(2))
        self.features_ = nn.Sequential(*layers)
        hidden = 4096 // narrower
        self.classifier = nn.Sequential(
            nn.Linear(channels * _VGG_GRID**2, hidden), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(hidden, classes),
        )  # fmt: skip

    def features(self, x: Tensor) -> Tensor:
        """(batch, channel, row, column) -> (batch, 512, row / 32, column / 32)."""
        return self.features_(x)

    def descriptor(self, f: Tensor) -> Tensor:
        """(batch, 4096), from a map of any size."""
        return self.classifier[:-1](functional.adaptive_avg_pool2d(f, _VGG_GRID).flatten(1))

    def head(self, f: Tensor) -> Tensor:
        """Logits (batch, class)."""
        return self.classifier[-1](self.descriptor(f))


class CNN3D(LesionNet):
    """Six 3-D convolutions with batch norm and ReLU, then three fully connected layers, as DMRN's paper compares with.

    The paper gives no widths, kernels or input size: 32, 32, 64, 64, 128, 128, kernels of 3, a pooling after every second
    convolution, and 256 and 64 hidden units are ours. ``width`` "tiny": a sixteenth.
    """

    def __init__(self, *, classes: int = 2, channels: int = 1, dropout: float = 0.5, width: str = "full") -> None:
        super().__init__()
        chosen(width, WIDTH_DIVISORS, "width")
        narrower = WIDTH_DIVISORS[width]
        layers: list[nn.Module] = []
        for number, count in enumerate(_CNN3D, start=1):
            layers += [nn.Conv3d(channels, count // narrower, 3, padding=1, bias=False)]
            layers += [nn.BatchNorm3d(count // narrower), nn.ReLU()]
            channels = count // narrower
            if number % 2 == 0:
                layers.append(nn.MaxPool3d(2))
        self.trunk = nn.Sequential(*layers)
        first, second = 256 // narrower, 64 // narrower
        self.classifier = nn.Sequential(
            nn.Linear(channels * 8, first), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(first, second), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(second, classes),
        )  # fmt: skip

    def features(self, x: Tensor) -> Tensor:
        """(batch, channel, slice, row, column) -> (batch, 128, slice / 8, row / 8, column / 8)."""
        return self.trunk(x)

    def descriptor(self, f: Tensor) -> Tensor:
        """(batch, 64), from a map of any size."""
        return self.classifier[:-1](functional.adaptive_avg_pool3d(f, 2).flatten(1))

    def head(self, f: Tensor) -> Tensor:
        """Logits (batch, class)."""
        return self.classifier[-1](self.descriptor(f))


class AttentionResidualBlock(Bottleneck):
    """Zhang, Xie, Xia and Shen, "Attention residual learning for skin lesion classification", IEEE TMI 2019.

    y = ReLU(x + F(x) + alpha x R(F(x)) x x), R the softmax over the places of each channel; alpha is learned. One parameter more than
    the block of ResNet-50. R is multiplied by the number of places, so that it is about 1 wherever the map is large or small;
    alpha takes up the factor.
    """

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)
        self.alpha = nn.Parameter(torch.tensor(0.001))  # small at first; how small is ours

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channel, row, column) -> (batch, 4 x planes, row / stride, column / stride)."""
        f = self.act(self.bn1(self.conv1(x)))
        f = self.bn3(self.conv3(self.act(self.bn2(self.conv2(f)))))
        x = x if self.downsample is None else self.downsample(x)
        places = f.shape[2] * f.shape[3]
        attention = f.flatten(2).softmax(dim=2).view_as(f) * places
        return self.act(x + f + self.alpha * attention * x)


class ARL(PooledNet):
    """ResNet-50 of attention residual blocks. ``width``: "full" or "tiny"."""

    def __init__(self, *, classes: int = 5, channels: int = 3, width: str = "full", dropout: float = 0.0) -> None:
        super().__init__(stage_channels(50, width)[-1], classes, dropout)
        self.trunk = resnet_trunk(depth=50, channels=channels, width=width, block=AttentionResidualBlock)

    def features(self, x: Tensor) -> Tensor:
        """(batch, channel, row, column) -> (batch, 2048, row / 32, column / 32)."""
        return last_map(self.trunk, x)


class SDL(LesionNet):
    """Two ResNet-50 that learn side by side, and a synergic network that tells whether their two pictures are of one class.

    Zhang, Xie, Wu and Xia, "Medical image classification using synergic deep learning", Med Image Anal 2019. An answer is the mean of
    both softmaxes. ``synergic_logit`` serves the training alone.
    """

    def __init__(self, *, classes: int = 5, channels: int = 3, depth: int = 50, width: str = "full") -> None:
        super().__init__()
        size = stage_channels(depth, width)[-1]
        self.trunks = nn.ModuleList(resnet_trunk(depth=depth, channels=channels, width=width) for _ in range(2))
        self.classifiers = nn.ModuleList(nn.Linear(size, classes) for _ in range(2))
        hidden = max(8, size // 2)
        self.synergic = nn.Sequential(nn.Linear(2 * size, hidden), nn.ReLU(), nn.Linear(hidden, 1))  # its width is ours

    @property
    def cell_centres(self) -> tuple[float, float]:
        """Those of either trunk."""
        return self.trunks[0].cell_centres

    def features(self, x: Tensor) -> Tensor:
        """(batch, channel, row, column) -> (batch, 2 x 2048, row / 32, column / 32): both maps, one after the other."""
        return torch.cat([last_map(trunk, x) for trunk in self.trunks], dim=1)

    def descriptor(self, f: Tensor) -> Tensor:
        """Both averages, (batch, 2 x 2048)."""
        return f.flatten(2).mean(dim=2)

    def head(self, f: Tensor) -> Tensor:
        """(batch, class), whose softmax is the mean of the two networks' softmaxes."""
        each = zip(self.classifiers, self.descriptor(f).chunk(2, dim=1), strict=True)
        logs = torch.stack([functional.log_softmax(of(average), dim=1) for of, average in each])
        return torch.logsumexp(logs, dim=0) - torch.log(torch.tensor(2.0, device=f.device))

    def training_logits(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of the first network of ``first`` and of the second of ``second``, (batch, class), and whether both are of one
        class, (batch,)."""
        pairs = zip(self.trunks, (first, second), strict=True)
        averages = [last_map(trunk, x).flatten(2).mean(dim=2) for trunk, x in pairs]
        one, other = (of(average) for of, average in zip(self.classifiers, averages, strict=True))
        return one, other, self.synergic(torch.cat(averages, dim=1))[:, 0]
