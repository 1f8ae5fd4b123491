"""The one form of a table of lesions that LesionLens learns from: CSV (UTF-8) or parquet, one row a lesion.

Where the lesion is
    ``volume``  the CT: a NIfTI, NRRD or MetaImage file, or a DICOM folder; paths are relative to the table
    ``image``   instead of ``volume``: a 2-D image (JPEG, PNG), taken whole
    the box     in mm: ``center_x, center_y, center_z, size_x, size_y, size_z`` and ``frame``, RAS (3D Slicer) or LPS (DICOM);
                in voxels: ``i_min, j_min, k_min, i_max, j_max, k_max``, first and last index that belong to it, from 0
    ``mask``    a label map of the lesion, on any lattice: instead of a box, or beside it; ``mask_value``: the lesion's label
                in it (else all that is above 0)
    ``organ_mask``  a label map of the organ, on any lattice: all else of the CT is taken for air

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

import csv
import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from LesionLib.errors import BoxError
from LesionLib.geometry import CTVolume, LesionBox
from LesionLib.io.boxes import MM_COLUMNS, VOXEL_COLUMNS, location_of
from LesionLib.io.tables import TableTextError, doubtful_labels, spreadsheet_hint, table_text

from lesiontraining.data.messages import Problem, one_problem, refuse
from lesiontraining.data.sources import TRAINING_MARGIN_MM, Photograph, SlicesSource, Source, VolumeSource

UNKNOWN = -1


@dataclass(frozen=True, eq=False)
class LesionDataset:
    """What networks see of a set of lesions, and all that a figure about them needs to know.

    All arrays have one entry a lesion, n in all, in one order. ``images``: a float32 array (image, channel, [slice,] row,
    column) each, as `LesionLib.sampling.inputs.network_input` makes it. ``labels``: class index, (n,), `UNKNOWN` where there is
    none. ``lesion_ids``, ``patients``, ``studies``: identifiers, (n,). ``folds``: the fold a lesion is held out in, (n,).
    ``size_mm``: box edges, (n, 3), NaN for plain photographs, as ``volume_mm3`` (n,), ``mean_hu`` (n,) and ``spacing_mm`` (n, 3),
    of columns, rows and slices. ``targets``: the box in its images for localisation, (n, 4): (row, column, rows, columns) in
    pixels, NaN where not known. ``value_range``: between what the images' values lie, None where nothing bounds them.
    """

    images: tuple[np.ndarray, ...]
    labels: np.ndarray
    class_names: tuple[str, ...]
    lesion_ids: np.ndarray
    patients: np.ndarray
    studies: np.ndarray
    folds: np.ndarray
    size_mm: np.ndarray
    volume_mm3: np.ndarray
    mean_hu: np.ndarray
    spacing_mm: np.ndarray
    targets: np.ndarray
    value_range: tuple[float, float] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def at(self, rows: Sequence[int] | np.ndarray) -> LesionDataset:
        """The lesions ``rows`` (indices or a boolean mask), in that order."""
        indices = np.arange(len(self))[np.asarray(rows)]
        of_all = ("images", "class_names", "value_range")
        kept = {f.name: getattr(self, f.name)[indices] for f in fields(self) if f.name not in of_all}
        return replace(self, images=tuple(self.images[i] for i in indices), **kept)

    @property
    def diameter_mm(self) -> np.ndarray:
        """The longest edge of each box in mm, (n,)."""
        return self.size_mm.max(axis=1)


_IDENTIFIER = 8  # characters from which on a study's name is taken for unique
SPLITS = ("train", "val", "test")


@dataclass(frozen=True, eq=False)
class LesionRow:
    """One lesion. ``label``: its class, "" where not known; ``split``: "train", "val", "test" or ""; ``fold``: as written.

    ``attributes`` are all other columns, as text.
    """

    line: int
    lesion_id: str
    patient: str
    source: Source
    label: str = ""
    study: str = ""
    series: str = ""
    split: str = ""
    fold: str = ""
    attributes: dict[str, str] = field(default_factory=dict)

    def column(self, name: str) -> str:
        """The value of any column but the label, "" where there is none."""
        if name in ("patient", "study", "series", "split", "fold"):
            return getattr(self, name)
        return self.attributes.get(name, "")


@dataclass(frozen=True, eq=False)
class LesionTable:
    """A table of lesions in memory: typed rows that know their line, and what is to be said of all of them.

    Lesions of one kind of source. ``name``: for messages; ``credit``: licence and source of the data, to be shown.

    ``warnings``: what a user should know before believing a figure, such as that patients are not known.
    """

    rows: tuple[LesionRow, ...]
    class_names: tuple[str, ...]
    name: str
    credit: str = ""
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def labels(self) -> np.ndarray:
        """Class index of each lesion, `UNKNOWN` where there is none; int64."""
        index = {name: location for location, name in enumerate(self.class_names)}
        return np.array([index.get(row.label, UNKNOWN) for row in self.rows], dtype=np.int64)

    @property
    def patients(self) -> np.ndarray:
        """Patient of each lesion, text."""
        return np.array([row.patient for row in self.rows], dtype=str)

    @property
    def studies(self) -> np.ndarray:
        """Study of each lesion, text, unique to it; the patient where no study is given.

        A short one ("1", "2019-A") counts within its patient; a long one is an accession number or UID and stands as it is,
        so that one study under two patients is noticed.
        """
        return np.array([_study(row) for row in self.rows], dtype=str)

    @property
    def lesion_ids(self) -> np.ndarray:
        """Identifier of each lesion, text."""
        return np.array([row.lesion_id for row in self.rows], dtype=str)

    def column(self, name: str) -> np.ndarray:
        """Any column as text."""
        return np.array([row.column(name) for row in self.rows], dtype=str)

    def where(self, keep: Callable[[LesionRow], bool]) -> LesionTable:
        """The lesions for which ``keep`` is true."""
        return replace(self, rows=tuple(row for row in self.rows if keep(row)))


def ct_lesions(
    table: LesionTable, *, margin_mm: float = TRAINING_MARGIN_MM
) -> Iterator[tuple[LesionRow, CTVolume, LesionBox]]:
    """Each lesion of a table of CTs, in its order, with its CT and its box; a CT whose lesions follow each other is read once.

    ``margin_mm``: how far the box reaches beyond a mask; another one only for a model that says so in its manifest.
    Raises `TableError` naming the row that is no CT, `VolumeError`, `BoxError`.
    """
    refuse(
        table.name,
        (
            Problem(row.line, "a lesion of a CT is needed here, and this row is none")
            for row in table.rows
            if not isinstance(row.source, VolumeSource | SlicesSource)
        ),
    )
    for _, rows in groupby(table.rows, key=lambda row: row.source.group):
        volume = None
        for row in rows:
            volume = row.source.read() if volume is None else volume
            yield row, volume, row.source.lesion(volume, name=f"line {row.line}", margin_mm=margin_mm)


def _study(row: LesionRow) -> str:
    if len(row.study) >= _IDENTIFIER:
        return row.study
    return f"{row.patient}/{row.study}" if row.study else row.patient


def class_order(labels: Sequence[str], classes: Sequence[str] | None) -> tuple[str, ...]:
    """The classes as given, else those that occur in natural order ("2" before "10")."""
    if classes is not None:
        return tuple(classes)
    return tuple(sorted({label for label in labels if label}, key=natural))


def natural(text: str) -> tuple[int, float, str]:
    """A key that sorts numbers by value and before words."""
    try:
        number = float(text)
    except ValueError:
        return (1, 0.0, text)
    return (0, number, text) if number == number else (1, 0.0, text)  # noqa: PLR0124


PARQUET_SUFFIXES = (".parquet", ".pq")
_MAX_ROWS = 5_000_000
Rows = list[tuple[int, dict[str, str]]]


def read_rows(path: Path) -> tuple[tuple[str, ...], Rows]:
    """A CSV or parquet file, by its ending, as its columns and rows of text, each with its line number. Raises `TableError`."""
    if not os.path.isfile(path):
        raise one_problem(str(path), "there is no such file; give a CSV or parquet table of lesions")
    return _parquet(path) if path.suffix.lower() in PARQUET_SUFFIXES else parse_csv(_text(path), source=path.name)


def parse_csv(text: str, *, source: str) -> tuple[tuple[str, ...], Rows]:
    """The columns and the rows of a CSV text; a row's line is where it ends. Raises `TableError`."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[tuple[int, list[str]]] = []
    try:
        for cells in reader:
            rows.append((reader.line_num, [cell.strip() for cell in cells]))
    except csv.Error as error:
        raise one_problem(source, f"not a CSV table: {error}", line=reader.line_num) from error
    header = tuple(rows[0][1]) if rows else ()
    _check_header(header, source)
    hint = spreadsheet_hint(text)
    if hint:
        raise one_problem(source, hint, line=1)
    filled = [(line, cells) for line, cells in rows[1:] if any(cells)]
    refuse(
        source,
        (
            Problem(line, f"{len(cells)} values where the header has {len(header)}; quote values that hold a comma")
            for line, cells in filled
            if len(cells) != len(header)
        ),
    )
    if not filled:
        raise one_problem(source, "the table has a header but no row")
    return header, [(line, dict(zip(header, cells, strict=True))) for line, cells in filled]


