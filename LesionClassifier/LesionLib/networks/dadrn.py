"""DADRN: dual attention dilated residual network, for lesions in whole liver slices.

DRN-A-50 (Yu et al., CVPR 2017: ResNet-50 with output stride 8, 2048 x 28 x 28 for 224 x 224), attention on its last map,
global average, linear. The names of the paper: SADRN is ``attention="spatial"`` and CADRN "channel", -A with
``normalise="sigmoid"`` and -B "softmax"; DADRN is "dual" with sigmoid, -A with ``fusion="sum"`` and -B (proposed)
"concat"; DRN50 is "none". Beside it two networks of its tables: residual attention, and two pathways over an outlined lesion.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from LesionLib.networks.attention import Attention
from LesionLib.networks.resnet import (
    WIDTH_DIVISORS,
    Bottleneck,
    PooledNet,
    chosen,
    last_map,
    resnet_trunk,
    stage_channels,
    stages_of,
    stride_of,
)
from LesionLib.networks.svm import LinearSVM, SVMNet


class DADRN(PooledNet):
    """Features are the map after the attention, which Grad-CAM weighs.

    ``reduce``: channels of each branch (a sixteenth of them at tiny width), None for the trunk's own 2048 as drawn in the
    paper. ``scale=False`` is the literal, unscaled attention.
    """

    def __init__(
        self,
        *,
        classes: int = 5,
        channels: int = 3,
        attention: str = "dual",
        normalise: str = "sigmoid",
        fusion: str = "concat",
        scale: bool = True,
        reduce: int | None = 512,
        width: str = "full",
    ) -> None:
        chosen(attention, ("dual", "spatial", "channel", "none"), "attention")
        chosen(normalise, ("sigmoid", "softmax"), "normalise")
        chosen(fusion, ("sum", "concat"), "fusion")
        trunk = resnet_trunk(depth=50, channels=channels, width=width, output_stride=8)
        block = _attention(
            stage_channels(50, width)[-1],
            kind=attention,
            normalise=normalise,
            fusion=fusion,
            scale=scale,
            reduce=None if reduce is None else _at_least_8(reduce // WIDTH_DIVISORS[width]),
        )
        outputs = block.out_channels if isinstance(block, Attention) else stage_channels(50, width)[-1]
        super().__init__(outputs, classes, dropout=0.0)
        self.trunk, self.attention = trunk, block

    def features(self, x: Tensor) -> Tensor:
        """(batch, channel, row, column) -> (batch, 1024 by default, row / 8, column / 8)."""
        return self.attention(last_map(self.trunk, x))


def _attention(channels: int, *, kind: str, **arguments: object) -> nn.Module:
    return nn.Identity() if kind == "none" else Attention(channels, kind=kind, **arguments)


def _at_least_8(channels: int) -> int:
    if channels < 8:
        msg = f"reduce must leave at least 8 channels for the spatial attention's eighth, not {channels}"
        raise ValueError(msg)
    return channels


class AttentionModule(nn.Module):
    """Wang et al., "Residual attention network for image classification", CVPR 2017.

    H = (1 + M) T: the trunk of two residual units, and a mask that sees ``halvings`` coarser maps; a unit before and after."""

    def __init__(self, channels: int, *, halvings: int) -> None:
        super().__init__()
        self.first, self.last = _unit(channels), _unit(channels)
        self.trunk = nn.Sequential(_unit(channels), _unit(channels))
        self.down = nn.ModuleList(_unit(channels) for _ in range(halvings))
        self.up = nn.ModuleList(_unit(channels) for _ in range(halvings))
        self.mask = nn.Sequential(
            nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels, 1), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape of ``x``."""
        x = self.first(x)
        return self.last((1 + self.mask(self._coarse(x, 0))) * self.trunk(x))

    def _coarse(self, x: Tensor, level: int) -> Tensor:
        """Halved, changed, and seen at the size of ``x`` again; what lies between two halvings is added."""
        if level == len(self.down) or min(x.shape[2:]) < 2:
            return x
        half = self.down[level](functional.max_pool2d(x, 3, stride=2, padding=1))
        inner = half + self._coarse(half, level + 1) if level + 1 < len(self.down) else half
        return functional.interpolate(self.up[level](inner), size=x.shape[2:], mode="bilinear", align_corners=False)


