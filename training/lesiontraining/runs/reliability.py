"""What lets a model say how far to rely on it, with the figures that check it on lesions which took no part in the fit.

Of one fold's model: fitted on its validation lesions, checked on its test lesions. Of a model that is fitted on everything:
fitted on out-of-fold answers, checked fold by fold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from LesionLib.uncertainty.conformal import ConformalQuantile, Proportion, proportion
from LesionLib.uncertainty.out_of_distribution import OutOfDistribution
from torch import Tensor

from lesiontraining.evaluation.predictions import Predictions
from lesiontraining.runs.uncertainty import (
    Coverage,
    coverage,
    coverage_of_sets,
    cross_fitted,
    cross_fitted_sets,
    fit_out_of_distribution,
    fit_quantile,
    proportion_as_json,
)


@dataclass(frozen=True, eq=False)
class Reliability:
    """``conformal``, ``ood``: None where there were too few lesions, which ``notes`` says. ``coverage`` by group, and
    ``warned``: of the lesions ``checked_on``, which took no part in the fit.
    """

    conformal: ConformalQuantile | None
    ood: OutOfDistribution | None
    coverage: dict[str, Coverage]
    warned: Proportion | None
    checked_on: str
    notes: tuple[str, ...] = ()

    @property
    def figures(self) -> dict[str, str]:
        """Sentences, by name."""
        found = {
            f"prediction sets, {self.checked_on}" + ("" if group == "all" else f", {group}"): str(measured)
            for group, measured in self.coverage.items()
        }
        if self.warned is not None:
            share = self.warned
            found[f"warned of as unlike training, {self.checked_on}"] = (
                f"{share.hits} of {share.n}, {share.value:.1%} (95 % interval {share.low:.1%} to {share.high:.1%}; "
                f"{1 - self.ood.quantile:.0%} expected)"
            )
        return found

    def tensors(self) -> dict[str, Tensor]:
        """What a bundle's safetensors hold of it."""
        parts = [part.to_tensors() for part in (self.conformal, self.ood) if part is not None]
        return {name: tensor for part in parts for name, tensor in part.items()}

    def as_json(self) -> dict[str, Any]:
        """For a manifest."""
        values: dict[str, Any] = {"coverage": {group: measured.as_json() for group, measured in self.coverage.items()}}
        if self.warned is not None:
            expected = round(1 - self.ood.quantile, 4)
            values["warned_as_unlike"] = {**proportion_as_json(self.warned), "expected": expected}
        return values | ({"notes": list(self.notes)} if self.notes else {})


def cross_fitted_reliability(
    probabilities: np.ndarray,
    labels: np.ndarray,
    embeddings: np.ndarray,
    folds: np.ndarray,
    *,
    class_names: Sequence[str],
    alpha: float = 0.1,
) -> Reliability:
    """Class-conditional sets and a nearest-neighbour distance, each fitted on all folds and checked fold by fold.

    ``probabilities``: (n, class), out of fold; ``labels``: (n,), class indices; ``embeddings``: (n, d), L2-normalised;
    ``folds``: (n,). Raises ValueError for too few lesions: a model that is shipped has both.
    """
    conformal, sets = cross_fitted_sets(probabilities, labels, folds, alpha)
    groups = {"all": np.full(len(labels), True)} | {name: labels == c for c, name in enumerate(class_names)}
    ood, warned = cross_fitted(embeddings, folds, method="neighbours")
    return Reliability(
        conformal=conformal,
        ood=ood,
        coverage={name: coverage_of_sets(sets[of], labels[of], alpha=alpha) for name, of in groups.items()},
        warned=proportion(int(warned.sum()), len(warned)),
        checked_on="lesions of the held-out fold",
    )


def fold_reliability(predictions: Predictions, *, classifies: bool, alpha: float = 0.1) -> Reliability:
    """From one fold's predictions with its train, val and test rows."""
    notes: list[str] = []
    conformal, covered = _conformal(predictions, alpha, notes) if classifies else (None, {})
    ood, warned = _out_of_distribution(predictions, notes)
    return Reliability(conformal, ood, covered, warned, "test lesions of this fold", tuple(notes))


def _conformal(
    predictions: Predictions, alpha: float, notes: list[str]
) -> tuple[ConformalQuantile | None, dict[str, Coverage]]:
    known = predictions.at(predictions.labels >= 0)
    val, test = known.at(known.split == "val"), known.at(known.split == "test")
    for by_class in (True, False):
        try:
            found = fit_quantile(val.probabilities, val.labels, alpha, class_conditional=by_class)
        except ValueError as error:
            notes.append(f"Prediction sets{' for each class' if by_class else ''} could not be fitted: {error}.")
            continue
        return found, {"all": coverage(test.probabilities, test.labels, found)} if len(test) else {}
    return None, {}


def _out_of_distribution(
    predictions: Predictions, notes: list[str]
) -> tuple[OutOfDistribution | None, Proportion | None]:
    parts = {name: predictions.embeddings[predictions.split == name] for name in ("train", "val", "test")}
    try:
        found = fit_out_of_distribution(parts["train"], parts["val"], method="neighbours")
    except ValueError as error:
        notes.append(f"The distance to the training lesions could not be fitted: {error}.")
        return None, None
    unusual = [found.is_out_of_distribution(embedding) for embedding in parts["test"]]
    return found, proportion(sum(unusual), len(unusual)) if unusual else None
