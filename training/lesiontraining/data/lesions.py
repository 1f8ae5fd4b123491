"""The one form of a table of lesions that LesionLens learns from: CSV (UTF-8) or parquet, one row a lesion.

Where the lesion is
    ``volume``  the CT: a NIfTI, NRRD or MetaImage file, or a DICOM folder; paths are relative to the table
    ``image``   instead of ``volume``: a 2-D picture (JPEG, PNG), taken whole
    the box     in mm: ``center_x, center_y, center_z, size_x, size_y, size_z`` and ``frame``, RAS (3D Slicer) or LPS (DICOM);
                in voxels: ``i_min, j_min, k_min, i_max, j_max, k_max``, first and last index that belong to it, from 0
    ``mask``    a label map of the lesion, on any lattice: instead of a box, or beside it; ``mask_value``: the lesion's label
                in it (else all that is above 0)

What it is
    label       any column; its name is chosen when the table is read. An empty cell: not known
    ``lesion``  an identifier, unique; else made of the row's line

Whose it is
    ``patient`` needed: figures are split by patient; ``study``, ``series`` (of a DICOM folder with several: its UID)
    ``split``   train, val or test; or ``fold``, any names; needed only where the split is given by the table

Every other column is kept as an attribute of the lesion.

    volume,center_x,center_y,center_z,size_x,size_y,size_z,frame,diagnosis,patient,study
    ct/001.nii.gz,-61.2,14.0,-310.5,18,16,20,LPS,cyst,P001,2019-A
    ct/002.nii.gz,40.1,22.7,-280.0,31,35,28,LPS,metastasis,P002,2020-C
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from LesionLib.errors import BoxError

from .lesion_row import SPLITS, LesionRow, LesionTable, class_order
from .places import MM_COLUMNS, VOXEL_COLUMNS, place_of
from .problems import Problem, one_problem, refuse
from .sources import Photograph, Source, VolumeSource
from .table_text import Rows, read_rows

COLUMNS = (
    "volume", "image", *MM_COLUMNS, "frame", *VOXEL_COLUMNS, "mask", "mask_value",
    "lesion", "patient", "study", "series", "split", "fold",
)  # fmt: skip
_SPLIT_NAMES = {"training": "train", "validation": "val", "testing": "test"}
LICENCE = "Your own table; its licence and source are not given (reader_options: credit)."
OWN_PATIENT = (
    "The table has no column 'patient': every row counts as a patient of its own, and figures may be too good."
)


def read_lesion_table(
    path: Path, *, label: str | None, classes: Sequence[str] | None = None, credit: str = ""
) -> LesionTable:
    """The table with its ``label`` column; None: labels are not needed. Raises `TableError` with every bad row.

    ``classes``: the classes in the order of the network's outputs; any other label is a problem. Files are not looked
    at: that is `table_check.check_table`.
    """
    path = Path(path)
    header, rows = read_rows(path)
    return table_from_rows(
        header, rows, folder=path.parent, source=path.name, label=label, classes=classes, credit=credit or LICENCE
    )


def table_from_rows(
    header: Sequence[str],
    rows: Rows,
    *,
    folder: Path,
    source: str,
    label: str | None,
    classes: Sequence[str] | None = None,
    credit: str = "",
    own_patients: bool = False,
) -> LesionTable:
    """Rows of text, in the form above, as a table. ``own_patients``: without a patient column, each row is one."""
    _check_columns(header, source, label, own_patients)
    problems: list[Problem] = []
    read: list[LesionRow] = []
    has_patients = "patient" in header
    for line, values in rows:
        row, found = _row(line, values, folder, label=label, classes=classes, has_patients=has_patients)
        problems += [Problem(line, text) for text in found]
        if row is not None:
            read.append(row)
    refuse(source, problems)
    names = class_order([row.label for row in read], classes)
    if label is not None and not names:
        raise one_problem(source, f"the column {label!r} is empty in every row; there is nothing to learn")
    warnings = () if has_patients else (OWN_PATIENT,)
    return LesionTable(tuple(read), names, source, credit, warnings)


def _check_columns(header: Sequence[str], source: str, label: str | None, own_patients: bool) -> None:
    problems = []
    if "volume" not in header and "image" not in header:
        problems.append("there is no column 'volume' (a CT) or 'image' (a 2-D picture)")
    if "volume" in header and "image" in header:
        problems.append("there are both columns 'volume' and 'image'; make one table for each")
    if "volume" in header and not ({"mask", "center_x", "i_min"} & set(header)):
        problems.append("lesions have no place: give a box (center_x ... or i_min ...) or a 'mask'")
    for names in (MM_COLUMNS, VOXEL_COLUMNS):
        missing = [name for name in names if name not in header]
        if missing and len(missing) < len(names):
            problems.append(f"columns of the box are missing: {', '.join(missing)}")
    if "patient" not in header and not own_patients:
        problems.append("there is no column 'patient'; figures must be split by patient")
    if label is not None and label not in header:
        problems.append(f"there is no column {label!r} for the label; the columns are {', '.join(header)[:200]}")
    if label in COLUMNS:
        problems.append(f"the label cannot be the column {label!r}, which says where or whose a lesion is")
    refuse(source, [Problem(1, text) for text in problems])


def _row(
    line: int,
    values: Mapping[str, str],
    folder: Path,
    *,
    label: str | None,
    classes: Sequence[str] | None,
    has_patients: bool,
) -> tuple[LesionRow | None, list[str]]:
    """The row, and what is wrong with it."""
    source, problems = _source(values, folder)
    lesion_id = values.get("lesion", "") or f"row{line}"
    patient = values.get("patient", "") if has_patients else lesion_id
    if not patient:
        problems.append("the patient is empty")
    split = _SPLIT_NAMES.get(values.get("split", "").lower(), values.get("split", "").lower())
    if split and split not in SPLITS:
        problems.append(f"split is {values['split']!r}; it must be train, val or test")
    name = values.get(label, "") if label is not None else ""
    if name and classes is not None and name not in classes:
        problems.append(f"the label {name!r} is none of the classes {', '.join(classes)}")
    if source is None or problems:
        return None, problems
    others = {key: value for key, value in values.items() if key not in COLUMNS}
    row = LesionRow(
        line, lesion_id, patient, source, name, values.get("study", ""), values.get("series", ""), split,
        values.get("fold", ""), others,
    )  # fmt: skip
    return row, []


def _source(values: Mapping[str, str], folder: Path) -> tuple[Source | None, list[str]]:
    problems: list[str] = []
    if "image" in values:
        path = resolved(folder, values["image"], "image", problems)
        return (None if path is None else Photograph(path)), problems
    volume = resolved(folder, values.get("volume", ""), "volume", problems)
    mask = resolved(folder, values["mask"], "mask", problems) if values.get("mask") else None
    try:
        place = place_of(values)
    except BoxError as error:
        problems.append(str(error))
        return None, problems
    if place is None and not values.get("mask"):
        problems.append("neither a box nor a mask is given")
    value = values.get("mask_value", "")
    if value and not (value.isascii() and value.isdecimal() and 0 < int(value[:10]) <= 65_535 and len(value) <= 5):
        problems.append(f"mask_value is {value!r}; the label of the lesion in the mask is needed, from 1 to 65535")
    if volume is None or problems:
        return None, problems
    series = values.get("series") or None
    return VolumeSource(volume, place, mask, int(value) if value else None, series), []


def resolved(folder: Path, text: str, column: str, problems: list[str]) -> Path | None:
    """The path of a cell, relative to the table's folder; what is wrong is added to ``problems``."""
    if not text or not text.isprintable():
        problems.append(f"{column} is {text!r}; the path of a file is needed")
        return None
    return Path(folder, text)
