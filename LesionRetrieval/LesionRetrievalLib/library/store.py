"""The case library: known lesions in one SQLite file, and exact search for the most similar ones."""

from __future__ import annotations

import operator
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from LesionLib.errors import CaseLibraryError

from .library_check import problems_of
from .library_codec import BOX_COLUMNS, PART_COLUMNS, box_row, part_rows
from .library_export import ExportPlan, export_library
from .library_file import connect, plain_errors, write_new
from .library_filter import SearchFilter
from .library_index import SearchIndex
from .library_patch import HuPatch
from .library_reading import LibraryReading
from .library_schema import (
    CASE_COLUMNS,
    Case,
    CaseEntry,
    IndexedModel,
    ModelIdentity,
    Neighbour,
    checked_date,
    checked_pictures,
    stored_vector,
    unit_vector,
)
from .packed_arrays import array_bytes

__all__ = ["Case", "CaseEntry", "CaseLibrary", "ExportPlan", "HuPatch", "IndexedModel", "ModelIdentity", "Neighbour"]


class CaseLibrary(LibraryReading):
    """Cases, their vectors by one or more models, pictures and HU patches, in one SQLite file.

    Make one by `create` or `open`. Use it in the thread that opened it, and as a context manager. Everything that goes
    wrong is a `CaseLibraryError`, and what was being written is then undone as a whole. Any number of readers and one
    writer may have the file open at once; a reader sees what was committed at its next call.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path, *, read_only: bool) -> None:
        super().__init__(connection, path)
        self.read_only = read_only
        self._index: SearchIndex | None = None

    @classmethod
    def create(cls, path: str | Path, *, model: ModelIdentity, dimension: int, overwrite: bool = False) -> CaseLibrary:
        """Make an empty library for vectors of ``dimension`` numbers from ``model``, opened for writing.

        An existing file is refused; with ``overwrite`` it is replaced, if it is a LesionLens library.
        """
        path = Path(path)
        row = _model_row(model, dimension)
        if os.path.exists(path):
            if not overwrite:
                msg = f"{path} exists; give another name, or ask for it to be overwritten."
                raise CaseLibraryError(msg)
            connect(path, "ro").close()
        write_new(path, lambda connection: connection.execute(_INSERT_MODEL, row))
        return cls.open(path, read_only=False)

    @classmethod
    def open(cls, path: str | Path, *, read_only: bool = True) -> CaseLibrary:
        """Open the library at ``path``. Read only leaves no trace: read-only folders and shares will do.

        A file of an older LesionLens is brought to the present form when opened to write; then only this version and
        later ones can read it.
        """
        path = Path(path)
        connection = connect(path, "ro" if read_only else "rw")
        try:
            return cls(connection, path, read_only=read_only)
        except BaseException:
            connection.close()
            raise

    def close(self) -> None:
        """Close the file; a transaction that is still open is undone. Closing twice is fine."""
        self._index = None
        with plain_errors(self.path):
            self._connection.close()

    def __enter__(self) -> CaseLibrary:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Keep all that is written inside, or nothing of it when an exception leaves. May be nested."""
        if self.read_only:
            msg = f"{self.path} was opened to read; open it with read_only=False to change it."
            raise CaseLibraryError(msg)
        outermost = not self._connection.in_transaction
        self._rows("BEGIN IMMEDIATE" if outermost else "SAVEPOINT inner")
        try:
            yield
            self._rows("COMMIT" if outermost else "RELEASE inner")
        except BaseException:
            # On some faults (a full disk) SQLite has undone everything itself already.
            if self._connection.in_transaction:
                for statement in ("ROLLBACK",) if outermost else ("ROLLBACK TO inner", "RELEASE inner"):
                    self._rows(statement)
            raise
        finally:
            self._index = None

    def add(
        self,
        case: Case,
        vector: Any,
        *,
        model_sha256: str,
        pictures: Mapping[str, np.ndarray] | None = None,
        patch: HuPatch | None = None,
        created: str | None = None,
    ) -> None:
        """Add one case; ``created``: its date where it comes from another library, else today.

        ``vector`` is (dimension,) real numbers from the model ``model_sha256``, of any length but zero: it is
        normalised here. ``pictures`` maps axial, coronal, sagittal to uint8 grey (height, width). ``patch``: the CT around
        the lesion, by `lesion_patch`; without it the case cannot be embedded again by another model.
        """
        self.require_model(model_sha256)
        if not isinstance(case, Case):
            msg = f"A {type(case).__name__} was given; give a Case."
            raise CaseLibraryError(msg)
        if patch is not None and not isinstance(patch, HuPatch):
            msg = f"The patch is a {type(patch).__name__}; make it by lesion_patch."
            raise CaseLibraryError(msg)
        blob = self._blob(vector, model_sha256)
        pictures = checked_pictures(pictures)
        with self.transaction():
            if self._rows("SELECT 1 FROM cases WHERE case_id = ?", (case.case_id,)):
                msg = f"Case {case.case_id!r} is in the library already; remove it first, or give another id."
                raise CaseLibraryError(msg)
            # A date without a time: the hour a case was entered could be matched with a hospital's logs.
            row = (*case.as_row(), checked_date(created) if created else datetime.now(UTC).date().isoformat())
            self._insert("cases", f"{', '.join(CASE_COLUMNS)}, created", row)
            self._insert("vectors", "case_id, model_sha256, vector", (case.case_id, model_sha256, blob))
            for plane, grey in pictures.items():
                values = (case.case_id, plane, *grey.shape, array_bytes(grey))
                self._insert("pictures", "case_id, plane, height, width, grey", values)
            if patch is not None:
                self._insert("patch_boxes", f"case_id, {BOX_COLUMNS}", (case.case_id, *box_row(patch)))
                for values in part_rows(patch):
                    self._insert("patches", f"case_id, {PART_COLUMNS}", (case.case_id, *values))

    def add_many(
        self, entries: Iterable[CaseEntry | tuple], *, model_sha256: str, created: Mapping[str, str] | None = None
    ) -> int:
        """Add (case, vector[, pictures[, patch]]) items in one transaction; returns how many. ``created``: dates by case id."""
        count = 0
        with self.transaction():
            for entry in entries:
                case, vector, pictures, patch = _entry(entry)
                date = (created or {}).get(case.case_id)
                self.add(case, vector, model_sha256=model_sha256, pictures=pictures, patch=patch, created=date)
                count += 1
        return count

    def remove(self, case_id: str) -> None:
        """Remove a case with its vectors, pictures and patch; their bytes in the file are overwritten."""
        with self.transaction():
            self._require_case(case_id)
            self._rows("DELETE FROM cases WHERE case_id = ?", (case_id,))

    def add_vector(self, case_id: str, vector: Any, *, model: ModelIdentity) -> None:
        """Add (or replace) the vector of a case by ``model``; for `reindex`.

        A model that is new to the library cannot be searched with before `finish_model`: a search of half the cases would
        look like one of all.
        """
        sha256 = model.sha256
        with self.transaction():
            self._require_case(case_id)
            if not self._rows("SELECT 1 FROM models WHERE sha256 = ?", (sha256,)):
                self._rows(_INSERT_MODEL, _model_row(model, np.size(vector)))
                self._rows("INSERT INTO unfinished_models (sha256) VALUES (?)", (sha256,))
            self._rows(
                "INSERT OR REPLACE INTO vectors (case_id, model_sha256, vector) VALUES (?, ?, ?)",
                (case_id, sha256, self._blob(vector, sha256)),
            )

    def add_vectors(self, vectors: Mapping[str, Any], *, model: ModelIdentity) -> None:
        """Add the vectors of several cases by ``model``, all or none, and let it be searched with."""
        with self.transaction():
            for case_id, vector in vectors.items():
                self.add_vector(case_id, vector, model=model)
            self.finish_model(model.sha256)

    def prefer_model(self, sha256: str) -> None:
        """Make a model that cases are embedded by the one the library goes by."""
        self.require_model(sha256)
        with self.transaction():
            self._rows("UPDATE models SET rowid = (SELECT max(rowid) + 1 FROM models) WHERE sha256 = ?", (sha256,))

    def finish_model(self, sha256: str) -> None:
        """Let a model be searched with, now that all cases that can be are embedded by it; for `reindex`."""
        with self.transaction():
            self._rows("DELETE FROM unfinished_models WHERE sha256 = ?", (sha256,))

    def search(self, vector: Any, *, k: int = 9, model_sha256: str, **filters: Any) -> list[Neighbour]:
        """Return the ``k`` most similar cases, best first; equal ones in the order of their case ids.

        Exact cosine over all cases; fewer than ``k`` come back where fewer are left. ``filters``: the fields of
        `SearchFilter`, as scope, exclude_patient, label or attributes.
        """
        self.require_model(model_sha256)
        wanted = SearchFilter(**filters)
        k = _whole(k, "k")
        index = self._fresh_index(model_sha256)
        query = unit_vector(vector, index.matrix.shape[1])
        return index.nearest(query, k, index.allowed(wanted))

    def integrity_problems(self) -> tuple[str, ...]:
        """Read the whole file; return what is wrong with it, one line each. Empty: all is well."""
        return problems_of(self, self._rows)

    def export(self, path: str | Path, plan: ExportPlan | None = None, *, overwrite: bool = False) -> int:
        """Write a copy for somebody else to ``path``, by default without pictures and patches; returns how many cases."""
        return export_library(self._connection, self.path, Path(path), plan or ExportPlan(), overwrite=overwrite)

    def _blob(self, vector: Any, sha256: str) -> bytes:
        return stored_vector(vector, self._dimension(sha256)).tobytes()

    def _insert(self, table: str, columns: str, values: tuple) -> None:
        marks = ", ".join("?" * len(values))
        self._rows(f"INSERT INTO {table} ({columns}) VALUES ({marks})", values)

    def _fresh_index(self, sha256: str) -> SearchIndex:
        # data_version moves when another connection has changed the file; own changes drop the index.
        version = self._rows("PRAGMA data_version")[0][0]
        index = self._index
        if index is None or index.data_version != version or index.model_sha256 != sha256:
            with plain_errors(self.path):
                index = SearchIndex.load(
                    self._connection, model_sha256=sha256, dimension=self._dimension(sha256), data_version=version
                )
            self._index = index
        return index


_INSERT_MODEL = "INSERT INTO models (sha256, name, version, dimension) VALUES (?, ?, ?, ?)"


def _model_row(model: ModelIdentity, dimension: int) -> tuple:
    if not isinstance(model, ModelIdentity):
        msg = f"The model is a {type(model).__name__}; give a ModelIdentity."
        raise CaseLibraryError(msg)
    return (model.sha256, model.name, model.version, _whole(dimension, "dimension", high=65536))


def _whole(value: object, name: str, *, high: int = 2**31) -> int:
    try:
        number = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = 0
    if not 1 <= number <= high:
        msg = f"{name} is {value!r}; give a whole number from 1 to {high}."
        raise CaseLibraryError(msg)
    return number


def _entry(entry: object) -> CaseEntry:
    try:
        return CaseEntry(*entry)
    except TypeError as error:
        msg = f"A {type(entry).__name__} was given; give (case, vector[, pictures[, patch]])."
        raise CaseLibraryError(msg) from error
