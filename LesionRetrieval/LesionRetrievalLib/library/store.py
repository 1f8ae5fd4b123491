"""The case library: known lesions in one SQLite file, and exact search for the most similar ones."""

from __future__ import annotations

import math
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from LesionLib.errors import CaseLibraryError
from LesionLib.metric import COSINE

from LesionRetrievalLib.library.arrays import array_bytes, array_from_bytes
from LesionRetrievalLib.library.cases import (
    ADDED,
    CASE_COLUMNS,
    MAX_DIMENSION,
    PLANES,
    REINDEXED,
    REMOVED,
    Case,
    CaseEntry,
    Change,
    IndexedModel,
    ModelIdentity,
    Neighbour,
    case_of,
    changed_fields,
    checked_case_id,
    checked_code,
    checked_date,
    checked_thumbnails,
    damaged,
    is_dimension,
    is_picture_shape,
    loaded_vector,
    stored_vector,
    unit_vector,
    whole_number,
)
from LesionRetrievalLib.library.file import (
    INSERT_PROPERTY,
    ExportPlan,
    connect,
    export_library,
    model_statements,
    models_statement,
    plain_errors,
    problems_of,
    write_new,
)
from LesionRetrievalLib.library.patches import (
    BOX_COLUMNS,
    PART_COLUMNS,
    HuPatch,
    box_row,
    decoded_patch,
    part_rows,
)
from LesionRetrievalLib.library.search.exact import SearchIndex
from LesionRetrievalLib.library.search.filters import SearchFilter
from LesionRetrievalLib.library.search.rounded import (
    MIN_VECTORS_IN_A_FILE,
    RoundedIndex,
    RoundedVectorsError,
    vector_file_of,
    write_vector_file,
)

_COLUMNS = ", ".join(CASE_COLUMNS)
_BOX_VALUES = len(BOX_COLUMNS.split(","))


