"""A thorax as smooth shapes in patient millimetres: body, bones, lungs with vessels, heart, what lies below the diaphragm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

_AIR, _FAT, _MUSCLE, _LUNG, _BLOOD, _LIVER = -1000.0, -100.0, 50.0, -865.0, 45.0, 60.0
_CAVITY_MM = (124.0, 84.0)  # half width, half depth of the rib cage's inside
_RIB_STEP_MM, _RIB_MM = 24.0, 4.6


@dataclass(frozen=True, eq=False)
class Grid:
    """The patient's axes in mm along a lattice: ``x`` to the right, ``y`` to the front, ``z`` to the head.

    1-D arrays, float32, in the order of the lattice's columns, rows and slices. ``spacing_mm``: (3,), of columns, rows
    and slices.
    """

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    spacing_mm: np.ndarray

    @classmethod
    def of(cls, ijk_to_ras: np.ndarray, size: tuple[int, int, int]) -> Grid:
        """The grid of an axis-parallel lattice."""
        step, origin = np.diag(ijk_to_ras)[:3], ijk_to_ras[:3, 3]
        axes = [(origin[a] + step[a] * np.arange(size[a])).astype(np.float32) for a in range(3)]
        return cls(*axes, np.abs(step))

    @property
    def xyz(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The axes shaped to be combined into (z, y, x) arrays."""
        return self.x[None, None, :], self.y[None, :, None], self.z[:, None, None]


