"""What size, size and density, and the majority say of the lesions that a run was tested on: the rows beside every model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from .evaluation.shortcuts import shortcut_features
from .predictions import Predictions

SIZE, SIZE_AND_HU, MAJORITY = "size alone", "size and mean HU", "majority class"


def shortcut_runs(fold: Predictions) -> tuple[dict[str, Predictions], tuple[str, ...]]:
    """The shortcuts fitted on the train rows of one fold, their answers on its test rows; and what could not be asked.

    The regression weighs classes alike, as `evaluation.shortcuts` does. Embeddings are the size as an angle: the cosine of
    two falls with the difference of their logarithms.
    """
    train = fold.at((fold.split == "train") & (fold.labels >= 0))
    test = fold.at(fold.split == "test")
    found = {MAJORITY: _majority(train, test)}
    notes = []
    ways: dict[str, Callable[[Predictions], np.ndarray]] = {
        SIZE: lambda p: shortcut_features(volume_mm3=p.volume_mm3),
        SIZE_AND_HU: lambda p: shortcut_features(volume_mm3=p.volume_mm3, mean_hu=p.mean_hu),
    }
    for name, features in ways.items():
        try:
            found[name] = _regression(train, test, features)
        except ValueError as error:
            notes.append(f"The row '{name}' is missing: {error}.")
    return found, tuple(notes)


def _regression(train: Predictions, test: Predictions, features: Callable[[Predictions], np.ndarray]) -> Predictions:
    known, asked = features(train), features(test)
    if not (np.isfinite(known).all() and np.isfinite(asked).all()):
        msg = "not every lesion has a size and a density"
        raise ValueError(msg)
    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))
    model.fit(known, train.labels)
    probabilities = np.zeros((len(test), len(test.class_names)))
    probabilities[:, model.classes_] = model.predict_proba(asked)
    return replace(test, probabilities=probabilities, embeddings=size_as_angle(test.volume_mm3))


def _majority(train: Predictions, test: Predictions) -> Predictions:
    share = np.bincount(train.labels, minlength=len(test.class_names)) / max(len(train), 1)
    unit = np.tile([1.0, 0.0], (len(test), 1))
    return replace(test, probabilities=np.tile(share, (len(test), 1)), embeddings=unit)


def size_as_angle(volume_mm3: np.ndarray) -> np.ndarray:
    """Embeddings (n, 2) whose cosine falls with the difference of the logarithms: 0.1 mm3 to 10 litres is half a turn."""
    low, high = np.log(0.1), np.log(1e7)
    angle = np.pi * (np.clip(np.log(volume_mm3), low, high) - low) / (high - low)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)
