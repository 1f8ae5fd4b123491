"""What can be asked of a case library without changing it, search aside."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from LesionLib.errors import CaseLibraryError

from .library_codec import BOX_COLUMNS, PART_COLUMNS, decoded_patch
from .library_file import plain_errors
from .library_patch import HuPatch
from .library_schema import CASE_COLUMNS, Case, IndexedModel, ModelIdentity, case_fields, checked_case_id
from .packed_arrays import array_from_bytes

_COLUMNS = ", ".join(CASE_COLUMNS)
_BOX_VALUES = len(BOX_COLUMNS.split(","))
_MODELS = """SELECT name, version, sha256, dimension, sha256 IN (SELECT sha256 FROM unfinished_models)
    FROM models ORDER BY rowid"""


class LibraryReading:
    """The reading half of `CaseLibrary`, which opens the file."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self.path = path
        self._connection = connection
        self._schema = self._rows("PRAGMA user_version")[0][0]

    def __len__(self) -> int:
        return self._rows("SELECT count(*) FROM cases")[0][0]

    def __bool__(self) -> bool:
        return True  # an empty library is still a library

    @property
    def model(self) -> ModelIdentity:
        """The model whose vectors the library holds; of several, the one it was last indexed with to the end."""
        rows = self._model_rows()
        finished = [row for row in rows if not row[4]] or rows
        return ModelIdentity(*finished[-1][:3])

    @property
    def dimension(self) -> int:
        """How many numbers a vector of `model` has."""
        return self._dimension(self.model.sha256)

    def models(self) -> list[IndexedModel]:
        """Return every model the library was indexed with, in that order."""
        count = "SELECT count(*) FROM vectors WHERE model_sha256 = ?"
        return [
            IndexedModel(ModelIdentity(*row[:3]), row[3], self._rows(count, (row[2],))[0][0], bool(row[4]))
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
        model = ModelIdentity(*found[:3])
        if found[4]:
            msg = f"Indexing this library with {model} was not finished; run the reindex again, it goes on where it stopped."
            raise CaseLibraryError(msg)
        return model

    def case(self, case_id: str) -> Case:
        rows = self._rows(f"SELECT {_COLUMNS} FROM cases WHERE case_id = ?", (checked_case_id(case_id),))
        if not rows:
            raise _unknown(case_id)
        return Case(**case_fields(rows[0]))

    def cases(self) -> list[Case]:
        """Return all cases, ordered by case id."""
        rows = self._rows(f"SELECT {_COLUMNS} FROM cases ORDER BY case_id")
        return [Case(**case_fields(row)) for row in rows]

    def created(self) -> dict[str, str]:
        """Return the date on which each case was entered, by case id."""
        return dict(self._rows("SELECT case_id, created FROM cases ORDER BY case_id"))

    def labels(self) -> dict[str, int]:
        """Return how many cases there are of each label, ordered by label."""
        return dict(self._rows("SELECT label, count(*) FROM cases GROUP BY label ORDER BY label"))

    def pictures(self, case_id: str) -> dict[str, np.ndarray]:
        """Return the case's pictures, plane to uint8 grey (height, width); empty if it has none."""
        self._require_case(case_id)
        rows = self._rows(
            "SELECT plane, height, width, grey FROM pictures WHERE case_id = ? ORDER BY plane", (case_id,)
        )
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

    def vector(self, case_id: str, *, model_sha256: str) -> np.ndarray:
        """Return the case's vector by one model, float32 (dimension,), length 1."""
        self.require_model(model_sha256)
        self._require_case(case_id)
        rows = self._rows("SELECT vector FROM vectors WHERE case_id = ? AND model_sha256 = ?", (case_id, model_sha256))
        if not rows:
            msg = f"Case {case_id!r} was never embedded by this model; reindex the library with it."
            raise CaseLibraryError(msg)
        return _vector(rows[0][0])

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
                found[case_id] = _vector(rows[0][0])
        return found

    def contents(self) -> dict[str, tuple[str, ...]]:
        """Return for every case, in order of ids, which of ``pictures`` and ``patch`` it has."""
        statement = """SELECT case_id, case_id IN (SELECT case_id FROM pictures), case_id IN (SELECT case_id FROM patch_boxes)
            FROM cases ORDER BY case_id"""
        kinds = ("pictures", "patch")
        return {
            case_id: tuple(kind for kind, has in zip(kinds, present, strict=True) if has)
            for case_id, *present in self._rows(statement)
        }

    def _dimension(self, sha256: str) -> int:
        return self._rows("SELECT dimension FROM models WHERE sha256 = ?", (sha256,))[0][0]

    def _model_rows(self) -> list[tuple]:
        # An older file is read through empty tables in memory: they would hide what a newer writer put there since.
        if self._rows("PRAGMA user_version")[0][0] != self._schema:
            msg = f"{self.path} was brought to a newer form meanwhile; open it again."
            raise CaseLibraryError(msg)
        return self._rows(_MODELS)

    def _require_case(self, case_id: str) -> None:
        if not self._rows("SELECT 1 FROM cases WHERE case_id = ?", (checked_case_id(case_id),)):
            raise _unknown(case_id)

    def _rows(self, statement: str, parameters: tuple = ()) -> list[tuple]:
        with plain_errors(self.path):
            return self._connection.execute(statement, parameters).fetchall()


def _unknown(case_id: str) -> CaseLibraryError:
    return CaseLibraryError(f"Case {case_id!r} is not in this library; cases() lists what is.")


def _vector(stored: bytes) -> np.ndarray:
    return array_from_bytes(stored, dtype="float32", shape=(len(stored) // 4,))
