"""Cases as rows for the server, all of them checked before any is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from LesionLib.errors import CaseLibraryError

from .library_patch import HuPatch
from .library_schema import (
    CASE_COLUMNS,
    Case,
    CaseEntry,
    IndexedModel,
    checked_date,
    checked_pictures,
    stored_vector,
)
from .milvus_records import pieces_of_case
from .milvus_rows import bites
from .milvus_schema import FILTER_FIELDS, TEXT_BYTES, row_without_vector

MOST_CASES_AT_ONCE = 2_000


@dataclass(frozen=True)
class CaseRows:
    """What goes into each of a library's collections; ``cases`` last, in one message."""

    cases: list[dict[str, Any]] = field(default_factory=list)
    vectors: list[dict[str, Any]] = field(default_factory=list)
    pieces: list[dict[str, Any]] = field(default_factory=list)


def rows_of(entries: Iterable[CaseEntry | tuple], model: IndexedModel, created: Mapping[str, str]) -> CaseRows:
    """The rows of up to 2,000 cases; ``created``: dates by case id, for others it is today. Raises `CaseLibraryError`."""
    rows, today = CaseRows(), datetime.now(UTC).date().isoformat()
    for item in entries:
        entry = _checked(item)
        case_id = entry.case.case_id
        fields = dict(zip(CASE_COLUMNS, entry.case.as_row(), strict=True))
        if len(fields["attributes"].encode()) > TEXT_BYTES:
            msg = f"The attributes of case {case_id!r} are longer than the {TEXT_BYTES} bytes that a server takes; leave some out."
            raise CaseLibraryError(msg)
        date = checked_date(created[case_id]) if created.get(case_id) else today
        vector = stored_vector(entry.vector, model.dimension).tolist()
        pieces = pieces_of_case(case_id, checked_pictures(entry.pictures), entry.patch)
        rows.cases.append(row_without_vector({**fields, "created": date, "pieces": len(pieces)}))
        rows.vectors.append({"case_id": case_id, **{name: fields[name] for name in FILTER_FIELDS}, "vector": vector})
        rows.pieces.extend(pieces)
    # One message is written as a whole, several are not.
    if len(rows.cases) > MOST_CASES_AT_ONCE or len(bites(rows.cases)) > 1:
        msg = f"{len(rows.cases)} cases at once are too many for the server; give fewer, at most {MOST_CASES_AT_ONCE}."
        raise CaseLibraryError(msg)
    return rows


def _checked(item: object) -> CaseEntry:
    try:
        entry = CaseEntry(*item)
    except TypeError as error:
        msg = f"A {type(item).__name__} was given; give (case, vector[, pictures[, patch]])."
        raise CaseLibraryError(msg) from error
    if not isinstance(entry.case, Case):
        msg = f"A {type(entry.case).__name__} was given; give a Case."
        raise CaseLibraryError(msg)
    if entry.patch is not None and not isinstance(entry.patch, HuPatch):
        msg = f"The patch is a {type(entry.patch).__name__}; make it by lesion_patch."
        raise CaseLibraryError(msg)
    return entry
