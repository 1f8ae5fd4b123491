"""DeepLesion in its released form: folders of 16-bit PNG slices, and ``DL_info.csv`` with a row a lesion (Yan 2018).

A pixel of value v is v - 32768 HU. Lesion types are known in the official validation and test parts only; lists with types
of their own (``lesion_types_train.csv``, ``lesion_types_val.csv``, columns ``Volume_fn``, ``bbox``, ``Coarse_lesion_type`` from
0) add to them. Those lists share patients: they name types here, their split is never used.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from lesiontraining.data.lesions import LesionRow, LesionTable, Rows, read_rows
from lesiontraining.data.messages import Problem, one_problem, refuse
from lesiontraining.data.sources import SlicesSource

LICENCE = (
    "DeepLesion (NIH Clinical Center; Yan et al., J Med Imaging 2018, doi:10.1117/1.JMI.5.3.036501), under the terms of use "
    "that come with it."
)
TYPES = ("bone", "abdomen", "mediastinum", "liver", "lung", "kidney", "soft tissue", "pelvis")
_SPLITS = {"1": "train", "2": "val", "3": "test"}
_COLUMNS = (
    "File_name", "Bounding_boxes", "Coarse_lesion_type", "Possibly_noisy", "Spacing_mm_px_", "Train_Val_Test",
)  # fmt: skip
_TYPE_LISTS = ("lesion_types_train.csv", "lesion_types_val.csv", "lesion_types_test.csv")
_PADDING = 5.0  # pixels that the released boxes are larger than the measured diameters, on every side
_UNKNOWN_TYPE = "-1"


def read_deeplesion(
    path: Path,
    *,
    label: str | None = "type",
    classes: Sequence[str] | None = None,
    images: Path | None = None,
    neighbours: int = 1,
    keep_noisy: bool = False,
    padded_boxes: bool = True,
    only_existing: bool = True,
) -> LesionTable:
    """The lesions of ``DL_info.csv``. Raises `TableError` with every bad row.

    ``path``: the table, or the folder with ``DL_info.csv``; ``images``: the folder of the slices' folders (``Images_png``),
    else where the table is. ``label``: "type" or any column. ``neighbours``: slices read on either side of the key slice
    (1 is enough for a slice with its neighbours, a cube needs more). ``padded_boxes``: boxes as released, 5 pixels larger
    on every side than what was measured. ``only_existing``: lesions whose key slice is not there are left out and
    counted, so that a part of the set can be used; none there at all is an error.
    ``split`` is the official one, by patient; the patient is the first field of the file name.
    """
    table = Path(path)
    table = table / "DL_info.csv" if os.path.isdir(table) else table
    header, rows = read_rows(table)
    missing = [name for name in _COLUMNS if name not in header]
    if missing:
        raise one_problem(table.name, f"the columns {', '.join(missing)} of DL_info.csv are missing", line=1)
    if label not in (None, "type", *header):
        raise one_problem(table.name, f"there is no label {label!r}; choose 'type' or a column of DL_info.csv")
    root = Path(images) if images is not None else _image_root(table.parent)
    given = classes if classes is not None else TYPES if label == "type" else None
    types = listed_types(table.parent) if label == "type" else {}
    options = {"root": root, "neighbours": neighbours, "padding": 0.0 if padded_boxes else _PADDING}
    kept = [(line, values) for line, values in rows if keep_noisy or values["Possibly_noisy"] != "1"]
    read = _rows(table.name, kept, label, types, given, options)
    if only_existing:
        read = _with_slices(read, root, table.name)
    names = tuple(given) if given is not None else tuple(sorted({row.label for row in read if row.label}))
    warnings = _warnings(rows, kept, read, only_existing)
    return LesionTable(tuple(read), names, table.name, LICENCE, warnings)


def _with_slices(rows: list[LesionRow], root: Path, source: str) -> list[LesionRow]:
    there = [row for row in rows if os.path.isfile(row.source.path(row.source.key))]
    if rows and not there:
        sought = rows[0].source.path(rows[0].source.key)
        raise one_problem(
            source, f"of its {len(rows)} lesions not one has its key slice under {root}, such as {sought}"
        )
    return there


def _rows(source: str, rows: Rows, label: str | None, types: dict, classes, options: dict) -> list[LesionRow]:
    read, problems = [], []
    seen: dict[str, int] = {}
    for line, values in rows:
        try:
            row = _row(line, values, label, types, **options)
        except ValueError as error:
            problems.append(Problem(line, str(error)))
            continue
        if classes is not None and row.label and row.label not in classes:
            problems.append(Problem(line, f"the label {row.label!r} is none of the classes {', '.join(classes)}"))
        number = seen[row.lesion_id] = seen.get(row.lesion_id, 0) + 1
        name = row.lesion_id if number == 1 else f"{row.lesion_id}#{number}"
        read.append(LesionRow(**{**vars(row), "lesion_id": name}))
    refuse(source, problems)
    return read


def _row(
    line: int, values: dict[str, str], label: str | None, types: dict, *, root: Path, neighbours: int, padding: float
) -> LesionRow:
    name = values["File_name"]
    fields = name.removesuffix(".png").split("_")
    if not name.endswith(".png") or len(fields) != 4 or not all(f.isascii() and f.isdecimal() for f in fields):
        msg = f"File_name is {name!r}; patient_study_series_slice.png is expected"
        raise ValueError(msg)
    patient, study, _, key = fields
    left, top, right, bottom = _numbers(values, "Bounding_boxes", 4)
    box = (left + padding, top + padding, right - padding, bottom - padding)
    x, y, z = _numbers(values, "Spacing_mm_px_", 3)
    if not (box[0] < box[2] and box[1] < box[3]) or min(x, y, z) <= 0:
        msg = f"the box {values['Bounding_boxes']!r} or the spacing {values['Spacing_mm_px_']!r} has no size"
        raise ValueError(msg)
    split = values["Train_Val_Test"]
    if split not in _SPLITS:
        msg = f"Train_Val_Test is {split!r}; 1, 2 or 3 is expected"
        raise ValueError(msg)
    folder = "_".join(fields[:3])
    return LesionRow(
        line=line,
        lesion_id=name.removesuffix(".png"),
        patient=patient,
        source=SlicesSource(root / folder, int(key), box, (x, y, z), neighbours),
        label=_label(values, label, types.get((folder, int(key), int(left), int(top)), "")),
        study=f"{patient}_{study}",
        series=folder,
        split=_SPLITS[split],
        attributes=dict(values),
    )


def _label(values: dict[str, str], label: str | None, listed: str) -> str:
    if label != "type":
        return "" if label is None else values[label]
    number = values["Coarse_lesion_type"]
    if number == _UNKNOWN_TYPE:
        return listed
    if not number.isdecimal() or not 1 <= int(number[:3]) <= len(TYPES):
        msg = f"Coarse_lesion_type is {number!r}; -1 or 1 to {len(TYPES)} is expected"
        raise ValueError(msg)
    return TYPES[int(number) - 1]


def listed_types(folder: Path) -> dict[tuple[str, int, int, int], str]:
    """Types by (series, key slice, left, top of the box) from the lists in ``folder``; empty where there are none."""
    found = {}
    for name in _TYPE_LISTS:
        if not os.path.isfile(folder / name):
            continue
        header, rows = read_rows(folder / name)
        if not {"Volume_fn", "bbox", "centroid_z", "Coarse_lesion_type"} <= set(header):
            raise one_problem(name, "the columns Volume_fn, bbox, centroid_z and Coarse_lesion_type are needed", line=1)
        problems = []
        for line, values in rows:
            try:
                series, _, span = values["Volume_fn"].split(".")[0].rpartition("_")
                left, top = (int(float(v)) for v in values["bbox"].strip("[]").split(",")[:2])
                # Their volumes count slices from 1.
                key = int(span.split("-")[0]) + round(float(values["centroid_z"])) - 1
                found[series, key, left, top] = TYPES[int(values["Coarse_lesion_type"])]
            except (ValueError, IndexError, OverflowError):
                problems.append(Problem(line, f"no type can be read of {values['Volume_fn']!r}"))
        refuse(name, problems)
    return found


def _numbers(values: dict[str, str], column: str, count: int) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in values[column].split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != count or not all(abs(number) < 1e6 for number in numbers):
        msg = f"{column} is {values[column]!r}; {count} numbers are expected"
        raise ValueError(msg)
    return numbers


def _image_root(folder: Path) -> Path:
    return folder / "Images_png" if os.path.isdir(folder / "Images_png") else folder


def _warnings(rows: Rows, kept: Rows, read: Sequence[LesionRow], only_existing: bool) -> tuple[str, ...]:
    warnings = ["Boxes are one slice thick: DeepLesion says nothing of a lesion's depth, so volumes are of that slice."]
    if len(kept) < len(rows):
        warnings.append(f"{len(rows) - len(kept)} lesion(s) marked Possibly_noisy are left out.")
    if only_existing and len(read) < len(kept):
        warnings.append(f"{len(kept) - len(read)} lesion(s) without their key slice are left out.")
    return tuple(warnings)
