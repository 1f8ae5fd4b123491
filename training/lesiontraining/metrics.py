"""Figures with their intervals: AUC, balanced accuracy, sensitivity, specificity; patients drawn, not lesions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import roc_auc_score

Metric = Callable[[np.ndarray, np.ndarray], float]


def auc(truth: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve; NaN where only one class occurs."""
    return float(roc_auc_score(truth, score)) if 0 < truth.sum() < len(truth) else float("nan")


def sensitivity(truth: np.ndarray, score: np.ndarray) -> float:
    """Share of the malignant that is called so (score at least 0.5); NaN where there is none."""
    return float((score[truth] >= 0.5).mean()) if truth.any() else float("nan")


def specificity(truth: np.ndarray, score: np.ndarray) -> float:
    """Share of the benign that is called so (score below 0.5); NaN where there is none."""
    return float((score[~truth] < 0.5).mean()) if (~truth).any() else float("nan")


def balanced_accuracy(truth: np.ndarray, score: np.ndarray) -> float:
    """Mean of sensitivity and specificity."""
    return (sensitivity(truth, score) + specificity(truth, score)) / 2


METRICS: dict[str, Metric] = {
    "AUC": auc,
    "balanced accuracy": balanced_accuracy,
    "sensitivity": sensitivity,
    "specificity": specificity,
}


@dataclass(frozen=True)
class Figure:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """``0.912 (0.887-0.934)``."""
        return f"{self.value:.3f} ({self.low:.3f}-{self.high:.3f})"

    def as_json(self) -> dict[str, float]:
        """Rounded to four digits."""
        return {"value": round(self.value, 4), "low": round(self.low, 4), "high": round(self.high, 4)}


def patient_draws(patients: Sequence[str], *, draws: int, seed: int) -> list[np.ndarray]:
    """Indices of the lesions of ``draws`` bootstrap samples of patients, drawn with replacement."""
    names, patient_of = np.unique(np.asarray(patients), return_inverse=True)
    lesions_of = [np.flatnonzero(patient_of == patient) for patient in range(len(names))]
    rng = np.random.default_rng(seed)
    return [
        np.concatenate([lesions_of[patient] for patient in rng.integers(len(names), size=len(names))])
        for _ in range(draws)
    ]


def with_interval(metric: Metric, truth: np.ndarray, score: np.ndarray, drawn: Sequence[np.ndarray]) -> Figure:
    """The metric and its 95 % percentile interval over the drawn samples."""
    values = [metric(truth[index], score[index]) for index in drawn]
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return Figure(metric(truth, score), float(low), float(high))


def paired_difference(
    metric: Metric, truth: np.ndarray, score: np.ndarray, other: np.ndarray, drawn: Sequence[np.ndarray]
) -> Figure:
    """metric(score) - metric(other) on the same lesions, with the interval of the difference."""
    values = [metric(truth[index], score[index]) - metric(truth[index], other[index]) for index in drawn]
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return Figure(metric(truth, score) - metric(truth, other), float(low), float(high))
