"""Cells of a CSV as a spreadsheet will take them: what somebody typed is text there, never a formula."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import TypeVar

_T = TypeVar("_T")
# What a spreadsheet begins a formula with, also in full width, and what it skips before one.
_BEGINS_A_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def csv_cell(value: _T) -> _T | str:
    """``value``, with an apostrophe before a text that a spreadsheet would compute; numbers stay as they are."""
    if not isinstance(value, str) or not value.lstrip(" ").startswith(_BEGINS_A_FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """The rows as CSV, header first, every cell as `csv_cell` gives it."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(map(csv_cell, row) for row in rows)
    return text.getvalue()
