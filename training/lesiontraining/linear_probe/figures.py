"""Figures of the linear probe with their intervals, its temperature, its heat maps, and how far to rely on it.

Figures are AUC, balanced accuracy, sensitivity and specificity; patients are drawn, not lesions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from LesionLib.explain.heat_map import HeatMap, paint
from LesionLib.explain.localisation import SanityCheck, energy_share
from LesionLib.explain.saliency import grad_cam
from LesionLib.geometry import CTVolume, transformed_points
from LesionLib.networks import LesionNet
from LesionLib.networks.base import device_of
from LesionLib.sampling.batches import Lesion, cut_lesion, stacked
from LesionLib.sampling.inputs import Spec
from LesionLib.uncertainty.conformal import ConformalQuantile, Proportion, prediction_sets, proportion
from LesionLib.uncertainty.out_of_distribution import OutOfDistribution
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn.metrics import roc_auc_score
from torch import Tensor

from lesiontraining.linear_probe.data import Nodule
from lesiontraining.runs.uncertainty import Coverage, cross_fitted, fit_quantile


def lesion_probability(slice_logits: Sequence[np.ndarray], temperature: float = 1.0) -> np.ndarray:
    """Mean over a lesion's slices of the probability of class 1, shape (lesions,). Logits: (slice, 2) each."""
    return np.array([softmax(logits / temperature, axis=1)[:, 1].mean() for logits in slice_logits])


def fit_temperature(slice_logits: Sequence[np.ndarray], truth: np.ndarray) -> float:
    """One temperature that makes the averaged probabilities honest.

    The one with the least cross-entropy of lesion probabilities, both classes weighing the same. Guo et al., ICML 2017, applied
    after the mean over slices. ``slice_logits``: (slice, 2) each; ``truth``: bool, (lesion,).
    """
    weight = np.where(truth, 0.5 / max(truth.sum(), 1), 0.5 / max((~truth).sum(), 1))

    def loss(log_temperature: float) -> float:
        p = np.clip(lesion_probability(slice_logits, float(np.exp(log_temperature))), 1e-7, 1 - 1e-7)
        return float(-(weight * np.where(truth, np.log(p), np.log(1 - p))).sum())

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.2), np.log(10.0)), method="bounded").x))


