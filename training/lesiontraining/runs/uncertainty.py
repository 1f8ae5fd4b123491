"""A model's temperature, prediction sets and distance to the training lesions: fitted here, applied in LesionLib.

Of the sets it is the quantile behind them, and how often they held. The distance is the one that a model folder holds.
For a model that is fitted on everything there is, ``cross_fitted...`` does it fold by fold: what is fitted on all lesions
for use, and what the same procedure says of each fold when it is fitted on the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from LesionLib.uncertainty.conformal import (
    ConformalQuantile,
    Proportion,
    checked_probabilities,
    prediction_sets,
    proportion,
)
from LesionLib.uncertainty.out_of_distribution import (
    Distance,
    Mahalanobis,
    Neighbours,
    OutOfDistribution,
    checked_embeddings,
)
from scipy.optimize import minimize_scalar
from scipy.special import softmax

TEMPERATURES = (0.05, 20.0)
_SMALLEST = 1e-7  # a probability below counts as this, so that one lesion can't make the log loss infinite


def mean_probabilities(logits: Sequence[np.ndarray], temperature: float = 1.0) -> np.ndarray:
    """The mean of the slices' probabilities of each lesion, (n, class), float64. ``logits``: (slice, class) each.

    The first class has what the others leave, so that rows add up to 1 to the last digit.
    """
    ends = np.cumsum([len(of_lesion) for of_lesion in logits])
    p = np.split(softmax(np.concatenate(logits) / temperature, axis=1), ends[:-1])  # one call costs as much as all
    others = np.array([[of_slices[:, c].mean() for c in range(1, of_slices.shape[1])] for of_slices in p])
    return np.column_stack([1.0 - others.sum(axis=1), others])


def best_temperature(
    probabilities_at: Callable[[float], np.ndarray],
    labels: np.ndarray,
    *,
    balanced: bool = False,
    bounds: tuple[float, float] = TEMPERATURES,
) -> float:
    """The temperature with the least log loss of the lesion probabilities (Guo et al., ICML 2017).

    ``probabilities_at``: lesion probabilities (n, class) at a temperature, averaged over slices after it is applied;
    ``labels``: class indices, (n,). ``balanced``: every class that occurs weighs the same, for probabilities that are meant
    to hold where classes are equally frequent; else every lesion does.
    """
    y = np.asarray(labels).astype(np.int64)
    rows, counts = np.arange(len(y)), np.bincount(y)
    weight = 1 / ((counts > 0).sum() * counts[y]) if balanced else np.full(len(y), 1 / len(y))

    def loss(log_temperature: float) -> float:
        p = probabilities_at(float(np.exp(log_temperature)))[rows, y]
        return float(-(weight * np.log(np.clip(p, _SMALLEST, 1.0))).sum())

    return float(np.exp(minimize_scalar(loss, bounds=tuple(np.log(bounds)), method="bounded").x))


def cross_fitted_probabilities(
    logits: Sequence[np.ndarray],
    labels: np.ndarray,
    folds: np.ndarray,
    *,
    balanced: bool = False,
    bounds: tuple[float, float] = TEMPERATURES,
) -> np.ndarray:
    """Lesion probabilities (n, class), each fold's temperature fitted on the other folds only.

    ``logits``: (slice, class) each, by a head that never saw the lesion's patient; ``labels``: class indices, ``folds``: (n,).
    """
    y, of_fold = np.asarray(labels), np.asarray(folds)
    found = np.empty((len(y), logits[0].shape[1]))
    for fold in np.unique(of_fold):
        rest, here = ([logits[i] for i in np.flatnonzero(chosen)] for chosen in (of_fold != fold, of_fold == fold))
        temperature = best_temperature(
            lambda t, rest=rest: mean_probabilities(rest, t), y[of_fold != fold], balanced=balanced, bounds=bounds
        )
        found[of_fold == fold] = mean_probabilities(here, temperature)
    return found


@dataclass(frozen=True)
class Coverage:
    """In how many lesions the set held the true class, beside what was ``target_coverage``; ``mean_size``: classes in a set."""

    covered: Proportion
    mean_size: float
    target_coverage: float

    def __str__(self) -> str:
        """One sentence for a model card."""
        share = self.covered
        return (
            f"The set held the true class in {share.hits} of {share.n} lesions, {share.value:.1%} "
            f"(95 % interval {share.low:.1%} to {share.high:.1%}; promised {self.target_coverage:.0%}); "
            f"it held {self.mean_size:.2f} classes on average."
        )

    def as_json(self) -> dict[str, float]:
        """For a manifest."""
        return {
            **proportion_as_json(self.covered),
            "promised": self.target_coverage,
            "mean_size": round(self.mean_size, 4),
        }


def proportion_as_json(share: Proportion) -> dict[str, float]:
    """Hits, lesions and interval, for a manifest."""
    return {"hits": share.hits, "n": share.n, "low": round(share.low, 4), "high": round(share.high, 4)}


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
    """The empirical coverage on lesions that took no part in the fit, e.g. of one class where their labels are all it.

    ``probabilities``: (n, class); ``labels``: class indices, (n,).
    """
    p, y = checked_probabilities(probabilities, labels)
    return coverage_of_sets(prediction_sets(p, quantile, never_empty=never_empty), y, alpha=quantile.alpha)


def coverage_of_sets(sets: np.ndarray, labels: np.ndarray, *, alpha: float) -> Coverage:
    """As `coverage`, of sets made already. ``sets``: bool (n, class), ``labels``: class indices, (n,)."""
    covered = int(sets[np.arange(len(labels)), labels].sum())
    return Coverage(proportion(covered, len(labels)), float(sets.sum(axis=1).mean()), 1.0 - alpha)


def cross_fitted_sets(
    probabilities: np.ndarray, labels: np.ndarray, folds: np.ndarray, alpha: float, *, class_conditional: bool = True
) -> tuple[ConformalQuantile, np.ndarray]:
    """`fit_quantile` on all lesions; and of each fold the sets by the quantile of the others, bool (n, class).

    ``probabilities``: (n, class), of lesions that the model did not see; ``labels``: class indices, ``folds``: (n,).
    """
    sets = np.empty(np.shape(probabilities), dtype=bool)
    for fold in np.unique(folds):
        rest, here = folds != fold, folds == fold
        quantile = fit_quantile(probabilities[rest], labels[rest], alpha, class_conditional=class_conditional)
        sets[here] = prediction_sets(probabilities[here], quantile)
    return fit_quantile(probabilities, labels, alpha, class_conditional=class_conditional), sets


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


def fit_out_of_distribution(
    training: np.ndarray,
    validation: np.ndarray,
    *,
    labels: np.ndarray | None = None,
    method: str = "mahalanobis",
    quantile: float = 0.95,
    k: int = 10,
) -> OutOfDistribution:
    """The distance from L2-normalised training embeddings (n, d), its threshold from those of validation lesions (m, d).

    ``labels``: (n,), the training lesions' classes, for one mean each; without them there is one mean. The threshold is
    the ceil((m + 1) ``quantile``)-th smallest validation score, so that a lesion like these is warned of with probability
    of at most 1 - ``quantile``. Training lesions lie too near their own mean to set it: validation must be other lesions.
    Raises ValueError for too few of them.
    """
    distance, other = (
        _distance(training, labels, method, k),
        checked_embeddings(validation, size=np.shape(training)[-1]),
    )
    return OutOfDistribution(distance, _threshold(distance.of(other), quantile), float(quantile))


def cross_fitted(
    embeddings: np.ndarray,
    folds: np.ndarray,
    *,
    labels: np.ndarray | None = None,
    method: str = "mahalanobis",
    quantile: float = 0.95,
    k: int = 10,
) -> tuple[OutOfDistribution, np.ndarray]:
    """`fit_out_of_distribution` on all lesions, its threshold from scores of lesions whose fold the distance did not see.

    For models that are fitted on everything there is. ``embeddings``: (n, d), L2-normalised; ``labels``: (n,), as in
    `fit_out_of_distribution`; ``folds``: (n,), patients never across. Also returns what the same
    procedure says of each fold when it is fitted, threshold and all, on the others: bool (n,), whether a lesion was warned
    of; its share is the honest figure beside 1 - ``quantile``. Raises ValueError where there are fewer than three folds.
    """
    e, of_fold = checked_embeddings(embeddings), np.asarray(folds)
    if of_fold.shape != (len(e),) or len(np.unique(of_fold)) < 3:
        msg = f"{len(e)} lesions in at least 3 folds are needed, not folds of shape {of_fold.shape}"
        raise ValueError(msg)
    scores = _out_of_fold_scores(e, of_fold, labels, method, k)
    warned = np.empty(len(e), dtype=bool)
    for fold in np.unique(of_fold):
        rest, here = of_fold != fold, of_fold == fold
        inner = _out_of_fold_scores(e[rest], of_fold[rest], _of(labels, rest), method, k)
        warned[here] = scores[here] > _threshold(inner, quantile)
    whole = _distance(e, labels, method, k)
    return OutOfDistribution(whole, _threshold(scores, quantile), float(quantile)), warned


def _out_of_fold_scores(
    embeddings: np.ndarray, folds: np.ndarray, labels: np.ndarray | None, method: str, k: int
) -> np.ndarray:
    scores = np.empty(len(embeddings))
    for fold in np.unique(folds):
        rest = folds != fold
        scores[~rest] = _distance(embeddings[rest], _of(labels, rest), method, k).of(embeddings[~rest])
    return scores


def _of(labels: np.ndarray | None, chosen: np.ndarray) -> np.ndarray | None:
    return None if labels is None else np.asarray(labels)[chosen]


def _distance(training: np.ndarray, labels: np.ndarray | None, method: str, k: int) -> Distance:
    train = checked_embeddings(training)
    if method not in ("mahalanobis", "neighbours"):
        msg = f"method must be 'mahalanobis' or 'neighbours', not {method!r}"
        raise ValueError(msg)
    if method == "neighbours" and not 1 <= k <= len(train):
        msg = f"k must lie between 1 and the number of training lesions, {len(train)}; not {k}"
        raise ValueError(msg)
    return _mahalanobis(train, labels) if method == "mahalanobis" else Neighbours(train, k)


def ledoit_wolf(centered: np.ndarray) -> tuple[np.ndarray, float]:
    """Covariance (d, d) of centred rows (n, d), shrunk towards a multiple of the identity, and how much: 0 to 1.

    Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", J Multivar Anal 2004,
    lemma 3.2 to 3.5; norms are divided by d as there.
    """
    n, d = centered.shape
    sample = centered.T @ centered / n
    mean_variance = np.trace(sample) / d
    distance = ((sample - mean_variance * np.eye(d)) ** 2).sum() / d
    noise = ((centered**2).sum(axis=1) ** 2).sum() / n - (sample**2).sum()
    shrinkage = float(min(noise / d / n, distance) / distance) if distance > 0 else 1.0
    return (1.0 - shrinkage) * sample + shrinkage * mean_variance * np.eye(d), shrinkage


def _mahalanobis(train: np.ndarray, labels: np.ndarray | None) -> Mahalanobis:
    groups = np.zeros(len(train), dtype=int) if labels is None else np.asarray(labels)
    if groups.shape != (len(train),):
        msg = f"{len(train)} training lesions need as many labels, not {groups.shape}"
        raise ValueError(msg)
    _, group_of = np.unique(groups, return_inverse=True)
    means = np.stack([train[group_of == g].mean(axis=0) for g in range(group_of.max() + 1)])
    covariance, _ = ledoit_wolf(train - means[group_of])
    variances, axes = np.linalg.eigh(covariance)
    if not variances.min() > 0:
        msg = f"the {len(train)} training lesions do not differ from their class means; give more, and different ones"
        raise ValueError(msg)
    return Mahalanobis(means, axes / np.sqrt(variances))


def _threshold(scores: np.ndarray, quantile: float) -> float:
    if not 0 < quantile < 1:
        msg = f"quantile must lie between 0 and 1, not {quantile!r}"
        raise ValueError(msg)
    rank = ceil((len(scores) + 1) * quantile - 1e-9)
    if rank > len(scores):
        needed = ceil(quantile / (1 - quantile) - 1e-9)
        msg = (
            f"{len(scores)} validation lesions are too few for the quantile {quantile:g}; at least {needed} are needed"
        )
        raise ValueError(msg)
    return float(np.sort(scores)[rank - 1])
