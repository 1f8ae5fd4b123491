"""One temperature that makes the averaged probabilities honest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import softmax


def lesion_probability(slice_logits: Sequence[np.ndarray], temperature: float = 1.0) -> np.ndarray:
    """Mean over a lesion's slices of the probability of class 1, shape (lesions,). Logits: (slice, 2) each."""
    return np.array([softmax(logits / temperature, axis=1)[:, 1].mean() for logits in slice_logits])


def fit_temperature(slice_logits: Sequence[np.ndarray], truth: np.ndarray) -> float:
    """The temperature with the least cross-entropy of lesion probabilities, both classes weighing the same.

    Guo et al., ICML 2017, applied after the mean over slices.
    """
    weight = np.where(truth, 0.5 / max(truth.sum(), 1), 0.5 / max((~truth).sum(), 1))

    def loss(log_temperature: float) -> float:
        p = np.clip(lesion_probability(slice_logits, float(np.exp(log_temperature))), 1e-7, 1 - 1e-7)
        return float(-(weight * np.where(truth, np.log(p), np.log(1 - p))).sum())

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.2), np.log(10.0)), method="bounded").x))


def cross_fitted_probability(slice_logits: Sequence[np.ndarray], truth: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Lesion probabilities, each fold's temperature fitted on the other folds only."""
    probability = np.empty(len(truth))
    for fold in np.unique(folds):
        rest, here = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        temperature = fit_temperature([slice_logits[i] for i in rest], truth[rest])
        probability[here] = lesion_probability([slice_logits[i] for i in here], temperature)
    return probability
