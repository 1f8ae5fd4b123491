"""Figures of ranked lists: P@k, AP@k in four definitions, AP over the full ranking, reciprocal rank, precision-recall.

The papers and libraries call four different numbers mAP@k; each has its letter here, so that no table mixes them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RECALL_LEVELS = np.linspace(0, 1, 11)


@dataclass(frozen=True, eq=False)
class ListFigures:
    """Figures of each query, shape (query,); NaN for a query that has no relevant candidate at all.

    ``k_eff``: min(k, candidates), which takes the place of k in short lists. Of AP@k, with rel_i in {0, 1} at rank i:
    ``ap_a`` = sum P@i rel_i / min(R, k), the usual one; ``ap_b``: / hits in the top k (torchmetrics; 0 without a hit);
    ``ap_c``: / R (pytorch-metric-learning); ``ap_d`` = mean of P@1 ... P@k (Lesion
    Search's released code). ``ap``: A over the full ranking, not interpolated (SCNN's MAP). ``ap_trapezoid``: the area
    under the same precision-recall points joined by lines (cirtorch). ``precision_at_recall``: the largest precision at
    or beyond each of `RECALL_LEVELS`, (query, 11).
    """

    k: int
    k_eff: np.ndarray
    candidates: np.ndarray
    relevant: np.ndarray
    p_at_1: np.ndarray
    p_at_k: np.ndarray
    ap_a: np.ndarray
    ap_b: np.ndarray
    ap_c: np.ndarray
    ap_d: np.ndarray
    ap: np.ndarray
    ap_trapezoid: np.ndarray
    reciprocal_rank: np.ndarray
    precision_at_recall: np.ndarray


def list_figures(
    hits: np.ndarray, *, k: int = 10, relevant: np.ndarray | None = None, candidates: np.ndarray | None = None
) -> ListFigures:
    """Figures of ranked lists. ``hits``: bool, (query, rank), the best match first.

    ``candidates``: how many places of each row are a list, (query,); what lies beyond is padding; all of them unless
    given. ``relevant``: relevant candidates of each query, (query,); those in the list unless given. More than that says
    that the list was cut: the figures over the full ranking (AP, recall) then know of the rest only that it comes later.
    """
    rel = np.asarray(hits, dtype=bool)
    if rel.ndim != 2 or k < 1:
        msg = f"hits must have shape (query, rank) and k be at least 1, not {rel.shape} and {k}"
        raise ValueError(msg)
    n = np.full(len(rel), rel.shape[1]) if candidates is None else np.asarray(candidates)
    rel = rel & (np.arange(rel.shape[1]) < n[:, None])
    found = rel.sum(axis=1)
    r = found if relevant is None else np.asarray(relevant)
    if (r < found).any():
        msg = "a query has more hits in its list than it has relevant candidates; relevant counts all of them"
        raise ValueError(msg)
    hit = _Hits.of(rel, found)
    first = np.where(found > 0, rel.argmax(axis=1) + 1.0, np.inf)
    return ListFigures(
        k=k,
        k_eff=np.minimum(k, n),
        candidates=n,
        relevant=r,
        ap=_divided(hit.sums(hit.precision), r),
        ap_trapezoid=_divided(hit.sums((hit.precision + hit.precision_before) / 2), r),
        reciprocal_rank=np.where(r > 0, 1 / first, np.nan),
        precision_at_recall=_at_recall(hit, r),
        **_at_k(rel, r, np.minimum(k, n), k),
    )


@dataclass(frozen=True, eq=False)
class _Hits:
    """Only the hits of the lists, one after the other: of the 32,735 ranks of a DeepLesion query few are one."""

    found: np.ndarray
    query: np.ndarray
    precision: np.ndarray
    precision_before: np.ndarray

    @classmethod
    def of(cls, rel: np.ndarray, found: np.ndarray) -> _Hits:
        query, place = np.nonzero(rel)
        number = np.arange(len(query)) - (np.cumsum(found) - found)[query]
        # The curve of cirtorch starts at precision 1.
        before = np.divide(number, place, out=np.ones(len(place)), where=place > 0)
        return cls(found, query, (number + 1) / (place + 1), before)

    def sums(self, values: np.ndarray) -> np.ndarray:
        return np.bincount(self.query, weights=values, minlength=len(self.found))


def _at_k(rel: np.ndarray, r: np.ndarray, k_eff: np.ndarray, k: int) -> dict[str, np.ndarray]:
    ranks = np.arange(1, min(k, rel.shape[1]) + 1)
    inside = ranks <= k_eff[:, None]
    head = rel[:, : len(ranks)]
    precision = np.cumsum(head, axis=1) / ranks
    at_hits, hits = (precision * head).sum(axis=1), head.sum(axis=1)
    answerable = np.where(r > 0, 1.0, np.nan)
    return {
        "p_at_1": head[:, :1].sum(axis=1) * answerable,
        "p_at_k": _divided(hits, k_eff) * answerable,
        "ap_a": _divided(at_hits, np.minimum(r, k)),
        "ap_b": np.where(hits > 0, at_hits / np.maximum(hits, 1), 0.0) * answerable,
        "ap_c": _divided(at_hits, r),
        "ap_d": _divided((precision * inside).sum(axis=1), k_eff) * answerable,
    }


def _at_recall(hit: _Hits, r: np.ndarray) -> np.ndarray:
    queries = len(hit.found)
    # Precision peaks at hits; the offset keeps one query's maximum out of the next one's.
    lifted = (hit.precision + 2.0 * (queries - hit.query))[::-1]
    best = np.maximum.accumulate(lifted)[::-1] - 2.0 * (queries - hit.query)
    needed = np.ceil(RECALL_LEVELS * r[:, None] - 1e-9).astype(int).clip(1)
    reached = needed <= hit.found[:, None]
    where = np.where(reached, (np.cumsum(hit.found) - hit.found)[:, None] + needed - 1, 0)
    result = np.where(reached, best[where] if len(best) else 0.0, 0.0)
    return np.where(r[:, None] > 0, result, np.nan)


def _divided(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=np.asarray(whole) > 0)