class RAResNet50(PooledNet):
    """ResNet-50 with an attention module after each of its first three stages, of 3, 2 and 1 halvings. ``output_stride``: 32."""

    def __init__(self, *, classes: int = 5, channels: int = 3, width: str = "full", dropout: float = 0.0) -> None:
        sizes = stage_channels(50, width)
        super().__init__(sizes[-1], classes, dropout)
        self.trunk = resnet_trunk(depth=50, channels=channels, width=width)
        self.attention = nn.ModuleList(
            AttentionModule(size, halvings=3 - number) for number, size in enumerate(sizes[:3])
        )

    def features(self, x: Tensor) -> Tensor:
        """(batch, channel, row, column) -> (batch, 2048, row / 32, column / 32)."""
        x = self.trunk.maxpool(self.trunk.act(self.trunk.bn1(self.trunk.conv1(x))))
        *early, last = stages_of(self.trunk)
        for stage, attention in zip(early, self.attention, strict=True):
            x = attention(stage(x))
        return last(x)


def _unit(channels: int) -> nn.Module:
    return Bottleneck(channels, max(1, channels // Bottleneck.expansion))


class ResGLNet(SVMNet):
    """ResGLNet: a global and a local residual pathway, for an outlined liver lesion (Liang et al., PRICAI 2018).

    After its abstract, which is all that is known of it here: a pathway over the whole lesion and one over patches of it give each
    place a label, and a support vector machine tells the lesion from the normalised map of labels.

    Ours is the rest: both pathways are ResNets of one ``depth``; the local one ends at its second stage, where a place of stride 8
    sees a patch of its own; the average of the other is put beside every place. The map is normalised to the share of each class
    over all places, which is the descriptor. The pathways are learned by `label_map`; the machine is fitted afterwards.
    """

    def __init__(self, *, classes: int = 5, channels: int = 3, depth: int = 18, width: str = "full") -> None:
        super().__init__()
        sizes = stage_channels(depth, width)
        self.whole = resnet_trunk(depth=depth, channels=channels, width=width)
        trunk = resnet_trunk(depth=depth, channels=channels, width=width)
        self.patches = nn.Sequential(
            trunk.conv1, trunk.bn1, trunk.act, trunk.maxpool, trunk.layer1, trunk.layer2,
        )  # fmt: skip
        self.mapped_channels = sizes[1]
        self.map_stride = trunk.stem_stride * stride_of([trunk.layer1, trunk.layer2])
        self.label = nn.Conv2d(sizes[1] + sizes[3], classes, 1)
        self.svm = LinearSVM(classes, classes)

    @property
    def cell_centres(self) -> tuple[float, float]:
        """Those of the patches' map, whose kernels are odd and padded by half."""
        return 0.0, float(self.map_stride)

    def features(self, x: Tensor) -> Tensor:
        """(batch, channel, row, column) -> (batch, 128 + 512, row / 8, column / 8): of each place its patch, and the whole."""
        local = self.patches(x)
        whole = last_map(self.whole, x).mean(dim=(2, 3), keepdim=True)
        return torch.cat([local, whole.expand(-1, -1, *local.shape[2:])], dim=1)

    def label_map(self, f: Tensor) -> Tensor:
        """Logits of each place, (batch, class, row / 8, column / 8)."""
        return self.label(f)

    def descriptor(self, f: Tensor) -> Tensor:
        """The share of each class over all places, (batch, class)."""
        return self.label_map(f).softmax(dim=1).mean(dim=(2, 3))
