"""Where a lesion is, as a table says it: a box in millimetres or in voxels, to become a `LesionBox` of its volume."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from math import isfinite

import numpy as np
from LesionLib.errors import BoxError
from LesionLib.geometry import LesionBox, transformed_points
from LesionLib.segments import boxes_from_label_array

MM_COLUMNS = ("center_x", "center_y", "center_z", "size_x", "size_y", "size_z")
VOXEL_COLUMNS = tuple(f"{axis}_{end}" for end, axis in product(("min", "max"), "ijk"))
_SIGN = {"RAS": (1.0, 1.0, 1.0), "LPS": (-1.0, -1.0, 1.0)}
_FARTHEST = 1e6  # mm or voxels from the origin
_MOST_VOXELS = 4096  # along an edge; larger is a mistake, not a lesion


@dataclass(frozen=True)
class MmBox:
    """A box parallel to the body axes: ``center`` and full ``size`` in mm, ``frame`` "RAS" (3D Slicer) or "LPS" (DICOM)."""

    frame: str
    center: tuple[float, float, float]
    size: tuple[float, float, float]

    def box(self, _ijkToRAS: np.ndarray, *, name: str) -> LesionBox:
        """As a box in RAS mm. Raises `BoxError` for one without size."""
        return LesionBox(np.array(self.center) * _SIGN[self.frame], np.array(self.size), name=name)

    def in_other_frame(self) -> MmBox:
        """The same numbers read in the other frame: what somebody may have meant."""
        return replace(self, frame="LPS" if self.frame == "RAS" else "RAS")


@dataclass(frozen=True)
class VoxelBox:
    """A box parallel to the voxels: first and last index (i, j, k) that belong to it, counted from 0."""

    first: tuple[int, int, int]
    last: tuple[int, int, int]

    def box(self, ijkToRAS: np.ndarray, *, name: str) -> LesionBox:
        """As a box in RAS mm that holds those voxels whole."""
        moved = np.array(ijkToRAS, dtype=float)
        moved[:3, 3] = transformed_points(moved, self.first)
        shape = tuple(b - a + 1 for a, b in zip(self.first[::-1], self.last[::-1], strict=True))
        found = boxes_from_label_array(np.ones(shape, np.uint8), moved, {1: name})[0]
        return replace(found, segment=None)


Place = MmBox | VoxelBox


def place_of(values: Mapping[str, str]) -> Place | None:
    """The box that a row gives, None where it gives none. Raises `BoxError` with what stands there and what should."""
    frame = values.get("frame", "").strip().upper()
    has_mm = any(values.get(name, "").strip() for name in MM_COLUMNS)
    has_voxels = any(values.get(name, "").strip() for name in VOXEL_COLUMNS)
    if has_mm and has_voxels:
        msg = "the row has a box in mm (center_x ...) and one in voxels (i_min ...); give one of them"
        raise BoxError(msg)
    if has_voxels:
        return _voxel_box(values, frame)
    return _mm_box(values, frame) if has_mm else None


def _mm_box(values: Mapping[str, str], frame: str) -> MmBox:
    if frame not in _SIGN:
        msg = f"frame is {values.get('frame', '')!r}; a box in mm needs RAS (3D Slicer) or LPS (DICOM, ITK)"
        raise BoxError(msg)
    x, y, z, *size = (_number(values, name) for name in MM_COLUMNS)
    place = MmBox(frame, (x, y, z), tuple(size))
    place.box(np.eye(4), name="box")  # refuses a box without size
    return place


def _voxel_box(values: Mapping[str, str], frame: str) -> VoxelBox:
    if frame not in ("", "IJK"):
        msg = f"frame is {frame!r} beside a box in voxels (i_min ...); write IJK or leave it empty"
        raise BoxError(msg)
    numbers = [_number(values, name) for name in VOXEL_COLUMNS]
    if any(number != int(number) for number in numbers):
        msg = f"the voxel box {numbers} has fractions; give the first and last voxel index that belong to the lesion"
        raise BoxError(msg)
    first, last = tuple(map(int, numbers[:3])), tuple(map(int, numbers[3:]))
    if any(b < a for a, b in zip(first, last, strict=True)):
        msg = f"the voxel box ends at {last} before it begins at {first}; max is the last index that belongs to it"
        raise BoxError(msg)
    if any(b - a >= _MOST_VOXELS for a, b in zip(first, last, strict=True)):
        msg = f"the voxel box from {first} to {last} is larger than any CT; are these millimetres?"
        raise BoxError(msg)
    return VoxelBox(first, last)


def _number(values: Mapping[str, str], column: str) -> float:
    text = values.get(column, "").strip()
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not isfinite(number) or abs(number) > _FARTHEST:
        msg = f"{column} is {text!r}; a number is needed, of mm or voxels"
        raise BoxError(msg)
    return number
