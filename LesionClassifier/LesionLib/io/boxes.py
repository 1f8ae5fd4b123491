"""Boxes around lesions from files: CSV and JSON, the segments of a label map, and a folder of lesions with known answers.

A CSV file has the columns ``name,frame,center_x,center_y,center_z,size_x,size_y,size_z``, frame RAS or LPS, mm; or
``name,i_min,j_min,k_min,i_max,j_max,k_max``, the first and last voxel that belong to it, from 0. ``lesion`` is read as ``name``.
Tables that models learn from (`lesiontraining.data.lesions`) have a box in the same columns, read by the same `location_of`. Of a
label map every label becomes a box in the label map's own axes.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import product
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from LesionLib.errors import BoxError, InputWarning, LesionLensError, WarningName
from LesionLib.geometry import (
    CTVolume,
    LesionBox,
    is_outside,
    label_mask,
    transformed_points,
    voxels_around,
)
from LesionLib.io.tables import TableTextError, number_hint, parsed_table, spreadsheet_hint, table_text

# Readers of images, and scipy, are imported where a file or a label map is read: a panel and a quiz come up without them.
MM_COLUMNS = ("center_x", "center_y", "center_z", "size_x", "size_y", "size_z")
VOXEL_COLUMNS = tuple(f"{axis}_{end}" for end, axis in product(("min", "max"), "ijk"))
HEADER = ("name", "frame", *MM_COLUMNS)
_HEADERS = (HEADER, ("name", *VOXEL_COLUMNS), ("name", "frame", *VOXEL_COLUMNS))
_SIGN = {"RAS": (1.0, 1.0, 1.0), "LPS": (-1.0, -1.0, 1.0)}
_FARTHEST = 1e6  # mm or voxels from the origin
_MAX_VOXELS = 4096  # along an edge; larger is a mistake, not a lesion
_MAX_ROWS = 10_000


def box_to_json(box: LesionBox) -> dict[str, Any]:
    """Where a box is: ``centerRAS`` and ``sizeMm`` (3 numbers, mm), ``axesRAS`` (3 rows of 3). Name and segment stay out."""
    return {key: getattr(box, key).tolist() for key in ("centerRAS", "sizeMm", "axesRAS")}


def box_from_json(values: Mapping[str, Any], *, name: str = "lesion", segment: CTVolume | None = None) -> LesionBox:
    """The inverse of `box_to_json`. Raises `BoxError`."""
    return LesionBox(values["centerRAS"], values["sizeMm"], values["axesRAS"], name=name, segment=segment)


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


BoxLocation = MmBox | VoxelBox


def location_of(values: Mapping[str, str], *, name: str = "box") -> BoxLocation | None:
    """The box that a row gives, None where it gives none. Raises `BoxError` with what stands there and what should.

    The one reader of boxes in tables, for what is asked and for what is learned from. ``name``: of the box, for errors.
    """
    frame = values.get("frame", "").strip().upper()
    has_mm = any(values.get(name, "").strip() for name in MM_COLUMNS)
    has_voxels = any(values.get(name, "").strip() for name in VOXEL_COLUMNS)
    if has_mm and has_voxels:
        msg = "the row has a box in mm (center_x ...) and one in voxels (i_min ...); give one of them"
        raise BoxError(msg)
    if has_voxels:
        return _voxel_box(values, frame)
    return _mm_box(values, frame, name) if has_mm else None


def _mm_box(values: Mapping[str, str], frame: str, name: str) -> MmBox:
    if frame not in _SIGN:
        msg = f"frame is {values.get('frame', '')!r}; a box in mm needs RAS (3D Slicer) or LPS (DICOM, ITK)"
        raise BoxError(msg)
    x, y, z, *size = (_number(values, column, "a number in mm") for column in MM_COLUMNS)
    location = MmBox(frame, (x, y, z), tuple(size))
    location.box(np.eye(4), name=name)  # refuses a box without size
    return location


def _voxel_box(values: Mapping[str, str], frame: str) -> VoxelBox:
    if frame not in ("", "IJK"):
        msg = f"frame is {frame!r} beside a box in voxels (i_min ...); write IJK or leave it empty"
        raise BoxError(msg)
    numbers = [_number(values, column, "a whole number of voxels, counted from 0") for column in VOXEL_COLUMNS]
    if any(number != int(number) for number in numbers):
        msg = f"the voxel box {numbers} has fractions; give the first and last voxel index that belong to the lesion"
        raise BoxError(msg)
    first, last = tuple(map(int, numbers[:3])), tuple(map(int, numbers[3:]))
    if any(b < a for a, b in zip(first, last, strict=True)):
        msg = f"the voxel box ends at {last} before it begins at {first}; max is the last index that belongs to it"
        raise BoxError(msg)
    if any(b - a >= _MAX_VOXELS for a, b in zip(first, last, strict=True)):
        msg = f"the voxel box from {first} to {last} is larger than any CT; are these millimetres?"
        raise BoxError(msg)
    return VoxelBox(first, last)


def _number(values: Mapping[str, str], column: str, wanted: str) -> float:
    text = values.get(column, "").strip()
    try:
        number = float(text)
    except ValueError as error:
        msg = f"{column} is {text!r}; write {wanted}{number_hint(text) if column in MM_COLUMNS else ''}"
        raise BoxError(msg) from error
    if not isfinite(number) or abs(number) > _FARTHEST:
        msg = f"{column} is {text!r}; write {wanted}, finite and within {_FARTHEST:.0f} of the origin"
        raise BoxError(msg)
    return number


def read_boxes_csv(path: Path, *, ijkToRAS: np.ndarray | None = None) -> list[LesionBox]:
    """The boxes of a CSV file. Raises `BoxError` naming the line, what stands there and what should.

    ``ijkToRAS``: of the CT, 4x4, for boxes in voxels; without it those are refused.
    """
    return [_placed(name, location, ijkToRAS, path.name) for name, location in read_box_locations(path)]


def read_box_locations(path: Path) -> list[tuple[str, BoxLocation]]:
    """The same before it is known where the voxels of the CT lie: (name, box in mm or in voxels)."""
    try:
        text = table_text(path)
    except TableTextError as error:
        msg = (
            f"{path} cannot be read as a text file of boxes: {error}; give a CSV with the header {','.join(HEADER)}, or "
            f"{','.join(_HEADERS[1])} in voxels."
        )
        raise BoxError(msg) from error
    return _parsed_boxes(text, path.name)


def parse_boxes_csv(text: str, *, source: str, ijkToRAS: np.ndarray | None = None) -> list[LesionBox]:
    """The boxes of a CSV text; columns may stand in any order, names must differ. ``ijkToRAS``: see `read_boxes_csv`.

    Raises `BoxError`.
    """
    return [_placed(name, location, ijkToRAS, source) for name, location in _parsed_boxes(text, source)]


def _placed(name: str, location: BoxLocation, ijkToRAS: np.ndarray | None, source: str) -> LesionBox:
    if ijkToRAS is None and isinstance(location, VoxelBox):
        msg = f"{source}: {name!r} is given in voxels, and the CT that they are of is not known here; give it in mm."
        raise BoxError(msg)
    return location.box(np.eye(4) if ijkToRAS is None else ijkToRAS, name=name)


def _parsed_boxes(text: str, source: str) -> list[tuple[str, BoxLocation]]:
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        msg = f"{source} is not a CSV file: {error}."
        raise BoxError(msg) from error
    given = [cell.strip() for cell in rows[0]] if rows else []
    header = ["name" if cell == "lesion" else cell for cell in given]
    if sorted(header) not in [sorted(names) for names in _HEADERS]:
        hint = spreadsheet_hint(text)
        known = f"{','.join(HEADER)} (mm) or {','.join(_HEADERS[1])} (voxels, from 0)"
        msg = f"{source}, line 1: the header must be {known}, not {','.join(given)[:200]!r}"
        msg += f": {hint}." if hint else "."
        raise BoxError(msg)
    filled = [(line, row) for line, row in enumerate(rows[1:], start=2) if any(cell.strip() for cell in row)]
    if not filled or len(filled) > _MAX_ROWS:
        msg = f"{source} holds {len(filled)} boxes; give at least one, at most {_MAX_ROWS}."
        raise BoxError(msg)
    boxes = [_box(header, row, f"{source}, line {line}") for line, row in filled]
    _require_different_names([name for name, _ in boxes], [line for line, _ in filled], source)
    return boxes


def _box(header: Sequence[str], cells: Sequence[str], where: str) -> tuple[str, BoxLocation]:
    if len(cells) != len(header):
        hint = "; write decimals with a point, not a comma" if len(cells) > len(header) else ""
        msg = f"{where}: {len(cells)} values where {len(header)} are expected ({','.join(header)}){hint}."
        raise BoxError(msg)
    row = dict(zip(header, cells, strict=True))
    name = row["name"].strip()
    if not name or not name.isprintable():
        msg = f"{where}: the name is empty or not printable; give the box a name such as L1."
        raise BoxError(msg)
    try:
        location = location_of(row, name=name)
    except BoxError as error:
        msg = f"{where}: {str(error).rstrip('.')}."
        raise BoxError(msg) from error
    if location is None:
        msg = f"{where}: {name!r} has no numbers; write where it is in all of {', '.join(header[1:])}."
        raise BoxError(msg)
    return name, location


def _require_different_names(names: Sequence[str], lines: Sequence[int], source: str) -> None:
    seen: set[str] = set()
    for name, line in zip(names, lines, strict=True):
        if name in seen:
            msg = f"{source}, line {line}: two boxes are named {name!r}; give each its own name."
            raise BoxError(msg)
        seen.add(name)


def read_segment_boxes(path: Path, *, margin_mm: float, nifti_transform: str = "sform") -> list[LesionBox]:
    """Each segment of a label map (NRRD, NIfTI), a Slicer ``.seg.nrrd`` or a DICOM segmentation, grown by ``margin_mm`` a side.

    Raises `BoxError` where the file holds no segment, `VolumeError` where it cannot be read.
    """
    from LesionLib.io.segmentations import read_segments

    return segment_boxes(read_segments(path, nifti_transform=nifti_transform).masks, margin_mm=margin_mm)


class FrameSource(StrEnum):
    """How a box came to its frame: ``STATED`` in a table that somebody filled in, ``GUESSED`` where a file does not say it,
    ``SAVED`` by a program, or that of a segmentation.
    """

    STATED = "stated"
    GUESSED = "guessed"
    SAVED = "saved"


_AIR_HU = -950  # below it there is neither lung nor anything else of a body
_ONLY_AIR, _SOME_TISSUE = 0.02, 0.2  # share of a box's voxels that are none


def frame_warning(volume: CTVolume, box: LesionBox, frame: FrameSource) -> InputWarning | None:
    """What speaks for the other frame than the one a box was read in: RAS and LPS differ in two signs.

    Of a guessed frame that it was guessed. Of a stated one only where the CT contradicts it: the box holds air alone, and in
    the other frame it would lie in tissue. That it would lie in the CT in either is true of most boxes, and no sign.
    """
    if frame is FrameSource.SAVED:
        return None
    other = replace(box, centerRAS=box.centerRAS * [-1, -1, 1])
    here, there = (", ".join(f"{v:.1f}" for v in one.centerRAS) for one in (box, other))
    fits = not is_outside(volume, other)
    if frame is FrameSource.GUESSED:
        also = "which lies in this CT, too" if fits else "which lies outside this CT"
        text = (
            f"The file does not say whether the numbers of {box.name} are LPS or RAS. They are taken as LPS, as 3D Slicer takes "
            f"them: RAS {here} mm. Meant as RAS they would be RAS {there} mm, {also}. State coordinateSystem in the file."
        )
        return InputWarning(WarningName.BOX_FRAME, text)
    if not fits or _tissue_share(volume, box) > _ONLY_AIR or _tissue_share(volume, other) < _SOME_TISSUE:
        return None
    text = (
        f"{box.name} lies at RAS {here} mm, where there is only air; if RAS and LPS were confused, it lies at RAS {there} mm, in "
        "tissue. Check the column frame, and in the report's pictures that the box is on the lesion."
    )
    return InputWarning(WarningName.BOX_FRAME, text)


def _tissue_share(volume: CTVolume, box: LesionBox) -> float:
    """The share of the voxels around a box, as far as they lie in the CT, that are no air."""
    inside = voxels_around(volume, box)
    return float((inside > _AIR_HU).mean()) if inside.size else 0.0


def segment_boxes(masks: Sequence[CTVolume], *, margin_mm: float) -> list[LesionBox]:
    """The tight box of each mask (0 and 1), grown by ``margin_mm`` a side, with the mask as its ``segment``."""
    found = []
    for mask in masks:
        size = np.array(mask.sizeIJK, dtype=float)
        box = _box_of_segment(np.full(3, -0.5), size - 0.5, mask.ijkToRAS, mask.name).grown(margin_mm)
        found.append(replace(box, segment=mask))
    return found


def boxes_from_label_array(
    labels: np.ndarray, ijkToRAS: np.ndarray, names: Mapping[int, str], *, margin_mm: float = 0.0
) -> list[LesionBox]:
    """The tight box of each label in ``names`` that occurs, grown by ``margin_mm`` a side.

    ``labels``: integers, shape (k, j, i); ``ijkToRAS``: 4x4, from (i, j, k) to RAS mm. The box is parallel to the lattice; it
    holds whole voxels. On a sheared lattice it is parallel to the slices and holds the segment's voxels and their surroundings.
    Each box has its label's voxels as ``segment``, 0 and 1 on the smallest part of the lattice that holds them.
    """
    from scipy import ndimage

    boxes = []
    highest = min(max(names, default=0), int(labels.max(initial=0)))
    for label, slices in enumerate(ndimage.find_objects(labels, max_label=highest), start=1):
        if slices is None or label not in names:
            continue
        low = np.array([s.start for s in reversed(slices)]) - 0.5
        high = np.array([s.stop for s in reversed(slices)]) - 0.5
        box = _box_of_segment(low, high, ijkToRAS, names[label]).grown(margin_mm)
        boxes.append(replace(box, segment=label_mask(labels, label, slices, ijkToRAS, names[label])))
    return boxes


def _box_of_segment(low: np.ndarray, high: np.ndarray, ijkToRAS: np.ndarray, name: str) -> LesionBox:
    axes = _right_angled_axes(ijkToRAS)
    corners = np.array(np.meshgrid(*zip(low, high, strict=True), indexing="ij")).reshape(3, 8).T
    in_box_axes = transformed_points(ijkToRAS, corners) @ axes
    near, far = in_box_axes.min(axis=0), in_box_axes.max(axis=0)
    return LesionBox(centerRAS=axes @ ((near + far) / 2), sizeMm=far - near, axesRAS=axes, name=name)


def _right_angled_axes(ijkToRAS: np.ndarray) -> np.ndarray:
    """Unit axes of the lattice; the third is made normal to the slices where the lattice is sheared."""
    first = ijkToRAS[:3, 0] / np.linalg.norm(ijkToRAS[:3, 0])
    third = np.cross(first, ijkToRAS[:3, 1])
    third /= np.linalg.norm(third)
    second = np.cross(third, first)
    return np.stack([first, second, third if third @ ijkToRAS[:3, 2] > 0 else -third], axis=1)


_PARALLEL = 1 - 1e-6  # cosine
_EVEN_MM = 0.1


def segment_margins_mm(box: LesionBox) -> np.ndarray | None:
    """How far the box reaches beyond its segment, mm, (low and high, axis of the box).

    None without a segment, for an empty one, and where the box is turned against the segment's lattice.
    """
    mask = box.segment
    if mask is None:
        return None
    turned = np.abs(box.axesRAS.T @ (mask.ijkToRAS[:3, :3] / mask.spacingMm))
    where = np.argwhere(mask.array > 0)[:, ::-1]
    if not len(where) or (turned.max(axis=0) < _PARALLEL).any():
        return None
    ends = np.stack([where.min(axis=0) - 0.5, where.max(axis=0) + 0.5])
    in_box = (transformed_points(mask.ijkToRAS, ends) - box.centerRAS) @ box.axesRAS
    return np.stack([in_box.min(axis=0) + box.sizeMm / 2, box.sizeMm / 2 - in_box.max(axis=0)])


def with_segment_margin(box: LesionBox, margin_mm: float) -> LesionBox:
    """A box that reaches evenly beyond its segment, with ``margin_mm`` around the segment instead; any other as it is."""
    margins = segment_margins_mm(box)
    if margins is None or np.ptp(margins) > _EVEN_MM:
        return box
    return box.grown(margin_mm - float(margins.mean()))


class CaseTableError(LesionLensError):
    """The folder, its table or a row of it is not what it should be; the text names the file and line."""


def box_of_mask(
    volume: CTVolume, path: Path, *, where: str, margin_mm: float = 0.0, nifti_transform: str = "sform"
) -> tuple[LesionBox, np.ndarray]:
    """The box of all that a mask file marks, as one lesion with the mask as its ``segment``; and the mask on the volume's
    lattice (bool, shape as the CT).

    The mask lies where its own header says. Raises `CaseTableError` for an empty mask, and where its header contradicts the
    volume's.
    """
    from LesionLib.io.segmentations import lattice_problem, mask_on_lattice, read_label_map, same_lattice

    labels = read_label_map(path, nifti_transform=nifti_transform)
    mask = labels.array > 0
    problem = lattice_problem(mask, labels.ijkToRAS, volume)
    if problem is not None:
        msg = f"{where}: {problem} ({volume.name}); export the mask on the image's own geometry."
        raise CaseTableError(msg)
    own = volume.ijkToRAS if mask.shape == volume.array.shape and same_lattice(labels.ijkToRAS, volume) else None
    on_volume = mask if own is not None else mask_on_lattice(mask, labels.ijkToRAS, volume)
    if not on_volume.any():
        msg = f"{where}: the mask is empty or of another size and place than the image {volume.name}."
        raise CaseTableError(msg)
    to_ras = labels.ijkToRAS if own is None else own
    return boxes_from_label_array(mask.astype(np.uint8), to_ras, {1: "lesion"}, margin_mm=margin_mm)[0], on_volume


@dataclass(frozen=True, eq=False)
class CaseRow:
    """One row: its ``values`` by column, and where its CT cut-out and mask lie. ``where`` names it in errors."""

    values: dict[str, str]
    image_path: Path
    mask_path: Path
    where: str

    def load(self, *, margin_mm: float = 0.0) -> tuple[CTVolume, LesionBox, np.ndarray]:
        """The CT, the box of the mask with the mask as its ``segment``, and the mask (bool, shape as the CT).

        The mask lies where its own header says. ``margin_mm``: how far the box reaches beyond the mask; for a model that is
        asked, the one that it was made for. Raises `CaseTableError`, also where the mask's header contradicts the image's.
        """
        from LesionLib.io.volumes import read_image

        volume = read_image(self.image_path)
        box, mask = box_of_mask(volume, self.mask_path, where=self.where, margin_mm=margin_mm)
        return volume, box, mask

    def number(self, column: str) -> float:
        """The column as a number. Raises `CaseTableError` naming the line and what stands there."""
        try:
            return float(self.values[column])
        except ValueError as error:
            msg = f"{self.where}: {column} is {self.values[column]!r}; a number is needed."
            raise CaseTableError(msg) from error


def read_case_table(folder: Path, *, columns: Sequence[str]) -> list[CaseRow]:
    """A folder of lesions with known answers: one CSV table, ``image/`` and ``mask/`` with the files it names.

    The rows of the folder's only CSV table; it must have ``file`` and ``columns``, and every file must exist.
    """
    tables = sorted(folder.glob("*.csv")) if os.path.isdir(folder) else []
    if len(tables) != 1:
        found = ", ".join(table.name for table in tables) or "none"
        msg = f"{folder} must hold one CSV table beside image/ and mask/; found: {found}."
        raise CaseTableError(msg)
    return list(_checked(folder, tables[0].name, read_rows(tables[0], columns=("file", *columns))))


def read_rows(table: Path, *, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """The rows of a CSV table that must have ``columns``, each with its line. Raises `CaseTableError`."""
    try:
        text = table_text(table)
        header, rows = parsed_table(text)
    except TableTextError as error:
        msg = f"{table} cannot be read as a CSV table in UTF-8: {error}."
        raise CaseTableError(msg) from error
    except csv.Error as error:
        msg = f"{table} cannot be read as a CSV table in UTF-8; save it as such."
        raise CaseTableError(msg) from error
    except LesionLensError as error:
        msg = f"{table.name}, {error}."
        raise CaseTableError(msg) from error
    missing = [name for name in columns if not rows or name not in header]
    if missing:
        hint = spreadsheet_hint(text)
        msg = f"{table} has no rows or lacks the column(s) {', '.join(missing)}" + (f": {hint}." if hint else ".")
        raise CaseTableError(msg)
    return rows


def _checked(folder: Path, table: str, rows: list[tuple[int, dict[str, str]]]) -> Iterator[CaseRow]:
    seen: dict[str, int] = {}
    for line, values in rows:
        where, name = f"{table}, line {line}", values["file"]
        if name in seen:
            msg = f"{where}: {name} stands in line {seen[name]} already."
            raise CaseTableError(msg)
        seen[name] = line
        image, mask = folder / "image" / name, folder / "mask" / name
        for path in (image, mask):
            if Path(name).name != name or not os.path.isfile(path):
                msg = f"{where}: {path} is missing."
                raise CaseTableError(msg)
        yield CaseRow(values, image, mask, where)
