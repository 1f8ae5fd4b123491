"""A copy of a case library to give away: what is left out never enters the new file."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from LesionLib.errors import CaseLibraryError

from .library_file import connect, plain_errors, write_new

_FINISHED = "sha256 NOT IN (SELECT sha256 FROM unfinished_models)"
_CASE_COLUMNS = "case_id, label, label_source, organ, patient_hash, study_hash, attributes, note, created"
# Cases that only an unfinished model has embedded cannot be searched for: they stay behind.
_CASES = f"case_id IN (SELECT case_id FROM vectors JOIN models ON sha256 = model_sha256 WHERE {_FINISHED})"


@dataclass(frozen=True)
class ExportPlan:
    """What goes into a copy besides cases and vectors. ``notes`` are free text: read them before they leave the house."""

    pictures: bool = False
    patches: bool = False
    notes: bool = True


def export_library(
    source: sqlite3.Connection, source_path: Path, path: Path, plan: ExportPlan, *, overwrite: bool = False
) -> int:
    """Copy the library of ``source`` to ``path`` by ``plan``; returns how many cases. Raises `CaseLibraryError`.

    The hashes stay as they are; the key that made them is no part of a library, so whoever gets the copy cannot make
    them of a name. An existing file is refused; with ``overwrite`` it is replaced, if it is a LesionLens library.
    """
    if os.path.exists(path):
        if os.path.samefile(path, source_path):
            msg = f"{path} is the library itself; give the copy another name."
            raise CaseLibraryError(msg)
        if not overwrite:
            msg = f"{path} exists; give another name, or ask for it to be overwritten."
            raise CaseLibraryError(msg)
        connect(path, "ro").close()
    with plain_errors(source_path):
        source.execute("BEGIN")  # one snapshot, whatever a writer does meanwhile
    try:
        write_new(path, lambda target: _copy(source, target, plan))
        with plain_errors(source_path):
            return source.execute(f"SELECT count(*) FROM cases WHERE {_CASES}").fetchone()[0]
    finally:
        with plain_errors(source_path):
            source.execute("ROLLBACK")


def _copy(source: sqlite3.Connection, target: sqlite3.Connection, plan: ExportPlan) -> None:
    _copy_table(source, target, "models", "sha256, name, version, dimension", where=_FINISHED)
    _copy_table(source, target, "cases", _CASE_COLUMNS, where=_CASES, blank=() if plan.notes else ("note",))
    finished = f"model_sha256 IN (SELECT sha256 FROM models WHERE {_FINISHED})"
    _copy_table(source, target, "vectors", "case_id, model_sha256, vector", where=finished)
    if plan.pictures:
        _copy_table(source, target, "pictures", "case_id, plane, height, width, grey", where=_CASES)
    if plan.patches:
        _copy_table(source, target, "patch_boxes", "case_id, center_ras, size_mm, axes_ras, open_faces", where=_CASES)
        columns = "case_id, part, slices, height, width, dtype, ijk_to_ras, zlib"
        _copy_table(source, target, "patches", columns, where=_CASES)


def _copy_table(
    source: sqlite3.Connection,
    target: sqlite3.Connection,
    table: str,
    columns: str,
    *,
    where: str,
    blank: tuple[str, ...] = (),
) -> None:
    names = columns.split(", ")
    chosen = ", ".join("''" if name in blank else name for name in names)
    marks = ", ".join("?" * len(names))
    with closing(source.execute(f"SELECT {chosen} FROM {table} WHERE {where} ORDER BY rowid")) as rows:
        target.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", rows)
