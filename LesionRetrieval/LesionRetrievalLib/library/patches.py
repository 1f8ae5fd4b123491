"""What a library keeps of the CT around a lesion: small grey pictures in three planes, and a patch in HU.

HU patches become rows of a library, and come back; what comes back is checked, for libraries are passed on.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from LesionLib.errors import CaseLibraryError, LesionLensError
from LesionLib.geometry import CTVolume, LesionBox, require_overlap, transformed_points
from LesionLib.sampling.resample import resample

from LesionRetrievalLib.library.arrays import packed, unpacked

if TYPE_CHECKING:
    from LesionLib.sampling.inputs import Spec


SIDE = 96
LUNG_WINDOW_HU = (-1350.0, 150.0)
_SURROUNDINGS_MM = 10.0
# Columns and rows of the picture in RAS: patient's right on the left, feet down, nose to the left in sagittal.
_PLANES = {
    "axial": ((-1, 0, 0), (0, -1, 0)),
    "coronal": ((-1, 0, 0), (0, 0, -1)),
    "sagittal": ((0, -1, 0), (0, 0, -1)),
}


def room_for(box: LesionBox) -> float:
    """Side of a picture, mm, that holds the whole box with 10 mm around it."""
    return float(np.ptp(box.cornersRAS, axis=0).max()) + 2 * _SURROUNDINGS_MM


def case_thumbnails(
    volume: CTVolume, box: LesionBox, *, window_hu: tuple[float, float] = LUNG_WINDOW_HU
) -> dict[str, np.ndarray]:
    """Small grey pictures of a lesion in three planes, laid as radiologists see them.

    Plane -> uint8 grey (96, 96) through the centre of the box; black where there is no CT. The picture holds the whole box with
    10 mm around it. ``window_hu`` runs from black to white.
    """
    extent_mm = room_for(box)
    return {
        plane: plane_picture(volume, box.centerRAS, plane, extent_mm=extent_mm, window_hu=window_hu)
        for plane in _PLANES
    }


def plane_picture(
    volume: CTVolume,
    centerRAS: np.ndarray,
    plane: str,
    *,
    extent_mm: float,
    window_hu: tuple[float, float],
    side: int = SIDE,
) -> np.ndarray:
    """One of them, uint8 grey (side, side), ``extent_mm`` wide around a place: of several lesions all at one scale."""
    to_ras = plane_to_ras(centerRAS, plane, extent_mm=extent_mm, side=side)
    return _grey(volume, to_ras, (side, side, 1), window_hu)[0]


def axial_pictures(
    volume: CTVolume,
    highestRAS: np.ndarray,
    count: int,
    step_mm: float,
    *,
    extent_mm: float,
    window_hu: tuple[float, float],
    side: int,
) -> np.ndarray:
    """Axial pictures one below the other, uint8 grey (count, side, side), each ``step_mm`` lower; the first around ``highestRAS``."""
    to_ras = plane_to_ras(highestRAS, "axial", extent_mm=extent_mm, side=side)
    to_ras[:3, 2] = (0, 0, -step_mm)
    return _grey(volume, to_ras, (side, side, count), window_hu)


def plane_to_ras(centerRAS: np.ndarray, plane: str, *, extent_mm: float, side: int) -> np.ndarray:
    """From the (column, row, 0) of a picture of ``side`` pixels around a place to RAS mm, 4x4; ``plane``: of `_PLANES`."""
    column, row = (np.array(axis) * (extent_mm / side) for axis in _PLANES[plane])
    to_ras = np.eye(4)
    to_ras[:3, 0], to_ras[:3, 1], to_ras[:3, 2] = column, row, np.cross(*_PLANES[plane])
    to_ras[:3, 3] = centerRAS - (column + row) * (side - 1) / 2
    return to_ras


def _grey(
    volume: CTVolume, to_ras: np.ndarray, size: tuple[int, int, int], window_hu: tuple[float, float]
) -> np.ndarray:
    """On a lattice, uint8: black below the window and where there is no CT."""
    hu, inside = resample(volume, to_ras, size)
    grey = np.clip((hu - window_hu[0]) / (window_hu[1] - window_hu[0]), 0, 1) * 255
    return np.where(inside, grey, 0).astype(np.uint8)


MARGIN_MM = 25.0
MIN_HALF_MM = 34.0  # a cube of 64 mm around the middle of a small lesion fits, with the voxels that interpolation needs
MAX_VOXELS = 1 << 25
_INT16 = np.iinfo(np.int16)


@dataclass(frozen=True, eq=False)
class HuPatch:
    """The CT around a lesion, small enough for a library: to be shown as a volume, and embedded again by another model.

    Part of a CT on the CT's own lattice, and the box (with its segment, if any). ``volume.array`` is int16, or float32 where the
    CT is not whole numbers; no value is changed. ``open_faces`` says for low i, high i, low j, high j, low k, high k whether the
    CT goes on beyond the patch there. Names are left out.
    """

    volume: CTVolume
    box: LesionBox
    open_faces: tuple[bool, bool, bool, bool, bool, bool]


def lesion_patch(volume: CTVolume, box: LesionBox, *, margin_mm: float = MARGIN_MM) -> HuPatch:
    """Cut the box and ``margin_mm`` on every side, at least 34 mm from its middle, out of ``volume``.

    Raises `BoxError` for a box outside the CT, `CaseLibraryError` for a patch beyond 2^25 voxels.
    """
    require_overlap(volume, box)
    shown = replace(box, sizeMm=np.maximum(box.sizeMm + 2 * margin_mm, 2 * MIN_HALF_MM))
    ijk = transformed_points(volume.rasToIJK, shown.cornersRAS)
    size = np.array(volume.sizeIJK)
    low = np.clip(np.floor(ijk.min(axis=0)), 0, size - 1).astype(int)
    high = np.clip(np.ceil(ijk.max(axis=0)) + 1, low + 1, size).astype(int)
    if np.prod(high - low) > MAX_VOXELS:
        msg = f"The CT around the lesion has {np.prod(high - low)} voxels, more than {MAX_VOXELS}; keep it without a patch."
        raise CaseLibraryError(msg)
    open_faces = tuple(bool(face) for pair in zip(low > 0, high < size, strict=True) for face in pair)
    segment = None if box.segment is None else _cropped_segment(box.segment)
    plain = replace(box, name="lesion", segment=segment)
    return HuPatch(_compact(_cropped(volume, low, high, name="patch")), plain, open_faces)


def sees_beyond(patch: HuPatch, spec: Spec) -> bool:
    """Whether a model with this input would look at what the patch no longer has, so that its answer would differ.

    Raises `BoxError` where the lesion cannot be cut as ``spec`` says at all (a model of shapes, and no segment).
    """
    from LesionLib.sampling.inputs import crop_sample, network_input

    # What lies beyond is made very dark, then very bright: if the network's input notices, it looks there.
    dark, bright = (network_input(crop_sample(_extended(patch, hu), patch.box, spec), spec) for hu in (-30_000, 30_000))
    return not np.array_equal(dark, bright)


def _extended(patch: HuPatch, hu: float) -> CTVolume:
    """The patch with one more layer of ``hu`` on its open faces."""
    low_high = np.array(patch.open_faces, dtype=int).reshape(3, 2)
    array = np.pad(patch.volume.array.astype(np.float32), low_high[::-1].tolist(), constant_values=hu)
    ijk_to_ras = patch.volume.ijkToRAS.copy()
    ijk_to_ras[:3, 3] = transformed_points(ijk_to_ras, -low_high[:, 0])
    return CTVolume(array, ijk_to_ras, name="patch")


def _cropped(volume: CTVolume, low: np.ndarray, high: np.ndarray, *, name: str) -> CTVolume:
    """The voxels (i, j, k) from ``low`` to ``high``, which is out, at their place; warnings are left out."""
    ijk_to_ras = volume.ijkToRAS.copy()
    ijk_to_ras[:3, 3] = transformed_points(ijk_to_ras, low)
    part = volume.array[low[2] : high[2], low[1] : high[1], low[0] : high[0]]
    return CTVolume(part, ijk_to_ras, name=name)


def _compact(volume: CTVolume) -> CTVolume:
    """The same numbers as int16 where they fit, else as float32."""
    array = volume.array
    fits = array.dtype.kind in "iu" or bool((array == np.round(array)).all())
    fits = fits and array.min() >= _INT16.min and array.max() <= _INT16.max
    return replace(volume, array=np.ascontiguousarray(array, dtype=np.int16 if fits else np.float32))


def _cropped_segment(segment: CTVolume) -> CTVolume:
    """The segment with one empty voxel around it, uint8; whole where it is empty. `CaseLibraryError` if not a mask."""
    if not np.isin(segment.array, (0, 1)).all():
        msg = "The segment has values other than 0 and 1; give the mask of one segment."
        raise CaseLibraryError(msg)
    found = np.argwhere(segment.array)
    low, high = np.zeros(3, int), np.array(segment.sizeIJK)
    if len(found):
        low, high = np.maximum(found.min(axis=0)[::-1] - 1, 0), np.minimum(found.max(axis=0)[::-1] + 2, high)
    part = _cropped(segment, low, high, name="segment")
    return replace(part, array=np.ascontiguousarray(part.array, dtype=np.uint8))


BOX_COLUMNS = "center_ras, size_mm, axes_ras, open_faces"
PART_COLUMNS = "part, slices, height, width, dtype, ijk_to_ras, zlib"
_DTYPES = {"ct": ("int16", "float32"), "segment": ("uint8",)}


def box_row(patch: HuPatch) -> tuple:
    """The values of `BOX_COLUMNS`."""
    box = patch.box
    faces = sum(1 << bit for bit, is_open in enumerate(patch.open_faces) if is_open)
    return (_as_text(box.centerRAS), _as_text(box.sizeMm), _as_text(box.axesRAS), faces)


def part_rows(patch: HuPatch) -> list[tuple]:
    """The values of `PART_COLUMNS`: one row for the CT, one for the segment where there is one."""
    parts = {"ct": patch.volume, "segment": patch.box.segment}
    return [_part_row(part, volume) for part, volume in parts.items() if volume is not None]


def decoded_patch(case_id: str, box: tuple, parts: list[tuple]) -> HuPatch:
    """The patch of these rows; `CaseLibraryError` naming the case where they are damaged."""
    try:
        volumes = {row[0]: _volume(row) for row in parts}
        center, size, axes, faces = box
        lesion = LesionBox(
            _numbers(center, (3,)), _numbers(size, (3,)), _numbers(axes, (3, 3)), segment=volumes.get("segment")
        )
        open_faces = tuple(bool(faces >> bit & 1) for bit in range(6))
        return HuPatch(volumes["ct"], lesion, open_faces)
    except (
        LesionLensError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        msg = f"Case {case_id!r}: its HU patch is damaged; remove the case, or restore the library from a copy."
        raise CaseLibraryError(msg) from error


def _part_row(part: str, volume: CTVolume) -> tuple:
    array = volume.array
    if array.dtype.name not in _DTYPES[part] or array.size > MAX_VOXELS:
        msg = f"The {part} of the patch is {array.dtype} of shape {array.shape}; make it by lesion_patch."
        raise CaseLibraryError(msg)
    return (part, *array.shape, array.dtype.name, _as_text(volume.ijkToRAS), packed(array))


def _volume(row: tuple) -> CTVolume:
    part, *shape, dtype, ijk_to_ras, content = row
    if dtype not in _DTYPES[part]:
        raise ValueError
    array = unpacked(content, dtype=dtype, shape=shape, most=MAX_VOXELS)
    name = "patch" if part == "ct" else "segment"
    return CTVolume(array, _numbers(ijk_to_ras, (4, 4)), name=name)


def _as_text(values: np.ndarray) -> str:
    return json.dumps([float(value) for value in values.ravel()])


def _numbers(text: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.array(json.loads(text), dtype=float).reshape(shape)
