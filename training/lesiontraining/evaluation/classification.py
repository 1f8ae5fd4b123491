"""Figures of a classifier: confusion matrix, one-vs-rest figures and their macro means, AUC, calibration.

One-vs-rest are sensitivity, specificity, precision and F1. What does not exist is NaN, never a guess: the sensitivity of a
class that no lesion has, the AUC of one class alone. `intervals` counts the bootstrap draws in which that happens.

Calibration is whether a probability of 80 % is right in 80 of 100 lesions: expected calibration error, Brier score, log loss,
bins. Each works on binary pairs (confidence, whether it came true); `top_label` and `one_class` make such pairs of class
probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

SCHEMES = ("width", "mass")
_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class ReliabilityBins:
    """For a reliability diagram, bins without lesions left out; each of shape (bin,).

    ``low`` and ``high``: the confidences between which a bin lies; ``confidence``: their mean; ``observed``: the share
    that came true; ``lesions``: how many.
    """

    low: np.ndarray
    high: np.ndarray
    confidence: np.ndarray
    observed: np.ndarray
    lesions: np.ndarray

    @property
    def expected_error(self) -> float:
        """ECE: mean distance of observed from confidence, each bin weighing as many lesions as it has; NaN for none."""
        if not len(self.lesions):
            return float("nan")
        return float(np.average(np.abs(self.observed - self.confidence), weights=self.lesions))

    def as_json(self) -> list[dict[str, float | int]]:
        """One entry a bin, for a plot."""
        rows = zip(self.low, self.high, self.confidence, self.observed, self.lesions, strict=True)
        names = ("low", "high", "confidence", "observed")
        return [
            {n: round(float(x), 4) for n, x in zip(names, row, strict=False)} | {"lesions": int(row[4])} for row in rows
        ]


def reliability_bins(
    confidence: np.ndarray, came_true: np.ndarray, *, bins: int = 10, scheme: str = "width"
) -> ReliabilityBins:
    """Group lesions by confidence: bins of equal "width" (Guo et al., ICML 2017) or of equal "mass" (as many lesions each).

    ``confidence``: 0 to 1, (lesion,); ``came_true``: bool, (lesion,). Bins are open below and closed above, the first one
    closed on both sides. By mass, equal confidences stay in one bin, so that their order in the table doesn't matter.
    """
    p, true = np.asarray(confidence, dtype=np.float64), np.asarray(came_true, dtype=bool)
    if p.shape != true.shape or p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        msg = f"confidence must lie in 0 to 1 and have the shape (lesion,) of came_true, not {p.shape} and {true.shape}"
        raise ValueError(msg)
    if scheme not in SCHEMES or bins < 1:
        msg = f"scheme must be one of {', '.join(SCHEMES)} and bins at least 1, not {scheme!r} and {bins}"
        raise ValueError(msg)
    edges = np.linspace(0, 1, bins + 1)
    if scheme == "mass" and len(p):
        # The ranks in whole numbers: 0.3 * 100 is 30.000000000000004, and a bin would get a lesion too many.
        last = -(-len(p) * np.arange(1, bins + 1) // bins) - 1
        edges = np.unique(np.concatenate([[0.0], np.sort(p)[last]]))
        edges = edges if len(edges) > 1 else np.array([0.0, 1.0])
    which = np.clip(np.searchsorted(edges, p, side="left") - 1, 0, None)
    lesions = np.bincount(which, minlength=len(edges) - 1)
    used = lesions > 0

    def mean(values: np.ndarray) -> np.ndarray:
        return np.bincount(which, weights=values, minlength=len(lesions))[used] / lesions[used]

    return ReliabilityBins(edges[:-1][used], edges[1:][used], mean(p), mean(true), lesions[used])


def top_label(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Confidence of the likeliest class and whether it is the true one, (lesion,) each.

    ``probabilities``: (lesion, class); ``labels``: class indices, (lesion,).
    """
    p, y = _checked(probabilities, labels)
    return np.minimum(p.max(axis=1), 1.0), p.argmax(axis=1) == y


