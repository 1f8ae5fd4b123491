"""Lung nodules as recipes: where each is dense, as a smooth function of space, and how they are painted into a CT."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from LesionLib.geometry import CTVolume, LesionBox, transformed_points
from LesionLib.sampling.resample import lattice_points

LUNG_HU = -860.0
_SOFT_HU = 30.0
_SPICULE_REACH = 1.7  # how far spicules reach, in radii


@dataclass(frozen=True, eq=False)
class PhantomNodule:
    """A nodule's truth: its kind, the tight box of its voxels (RAS mm), its diameter."""

    name: str
    kind: str
    diameter_mm: float
    box: LesionBox


@dataclass(frozen=True, eq=False)
class _Shape:
    """``share``: how much of a voxel is nodule, 0 … 1; ``hu``: its density there. Both of the points' shape."""

    share: np.ndarray
    hu: np.ndarray


def _edge(distance_mm: np.ndarray, softness_mm: float) -> np.ndarray:
    """1 inside, 0 outside, partial volume in between; ``distance_mm`` is negative inside."""
    return 0.5 * (1.0 - np.tanh(distance_mm / softness_mm))


def _length(points: np.ndarray) -> np.ndarray:
    """Distance of points (..., 3) from 0; of three numbers, several times as fast as `np.linalg.norm`, and the same to the bit."""
    return _root_of_squares(points[..., axis] for axis in range(3))