def cross_fitted_probability(slice_logits: Sequence[np.ndarray], truth: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Lesion probabilities, each fold's temperature fitted on the other folds only.

    ``slice_logits``: (slice, 2) each; ``truth``: bool, ``folds``: (lesion,) each, as the result.
    """
    probability = np.empty(len(truth))
    for fold in np.unique(folds):
        rest, here = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        temperature = fit_temperature([slice_logits[i] for i in rest], truth[rest])
        probability[here] = lesion_probability([slice_logits[i] for i in here], temperature)
    return probability


@dataclass(frozen=True)
class HeatFigures:
    """``peak_inside``: hottest voxel in the lesion. Means over lesions: ``energy``, the share of the heat in the lesion, and
    ``chance``, the lesion's share of all that the model looked at.
    """

    peak_inside: Proportion
    energy: float
    chance: float
    empty: int

    def __str__(self) -> str:
        """One sentence for a model card."""
        peak = self.peak_inside
        return (
            f"the hottest voxel lies in the nodule in {peak.hits} of {peak.n} ({peak.value:.1%}; 95 % interval {peak.low:.1%} to "
            f"{peak.high:.1%}), {self.energy:.1%} of the heat is inside it on average; of all that the model looks at, "
            f"{self.chance:.1%} is nodule ({self.empty} maps were empty)"
        )

    def as_json(self) -> dict[str, Any]:
        """For a manifest."""
        peak = self.peak_inside
        return {
            "peak_inside": {"hits": peak.hits, "n": peak.n, "low": round(peak.low, 4), "high": round(peak.high, 4)},
            "energy": round(self.energy, 4),
            "chance": round(self.chance, 4),
            "empty": self.empty,
        }


def heat_figures(
    network: LesionNet, nodules: Sequence[Nodule], spec: Spec, class_names: Sequence[str]
) -> dict[str, HeatFigures]:
    """Whether the heat maps of a finished model lie on the lesions, beside what chance would give.

    Grad-CAM of the answered class on the tight box of every nodule; for all, and by answer.
    """
    rows = [_row(network, nodule, spec) for nodule in nodules]
    answers = np.array([answer for answer, *_ in rows])
    groups = {"all": np.full(len(rows), True)} | {f"answered {n}": answers == c for c, n in enumerate(class_names)}
    return {name: _figures([rows[i][1:] for i in np.flatnonzero(of)]) for name, of in groups.items() if of.any()}


def _row(network: LesionNet, nodule: Nodule, spec: Spec) -> tuple[int, bool, float, float, bool]:
    lesion = cut_lesion(nodule.volume, nodule.box, spec)
    with torch.no_grad():
        features = network.features(stacked([lesion], device_of(network)))
        answer = int(network.probabilities(network.head(features)).mean(dim=0).argmax())
    heat = _painted(grad_cam(network, features, answer).cpu().numpy(), lesion, nodule)
    looked_at = _painted(np.ones((len(features), 1, 1), np.float32), lesion, nodule)
    segment = nodule.box.segment
    inside = not heat.is_empty and _holds(segment, heat.peakRAS)
    return answer, inside, energy_share(heat, segment), energy_share(looked_at, segment), heat.is_empty


def _painted(maps: np.ndarray, lesion: Lesion, nodule: Nodule) -> HeatMap:
    return paint(maps, lesion.sample, nodule.box, nodule.volume, "any")


def _holds(segment: CTVolume, pointRAS: np.ndarray) -> bool:
    i, j, k = np.rint(transformed_points(segment.rasToIJK, pointRAS)).astype(int)
    inside = all(0 <= index < size for index, size in zip((i, j, k), segment.sizeIJK, strict=True))
    return bool(inside and segment.array[k, j, i])


def _figures(rows: Sequence[tuple[bool, float, float, bool]]) -> HeatFigures:
    inside, energy, chance, empty = (np.array(column) for column in zip(*rows, strict=True))
    peak = proportion(int(inside.sum()), len(inside))
    return HeatFigures(peak, float(energy.mean()), float(chance.mean()), int(empty.sum()))


Metric = Callable[[np.ndarray, np.ndarray], float]


def auc(truth: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve; NaN where only one class occurs.

    ``truth``: bool, true for the malignant; ``score``: larger for what is more likely so, (lesion,) each.
    """
    return float(roc_auc_score(truth, score)) if 0 < truth.sum() < len(truth) else float("nan")


def sensitivity(truth: np.ndarray, score: np.ndarray) -> float:
    """Share of the malignant that is called so (score at least 0.5); NaN where there is none.

    ``truth``: bool, true for the malignant; ``score``: probability of it, (lesion,) each.
    """
    return float((score[truth] >= 0.5).mean()) if truth.any() else float("nan")


def specificity(truth: np.ndarray, score: np.ndarray) -> float:
    """Share of the benign that is called so (score below 0.5); NaN where there is none.

    ``truth``: bool, true for the malignant; ``score``: probability of it, (lesion,) each.
    """
    return float((score[~truth] < 0.5).mean()) if (~truth).any() else float("nan")


def balanced_accuracy(truth: np.ndarray, score: np.ndarray) -> float:
    """Mean of sensitivity and specificity.

    ``truth``: bool, true for the malignant; ``score``: probability of it, (lesion,) each.
    """
    return (sensitivity(truth, score) + specificity(truth, score)) / 2


METRICS: dict[str, Metric] = {
    "AUC": auc,
    "balanced accuracy": balanced_accuracy,
    "sensitivity": sensitivity,
    "specificity": specificity,
}


@dataclass(frozen=True)
class Figure:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """``0.912 (0.887-0.934)``."""
        return f"{self.value:.3f} ({self.low:.3f}-{self.high:.3f})"

    def as_json(self) -> dict[str, float]:
        """Rounded to four digits."""
        return {"value": round(self.value, 4), "low": round(self.low, 4), "high": round(self.high, 4)}


def patient_draws(patients: Sequence[str], *, draws: int, seed: int) -> list[np.ndarray]:
    """Indices of the lesions of ``draws`` bootstrap samples of patients, drawn with replacement."""
    names, patient_of = np.unique(np.asarray(patients), return_inverse=True)
    lesions_of = [np.flatnonzero(patient_of == patient) for patient in range(len(names))]
    rng = np.random.default_rng(seed)
    return [
        np.concatenate([lesions_of[patient] for patient in rng.integers(len(names), size=len(names))])
        for _ in range(draws)
    ]


def with_interval(metric: Metric, truth: np.ndarray, score: np.ndarray, drawn: Sequence[np.ndarray]) -> Figure:
    """The metric and its 95 % percentile interval over the drawn samples.

    ``truth``: bool, ``score``: (lesion,) each; ``drawn``: indices of lesions of each sample, see `patient_draws`.
    """
    values = [metric(truth[index], score[index]) for index in drawn]
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return Figure(metric(truth, score), float(low), float(high))


def paired_difference(
    metric: Metric, truth: np.ndarray, score: np.ndarray, other: np.ndarray, drawn: Sequence[np.ndarray]
) -> Figure:
    """metric(score) - metric(other) on the same lesions, with the interval of the difference.

    ``truth``: bool, ``score`` and ``other``: (lesion,) each; ``drawn``: indices of lesions of each sample, see `patient_draws`.
    """
    values = [metric(truth[index], score[index]) - metric(truth[index], other[index]) for index in drawn]
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return Figure(metric(truth, score) - metric(truth, other), float(low), float(high))


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
    """What lets a model say how far to rely on it, fitted on lesions it did not see, with the figures that check it.

    Class-conditional sets and a nearest-neighbour distance, each fitted on all folds and checked fold by fold.

    ``probabilities``: (n, class), out of fold; ``truth``: (n,), class indices; ``embeddings``: (n, d), L2-normalised;
    ``folds``: (n,).
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
