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

from .library_file import connect, plain_errors, write_empty
from .library_index import SearchIndex
from .library_schema import (
    CASE_COLUMNS,
    Case,
    CaseEntry,
    ModelIdentity,
    Neighbour,
    case_fields,
    checked_case_id,
    checked_hash,
    checked_pictures,
    unit_vector,
)

__all__ = ["Case", "CaseEntry", "CaseLibrary", "ModelIdentity", "Neighbour"]

_COLUMNS = ", ".join(CASE_COLUMNS)
_DAMAGED = "typeof(vector) != 'blob' OR length(vector) != ?"


class CaseLibrary:
    """Cases, their vectors for one model, and pictures, in one SQLite file. Make one by `create` or `open`.

    Use it in the thread that opened it, and as a context manager. Everything that goes wrong is a
    `CaseLibraryError`, and what was being written is then undone as a whole.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path, *, read_only: bool) -> None:
        self.path = path
        self.read_only = read_only
        self._connection = connection
        self._index: SearchIndex | None = None
        name, version, sha256, self.dimension = self._rows("SELECT name, version, sha256, dimension FROM models")[0]
        self.model = ModelIdentity(name, version, sha256)

    @classmethod
    def create(cls, path: str | Path, *, model: ModelIdentity, dimension: int, overwrite: bool = False) -> CaseLibrary:
        """Make an empty library for vectors of ``dimension`` numbers from ``model``, opened for writing.

        An existing file is refused; with ``overwrite`` it is replaced, if it is a LesionLens library.
        """
        path = Path(path)
        dimension = _whole(dimension, "dimension", high=65536)
        if not isinstance(model, ModelIdentity):
            msg = f"The model is a {type(model).__name__}; give a ModelIdentity."
            raise CaseLibraryError(msg)
        if os.path.exists(path):
            if not overwrite:
                msg = f"{path} exists; give another name, or ask for it to be overwritten."
                raise CaseLibraryError(msg)
            connect(path, "ro").close()
        write_empty(path, model, dimension)
        return cls.open(path, read_only=False)

    @classmethod
    def open(cls, path: str | Path, *, read_only: bool = True) -> CaseLibrary:
        """Open the library at ``path``. Read only leaves no trace: read-only folders and shares will do."""
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

    def __len__(self) -> int:
        return self._rows("SELECT count(*) FROM cases")[0][0]

    def __bool__(self) -> bool:
        return True  # an empty library is still a library

    def require_model(self, sha256: str) -> ModelIdentity:
        """Return the model of this library; `CaseLibraryError` naming both if ``sha256`` is another's."""
        if sha256 != self.model.sha256:
            msg = (
                f"This library was made with {self.model}, not with the model sha256 {str(sha256)[:12]}…; "
                "search with that model or build the library again."
            )
            raise CaseLibraryError(msg)
        return self.model

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
    ) -> None:
        """Add one case.

        ``vector`` is (dimension,) real numbers from the model ``model_sha256``, of any length but zero: it is
        normalised here. ``pictures`` maps axial, coronal, sagittal to uint8 grey (height, width).
        """
        self.require_model(model_sha256)
        if not isinstance(case, Case):
            msg = f"A {type(case).__name__} was given; give a Case."
            raise CaseLibraryError(msg)
        blob = unit_vector(vector, self.dimension).astype("<f4").tobytes()
        pictures = checked_pictures(pictures)
        with self.transaction():
            if self._rows("SELECT 1 FROM cases WHERE case_id = ?", (case.case_id,)):
                msg = f"Case {case.case_id!r} is in the library already; remove it first, or give another id."
                raise CaseLibraryError(msg)
            # A date without a time: the hour a case was entered could be matched with a hospital's logs.
            row = (*case.as_row(), datetime.now(UTC).date().isoformat())
            marks = ", ".join("?" * len(row))
            self._rows(f"INSERT INTO cases ({', '.join(CASE_COLUMNS)}, created) VALUES ({marks})", row)
            self._rows("INSERT INTO vectors VALUES (?, ?, ?)", (case.case_id, model_sha256, blob))
            for plane, grey in pictures.items():
                self._rows(
                    "INSERT INTO pictures VALUES (?, ?, ?, ?, ?)",
                    (case.case_id, plane, *grey.shape, grey.tobytes()),
                )

    def add_many(self, entries: Iterable[CaseEntry | tuple], *, model_sha256: str) -> int:
        """Add (case, vector) or (case, vector, pictures) items in one transaction; returns how many."""
        count = 0
        with self.transaction():
            for entry in entries:
                item = _entry(entry)
                self.add(item.case, item.vector, model_sha256=model_sha256, pictures=item.pictures)
                count += 1
        return count

    def remove(self, case_id: str) -> None:
        """Remove a case with its vector and pictures; their bytes in the file are overwritten."""
        with self.transaction():
            self._require_case(case_id)
            self._rows("DELETE FROM cases WHERE case_id = ?", (case_id,))

    def case(self, case_id: str) -> Case:
        """Return the case ``case_id``."""
        rows = self._rows(f"SELECT {_COLUMNS} FROM cases WHERE case_id = ?", (checked_case_id(case_id),))
        if not rows:
            raise _unknown(case_id)
        return Case(**case_fields(rows[0]))

    def cases(self) -> list[Case]:
        """Return all cases, ordered by case id."""
        rows = self._rows(f"SELECT {_COLUMNS} FROM cases ORDER BY case_id")
        return [Case(**case_fields(row)) for row in rows]

    def labels(self) -> dict[str, int]:
        """Return how many cases there are of each label, ordered by label."""
        return dict(self._rows("SELECT label, count(*) FROM cases GROUP BY label ORDER BY label"))

    def pictures(self, case_id: str) -> dict[str, np.ndarray]:
        """Return the case's pictures, plane to uint8 grey (height, width); empty if it has none."""
        self._require_case(case_id)
        rows = self._rows(
            "SELECT plane, height, width, grey FROM pictures WHERE case_id = ? ORDER BY plane", (case_id,)
        )
        return {plane: np.frombuffer(grey, np.uint8).reshape(h, w).copy() for plane, h, w, grey in rows}

    def search(
        self,
        vector: Any,
        *,
        k: int = 9,
        model_sha256: str,
        exclude_patient: str | None = None,
        exclude_case: str | None = None,
        label: str | None = None,
        organ: str | None = None,
    ) -> list[Neighbour]:
        """Return the ``k`` most similar cases, best first; equal ones in the order of their case ids.

        Exact cosine over all cases; fewer than ``k`` come back where fewer are left. ``exclude_patient`` (a
        patient hash) and ``exclude_case`` leave cases out, ``label`` and ``organ`` keep only theirs.
        """
        self.require_model(model_sha256)
        if exclude_patient is not None:  # a raw identifier would exclude nothing, and nobody would notice
            checked_hash(exclude_patient, "exclude_patient")
        if exclude_case is not None:
            checked_case_id(exclude_case)
        for name, value in (("label", label), ("organ", organ)):
            if value is not None and not isinstance(value, str):
                msg = f"{name} is a {type(value).__name__}; give text, or None for all."
                raise CaseLibraryError(msg)
        k = _whole(k, "k")
        query = unit_vector(vector, self.dimension)
        index = self._fresh_index()
        without = {"patient_hash": exclude_patient, "case_id": exclude_case}
        rows = index.allowed(without=without, only={"label": label, "organ": organ})
        return index.nearest(query, k, rows)

    def integrity_problems(self) -> tuple[str, ...]:
        """Read the whole file; return what is wrong with it, one line each. Empty: all is well."""
        length = (4 * self.dimension,)
        checks = (
            ("{}", "SELECT * FROM pragma_integrity_check WHERE integrity_check != 'ok'", ()),
            ("table {}: a row points nowhere", "PRAGMA foreign_key_check", ()),
            ("case {}: its vector is damaged", f"SELECT case_id FROM vectors WHERE {_DAMAGED}", length),
            ("case {}: it has no vector", "SELECT case_id FROM cases EXCEPT SELECT case_id FROM vectors", ()),
        )
        problems: list[str] = []
        for text, statement, parameters in checks:
            try:
                problems += [text.format(row[0]) for row in self._rows(statement, parameters)]
            except CaseLibraryError as error:  # too damaged to be read to its end
                problems.append(str(error))
        return tuple(problems)

    def _require_case(self, case_id: str) -> None:
        if not self._rows("SELECT 1 FROM cases WHERE case_id = ?", (checked_case_id(case_id),)):
            raise _unknown(case_id)

    def _rows(self, statement: str, parameters: tuple = ()) -> list[tuple]:
        with plain_errors(self.path):
            return self._connection.execute(statement, parameters).fetchall()

    def _fresh_index(self) -> SearchIndex:
        # data_version moves when another connection has changed the file; own changes drop the index.
        version = self._rows("PRAGMA data_version")[0][0]
        if self._index is None or self._index.data_version != version:
            with plain_errors(self.path):
                self._index = SearchIndex.load(
                    self._connection,
                    model_sha256=self.model.sha256,
                    dimension=self.dimension,
                    data_version=version,
                )
        return self._index


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
        msg = f"A {type(entry).__name__} was given; give (case, vector) or (case, vector, pictures)."
        raise CaseLibraryError(msg) from error


def _unknown(case_id: str) -> CaseLibraryError:
    return CaseLibraryError(f"Case {case_id!r} is not in this library; cases() lists what is.")
