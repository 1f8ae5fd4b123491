"""Exact search on a server: its float32 order first, then similarities as a library in a file computes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .library_columns import attribute_columns
from .library_filter import SearchFilter
from .library_schema import CASE_COLUMNS, Neighbour, case_fields
from .milvus_rows import Collection, ids_in, quoted

MOST_ANSWERS = 16_000  # the server gives 16,384 at most, some of which are needed to tell ties apart
_SPARE = 64
_IDS_AT_ONCE = 5_000


@dataclass(frozen=True, eq=False)
class MilvusSearch:
    """``cases``: the library's cases; ``vectors``: those of one model."""

    cases: Collection
    vectors: Collection

    def nearest(self, query: np.ndarray, k: int, wanted: SearchFilter) -> list[Neighbour]:
        """The ``k`` nearest to ``query`` (float64, length 1) that the filter leaves, best first, ties by case id."""
        found: list[tuple[dict[str, Any], float]] = []
        for condition in self._conditions(wanted):
            found += self._candidates(query, k, condition)
        best = sorted(found, key=lambda pair: (-pair[1], pair[0]["case_id"]))[:k]
        return [Neighbour(similarity=similarity, **case_fields(_columns(row))) for row, similarity in best]

    def _candidates(self, query: np.ndarray, k: int, condition: str) -> list[tuple[dict[str, Any], float]]:
        """Whole cases with their similarity: all that could be among the ``k`` nearest."""
        asked, most = k + _SPARE, MOST_ANSWERS + _SPARE
        margin = 4 * (len(query) + 4) * float(np.finfo(np.float32).eps)
        while True:
            hits = self.vectors.search(query.astype(np.float32), min(asked, most), condition)
            rows = {row["case_id"]: row for row in self.cases.get([i for i, _, _ in hits], list(CASE_COLUMNS))}
            whole = [(i, score, stored) for i, score, stored in hits if i in rows]
            everything = len(hits) < min(asked, most)
            enough = len(whole) > k and hits[-1][1] < whole[k - 1][1] - margin
            if everything or enough or asked >= most:
                break
            asked *= 4
        matrix = np.array([stored for _, _, stored in whole], dtype=np.float32).reshape(len(whole), len(query))
        similarity = (matrix.astype(np.float64) * query).sum(axis=1).clip(-1.0, 1.0)
        return [(rows[i], float(s)) for (i, _, _), s in zip(whole, similarity, strict=True)]

    def _conditions(self, wanted: SearchFilter) -> list[str]:
        """The filter in the server's words; attributes are compared here, and become lists of case ids."""
        parts = [f"{column} != {quoted(value)}" for column, value in wanted.without()]
        parts += [f"{column} == {quoted(value)}" for column, value in wanted.only()]
        if not wanted.attributes:
            return [" and ".join(parts)]
        rows = self.cases.where(" and ".join(parts), list(CASE_COLUMNS))
        columns = attribute_columns([case_fields(_columns(row))["attributes"] for row in rows])
        keep = np.ones(len(rows), dtype=bool)
        for name, value in wanted.attributes.items():
            keep &= False if name not in columns else columns[name].meets(value)
        ids = [row["case_id"] for row, kept in zip(rows, keep, strict=True) if kept]
        chunks = [ids[start : start + _IDS_AT_ONCE] for start in range(0, len(ids), _IDS_AT_ONCE)]
        return [" and ".join([*parts, ids_in("case_id", chunk)]) for chunk in chunks]


def _columns(row: dict[str, Any]) -> tuple:
    return tuple(row[name] for name in CASE_COLUMNS)
