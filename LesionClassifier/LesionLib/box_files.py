"""Boxes in files: as JSON, and as CSV.

A CSV file has the columns ``name,frame,center_x,center_y,center_z,size_x,size_y,size_z``, frame RAS or LPS, mm.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .errors import BoxError
from .geometry import CTVolume, LesionBox

HEADER = ("name", "frame", "center_x", "center_y", "center_z", "size_x", "size_y", "size_z")
_SIGN = {"RAS": np.array([1.0, 1.0, 1.0]), "LPS": np.array([-1.0, -1.0, 1.0])}
_MOST_ROWS = 10_000


def box_to_json(box: LesionBox) -> dict[str, Any]:
    """Where a box is: ``centerRAS`` and ``sizeMm`` (3 numbers, mm), ``axesRAS`` (3 rows of 3). Name and segment stay out."""
    return {key: getattr(box, key).tolist() for key in ("centerRAS", "sizeMm", "axesRAS")}


def box_from_json(values: Mapping[str, Any], *, name: str = "lesion", segment: CTVolume | None = None) -> LesionBox:
    """The inverse of `box_to_json`. Raises `BoxError`."""
    return LesionBox(values["centerRAS"], values["sizeMm"], values["axesRAS"], name=name, segment=segment)


def read_boxes_csv(path: Path) -> list[LesionBox]:
    """The boxes of a CSV file. Raises `BoxError` naming the line, what stands there and what should."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{path} cannot be read as a text file of boxes; give a CSV with the header {','.join(HEADER)}."
        raise BoxError(msg) from error
    return parse_boxes_csv(text, source=path.name)


def parse_boxes_csv(text: str, *, source: str) -> list[LesionBox]:
    """The boxes of a CSV text; columns may stand in any order, names must differ. Raises `BoxError`."""
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        msg = f"{source} is not a CSV file: {error}."
        raise BoxError(msg) from error
    header = [cell.strip() for cell in rows[0]] if rows else []
    if sorted(header) != sorted(HEADER):
        msg = f"{source}, line 1: the header must be {','.join(HEADER)}, not {','.join(header)[:200]!r}."
        raise BoxError(msg)
    filled = [(line, row) for line, row in enumerate(rows[1:], start=2) if any(cell.strip() for cell in row)]
    if not filled or len(filled) > _MOST_ROWS:
        msg = f"{source} holds {len(filled)} boxes; give at least one, at most {_MOST_ROWS}."
        raise BoxError(msg)
    boxes = [_box(dict(zip(header, row, strict=False)), len(row), f"{source}, line {line}") for line, row in filled]
    _require_different_names(boxes, [line for line, _ in filled], source)
    return boxes


def _box(row: dict[str, str], cells: int, where: str) -> LesionBox:
    if cells != len(HEADER):
        msg = f"{where}: {cells} values where {len(HEADER)} are expected ({','.join(HEADER)})."
        raise BoxError(msg)
    name, frame = row["name"].strip(), row["frame"].strip().upper()
    if not name or not name.isprintable():
        msg = f"{where}: the name is empty or not printable; give the box a name such as L1."
        raise BoxError(msg)
    if frame not in _SIGN:
        msg = f"{where}: frame is {row['frame']!r}; write RAS (3D Slicer) or LPS (DICOM, ITK)."
        raise BoxError(msg)
    numbers = {}
    for key in HEADER[2:]:
        try:
            numbers[key] = float(row[key])
        except ValueError as error:
            msg = f"{where}: {key} is {row[key]!r}; write a number in mm."
            raise BoxError(msg) from error
    center = np.array([numbers[f"center_{axis}"] for axis in "xyz"])
    size = np.array([numbers[f"size_{axis}"] for axis in "xyz"])
    try:
        return LesionBox(center * _SIGN[frame], size, name=name)
    except BoxError as error:
        msg = f"{where}: {error}"
        raise BoxError(msg) from error


def _require_different_names(boxes: list[LesionBox], lines: list[int], source: str) -> None:
    seen: set[str] = set()
    for box, line in zip(boxes, lines, strict=True):
        if box.name in seen:
            msg = f"{source}, line {line}: two boxes are named {box.name!r}; give each its own name."
            raise BoxError(msg)
        seen.add(box.name)
