"""One lesion computed from a formula, on an oblique lattice: what a model must answer the same everywhere.

Every bundle stores what its network says of this case. They match only if sampling, windows, weights and network code agree.
"""

from __future__ import annotations

import numpy as np

from .geometry import CTVolume, LesionBox, transformed_points
from .sampling import lattice_points

_SIZE_IJK = (48, 44, 24)


def golden_case() -> tuple[CTVolume, LesionBox]:
    """A soft sphere of 12 mm with a denser core in lung, 0.8 x 0.8 x 2 mm voxels, turned lattice, turned box; its segment."""
    ijk_to_ras = np.eye(4)
    ijk_to_ras[:3, :3] = _turn(0, 0.2) @ _turn(2, 0.3) @ np.diag([-0.8, -0.8, 2.0])
    ijk_to_ras[:3, 3] = [10.0, -20.0, 30.0]
    points = transformed_points(ijk_to_ras, lattice_points(_SIZE_IJK))
    center = transformed_points(ijk_to_ras, (np.array(_SIZE_IJK) - 1) / 2)
    radius = np.linalg.norm(points - center, axis=-1)
    wave = 25.0 * np.sin(points @ [0.9, 0.5, 0.3])
    hu = -850.0 + wave + 880.0 / (1.0 + np.exp((radius - 6.0) / 0.6)) + 150.0 * np.exp(-((radius / 2.5) ** 2))
    volume = CTVolume(np.round(hu).astype(np.int16), ijk_to_ras, name="golden case")
    segment = CTVolume((radius < 6.0).astype(np.uint8), ijk_to_ras, name="golden segment")
    off_center = np.array([0.5, -0.7, 0.3])
    box = LesionBox(center + off_center, [13.0, 12.0, 14.0], _turn(2, 0.25), name="golden lesion", segment=segment)
    return volume, box


def _turn(axis: int, angle: float) -> np.ndarray:
    first, second = [a for a in range(3) if a != axis]
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = np.cos(angle)
    matrix[first, second], matrix[second, first] = -np.sin(angle), np.sin(angle)
    return matrix
