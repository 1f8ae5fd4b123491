"""Whether a probability of 80 % is right in 80 of 100 lesions: expected calibration error, Brier score, log loss, bins.

Each works on binary pairs (confidence, whether it came true); `top_label` and `one_class` make such pairs of class
probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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
    """Confidence of the likeliest class and whether it is the true one, (lesion,) each."""
    p, y = _checked(probabilities, labels)
    return np.minimum(p.max(axis=1), 1.0), p.argmax(axis=1) == y


def one_class(probabilities: np.ndarray, labels: np.ndarray, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Probability of one class and whether the lesion is of it, (lesion,) each."""
    p, y = _checked(probabilities, labels)
    return np.minimum(p[:, index], 1.0), y == index


def expected_calibration_error(
    probabilities: np.ndarray, labels: np.ndarray, *, bins: int = 10, scheme: str = "width"
) -> float:
    """ECE of the likeliest class. ``probabilities``: (lesion, class); ``labels``: class indices, (lesion,)."""
    return reliability_bins(*top_label(probabilities, labels), bins=bins, scheme=scheme).expected_error


def brier_score(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean over lesions of the squared distance to the truth, summed over classes: 0 to 2 (Brier 1950).

    For two classes this is twice the binary score that many print.
    """
    p, y = _checked(probabilities, labels)
    return float(np.square(p - np.eye(p.shape[1])[y]).sum(axis=1).mean()) if len(p) else float("nan")


def log_loss(probabilities: np.ndarray, labels: np.ndarray, *, smallest: float = 1e-7) -> float:
    """Mean of -ln p(true class); probabilities below ``smallest`` count as that, so that one lesion can't make it infinite."""
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
