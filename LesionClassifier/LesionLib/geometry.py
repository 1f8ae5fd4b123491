"""Where things are: a CT on its lattice, and a lesion's box, both in RAS millimetres."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from LesionLib.errors import BoxError, InputWarning, VolumeError

_MIN_BOX_MM = 0.1


LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""4x4; its own inverse."""


def lattice_corners(size: Sequence[int], *, beyond: float = 0.0) -> np.ndarray:
    """The eight corners of a lattice of ``size`` (i, j, k) voxels, as indices (8, 3): centres, ``beyond`` voxels further out."""
    return np.array(np.meshgrid(*[(-beyond, n - 1 + beyond) for n in size], indexing="ij")).reshape(3, 8).T


def transformed_points(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Apply a 4x4 affine to points of shape (..., 3)."""
    points = np.asarray(points, dtype=float)
    return points @ matrix[:3, :3].T + matrix[:3, 3]


@dataclass(frozen=True, eq=False)
class CTVolume:
    """A CT on its voxel lattice.

    ``array`` has shape (k, j, i), in HU as far as anyone can tell; ``ijkToRAS`` is the 4x4 affine from voxel
    index (i, j, k) to RAS mm. Any invertible affine is allowed: oblique, left-handed, sheared (gantry tilt).
    ``warnings`` are what the reader noticed; they travel on to every result made from this volume.
    ``slicesAtK``: where slices that are unevenly spaced really lie, shape (k,), in units of k; None where each lies at its
    own index. ``missingSlices``: pairs of k between which nothing was acquired, so that voxels there are interpolated.
    """

    array: np.ndarray
    ijkToRAS: np.ndarray
    name: str = "CT"
    warnings: tuple[InputWarning, ...] = ()
    slicesAtK: np.ndarray | None = None
    missingSlices: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        """Refuse what is not a finite 3-D image with an invertible geometry (`VolumeError`)."""
        if self.array.ndim != 3:
            msg = f"{self.name}: the image has {self.array.ndim} dimensions; a CT volume has 3. Give one 3-D volume."
            raise VolumeError(msg)
        if min(self.array.shape) < 1:
            msg = f"{self.name}: the image is empty (size {self.array.shape[::-1]})."
            raise VolumeError(msg)
        if self.array.dtype.kind not in "iuf":
            msg = f"{self.name}: its voxels are of type {self.array.dtype}; a CT has real numbers. Give the CT itself."
            raise VolumeError(msg)
        if np.issubdtype(self.array.dtype, np.floating) and not np.isfinite(self.array).all():
            bad = int((~np.isfinite(self.array)).sum())
            msg = f"{self.name}: {bad} voxels are NaN or infinite; replace them (for example by -1000 HU) first."
            raise VolumeError(msg)
        matrix = np.asarray(self.ijkToRAS, dtype=float)
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:3, :3])) < 1e-9:
            msg = f"{self.name}: the geometry is broken (voxel axes do not span space); export the volume again."
            raise VolumeError(msg)
        object.__setattr__(self, "ijkToRAS", matrix)

    @property
    def sizeIJK(self) -> tuple[int, int, int]:
        """Number of voxels along i, j, k."""
        return tuple(int(n) for n in self.array.shape[::-1])

    @property
    def spacingMm(self) -> np.ndarray:
        """Length of one voxel step along i, j, k, in mm."""
        return np.linalg.norm(self.ijkToRAS[:3, :3], axis=0)

    @property
    def rasToIJK(self) -> np.ndarray:
        """4x4 affine from RAS mm to continuous voxel index (i, j, k)."""
        return np.linalg.inv(self.ijkToRAS)

    @property
    def sliceNormalRAS(self) -> np.ndarray:
        """Unit normal of the acquired slices (the i-j plane), pointing the way k grows."""
        normal = np.cross(self.ijkToRAS[:3, 0], self.ijkToRAS[:3, 1])
        normal /= np.linalg.norm(normal)
        return normal if normal @ self.ijkToRAS[:3, 2] > 0 else -normal

    @property
    def sliceDistanceMm(self) -> float:
        """Distance between neighbouring slices, measured along their normal."""
        return float(self.sliceNormalRAS @ self.ijkToRAS[:3, 2])


@dataclass(frozen=True, eq=False)
class LesionBox:
    """A box around a lesion, in RAS mm.

    ``centerRAS`` has shape (3,). ``axesRAS`` has shape (3, 3); its columns are the unit vectors of the box's own x, y, z axes.
    ``sizeMm``, shape (3,), are the full edge lengths along them. ``segment``: the mask the box was drawn around, 0 and 1 on any
    lattice (cropped around the lesion is fine); None where there is only the box.
    """

    centerRAS: np.ndarray
    sizeMm: np.ndarray
    axesRAS: np.ndarray = field(default_factory=lambda: np.eye(3))
    name: str = "lesion"
    segment: CTVolume | None = None

    def __post_init__(self) -> None:
        """Refuse boxes without size, place or right angles (`BoxError`)."""
        for key, shape in (("centerRAS", (3,)), ("sizeMm", (3,)), ("axesRAS", (3, 3))):
            value = np.array(getattr(self, key), dtype=float)
            if value.shape != shape or not np.isfinite(value).all():
                msg = f"box {self.name!r}: {key} must be {shape} finite numbers, not {getattr(self, key)!r}."
                raise BoxError(msg)
            object.__setattr__(self, key, value)
        if (self.sizeMm < _MIN_BOX_MM).any():
            size = " x ".join(f"{s:g}" for s in self.sizeMm)
            msg = (
                f"box {self.name!r}: its size is {size} mm; draw it around the lesion so that every side has a length."
            )
            raise BoxError(msg)
        if np.abs(self.axesRAS.T @ self.axesRAS - np.eye(3)).max() > 1e-4:
            msg = f"box {self.name!r}: its axes are not at right angles; remove shear or scaling from its transform."
            raise BoxError(msg)

    @property
    def boxToRAS(self) -> np.ndarray:
        """4x4 affine from box millimetres (origin at the centre) to RAS mm."""
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = self.axesRAS, self.centerRAS
        return matrix

    @property
    def cornersRAS(self) -> np.ndarray:
        """The eight corners, shape (8, 3), RAS mm."""
        signs = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1], indexing="ij")).reshape(3, 8).T
        return transformed_points(self.boxToRAS, signs * self.sizeMm / 2)

    def grown(self, margin_mm: float) -> LesionBox:
        """The same box with ``margin_mm`` more on every side."""
        return replace(self, sizeMm=self.sizeMm + 2 * margin_mm)

    def jittered(
        self, rng: np.random.Generator, *, shift_mm: float = 0.0, grow_mm: float = 0.0, turn_degrees: float = 0.0
    ) -> LesionBox:
        """As another reader might have drawn it: moved, grown by up to ``grow_mm`` a side, turned about its z axis."""
        angle = np.deg2rad(rng.uniform(-turn_degrees, turn_degrees))
        turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        return replace(
            self,
            centerRAS=self.centerRAS + self.axesRAS @ rng.uniform(-shift_mm, shift_mm, 3),
            sizeMm=self.sizeMm + 2 * rng.uniform(0, grow_mm, 3),
            axesRAS=self.axesRAS @ turn,
        )


def is_outside(volume: CTVolume, box: LesionBox) -> bool:
    """Whether the box shares no point with the volume."""
    if _holds(volume, box.centerRAS):
        return False
    origin, edges = _corner_and_edges(volume)
    return _are_apart(box.axesRAS * box.sizeMm, edges, box.centerRAS - origin - edges.sum(axis=1) / 2)


def distance_outside_mm(volume: CTVolume, box: LesionBox) -> float:
    """How far the box lies from the volume; 0 where they overlap or touch.

    The closest pair of points of two parallelepipeds is a bounded linear least-squares problem in six unknowns.
    """
    if not is_outside(volume, box):
        return 0.0
    from scipy.optimize import lsq_linear  # half a second to import, and only a box gone astray needs it

    origin, edges = _corner_and_edges(volume)
    solution = lsq_linear(
        np.hstack([box.axesRAS, -edges]),
        origin - box.centerRAS,
        bounds=(np.r_[-box.sizeMm / 2, 0, 0, 0], np.r_[box.sizeMm / 2, 1, 1, 1]),
    )
    distance = float(np.sqrt(2 * solution.cost))
    return 0.0 if distance < 1e-3 else distance


def _corner_and_edges(volume: CTVolume) -> tuple[np.ndarray, np.ndarray]:
    """Of the volume as a parallelepiped: the outer corner of its first voxel, RAS mm, and its edges in the columns, (3, 3)."""
    origin = transformed_points(volume.ijkToRAS, [-0.5, -0.5, -0.5])
    return origin, volume.ijkToRAS[:3, :3] * np.array(volume.sizeIJK)


def _are_apart(first: np.ndarray, second: np.ndarray, between: np.ndarray) -> bool:
    """Whether a plane separates two parallelepipeds: edges in the columns, (3, 3), and ``between`` their middles, (3,).

    Where one does, one of these does: parallel to a face of either, or to an edge of each (separating axis theorem).
    """
    pairs = [(edges[:, a], edges[:, b]) for edges in (first, second) for a, b in ((0, 1), (0, 2), (1, 2))]
    pairs += [(a, b) for a in first.T for b in second.T]
    normals = np.array([np.cross(a, b) for a, b in pairs])
    reach = (np.abs(normals @ first) + np.abs(normals @ second)).sum(axis=1) / 2
    return bool((np.abs(normals @ between) > reach * (1 + 1e-12)).any())


def _holds(volume: CTVolume, pointRAS: np.ndarray) -> bool:
    """Whether a point (RAS mm) lies in one of the voxels."""
    ijk = transformed_points(volume.rasToIJK, pointRAS)
    return bool(((ijk >= -0.5) & (ijk <= np.array(volume.sizeIJK) - 0.5)).all())


def voxels_around(volume: CTVolume, box: LesionBox) -> np.ndarray:
    """The smallest part of the lattice that holds a box, as far as the CT reaches: HU, a view (k, j, i), empty outside."""
    corners = transformed_points(volume.rasToIJK, box.cornersRAS)
    low = np.clip(np.floor(corners.min(axis=0)), 0, None).astype(int)
    high = np.clip(np.ceil(corners.max(axis=0)) + 1, 0, volume.sizeIJK).astype(int)
    return volume.array[low[2] : high[2], low[1] : high[1], low[0] : high[0]]


def label_mask(labels: np.ndarray, value: int, slices: tuple[slice, ...], ijkToRAS: np.ndarray, name: str) -> CTVolume:
    """The voxels of one label as 0 and 1, on the part of the lattice that ``slices`` (k, j, i) cut out of ``labels``."""
    cropToRAS = np.array(ijkToRAS, dtype=float)
    cropToRAS[:3, 3] = transformed_points(cropToRAS, [s.start for s in reversed(slices)])
    return CTVolume((labels[slices] == value).astype(np.uint8), cropToRAS, name)


def in_missing_slices_mm(volume: CTVolume, box: LesionBox) -> float:
    """How much of the box's extent across the slices, in mm, lies where no slice was acquired."""
    low, high = _extent_in_k(volume, box)
    inside = sum(max(0.0, min(high, end) - max(low, start)) for start, end in volume.missingSlices)
    return inside * volume.sliceDistanceMm


def _extent_in_k(volume: CTVolume, box: LesionBox) -> tuple[float, float]:
    k = transformed_points(volume.rasToIJK, box.cornersRAS)[:, 2]
    return float(k.min()), float(k.max())


def _require_acquired(volume: CTVolume, box: LesionBox) -> None:
    low, high = _extent_in_k(volume, box)
    for start, end in volume.missingSlices:
        if start < low and high < end:
            gap = (end - start) * volume.sliceDistanceMm
            msg = (
                f"box {box.name!r} lies in a gap of {gap:.1f} mm of {volume.name} where slices are missing: no image passes "
                "through it. Export the whole series."
            )
            raise BoxError(msg)


def _require_reaching_in(volume: CTVolume, box: LesionBox) -> None:
    """Refuse a box that only grazes the outermost voxels from outside: nothing of it could be measured."""
    if _holds(volume, box.centerRAS):
        return
    shrunk = np.maximum(np.array(volume.sizeIJK) - 1, 1e-6)  # the lattice between the outermost voxels' centres
    inner = np.eye(4)
    inner[:3, :3] = volume.ijkToRAS[:3, :3] * shrunk
    inner[:3, 3] = volume.ijkToRAS[:3, 3] + inner[:3, :3].sum(axis=1) / 2
    distance = distance_outside_mm(CTVolume(np.zeros((1, 1, 1), np.uint8), inner), box)
    if distance > 0:
        msg = (
            f"box {box.name!r} lies outside {volume.name} but for its edge: it ends {distance:.2f} mm before the first voxel's "
            "centre, so nothing in it can be measured; check its frame (RAS or LPS) and that it belongs to this CT."
        )
        raise BoxError(msg)


def require_overlap(volume: CTVolume, box: LesionBox) -> None:
    """Refuse a box that lies outside the volume, and say by how far, or where slices are missing (`BoxError`)."""
    distance = distance_outside_mm(volume, box)
    if distance > 0:
        msg = (
            f"box {box.name!r} lies outside the volume by {distance:.1f} mm; check that its frame (RAS or LPS) is right "
            f"and that it belongs to {volume.name}."
        )
        raise BoxError(msg)
    _require_reaching_in(volume, box)
    _require_acquired(volume, box)
