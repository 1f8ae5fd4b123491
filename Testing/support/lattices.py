"""CTs of smooth noise on every kind of lattice a scanner makes, for tests of sampling."""

from __future__ import annotations

from functools import cache

import numpy as np
from LesionLib.geometry import CTVolume, transformed_points
from scipy import ndimage
from scipy.spatial.transform import Rotation


def turned(axis: tuple[float, float, float], degrees: float) -> np.ndarray:
    """Rotation matrix about an axis through the origin."""
    return Rotation.from_rotvec(np.deg2rad(degrees) * np.array(axis) / np.linalg.norm(axis)).as_matrix()


LATTICES = {
    "straight": np.diag([-0.7, -0.7, 1.25]),
    "thick slices": np.diag([-0.8, -0.8, 5.0]),
    "oblique": turned((1, 2, 3), 25) @ np.diag([-0.7, -0.8, 1.5]),
    "left-handed": np.diag([-0.7, -0.7, -1.25]),
    "gantry tilt": np.array([[-0.7, 0, 0], [0, -0.7, 0.9], [0, 0, 2.0]]),
}
UNUSUAL = sorted(set(LATTICES) - {"straight"})


@cache
def noise_ct(lattice: str) -> CTVolume:
    """60 x 64 x 30 voxels around -600 HU; the same every time, and one for all tests: it can't be written to."""
    rng = np.random.default_rng(1)
    array = ndimage.gaussian_filter(rng.normal(-600, 900, (30, 64, 60)), 1.0).astype(np.int16)
    matrix = np.eye(4)
    matrix[:3, :3] = LATTICES[lattice]
    matrix[:3, 3] = [12.0, -30.0, 55.0]
    array.setflags(write=False)
    return CTVolume(array, matrix, name=lattice)


def middle(ct: CTVolume) -> np.ndarray:
    """RAS of the middle of a CT's lattice, (3,)."""
    return transformed_points(ct.ijkToRAS, (np.array(ct.sizeIJK) - 1) / 2)
