"""Grad-CAM of a box's slices, painted back into the CT's own geometry. Knows no torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from .geometry import CTVolume, LesionBox, transformed_points
from .sampling import AxialStack, lattice_points


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


def paint(
    cam: np.ndarray, stack: AxialStack, box: LesionBox, volume: CTVolume, *, margin_mm: float, class_name: str
) -> HeatMap:
    """Lay the maps of a stack (slice, h, w) over the CT's voxels; 0 where the model did not look."""
    low, high = _touched_voxels(volume, box.grown(margin_mm + stack.slice_step_mm / 2))
    ijk_to_ras = volume.ijkToRAS.copy()
    ijk_to_ras[:3, 3] = transformed_points(volume.ijkToRAS, low)
    points = transformed_points(ijk_to_ras, lattice_points(tuple(high - low)))
    column, row, slice_ = np.moveaxis(transformed_points(np.linalg.inv(stack.sampleToRAS), points), -1, 0)
    size, (slices, h, w) = stack.hu.shape[-1], cam.shape
    # Pixel centres of a map that is h times smaller: (x + 0.5) * h / size - 0.5.
    coordinates = [slice_, (row + 0.5) * h / size - 0.5, (column + 0.5) * w / size - 0.5]
    values = ndimage.map_coordinates(cam.astype(np.float32), coordinates, order=1, mode="nearest")
    values[(slice_ < -0.5) | (slice_ > slices - 0.5) | ~_in_plane(points, box, margin_mm)] = 0.0
    peak = float(values.max(initial=0.0))
    array = values / peak if peak > 0 else np.zeros_like(values)
    return HeatMap(array.astype(np.float32), ijk_to_ras, peak, class_name)


def _touched_voxels(volume: CTVolume, box: LesionBox) -> tuple[np.ndarray, np.ndarray]:
    """Half-open index range of the voxels that a box can touch; at least one voxel."""
    ijk = transformed_points(volume.rasToIJK, box.cornersRAS)
    last = np.array(volume.sizeIJK) - 1
    low = np.clip(np.floor(ijk.min(axis=0)), 0, last).astype(int)
    return low, np.clip(np.ceil(ijk.max(axis=0)), 0, last).astype(int) + 1


def _in_plane(points: np.ndarray, box: LesionBox, margin_mm: float) -> np.ndarray:
    in_box = transformed_points(np.linalg.inv(box.boxToRAS), points)
    return (np.abs(in_box[..., :2]) <= box.sizeMm[:2] / 2 + margin_mm).all(axis=-1)
