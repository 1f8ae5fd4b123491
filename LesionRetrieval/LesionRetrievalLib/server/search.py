"""Exact search of a case library on a Milvus server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from LesionLib.metric import COSINE, EUCLIDEAN, least_cosine_within, points_of

from LesionRetrievalLib.library.cases import CASE_COLUMNS, Neighbour, case_fields, loaded_vector
from LesionRetrievalLib.library.search.exact import distant_neighbour, euclidean_distances
from LesionRetrievalLib.library.search.filters import SearchFilter, attribute_columns
from LesionRetrievalLib.server.records import Collection, batches, ids_in, quoted

MAX_ANSWERS = 16_000  # the server gives 16,384 at most, some of which are needed to tell ties apart
IDS_AT_ONCE = 5_000
_SPARE = 64


@dataclass(frozen=True, eq=False)
class MilvusSearch:
    """Exact search on a server: its float32 order first, then similarities as a library in a file computes them.

    ``cases``: the library's cases; ``vectors``: those of one model, compared by ``metric``. The server's order is by cosine,
    whatever the metric: near points have near directions, and it is asked until no nearer point can be left.
    """

    cases: Collection
    vectors: Collection
    metric: str = COSINE

    def nearest(self, query: np.ndarray, k: int, wanted: SearchFilter) -> list[Neighbour]:
        """The ``k`` nearest to ``query`` (float64, length 1) that the filter leaves, best first, ties by case id."""
        found: list[tuple[dict[str, Any], float]] = []
        for condition in self._conditions(wanted):
            found += self._candidates(query, k, condition)
        best = sorted(found, key=lambda pair: (-pair[1], pair[0]["case_id"]))[:k]
        if self.metric == EUCLIDEAN:
            return [distant_neighbour(case_columns(row), -nearness) for row, nearness in best]
        return [Neighbour(similarity=similarity, **case_fields(case_columns(row))) for row, similarity in best]

    def _candidates(self, query: np.ndarray, k: int, condition: str) -> list[tuple[dict[str, Any], float]]:
        """Whole cases with their nearness, the cosine or minus the distance: all that could be among the ``k`` nearest."""
        asked, most = k + _SPARE, MAX_ANSWERS + _SPARE
        margin = 4 * (len(query) + 4) * float(np.finfo(np.float32).eps)
        while True:
            hits = self.vectors.search(query.astype(np.float32), min(asked, most), condition)
            rows = {row["case_id"]: row for row in self.cases.get([i for i, _, _ in hits], list(CASE_COLUMNS))}
            whole = [(i, score, stored) for i, score, stored in hits if i in rows]
            everything = len(hits) < min(asked, most)
            nearness = self._nearness(query, whole)
            enough = len(whole) > k and hits[-1][1] < self._least_cosine(query, nearness, whole, k) - margin
            if everything or enough or asked >= most:
                break
            asked *= 4
        return [(rows[i], float(s)) for (i, _, _), s in zip(whole, nearness, strict=True)]

    def _nearness(self, query: np.ndarray, whole: list[tuple[str, float, list[float]]]) -> np.ndarray:
        vectors = [loaded_vector(i, stored, len(query)) for i, _, stored in whole]
        matrix = np.array(vectors, dtype=np.float32).reshape(len(whole), len(query))
        if self.metric == EUCLIDEAN:
            return -euclidean_distances(matrix, query, np.arange(len(matrix)))
        return (matrix.astype(np.float64) * query).sum(axis=1).clip(-1.0, 1.0)

    def _least_cosine(self, query: np.ndarray, nearness: np.ndarray, whole: list[tuple], k: int) -> float:
        """Below it the server holds nothing that could be among the ``k`` nearest."""
        if self.metric == EUCLIDEAN:
            return least_cosine_within(float(-np.sort(nearness)[-k]), points_of(query))
        return whole[k - 1][1]

    def _conditions(self, wanted: SearchFilter) -> list[str]:
        """The filter in the server's words; attributes are compared here, and become lists of case ids."""
        parts = [f"{column} != {quoted(value)}" for column, value in wanted.without()]
        parts += [ids_in(column, values) for column, values in wanted.only()]
        if not wanted.attributes:
            return [" and ".join(parts)]
        rows = self.cases.where(" and ".join(parts), list(CASE_COLUMNS))
        columns = attribute_columns([case_fields(case_columns(row))["attributes"] for row in rows])
        keep = np.ones(len(rows), dtype=bool)
        for name, value in wanted.attributes.items():
            keep &= False if name not in columns else columns[name].meets(value)
        ids = [row["case_id"] for row, kept in zip(rows, keep, strict=True) if kept]
        return [" and ".join([*parts, ids_in("case_id", chunk)]) for chunk in batches(ids, IDS_AT_ONCE)]


def case_columns(row: Mapping[str, Any]) -> tuple:
    """A case's row as a library in a file has it."""
    return tuple(row[name] for name in CASE_COLUMNS)