def _check_header(header: tuple[str, ...], source: str) -> None:
    if not any(header):
        raise one_problem(source, "the table is empty; its first line must name the columns")
    doubled = sorted({name for name in header if header.count(name) > 1})
    if doubled:
        raise one_problem(source, f"the column(s) {', '.join(map(repr, doubled))} stand twice in the header", line=1)


def _text(path: Path) -> str:
    try:
        return table_text(path)
    except TableTextError as error:
        raise one_problem(path.name, f"the file is not text in UTF-8: {error}") from error


def _parquet(path: Path) -> tuple[tuple[str, ...], Rows]:
    """Rows count from 2, so that a line means the same as in the CSV of the same table."""
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            if file.metadata.num_rows > _MAX_ROWS:
                raise one_problem(path.name, f"{file.metadata.num_rows} rows; at most {_MAX_ROWS} are read")
            table = file.read()
    except (ArrowException, OSError) as error:
        raise one_problem(path.name, f"not a parquet table: {str(error)[:120]}") from error
    header = tuple(table.column_names)
    _check_header(header, path.name)
    rows = [(line, {k: _cell(v) for k, v in row.items()}) for line, row in enumerate(table.to_pylist(), start=2)]
    if not rows:
        raise one_problem(path.name, "the table has columns but no row")
    return header, rows


