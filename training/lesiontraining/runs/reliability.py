"""What lets a fold's model say how far to rely on it: fitted on its validation lesions, checked on its test lesions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from LesionLib.uncertainty.conformal import ConformalQuantile, proportion
from LesionLib.uncertainty.out_of_distribution import OutOfDistribution
from torch import Tensor

from lesiontraining.evaluation.predictions import Predictions
from lesiontraining.runs.uncertainty import coverage, fit_out_of_distribution, fit_quantile


@dataclass(frozen=True, eq=False)
class FoldReliability:
    """``conformal``, ``ood``: None where there were too few lesions, which ``notes`` says; ``figures``: sentences, by name."""

    conformal: ConformalQuantile | None
    ood: OutOfDistribution | None
    figures: dict[str, str]
    notes: tuple[str, ...]

    def tensors(self) -> dict[str, Tensor]:
        """What a bundle's safetensors hold of it."""
        parts = [part.to_tensors() for part in (self.conformal, self.ood) if part is not None]
        return {name: tensor for part in parts for name, tensor in part.items()}

    def as_json(self) -> dict[str, Any]:
        """For a manifest."""
        return {**self.figures, "notes": list(self.notes)}


def fold_reliability(predictions: Predictions, *, classifies: bool, alpha: float = 0.1) -> FoldReliability:
    """From one fold's predictions with its train, val and test rows."""
    notes: list[str] = []
    figures: dict[str, str] = {}
    conformal = _conformal(predictions, alpha, figures, notes) if classifies else None
    ood = _out_of_distribution(predictions, figures, notes)
    return FoldReliability(conformal, ood, figures, tuple(notes))


def _conformal(
    predictions: Predictions, alpha: float, figures: dict[str, str], notes: list[str]
) -> ConformalQuantile | None:
    known = predictions.at(predictions.labels >= 0)
    val, test = known.at(known.split == "val"), known.at(known.split == "test")
    for by_class in (True, False):
        try:
            found = fit_quantile(val.probabilities, val.labels, alpha, class_conditional=by_class)
        except ValueError as error:
            notes.append(f"Prediction sets{' for each class' if by_class else ''} could not be fitted: {error}.")
            continue
        if len(test):
            figures["prediction sets, test lesions of this fold"] = str(
                coverage(test.probabilities, test.labels, found)
            )
        return found
    return None


def _out_of_distribution(
    predictions: Predictions, figures: dict[str, str], notes: list[str]
) -> OutOfDistribution | None:
    parts = {name: predictions.embeddings[predictions.split == name] for name in ("train", "val", "test")}
    try:
        found = fit_out_of_distribution(parts["train"], parts["val"], method="neighbours")
    except ValueError as error:
        notes.append(f"The distance to the training lesions could not be fitted: {error}.")
        return None
    if len(parts["test"]):
        unusual = np.array([found.is_unusual(embedding) for embedding in parts["test"]])
        share = proportion(int(unusual.sum()), len(unusual))
        figures["warned of as unlike training, test lesions of this fold"] = (
            f"{share.hits} of {share.n}, {share.value:.1%} (95 % interval {share.low:.1%} to {share.high:.1%}; "
            f"{1 - found.quantile:.0%} expected)"
        )
    return found
