"""The most similar cases, exactly: all vectors of a library in memory, one matrix product a query."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from LesionLib.errors import CaseLibraryError
from LesionLib.metric import COSINE, EUCLIDEAN, points_of, similarity_at

from LesionRetrievalLib.library.cases import CASE_COLUMNS, Neighbour, Scalar, case_fields, damaged
from LesionRetrievalLib.library.search.filters import Filtering


@dataclass(frozen=True, eq=False)
class SearchIndex(Filtering):
    """Exact search: all of a library's unit vectors in memory, ordered by case id, by cosine one matrix product a query.

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
        rows: list[tuple] = []
        (count,) = connection.execute("SELECT count(*) FROM cases").fetchone()
        # numpy's own memory, in large pages: a product over bytes that were joined takes longer.
        matrix = np.empty((count, dimension), np.float32)
        # One statement is one snapshot: another connection can't change the file in the middle of it.
        with closing(connection.execute(statement, (model_sha256,))) as cursor:
            for *fields, blob in cursor:
                if len(rows) == len(matrix):  # cases that came since they were counted
                    matrix = np.concatenate([matrix, np.empty((len(rows) // 8 + 1, dimension), np.float32)])
                matrix[len(rows)] = vector_in(blob, dimension, fields[0])
                rows.append(tuple(fields))
        matrix = matrix[: len(rows)]
        require_unit_length(matrix, [row[0] for row in rows])
        return cls(model_sha256, data_version, matrix, rows)

    def __len__(self) -> int:
        """How many cases."""
        return len(self.rows)

    @property
    def dimension(self) -> int:
        """How many numbers a vector has."""
        return self.matrix.shape[1]

    def nearest(self, query: np.ndarray, k: int, rows: np.ndarray, *, metric: str = COSINE) -> list[Neighbour]:
        """Return the ``k`` of ``rows`` nearest to ``query`` by ``metric``, best first.

        ``query``: float64, (dimension,), length 1. ``rows``: numbers of rows, (n,), ascending.
        """
        if metric == EUCLIDEAN:
            distance = euclidean_distances(self.matrix, query, rows)
            order = np.argsort(distance, kind="stable")[:k]
            return [distant_neighbour(self.rows[rows[i]], float(distance[i])) for i in order]
        scores = self._scores(query.astype(np.float32), rows)
        # Twice the largest rounding error of a float32 product of unit vectors: no true neighbour can be missed.
        rows = rows[contenders(scores, k, 2 * product_error(self.matrix.shape[1]))]
        similarity = self._similarity(query, rows)
        order = np.argsort(-similarity, kind="stable")[:k]  # stable: rows are in the order of case ids
        return [Neighbour(similarity=float(similarity[i]), **case_fields(self.rows[rows[i]])) for i in order]

    def _scores(self, query: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Of the rows, float32 (row,). Of a few the vectors are put together: that takes less than a product with all."""
        if len(rows) * _FEW <= len(self.matrix):
            return self.matrix[rows] @ query
        scores = self.matrix @ query
        return scores if len(rows) == len(scores) else scores[rows]

    def _attributes(self) -> list[Mapping[str, Scalar]]:
        return [case_fields(row)["attributes"] for row in self.rows]

    @cached_property
    def _rows_of(self) -> dict[str, dict[str, np.ndarray]]:
        return {}

    def _rows_with(self, column: str, value: str) -> np.ndarray:
        """Those that have a value, found when a column is first asked for."""
        if column not in self._rows_of:
            position, numbers = CASE_COLUMNS.index(column), defaultdict(list)
            for number, row in enumerate(self.rows):
                numbers[row[position]].append(number)
            self._rows_of[column] = {value: np.array(found) for value, found in numbers.items()}
        return self._rows_of[column].get(value, _NO_ROWS)

    def _similarity(self, query: np.ndarray, rows: np.ndarray) -> np.ndarray:
        # In parts, as many equal cases make many contenders.
        parts = np.array_split(rows, len(rows) // 4096 + 1)
        return np.concatenate([cosines(self.matrix[part], query) for part in parts])


_FEW = 4  # times as many vectors are read in the time in which one is copied and read
_NO_ROWS = np.array([], dtype=np.intp)


def cosines(vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Exact: a float32 product depends on a row's place in the matrix, so equal vectors would not always tie; summing each row by
    itself does not.
    """
    return (vectors.astype(np.float64) * query).sum(axis=1).clip(-1.0, 1.0)


def euclidean_distances(matrix: np.ndarray, query: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Of the points of ``rows`` of ``matrix`` (n, d + 1) to that of ``query`` (d + 1,), float64, (row,).

    `CaseLibraryError` for embeddings that are none of a Euclidean model.
    """
    try:
        asked = points_of(query)
        # In parts: as float64 points a large library would need three times its memory.
        parts = np.array_split(rows, len(rows) // 4096 + 1)
        return np.concatenate([np.linalg.norm(points_of(matrix[part]) - asked, axis=1) for part in parts])
    except ValueError as error:
        msg = f"The vectors cannot be compared: {error}; embed the lesion with the model of the library."
        raise CaseLibraryError(msg) from error


def distant_neighbour(row: tuple, distance: float) -> Neighbour:
    """The case of a row of `CASE_COLUMNS` at a Euclidean distance."""
    return Neighbour(similarity=float(similarity_at(distance)), distance=distance, **case_fields(row))


def contenders(scores: np.ndarray, k: int, margin: float) -> np.ndarray:
    """The numbers of the scores (n,) that may be among the ``k`` best where each may be off by half of ``margin``, (m,) ascending."""
    if k >= len(scores):
        return np.arange(len(scores))
    at_k = np.partition(scores, len(scores) - k)[len(scores) - k]
    return np.flatnonzero(scores >= at_k - margin)


def product_error(dimension: int) -> float:
    """The largest that a float32 product of unit vectors is off."""
    return (dimension + 4) * float(np.finfo(np.float32).eps) / 2


def vector_in(blob: object, dimension: int, case_id: str) -> np.ndarray:
    """A vector as it lies in the file, float32 (dimension,). `CaseLibraryError` for one of another length."""
    if not isinstance(blob, bytes) or len(blob) != 4 * dimension:
        raise _damaged(case_id)
    return np.frombuffer(blob, "<f4")


def require_unit_length(matrix: np.ndarray, case_ids: Sequence[str]) -> None:
    """Refuse rows of ``matrix`` (n, dimension) that are not of length 1, by the name of the first: `CaseLibraryError`."""
    lengths = np.einsum("ij,ij->i", matrix, matrix)
    # "Not near 1" rather than "far from 1": NaN is neither.
    wrong = np.flatnonzero(~(np.abs(lengths - 1) < 1e-3))
    if len(wrong):
        raise _damaged(case_ids[wrong[0]])


def _damaged(case_id: str) -> CaseLibraryError:
    return damaged(case_id, "its vector is damaged")
