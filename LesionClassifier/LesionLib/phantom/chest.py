"""A seeded chest CT phantom in HU: thorax, lungs with vessels, and nodules whose truth is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from LesionLib.geometry import CTVolume, transformed_points
from LesionLib.phantom.nodules import KINDS, PhantomNodule, correlated_noise, paint_nodule
from LesionLib.phantom.thorax import Grid, paint_thorax, paint_vessels

Progress = Callable[[float, str], None]
_SIZE_MM = (320.0, 256.0, 210.0)
_DIAMETERS_MM = {
    "round": 9.0, "lobulated": 15.0, "spiculated": 18.0, "ground-glass": 20.0, "calcified": 8.0, "part-solid": 16.0,
    "granuloma": 9.0,
}  # fmt: skip
_CLEAR_OF_HILUM_MM, _CLEAR_OF_EACH_OTHER_MM = 42.0, 36.0


@dataclass(frozen=True, eq=False)
class ChestPhantom:
    """The CT (int16 HU) and the truth of every nodule in it."""

    volume: CTVolume
    nodules: tuple[PhantomNodule, ...]
    seed: int


def chest_phantom(
    *,
    seed: int = 0,
    spacing_mm: tuple[float, float, float] = (0.8, 0.8, 1.5),
    oblique_degrees: float = 0.0,
    kinds: tuple[str, ...] = KINDS,
    progress: Progress | None = None,
) -> ChestPhantom:
    """Compute the phantom; the same arguments give the same bytes.

    The lattice is laid as a CT's: i grows to the patient's left, j to the back, k to the head, the middle at RAS 0.
    ``oblique_degrees`` turns lattice and truth about an oblique axis. ``kinds``: one nodule each, named N1, N2, …
    """
    unknown = [kind for kind in kinds if kind not in _DIAMETERS_MM]
    if unknown:
        msg = f"kind is {unknown[0]!r}; it must be one of {', '.join(_DIAMETERS_MM)}"
        raise ValueError(msg)
    report = progress or (lambda _share, _what: None)
    rng = np.random.default_rng(seed)
    ijk_to_ras, size = _lattice(spacing_mm)
    grid = Grid.of(ijk_to_ras, size)
    report(0.0, "body and bones")
    hu, lung = paint_thorax(grid, rng)
    report(0.4, "vessels")
    paint_vessels(hu, lung, grid, rng)
    hu = ndimage.gaussian_filter(hu, 0.4 / np.array(spacing_mm[::-1]))
    report(0.6, "nodules")
    turned = _turn(oblique_degrees) @ ijk_to_ras
    nodules = [
        paint_nodule(
            hu,
            turned,
            kind=kind,
            centerRAS=transformed_points(_turn(oblique_degrees), center),
            diameter_mm=_DIAMETERS_MM[kind],
            seed=seed * 100 + number,
            name=f"N{number} {kind}",
        )
        for number, (kind, center) in enumerate(zip(kinds, _centers(lung, grid, kinds, rng), strict=True), start=1)
    ]
    report(0.8, "noise")
    hu += correlated_noise(hu.shape, rng, standard_deviation_hu=16.0)
    array = np.clip(np.round(hu), -1024, 3071).astype(np.int16)
    report(1.0, "done")
    return ChestPhantom(CTVolume(array, turned, name="chest phantom"), tuple(nodules), seed)


def _lattice(spacing_mm: tuple[float, float, float]) -> tuple[np.ndarray, tuple[int, int, int]]:
    spacing = np.array(spacing_mm)
    size = np.round(np.array(_SIZE_MM) / spacing).astype(int)
    ijk_to_ras = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    ijk_to_ras[:3, 3] = -ijk_to_ras[:3, :3] @ ((size - 1) / 2)
    return ijk_to_ras, tuple(int(n) for n in size)


def _turn(degrees: float) -> np.ndarray:
    """4x4 rotation about an axis that is parallel to none of the body's."""
    axis = np.array([1.0, 2.0, 3.0]) / np.sqrt(14.0)
    angle = np.deg2rad(degrees)
    cross = np.cross(np.eye(3), axis)
    matrix = np.eye(4)
    matrix[:3, :3] = np.eye(3) - np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return matrix


def _centers(lung: np.ndarray, grid: Grid, kinds: tuple[str, ...], rng: np.random.Generator) -> list[np.ndarray]:
    """A centre for each nodule, RAS mm: inside a lung with room around it, away from the hila and from each other."""
    coarse = np.maximum(1, np.round(3.0 / grid.spacing_mm).astype(int))
    kept = lung[:: coarse[2], :: coarse[1], :: coarse[0]]
    room = ndimage.distance_transform_edt(kept, sampling=(grid.spacing_mm * coarse)[::-1])
    z, y, x = grid.z[:: coarse[2]], grid.y[:: coarse[1]], grid.x[:: coarse[0]]
    centers: dict[int, np.ndarray] = {}
    # The largest first: they find the fewest places.
    for number in sorted(range(len(kinds)), key=lambda n: -_DIAMETERS_MM[kinds[n]]):
        candidates = np.argwhere(room > 0.85 * _DIAMETERS_MM[kinds[number]] + 4.0)
        points = np.stack([x[candidates[:, 2]], y[candidates[:, 1]], z[candidates[:, 0]]], axis=1)
        free = np.hypot(np.abs(points[:, 0]) - 30.0, points[:, 2] - 5.0) > _CLEAR_OF_HILUM_MM
        for other in centers.values():
            free &= np.linalg.norm(points - other, axis=1) > _CLEAR_OF_EACH_OTHER_MM
        if not free.any():
            msg = f"there is no room for {len(kinds)} nodules in the lungs; ask for fewer kinds"
            raise ValueError(msg)
        centers[number] = points[free][rng.integers(free.sum())]
    return [centers[number] for number in range(len(kinds))]