class LibraryReading:
    """What can be asked of a case library without changing it, search aside: a half of `CaseLibrary`, which opens the file."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self.path = path
        self._connection = connection
        self._schema = self._rows("PRAGMA user_version")[0][0]
        with plain_errors(path):
            self._models = models_statement(connection)

    def __len__(self) -> int:
        return self._rows("SELECT count(*) FROM cases")[0][0]

    def __bool__(self) -> bool:
        return True  # an empty library is still a library

    @property
    def model(self) -> ModelIdentity:
        """The model whose vectors the library holds; of several, the one it was last indexed with to the end."""
        rows = self._model_rows()
        finished = [row for row in rows if not row[4]] or rows
        return _identity(finished[-1])

    @property
    def dimension(self) -> int:
        """How many numbers a vector of `model` has."""
        return self._dimension(self.model.sha256)

    def models(self) -> list[IndexedModel]:
        """Return every model the library was indexed with, in that order."""
        count = "SELECT count(*) FROM vectors WHERE model_sha256 = ?"
        return [
            IndexedModel(_identity(row), row[3], self._rows(count, (row[2],))[0][0], bool(row[4]))
            for row in self._model_rows()
        ]

    def require_model(self, sha256: str) -> ModelIdentity:
        """Return the model ``sha256``; `CaseLibraryError` naming it and the library's if it cannot be searched with."""
        rows = self._model_rows()
        found = {row[2]: row for row in rows}.get(sha256)
        if found is None:
            known = " and ".join(str(ModelIdentity(*row[:3])) for row in rows)
            msg = (
                f"This library was made with {known}, not with the model sha256 {str(sha256)[:12]}…; "
                "search with that model, reindex the library with this one, or build the library again."
            )
            raise CaseLibraryError(msg)
        model = _identity(found)
        if found[4]:
            msg = f"Indexing this library with {model} was not finished; run the reindex again, it goes on where it stopped."
            raise CaseLibraryError(msg)
        return model

    def case(self, case_id: str) -> Case:
        rows = self._rows(f"SELECT {_COLUMNS} FROM cases WHERE case_id = ?", (checked_case_id(case_id),))
        if not rows:
            raise _unknown(case_id)
        return case_of(rows[0])

    def cases(self) -> list[Case]:
        """Return all cases, ordered by case id."""
        rows = self._rows(f"SELECT {_COLUMNS} FROM cases ORDER BY case_id")
        return [case_of(row) for row in rows]

    def created(self) -> dict[str, str]:
        """Return the date on which each case was entered, by case id."""
        return dict(self._rows("SELECT case_id, created FROM cases ORDER BY case_id"))

    def labels(self) -> dict[str, int]:
        """Return how many cases there are of each label, ordered by label."""
        rows = self._rows("SELECT label, count(*), min(case_id) FROM cases GROUP BY label ORDER BY label")
        for label, _, case_id in rows:
            if not isinstance(label, str):
                raise damaged(case_id, "label is no text")
        return {label: count for label, count, _ in rows}

    def thumbnails(self, case_id: str) -> dict[str, np.ndarray]:
        """Return the case's pictures, plane to uint8 grey (height, width); empty if it has none."""
        self._require_case(case_id)
        rows = self._rows(
            "SELECT plane, height, width, grey FROM pictures WHERE case_id = ? ORDER BY plane", (case_id,)
        )
        for plane, *shape, grey in rows:
            is_whole = plane in PLANES and is_picture_shape(shape) and isinstance(grey, bytes)
            if not is_whole or len(grey) != math.prod(shape):
                raise damaged(case_id, "a picture of it is damaged")
        return {plane: array_from_bytes(grey, dtype="uint8", shape=(h, w)) for plane, h, w, grey in rows}

    def patch(self, case_id: str) -> HuPatch | None:
        """Return the CT around the case's lesion, with its box; None if the library holds none."""
        self._require_case(case_id)
        # One statement is one snapshot: the case can't be removed between the box and its parts.
        columns = f"{BOX_COLUMNS}, {PART_COLUMNS}"
        rows = self._rows(
            f"SELECT {columns} FROM patch_boxes LEFT JOIN patches USING (case_id) WHERE case_id = ?", (case_id,)
        )
        return decoded_patch(case_id, rows[0][:_BOX_VALUES], [row[_BOX_VALUES:] for row in rows]) if rows else None

    def thumbnails_of(self, case_ids: Sequence[str]) -> dict[str, dict[str, np.ndarray]]:
        """The pictures of several cases, by case id: in a file, one after the other costs next to nothing."""
        return {case_id: self.thumbnails(case_id) for case_id in case_ids}

    def patches_of(self, case_ids: Sequence[str]) -> dict[str, HuPatch | None]:
        """The CTs around the lesions of several cases, by case id."""
        return {case_id: self.patch(case_id) for case_id in case_ids}

    def vector(self, case_id: str, *, model_sha256: str) -> np.ndarray:
        """Return the case's vector by one model, float32 (dimension,), length 1."""
        self.require_model(model_sha256)
        self._require_case(case_id)
        rows = self._rows("SELECT vector FROM vectors WHERE case_id = ? AND model_sha256 = ?", (case_id, model_sha256))
        if not rows:
            msg = f"Case {case_id!r} was never embedded by this model; reindex the library with it."
            raise CaseLibraryError(msg)
        return loaded_vector(case_id, rows[0][0], self._dimension(model_sha256))

    def properties(self) -> dict[str, str]:
        """Return what is noted of the library as a whole, by name."""
        rows = self._rows("SELECT name, value FROM properties ORDER BY name")
        return {name: value for name, value in rows if isinstance(name, str) and isinstance(value, str)}

    def changes(self, case_id: str | None = None) -> list[Change]:
        """What was done to a case ("": to the library as a whole), or to all of it, in the order of time."""
        where, given = ("", ()) if case_id is None else (" WHERE case_id = ?", (case_id,))
        rows = self._rows(f"SELECT case_id, at, who, what FROM changes{where} ORDER BY at, number", given)
        return [Change(*row) for row in rows]

    def ids_without_vector(self, model_sha256: str) -> list[str]:
        """Return the ids of the cases that a search with this model cannot find, in order."""
        statement = "SELECT case_id FROM cases EXCEPT SELECT case_id FROM vectors WHERE model_sha256 = ? ORDER BY 1"
        return [case_id for (case_id,) in self._rows(statement, (model_sha256,))]

    def vectors(self, case_ids: Sequence[str], *, model_sha256: str) -> dict[str, np.ndarray]:
        """Return those of these cases' vectors by one model that there are, float32, by case id."""
        found = {}
        for case_id in case_ids:
            rows = self._rows(
                "SELECT vector FROM vectors WHERE case_id = ? AND model_sha256 = ?", (case_id, model_sha256)
            )
            if rows:
                found[case_id] = loaded_vector(case_id, rows[0][0], self._dimension(model_sha256))
        return found

    def contents(self) -> dict[str, tuple[str, ...]]:
        """Return for every case, in order of ids, which of ``thumbnails`` and ``patch`` it has."""
        statement = """SELECT case_id, case_id IN (SELECT case_id FROM pictures), case_id IN (SELECT case_id FROM patch_boxes)
            FROM cases ORDER BY case_id"""
        kinds = ("pictures", "patch")
        return {
            case_id: tuple(kind for kind, has in zip(kinds, present, strict=True) if has)
            for case_id, *present in self._rows(statement)
        }

    def _dimension(self, sha256: str) -> int:
        return next(row[3] for row in self._model_rows() if row[2] == sha256)

    def _model_rows(self) -> list[tuple]:
        # An older file is read through empty tables in memory: they would hide what a newer writer put there since.
        if self._rows("PRAGMA user_version")[0][0] != self._schema:
            msg = f"{self.path} was brought to a newer form meanwhile; open it again."
            raise CaseLibraryError(msg)
        rows = self._rows(self._models)
        if not all(is_dimension(row[3]) and isinstance(row[5], float | int | None) for row in rows):
            msg = f"{self.path}: what it says of its models is damaged; restore it from a copy."
            raise CaseLibraryError(msg)
        return rows

    def _require_case(self, case_id: str) -> None:
        if not self._rows("SELECT 1 FROM cases WHERE case_id = ?", (checked_case_id(case_id),)):
            raise _unknown(case_id)

    def _rows(self, statement: str, parameters: tuple = ()) -> list[tuple]:
        with plain_errors(self.path):
            return self._connection.execute(statement, parameters).fetchall()


