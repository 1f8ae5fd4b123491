"""Lung nodules cut from LIDC-IDRI: a folder with ``nodules.csv``, ``image/`` and ``mask/`` (NIfTI, HU)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from LesionLib.io.boxes import CaseRow, CaseTableError, read_case_table

from lesiontraining.data.lesions import LesionRow, LesionTable, class_order
from lesiontraining.data.messages import Problem, TableError, one_problem, refuse
from lesiontraining.data.sources import VolumeSource
from lesiontraining.data.splits import patientwise

LICENCE = (
    "LIDC-IDRI (The Cancer Imaging Archive, doi:10.7937/K9/TCIA.2015.LO9QL9SX; Armato et al. 2011), licence CC BY 3.0. "
    "Nodules cut out with readers' median ratings; folds after the LUNA16 subsets."
)
FOLD = "luna16_subset"
_PATIENT = "patient_id"
_RATINGS = ("malignancy", "texture", "spiculation", "lobulation", "margin", "sphericity", "subtlety")
_UNDECIDED = 3


def _malignant(row: CaseRow) -> str:
    return "malignant" if row.number("malignant") > 0 else "benign"


def _decided(row: CaseRow) -> str:
    """Readers' median against the undecided 3, as most papers on LIDC do; undecided nodules have no label."""
    rating = row.number("malignancy_1to5")
    return "" if rating == _UNDECIDED else "malignant" if rating > _UNDECIDED else "benign"


def _texture_class(row: CaseRow) -> str:
    rating = row.number("texture_1to5")
    return "ground glass" if rating <= 2 else "part-solid" if rating < 5 else "solid"


def _calcified(row: CaseRow) -> str:
    return "not calcified" if row.values.get("calcification", "").strip() in ("Absent", "") else "calcified"


def _rating(name: str) -> Callable[[CaseRow], str]:
    return lambda row: f"{row.number(f'{name}_1to5'):g}"


LABELS: dict[str, Callable[[CaseRow], str]] = {
    "malignant": _malignant,
    "malignant_decided": _decided,
    "texture_class": _texture_class,
    "calcified": _calcified,
    **{f"{name}_rating": _rating(name) for name in _RATINGS},
}
_ORDER = {"texture_class": ("ground glass", "part-solid", "solid")}


def read_nodule_set(
    path: Path, *, label: str | None = "malignant", classes: Sequence[str] | None = None
) -> LesionTable:
    """The nodules with one of `LABELS`; ``fold`` is the LUNA16 subset, every patient in one. Raises `TableError`.

    "malignant": at least two readers above 3; "malignant_decided": readers' median above or below 3, 3 has no label;
    "texture_class": ground glass, part-solid, solid; "calcified"; "malignancy_rating" and the other ratings, 1 to 5.
    """
    folder = Path(path)
    if label is not None and label not in LABELS:
        raise one_problem(str(folder), f"there is no label {label!r} of nodules; choose one of {', '.join(LABELS)}")
    try:
        cases = read_case_table(folder, columns=(_PATIENT, FOLD))
    except CaseTableError as error:
        raise one_problem(str(folder), str(error)) from error
    rows, problems = [], []
    for line, case in enumerate(cases, start=2):
        try:
            rows.append(_row(line, case, label))
        except CaseTableError as error:
            problems.append(Problem(line, str(error)))
    refuse(str(folder), problems)
    _check_classes(rows, classes, folder)
    rows, warnings = _one_fold_a_patient(rows)
    names = class_order([row.label for row in rows], classes or _ORDER.get(label or ""))
    return LesionTable(tuple(rows), names, folder.name, LICENCE, warnings)


def _row(line: int, case: CaseRow, label: str | None) -> LesionRow:
    patient = case.values[_PATIENT].strip()
    if not patient:
        msg = f"{case.where}: the patient is empty"
        raise CaseTableError(msg)
    return LesionRow(
        line=line,
        lesion_id=case.values["file"].removesuffix(".nii.gz").removesuffix(".nrrd"),
        patient=patient,
        source=VolumeSource(case.image_path, mask=case.mask_path),
        label="" if label is None else LABELS[label](case),
        fold=str(int(case.number(FOLD))),
        attributes={key: value for key, value in case.values.items() if key not in ("file", _PATIENT)},
    )


def _check_classes(rows: Sequence[LesionRow], classes: Sequence[str] | None, folder: Path) -> None:
    if classes is not None:
        wrong = sorted({row.label for row in rows if row.label} - set(classes))
        if wrong:
            raise TableError(folder.name, [Problem(0, f"labels {', '.join(wrong)} are none of the classes given")])


def _one_fold_a_patient(rows: list[LesionRow]) -> tuple[list[LesionRow], tuple[str, ...]]:
    """The published subsets are per series; a patient scanned twice can stand in two and goes whole to the lowest."""
    folds, moved = patientwise([int(row.fold) for row in rows], [row.patient for row in rows])
    if not moved:
        return rows, ()
    whole = [replace(row, fold=str(fold)) for row, fold in zip(rows, folds, strict=True)]
    lines = ", ".join(str(row.line) for row in rows if row.patient in moved)
    text = f"{len(moved)} patient(s) stood in two LUNA16 subsets and were moved whole into one (lines {lines})."
    return whole, (text,)
