"""Nested cross-validation of a linear head: every choice is made, and every constant fitted, inside the other folds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from lesiontraining.nodules.described import FITTED, GIVEN
from lesiontraining.nodules.heads import Linear, Space, fit_calibration, fit_ridge, fit_space, settings

Setting = Mapping[str, float]
# What is said of the given boxes and of the last fitted drawing, (lesion, output) each, of lesions with a target: lower is better.
Loss = Callable[[np.ndarray, np.ndarray, "Task"], float]
_INNER_FOLDS = 4


@dataclass(frozen=True, eq=False)
class Task:
    """``targets``: (lesion, output), NaN where a lesion has none; ``labels``: class index, -1 for none; ``weights``: (lesion,).

    ``loss``: by which settings are chosen.
    """

    targets: np.ndarray
    labels: np.ndarray
    classes: int
    weights: np.ndarray
    loss: Loss

    @property
    def known(self) -> np.ndarray:
        """Which lesions have a target."""
        return ~np.isnan(self.targets).any(axis=1)

    def at(self, rows: np.ndarray) -> Task:
        """Of some lesions."""
        return Task(self.targets[rows], self.labels[rows], self.classes, self.weights[rows], self.loss)


@dataclass(frozen=True)
class HeadOptions:
    """How a head is fitted. ``places``, ``components``, ``measures_weight``: as in `fit_space`; ``choices``: values of ``penalty``
    and ``steadiness``, of which one each is chosen.
    """

    places: int
    components: int
    measures_weight: float
    choices: Mapping[str, Sequence[float]]
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Fitted:
    """A head: what is seen -> `space` -> ``ridge`` -> ``calibration`` (None without classes), and the settings it was fitted with."""

    space: Space
    ridge: Linear
    calibration: Linear | None
    setting: Setting

    def outputs(self, seen: np.ndarray) -> np.ndarray:
        """(lesion, output)."""
        return self.ridge.of(self.space.of(seen))

    def logits(self, seen: np.ndarray) -> np.ndarray:
        """(lesion, class)."""
        return self.calibration.of(self.outputs(seen))


@dataclass(frozen=True, eq=False)
class Nested:
    """Out-of-fold answers by drawing: ``outputs`` (lesion, output), ``logits`` (lesion, class); and the head fitted on everything."""

    outputs: Mapping[str, np.ndarray]
    logits: Mapping[str, np.ndarray]
    chosen: Sequence[Setting]
    final: Fitted

    def probabilities(self, drawing: str = GIVEN) -> np.ndarray:
        """(lesion, class)."""
        return softmax(self.logits[drawing], axis=1)


def nested(seen: Mapping[str, np.ndarray], folds: np.ndarray, task: Task, options: HeadOptions) -> Nested:
    """Answers to every lesion by a head that never saw its patient, its settings chosen without it; and the head to use.

    ``folds``: patients never across, (lesion,).
    """
    n = len(folds)
    outputs = {name: np.empty((n, task.targets.shape[1])) for name in seen}
    logits = {name: np.empty((n, task.classes)) for name in seen}
    chosen = []
    for fold in np.unique(folds):
        rest, here = folds != fold, folds == fold
        fitted = fit({name: seen[name][rest] for name in FITTED}, folds[rest], task.at(rest), options)
        chosen.append(fitted.setting)
        for name, of_drawing in seen.items():
            outputs[name][here] = fitted.outputs(of_drawing[here])
            if fitted.calibration is not None:
                logits[name][here] = fitted.logits(of_drawing[here])
    final = fit({name: seen[name] for name in FITTED}, folds, task, options)
    return Nested(outputs, logits, chosen, final)


def fit(seen: Mapping[str, np.ndarray], folds: np.ndarray, task: Task, options: HeadOptions) -> Fitted:
    """Settings by inner folds, the calibration on answers from inner folds, the ridge on all."""
    drawings = list(seen.values())
    space = fit_space(
        drawings,
        places=options.places,
        components=options.components,
        measures_weight=options.measures_weight,
        seed=options.seed,
    )
    known = task.known
    inner, of = task.at(known), [space.of(drawing[known]) for drawing in drawings]
    groups = np.unique(folds[known], return_inverse=True)[1] % _INNER_FOLDS
    tried = settings(options.choices)
    answers = [_out_of_fold(of, groups, inner, setting) for setting in tried]
    losses = [task.loss(found[0], found[-1], inner) for found in answers]
    best = int(np.argmin(losses))
    setting = tried[best]
    calibration = None
    if task.classes:
        # Calibrated on boxes as given and as drawn by others alike: both are asked in use.
        labelled = inner.labels >= 0
        outputs = np.concatenate([found[labelled] for found in (answers[best][0], answers[best][-1])])
        calibration = fit_calibration(outputs, np.tile(inner.labels[labelled], 2), classes=task.classes)
    ridge = fit_ridge(of, inner.targets, weights=inner.weights, **setting)
    return Fitted(space, ridge, calibration, setting)


def _out_of_fold(drawings: Sequence[np.ndarray], groups: np.ndarray, task: Task, setting: Setting) -> list[np.ndarray]:
    answers = [np.empty_like(task.targets) for _ in drawings]
    for group in np.unique(groups):
        rest, here = groups != group, groups == group
        ridge = fit_ridge([x[rest] for x in drawings], task.targets[rest], weights=task.weights[rest], **setting)
        for answer, x in zip(answers, drawings, strict=True):
            answer[here] = ridge.of(x[here])
    return answers
