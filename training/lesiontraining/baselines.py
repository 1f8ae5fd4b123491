"""What size and density alone can say: the rows that every model stands beside."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from .nodules import Nodule


def volume_features(nodules: Sequence[Nodule]) -> np.ndarray:
    """Logarithm of the mask's volume in mm3, shape (n, 1)."""
    return np.log([[nodule.volume_mm3] for nodule in nodules])


def size_and_mean_hu_features(nodules: Sequence[Nodule]) -> np.ndarray:
    """Logarithms of volume and diameter, and the mean HU inside the mask, shape (n, 3)."""
    return np.array([[np.log(n.volume_mm3), np.log(n.diameter_mm), n.mean_hu] for n in nodules])


BASELINES = {"volume only": volume_features, "size + mean HU": size_and_mean_hu_features}


def out_of_fold_probability(nodules: Sequence[Nodule], features: np.ndarray) -> np.ndarray:
    """Probability of malignancy by a class-balanced logistic regression that never saw the patient, shape (n,)."""
    folds = np.array([nodule.fold for nodule in nodules])
    truth = np.array([nodule.malignant for nodule in nodules])
    probability = np.full(len(nodules), np.nan)
    for fold in np.unique(folds):
        model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced"))
        model.fit(features[folds != fold], truth[folds != fold])
        probability[folds == fold] = model.predict_proba(features[folds == fold])[:, 1]
    return probability
