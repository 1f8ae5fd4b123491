"""Masses of soft tissue whose truth is known: in a piece of an organ, or in whole slices of an abdomen. For teaching.

They look like what their names say to a network and to a learner; no disease looks like this. What a kind is lies in its pattern
alone: size, lobes and, where ``PATTERNS`` has no shift, mean HU are drawn alike for all kinds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy import ndimage

from LesionLib.geometry import CTVolume, LesionBox, transformed_points
from LesionLib.phantom.nodules import correlated_noise
from LesionLib.sampling.resample import lattice_points

Place = Literal["fat", "liver", "abdomen", "bone", "bowel", "mediastinum", "lung", "kidney", "muscle", "pelvis"]
_FAT_HU, _LIVER_HU, _SOFT_HU, _BONE_HU, _AIR_HU = -98.0, 105.0, 45.0, 380.0, -1000.0
_PATCH_MM = np.array([64.0, 64.0, 60.0])
_ABDOMEN_MM = np.array([256.0, 208.0, 30.0])
_SATURATED = 20.0  # tanh of so much is 1 to the last bit
_LIVER_CENTER_MM, _LIVER_HALF_MM = np.array([48.0, 8.0]), np.array([56.0, 66.0])


@dataclass(frozen=True)
class Surroundings:
    """What a piece is made of: ``hu``, with ``tubes`` of ``tube_hu`` and ``tube_mm`` (radius, from and to), and from some 24 to 34 mm
    beyond the middle on, on one side, of ``beyond_hu`` (None: of the same)."""

    hu: float
    tubes: int = 0
    tube_hu: float = 0.0
    tube_mm: tuple[float, float] = (1.0, 2.6)
    beyond_hu: float | None = None


# Beside fat and liver, which are older and drawn in an order of their own.
SURROUNDINGS: dict[str, Surroundings] = {
    "bone": Surroundings(420.0, tubes=6, tube_hu=120.0),
    "bowel": Surroundings(-98.0, tubes=5, tube_hu=40.0, tube_mm=(5.0, 9.0)),
    "mediastinum": Surroundings(-80.0, tubes=2, tube_hu=260.0, tube_mm=(7.0, 11.0), beyond_hu=-850.0),
    "lung": Surroundings(-850.0, tubes=6, tube_hu=30.0),
    "kidney": Surroundings(180.0, tubes=3, tube_hu=10.0, tube_mm=(2.0, 4.0)),
    "muscle": Surroundings(55.0, tubes=4, tube_hu=-90.0, tube_mm=(0.6, 1.2)),
    "pelvis": Surroundings(-98.0, tubes=1, tube_hu=150.0, beyond_hu=420.0),
}


@dataclass(frozen=True)
class Pattern:
    """``shift_hu``: of the mean, beside that of all masses. The others in units of the contrast: ``grain`` of ``grain_mm``, ``rim``
    over the outer quarter, ``core`` in the inner 40 %. ``lobes``: how uneven the outline is, as a share of the radius."""

    shift_hu: float = 0.0
    grain: float = 0.0
    grain_mm: float = 1.0
    rim: float = 0.0
    core: float = 0.0
    lobes: float = 0.08


PATTERNS: dict[str, Pattern] = {
    "homogeneous": Pattern(),
    "fine": Pattern(grain=0.6, grain_mm=1.1),
    "coarse": Pattern(grain=0.6, grain_mm=4.0),
    "rim": Pattern(rim=1.0),
    "scar": Pattern(core=-1.2),
    "halo": Pattern(rim=-1.0),
    "nidus": Pattern(core=1.2),
    "dark": Pattern(shift_hu=-55.0),
    "bright": Pattern(shift_hu=55.0),
    "cyst": Pattern(lobes=0.03),
    "metastasis": Pattern(grain=0.35, grain_mm=3.5, rim=0.45, lobes=0.12),
}
NOTHING = "nothing"
KINDS = (*PATTERNS, NOTHING)


@dataclass(frozen=True)
class MassKnobs:
    """How hard the task is. ``contrast_hu``: of the patterns; ``variation_hu``: standard deviation of a mass's mean, the same for
    all kinds; ``mean_hu``: of masses in all places alike; ``noise_hu``, ``diameter_mm``: from and to. ``modes_hu``: a mass's mean
    is moved by one of these, drawn alike for all kinds (variation within a class); ``alike``: in what share of the masses the
    pattern has half its contrast (likeness between classes).
    """

    contrast_hu: float = 60.0
    variation_hu: float = 25.0
    mean_hu: float = 60.0
    noise_hu: tuple[float, float] = (8.0, 16.0)
    diameter_mm: tuple[float, float] = (16.0, 36.0)
    modes_hu: tuple[float, ...] = ()
    alike: float = 0.0


@dataclass(frozen=True, eq=False)
class PhantomMass:
    """The CT (int16 HU) and its truth: ``box``, tight, with the mass as its segment; for "nothing" a place of the same size, whose
    segment is None."""

    volume: CTVolume
    kind: str
    diameter_mm: float
    box: LesionBox


def mass_ct(
    *, kind: str, place: Place, seed: int, style_seed: int, knobs: MassKnobs | None = None, visit: int = 0
) -> PhantomMass:
    """A small CT with one mass; the same arguments give the same bytes.

    ``seed``: of the mass; ``style_seed``: of what all CTs of a patient share: spacing, noise, the organ's density. ``place``:
    "abdomen" is whole slices with a liver, the others are pieces of 64 mm. ``visit``: the same mass on a later CT, larger by a
    tenth each time. Raises ValueError for an unknown kind.
    """
    if kind not in KINDS:
        msg = f"kind is {kind!r}; it must be one of {', '.join(KINDS)}"
        raise ValueError(msg)
    knobs = _drawn(knobs or MassKnobs(), seed, style_seed)
    style, rng = np.random.default_rng((style_seed, 1)), np.random.default_rng((seed, style_seed, 2))
    whole = place == "abdomen"
    in_plane = style.uniform(1.8, 2.2) if whole else style.uniform(0.7, 0.95)
    spacing = np.array([in_plane, in_plane, 5.0 if whole else style.uniform(1.5, 3.0)])
    organ_hu, noise_hu = style.normal(0.0, 10.0), style.uniform(*knobs.noise_hu)
    ijk_to_ras, points = _lattice(_ABDOMEN_MM if whole else _PATCH_MM, spacing)
    hu = _abdomen(points, organ_hu) if whole else _piece(points, place, organ_hu, rng)
    diameter = float(rng.uniform(*knobs.diameter_mm)) * (1.0 + 0.1 * visit)
    center = _place_in_liver(diameter, rng) if whole else rng.uniform(-4.0, 4.0, 3)
    segment = None
    from_center = points - center
    if kind == NOTHING:
        inside = _length(from_center) < diameter / 2
    else:
        mean_hu = knobs.mean_hu + rng.normal(0.0, knobs.variation_hu) + PATTERNS[kind].shift_hu
        share, density = _mass(from_center, diameter / 2, PATTERNS[kind], spacing, knobs.contrast_hu, rng)
        hu += share * (mean_hu + density - hu)
        inside = share > 0.5
        segment = CTVolume(inside.astype(np.uint8), ijk_to_ras, name=kind)
    hu = ndimage.gaussian_filter(hu, 0.5 / spacing[::-1])
    noise = rng if visit == 0 else np.random.default_rng((seed, style_seed, 4, visit))
    hu += correlated_noise(hu.shape, noise, standard_deviation_hu=float(noise_hu))
    volume = CTVolume(np.round(hu).astype(np.int16), ijk_to_ras, name=f"phantom {kind}")
    return PhantomMass(volume, kind, diameter, _box(inside, ijk_to_ras, kind, segment))


def _drawn(knobs: MassKnobs, seed: int, style_seed: int) -> MassKnobs:
    """The knobs of one mass: its mode, and whether its pattern is faint. By draws of their own, so that all else stays."""
    rng = np.random.default_rng((seed, style_seed, 3))
    moved = float(rng.choice(knobs.modes_hu)) if knobs.modes_hu else 0.0
    contrast_hu = knobs.contrast_hu * (0.5 if rng.uniform() < knobs.alike else 1.0)
    return replace(knobs, mean_hu=knobs.mean_hu + moved, contrast_hu=contrast_hu)


def _lattice(size_mm: np.ndarray, spacing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As a CT's, the middle at RAS 0: the matrix, and the points (k, j, i, 3) in RAS mm."""
    size = np.round(size_mm / spacing).astype(int)
    ijk_to_ras = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    ijk_to_ras[:3, 3] = -ijk_to_ras[:3, :3] @ ((size - 1) / 2)
    return ijk_to_ras, transformed_points(ijk_to_ras, lattice_points(tuple(int(n) for n in size)))