def one_class(probabilities: np.ndarray, labels: np.ndarray, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Probability of one class and whether the lesion is of it, (lesion,) each.

    ``probabilities``: (lesion, class); ``labels``: class indices, (lesion,).
    """
    p, y = _checked(probabilities, labels)
    return np.minimum(p[:, index], 1.0), y == index


def expected_calibration_error(
    probabilities: np.ndarray, labels: np.ndarray, *, bins: int = 10, scheme: str = "width"
) -> float:
    """ECE of the likeliest class. ``probabilities``: (lesion, class); ``labels``: class indices, (lesion,)."""
    return reliability_bins(*top_label(probabilities, labels), bins=bins, scheme=scheme).expected_error


def brier_score(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean over lesions of the squared distance to the truth, summed over classes: 0 to 2 (Brier 1950).

    For two classes this is twice the binary score that many print. ``probabilities``: (lesion, class); ``labels``: class
    indices, (lesion,).
    """
    p, y = _checked(probabilities, labels)
    return float(np.square(p - np.eye(p.shape[1])[y]).sum(axis=1).mean()) if len(p) else float("nan")


def log_loss(probabilities: np.ndarray, labels: np.ndarray, *, smallest: float = 1e-7) -> float:
    """Mean of -ln p(true class); probabilities below ``smallest`` count as that, so that one lesion can't make it infinite.

    ``probabilities``: (lesion, class); ``labels``: class indices, (lesion,).
    """
    p, y = _checked(probabilities, labels)
    return float(-np.log(np.maximum(p[np.arange(len(p)), y], smallest)).mean()) if len(p) else float("nan")


def _checked(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    if p.ndim != 2 or p.shape[1] < 2:
        msg = f"probabilities must have shape (lesion, class) with two classes or more, not {p.shape}"
        raise ValueError(msg)
    y = y.astype(np.int64) if y.dtype == bool else y
    if y.shape != (len(p),) or y.dtype.kind not in "iu" or (len(y) and not (y.min() >= 0 and y.max() < p.shape[1])):
        msg = f"labels must be {len(p)} whole numbers from 0 to {p.shape[1] - 1}"
        raise ValueError(msg)
    if not ((p >= 0).all() and (np.abs(p.sum(axis=1) - 1) <= _SUM_TOLERANCE).all()):
        msg = "probabilities must not be negative and must add up to 1 in each lesion; were these logits?"
        raise ValueError(msg)
    return p, y


@dataclass(frozen=True, eq=False)
class OneVsRest:
    """Counts of each class against all others, each of shape (class,)."""

    tp: np.ndarray
    fn: np.ndarray
    fp: np.ndarray
    tn: np.ndarray

    @property
    def sensitivity(self) -> np.ndarray:
        """Share of a class's lesions that were called so (recall); NaN where the class does not occur."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def specificity(self) -> np.ndarray:
        """Share of the other lesions that were not called so; NaN where there is no other."""
        return _ratio(self.tn, self.tn + self.fp)

    @property
    def precision(self) -> np.ndarray:
        """Share of those called so that are; 0 for a class that occurs and was never called, so that neglect costs."""
        never_called = (self.tp + self.fp == 0) & (self.tp + self.fn > 0)
        return np.where(never_called, 0.0, _ratio(self.tp, self.tp + self.fp))

    @property
    def f1(self) -> np.ndarray:
        """2 TP / (2 TP + FP + FN): the harmonic mean of sensitivity and precision."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)


@dataclass(frozen=True)
class Overall:
    """One line of a table; ``macro_...``: the unweighted mean over classes, rare ones counting as much as frequent."""

    accuracy: float
    balanced_accuracy: float
    macro_specificity: float
    macro_precision: float
    macro_f1: float
    weighted_f1: float

    @property
    def macro_sensitivity(self) -> float:
        """The same as the balanced accuracy, under the name that tables give it."""
        return self.balanced_accuracy


def confusion_matrix(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts, shape (class, class): rows are the truth, columns the answer. Both arguments: class indices, (lesion,)."""
    t, p = (_class_indices(values, classes, name) for values, name in ((truth, "truth"), (predicted, "predicted")))
    if len(t) != len(p):
        msg = f"truth has {len(t)} lesions and predicted {len(p)}; give one of each a lesion"
        raise ValueError(msg)
    return np.bincount(t * classes + p, minlength=classes * classes).reshape(classes, classes)


def one_vs_rest(confusion: np.ndarray) -> OneVsRest:
    """The four counts of each class from a confusion matrix (rows: truth)."""
    matrix = checked_confusion(confusion)
    tp = np.diag(matrix)
    fn, fp = matrix.sum(axis=1) - tp, matrix.sum(axis=0) - tp
    return OneVsRest(tp, fn, fp, matrix.sum() - tp - fn - fp)


def overall(confusion: np.ndarray) -> Overall:
    """Accuracy (trace / all) and means over the classes; a macro mean is NaN where a class does not occur."""
    matrix, each = checked_confusion(confusion), one_vs_rest(confusion)
    of_class = matrix.sum(axis=1)
    occurring = of_class > 0
    return Overall(
        accuracy=float(_ratio(np.trace(matrix), matrix.sum())),
        balanced_accuracy=float(each.sensitivity.mean()),
        macro_specificity=float(each.specificity.mean()),
        macro_precision=float(np.where(occurring, each.precision, np.nan).mean()),
        macro_f1=float(np.where(occurring, each.f1, np.nan).mean()),
        weighted_f1=float(_ratio((each.f1[occurring] * of_class[occurring]).sum(), matrix.sum())),
    )


def accuracy(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Share of right answers; NaN for no lesions.

    ``truth`` and ``predicted``: class indices, (lesion,) each.
    """
    return float(np.mean(truth == predicted)) if len(truth) else float("nan")


def balanced_accuracy(truth: np.ndarray, predicted: np.ndarray, classes: int) -> float:
    """Mean over the classes of the share that was called right; NaN where a class does not occur.

    ``truth`` and ``predicted``: class indices, (lesion,) each.
    """
    return overall(confusion_matrix(truth, predicted, classes)).balanced_accuracy


def macro_f1(truth: np.ndarray, predicted: np.ndarray, classes: int) -> float:
    """Mean over the classes of F1; NaN where a class does not occur.

    ``truth`` and ``predicted``: class indices, (lesion,) each.
    """
    return overall(confusion_matrix(truth, predicted, classes)).macro_f1


def auc(truth: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve, ties counting one half (Mann and Whitney); NaN where only one class occurs.

    ``truth``: bool, (lesion,); ``score``: larger for what is more likely positive, (lesion,).
    """
    positive, values = np.asarray(truth, dtype=bool), np.asarray(score, dtype=np.float64)
    if positive.shape != values.shape or positive.ndim != 1:
        msg = f"truth and score must be of one shape (lesion,), not {positive.shape} and {values.shape}"
        raise ValueError(msg)
    if np.isnan(values).any():
        msg = f"{int(np.isnan(values).sum())} of {len(values)} scores are not a number; a lesion without score has no rank"
        raise ValueError(msg)
    m = int(positive.sum())
    n = len(positive) - m
    if m == 0 or n == 0:
        return float("nan")
    return float((rankdata(values)[positive].sum() - m * (m + 1) / 2) / (m * n))


def macro_auc(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """Unweighted mean over the classes of the one-vs-rest AUC; NaN where a class does not occur.

    ``truth``: class indices, (lesion,); ``probabilities``: (lesion, class).
    """
    p = np.asarray(probabilities)
    if p.ndim != 2:
        msg = f"probabilities must have shape (lesion, class), not {p.shape}"
        raise ValueError(msg)
    labels = _class_indices(truth, p.shape[1], "truth")
    if p.shape[1] == 2:  # that of the first class is the same number
        return auc(labels == 1, p[:, 1])
    return float(np.mean([auc(labels == c, p[:, c]) for c in range(p.shape[1])]))


def checked_confusion(confusion: np.ndarray) -> np.ndarray:
    """The matrix as int64; raises ValueError for what is no table of counts."""
    matrix = np.asarray(confusion)
    square = matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1] and matrix.shape[0] >= 2
    if not square or (matrix < 0).any() or (matrix != np.floor(matrix)).any():
        msg = f"a confusion matrix holds whole numbers from 0 in shape (class, class), not {matrix.tolist()!r:.120}"
        raise ValueError(msg)
    return matrix.astype(np.int64)


def _class_indices(values: np.ndarray, classes: int, name: str) -> np.ndarray:
    indices = np.asarray(values)
    if indices.dtype == bool:
        indices = indices.astype(np.int64)
    wrong = indices.ndim != 1 or indices.dtype.kind not in "iu"
    if wrong or (len(indices) and (indices.min() < 0 or indices.max() >= classes)):
        msg = f"{name} must be class indices from 0 to {classes - 1}, shape (lesion,), not {indices!r:.120}"
        raise ValueError(msg)
    return indices.astype(np.int64)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    part, whole = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    return np.divide(part, whole, out=np.full(np.broadcast(part, whole).shape, np.nan), where=whole > 0)
