"""From a box to network input, and the way back: every sample carries its map to RAS."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np

from LesionLib.geometry import CTVolume, LesionBox, require_overlap, transformed_points

_PARALLEL_COSINE = np.cos(np.deg2rad(1.0))


@dataclass(frozen=True)
class AxialStackSpec:
    """How the axial stack of a box is cropped (the ``input`` section of a model's manifest).

    Every slice through the box becomes one square patch of ``size`` pixels at ``spacing_mm``, in the frame of
    the box. What lies further than ``margin_mm`` from the box is filled with ``fill_hu``, so that a model sees the
    same surroundings in training as in use. A box too large for the patch is shown at a coarser spacing, never cropped.

    ``fit_box``: the box itself fills the patch, each edge stretched to ``size`` pixels, without margin and without fill, so
    that nothing around a lesion tells its size; ``spacing_mm``, ``margin_mm`` and ``fill_hu`` are then not looked at.
    """

    size: int = 64
    spacing_mm: float = 0.625
    margin_mm: float = 3.0
    max_slices: int = 16
    fill_hu: float = -1000.0
    windows_hu: tuple[tuple[float, float], ...] = ((-1000.0, 400.0), (-160.0, 240.0), (100.0, 1000.0))
    fit_box: bool = False


@dataclass(frozen=True, eq=False)
class AxialStack:
    """The slices of one box.

    ``hu``: float32, shape (slice, row, column), HU. ``sampleToRAS``: 4x4 from (column, row, slice) to RAS mm.
    ``region``: bool, shape (row, column), where the patch shows the box and its margin (the rest is fill).
    ``outside_share``: share of the box and its margin that lies outside the volume, where its edge is repeated.
    ``pixel_mm``: pixel size, the larger of the two where a box was fitted; ``slice_step_mm``: distance of neighbouring slices.
    """

    hu: np.ndarray
    sampleToRAS: np.ndarray
    region: np.ndarray
    outside_share: float
    pixel_mm: float
    slice_step_mm: float


def axial_stack(volume: CTVolume, box: LesionBox, spec: AxialStackSpec) -> AxialStack:
    """Cut the slices of ``box`` out of ``volume``; at least one, at most ``spec.max_slices``.

    Where the box stands parallel to the CT's own slices these are the CT's slices themselves (no blur across thick
    slices); a tilted box is cropped along its own z axis at the same distance. Raises `BoxError` for a box outside.
    """
    require_overlap(volume, box)
    if spec.fit_box:
        pixels_mm = box.sizeMm[:2] / spec.size
    else:
        pixels_mm = np.full(2, max(spec.spacing_mm, float(box.sizeMm[:2].max() + 2 * spec.margin_mm) / spec.size))
    offsets_mm = slice_offsets_mm(volume, box, spec.max_slices)
    step_mm = float(offsets_mm[1] - offsets_mm[0]) if len(offsets_mm) > 1 else volume.sliceDistanceMm
    sample_to_ras = _stack_to_ras(box, pixels_mm, step_mm, offsets_mm[0], spec.size)
    half = box.sizeMm[:2] / 2 + (0.0 if spec.fit_box else spec.margin_mm)
    column_mm, row_mm = (np.arange(spec.size) - (spec.size - 1) / 2) * pixels_mm[:, None]
    region = (np.abs(row_mm) <= half[1])[:, None] & (np.abs(column_mm) <= half[0])[None, :]
    hu, inside = resample(volume, sample_to_ras, (spec.size, spec.size, len(offsets_mm)))
    hu[:, ~region] = spec.fill_hu
    outside_share = 1.0 - float(inside[:, region].mean())
    return AxialStack(hu, sample_to_ras, region, outside_share, float(pixels_mm.max()), step_mm)


def windowed(hu: np.ndarray, windows_hu: tuple[tuple[float, float], ...]) -> np.ndarray:
    """HU of shape (n, row, column) -> float32 network input (n, window, row, column), each window scaled to -1 … 1."""
    channels = [(hu - low) * (2.0 / (high - low)) - 1.0 for low, high in windows_hu]
    return np.clip(np.stack(channels, axis=1), -1.0, 1.0).astype(np.float32)


def resample(volume: CTVolume, sampleToRAS: np.ndarray, sizeIJK: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Linear interpolation of ``volume`` on another lattice: crop first, resample the crop, float output.

    Returns HU as float32 of shape ``sizeIJK[::-1]`` and a bool array of the same shape, true where the point lies
    inside the volume. Outside, the nearest voxel's value is repeated.
    """
    sample_to_ijk = volume.rasToIJK @ sampleToRAS
    axes = _axes_of_plane(sample_to_ijk, sizeIJK)
    if axes is not None:
        return _upright_plane(volume, sample_to_ijk, sizeIJK, axes), _inside(volume, sample_to_ijk, sizeIJK)
    import SimpleITK as sitk  # not when Slicer starts, nor in a quiz

    low, high = _needed_voxels(volume, sample_to_ijk, sizeIJK)
    crop = volume.array[low[2] : high[2], low[1] : high[1], low[0] : high[0]]
    image = sitk.GetImageFromArray(np.ascontiguousarray(crop, dtype=np.float32))
    # Index space on both sides: SimpleITK images cannot hold a shear, an affine transform between indices can.
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(sample_to_ijk[:3, :3].ravel().tolist())
    transform.SetTranslation((sample_to_ijk[:3, 3] - low).tolist())
    filter_ = sitk.ResampleImageFilter()
    filter_.SetSize([int(n) for n in sizeIJK])
    filter_.SetTransform(transform)
    filter_.SetInterpolator(sitk.sitkLinear)
    filter_.SetUseNearestNeighborExtrapolator(True)
    filter_.SetOutputPixelType(sitk.sitkFloat32)
    hu = sitk.GetArrayFromImage(filter_.Execute(image))
    return hu, _inside(volume, sample_to_ijk, sizeIJK)


_PARALLEL = 1e-9  # of a voxel, over the whole plane: what rounding leaves of a direction that is none


def _axes_of_plane(sample_to_ijk: np.ndarray, sizeIJK: tuple[int, int, int]) -> tuple[int, int] | None:
    """Which of the volume's axes (0 to 2) a single plane's columns and rows run along; None for a tilted plane, or several."""
    moved = np.abs(sample_to_ijk[:3, :2] * sizeIJK[:2]) > _PARALLEL
    if sizeIJK[2] != 1 or not (moved.sum(axis=0) == 1).all() or moved.sum(axis=1).max() > 1:
        return None
    return int(moved[:, 0].argmax()), int(moved[:, 1].argmax())


def _upright_plane(
    volume: CTVolume, sample_to_ijk: np.ndarray, sizeIJK: tuple[int, int, int], axes: tuple[int, int]
) -> np.ndarray:
    """A plane along the volume's axes, interpolated along one after the other: (1, row, column), several times as fast."""
    low, high = _needed_voxels(volume, sample_to_ijk, sizeIJK)
    crop = volume.array[low[2] : high[2], low[1] : high[1], low[0] : high[0]]
    across = 3 - sum(axes)
    values = crop = crop.transpose([2 - across, 2 - axes[1], 2 - axes[0]])  # normal, row, column of the plane
    nearest, outside = [], []
    for position, (axis, column) in enumerate(((across, 2), (axes[1], 1), (axes[0], 0))):
        at = sample_to_ijk[axis, 3] - low[axis] + sample_to_ijk[axis, column] * np.arange(sizeIJK[column])
        last = crop.shape[position] - 1
        nearest.append(np.clip(np.floor(at + 0.5).astype(int), 0, last))
        outside.append((at < -0.5) | (at >= last + 0.5))
        values = interpolated_along(values, at, position)
    if any(along.any() for along in outside):
        # Beyond the last voxels there is nothing to interpolate: the nearest voxel's value, in all directions.
        is_outside = outside[0][:, None, None] | outside[1][:, None] | outside[2]
        values = np.where(is_outside, crop[np.ix_(*nearest)], values)
    return values.astype(np.float32)


def interpolated_along(array: np.ndarray, at: np.ndarray, axis: int) -> np.ndarray:
    """``array`` at the places ``at`` along an axis, linear between two values and constant beyond the last; float64."""
    last = array.shape[axis] - 1
    at = np.clip(at, 0, last)
    low = np.minimum(at.astype(int), max(last - 1, 0))
    share = (at - low).reshape([-1 if position == axis else 1 for position in range(array.ndim)])
    below, above = (array.take(index, axis=axis).astype(float) for index in (low, np.minimum(low + 1, last)))
    return below + share * (above - below)


def lattice_points(sizeIJK: tuple[int, int, int]) -> np.ndarray:
    """All indices (i, j, k) of a lattice, shape (k, j, i, 3)."""
    k, j, i = np.meshgrid(*(np.arange(n) for n in sizeIJK[::-1]), indexing="ij")
    return np.stack([i, j, k], axis=-1)


def slice_offsets_mm(volume: CTVolume, box: LesionBox, max_slices: int) -> np.ndarray:
    """Evenly spaced positions of the slices along the box's z axis, in mm from its centre."""
    normal, distance = volume.sliceNormalRAS, volume.sliceDistanceMm
    half = box.sizeMm[2] / 2
    cosine = float(normal @ box.axesRAS[:, 2])
    if abs(cosine) >= _PARALLEL_COSINE:
        depth_of_slice_0 = normal @ (volume.ijkToRAS[:3, 3] - box.centerRAS)
        first = ceil((-half - depth_of_slice_0) / distance - 1e-6)
        last = int(np.floor((half - depth_of_slice_0) / distance + 1e-6))
        first, last = max(first, 0), min(last, volume.sizeIJK[2] - 1)
        if first > last:  # a box thinner than a slice, or between two of them: take the slice nearest its centre
            first = last = int(np.clip(round(-depth_of_slice_0 / distance), 0, volume.sizeIJK[2] - 1))
        offsets = (depth_of_slice_0 + np.arange(first, last + 1) * distance) / cosine
        offsets = np.sort(offsets)
    else:
        count = max(1, round(box.sizeMm[2] / distance))
        offsets = (np.arange(count) - (count - 1) / 2) * distance
    stride = ceil(len(offsets) / max_slices)
    kept = offsets[::stride]
    return offsets[(len(offsets) - 1 - (len(kept) - 1) * stride) // 2 :: stride][: len(kept)]


def _stack_to_ras(box: LesionBox, pixels_mm: np.ndarray, step_mm: float, first_mm: float, size: int) -> np.ndarray:
    stack_to_box = np.diag([*pixels_mm, step_mm, 1.0])
    stack_to_box[:3, 3] = [*(-(size - 1) / 2 * pixels_mm), first_mm]
    return box.boxToRAS @ stack_to_box


def _needed_voxels(
    volume: CTVolume, sample_to_ijk: np.ndarray, sizeIJK: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Half-open index range of the voxels that linear interpolation of the lattice can touch."""
    corners = lattice_points((2, 2, 2)).reshape(-1, 3) * (np.array(sizeIJK) - 1)
    ijk = transformed_points(sample_to_ijk, corners)
    last = np.array(volume.sizeIJK) - 1
    low = np.clip(np.floor(ijk.min(axis=0)) - 1, 0, last).astype(int)
    high = np.clip(np.ceil(ijk.max(axis=0)) + 1, 0, last).astype(int) + 1
    return low, high


def _inside(volume: CTVolume, sample_to_ijk: np.ndarray, sizeIJK: tuple[int, int, int]) -> np.ndarray:
    edge = np.array(volume.sizeIJK) - 0.5

    def is_inside(points: np.ndarray) -> np.ndarray:
        ijk = transformed_points(sample_to_ijk, points)
        return ((ijk >= -0.5) & (ijk <= edge)).all(axis=-1)

    if is_inside(lattice_points((2, 2, 2)).reshape(-1, 3) * (np.array(sizeIJK) - 1)).all():
        return np.ones(sizeIJK[::-1], dtype=bool)  # the volume is convex: with all corners, all is inside
    i, j, k = (np.arange(n, dtype=float) for n in sizeIJK)
    inside = np.ones(sizeIJK[::-1], dtype=bool)
    for row, last in zip(sample_to_ijk[:3], edge, strict=True):
        # A lattice that is parallel to the volume's axes is compared along them, and not point by point.
        terms = [part * n for part, n in zip(row, (i, j[:, None], k[:, None, None]), strict=False) if part]
        index = sum(terms) + row[3]
        inside &= (index >= -0.5) & (index <= last)
    return inside
