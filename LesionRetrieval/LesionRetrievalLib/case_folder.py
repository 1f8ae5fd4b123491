"""What a folder of known lesions says of each: the answer, whose it is, and which of its columns may be kept."""

from __future__ import annotations

import re
from collections.abc import Sequence

from LesionLib.case_table import CaseRow, CaseTableError

from .library_schema import Scalar

LABEL_COLUMNS = ("label", "malignant")
PATIENT_COLUMN = "patient_id"
# Columns that name somebody or something, or belong to an evaluation and not to the lesion.
_LEFT_OUT = re.compile(r"file|.*(patient|study|series|uid|subset|fold|split).*")
_LONGEST_TEXT = 200


def label_column(row: CaseRow, wanted: str | None) -> str:
    """The column with the answers: ``wanted``, or the first of `LABEL_COLUMNS` that is there. Raises `CaseTableError`."""
    names = (wanted,) if wanted else LABEL_COLUMNS
    for name in names:
        if name in row.values:
            return name
    msg = f"{row.where}: there is no column {' or '.join(names)}; name the one with the answers by --label-column."
    raise CaseTableError(msg)


def label_of(row: CaseRow, column: str, class_names: Sequence[str]) -> str:
    """The answer: a class number becomes the model's class name, a name stays."""
    value = row.values[column]
    is_number = value.isdecimal() and int(value) < len(class_names)
    return class_names[int(value)] if is_number else value


def attributes_of(row: CaseRow, column: str) -> dict[str, Scalar]:
    """What the table says besides: numbers as float, texts cut to 200 characters, nothing that names anybody."""
    kept: dict[str, Scalar] = {}
    for name, value in row.values.items():
        if name == column or not value or _LEFT_OUT.fullmatch(name.lower()):
            continue
        try:
            kept[name] = float(value)
        except ValueError:
            kept[name] = value[:_LONGEST_TEXT]
    return kept
