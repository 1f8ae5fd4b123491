"""HU patches as rows of a library, and back; what comes back is checked, for libraries are passed on."""

from __future__ import annotations

import json

import numpy as np
from LesionLib.errors import CaseLibraryError, LesionLensError
from LesionLib.geometry import CTVolume, LesionBox

from .library_patch import MAX_VOXELS, HuPatch
from .packed_arrays import packed, unpacked

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
    except (LesionLensError, ValueError, TypeError, KeyError, RecursionError) as error:
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
