"""Answers of a model that was never trained, as good as one wants them."""

from __future__ import annotations

import numpy as np
from lesiontraining.evaluation.predictions import Predictions


def predictions(n=120, *, classes=("a", "b"), skill=2.0, seed=0, split="test", folds=2) -> Predictions:
    """Two lesions a patient; ``skill``: how far the logits know the label; size knows half of it."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(len(classes), size=n)
    logits = rng.normal(size=(n, len(classes)))
    logits[np.arange(n), labels] += skill
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    embeddings = np.eye(16)[labels] * skill + rng.normal(0, 1, (n, 16))
    patients = np.array([f"P{i // 2}" for i in range(n)])
    volume = np.exp(rng.normal(5 + labels, 1.0))
    return Predictions(
        class_names=tuple(classes), lesion_ids=np.array([f"line {i + 2}" for i in range(n)]), patients=patients,
        studies=patients, folds=np.arange(n) // 2 % folds, split=np.full(n, split), labels=labels, probabilities=p,
        embeddings=embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True),
        size_mm=np.tile(np.cbrt(volume)[:, None], 3), volume_mm3=volume, mean_hu=rng.normal(0, 30, n),
        spacing_mm=np.tile([0.7, 0.7, 1.25], (n, 1)),
    )  # fmt: skip
