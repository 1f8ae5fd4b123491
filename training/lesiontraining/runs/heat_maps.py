"""Whether the Grad-CAM of a finished model lies on the lesions, beside what chance would give."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from LesionLib.explain.heat_map import HeatMap, resample_to_ct
from LesionLib.explain.localisation import energy_share
from LesionLib.explain.saliency import grad_cam
from LesionLib.geometry import CTVolume, LesionBox, transformed_points
from LesionLib.networks import LesionNet
from LesionLib.networks.base import device_of
from LesionLib.sampling.batches import Lesion, crop_lesion, stacked
from LesionLib.sampling.inputs import Spec
from LesionLib.uncertainty.conformal import Proportion, proportion

from lesiontraining.runs.uncertainty import proportion_as_json


@dataclass(frozen=True)
class HeatFigures:
    """``peak_inside``: hottest voxel in the lesion. Means over lesions: ``energy``, the share of the heat in the lesion, and
    ``chance``, the lesion's share of all that the model looked at. ``empty``: maps without any heat.
    """

    peak_inside: Proportion
    energy: float
    chance: float
    empty: int

    def message(self, lesion: str = "lesion") -> str:
        """For a model card; ``lesion``: what is looked for."""
        peak = self.peak_inside
        return (
            f"the hottest voxel lies in the {lesion} in {peak.hits} of {peak.n} ({peak.value:.1%}; 95 % interval {peak.low:.1%} to "
            f"{peak.high:.1%}), {self.energy:.1%} of the heat is inside it on average; of all that the model looks at, "
            f"{self.chance:.1%} is {lesion} ({self.empty} maps were empty)"
        )

    def as_json(self) -> dict[str, Any]:
        """For a manifest."""
        return {
            "peak_inside": proportion_as_json(self.peak_inside),
            "energy": round(self.energy, 4),
            "chance": round(self.chance, 4),
            "empty": self.empty,
        }


@dataclass(frozen=True)
class _Heat:
    """Of one lesion: the class that was answered, and what `HeatFigures` counts."""

    answer: int
    peak_inside: bool
    energy: float
    chance: float
    empty: bool


def heat_figures(
    network: LesionNet, lesions: Iterable[tuple[CTVolume, LesionBox]], spec: Spec, class_names: Sequence[str]
) -> dict[str, HeatFigures]:
    """Grad-CAM of the answered class on every lesion: of all, and by answer.

    ``lesions``: CTs with boxes that have a segment; others say nothing of where a lesion is and are left out. Empty where
    none has one.
    """
    heats = [_heat(network, volume, box, spec) for volume, box in lesions if box.segment is not None]
    groups = {"all": heats}
    groups |= {f"answered {name}": [h for h in heats if h.answer == c] for c, name in enumerate(class_names)}
    return {name: _figures(of) for name, of in groups.items() if of}


def _heat(network: LesionNet, volume: CTVolume, box: LesionBox, spec: Spec) -> _Heat:
    lesion = crop_lesion(volume, box, spec)
    with torch.no_grad():
        features = network.features(stacked([lesion], device_of(network)))
        answer = int(network.probabilities(network.head(features)).mean(dim=0).argmax())
    heat = _resampled(grad_cam(network, features, answer).cpu().numpy(), lesion, volume)
    looked_at = _resampled(np.ones((len(features), *(1,) * (features.ndim - 2)), np.float32), lesion, volume)
    inside = not heat.is_empty and _holds(box.segment, heat.peakRAS)
    return _Heat(answer, inside, energy_share(heat, box.segment), energy_share(looked_at, box.segment), heat.is_empty)


def _resampled(maps: np.ndarray, lesion: Lesion, volume: CTVolume) -> HeatMap:
    return resample_to_ct(maps, lesion.sample, lesion.box, volume, "any")


def _holds(segment: CTVolume, pointRAS: np.ndarray) -> bool:
    i, j, k = np.rint(transformed_points(segment.rasToIJK, pointRAS)).astype(int)
    inside = all(0 <= index < size for index, size in zip((i, j, k), segment.sizeIJK, strict=True))
    return bool(inside and segment.array[k, j, i])


def _figures(heats: Sequence[_Heat]) -> HeatFigures:
    return HeatFigures(
        peak_inside=proportion(sum(h.peak_inside for h in heats), len(heats)),
        energy=float(np.mean([h.energy for h in heats])),
        chance=float(np.mean([h.chance for h in heats])),
        empty=sum(h.empty for h in heats),
    )
