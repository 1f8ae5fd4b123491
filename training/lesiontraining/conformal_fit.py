"""The quantile behind a model's prediction sets, and how often they held: fitted here, applied in LesionLib."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
from LesionLib.conformal import ConformalQuantile, checked_probabilities, prediction_sets
from LesionLib.proportion import Proportion, proportion


@dataclass(frozen=True)
class Coverage:
    """In how many lesions the set held the true class, beside what was ``promised``; ``mean_size``: classes in a set."""

    covered: Proportion
    mean_size: float
    promised: float

    def __str__(self) -> str:
        """One sentence for a model card."""
        share = self.covered
        return (
            f"The set held the true class in {share.hits} of {share.n} lesions, {share.value:.1%} "
            f"(95 % interval {share.low:.1%} to {share.high:.1%}; promised {self.promised:.0%}); "
            f"it held {self.mean_size:.2f} classes on average."
        )


def fit_quantile(
    probabilities: np.ndarray, labels: np.ndarray, alpha: float, *, class_conditional: bool = False
) -> ConformalQuantile:
    """The quantile of 1 - p(true class) over calibration lesions that the model and its temperature never saw.

    LAC (Sadinle, Lei and Wasserman, JASA 2019) with the finite-sample correction of split conformal prediction
    (Angelopoulos and Bates 2021, section 1): the ceil((n + 1)(1 - alpha))-th smallest score. A set then holds the true
    class with probability of at least 1 - ``alpha`` for a new lesion that comes from where the n came from.
    ``class_conditional``: one quantile for each class (Mondrian; Vovk 2012), so that the promise holds for the rare too.
    ``probabilities``: (n, class); ``labels``: (n,), class indices. Several lesions of one patient are not exchangeable
    with those of a new one: give one lesion a patient where that matters. Raises ValueError where n is too small.
    """
    p, y = checked_probabilities(probabilities, labels)
    if not 0 < alpha < 1:
        msg = f"alpha must lie between 0 and 1, not {alpha!r}"
        raise ValueError(msg)
    missed = 1.0 - p[np.arange(len(y)), y]
    counts = np.bincount(y, minlength=p.shape[1])
    if class_conditional:
        scores = np.array([_corrected(missed[y == c], alpha, f"class {c}") for c in range(p.shape[1])])
    else:
        scores = np.full(p.shape[1], _corrected(missed, alpha, "calibration"))
    return ConformalQuantile(scores, float(alpha), counts, class_conditional)


def smallest_n(alpha: float) -> int:
    """The fewest calibration lesions (of a class, where class-conditional) with which 1 - ``alpha`` can be promised."""
    return max(1, ceil(1 / alpha - 1 - 1e-9))


def coverage(
    probabilities: np.ndarray, labels: np.ndarray, quantile: ConformalQuantile, *, never_empty: bool = True
) -> Coverage:
    """The empirical coverage on lesions that took no part in the fit, e.g. of one class where their labels are all it."""
    p, y = checked_probabilities(probabilities, labels)
    held = prediction_sets(p, quantile, never_empty=never_empty)
    covered = int(held[np.arange(len(y)), y].sum())
    return Coverage(proportion(covered, len(y)), float(held.sum(axis=1).mean()), 1.0 - quantile.alpha)


def _corrected(scores: np.ndarray, alpha: float, of: str) -> float:
    n = len(scores)
    rank = ceil((n + 1) * (1.0 - alpha) - 1e-9)  # 10 * (1 - 0.1) must not be 9.000000000000002
    if n == 0 or rank > n:
        msg = (
            f"{of}: {n} lesions are too few for alpha {alpha:g}; at least {smallest_n(alpha)} are needed. "
            "Give more, or a larger alpha"
        )
        raise ValueError(msg)
    return float(np.sort(scores)[max(rank, 1) - 1])
