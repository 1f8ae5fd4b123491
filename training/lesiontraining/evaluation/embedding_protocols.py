"""What an embedding is worth, by the protocols that encoders are compared with: neighbours, a linear probe, a few shots.

As in TumorImagingBench (Pai et al. 2025) in kind; here folds are of patients, choices are made inside the training folds, and
every figure is a macro AUC with an interval over patients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

NEIGHBOURS = 9
SHOTS = (1, 5, 10)
_STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_INNER_FOLDS = 3
_MAX_ITERATIONS = 2000

Fit = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Lesions:
    """``labels``: class indices, ``patients`` and ``folds``: (n,) each; no patient is in two folds. ``classes``: how many."""

    labels: np.ndarray
    patients: np.ndarray
    folds: np.ndarray
    classes: int


def neighbour_scores(embeddings: np.ndarray, lesions: Lesions) -> np.ndarray:
    """Class shares among the nine most similar lesions (cosine) of the other folds, (n, class). ``embeddings``: (n, d)."""

    def fit(known: np.ndarray, labels: np.ndarray, _patients: np.ndarray, asked: np.ndarray) -> np.ndarray:
        model = KNeighborsClassifier(min(NEIGHBOURS, len(known)), metric="cosine").fit(known, labels)
        return _in_all_classes(model.predict_proba(asked), model.classes_, lesions.classes)

    return _out_of_fold(embeddings, lesions, fit)


def probe_scores(embeddings: np.ndarray, lesions: Lesions) -> np.ndarray:
    """Probabilities of a class-balanced logistic regression, its strength chosen inside the training folds, (n, class)."""

    def fit(known: np.ndarray, labels: np.ndarray, patients: np.ndarray, asked: np.ndarray) -> np.ndarray:
        head = LogisticRegression(C=_STRENGTHS[2], class_weight="balanced", max_iter=_MAX_ITERATIONS)
        inner = min(_INNER_FOLDS, len(np.unique(patients)))
        folds = list(GroupKFold(inner).split(known, labels, patients)) if inner > 1 else []
        if all(len(np.unique(labels[train])) == len(np.unique(labels)) for train, _ in folds) and folds:
            head = GridSearchCV(head, {"C": _STRENGTHS}, cv=folds, scoring=_likelihood)
        model = make_pipeline(StandardScaler(), head).fit(known, labels)
        return _in_all_classes(model.predict_proba(asked), model.classes_, lesions.classes)

    return _out_of_fold(embeddings, lesions, fit)


def _likelihood(model: LogisticRegression, features: np.ndarray, labels: np.ndarray) -> float:
    """Mean log-probability of the true classes; also where the fold lacks a class."""
    columns = np.searchsorted(model.classes_, labels)
    return float(np.log(np.maximum(model.predict_proba(features)[np.arange(len(labels)), columns], 1e-12)).mean())


def few_shot_scores(
    embeddings: np.ndarray, lesions: Lesions, *, shots: int, repeats: int = 20, seed: int = 0
) -> list[np.ndarray]:
    """Cosine similarity to each class's mean of ``shots`` lesions drawn from the other folds; one (n, class) a repeat.

    A class with fewer lesions there gives all it has.
    """

    def of_repeat(repeat: int) -> np.ndarray:
        rng = np.random.default_rng([seed, shots, repeat])

        def fit(known: np.ndarray, labels: np.ndarray, _patients: np.ndarray, asked: np.ndarray) -> np.ndarray:
            scores = np.full((len(asked), lesions.classes), -1.0)
            for c in np.unique(labels):
                here = np.flatnonzero(labels == c)
                mean = known[rng.permutation(here)[:shots]].mean(axis=0)
                scores[:, c] = asked @ (mean / max(np.linalg.norm(mean), 1e-12))
            return scores

        return _out_of_fold(embeddings, lesions, fit)

    return [of_repeat(repeat) for repeat in range(repeats)]


@dataclass(frozen=True, eq=False)
class JitterStability:
    """Of each lesion, (n,): mean cosine to itself with its box drawn otherwise; and how often it is then its own nearest."""

    cosine: np.ndarray
    found_itself: np.ndarray


def jitter_stability(embeddings: np.ndarray, jittered: Sequence[np.ndarray]) -> JitterStability:
    """``embeddings``: (n, d), of the boxes as given; ``jittered``: one (n, d) a drawing; all L2-normalised."""
    cosines = np.stack([(embeddings * drawn).sum(axis=1) for drawn in jittered])
    nearest = np.stack([(drawn @ embeddings.T).argmax(axis=1) for drawn in jittered])
    return JitterStability(cosines.mean(axis=0), (nearest == np.arange(len(embeddings))).mean(axis=0))


def _out_of_fold(embeddings: np.ndarray, lesions: Lesions, fit: Fit) -> np.ndarray:
    scores = np.zeros((len(embeddings), lesions.classes))
    for fold in np.unique(lesions.folds):
        train, test = np.flatnonzero(lesions.folds != fold), np.flatnonzero(lesions.folds == fold)
        shared = set(lesions.patients[train].tolist()) & set(lesions.patients[test].tolist())
        if shared:
            msg = f"{len(shared)} patient(s) are in two folds; make the folds of whole patients"
            raise ValueError(msg)
        scores[test] = fit(embeddings[train], lesions.labels[train], lesions.patients[train], embeddings[test])
    return scores


def _in_all_classes(found: np.ndarray, classes: np.ndarray, count: int) -> np.ndarray:
    """Columns for every class; 0 for those that no training lesion has."""
    scores = np.zeros((len(found), count))
    scores[:, classes] = found
    return scores
