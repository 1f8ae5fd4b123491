"""What lets a model say how far to rely on it, fitted on lesions it did not see, with the figures that check it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from LesionLib.conformal import ConformalQuantile, prediction_sets
from LesionLib.out_of_distribution import OutOfDistribution
from LesionLib.proportion import Proportion, proportion
from LesionLib.sanity_check import SanityCheck
from torch import Tensor

from .conformal_fit import Coverage, fit_quantile
from .out_of_distribution_fit import cross_fitted


@dataclass(frozen=True, eq=False)
class ReliabilityFit:
    """``conformal`` and ``ood`` go into the bundle; ``coverage`` (by group) and ``warned`` are of lesions not in the fit."""

    conformal: ConformalQuantile
    coverage: dict[str, Coverage]
    ood: OutOfDistribution
    warned: Proportion
    sanity: SanityCheck

    def tensors(self) -> dict[str, Tensor]:
        """What a bundle's safetensors hold of it."""
        return {**self.conformal.to_tensors(), **self.ood.to_tensors()}

    def as_json(self) -> dict[str, Any]:
        """The figures, for a manifest."""
        return {
            "coverage": {
                group: {**_proportion_as_json(c.covered), "promised": c.promised, "mean_size": round(c.mean_size, 4)}
                for group, c in self.coverage.items()
            },
            "warned_as_unlike": {**_proportion_as_json(self.warned), "expected": round(1 - self.ood.quantile, 4)},
            "sanity_check": str(self.sanity),
        }


def fit_reliability(
    probabilities: np.ndarray,
    truth: np.ndarray,
    embeddings: np.ndarray,
    folds: np.ndarray,
    *,
    class_names: Sequence[str],
    sanity: SanityCheck,
    alpha: float,
) -> ReliabilityFit:
    """Class-conditional sets and a nearest-neighbour distance, each fitted on all folds and checked fold by fold.

    ``probabilities``: (n, class), out of fold; ``truth``: (n,), class indices; ``embeddings``: (n, d), L2-normalised.
    """
    held = np.empty((len(truth), len(class_names)), dtype=bool)
    for fold in np.unique(folds):
        rest, here = folds != fold, folds == fold
        quantile = fit_quantile(probabilities[rest], truth[rest], alpha, class_conditional=True)
        held[here] = prediction_sets(probabilities[here], quantile)
    groups = {"all": np.full(len(truth), True)} | {name: truth == c for c, name in enumerate(class_names)}
    ood, warned = cross_fitted(embeddings, folds, method="neighbours")
    return ReliabilityFit(
        conformal=fit_quantile(probabilities, truth, alpha, class_conditional=True),
        coverage={name: _coverage(held[of], truth[of], alpha) for name, of in groups.items()},
        ood=ood,
        warned=proportion(int(warned.sum()), len(warned)),
        sanity=sanity,
    )


def _coverage(held: np.ndarray, truth: np.ndarray, alpha: float) -> Coverage:
    covered = int(held[np.arange(len(truth)), truth].sum())
    return Coverage(proportion(covered, len(truth)), float(held.sum(axis=1).mean()), 1.0 - alpha)


def _proportion_as_json(share: Proportion) -> dict[str, float]:
    return {"hits": share.hits, "n": share.n, "low": round(share.low, 4), "high": round(share.high, 4)}
