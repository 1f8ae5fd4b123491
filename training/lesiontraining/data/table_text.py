"""A CSV or parquet file as rows of text, each with its line number."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from .problems import Problem, one_problem, refuse

PARQUET_SUFFIXES = (".parquet", ".pq")
_MOST_ROWS = 5_000_000
Rows = list[tuple[int, dict[str, str]]]


def read_rows(path: Path) -> tuple[tuple[str, ...], Rows]:
    """The columns and the rows of a table by its ending. Raises `TableError`."""
    if not path.is_file():
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
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise one_problem(path.name, "the file is not text in UTF-8; save the table as CSV in UTF-8") from error


def _parquet(path: Path) -> tuple[tuple[str, ...], Rows]:
    """Rows count from 2, so that a line means the same as in the CSV of the same table."""
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            if file.metadata.num_rows > _MOST_ROWS:
                raise one_problem(path.name, f"{file.metadata.num_rows} rows; at most {_MOST_ROWS} are read")
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
