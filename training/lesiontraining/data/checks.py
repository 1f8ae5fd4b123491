"""Is this table what it says? All problems at once, before hours of training: files, boxes, masks, doubles, splits, leaks."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from LesionLib.errors import LesionLensError
from LesionLib.geometry import CTVolume, LesionBox, distance_outside_mm
from LesionLib.io.boxes import MmBox
from LesionLib.io.tables import doubtful_labels
from LesionLib.io.volumes import volume_without_voxels

from lesiontraining.data.lesions import (
    LesionDataset,
    LesionRow,
    LesionTable,
    class_order,
    column_problems,
    patients_written_twice,
    read_rows,
    typed_rows,
)
from lesiontraining.data.messages import SHOWN, Problem, TableError, notify, tracked
from lesiontraining.data.sources import (
    Photograph,
    SlicesSource,
    StoredCube,
    VolumeSource,
    mask_box,
    opened_image,
)
from lesiontraining.data.splits import Split
from lesiontraining.evaluation.leaks import Leak, LeakReport, check_leaks, shared_images

_FLAT = 2.5  # deviation in grey levels of 255 below which a plane shows nothing that could be recognised


def leaks_between_sets(images: LesionDataset, split: Split, *, previews: Sequence[np.ndarray]) -> LeakReport:
    """The three sets of an experiment looked through for leaks, with lesions named as the table names them.

    Found are patients, studies and images on two sides of the split; lesions are named by their identifier.
    ``previews``: a plane (row, column) of each lesion, uint8, by which it would be recognised. Flat ones are left out: they
    are all alike and say nothing.
    """
    names = split.names(len(images))
    rows = np.flatnonzero(names != "")
    identifiers = {"patient": images.patients[rows], "study": images.studies[rows]}
    report = check_leaks(names[rows], identifiers=identifiers)
    shown = np.array([row for row in rows if previews[row].std() > _FLAT], dtype=int)
    if len(np.unique(names[shown])) < 2:
        return report
    found = shared_images([previews[row] for row in shown], names[shown])
    checked = f"identical and near-identical images on both sides of a split ({len(shown)} of {len(rows)} show enough)"
    named = tuple(_named(leak, images.lesion_ids[shown]) for leak in found)
    return LeakReport((*report.findings, *named), (*report.checked, checked))


def _named(leak: Leak, lesion_ids: np.ndarray) -> Leak:
    """Rows of the images that were compared as lesions."""
    named = (re.sub(r"\d+", lambda match: str(lesion_ids[int(match[0])]), text) for text in leak.examples)
    return replace(leak, examples=tuple(text.replace("rows ", "", 1) for text in named))


_NAMED = 5  # patients or lines that a problem names


def check_table(
    table: LesionTable,
    *,
    folds: int | None = None,
    split_column: str | None = None,
    labelled: bool = True,
    look_at_files: bool = True,
    shown: int = SHOWN,
    progress: bool = True,
) -> None:
    """Raise one `TableError` with every problem of the table, or return.

    ``folds``: how many folds will be made of it; ``split_column``: the column that says the split instead ("split", "fold"
    or another). ``labelled``: whether every lesion needs a label. ``look_at_files``: read headers of CTs, and masks whole.
    """
    warnings: dict[str, int] = {}
    problems = _table_problems(table, folds, split_column, labelled=labelled)
    if look_at_files:
        problems += _files(table, warnings, progress=progress)
    for text, line in list(warnings.items())[:shown]:
        notify(f"{table.name}, line {line}: {text}")
    if problems:
        raise TableError(table.name, problems, shown=shown)


def _table_problems(
    table: LesionTable, folds: int | None, split_column: str | None, *, labelled: bool
) -> list[Problem]:
    problems = [*_doubles(table), *_labels(table, labelled=labelled)]
    if folds is not None and labelled:
        problems += _few_patients(table, folds)
    if split_column is not None:
        problems += _crossing(table, split_column)
    return problems


@dataclass(frozen=True)
class CheckedTable:
    """What `check_csv` found: the rows that can be read as a table, all problems, and what is only odd, with its line."""

    table: LesionTable
    problems: tuple[Problem, ...]
    warnings: tuple[tuple[int, str], ...]


def check_csv(path: Path, *, label: str, folds: int | None = None, progress: bool = True) -> CheckedTable:
    """Everything that is wrong with a table, at once: columns, rows, labels, patients, files, places.

    A row that cannot be read does not hide what is wrong with the others. ``folds``: how many are to be made of it. Raises
    `TableError` where the file is no table.
    """
    header, rows = read_rows(path)
    problems = column_problems(header, label=label)
    there = label if label in header else None
    read, of_rows = typed_rows(header, rows, folder=path.parent, label=there)
    # Without its columns every row would say the same.
    problems += of_rows if not problems or {"volume", "image"} & set(header) else []
    table = LesionTable(tuple(read), class_order([row.label for row in read], None), path.name, "", ())
    warnings: dict[str, int] = {}
    problems += _table_problems(table, folds, None, labelled=there is not None)
    problems += _files(table, warnings, progress=progress)
    odd = [(line, text) for text, line in warnings.items()] + patients_written_twice(read)
    return CheckedTable(table, tuple(sorted(problems, key=lambda p: p.line)), tuple(sorted(odd)))


def _doubles(table: LesionTable) -> Iterator[Problem]:
    ids: dict[str, int] = {}
    sources: dict[object, int] = {}
    for row in table.rows:
        first = ids.setdefault(row.lesion_id, row.line)
        if first != row.line:
            yield Problem(row.line, f"the lesion {row.lesion_id!r} stands in line {first} already")
        first = sources.setdefault(row.source, row.line)
        if first != row.line:
            yield Problem(row.line, f"the same place in the same file stands in line {first} already")


def _labels(table: LesionTable, *, labelled: bool) -> Iterator[Problem]:
    known = set(table.class_names)
    for row in table.rows:
        if row.label and row.label not in known:
            names = ", ".join(table.class_names)
            yield Problem(row.line, f"the label {row.label!r} is none of the classes {names}")
        elif labelled and not row.label:
            yield Problem(
                row.line, "the label is empty; fill it, or say what to do with lesions without (unlabelled: drop)"
            )
    if labelled:
        for line, text in doubtful_labels((row.line, row.label) for row in table.rows):
            yield Problem(line, text)
        present = {row.label for row in table.rows}
        for name in table.class_names:
            if name not in present:
                yield Problem(0, f"no lesion is of the class {name!r}")
        if len(table.class_names) < 2:
            yield Problem(0, f"there is only the class {', '.join(table.class_names)!r}; at least two are needed")


def _few_patients(table: LesionTable, folds: int) -> Iterator[Problem]:
    patients: dict[str, set[str]] = defaultdict(set)
    for row in table.rows:
        patients[row.label].add(row.patient)
    for name in table.class_names:
        count = len(patients[name])
        if 0 < count < folds:
            yield Problem(
                0,
                f"the class {name!r} has {count} patient(s), too few for {folds} folds; give more of it, or fewer folds",
            )


def _crossing(table: LesionTable, column: str) -> Iterator[Problem]:
    values: dict[str, dict[str, int]] = defaultdict(dict)
    for row in table.rows:
        value = row.column(column)
        if not value:
            yield Problem(row.line, f"the column {column!r}, which says the split, is empty")
        values[row.patient.strip().casefold()].setdefault(value, row.line)
    crossing = {patient: seen for patient, seen in values.items() if len(seen) > 1}
    for patient, seen in crossing.items():
        where = ", ".join(f"{value!r} (line {line})" for value, line in list(seen.items())[:_NAMED])
        yield Problem(max(seen.values()), f"the patient {patient!r} is on several sides of the {column}: {where}")


def _files(table: LesionTable, warnings: dict[str, int], *, progress: bool) -> list[Problem]:
    """Problems of files; what is only odd about them goes into ``warnings``, with the first line that it is of."""
    groups: dict[tuple[str, str], list[LesionRow]] = defaultdict(list)
    for row in table.rows:
        groups[row.source.group].append(row)
    # Most of the time is waiting for the disk, and SimpleITK lets other threads run while it reads.
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda rows: _guarded(rows, warnings), groups.values())
        return [p for part in tracked(found, "checking files", total=len(groups), shown=progress) for p in part]


def _guarded(rows: Sequence[LesionRow], warnings: dict[str, int]) -> list[Problem]:
    try:
        return _group_problems(rows, warnings)
    except OSError as error:  # a name too long, no permission, a folder that went away
        return [Problem(row.line, f"{error.filename}: {error.strerror}") for row in rows]


def _group_problems(rows: Sequence[LesionRow], warnings: dict[str, int]) -> list[Problem]:
    source = rows[0].source
    if isinstance(source, VolumeSource):
        return _volume_problems(rows, warnings)
    if isinstance(source, SlicesSource):
        return _slice_problems(rows)
    if isinstance(source, Photograph):
        return [problem for row in rows for problem in _photograph_problems(row)]
    missing = isinstance(source, StoredCube) and not os.path.isfile(source.archive)
    return [Problem(rows[0].line, f"{source.archive} is missing")] if missing else []


def _volume_problems(rows: Sequence[LesionRow], warnings: dict[str, int]) -> list[Problem]:
    path = rows[0].source.volume
    if not os.path.exists(path):
        return [Problem(row.line, f"the volume {path} is missing") for row in rows]
    try:
        volume = volume_without_voxels(path, series=rows[0].source.series)
    except LesionLensError as error:
        return [Problem(row.line, str(error)) for row in rows]
    for warning in volume.warnings:
        warnings.setdefault(str(warning), rows[0].line)
    return [problem for row in rows for problem in _place_problems(row, volume)]


def _place_problems(row: LesionRow, volume: CTVolume) -> Iterator[Problem]:
    source: VolumeSource = row.source
    if source.mask is not None and not os.path.isfile(source.mask):
        yield Problem(row.line, f"the mask {source.mask} is missing")
        return
    if source.organ is not None and not os.path.exists(source.organ):
        yield Problem(row.line, f"the organ's mask {source.organ} is missing")
        return
    try:
        around_mask = (
            None if source.mask is None else mask_box(source.mask, source.mask_value, name=row.lesion_id, volume=volume)
        )
        box = around_mask if source.location is None else source.location.box(volume.ijkToRAS, name=row.lesion_id)
    except LesionLensError as error:
        yield Problem(row.line, str(error))
        return
    distance = distance_outside_mm(volume, box)
    if distance > 0:
        what = "mask" if source.location is None else "box"
        yield Problem(row.line, f"the {what} lies outside {volume.name} by {distance:.1f} mm{_guess(row, volume)}")
    elif around_mask is not None and box is not around_mask and not _touch(box, around_mask):
        yield Problem(row.line, f"the box and the mask {source.mask.name} do not meet; give those of one lesion")


def _guess(row: LesionRow, volume: CTVolume) -> str:
    """Whether the numbers would fit if they were meant in the other frame."""
    location = row.source.location
    if not isinstance(location, MmBox):
        return ""
    other = location.in_other_frame()
    if distance_outside_mm(volume, other.box(volume.ijkToRAS, name=row.lesion_id)) > 0:
        return f", and also if its frame were {other.frame}; does it belong to this CT?"
    return f"; it would lie inside if its frame were {other.frame}, not {location.frame}"


def _touch(box: LesionBox, other: LesionBox) -> bool:
    """Whether two boxes meet: the second taken as a lattice of one voxel."""
    to_ras = other.boxToRAS @ np.diag([*other.sizeMm, 1.0])
    return distance_outside_mm(CTVolume(np.zeros((1, 1, 1), np.int16), to_ras), box) == 0


def _slice_problems(rows: Sequence[LesionRow]) -> list[Problem]:
    source: SlicesSource = rows[0].source
    path = source.path(source.key)
    if not os.path.isfile(path):
        return [Problem(row.line, f"the key slice {path} is missing") for row in rows]
    try:
        with opened_image(path, decode=False) as image:
            width, height, mode = image.width, image.height, image.mode
    except LesionLensError as error:
        return [Problem(row.line, str(error)) for row in rows]
    if not mode.startswith("I"):
        return [Problem(row.line, f"{path.name} is an image of mode {mode}; 16-bit grey is needed") for row in rows]
    outside = [row for row in rows if not _meets(row.source.pixels, width, height)]
    return [Problem(row.line, f"the box {row.source.pixels} lies outside {width} x {height} pixels") for row in outside]


def _meets(pixels: tuple[float, float, float, float], width: int, height: int) -> bool:
    left, top, right, bottom = pixels
    return left < width and top < height and right > 0 and bottom > 0


def _photograph_problems(row: LesionRow) -> Iterator[Problem]:
    path = row.source.path
    if not os.path.isfile(path):
        yield Problem(row.line, f"the image {path} is missing")
        return
    try:
        with opened_image(path, decode=False) as image:
            if image.mode.startswith(("I", "F")):
                yield Problem(row.line, f"{path.name} has more than 8 bits a pixel; a CT slice is no photograph")
    except LesionLensError as error:
        yield Problem(row.line, str(error))
