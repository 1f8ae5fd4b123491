"""Tests of two models on the same lesions, and figures of ranked lists.

Tests: McNemar's exact test, and DeLong's of two AUCs. The intervals of differences (`intervals.difference`) say how much;
these say whether chance explains it. McNemar's test takes its rows to be independent: give it one row a study or a patient.
DeLong's knows patients.

Figures of ranked lists: P@k, AP@k in four definitions, AP over the full ranking, reciprocal rank, precision-recall. The
papers and libraries call four different numbers mAP@k; each has its letter here, so that no table mixes them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, norm, rankdata


@dataclass(frozen=True)
class McNemar:
    """``only_first`` rows were right by the first model alone, ``only_second`` by the second alone."""

    only_first: int
    only_second: int
    p_value: float


@dataclass(frozen=True, eq=False)
class DeLong:
    """AUCs of several scores on the same lesions, (score,), and their covariance, (score, score)."""

    auc: np.ndarray
    covariance: np.ndarray

    @property
    def standard_error(self) -> np.ndarray:
        """Of each AUC, (score,)."""
        return np.sqrt(np.diag(self.covariance))

    def interval(self, *, level: float = 0.95) -> np.ndarray:
        """Normal-theory interval of each AUC, cut at 0 and 1, (score, 2). Its width is 0 where an AUC is 0 or 1."""
        half = norm.ppf((1 + level) / 2) * self.standard_error
        return np.clip(np.stack([self.auc - half, self.auc + half], axis=1), 0, 1)


@dataclass(frozen=True)
class AUCDifference:
    """First AUC minus second, with z = difference / standard error and its two-sided p-value."""

    first: float
    second: float
    standard_error: float
    z: float
    p_value: float

    @property
    def difference(self) -> float:
        """First minus second."""
        return self.first - self.second


def mcnemar(truth: np.ndarray, first: np.ndarray, second: np.ndarray) -> McNemar:
    """Whether two models' accuracies differ: exact binomial test on the rows that only one of them got right.

    Three arrays of class indices, (row,). The p-value is two-sided, 1 where there is no such row.
    """
    t, a, b = _same_length(truth, first, second)
    only_first, only_second = int(((a == t) & (b != t)).sum()), int(((a != t) & (b == t)).sum())
    discordant = only_first + only_second
    p = binomtest(only_first, discordant, 0.5).pvalue if discordant else 1.0
    return McNemar(only_first, only_second, float(p))


def delong(truth: np.ndarray, scores: np.ndarray, *, patients: np.ndarray | None = None) -> DeLong:
    """AUCs and their covariance without assumptions on the scores' distribution.

    DeLong, DeLong and Clarke-Pearson, Biometrics 1988, by the mid-ranks of Sun and Xu, IEEE Signal Process Lett 2014.
    ``truth``: bool, (lesion,); ``scores``: (score, lesion), or (lesion,) for one. ``patients``, (lesion,): lesions of a
    patient are not independent, and are taken together (Obuchowski, Biometrics 1997); the same without, where each
    patient has one lesion. Needs two positives and two negatives (of two patients each), else ValueError.
    """
    positive = np.asarray(truth, dtype=bool)
    values = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    cluster = np.arange(len(positive)) if patients is None else np.unique(patients, return_inverse=True)[1]
    if positive.ndim != 1 or values.shape[1:] != positive.shape or cluster.shape != positive.shape:
        msg = f"truth is {positive.shape}, scores {values.shape}, patients {cluster.shape}; expected (n,), (m, n), (n,)"
        raise ValueError(msg)
    if np.isnan(values).any():
        msg = "a score is not a number; a lesion without score has no rank"
        raise ValueError(msg)
    with_positive, with_negative = (len(np.unique(cluster[which])) for which in (positive, ~positive))
    if min(with_positive, with_negative) < 2:
        msg = f"positives of {with_positive} and negatives of {with_negative} patients; at least 2 of each are needed"
        raise ValueError(msg)
    area, above, below = _placements(positive, values)
    x = _cluster_sums(above - area[:, None], cluster[positive], cluster.max() + 1)
    y = _cluster_sums(below - area[:, None], cluster[~positive], cluster.max() + 1)
    m, n, clusters = int(positive.sum()), int((~positive).sum()), int(cluster.max()) + 1
    mixed = x @ y.T * clusters / (clusters - 1)
    covariance = (
        x @ x.T * with_positive / (with_positive - 1) / m**2
        + y @ y.T * with_negative / (with_negative - 1) / n**2
        + (mixed + mixed.T) / (m * n)
    )
    return DeLong(area, covariance)


def delong_paired(
    truth: np.ndarray, first: np.ndarray, second: np.ndarray, *, patients: np.ndarray | None = None
) -> AUCDifference:
    """Whether two scores of the same lesions differ in AUC.

    ``truth``: bool, ``first`` and ``second``: scores, ``patients``: see `delong`, (lesion,) each.
    """
    both = delong(truth, np.stack([first, second]), patients=patients)
    variance = both.covariance[0, 0] + both.covariance[1, 1] - 2 * both.covariance[0, 1]
    return _auc_difference(both.auc[0], both.auc[1], variance)


def _placements(positive: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """AUCs; of each positive the share of negatives below it; of each negative the share of positives above it."""
    m, n = int(positive.sum()), int((~positive).sum())
    ranks = rankdata(values, axis=1)
    above = (ranks[:, positive] - rankdata(values[:, positive], axis=1)) / n
    below = 1 - (ranks[:, ~positive] - rankdata(values[:, ~positive], axis=1)) / m
    return above.mean(axis=1), above, below


def _cluster_sums(values: np.ndarray, cluster: np.ndarray, clusters: int) -> np.ndarray:
    return np.stack([np.bincount(cluster, weights=row, minlength=clusters) for row in values])


def _auc_difference(first: float, second: float, variance: float) -> AUCDifference:
    # Rounding can leave a variance of -1e-20 for two scores that order the lesions alike.
    error, difference = float(np.sqrt(max(variance, 0.0))), float(first - second)
    if abs(difference) < 1e-12:
        z = 0.0
    elif error < 1e-9:
        z = float(np.copysign(np.inf, difference))
    else:
        z = difference / error
    return AUCDifference(float(first), float(second), error, z, float(2 * norm.sf(abs(z))))


def _same_length(*arrays: np.ndarray) -> list[np.ndarray]:
    columns = [np.asarray(array) for array in arrays]
    if len({len(column) for column in columns}) > 1 or not len(columns[0]):
        msg = f"the arrays have {[len(column) for column in columns]} rows; they must describe the same lesions, at least 1"
        raise ValueError(msg)
    return columns


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
        query, index = np.nonzero(rel)
        number = np.arange(len(query)) - (np.cumsum(found) - found)[query]
        # The curve of cirtorch starts at precision 1.
        before = np.divide(number, index, out=np.ones(len(index)), where=index > 0)
        return cls(found, query, (number + 1) / (index + 1), before)

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
