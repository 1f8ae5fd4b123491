"""A folder of CTs and a folder of masks with the same names: every lesion of every mask, labelled by a table or by its value."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from LesionLib.errors import BoxError, VolumeError
from LesionLib.io.image_headers import IMAGE_SUFFIXES
from LesionLib.io.segmentations import read_label_map

from lesiontraining.data.lesions import LesionRow, LesionTable, class_order, read_rows
from lesiontraining.data.messages import Problem, one_problem, refuse, tracked
from lesiontraining.data.sources import VolumeSource

LICENCE = "Your own CTs and masks: their licence and source are what you give as credit."
_ENDINGS = tuple(sorted((*IMAGE_SUFFIXES, ".nii"), key=len, reverse=True))
_VALUE = "value"
_MAX_LABELS = 1000


def read_mask_folder(  # noqa: PLR0913
    path: Path,
    *,
    label: str | None = _VALUE,
    classes: Sequence[str] | None = None,
    volumes: str = "image",
    masks: str = "mask",
    names: Mapping[str, str] | None = None,
    table: str = "",
    credit: str = "",
    progress: bool = True,
) -> LesionTable:
    """A lesion for each label value of each mask. Raises `TableError`.

    ``label``: "value", the mask's label value is the class (``names`` gives it a name: {"1": "tumour", "2": "cyst"}; values
    it leaves out are no lesions), or a column of ``table``, a CSV in the folder with ``file``, the CT's file name, that column and
    ``patient``. Without a table each CT is a patient of its own.
    """
    folder = Path(path)
    pairs = _pairs(folder / volumes, folder / masks, folder.name)
    about = _about(folder / table, label) if table else {}
    if label not in (None, _VALUE) and not table:
        raise one_problem(folder.name, f"for the label {label!r} give the table that has it (table: cases.csv)")
    rows: list[LesionRow] = []
    problems: list[Problem] = []
    for volume, mask in tracked(pairs, "looking into masks", total=len(pairs), shown=progress):
        line, values = about.get(volume.name, (0, {}))
        if table and not values:
            problems.append(Problem(0, f"{volume.name} has no row in {table}"))
            continue
        try:
            found = mask_values(mask)
        except VolumeError as error:
            problems.append(Problem(line, str(error)))
            continue
        chosen = [value for value in found if names is None or str(value) in names]
        if not chosen:
            problems.append(Problem(line, f"the mask {mask.name} holds no lesion (values {found or 'none'})"))
        rows += [_row(len(rows) + 1, line, volume, mask, value, values, label, names) for value in chosen]
    problems += _unknown(rows, classes)
    refuse(folder.name, problems)
    warnings = () if about else ("Patients are not given: every CT counts as a patient of its own.",)
    order = classes if classes is not None else list(names.values()) if names and label == _VALUE else None
    return LesionTable(
        tuple(rows), class_order([r.label for r in rows], order), folder.name, credit or LICENCE, warnings
    )


def mask_values(path: Path) -> list[int]:
    """The label values above 0 in a mask file. Raises `VolumeError` for what is no label map."""
    try:
        array = read_label_map(path).array
    except BoxError as error:
        raise VolumeError(str(error)) from error
    if array.dtype.kind == "f" and (array % 1 != 0).any():
        msg = f"{path.name} is no mask: a 3-D map of whole numbers is needed."
        raise VolumeError(msg)
    values = [int(value) for value in np.unique(array) if value > 0]
    if len(values) > _MAX_LABELS:
        msg = f"{path.name} holds {len(values)} different values; that is a CT, not a mask."
        raise VolumeError(msg)
    return values


def _row(
    number: int, line: int, volume: Path, mask: Path, value: int, values: Mapping[str, str], label, names
) -> LesionRow:
    stem = _stem(volume)
    named = (names or {}).get(str(value), str(value))
    text = "" if label is None else named if label == _VALUE else values[label]
    others = {key: v for key, v in values.items() if key not in ("patient", "study", "series", "split", "fold", label)}
    return LesionRow(
        line or number, f"{stem}:{value}", values.get("patient") or stem, VolumeSource(volume, None, mask, value), text,
        study=values.get("study", ""), split=values.get("split", ""), fold=values.get("fold", ""),
        attributes={**others, "mask_value": str(value)},
    )  # fmt: skip


def _pairs(volumes: Path, masks: Path, source: str) -> list[tuple[Path, Path]]:
    """CT and mask of the same name, whatever their endings."""
    if not os.path.isdir(volumes) or not os.path.isdir(masks):
        raise one_problem(
            source, f"the folders {volumes.name} (CTs) and {masks.name} (masks of the same names) are needed"
        )
    of = {_stem(path): path for path in sorted(masks.iterdir()) if path.name.lower().endswith(_ENDINGS)}
    found = [path for path in sorted(volumes.iterdir()) if path.name.lower().endswith(_ENDINGS)]
    refuse(source, (Problem(0, f"{p.name} has no mask in {masks.name}") for p in found if _stem(p) not in of))
    if not found:
        raise one_problem(source, f"{volumes.name} holds no {', '.join(IMAGE_SUFFIXES)}")
    return [(path, of[_stem(path)]) for path in found]


def _about(table: Path, label: str | None) -> dict[str, tuple[int, dict[str, str]]]:
    header, rows = read_rows(table)
    needed = {"file", "patient"} | ({label} if label not in (None, _VALUE) else set())
    missing = sorted(needed - set(header))
    if missing:
        raise one_problem(table.name, f"the column(s) {', '.join(missing)} are missing", line=1)
    seen: dict[str, tuple[int, dict[str, str]]] = {}
    problems = []
    for line, values in rows:
        if values["file"] in seen:
            problems.append(Problem(line, f"{values['file']} stands in line {seen[values['file']][0]} already"))
        if not values["patient"]:
            problems.append(Problem(line, "the patient is empty"))
        seen[values["file"]] = (line, values)
    refuse(table.name, problems)
    return seen


def _unknown(rows: Sequence[LesionRow], classes: Sequence[str] | None) -> list[Problem]:
    if classes is None:
        return []
    wrong = [row for row in rows if row.label and row.label not in classes]
    return [Problem(r.line, f"the label {r.label!r} is none of the classes {', '.join(classes)}") for r in wrong]


def _stem(path: Path) -> str:
    name = path.name
    ending = next((e for e in _ENDINGS if name.lower().endswith(e)), "")
    return name[: len(name) - len(ending)]