def paint_thorax(grid: Grid, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """HU of a thorax, float32 (z, y, x), and where there is lung, bool."""
    x, y, z = grid.xyz
    hu = _body(grid)
    cavity = _cavity(x, y, z)
    lung = cavity & (z > _diaphragm(x, y)) & ~_mediastinum(x, y, z) & ~_spine_space(x, y)
    below = cavity & (z <= _diaphragm(x, y)) & ~_spine_space(x, y)
    np.copyto(hu, np.where(x > -15, np.float32(_LIVER), np.float32(_MUSCLE)), where=below)
    _paint_stomach(hu, below, x, y, z)
    np.copyto(hu, _lung_tissue(grid, lung.shape, rng), where=lung)
    _paint_heart_and_vessels(hu, x, y, z, lung)
    _paint_airways(hu, grid)
    _paint_ribs(hu, grid)
    _paint_spine_and_sternum(hu, x, y, z)
    return hu, lung


def _ellipse(x: np.ndarray, y: np.ndarray, a: float, b: float, power: float = 2.0) -> np.ndarray:
    return np.abs(x / a) ** power + np.abs(y / b) ** power


def _body(grid: Grid) -> np.ndarray:
    """Air, skin, fat and muscle, the same in every slice."""
    x, y = grid.x[None, :], grid.y[:, None]
    slice_ = np.full((len(grid.y), len(grid.x)), _AIR, dtype=np.float32)
    slice_[_ellipse(x, y, 152, 112, 2.5) < 1] = 20.0
    slice_[_ellipse(x, y, 150, 110, 2.5) < 1] = _FAT
    slice_[_ellipse(x, y, 139, 99, 2.4) < 1] = _MUSCLE
    return np.repeat(slice_[None], len(grid.z), axis=0)


def _cavity(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """The inside of the rib cage; narrows to the neck."""
    narrowing = np.sqrt(np.clip(1.0 - np.clip((z + 15.0) / 116.0, 0, 1) ** 3.0, 1e-3, 1.0))
    return _ellipse(x, y, *_CAVITY_MM, 2.2) < narrowing**2.2


def _diaphragm(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Height of the diaphragm: two domes, the right one higher, steep toward the back."""
    right = -38.0 - 46.0 * _ellipse(x - 58.0, y - 8.0, 72, 78)
    left = -50.0 - 44.0 * _ellipse(x + 58.0, y - 8.0, 70, 78)
    return np.maximum(right, left)


def _mediastinum(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """The middle of the chest, wider at the hila and at the heart."""
    width = 24.0 + 9.0 * np.exp(-(((z - 8.0) / 22.0) ** 2)) - 8.0 * np.clip(np.abs(y) / 84.0, 0, 1)
    column = np.abs(x + 4.0) < width
    heart = _ellipse(x + 24.0, y - 20.0, 58, 46) + ((z + 42.0) / 52.0) ** 2 < 1
    aorta = _ellipse(x + 26.0, y + 40.0, 13, 13) < 1
    return column | heart | (aorta & (z < 52))


def _spine_space(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (_ellipse(x, y + 66.0, 27, 22) < 1) | ((np.abs(x) < 24) & (y < -66))


def _lung_tissue(grid: Grid, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Aerated lung: denser toward the back, where the patient lies, with a fine uneven texture."""
    texture = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), 1.6 / grid.spacing_mm[::-1])
    texture *= 16.0 / texture.std()
    return np.float32(_LUNG) - np.float32(0.32) * grid.y[None, :, None] + texture


def _paint_stomach(hu: np.ndarray, below: np.ndarray, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> None:
    """A stomach with its air bubble in front, as it lies in a patient on the back."""
    stomach = below & (_ellipse(x + 62.0, y - 18.0, 36, 38) + ((z + 84.0) / 26.0) ** 2 < 1)
    hu[stomach] = 20.0
    np.copyto(hu, np.float32(-950.0), where=stomach & (y > 34.0))


def _paint_heart_and_vessels(hu: np.ndarray, x: np.ndarray, y: np.ndarray, z: np.ndarray, lung: np.ndarray) -> None:
    column = _cavity(x, y, z) & ~lung & (z > _diaphragm(x, y)) & ~_spine_space(x, y)
    np.copyto(hu, np.float32(-75.0), where=column)
    heart = _ellipse(x + 23.0, y - 18.0, 53, 42) + ((z + 42.0) / 48.0) ** 2 < 1
    for shape in (
        heart,
        (_ellipse(x + 26.0, y + 40.0, 11.5, 11.5) < 1) & (z < 48),
        (_ellipse(x - 16.0, y - 8.0, 9, 9) < 1) & (z > -10) & (z < 80),
        (_ellipse(x + 8.0, y - 14.0, 15, 15) < 1) & (z > -10) & (z < 42),
        (np.hypot(np.hypot(x + 9.0, y + 12.0) * np.sign(y + 60.0) - 28.0, z - 44.0) < 11.0) & (x < 12),
    ):
        np.copyto(hu, np.float32(_BLOOD), where=column & shape)


def _paint_airways(hu: np.ndarray, grid: Grid) -> None:
    """Trachea and the two main bronchi with their walls."""
    carina = np.array([0.0, -12.0, 26.0])
    paths = [
        (np.array([0.0, -10.0, 110.0]), carina, 9.0),
        (carina, np.array([36.0, -16.0, 2.0]), 6.5),
        (carina, np.array([-40.0, -16.0, -2.0]), 6.0),
    ]
    distances = [(grid_distance_to_segment(grid, a, b, radius + 6.0), radius) for a, b, radius in paths]
    for (where, distance), radius in distances:
        part = hu[where]
        part[distance < radius + 1.5] = 30.0
    for (where, distance), radius in distances:
        part = hu[where]
        part[distance < radius] = _AIR


def grid_distance_to_segment(
    grid: Grid, start: np.ndarray, end: np.ndarray, reach_mm: float
) -> tuple[tuple[slice, slice, slice], np.ndarray]:
    """The part of a (z, y, x) array near a line segment, and the distance in mm of its voxels from the segment.

    ``start`` and ``end``: (3,), x, y, z in the grid's mm.
    """
    where = tuple(
        _near(axis, min(start[a], end[a]) - reach_mm, max(start[a], end[a]) + reach_mm)
        for a, axis in ((2, grid.z), (1, grid.y), (0, grid.x))
    )
    x, y, z = grid.x[where[2]][None, None], grid.y[where[1]][None, :, None], grid.z[where[0]][:, None, None]
    d = (end - start).astype(np.float32)
    along = ((x - start[0]) * d[0] + (y - start[1]) * d[1] + (z - start[2]) * d[2]) / max(float(d @ d), 1e-6)
    t = np.clip(along, 0, 1)
    squared = (x - start[0] - t * d[0]) ** 2 + (y - start[1] - t * d[1]) ** 2 + (z - start[2] - t * d[2]) ** 2
    return where, np.sqrt(squared)


def _near(axis: np.ndarray, low: float, high: float) -> slice:
    inside = np.flatnonzero((axis >= low) & (axis <= high))
    return slice(int(inside[0]), int(inside[-1]) + 1) if len(inside) else slice(0, 0)


def _paint_ribs(hu: np.ndarray, grid: Grid) -> None:
    """Ribs around the cavity, descending from back to front; cartilage in front."""
    a, b = _CAVITY_MM[0] + 6.0, _CAVITY_MM[1] + 6.0
    x, y = np.meshgrid(grid.x, grid.y)
    radius = _ellipse(x, y, a, b, 2.2) ** (1 / 2.2)
    from_ring = (radius - 1.0) * np.hypot(x, y) / np.maximum(radius, 1e-3)
    rows, columns = np.nonzero(np.abs(from_ring) < 1.6 * _RIB_MM)
    frontness = np.clip(y[rows, columns] / b, -1, 1)
    height = 34.0 * (1.0 - frontness) / 2.0 + 12.0 * np.sqrt(np.clip(1 - frontness**2, 0, 1))
    from_rib = (grid.z[:, None] - height[None] + 400.0) % _RIB_STEP_MM - _RIB_STEP_MM / 2
    # Ribs are taller than thick.
    distance = np.hypot(from_ring[rows, columns][None] * 1.35, from_rib * 0.85)
    bone = np.where(distance < _RIB_MM - 1.4, 220.0, 750.0)
    bone = np.where((frontness > 0.80)[None], 110.0, bone).astype(np.float32)
    part = hu[:, rows, columns]
    hu[:, rows, columns] = np.where(distance < _RIB_MM, bone, part)


def _paint_spine_and_sternum(hu: np.ndarray, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> None:
    np.copyto(hu, np.float32(_MUSCLE), where=_spine_space(x, y) & (y > -100) & (z > -1000))
    level = (z + 400.0) % 24.0
    disc = (level < 5.0) & (y > -200)
    body = _ellipse(x, y + 66.0, 18.5, 15.5, 2.4)
    process = ((np.abs(x) < 3.5) & (y < -92) & (y > -110)) | (
        (np.abs(x) < 30) & (np.abs(y + 90.0 + 0.12 * np.abs(x)) < 4.5)
    )
    bony = process & (level > 8.0) & (level < 19.0)
    arch = (_ellipse(x, y + 88.0, 14, 12) < 1) & (_ellipse(x, y + 87.0, 9, 7.5) >= 1) & (level > 6.0)
    np.copyto(hu, np.float32(420.0), where=bony | arch)
    np.copyto(hu, np.float32(25.0), where=(_ellipse(x, y + 87.0, 9, 7.5) < 1) & (z > -1000))
    np.copyto(hu, np.float32(90.0), where=(body < 1) & disc)
    np.copyto(hu, np.float32(480.0), where=(body < 1) & ~disc)
    np.copyto(hu, np.float32(190.0), where=(body < 0.78) & ~disc & (level > 6.5) & (level < 22.5))
    sternum = _ellipse(x, y - 91.0, 19, 7, 2.6)
    np.copyto(hu, np.float32(420.0), where=(sternum < 1) & (z > -55))
    np.copyto(hu, np.float32(150.0), where=(sternum < 0.62) & (z > -55))


_BLOOD_HU = 40.0
_THINNEST_MM = 0.45
_TRUNKS = 9


def paint_vessels(hu: np.ndarray, lung: np.ndarray, grid: Grid, rng: np.random.Generator) -> None:
    """Branching vessels of the lungs, from each hilum outward: both trees, in place; outside the lungs nothing changes.

    ``hu``: float32, HU, and ``lung``: bool, both of shape (z, y, x).
    """
    for side in (1.0, -1.0):
        hilum = np.array([side * 34.0, -10.0, 4.0])
        for _ in range(_TRUNKS):
            direction = rng.normal(size=3) * [0.6, 0.9, 1.1] + [side * 0.9, 0, 0]
            _grow(hu, lung, grid, rng, hilum + rng.normal(0, 5, 3), direction, radius_mm=rng.uniform(2.6, 3.8))


def _grow(
    hu: np.ndarray,
    lung: np.ndarray,
    grid: Grid,
    rng: np.random.Generator,
    start: np.ndarray,
    direction: np.ndarray,
    *,
    radius_mm: float,
) -> None:
    """One stretch and, at its end, two thinner branches (Murray's law: the cubes of the radii add up)."""
    if radius_mm < _THINNEST_MM:
        return
    direction = direction / np.linalg.norm(direction)
    end = start + direction * rng.uniform(5.0, 7.5) * radius_mm**0.75 * 1.6
    where, distance = grid_distance_to_segment(grid, start, end, radius_mm + 1.5)
    if distance.size == 0:
        return
    share = 0.5 * (1.0 - np.tanh((distance - radius_mm) / 0.5)) * lung[where]
    hu[where] += (share * (_BLOOD_HU - hu[where])).astype(np.float32)
    split = rng.uniform(0.35, 0.65)
    for part in (split, 1.0 - split):
        turned = direction + rng.normal(0, 0.42, 3)
        _grow(hu, lung, grid, rng, end, turned, radius_mm=0.97 * radius_mm * part ** (1 / 3))
