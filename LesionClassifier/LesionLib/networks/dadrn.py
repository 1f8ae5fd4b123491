"""DADRN: dual attention dilated residual network, for lesions in whole liver slices.

DRN-A-50 (Yu et al., CVPR 2017: ResNet-50 with output stride 8, 2048 x 28 x 28 for 224 x 224), attention on its last map,
global average, linear. The names of the paper: SADRN is ``attention="spatial"`` and CADRN "channel", -A with
``normalise="sigmoid"`` and -B "softmax"; DADRN is "dual" with sigmoid, -A with ``fusion="sum"`` and -B (proposed)
"concat"; DRN50 is "none".
"""

from __future__ import annotations

from torch import Tensor, nn

from LesionLib.networks.attention import Attention
from LesionLib.networks.resnet import WIDTH_DIVISORS, PooledNet, chosen, last_map, resnet_trunk, stage_channels


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
