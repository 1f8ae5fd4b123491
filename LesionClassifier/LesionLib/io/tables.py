"""Tables as spreadsheets leave and take them: what is in the way of reading one, classes that are one class written twice, and cells
that are text to a spreadsheet, never a formula.
"""

from __future__ import annotations

import csv
import io
import math
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from LesionLib.errors import LesionLensError

_T = TypeVar("_T")
_MISSING = {"na", "n/a", "#n/a", "nan", "none", "null", "nil", "?", "-", "--", "."}
# What a spreadsheet begins a formula with, also in full width, and what it skips before one.
_BEGINS_A_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


class TableTextError(LesionLensError):
    """A file is not the text of a table; the message says what to save it as."""


def table_text(path: Path) -> str:
    """The text of a CSV file in UTF-8. Raises `TableTextError` with what the file is instead."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        msg = f"it cannot be read ({error.strerror})"
        raise TableTextError(msg) from error
    except ValueError as error:
        msg = "no file can have this name"
        raise TableTextError(msg) from error
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        msg = "it is UTF-16 (a spreadsheet's 'Unicode text'); save it as 'CSV UTF-8'"
        raise TableTextError(msg)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        msg = "it is not UTF-8; in the spreadsheet save it as 'CSV UTF-8'"
        raise TableTextError(msg) from error


def spreadsheet_hint(text: str) -> str:
    """What a spreadsheet has done to the first line of a CSV text, and what to do; "" where nothing is recognised."""
    first = next(iter(text.lstrip("\ufeff").splitlines()), "")
    if first.lower().startswith("sep="):
        return "the line 'sep=' of a spreadsheet stands before the header: delete it, and separate values by commas"
    if ";" in first and "," not in first:
        return "values are separated by semicolons: save it with commas, and write decimals with a point"
    if "\t" in first and "," not in first:
        return "values are separated by tabs: save it as CSV with commas"
    if first.startswith("#"):
        return "a remark stands before the header: delete it"
    return ""


def number_hint(text: str) -> str:
    """What is odd about a cell that should be a number; "" where nothing is recognised."""
    if "," in text:
        return " with a decimal point, not a comma"
    if "\u2212" in text:
        return " with the minus sign of the keyboard"
    return ""


def parsed_table(text: str) -> tuple[tuple[str, ...], list[tuple[int, dict[str, str]]]]:
    """Column names and rows of a CSV text, each row with the line where it ends; cells without the space around them.

    Columns without name and value, and rows without a value, are left out; a short row is filled up with "". Raises
    `LesionLensError` for columns of one name, and for a row with more values than columns.
    """
    reader = csv.reader(io.StringIO(text, newline=""))
    rows = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    header = rows[0][1] if rows else []
    while header and not header[-1]:
        header.pop()
    doubled = sorted({name for name in header if name and header.count(name) > 1})
    if doubled:
        msg = f"line 1: the column(s) {', '.join(map(repr, doubled))} stand twice in the header"
        raise LesionLensError(msg)
    found = []
    for line, cells in rows[1:]:
        if not any(cells):
            continue
        more = [(place, cell) for place, cell in enumerate(cells[len(header) :], start=len(header) + 1) if cell]
        if more:
            place, cell = more[0]
            msg = (
                f"line {line}: a value {cell[:40]!r} in column {place}, and the header has {len(header)} columns; quote values "
                "that hold a comma"
            )
            raise LesionLensError(msg)
        filled = cells[: len(header)] + [""] * (len(header) - len(cells))
        found.append((line, dict(zip(header, filled, strict=True))))
    return tuple(header), found


def doubtful_labels(labels: Iterable[tuple[int, str]]) -> list[tuple[int, str]]:
    """What is wrong with labels, given with their lines: words for "missing", and one class in two spellings.

    Returns (line, text), one for each spelling, at its first line. Two spellings are one class where they differ in capitals,
    spaces or the encoding of an accent, or are the same number.
    """
    first: dict[str, int] = {}
    for line, label in labels:
        first.setdefault(label, line)
    found = []
    spelling: dict[object, str] = {}
    for label, line in first.items():
        if not label:
            continue
        if label.casefold() in _MISSING:
            text = f"the label {label!r} reads like a missing value; leave the cell empty, or give the class a name"
            found.append((line, text))
            continue
        other = spelling.setdefault(_key(label), label)
        if other != label:
            text = f"the labels {label!r} and {other!r} (line {first[other]}) look like one class; write it in one way"
            found.append((line, text))
    return found


def _key(label: str) -> object:
    try:
        number = float(label)
    except ValueError:
        number = math.nan
    if math.isfinite(number):
        return number
    return " ".join(unicodedata.normalize("NFKC", label).casefold().split())


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
