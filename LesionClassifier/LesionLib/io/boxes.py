"""Boxes around lesions from files: CSV and JSON, the segments of a label map, and a folder of lesions with known answers.

A CSV file has the columns ``name,frame,center_x,center_y,center_z,size_x,size_y,size_z``, frame RAS or LPS, mm. Of a label
map every label becomes a box in the label map's own axes.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from LesionLib.errors import BoxError, LesionLensError
from LesionLib.geometry import CTVolume, LesionBox, transformed_points

if TYPE_CHECKING:
    import SimpleITK as sitk

# Readers of images, and scipy, are imported where a file or a label map is read: a panel and a quiz come up without them.
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


_SEGMENT_KEY = re.compile(r"Segment(\d+)_LabelValue")
_LARGEST_LABEL = 65_535


def read_segment_boxes(path: Path, *, margin_mm: float) -> list[LesionBox]:
    """Each segment of a label map (NRRD, NIfTI) or a Slicer ``.seg.nrrd`` as a box grown by ``margin_mm`` a side.

    Raises `BoxError` where the file holds no segment, `VolumeError` where it cannot be read.
    """
    import SimpleITK as sitk

    from LesionLib.io.volumes import ijk_to_ras, read_sitk

    image = read_sitk(path)
    labels = sitk.GetArrayFromImage(image)
    is_layered = image.GetNumberOfComponentsPerPixel() > 1
    is_whole = labels.dtype.kind in "iu" or (labels.dtype.kind == "f" and not (labels % 1 != 0).any())
    if image.GetDimension() != 3 or not is_whole or labels.max() > _LARGEST_LABEL:
        msg = (
            f"{path.name} is not a segmentation (whole-numbered labels up to {_LARGEST_LABEL} in 3-D); "
            "give a label map or a .seg.nrrd."
        )
        raise BoxError(msg)
    layers = np.moveaxis(labels, -1, 0) if is_layered else labels[None]
    boxes = []
    for layer, array in enumerate(layers):
        names = _segment_names(image, layer, path.name) or {
            int(v): f"label {int(v)}" for v in np.unique(array) if v > 0
        }
        found = boxes_from_label_array(array.astype(np.int32), ijk_to_ras(image), names, margin_mm=margin_mm)
        boxes.extend(found)
    if not boxes:
        msg = f"{path.name} holds no segment with a voxel in it; give a segmentation of the lesions."
        raise BoxError(msg)
    return boxes


def _segment_names(image: sitk.Image, layer: int, file_name: str) -> dict[int, str]:
    """Label value -> segment name, from the keys that Slicer writes into a ``.seg.nrrd``; empty for other files."""
    names = {}
    for key in image.GetMetaDataKeys():
        match = _SEGMENT_KEY.fullmatch(key)
        if match is None:
            continue
        prefix = f"Segment{match.group(1)}_"
        in_layer = _whole_number(image, prefix + "Layer", file_name) if image.HasMetaDataKey(prefix + "Layer") else 0
        if in_layer == layer:
            named = image.HasMetaDataKey(prefix + "Name")
            names[_whole_number(image, key, file_name)] = (
                image.GetMetaData(prefix + "Name") if named else f"segment {match.group(1)}"
            )
    return names


def _whole_number(image: sitk.Image, key: str, file_name: str) -> int:
    try:
        return int(image.GetMetaData(key))
    except ValueError as error:
        msg = (
            f"{file_name}: {key} is {image.GetMetaData(key)!r}; a whole number is needed. Save the segmentation again."
        )
        raise BoxError(msg) from error


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
    highest = max(names, default=0)
    for label, slices in enumerate(ndimage.find_objects(labels, max_label=highest), start=1):
        if slices is None or label not in names:
            continue
        low = np.array([s.start for s in reversed(slices)]) - 0.5
        high = np.array([s.stop for s in reversed(slices)]) - 0.5
        box = _box_of_segment(low, high, ijkToRAS, names[label]).grown(margin_mm)
        boxes.append(replace(box, segment=_mask(labels, label, slices, ijkToRAS, names[label])))
    return boxes


def _mask(labels: np.ndarray, label: int, slices: tuple[slice, ...], ijkToRAS: np.ndarray, name: str) -> CTVolume:
    cropToRAS = np.array(ijkToRAS, dtype=float)
    cropToRAS[:3, 3] = transformed_points(cropToRAS, [s.start for s in reversed(slices)])
    return CTVolume((labels[slices] == label).astype(np.uint8), cropToRAS, name)


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


@dataclass(frozen=True, eq=False)
class CaseRow:
    """One row: its ``values`` by column, and where its CT cut-out and mask lie. ``where`` names it in errors."""

    values: dict[str, str]
    image_path: Path
    mask_path: Path
    where: str

    def load(self, *, margin_mm: float = 0.0) -> tuple[CTVolume, LesionBox, np.ndarray]:
        """The CT, the box of the mask with the mask as its ``segment``, and the mask (bool, shape as the CT).

        ``margin_mm``: how far the box reaches beyond the mask; for a model that is asked, the one that it was made for.
        Raises `CaseTableError`.
        """
        import SimpleITK as sitk

        from LesionLib.io.volumes import read_image, read_sitk

        volume = read_image(self.image_path)
        mask = sitk.GetArrayFromImage(read_sitk(self.mask_path)) > 0
        if mask.shape != volume.array.shape or not mask.any():
            msg = f"{self.where}: the mask is empty or of another size than the image {self.image_path.name}."
            raise CaseTableError(msg)
        box = boxes_from_label_array(mask.astype(np.uint8), volume.ijkToRAS, {1: "lesion"}, margin_mm=margin_mm)[0]
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
    tables = sorted(folder.glob("*.csv")) if folder.is_dir() else []
    if len(tables) != 1:
        found = ", ".join(table.name for table in tables) or "none"
        msg = f"{folder} must hold one CSV table beside image/ and mask/; found: {found}."
        raise CaseTableError(msg)
    try:
        with tables[0].open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle, restval="")
            rows = [(reader.line_num, values) for values in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        msg = f"{tables[0]} cannot be read as a CSV table in UTF-8; save it as such."
        raise CaseTableError(msg) from error
    missing = [name for name in ("file", *columns) if not rows or name not in rows[0][1]]
    if missing:
        msg = f"{tables[0]} has no rows or lacks the column(s) {', '.join(missing)}."
        raise CaseTableError(msg)
    return list(_checked(folder, tables[0].name, rows))


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
            if Path(name).name != name or not path.is_file():
                msg = f"{where}: {path} is missing."
                raise CaseTableError(msg)
        yield CaseRow(values, image, mask, where)
