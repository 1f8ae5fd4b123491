"""A linear classifier on slice descriptors, every lesion weighing the same, and the classes too.

This is DMRN's last step (descriptor -> linear classifier -> mean over the slices) with logistic loss in the SVM's place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold

Drawing = Sequence[np.ndarray]  # per lesion: descriptors (slice, d)
_INNER_FOLDS = 4


@dataclass(frozen=True, eq=False)
class LinearHead:
    """``weight`` (d,) and ``bias`` of the log-odds of class 1; ``strength`` is the C it was fitted with."""

    weight: np.ndarray
    bias: float
    strength: float

    def logits(self, drawing: Drawing) -> list[np.ndarray]:
        """Two-class logits (slice, 2) of each lesion: minus and plus half of the log-odds."""
        halves = [(descriptors @ self.weight + self.bias) / 2 for descriptors in drawing]
        return [np.stack([-half, half], axis=1) for half in halves]


def fit_head(
    drawings: Sequence[Drawing], truth: np.ndarray, patients: np.ndarray, strengths: Sequence[float]
) -> LinearHead:
    """Fit on several drawings of the same lesions; C is chosen by inner folds that no patient crosses.

    The first drawing (the tight boxes) weighs as much as all others together, so that neither way to draw a box is favoured.
    """
    if len(strengths) == 1:
        return _fit(drawings, truth, strengths[0])
    inner = GroupKFold(_INNER_FOLDS)
    scores = np.zeros(len(strengths))
    for rest, held_out in inner.split(truth, truth, patients):
        for place, strength in enumerate(strengths):
            head = _fit([[d[i] for i in rest] for d in drawings], truth[rest], strength)
            for drawing in drawings:
                log_odds = [logits[:, 1].mean() for logits in head.logits([drawing[i] for i in held_out])]
                scores[place] += roc_auc_score(truth[held_out], log_odds)
    return _fit(drawings, truth, strengths[int(scores.argmax())])


def _fit(drawings: Sequence[Drawing], truth: np.ndarray, strength: float) -> LinearHead:
    rows = [descriptors for drawing in drawings for descriptors in drawing]
    x = np.concatenate(rows).astype(np.float64)
    y = np.concatenate(
        [np.full(len(row), label) for drawing in drawings for row, label in zip(drawing, truth, strict=True)]
    )
    shares = [1.0] if len(drawings) == 1 else [0.5] + [0.5 / (len(drawings) - 1)] * (len(drawings) - 1)
    weights = np.concatenate(
        [
            np.full(len(row), share / len(row))
            for share, drawing in zip(shares, drawings, strict=True)
            for row in drawing
        ]
    )
    mean, scale = x.mean(axis=0), x.std(axis=0) + 1e-6
    of_class = np.where(truth, len(truth) / (2 * truth.sum()), len(truth) / (2 * (~truth).sum()))
    per_lesion = np.concatenate(
        [np.full(len(row), w) for drawing in drawings for row, w in zip(drawing, of_class, strict=True)]
    )
    model = LogisticRegression(C=strength, max_iter=500)
    model.fit((x - mean) / scale, y, sample_weight=weights * per_lesion)
    weight = model.coef_[0] / scale
    return LinearHead(weight, float(model.intercept_[0] - weight @ mean), strength)
