"""Whether the heat maps of a finished model lie on the lesions, beside what chance would give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from LesionLib.batches import Lesion, cut_lesion, stacked
from LesionLib.explain import grad_cam
from LesionLib.geometry import CTVolume, transformed_points
from LesionLib.heat_map import HeatMap
from LesionLib.localisation import energy_share
from LesionLib.networks import LesionNet
from LesionLib.networks.base import device_of
from LesionLib.painting import paint
from LesionLib.proportion import Proportion, proportion
from LesionLib.sampling_kinds import Spec

from .nodules import Nodule


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
    """Grad-CAM of the answered class on the tight box of every nodule; for all, and by answer."""
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
