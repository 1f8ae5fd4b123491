"""Whether a case library is whole: every page, row, vector, picture and patch is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from LesionLib.errors import CaseLibraryError

if TYPE_CHECKING:
    from .library_reading import LibraryReading

Rows = Callable[..., list[tuple]]

_CHECKS = {
    "SELECT * FROM pragma_integrity_check WHERE integrity_check != 'ok'": "{}",
    "PRAGMA foreign_key_check": "table {}: a row points nowhere",
    "SELECT case_id FROM cases EXCEPT SELECT case_id FROM vectors": "case {}: it has no vector",
    """SELECT case_id FROM pictures WHERE typeof(grey) != 'blob' OR length(grey) != height * width""":
        "case {}: a picture of it is damaged",
    "SELECT case_id FROM patches EXCEPT SELECT case_id FROM patch_boxes": "case {}: its HU patch lacks the box",
}  # fmt: skip


def problems_of(library: LibraryReading, rows: Rows) -> tuple[str, ...]:
    """What is wrong, one line each; empty: all is well. ``rows`` runs a statement on the library's file."""
    problems: list[str] = []
    for statement, text in _CHECKS.items():
        try:
            problems += [text.format(row[0]) for row in rows(statement)]
        except CaseLibraryError as error:  # too damaged to be read to its end
            problems.append(str(error))
    for check in (_vectors, _cases, _patches):
        try:
            problems += check(library, rows)
        except CaseLibraryError as error:
            problems.append(str(error))
    return tuple(dict.fromkeys(problems))


def _vectors(_library: LibraryReading, rows: Rows) -> Iterator[str]:
    # One at a time: a library may be larger than memory.
    one = "SELECT vector, dimension FROM vectors JOIN models ON sha256 = model_sha256 WHERE case_id = ? AND sha256 = ?"
    for case_id, sha256 in rows("SELECT case_id, model_sha256 FROM vectors ORDER BY case_id"):
        found = rows(one, (case_id, sha256))
        if found and not _is_unit(*found[0]):
            yield f"case {case_id}: its vector is damaged"


def _is_unit(blob: object, dimension: int) -> bool:
    if not isinstance(blob, bytes) or len(blob) != 4 * dimension:
        return False
    return abs(float(np.linalg.norm(np.frombuffer(blob, "<f4").astype(float))) - 1.0) < 1e-3


def _cases(library: LibraryReading, rows: Rows) -> Iterator[str]:
    for (case_id,) in rows("SELECT case_id FROM cases ORDER BY case_id"):
        try:
            library.case(case_id)
        except CaseLibraryError as error:
            yield f"case {case_id}: {error}"


def _patches(library: LibraryReading, rows: Rows) -> Iterator[str]:
    for (case_id,) in rows("SELECT case_id FROM patch_boxes ORDER BY case_id"):
        try:
            library.patch(case_id)
        except CaseLibraryError as error:
            yield str(error)
