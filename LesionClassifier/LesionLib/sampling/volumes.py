"""From a box to a cube of voxels: the CT's values around a lesion, or the shape of its segment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from LesionLib.errors import BoxError
from LesionLib.geometry import CTVolume, LesionBox, require_overlap, transformed_points
from LesionLib.sampling.resample import lattice_points, resample

Interpolation = Literal["nearest", "linear"]


@dataclass(frozen=True)
class IsotropicCubeSpec:
    """How a cube around a box is cropped: ``edge_mm`` long, ``voxels`` a side, in the axes of the box.

    It shows the lesion's surroundings, so nothing is padded, unless ``margin_mm`` says how far beyond the box, along its
    three axes, the CT is shown; the rest is then ``fill_hu``, so that a model sees the same surroundings in training as in
    use. With ``box_channel`` the last channel is the share of each voxel that lies inside the box, 0 to 1. A box longer than
    the cube is shown, with its margin, at a coarser spacing, never cropped.
    """

    edge_mm: float = 64.0
    voxels: int = 64
    windows_hu: tuple[tuple[float, float], ...] = ((-1000.0, 400.0),)
    margin_mm: tuple[float, float, float] | None = None
    fill_hu: float = -1000.0
    box_channel: bool = False


@dataclass(frozen=True)
class ShapeMaskSpec:
    """How the shape of a segment is cropped: its mask in a cube ``edge_mm`` long, ``voxels`` a side.

    ``interpolation``: "nearest" takes the mask's nearest voxel; "linear" is in where the interpolated mask reaches 0.5,
    which is smoother across thick slices. A box longer than the cube is shown at a coarser spacing, never cropped.
    """

    edge_mm: float = 64.0
    voxels: int = 28
    interpolation: Interpolation = "linear"


@dataclass(frozen=True, eq=False)
class CubeSample:
    """The cube of one box.

    ``hu``: float32, shape (1, 1, slice, row, column); HU, or 0 and 1 for the shape of a segment. ``sampleToRAS``: 4x4
    from (column, row, slice) to RAS mm. ``outside_share``: share of the shown part outside the CT, where the CT's edge is
    repeated (a segment ends there). ``pixel_mm``: edge of one voxel. ``shown``: the slices, rows and columns that show the
    CT, the rest is padding; None where all do. ``box_share``: float32, (slice, row, column), how much of each voxel lies
    inside the box, where the spec asks for it.
    """

    hu: np.ndarray
    sampleToRAS: np.ndarray
    outside_share: float
    pixel_mm: float
    shown: tuple[slice, slice, slice] | None = None
    box_share: np.ndarray | None = None

    @property
    def region(self) -> np.ndarray:
        """bool, shape (slice, row, column): where the cube shows the CT (the rest is padding)."""
        region = np.zeros(self.hu.shape[2:], dtype=bool)
        region[self.shown or ...] = True
        return region

    @property
    def padded_share(self) -> float:
        """Share of the cube that is padding: none where it shows the lesion's surroundings."""
        return 1.0 - float(self.region.mean())


def isotropic_cube(volume: CTVolume, box: LesionBox, spec: IsotropicCubeSpec) -> CubeSample:
    """Cut the cube around the middle of ``box`` out of ``volume``. Raises `BoxError` for a box outside."""
    require_overlap(volume, box)
    margin_mm = None if spec.margin_mm is None else np.array(spec.margin_mm)
    longest_mm = float((box.sizeMm + (0.0 if margin_mm is None else 2 * margin_mm)).max())
    voxel_mm = max(spec.edge_mm, longest_mm) / spec.voxels
    to_ras = _cube_to_ras(box, spec.voxels, voxel_mm)
    box_share = _share_within(box.sizeMm / 2, spec.voxels, voxel_mm) if spec.box_channel else None
    if margin_mm is None:
        hu, inside = resample(volume, to_ras, (spec.voxels,) * 3)
        return CubeSample(hu[None, None], to_ras, 1.0 - float(inside.mean()), voxel_mm, box_share=box_share)
    shares = _shares_along(box.sizeMm / 2 + margin_mm, spec.voxels, voxel_mm)
    shown = tuple(_where_shown(share) for share in reversed(shares))
    part, inside = _resampled_part(volume, to_ras, shown)
    hu = np.full((spec.voxels,) * 3, spec.fill_hu, dtype=np.float32)
    # Voxels on the edge of what is shown are a mixture, so that the picture moves with the box and does not jump.
    weight = _product([share[of] for share, of in zip(shares, reversed(shown), strict=True)])
    hu[shown] = part * weight + spec.fill_hu * (1.0 - weight)
    return CubeSample(hu[None, None], to_ras, 1.0 - float(inside.mean()), voxel_mm, shown, box_share)