def _unknown(case_id: str) -> CaseLibraryError:
    return CaseLibraryError(f"Case {case_id!r} is not in this library; cases() lists what is.")


class CaseLibrary(LibraryReading):
    """Cases, their vectors by one or more models, pictures and HU patches, in one SQLite file.

    Make one by `create` or `open`. Use it in the thread that opened it, and as a context manager. Everything that goes
    wrong is a `CaseLibraryError`, and what was being written is then undone as a whole. Any number of readers and one
    writer may have the file open at once; a reader sees what was committed at its next call.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path, *, read_only: bool) -> None:
        super().__init__(connection, path)
        self.read_only = read_only
        self._index: SearchIndex | RoundedIndex | None = None
        self._was_written, self._takes_rounded = False, True

    @classmethod
    def create(cls, path: str | Path, *, model: ModelIdentity, dimension: int, overwrite: bool = False) -> CaseLibrary:
        """Make an empty library for vectors of ``dimension`` numbers from ``model``, opened for writing.

        An existing file is refused; with ``overwrite`` it is replaced, if it is a LesionLens library.
        """
        path = Path(path)
        insert = _inserting(model, dimension)
        if os.path.exists(path):
            if not overwrite:
                msg = f"{path} exists; give another name, or ask for it to be overwritten."
                raise CaseLibraryError(msg)
            connect(path, "ro").close()
        write_new(path, lambda connection: [connection.execute(*statement) for statement in insert])
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
        if self._was_written:
            self._was_written = False
            with suppress(CaseLibraryError, OSError):
                self._keep_vectors()
        with plain_errors(self.path):
            self._connection.close()

    def _keep_vectors(self) -> None:
        """The rounded vectors of a large library, in a file beside it, by the model that it goes by."""
        finished = [row for row in self._model_rows() if not row[4]]
        if not finished or _identity(finished[-1]).metric != COSINE or self._connection.in_transaction:
            return
        sha256, dimension = finished[-1][2:4]
        count = self._rows("SELECT count(*) FROM vectors WHERE model_sha256 = ?", (sha256,))[0][0]
        if count >= MIN_VECTORS_IN_A_FILE:
            with plain_errors(self.path):
                write_vector_file(self._connection, self.path, model_sha256=sha256, dimension=dimension)

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
            if outermost:
                self._index, self._was_written = None, True
                with suppress(OSError):  # of another state now, and what was removed is to be gone
                    vector_file_of(self.path).unlink(missing_ok=True)
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
        thumbnails: Mapping[str, np.ndarray] | None = None,
        patch: HuPatch | None = None,
        created: str | None = None,
        by: str | None = "",
    ) -> None:
        """Add one case; ``created``: its date where it comes from another library, else today.

        ``by``: the code of who adds it, kept with the time; None: not kept, for its history comes along.
        ``vector`` is (dimension,) real numbers from the model ``model_sha256``, of any length but zero: it is
        normalised here. ``thumbnails`` maps axial, coronal, sagittal to uint8 grey (height, width). ``patch``: the CT around
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
        thumbnails = checked_thumbnails(thumbnails)
        with self.transaction():
            if self._rows("SELECT 1 FROM cases WHERE case_id = ?", (case.case_id,)):
                msg = f"Case {case.case_id!r} is in the library already; remove it first, or give another id."
                raise CaseLibraryError(msg)
            # A date without a time: the hour could be matched with a hospital's logs. It is kept apart, among the changes,
            # which no copy to give away has.
            row = (*case.as_row(), checked_date(created) if created else datetime.now(UTC).date().isoformat())
            self._insert("cases", f"{', '.join(CASE_COLUMNS)}, created", row)
            self._insert("vectors", "case_id, model_sha256, vector", (case.case_id, model_sha256, blob))
            for plane, grey in thumbnails.items():
                values = (case.case_id, plane, *grey.shape, array_bytes(grey))
                self._insert("pictures", "case_id, plane, height, width, grey", values)
            if patch is not None:
                self._insert("patch_boxes", f"case_id, {BOX_COLUMNS}", (case.case_id, *box_row(patch)))
                for values in part_rows(patch):
                    self._insert("patches", f"case_id, {PART_COLUMNS}", (case.case_id, *values))
            if by is not None:
                self._note(Change.now(case.case_id, by, ADDED))

    def add_many(
        self,
        entries: Iterable[CaseEntry | tuple],
        *,
        model_sha256: str,
        created: Mapping[str, str] | None = None,
        by: str | None = "",
    ) -> int:
        """Add (case, vector[, pictures[, patch]]) items in one transaction; returns how many. ``created``: dates by case id."""
        count = 0
        with self.transaction():
            for entry in entries:
                case, vector, thumbnails, patch = _entry(entry)
                date = (created or {}).get(case.case_id)
                self.add(
                    case, vector, model_sha256=model_sha256, thumbnails=thumbnails, patch=patch, created=date, by=by
                )
                count += 1
        return count

    def update(self, case: Case, *, by: str = "") -> str:
        """Put other texts and attributes in the place of a case's; which they are, as `changed_fields` says it.

        Its vectors, pictures, patch and date stay. What was there before is overwritten in the file.
        """
        checked_code(by)
        with self.transaction():
            changed = changed_fields(self.case(case.case_id), case)
            if changed:
                names = CASE_COLUMNS[1:]
                places = ", ".join(f"{name} = ?" for name in names)
                self._rows(f"UPDATE cases SET {places} WHERE case_id = ?", (*case.as_row()[1:], case.case_id))
                self._note(Change.now(case.case_id, by, changed))
        return changed

    def remove(self, case_id: str, *, by: str | None = "") -> None:
        """Remove a case with its vectors, pictures and patch; their bytes in the file are overwritten."""
        with self.transaction():
            self._require_case(case_id)
            self._rows("DELETE FROM cases WHERE case_id = ?", (case_id,))
            if by is not None:
                self._note(Change.now(case_id, by, REMOVED))

    def remove_many(self, case_ids: Sequence[str], *, by: str = "") -> None:
        """Remove several cases, all or none."""
        with self.transaction():
            for case_id in case_ids:
                self.remove(case_id, by=by)

    def note_changes(self, changes: Iterable[Change]) -> None:
        """Keep what was done to cases where they were before; what is kept already is not kept twice."""
        with self.transaction():
            for change in changes:
                self._note(change)

    def _note(self, change: Change) -> None:
        values = (change.case_id, change.at, change.by, change.what)
        self._rows("INSERT OR IGNORE INTO changes (case_id, at, who, what) VALUES (?, ?, ?, ?)", values)

    def add_vector(self, case_id: str, vector: Any, *, model: ModelIdentity) -> None:
        """Add (or replace) the vector of a case by ``model``; for `reindex`.

        A model that is new to the library cannot be searched with before `finish_model`: a search of half the cases would
        look like one of all.
        """
        sha256 = model.sha256
        with self.transaction():
            self._require_case(case_id)
            if not self._rows("SELECT 1 FROM models WHERE sha256 = ?", (sha256,)):
                for statement in _inserting(model, np.size(vector)):
                    self._rows(*statement)
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

    def finish_model(self, sha256: str, *, by: str | None = None) -> None:
        """Let a model be searched with, now that all cases that can be are embedded by it; for `reindex`.

        ``by``: the code of who reindexed, kept with the time; None: not kept.
        """
        with self.transaction():
            self._rows("DELETE FROM unfinished_models WHERE sha256 = ?", (sha256,))
            if by is not None:
                self._note(Change.now("", by, f"{REINDEXED}{self.require_model(sha256)}"))

    def set_property(self, name: str, value: str) -> None:
        """Note something of the library as a whole, in the place of what was noted under that name."""
        with self.transaction():
            self._rows(INSERT_PROPERTY, (name, value))

    def remove_property(self, name: str) -> None:
        """Take out what was noted under that name, if anything was."""
        with self.transaction():
            self._rows("DELETE FROM properties WHERE name = ?", (name,))

    def search(self, vector: Any, *, k: int = 9, model_sha256: str, **filters: Any) -> list[Neighbour]:
        """Return the ``k`` most similar cases, best first; equal ones in the order of their case ids.

        Exact over all cases, by the metric of the model; fewer than ``k`` come back where fewer are left. ``filters``: the fields of
        `SearchFilter`, as scope, exclude_patient, label or attributes.
        """
        metric = self.require_model(model_sha256).metric
        wanted = SearchFilter(**filters)
        k = whole_number(k, "k")
        try:
            return self._found(vector, k, wanted, model_sha256, metric)
        except RoundedVectorsError:
            self._index, self._takes_rounded = None, False
            return self._found(vector, k, wanted, model_sha256, metric)

    def _found(self, vector: Any, k: int, wanted: SearchFilter, sha256: str, metric: str) -> list[Neighbour]:
        index = self._fresh_index(sha256, takes_rounded=self._takes_rounded and metric == COSINE)
        query = unit_vector(vector, index.dimension)
        with plain_errors(self.path):
            return index.nearest(query, k, index.allowed(wanted), metric=metric)

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

    def _fresh_index(self, sha256: str, *, takes_rounded: bool) -> SearchIndex | RoundedIndex:
        # data_version moves when another connection has changed the file; own changes drop the index.
        version = self._rows("PRAGMA data_version")[0][0]
        index = self._index
        if index is None or index.data_version != version or index.model_sha256 != sha256:
            given = {"model_sha256": sha256, "dimension": self._dimension(sha256), "data_version": version}
            self._index = None  # not two at once in memory
            index = RoundedIndex.open(self._connection, self.path, **given) if takes_rounded else None
            if index is None:
                with plain_errors(self.path):
                    index = SearchIndex.load(self._connection, **given)
            self._index = index
        return index


def _identity(row: tuple) -> ModelIdentity:
    """Of a row of `models_statement`."""
    name, version, sha256, _, _, margin_mm, metric = row
    return ModelIdentity(name, version, sha256, margin_mm, metric=metric)


def _inserting(model: ModelIdentity, dimension: int) -> list[tuple[str, tuple]]:
    if not isinstance(model, ModelIdentity):
        msg = f"The model is a {type(model).__name__}; give a ModelIdentity."
        raise CaseLibraryError(msg)
    size = whole_number(dimension, "dimension", high=MAX_DIMENSION)
    row = (model.sha256, model.name, model.version, size, model.segment_margin_mm)
    return model_statements(row, metric=model.metric)


def _entry(entry: object) -> CaseEntry:
    try:
        return CaseEntry(*entry)
    except TypeError as error:
        msg = f"A {type(entry).__name__} was given; give (case, vector[, pictures[, patch]])."
        raise CaseLibraryError(msg) from error
