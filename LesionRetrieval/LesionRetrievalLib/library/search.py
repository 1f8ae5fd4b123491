"""Exact search by cosine: a library's unit vectors in memory, one matrix product a query."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from LesionLib.errors import CaseLibraryError

from .library_columns import AttributeColumn, attribute_columns
from .library_filter import SearchFilter
from .library_schema import CASE_COLUMNS, Neighbour, case_fields


@dataclass(frozen=True, eq=False)
class SearchIndex:
    """All of a library in memory, rows ordered by case id.

    ``matrix`` is float32 (cases, dimension), each row of length 1; ``rows`` are the values of `CASE_COLUMNS`;
    ``data_version`` is SQLite's, to see that another connection has changed the file since.
    """

    model_sha256: str
    data_version: int
    matrix: np.ndarray
    rows: list[tuple]

    @classmethod
    def load(
        cls, connection: sqlite3.Connection, *, model_sha256: str, dimension: int, data_version: int
    ) -> SearchIndex:
        """Read all vectors of one model; `CaseLibraryError` for a damaged one, else `sqlite3.Error`."""
        columns = ", ".join(f"c.{name}" for name in CASE_COLUMNS)
        statement = (
            f"SELECT {columns}, v.vector FROM cases c JOIN vectors v ON v.case_id = c.case_id "
            "WHERE v.model_sha256 = ? ORDER BY c.case_id"
        )
        # One statement is one snapshot: another connection can't change the file in the middle of it.
        buffer, rows = bytearray(), []
        with closing(connection.execute(statement, (model_sha256,))) as cursor:
            for *fields, blob in cursor:
                if not isinstance(blob, bytes) or len(blob) != 4 * dimension:
                    raise _damaged(fields[0])
                buffer += blob
                rows.append(tuple(fields))
        matrix = np.frombuffer(buffer, "<f4").reshape(len(rows), dimension)
        _require_unit_length(matrix, rows)
        return cls(model_sha256, data_version, matrix, rows)

    def allowed(self, wanted: SearchFilter) -> np.ndarray:
        """Return the numbers of the rows that the filter leaves, ascending."""
        keep = np.ones(len(self.rows), bool)
        for column, value in wanted.without():
            keep[self._where(column).get(value, [])] = False
        for column, value in wanted.only():
            inside = np.zeros(len(self.rows), bool)
            inside[self._where(column).get(value, [])] = True
            keep &= inside
        for name, value in wanted.attributes.items():
            column = self._columns.get(name)
            keep &= False if column is None else column.meets(value)
        return np.flatnonzero(keep)

    def nearest(self, query: np.ndarray, k: int, rows: np.ndarray) -> list[Neighbour]:
        """Return the ``k`` of ``rows`` nearest to ``query`` (float64, length 1), best first."""
        scores = (self.matrix @ query.astype(np.float32))[rows]
        rows = rows[_contenders(scores, k, self.matrix.shape[1])]
        similarity = self._similarity(query, rows)
        order = np.argsort(-similarity, kind="stable")[:k]  # stable: rows are in the order of case ids
        return [Neighbour(similarity=float(similarity[i]), **case_fields(self.rows[rows[i]])) for i in order]

    @cached_property
    def _columns(self) -> dict[str, AttributeColumn]:
        return attribute_columns([case_fields(row)["attributes"] for row in self.rows])

    @cached_property
    def _places(self) -> dict[str, dict[str, np.ndarray]]:
        return {}

    def _where(self, column: str) -> dict[str, np.ndarray]:
        """Value -> numbers of the rows that have it, found when a column is first asked for."""
        if column not in self._places:
            place, numbers = CASE_COLUMNS.index(column), defaultdict(list)
            for number, row in enumerate(self.rows):
                numbers[row[place]].append(number)
            self._places[column] = {value: np.array(found) for value, found in numbers.items()}
        return self._places[column]

    def _similarity(self, query: np.ndarray, rows: np.ndarray) -> np.ndarray:
        # A float32 product depends on a row's place in the matrix, so equal vectors would not always tie;
        # summing each row by itself does not. In parts, as many equal cases make many contenders.
        parts = np.array_split(rows, len(rows) // 4096 + 1)
        sums = [(self.matrix[part].astype(np.float64) * query).sum(axis=1) for part in parts]
        return np.concatenate(sums).clip(-1.0, 1.0)


def _contenders(scores: np.ndarray, k: int, dimension: int) -> np.ndarray:
    if k >= len(scores):
        return np.arange(len(scores))
    at_k = scores[np.argpartition(scores, -k)[-k]]
    # Twice the largest rounding error of a float32 product of unit vectors: no true neighbour can be missed.
    margin = (dimension + 4) * float(np.finfo(np.float32).eps)
    return np.flatnonzero(scores >= at_k - margin)


def _require_unit_length(matrix: np.ndarray, rows: list[tuple]) -> None:
    lengths = np.einsum("ij,ij->i", matrix, matrix)
    # "Not near 1" rather than "far from 1": NaN is neither.
    wrong = np.flatnonzero(~(np.abs(lengths - 1) < 1e-3))
    if len(wrong):
        raise _damaged(rows[wrong[0]][0])


def _damaged(case_id: str) -> CaseLibraryError:
    return CaseLibraryError(
        f"Case {case_id!r}: its vector is damaged; remove the case, or restore the library from a copy."
    )
