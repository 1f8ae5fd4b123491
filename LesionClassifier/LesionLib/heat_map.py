"""A map of evidence on voxels of the CT itself. Knows no torch; `painting` makes it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .geometry import transformed_points


@dataclass(frozen=True, eq=False)
class HeatMap:
    """Grad-CAM on voxels of the CT itself: a part of its lattice, around the box.

    ``array``: float32, shape (k, j, i), 0 … 1 (1 = strongest evidence in this box). ``ijkToRAS``: 4x4.
    ``peak``: the strongest evidence before it was set to 1; maps of two boxes or classes compare only through it.
    """

    array: np.ndarray
    ijkToRAS: np.ndarray
    peak: float
    class_name: str

    @property
    def is_empty(self) -> bool:
        """True where nothing in the box speaks for the class."""
        return not self.array.max() > 0

    @property
    def peakRAS(self) -> np.ndarray:
        """RAS mm of the centre of the hottest voxels (their mean, where several are equally hot)."""
        hottest = np.argwhere(self.array >= self.array.max() * 0.999)[:, ::-1]
        return transformed_points(self.ijkToRAS, hottest).mean(axis=0)
