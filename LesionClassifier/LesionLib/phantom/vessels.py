"""Branching vessels of the lungs, from each hilum outward."""

from __future__ import annotations

import numpy as np

from .thorax import Grid, grid_distance_to_segment

_BLOOD_HU = 40.0
_THINNEST_MM = 0.45
_TRUNKS = 9


def paint_vessels(hu: np.ndarray, lung: np.ndarray, grid: Grid, rng: np.random.Generator) -> None:
    """Paint both trees into the lungs, in place; outside the lungs nothing changes."""
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