def _piece(points: np.ndarray, place: Place, organ_hu: float, rng: np.random.Generator) -> np.ndarray:
    """Fat beside an organ, liver with vessels, or one of `SURROUNDINGS`."""
    if place == "fat":
        return _FAT_HU + _beyond(points, rng) * (_LIVER_HU + organ_hu - _FAT_HU)
    if place == "liver":
        hu = np.full(points.shape[:-1], _LIVER_HU + organ_hu)
        for _ in range(4):
            hu += _tube(points, (1.0, 2.6), rng) * 45.0
        return hu
    of = SURROUNDINGS[place]
    hu = np.full(points.shape[:-1], of.hu + organ_hu)
    if of.beyond_hu is not None:
        hu += _beyond(points, rng) * (of.beyond_hu - hu)
    for _ in range(of.tubes):
        hu += _tube(points, of.tube_mm, rng) * (of.tube_hu - hu)
    return hu


def _beyond(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """1 on the far side of a plane 24 to 34 mm from the middle, 0 on the near side."""
    direction = rng.normal(size=3)
    beyond = points @ (direction / np.linalg.norm(direction)) - rng.uniform(24.0, 34.0)
    return 0.5 * (1 + np.tanh(beyond / 1.0))


def _tube(points: np.ndarray, radius_mm: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """1 inside a straight tube somewhere, 0 outside."""
    direction, offset = rng.normal(size=3), rng.normal(0.0, 18.0, 3)
    direction /= np.linalg.norm(direction)
    radius = rng.uniform(*radius_mm)
    relative = points - offset
    along = relative @ direction
    near = _squared(relative) - along**2 < (radius + 0.5 * _SATURATED) ** 2
    across = _length(relative[near] - along[near][:, None] * direction)
    share = np.zeros(points.shape[:-1])
    share[near] = 0.5 * (1 - np.tanh((across - radius) / 0.5))
    return share


def _abdomen(points: np.ndarray, organ_hu: float) -> np.ndarray:
    """Air, fat, muscle, liver on the patient's right, spine behind."""
    x, y = points[..., 0], points[..., 1]
    hu = np.full(x.shape, _AIR_HU)
    for radii, value in (((122.0, 96.0), _FAT_HU), ((112.0, 86.0), _SOFT_HU)):
        hu[(x / radii[0]) ** 2 + (y / radii[1]) ** 2 < 1] = value
    across = (points[..., :2] - _LIVER_CENTER_MM) / _LIVER_HALF_MM
    hu[(across**2).sum(axis=-1) < 1] = _LIVER_HU + organ_hu
    hu[x**2 + (y + 62.0) ** 2 < 17.0**2] = _BONE_HU
    return hu


def _place_in_liver(diameter_mm: float, rng: np.random.Generator) -> np.ndarray:
    room = (_LIVER_HALF_MM - diameter_mm / 2 - 6.0) * np.sqrt(rng.uniform())
    angle = rng.uniform(0, 2 * np.pi)
    return np.array([*(_LIVER_CENTER_MM + room * [np.cos(angle), np.sin(angle)]), rng.uniform(-4.0, 4.0)])


def _mass(
    points: np.ndarray,
    radius: float,
    pattern: Pattern,
    spacing: np.ndarray,
    contrast_hu: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """How much of each voxel is mass, and its density there beside the mean: 0 on average, so that mean HU tells no pattern."""
    grain = 0.0
    distance = _length(points)
    near = distance < (radius + 0.6 * _SATURATED) * (1.0 + 2.0 * pattern.lobes)  # the waves are 2 at most
    distance, unit = distance[near], points[near]
    unit /= np.maximum(distance, 1e-6)[:, None]
    waves = sum(np.sin(unit @ rng.normal(0.0, 2.5, 3) + rng.uniform(0, 2 * np.pi)) for _ in range(4)) / 2.0
    depth = distance / (radius * (1.0 + pattern.lobes * waves))
    if pattern.grain:
        grain = ndimage.gaussian_filter(rng.standard_normal(near.shape), pattern.grain_mm / spacing[::-1])
        grain = pattern.grain * grain[near] / grain.std()
    inside = 0.5 * (1.0 - np.tanh((depth - 1.0) * radius / 0.6))
    dense = grain + pattern.rim * (depth > 0.75) + pattern.core * (depth < 0.4)
    share, density = np.zeros(near.shape), np.zeros(near.shape)
    share[near], density[near] = inside, contrast_hu * (dense - dense[inside > 0.5].mean())
    return share, density


def _squared(vectors: np.ndarray) -> np.ndarray:
    return np.einsum("...i,...i->...", vectors, vectors)


def _length(vectors: np.ndarray) -> np.ndarray:
    return np.sqrt(_squared(vectors))


def _box(inside: np.ndarray, ijk_to_ras: np.ndarray, name: str, segment: CTVolume | None) -> LesionBox:
    spacing = np.linalg.norm(ijk_to_ras[:3, :3], axis=0)
    indices = np.argwhere(inside)[:, ::-1]
    first, last = indices.min(axis=0), indices.max(axis=0)
    center = transformed_points(ijk_to_ras, (first + last) / 2)
    return LesionBox(center, (last - first + 1) * spacing, ijk_to_ras[:3, :3] / spacing, name=name, segment=segment)