def _cell(value: Any) -> str:
    """As CSV would have it: nothing for a missing value, whole numbers without a point."""
    if value is None or value != value:  # noqa: PLR0124
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


COLUMNS = (
    "volume", "image", *MM_COLUMNS, "frame", *VOXEL_COLUMNS, "mask", "mask_value", "organ_mask",
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
    at: that is `checks.check_table`.
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
    refuse(source, column_problems(header, label=label, own_patients=own_patients))
    read, problems = typed_rows(header, rows, folder=folder, label=label, classes=classes)
    refuse(source, problems)
    names = class_order([row.label for row in read], classes)
    if label is not None and not names:
        raise one_problem(source, f"the column {label!r} is empty in every row; there is nothing to learn")
    warnings = _doubtful_patients(read) if "patient" in header else (OWN_PATIENT,)
    return LesionTable(tuple(read), names, source, credit, warnings)


def typed_rows(
    header: Sequence[str], rows: Rows, *, folder: Path, label: str | None, classes: Sequence[str] | None = None
) -> tuple[list[LesionRow], list[Problem]]:
    """The rows that are as they should be, and what is wrong with the others."""
    problems: list[Problem] = []
    read: list[LesionRow] = []
    has_patients = "patient" in header
    for line, values in rows:
        row, found = _row(line, values, folder, label=label, classes=classes, has_patients=has_patients)
        problems += [Problem(line, text) for text in found]
        if row is not None:
            read.append(row)
    return read, problems


def patients_written_twice(rows: Sequence[LesionRow]) -> list[tuple[int, str]]:
    """Identifiers that may be one patient's, with their lines: on two sides of a split the figures would be too good."""
    found = doubtful_labels((row.line, row.patient) for row in rows)
    return [(line, text.replace("label", "patient").replace("class", "patient")) for line, text in found]


def _doubtful_patients(rows: Sequence[LesionRow]) -> tuple[str, ...]:
    """The first of them, and how many more there are."""
    found = patients_written_twice(rows)
    if not found:
        return ()
    line, text = found[0]
    more = f" And {len(found) - 1} more like it." if len(found) > 1 else ""
    return (f"line {line}: {text}.{more}",)


def column_problems(header: Sequence[str], *, label: str | None, own_patients: bool = False) -> list[Problem]:
    """What is wrong with the columns of a table."""
    problems = []
    if "volume" not in header and "image" not in header:
        problems.append("there is no column 'volume' (a CT) or 'image' (a 2-D image)")
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
    return [Problem(1, text) for text in problems]


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
    organ = resolved(folder, values["organ_mask"], "organ_mask", problems) if values.get("organ_mask") else None
    try:
        location = location_of(values)
    except BoxError as error:
        problems.append(str(error))
        return None, problems
    if location is None and not values.get("mask"):
        problems.append("neither a box nor a mask is given")
    value = values.get("mask_value", "")
    if value and not (value.isascii() and value.isdecimal() and 0 < int(value[:10]) <= 65_535 and len(value) <= 5):
        problems.append(f"mask_value is {value!r}; the label of the lesion in the mask is needed, from 1 to 65535")
    if volume is None or problems:
        return None, problems
    series = values.get("series") or None
    return VolumeSource(volume, location, mask, int(value) if value else None, series, organ), []


def resolved(folder: Path, text: str, column: str, problems: list[str]) -> Path | None:
    """The path of a cell, relative to the table's folder; what is wrong is added to ``problems``."""
    if not text or not text.isprintable():
        problems.append(f"{column} is {text!r}; the path of a file is needed")
        return None
    return Path(folder, text)
