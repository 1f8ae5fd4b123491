"""What needs no network: size and density alone, for any number of classes, and the majority.

These rows stand beside every model; one that does not beat them has learned nothing that a ruler and a HU probe don't know.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from LesionLib.metric import COSINE
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lesiontraining.evaluation.predictions import Predictions


def baseline_features(
    *, volume_mm3: np.ndarray, diameter_mm: np.ndarray | None = None, mean_hu: np.ndarray | None = None
) -> np.ndarray:
    """Logarithms of volume and diameter, and mean HU, of those given, (lesion, feature).

    ``volume_mm3`` and ``diameter_mm``: above 0, ``mean_hu``: HU, (lesion,) each.
    """
    sizes = [np.asarray(size, dtype=np.float64) for size in (volume_mm3, diameter_mm) if size is not None]
    if any(not (size > 0).all() for size in sizes):
        msg = "volumes and diameters must be above 0; leave out lesions without a mask"
        raise ValueError(msg)
    hu = [] if mean_hu is None else [np.asarray(mean_hu, dtype=np.float64)]
    return np.stack([np.log(size) for size in sizes] + hu, axis=1)


def baseline_probabilities(
    features: np.ndarray, labels: np.ndarray, folds: np.ndarray, *, classes: int, patients: np.ndarray
) -> np.ndarray:
    """Class probabilities by a class-balanced logistic regression that never saw the patient, (lesion, class).

    ``features``: (lesion, feature); ``labels``: class indices, ``folds`` and ``patients``: (lesion,) each.
    A class that the other folds lack gets probability 0. Raises ValueError where a patient is in two folds.
    """
    x, y, fold = np.asarray(features, dtype=np.float64), np.asarray(labels), np.asarray(folds)
    _check_patients(np.asarray(patients), fold)
    probabilities = np.zeros((len(y), classes))
    for here in np.unique(fold):
        rest, test = fold != here, np.flatnonzero(fold == here)
        known = np.unique(y[rest])
        if len(known) < 2:
            msg = f"outside of fold {here} there are lesions of {len(known)} class(es) only; at least 2 are needed"
            raise ValueError(msg)
        probabilities[test] = _balanced_regression(x[rest], y[rest], x[test], classes)
    return probabilities


def _balanced_regression(known: np.ndarray, labels: np.ndarray, asked: np.ndarray, classes: int) -> np.ndarray:
    """Probabilities (lesion, class) of the lesions ``asked``; a class that no known lesion has gets 0."""
    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))
    model.fit(known, labels)
    probabilities = np.zeros((len(asked), classes))
    probabilities[:, model.classes_] = model.predict_proba(asked)
    return probabilities


def _check_patients(patients: np.ndarray, folds: np.ndarray) -> None:
    pairs = np.unique(
        np.stack([np.unique(patients, return_inverse=True)[1], np.unique(folds, return_inverse=True)[1]]), axis=1
    )
    names, counts = np.unique(pairs[0], return_counts=True)
    if (counts > 1).any():
        name = np.unique(patients)[names[counts > 1][0]]
        msg = f"{int((counts > 1).sum())} patient(s) are in several folds, e.g. {name}; split by patient"
        raise ValueError(msg)


SIZE, SIZE_AND_HU, MAJORITY = "size alone", "size and mean HU", "majority class"


def baseline_runs(fold: Predictions) -> tuple[dict[str, Predictions], tuple[str, ...]]:
    """What size, size and density, and the majority say of the lesions that a run was tested on.

    The shortcuts fitted on the train rows of one fold, their answers on its test rows; and what could not be asked.
    The regression weighs classes alike, as `baseline_probabilities` does. Embeddings are the size as an angle: the cosine of
    two falls with the difference of their logarithms.
    """
    train = fold.at((fold.split == "train") & (fold.labels >= 0))
    test = fold.at(fold.split == "test")
    if not len(train):
        return {}, ("The rows that know no image are missing: no training lesion has a label to fit them on.",)
    found = {MAJORITY: _majority(train, test)}
    notes = []
    ways: dict[str, Callable[[Predictions], np.ndarray]] = {
        SIZE: lambda p: baseline_features(volume_mm3=p.volume_mm3),
        SIZE_AND_HU: lambda p: baseline_features(volume_mm3=p.volume_mm3, mean_hu=p.mean_hu),
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
    probabilities = _balanced_regression(known, train.labels, asked, len(test.class_names))
    return replace(test, probabilities=probabilities, embeddings=size_as_angle(test.volume_mm3), metric=COSINE)


def _majority(train: Predictions, test: Predictions) -> Predictions:
    share = np.bincount(train.labels, minlength=len(test.class_names)) / max(len(train), 1)
    unit = np.tile([1.0, 0.0], (len(test), 1))
    return replace(test, probabilities=np.tile(share, (len(test), 1)), embeddings=unit, metric=COSINE)


def size_as_angle(volume_mm3: np.ndarray) -> np.ndarray:
    """Embeddings (n, 2) whose cosine falls with the difference of the logarithms: 0.1 mm3 to 10 litres is half a turn."""
    low, high = np.log(0.1), np.log(1e7)
    angle = np.pi * (np.clip(np.log(volume_mm3), low, high) - low) / (high - low)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)
