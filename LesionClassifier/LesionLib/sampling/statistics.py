"""Size and density of a lesion: of its segment where there is one, else of its box. Knows no torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from LesionLib.errors import BoxError
from LesionLib.geometry import CTVolume, LesionBox, require_overlap, transformed_points
from LesionLib.sampling.diameters import Diameters, axial_diameters
from LesionLib.sampling.resample import lattice_points, resample

_STEP_MM = 1.0  # of the lattice on which a box is measured
_MAX_STEPS = 128  # along an edge


@dataclass(frozen=True)
class LesionStatistics:
    """``measured_in``: "segment" or "box". Lengths in mm (edges of the box in falling order), volume in mL, density in HU.

    ``diameters``: of the segment; a box has none.
    """

    measured_in: str
    edges_mm: tuple[float, float, float]
    volume_ml: float
    hu_mean: float
    hu_sd: float
    hu_minimum: float
    hu_median: float
    hu_maximum: float
    diameters: Diameters | None = None


def lesion_statistics(volume: CTVolume, box: LesionBox) -> LesionStatistics:
    """Measure the lesion on the CT, what lies outside the CT left out. Raises `BoxError` where nothing lies inside."""
    require_overlap(volume, box)
    hu, volume_ml = _in_segment(volume, box.segment) if box.segment is not None else _in_box(volume, box)
    if not hu.size:
        msg = f"box {box.name!r}: nothing of its segment lies inside {volume.name}; check that they belong together."
        raise BoxError(msg)
    low, median, high = np.percentile(hu, [0, 50, 100])
    return LesionStatistics(
        measured_in="box" if box.segment is None else "segment",
        edges_mm=tuple(sorted(map(float, box.sizeMm), reverse=True)),
        volume_ml=volume_ml,
        hu_mean=float(hu.mean(dtype=np.float64)),
        hu_sd=float(hu.std(dtype=np.float64)),
        hu_minimum=float(low),
        hu_median=float(median),
        hu_maximum=float(high),
        diameters=None if box.segment is None else axial_diameters(box.segment),
    )


def longest_extent_mm(box: LesionBox) -> float:
    """How long the lesion is, mm: its segment along the axes of the segment's lattice, else the longest edge of the box."""
    if box.segment is None or not box.segment.array.any():
        return float(box.sizeMm.max())
    spans = [np.ptp(np.flatnonzero(box.segment.array.any(axis=others))) + 1 for others in ((0, 1), (0, 2), (1, 2))]
    return float((spans * np.linalg.norm(box.segment.ijkToRAS[:3, :3], axis=0)).max())


def _in_segment(volume: CTVolume, segment: CTVolume) -> tuple[np.ndarray, float]:
    inside_segment = segment.array.astype(bool)
    voxel_ml = abs(float(np.linalg.det(segment.ijkToRAS[:3, :3]))) / 1000.0
    hu, inside = resample(volume, segment.ijkToRAS, segment.sizeIJK)
    return hu[inside_segment & inside], float(inside_segment.sum()) * voxel_ml


def _in_box(volume: CTVolume, box: LesionBox) -> tuple[np.ndarray, float]:
    steps = np.clip(np.ceil(box.sizeMm / _STEP_MM), 1, _MAX_STEPS).astype(int)
    step_mm = box.sizeMm / steps
    index_to_box = np.diag([*step_mm, 1.0])
    index_to_box[:3, 3] = -(steps - 1) / 2 * step_mm
    to_ras = box.boxToRAS @ index_to_box
    points = transformed_points(volume.rasToIJK @ to_ras, lattice_points(tuple(steps)))
    nearest = np.floor(points + 0.5).astype(int)
    inside = ((nearest >= 0) & (nearest < volume.sizeIJK)).all(axis=-1)
    i, j, k = nearest[inside].T
    return volume.array[k, j, i].astype(np.float32), float(box.sizeMm.prod()) / 1000.0
