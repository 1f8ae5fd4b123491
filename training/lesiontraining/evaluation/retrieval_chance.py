"""What a random order of the gallery scores: the level that a retrieval figure has to be read against.

Exact expectations over all orders of N candidates of which R are relevant; where a class fills half of the gallery, a
P@10 of .5 is nothing. Same-patient galleries are small and of few classes, so their chance level is high.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import gammaln
from scipy.stats import hypergeom


def chance_levels(candidates: np.ndarray, relevant: np.ndarray, *, k: int) -> dict[str, np.ndarray]:
    """Expected figure of each query, (query,), by the name it has in `rankings.ListFigures`; NaN where R = 0.

    ``candidates`` and ``relevant``: N and R of each query, (query,).
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
