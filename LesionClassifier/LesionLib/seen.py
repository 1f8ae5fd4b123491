"""What a model really looked at, as boxes: of a sample's pictures, the part that shows the CT and no padding."""

from __future__ import annotations

import numpy as np

from .geometry import LesionBox, transformed_points
from .sampling import AxialStack
from .sampling_kinds import Sample
from .sampling_volumes import CubeSample

_THINNEST_MM = 0.1


def seen_boxes(sample: Sample, name: str) -> tuple[LesionBox, ...]:
    """One box for a stack or a cube; for planes one thin box each, where planes of one orientation are one box together."""
    if isinstance(sample, AxialStack):
        return (_box(sample.sampleToRAS, _extent(sample.region, len(sample.hu)), name),)
    if isinstance(sample, CubeSample):
        whole = np.ones(sample.hu.shape[-2:], dtype=bool)
        return (_box(sample.sampleToRAS, _extent(whole, sample.hu.shape[2]), name),)
    planes = [
        _box(matrix, _extent(region, 1), name)
        for picture in sample.sampleToRAS
        for matrix, region in zip(picture, sample.region, strict=True)
    ]
    return tuple(_joined(planes))


def _extent(region: np.ndarray, slices: int) -> tuple[np.ndarray, np.ndarray]:
    """First and last edge of a region (row, column) in sample indices, as (column, row, slice)."""
    rows, columns = (np.flatnonzero(region.any(axis=axis)) for axis in (1, 0))
    low = np.array([columns[0], rows[0], 0]) - 0.5
    return low, np.array([columns[-1], rows[-1], slices - 1]) + 0.5


def _box(sample_to_ras: np.ndarray, extent: tuple[np.ndarray, np.ndarray], name: str) -> LesionBox:
    low, high = extent
    step_mm = np.linalg.norm(sample_to_ras[:3, :3], axis=0)
    axes = sample_to_ras[:3, :3] / step_mm
    size = np.maximum((high - low) * step_mm, _THINNEST_MM)
    return LesionBox(transformed_points(sample_to_ras, (low + high) / 2), size, axes, name)


def _joined(planes: list[LesionBox]) -> list[LesionBox]:
    """Planes of the same orientation become the box around them."""
    boxes: list[LesionBox] = []
    for plane in planes:
        for place, box in enumerate(boxes):
            if np.allclose(np.abs(box.axesRAS.T @ plane.axesRAS), np.eye(3), atol=1e-6):
                boxes[place] = _around(box, plane)
                break
        else:
            boxes.append(plane)
    return boxes


def _around(a: LesionBox, b: LesionBox) -> LesionBox:
    corners = np.concatenate([a.cornersRAS, b.cornersRAS]) @ a.axesRAS
    low, high = corners.min(axis=0), corners.max(axis=0)
    return LesionBox(a.axesRAS @ ((low + high) / 2), high - low, a.axesRAS, a.name)
