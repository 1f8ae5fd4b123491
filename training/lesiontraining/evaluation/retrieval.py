"""How well embeddings retrieve lesions of the same class: every lesion asks, all others (or some of them) answer.

Cosine similarity or Euclidean distance, in blocks of queries, so that the 32,735 lesions of DeepLesion fit into memory. A
query is never in its own gallery. Which others are is the patient rule; the paper's three settings are all, same and cross.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

import numpy as np
from LesionLib.metric import COSINE, EUCLIDEAN, points_of
from scipy.special import gammaln
from scipy.stats import hypergeom

from lesiontraining.evaluation.comparisons import ListFigures, list_figures


def chance_levels(candidates: np.ndarray, relevant: np.ndarray, *, k: int) -> dict[str, np.ndarray]:
    """What a random order of the gallery scores: the level that a retrieval figure has to be read against.

    Expected figure of each query, (query,), by the name it has in `ListFigures`; NaN where R = 0. ``candidates`` and
    ``relevant``: N and R of each query, (query,). Exact expectations over all orders of N candidates of which R are relevant;
    where a class fills half of the gallery, a P@10 of .5 is nothing. Same-patient galleries are small and of few classes, so
    their chance level is high.
    """
    pairs, query = np.unique(np.stack([candidates, relevant], axis=1), axis=0, return_inverse=True)
    query = query.reshape(-1)
    levels = {}
    for name, expected in _EXPECTED.items():
        values = [expected(int(n), int(r), min(k, int(n)), k) if r > 0 else np.nan for n, r in pairs]
        levels[name] = np.array(values, dtype=np.float64)[query]
    return levels


def _share(n: int, r: int, k_eff: int, k: int) -> float:
    return r / n


def _precision_at_hits(n: int, r: int, ranks: int) -> float:
    """E of sum over the first ``ranks`` ranks of P@i rel_i: at a hit the i - 1 before it hold (i-1)(R-1)/(N-1) hits."""
    i = np.arange(1, ranks + 1)
    return float((r / n * (1 + (i - 1) * (r - 1) / max(n - 1, 1)) / i).sum())


def _ap_a(n: int, r: int, k_eff: int, k: int) -> float:
    return _precision_at_hits(n, r, k_eff) / min(r, k)


def _ap_b(n: int, r: int, k_eff: int, k: int) -> float:
    """With h hits in the top k, these lie anywhere there: AP over k ranks with h relevant; h is hypergeometric."""
    h = np.arange(1, min(k_eff, r) + 1)
    ap = np.array([_precision_at_hits(k_eff, int(hits), k_eff) / hits for hits in h])
    return float((hypergeom.pmf(h, n, r, k_eff) * ap).sum())


def _ap_c(n: int, r: int, k_eff: int, k: int) -> float:
    return _precision_at_hits(n, r, k_eff) / r


def _ap(n: int, r: int, k_eff: int, k: int) -> float:
    return _precision_at_hits(n, r, n) / r


def _reciprocal_rank(n: int, r: int, k_eff: int, k: int) -> float:
    """The first hit has rank i in C(N - i, R - 1) of the C(N, R) orders."""
    i = np.arange(1, n - r + 2)
    log_orders = gammaln(n - i + 1) - gammaln(r) - gammaln(n - i - r + 2)
    log_all = gammaln(n + 1) - gammaln(r + 1) - gammaln(n - r + 1)
    return float((np.exp(log_orders - log_all) / i).sum())


_EXPECTED: dict[str, Callable[[int, int, int, int], float]] = {
    "p_at_1": _share,
    "p_at_k": _share,
    "ap_a": _ap_a,
    "ap_b": _ap_b,
    "ap_c": _ap_c,
    "ap_d": _share,
    "ap": _ap,
    "reciprocal_rank": _reciprocal_rank,
}

PATIENT_RULES = ("all", "same", "cross")
UNANSWERABLE = ("drop", "zero")
SIMILARITIES_AT_ONCE = 1 << 22
FIGURES = ("p_at_1", "p_at_k", "ap_a", "ap_b", "ap_c", "ap_d", "ap", "ap_trapezoid", "reciprocal_rank")


@dataclass(frozen=True, eq=False)
class Retrieval:
    """Figures of every query that counts; the rows of ``figures`` and ``chance`` belong to ``query``.

    ``query``: rows of the embeddings, (query,), with their ``labels`` and ``patients``; ``chance``: what a random order would
    score, by figure, (query,) each. ``no_candidate``: queries left out because nobody may answer them (the only lesion of a
    patient under the rule "same"); ``unanswerable``: queries without a relevant candidate, dropped or counted as zero.
    """

    rule: str
    query: np.ndarray
    labels: np.ndarray
    patients: np.ndarray
    figures: ListFigures
    chance: dict[str, np.ndarray]
    no_candidate: int
    unanswerable: int

    def per_query(self, name: str) -> np.ndarray:
        """One of `FIGURES` for each query, (query,)."""
        if name not in FIGURES:
            msg = f"no retrieval figure is called {name!r}; there are {', '.join(FIGURES)}"
            raise ValueError(msg)
        return getattr(self.figures, name)

    def statistic(self, name: str, *, macro: bool = False) -> Callable[[np.ndarray], float]:
        """The mean of a figure as a function of rows of queries, for `intervals`; the gallery stays as it is.

        ``macro``: mean over the classes of the mean of their queries, NaN where a class has no query.
        """
        values = self.per_query(name)
        if not macro:
            return lambda rows: float(values[rows].mean()) if len(rows) else float("nan")
        names, label = np.unique(self.labels, return_inverse=True)

        def class_mean(rows: np.ndarray) -> float:
            queries = np.bincount(label[rows], minlength=len(names))
            sums = np.bincount(label[rows], weights=values[rows], minlength=len(names))
            return float((sums / queries).mean()) if len(names) and queries.all() else float("nan")

        return class_mean

    def mean(self, name: str, *, macro: bool = False) -> float:
        """Mean over the queries, or over the classes."""
        return self.statistic(name, macro=macro)(np.arange(len(self.query)))

    def chance_mean(self, name: str) -> float:
        """What a random order would score on the same queries and galleries, mean over the queries."""
        return float(self.chance[name].mean()) if len(self.query) else float("nan")


def retrieve(  # noqa: PLR0913
    embeddings: np.ndarray,
    labels: np.ndarray,
    patients: np.ndarray,
    *,
    rule: str = "all",
    k: int = 10,
    studies: np.ndarray | None = None,
    unanswerable: str = "drop",
    seed: int = 0,
    metric: str = COSINE,
) -> Retrieval:
    """Rank each lesion's gallery and judge it: the same label is relevant.

    ``embeddings``: (lesion, dimension), any length but zero; ``metric``: by which they are compared, "cosine", or "euclidean"
    for those of `LesionLib.metric.embeddings_of`; ``labels``, ``patients`` and ``studies``: (lesion,).
    ``rule``: "all" other lesions; "same" patient's; "cross": other patients' only, where ``studies`` are given also not
    those of the same study. ``unanswerable``: queries without a relevant candidate are dropped, as TREC and
    pytorch-metric-learning do, or count as "zero". Equal similarities are ordered by chance (``seed``), so that an
    embedding that collapsed scores chance level and not the order of the table.
    """
    unit = _normalised(embeddings)
    points = points_of(unit) if metric == EUCLIDEAN else None
    columns = {"labels": labels, "patients": patients} | ({} if studies is None else {"studies": studies})
    codes = {name: _codes(name, values, len(unit)) for name, values in columns.items()}
    _check(rule, unanswerable, k)
    shuffled = np.random.default_rng(seed).permutation(len(unit))
    parts, queries, alone = [], [], 0
    for asking, gallery in _blocks(codes["patients"], shuffled, rule):
        near = unit[asking] @ unit[gallery].T if points is None else -squared_distances(points[asking], points[gallery])
        order, candidates = _ranked(near, codes, asking, gallery, rule)
        answered = candidates > 0
        alone += int((~answered).sum())
        hits = codes["labels"][gallery][order] == codes["labels"][asking][:, None]
        if answered.any():
            parts.append(list_figures(hits[answered], k=k, candidates=candidates[answered]))
            queries.append(asking[answered])
    query = np.concatenate([np.empty(0, dtype=int), *queries])
    figures = _joined(parts, k)
    return _counted(rule, query, np.asarray(labels), np.asarray(patients), figures, alone, unanswerable)


def _blocks(patients: np.ndarray, shuffled: np.ndarray, rule: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Queries that share a gallery (before exclusions), and that gallery in its shuffled order."""
    galleries = [shuffled]
    if rule == "same":
        by_patient = shuffled[np.argsort(patients[shuffled], kind="stable")]
        galleries = np.split(by_patient, np.flatnonzero(np.diff(patients[by_patient])) + 1)
    for gallery in galleries:
        chunk = max(1, SIMILARITIES_AT_ONCE // max(len(gallery), 1))
        for start in range(0, len(gallery), chunk):
            yield np.sort(gallery)[start : start + chunk], gallery


def squared_distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Of each of the points ``one`` (n, d) to each of ``other`` (m, d), (n, m), not below 0."""
    lengths = np.square(one).sum(axis=1)[:, None] + np.square(other).sum(axis=1)
    return np.maximum(lengths - 2 * one @ other.T, 0.0)


def _ranked(
    near: np.ndarray, codes: dict[str, np.ndarray], asking: np.ndarray, gallery: np.ndarray, rule: str
) -> tuple[np.ndarray, np.ndarray]:
    """Places in the gallery, nearest first, (query, rank), and how many of them are candidates; the rest is excluded."""
    excluded = gallery == asking[:, None]
    if rule == "cross":
        for name in {"patients", "studies"} & codes.keys():
            excluded |= codes[name][gallery] == codes[name][asking][:, None]
    distance = -near
    distance[excluded] = np.inf
    return np.argsort(distance, axis=1, kind="stable"), (~excluded).sum(axis=1)


def _joined(parts: list[ListFigures], k: int) -> ListFigures:
    if not parts:
        return list_figures(np.zeros((0, 1), dtype=bool), k=k)
    names = [field.name for field in fields(ListFigures) if field.name != "k"]
    return ListFigures(k=k, **{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def _counted(
    rule: str,
    query: np.ndarray,
    labels: np.ndarray,
    patients: np.ndarray,
    figures: ListFigures,
    alone: int,
    unanswerable: str,
) -> Retrieval:
    """The queries in the order of the table, those without an answer dropped or set to zero."""
    chance = chance_levels(figures.candidates, figures.relevant, k=figures.k)
    answerable = figures.relevant > 0
    rows = np.argsort(query)
    if unanswerable == "drop":
        rows = rows[answerable[rows]]

    def counted(values: np.ndarray) -> np.ndarray:
        return np.where(np.isnan(values[rows]), 0.0, values[rows]) if values.dtype.kind == "f" else values[rows]

    kept = {f.name: counted(getattr(figures, f.name)) for f in fields(ListFigures) if f.name != "k"}
    return Retrieval(
        rule=rule,
        query=query[rows],
        labels=labels[query[rows]],
        patients=patients[query[rows]],
        figures=ListFigures(k=figures.k, **kept),
        chance={name: counted(values) for name, values in chance.items()},
        no_candidate=alone,
        unanswerable=int((~answerable).sum()),
    )


def without_direction(embeddings: np.ndarray) -> int:
    """How many of (lesion, dimension) are zero everywhere, as the last ReLU of a small network may leave them: they compare with
    nothing, and `retrieve` refuses them.
    """
    return int((~np.asarray(embeddings).any(axis=1)).sum())


def _normalised(embeddings: np.ndarray) -> np.ndarray:
    values = np.asarray(embeddings)
    values = values if values.dtype in (np.float32, np.float64) else values.astype(np.float64)
    if values.ndim != 2 or not np.isfinite(values).all():
        msg = f"embeddings must be finite numbers in shape (lesion, dimension), not {values.shape} with NaN or infinity"
        raise ValueError(msg)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    if (length == 0).any():
        msg = f"row {int(np.flatnonzero(length == 0)[0])} of the embeddings is zero everywhere: it has no direction"
        raise ValueError(msg)
    return values / length


def _codes(name: str, values: np.ndarray, lesions: int) -> np.ndarray:
    array = np.asarray(values)
    if array.shape != (lesions,):
        msg = f"{name} must have one value for each of the {lesions} embeddings, not shape {array.shape}"
        raise ValueError(msg)
    return np.unique(array, return_inverse=True)[1]


def _check(rule: str, unanswerable: str, k: int) -> None:
    if rule not in PATIENT_RULES or unanswerable not in UNANSWERABLE or k < 1:
        msg = (
            f"rule must be one of {', '.join(PATIENT_RULES)}, unanswerable one of {', '.join(UNANSWERABLE)} and k at "
            f"least 1; not {rule!r}, {unanswerable!r} and {k}"
        )
        raise ValueError(msg)
