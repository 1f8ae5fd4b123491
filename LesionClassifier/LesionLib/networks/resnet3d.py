"""ResNet-18 in three dimensions, for small cubes of CT and for shape masks.

He et al., CVPR 2016, with 3 x 3 x 3 kernels (Hara et al., CVPR 2018) and the stem of small pictures: a cube of 28 voxels
has nothing to lose to a pooled 7 x 7 x 7 stem (Yang et al., "MedMNIST v2", Sci Data 2023, do the same).
"""

from __future__ import annotations

from torch import Tensor

from .resnet import PooledNet, chosen, last_map, resnet_trunk, stage_channels


class ResNet3D(PooledNet):
    """ResNet-18 3-D. ``stem_stride`` 1: 28 -> 4 voxels; 2: 28 -> 2, an eighth of the computing."""

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
