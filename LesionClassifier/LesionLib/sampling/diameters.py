"""Diameters of a segment as they are read off a CT: the longest in an axial slice, and the one across it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from LesionLib.geometry import CTVolume, transformed_points

Point = tuple[float, float, float]
_ALIKE_MM = 1e-6


@dataclass(frozen=True)
class Diameters:
    """In the axial slice where the lesion is longest, mm. ``ends`` and ``perpendicular_ends``: RAS mm.

    ``longest_mm`` is what RECIST 1.1 sums (Eisenhauer et al., Eur J Cancer 45:228, 2009); `mean_mm` is the size that the Fleischner
    Society (MacMahon et al., Radiology 284:228, 2017) and Lung-RADS name, of the long axis and the one across it in one slice.
    """

    longest_mm: float
    perpendicular_mm: float
    ends: tuple[Point, Point]
    perpendicular_ends: tuple[Point, Point]

    @property
    def mean_mm(self) -> float:
        """Of the two."""
        return (self.longest_mm + self.perpendicular_mm) / 2.0


def axial_diameters(segment: CTVolume) -> Diameters | None:
    """Of the convex hull of each slice, whose border runs halfway between voxels inside and outside; None for an empty segment.

    The slices are those of the segment's own lattice, across the axis that is nearest to the body's; so they are axial but for a
    tilted gantry.
    """
    longest: _Chord | None = None
    for border in _borders(segment):
        corners = border[_hull(border)]
        found = _farthest(corners)
        if longest is None or found.mm > longest.mm + _ALIKE_MM:
            longest, hull = found, corners
    if longest is None:
        return None
    across = _longest_across(hull, longest)
    return Diameters(
        round(longest.mm, 4), round(across.mm, 4), (longest.first, longest.last), (across.first, across.last)
    )


@dataclass(frozen=True)
class _Chord:
    """From one point to another, RAS mm."""

    mm: float
    first: Point
    last: Point

    def place(self) -> tuple[Point, Point]:
        """By which chords of one length are ordered."""
        return self.first, self.last


def _borders(segment: CTVolume) -> list[np.ndarray]:
    """For each axial slice that holds a voxel, the points halfway to the neighbours outside, RAS mm (n, 3)."""
    directions = segment.ijkToRAS[:3, :3] / np.linalg.norm(segment.ijkToRAS[:3, :3], axis=0)
    axial = int(np.abs(directions[2]).argmax())  # of i, j, k
    inside = np.pad(np.moveaxis(segment.array.astype(bool), 2 - axial, 0), ((0, 0), (1, 1), (1, 1)))
    rows, columns = (axis for axis in (2, 1, 0) if axis != axial)  # of i, j, k: along the array's axes 1 and 2
    borders = []
    for number, part in enumerate(inside):
        if not part.any():
            continue
        points = []
        for step in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            edge = np.argwhere(part & ~np.roll(part, (-step[0], -step[1]), axis=(0, 1)))
            points.append(edge - 1.0 + np.array(step) / 2.0)
        ijk = np.empty((sum(map(len, points)), 3))
        ijk[:, axial], ijk[:, [rows, columns]] = number, np.concatenate(points)
        borders.append(transformed_points(segment.ijkToRAS, ijk))
    return borders


def _hull(points: np.ndarray) -> np.ndarray:
    """Of points in a plane (n, 3) the indices of the corners of their convex hull, in order around it."""
    from scipy.spatial import ConvexHull  # not when Slicer starts

    from_middle = points - points.mean(axis=0)
    return ConvexHull(from_middle @ np.linalg.svd(from_middle, full_matrices=False)[2][:2].T).vertices


def _farthest(points: np.ndarray) -> _Chord:
    """Of all pairs of points (n, 3); of those as far apart the one that starts where coordinates are smallest."""
    apart = np.linalg.norm(points[:, None] - points[None], axis=-1)
    pairs = np.argwhere(apart >= apart.max() - _ALIKE_MM)
    chords = (_Chord(float(apart.max()), _point(points[first]), _point(points[last])) for first, last in pairs)
    return min(chords, key=_Chord.place)


def _longest_across(hull: np.ndarray, longest: _Chord) -> _Chord:
    """The longest chord of the hull across another. It passes a corner, for along that other one its length is concave."""
    along = hull @ (np.array(longest.last) - longest.first)
    nearer, further = along, np.roll(along, -1)
    chords = []
    for at in along:
        with np.errstate(divide="ignore", invalid="ignore"):
            share = (at - nearer) / (further - nearer)
        crosses = (share >= 0) & (share <= 1)
        ends = hull[crosses] + share[crosses, None] * (np.roll(hull, -1, axis=0)[crosses] - hull[crosses])
        if len(ends):
            chords.append(_farthest(ends))
    best = max(chord.mm for chord in chords)
    return min((chord for chord in chords if chord.mm >= best - _ALIKE_MM), key=_Chord.place)


def _point(point: np.ndarray) -> Point:
    r, a, s = (round(float(value), 3) for value in point)
    return r, a, s