def _along_and_across(points: np.ndarray, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far points (..., 3) lie along a line through 0 in this direction, of length 1, and how far from it."""
    along = points @ direction
    return along, _root_of_squares(points[..., axis] - along * direction[axis] for axis in range(3))


def _root_of_squares(parts: Iterable[np.ndarray]) -> np.ndarray:
    return np.sqrt(sum(part * part for part in parts))


def _round(points: np.ndarray, radius: float, rng: np.random.Generator) -> _Shape:
    stretch = rng.uniform(0.93, 1.07, 3)
    distance = _length(points * stretch) - radius
    return _Shape(_edge(distance, 0.4), np.full(distance.shape, _SOFT_HU))


def _lobulated(points: np.ndarray, radius: float, rng: np.random.Generator) -> _Shape:
    """Several balls grown together: a central one and lobes on its surface."""
    lobes = _directions(rng, 6) * radius * 0.56
    distance = _length(points) - 0.62 * radius
    for lobe in lobes:
        distance = np.minimum(distance, _length(points - lobe) - rng.uniform(0.34, 0.5) * radius)
    return _Shape(_edge(distance, 0.4), np.full(distance.shape, _SOFT_HU))


def _spiculated(points: np.ndarray, radius: float, rng: np.random.Generator) -> _Shape:
    """An uneven ball with thin tapering strands into the lung."""
    share = _lobulated(points, 0.9 * radius, rng).share
    for direction in _directions(rng, 60):
        along, across = _along_and_across(points, direction)
        reach = radius * rng.uniform(1.25, _SPICULE_REACH)
        width = np.clip(1.1 * (1.0 - along / reach), 0.0, None) + 0.3
        strand = 0.85 * np.exp(-((across / width) ** 2)) * (along > 0) * (along < reach)
        share = np.maximum(share, strand)
    return _Shape(share, np.full(share.shape, _SOFT_HU))


def _ground_glass(points: np.ndarray, radius: float, rng: np.random.Generator) -> _Shape:
    """A faint cloud with a blurred, uneven edge; vessels stay visible through it."""
    wave = np.sin(points @ rng.normal(0, 3.0 / radius, 3)) + np.sin(points @ rng.normal(0, 3.0 / radius, 3))
    distance = _length(points) - radius * (1.0 + 0.08 * wave)
    return _Shape(_edge(distance, 1.2), -590.0 + 35.0 * wave)


def _part_solid(points: np.ndarray, radius: float, rng: np.random.Generator) -> _Shape:
    """Ground glass with a solid core a little off its middle."""
    wave = np.sin(points @ rng.normal(0, 3.0 / radius, 3)) + np.sin(points @ rng.normal(0, 3.0 / radius, 3))
    share = _edge(_length(points) - radius * (1.0 + 0.08 * wave), 2.0)
    off_middle = rng.normal(0, 0.12 * radius, 3)
    core = _edge(_length(points - off_middle) - 0.35 * radius, 0.8)
    return _Shape(share, (1 - core) * (-500.0 + 35.0 * wave) + core * _SOFT_HU)


def _granuloma(points: np.ndarray, radius: float, rng: np.random.Generator) -> _Shape:
    """Chalk in the middle that fades towards a soft, uneven edge: as dense as most that readers call calcified."""
    distance = _length(points * rng.uniform(0.85, 1.15, 3))
    wave = np.sin(points @ rng.normal(0, 2.5 / radius, 3)) + np.sin(points @ rng.normal(0, 2.5 / radius, 3))
    chalk = rng.uniform(900, 1600) * np.exp(-((distance / (0.45 * radius)) ** 2))
    return _Shape(_edge(distance - radius * (1.0 + 0.06 * wave), 1.0), _SOFT_HU + chalk)


def _calcified(points: np.ndarray, radius: float, rng: np.random.Generator) -> _Shape:
    """A smooth ball with a dense centre, as an old granuloma has."""
    base = _round(points, radius, rng)
    core = _edge(_length(points) - 0.6 * radius, 0.6)
    return _Shape(base.share, _SOFT_HU + rng.uniform(550, 750) * core)


_RECIPES: dict[str, Callable[[np.ndarray, float, np.random.Generator], _Shape]] = {
    "round": _round,
    "lobulated": _lobulated,
    "spiculated": _spiculated,
    "ground-glass": _ground_glass,
    "calcified": _calcified,
    "part-solid": _part_solid,
    "granuloma": _granuloma,
}
KINDS = ("round", "lobulated", "spiculated", "ground-glass", "calcified")  # those of the chest phantom
# What readers would call them; of each those that are to the models like nodules they know.
NATURES = {
    "calcified": ("granuloma",),
    "solid": ("round", "lobulated", "spiculated"),
    "subsolid": ("part-solid", "ground-glass"),
}


def paint_nodule(
    hu: np.ndarray,
    ijkToRAS: np.ndarray,
    *,
    kind: str,
    centerRAS: np.ndarray,
    diameter_mm: float,
    seed: int,
    name: str,
) -> PhantomNodule:
    """Paint one nodule into ``hu`` (float, (k, j, i), changed in place) and return its truth.

    ``ijkToRAS``: 4x4, from (i, j, k) to RAS mm; ``centerRAS``: (3,), RAS mm. The box is tight around the voxels that are at
    least one third nodule, parallel to the lattice. Raises ValueError for an unknown kind or a nodule that reaches beyond the
    lattice.
    """
    if kind not in _RECIPES:
        msg = f"kind is {kind!r}; it must be one of {', '.join(_RECIPES)}"
        raise ValueError(msg)
    radius = diameter_mm / 2
    ijk = transformed_points(np.linalg.inv(ijkToRAS), centerRAS)
    reach = (_SPICULE_REACH * radius + 3.0) / np.linalg.norm(ijkToRAS[:3, :3], axis=0)
    low, high = np.floor(ijk - reach).astype(int), np.ceil(ijk + reach).astype(int) + 1
    if (low < 0).any() or (high > hu.shape[::-1]).any():
        msg = f"nodule {name!r} of {diameter_mm:g} mm reaches beyond the lattice at {np.round(centerRAS, 1)}"
        raise ValueError(msg)
    points = transformed_points(ijkToRAS, lattice_points(tuple(high - low)) + low) - centerRAS
    shape = _RECIPES[kind](points, radius, np.random.default_rng(seed))
    part = hu[low[2] : high[2], low[1] : high[1], low[0] : high[0]]
    # A nodule adds density: what is denser already (a vessel in ground glass) stays.
    part[...] = np.maximum(part, (1 - shape.share) * part + shape.share * shape.hu)
    return PhantomNodule(name, kind, diameter_mm, _tight_box(shape.share > 1 / 3, low, ijkToRAS, name))


def nodule_patch(
    *,
    kind: str,
    diameter_mm: float,
    seed: int,
    spacing_mm: tuple[float, float, float] = (0.7, 0.7, 1.25),
    size_mm: float = 56.0,
    vessels: int = 4,
    texture_hu: float = 0.0,
    noise_hu: float = 18.0,
) -> tuple[CTVolume, PhantomNodule]:
    """A cube of lung with one nodule near its middle: a small CT, int16 HU, for case libraries and tests.

    ``vessels`` beside it; ``texture_hu``, ``noise_hu``: standard deviations of what is uneven in the lung, coarse and fine.
    """
    rng = np.random.default_rng(seed)
    size = np.round(size_mm / np.array(spacing_mm)).astype(int)
    ijk_to_ras = np.diag([-spacing_mm[0], -spacing_mm[1], spacing_mm[2], 1.0])
    ijk_to_ras[:3, 3] = -ijk_to_ras[:3, :3] @ ((size - 1) / 2)
    points = transformed_points(ijk_to_ras, lattice_points(tuple(size)))
    hu = np.full(tuple(size[::-1]), LUNG_HU)
    if texture_hu:
        coarse = ndimage.gaussian_filter(rng.standard_normal(hu.shape), (1.5, 3.0, 3.0))
        hu += coarse * (texture_hu / coarse.std())
    for _ in range(vessels):
        _paint_vessel(hu, points, rng, size_mm)
    center = rng.uniform(-3, 3, 3)
    nodule = paint_nodule(hu, ijk_to_ras, kind=kind, centerRAS=center, diameter_mm=diameter_mm, seed=seed, name=kind)
    hu += correlated_noise(hu.shape, rng, standard_deviation_hu=noise_hu)
    return CTVolume(np.round(hu).astype(np.int16), ijk_to_ras, name=f"{kind} nodule"), nodule


def correlated_noise(shape: tuple[int, ...], rng: np.random.Generator, *, standard_deviation_hu: float) -> np.ndarray:
    """Noise with the short correlation that reconstruction gives it; float32."""
    noise = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), (0.3, 0.7, 0.7))
    return noise * np.float32(standard_deviation_hu / noise.std())


def _paint_vessel(hu: np.ndarray, points: np.ndarray, rng: np.random.Generator, size_mm: float) -> None:
    """A straight vessel that passes beside the nodule."""
    direction = _directions(rng, 1)[0]
    beside = np.cross(direction, _directions(rng, 1)[0])
    offset = beside / np.linalg.norm(beside) * rng.uniform(0.3, 0.45) * size_mm
    _along, across = _along_and_across(points - offset, direction)
    share = _edge(across - rng.uniform(0.7, 1.8), 0.4)
    hu += share * (40.0 - hu)


def _directions(rng: np.random.Generator, count: int) -> np.ndarray:
    """Unit vectors, evenly spread (a Fibonacci spiral), turned and shaken by chance, shape (count, 3)."""
    height = 1.0 - (2.0 * np.arange(count) + 1.0) / count
    turn = np.pi * (3.0 - np.sqrt(5.0)) * np.arange(count)
    around = np.sqrt(1.0 - height**2)
    spiral = np.stack([around * np.cos(turn), around * np.sin(turn), height], axis=1)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    vectors = spiral @ rotation + rng.normal(0, 0.12, (count, 3))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _tight_box(mask: np.ndarray, low: np.ndarray, ijkToRAS: np.ndarray, name: str) -> LesionBox:
    spacing = np.linalg.norm(ijkToRAS[:3, :3], axis=0)
    indices = np.argwhere(mask)[:, ::-1] + low
    first, last = indices.min(axis=0), indices.max(axis=0)
    center = transformed_points(ijkToRAS, (first + last) / 2)
    return LesionBox(center, (last - first + 1) * spacing, ijkToRAS[:3, :3] / spacing, name=name)