def _shares_along(half_mm: np.ndarray, voxels: int, voxel_mm: float) -> list[np.ndarray]:
    """For the axes x, y, z: how much of each voxel lies within ``half_mm`` of the middle, 0 to 1, float32."""
    from_middle = np.abs(np.arange(voxels) - (voxels - 1) / 2) * voxel_mm
    return [np.clip((half - from_middle) / voxel_mm + 0.5, 0.0, 1.0).astype(np.float32) for half in half_mm]


def _share_within(half_mm: np.ndarray, voxels: int, voxel_mm: float) -> np.ndarray:
    return _product(_shares_along(half_mm, voxels, voxel_mm))


def _product(along: list[np.ndarray]) -> np.ndarray:
    """(slice, row, column) from what holds along x, y and z."""
    x, y, z = along
    return z[:, None, None] * y[:, None] * x


def _where_shown(share: np.ndarray) -> slice:
    index = np.flatnonzero(share > 0)
    return slice(int(index[0]), int(index[-1]) + 1)


def _resampled_part(
    volume: CTVolume, to_ras: np.ndarray, shown: tuple[slice, slice, slice]
) -> tuple[np.ndarray, np.ndarray]:
    """HU and whether inside the CT of the shown part of a cube: the padding is never cut."""
    part = to_ras.copy()
    part[:3, 3] = transformed_points(to_ras, [of.start for of in reversed(shown)])
    return resample(volume, part, tuple(of.stop - of.start for of in reversed(shown)))


def shape_mask(volume: CTVolume, box: LesionBox, spec: ShapeMaskSpec, *, mask: CTVolume | None) -> CubeSample:
    """The shape of a segment in the cube around the middle of ``box``; the CT gives only where it ends.

    ``mask``: 0 and 1 on any lattice (a label map cropped to its segment is fine). Raises `BoxError` without a mask,
    for one with nothing in the cube or with several labels, and for a box outside the CT.
    """
    if mask is None:
        msg = f"box {box.name!r}: the model looks at the shape of a segment; give the segment the box was made from."
        raise BoxError(msg)
    require_overlap(volume, box)
    voxel_mm = _voxel_mm(box, spec)
    to_ras = _cube_to_ras(box, spec.voxels, voxel_mm)
    shape = mask_on_lattice(mask, to_ras, (spec.voxels,) * 3, interpolation=spec.interpolation)
    if not shape.any():
        msg = f"box {box.name!r}: the segment {mask.name!r} has nothing in it; give the segment this box was made from."
        raise BoxError(msg)
    _, inside = _nearest(volume, to_ras, (spec.voxels,) * 3)
    return CubeSample(shape[None, None].astype(np.float32), to_ras, 1.0 - float(inside.mean()), voxel_mm)


def mask_on_lattice(
    mask: CTVolume, sampleToRAS: np.ndarray, sizeIJK: tuple[int, int, int], *, interpolation: Interpolation
) -> np.ndarray:
    """A 0/1 mask on another lattice: bool, shape ``sizeIJK[::-1]``; false beyond the mask's own lattice."""
    sampled = _nearest if interpolation == "nearest" else resample
    values, inside = sampled(mask, sampleToRAS, sizeIJK)
    if values.max() > 1.0 + 1e-3 or values.min() < -1e-3:
        msg = f"the mask {mask.name!r} has values other than 0 and 1; give the mask of one segment."
        raise BoxError(msg)
    return (values >= 0.5) & inside


def _nearest(
    volume: CTVolume, sample_to_ras: np.ndarray, sizeIJK: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """As `resample`, but each point takes the value of the nearest voxel."""
    ijk = transformed_points(volume.rasToIJK @ sample_to_ras, lattice_points(sizeIJK))
    nearest = np.floor(ijk + 0.5).astype(int)
    last = np.array(volume.sizeIJK) - 1
    inside = ((nearest >= 0) & (nearest <= last)).all(axis=-1)
    i, j, k = np.moveaxis(np.clip(nearest, 0, last), -1, 0)
    return volume.array[k, j, i], inside


def _voxel_mm(box: LesionBox, spec: ShapeMaskSpec) -> float:
    return max(spec.edge_mm, float(box.sizeMm.max())) / spec.voxels


def _cube_to_ras(box: LesionBox, voxels: int, voxel_mm: float) -> np.ndarray:
    cube_to_box = np.diag([voxel_mm, voxel_mm, voxel_mm, 1.0])
    cube_to_box[:3, 3] = -(voxels - 1) / 2 * voxel_mm
    return box.boxToRAS @ cube_to_box
