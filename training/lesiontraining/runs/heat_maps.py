"""What the Grad-CAM of a finished model is worth: whether it lies on the lesions, and the checks that any map should stand.

`heat_figures` says where the maps lie. `map_checks` sets them beside what needs no network: five of the six categories of
Hedström et al., "Quantus", JMLR 24(34), 2023: localisation, faithfulness, robustness, randomisation and complexity.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from LesionLib.explain.heat_map import HeatMap, cells_along, resample_to_ct
from LesionLib.explain.localisation import energy_share, layers_from_the_head, randomise, rank_correlation
from LesionLib.explain.occlusion import occlusion_map, surroundings
from LesionLib.explain.saliency import grad_cam
from LesionLib.geometry import CTVolume, LesionBox, transformed_points
from LesionLib.networks import LesionNet
from LesionLib.networks.base import device_of
from LesionLib.sampling.batches import Lesion, crop_lesion, stacked
from LesionLib.sampling.inputs import Spec, box_channels
from LesionLib.sampling.resample import lattice_points
from LesionLib.uncertainty.conformal import Proportion, proportion
from torch import Tensor

from lesiontraining.evaluation.intervals import Difference, Estimate, PatientDraws, Statistic, difference, interval
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
    seen = (_seen(network, volume, box, spec) for volume, box in lesions if box.segment is not None)
    return _by_answer([_heat(of) for of in seen], class_names)


def _by_answer(heats: Sequence[_Heat], class_names: Sequence[str]) -> dict[str, HeatFigures]:
    groups = {"all": heats}
    groups |= {f"answered {name}": [h for h in heats if h.answer == c] for c, name in enumerate(class_names)}
    return {name: _figures(of) for name, of in groups.items() if of}


def _heat(seen: _Seen) -> _Heat:
    heat, segment = seen.heat, seen.lesion.box.segment
    return _Heat(
        seen.answer,
        _peaks_in(heat, segment),
        energy_share(heat, segment),
        energy_share(seen.looked_at, segment),
        heat.is_empty,
    )


@dataclass(frozen=True, eq=False)
class _Seen:
    """A lesion's answer with its map: ``cam`` as the network makes it, whose cells look where
    ``cell_centres`` says, ``heat`` on the CT, ``looked_at`` 1 where it looked."""

    lesion: Lesion
    spec: Spec
    patches: Tensor
    answer: int
    cam: Tensor
    cell_centres: tuple[float, float] | None
    heat: HeatMap
    looked_at: HeatMap


def _seen(network: LesionNet, volume: CTVolume, box: LesionBox, spec: Spec, *, answer: int | None = None) -> _Seen:
    """``answer``: the class to explain; None: the answered one."""
    lesion = crop_lesion(volume, box, spec)
    patches = stacked([lesion], device_of(network))
    with torch.no_grad():
        features = network.features(patches)
        if answer is None:
            answer = int(network.probabilities(network.head(features)).mean(dim=0).argmax())
    cam = grad_cam(network, features, answer).cpu()
    ones = np.ones((len(features), *(1,) * (features.ndim - 2)), np.float32)
    centres = network.cell_centres
    heat = _resampled(cam.numpy(), lesion, volume, centres)
    return _Seen(lesion, spec, patches, answer, cam, centres, heat, _resampled(ones, lesion, volume))


def _resampled(
    maps: np.ndarray, lesion: Lesion, volume: CTVolume, cell_centres: tuple[float, float] | None = None
) -> HeatMap:
    return resample_to_ct(maps, lesion.sample, lesion.box, volume, "any", cell_centres=cell_centres)


def _peaks_in(heat: HeatMap, segment: CTVolume) -> bool:
    if heat.is_empty:
        return False
    i, j, k = np.rint(transformed_points(segment.rasToIJK, heat.peakRAS)).astype(int)
    inside = all(0 <= index < size for index, size in zip((i, j, k), segment.sizeIJK, strict=True))
    return bool(inside and segment.array[k, j, i])


def _figures(heats: Sequence[_Heat]) -> HeatFigures:
    return HeatFigures(
        peak_inside=proportion(sum(h.peak_inside for h in heats), len(heats)),
        energy=float(np.mean([h.energy for h in heats])),
        chance=float(np.mean([h.chance for h in heats])),
        empty=sum(h.empty for h in heats),
    )


MODEL, FORGETFUL, MIDDLE, RANDOM = "this model", "the same, weights shuffled", "the middle of the box", "at random"
OCCLUSION = "occlusion"
OCCLUDED_EVERY = 3  # it takes up to a minute a lesion
SHARES_GONE = (0.1, 0.2, 0.4)  # of what the network looks at, taken away
_FORGETFUL_NETWORKS = 3


@dataclass(frozen=True, eq=False)
class MapChecks:
    """Means over lesions, with intervals over patients. ``peak_inside`` and ``energy``: by map; ``chance`` is the energy of none.

    ``heat``: where this model's maps lie, of all lesions and by answer; ``occluded``: how many were occluded, too. ``fall``: of
    the answer's probability where what a map calls most important is taken away, by order; ``fall_gain``: this model's map
    minus the others. ``jittered``, ``forgetful``: rank correlation of a map with that of a box drawn otherwise, and with that of
    shuffled weights. ``gini``: 0 where heat is even, near 1 where it stands in one place.
    """

    lesions: int
    patients: int
    occluded: int
    heat: Mapping[str, HeatFigures]
    peak_inside: Mapping[str, Estimate]
    energy: Mapping[str, Estimate]
    chance: Estimate
    fall: Mapping[str, Estimate]
    fall_gain: Mapping[str, Difference]
    jittered: Estimate
    forgetful: Estimate
    gini: Estimate

    def as_json(self) -> dict[str, Any]:
        """For a manifest."""
        tables = {
            "peak_inside": self.peak_inside,
            "energy": self.energy,
            "fall": self.fall,
            "fall_gain": self.fall_gain,
        }
        numbers = {name: {row: of.as_json() for row, of in table.items()} for name, table in tables.items()}
        single = {"chance": self.chance, "jittered": self.jittered, "forgetful": self.forgetful, "gini": self.gini}
        return {
            "lesions": self.lesions,
            "patients": self.patients,
            "occluded": self.occluded,
            **numbers,
            **{name: of.as_json() for name, of in single.items()},
        }


def map_checks(
    network: LesionNet,
    lesions: Iterable[tuple[str, CTVolume, LesionBox]],
    spec: Spec,
    redrawn: Callable[[LesionBox, np.random.Generator], LesionBox],
    class_names: Sequence[str],
    *,
    draws: int = 2000,
    seed: int = 0,
) -> MapChecks | None:
    """Grad-CAM of the answered class on every lesion (patient, CT, box) that has a segment; None where none has one.

    ``redrawn``: the box as somebody else might draw it. Every third lesion is occluded, too, see `LesionLib.explain.occlusion`.
    """
    rng = np.random.default_rng(seed)
    forgetful: list[LesionNet] = []
    patients: list[str] = []
    rows: list[dict[str, float]] = []
    heats: list[_Heat] = []
    for patient, volume, box in lesions:
        if box.segment is None:
            continue
        seen = _seen(network, volume, box, spec)
        forgetful = forgetful or [_forgetful(network, seen.patches, seed + n) for n in range(_FORGETFUL_NETWORKS)]
        occluded = _occluded(network, seen, len(class_names)) if len(rows) % OCCLUDED_EVERY == 0 else None
        other = forgetful[len(rows) % len(forgetful)]
        rows.append(_checks(network, other, seen, occluded, volume, redrawn(box, rng), rng))
        heats.append(_heat(seen))
        patients.append(patient)
    if not patients:
        return None
    columns = {name: np.array([row.get(name, np.nan) for row in rows]) for name in rows[0]}
    return _summary(columns, patients, _by_answer(heats, class_names), PatientDraws(patients, draws=draws, seed=seed))


def _summary(
    columns: Mapping[str, np.ndarray], patients: Sequence[str], heat: Mapping[str, HeatFigures], drawn: PatientDraws
) -> MapChecks:
    """A map that not every lesion has is NaN there: its mean, and what it is compared with, are of those that have it."""
    found = {
        name: replace(interval(_mean_of(values), drawn), **_counts(values, patients))
        for name, values in columns.items()
    }

    def table(start: str) -> dict[str, Estimate]:
        return {name.removeprefix(start): of for name, of in found.items() if name.startswith(start)}

    falls = table("fall ")
    model = columns[f"fall {MODEL}"]
    gains = {
        name: replace(_paired(model, columns[f"fall {name}"], drawn), **_counts(columns[f"fall {name}"], patients))
        for name in falls
        if name != MODEL
    }
    return MapChecks(
        len(patients), len(set(patients)), found[f"fall {OCCLUSION}"].lesions, heat,
        table("peak "), table("energy "), found["chance"], falls, gains, found["jittered"], found["forgetful"], found["gini"],
    )  # fmt: skip


def _paired(one: np.ndarray, other: np.ndarray, drawn: PatientDraws) -> Difference:
    both = np.where(np.isnan(other), np.nan, one)
    return difference(_mean_of(both), _mean_of(other), drawn)


def _counts(values: np.ndarray, patients: Sequence[str]) -> dict[str, int]:
    there = np.isfinite(values)
    return {"lesions": int(there.sum()), "patients": len(set(np.array(patients)[there]))}


def _occluded(network: LesionNet, seen: _Seen, classes: int) -> Tensor:
    with torch.no_grad():
        columns = network(seen.patches[:1]).shape[1]
    return occlusion_map(
        network, seen.patches, seen.answer, scores=columns - classes, uncovered=box_channels(seen.spec)
    )


def _checks(
    network: LesionNet,
    forgetful: LesionNet,
    seen: _Seen,
    occluded: Tensor | None,
    volume: CTVolume,
    moved: LesionBox,
    rng: np.random.Generator,
) -> dict[str, float]:
    spec, box = seen.spec, seen.lesion.box
    shuffled = _seen(forgetful, volume, box, spec, answer=seen.answer)
    other = _seen(network, volume, moved, spec, answer=seen.answer)
    found = {}
    heats = {MODEL: seen.heat, FORGETFUL: shuffled.heat, MIDDLE: _middle_heat(seen)}
    orders = _orders(seen, rng)
    if occluded is not None:
        heats[OCCLUSION] = _resampled(occluded.numpy(), seen.lesion, volume)
        orders[OCCLUSION] = _by_pixel(occluded, seen)
    for name, heat in heats.items():
        found[f"peak {name}"] = float(_peaks_in(heat, box.segment))
        found[f"energy {name}"] = energy_share(heat, box.segment)
    found["chance"] = energy_share(seen.looked_at, box.segment)
    whole = _probability(network, seen.patches, seen.answer)
    for name, order in orders.items():
        found[f"fall {name}"] = _mean_fall(network, seen, order, whole)
    found["jittered"] = _correlation(seen, other, volume)
    found["forgetful"] = _correlation(seen, shuffled, volume)
    found["gini"] = _gini(seen.heat.array[seen.looked_at.array > 0])
    return found


def _mean_of(values: np.ndarray) -> Statistic:
    return lambda rows: float(np.nanmean(values[rows])) if np.isfinite(values[rows]).any() else float("nan")


def _forgetful(network: LesionNet, patches: Tensor, seed: int) -> LesionNet:
    shuffled = copy.deepcopy(network)
    randomise(shuffled, layers_from_the_head(network, patches), seed=seed)
    return shuffled


def _middle_heat(seen: _Seen) -> HeatMap:
    """Heat that falls evenly from the middle of the box to its ellipsoid's surface, where the network looks."""
    of, box = seen.looked_at, seen.lesion.box
    points = transformed_points(of.ijkToRAS, lattice_points(of.array.shape[::-1]))
    radius = np.linalg.norm(transformed_points(np.linalg.inv(box.boxToRAS), points) / (box.sizeMm / 2), axis=-1)
    array = (of.array * np.clip(1.0 - radius, 0.0, None)).astype(np.float32)
    return HeatMap(array / max(float(array.max()), 1e-9), of.ijkToRAS, float(array.max()), "any")


def _orders(seen: _Seen, rng: np.random.Generator) -> dict[str, Tensor]:
    """What is taken away first, by a value for each pixel of the patches: the largest first."""
    cells = seen.cam.shape[1:]
    noise = torch.from_numpy(rng.random(seen.cam.shape))  # in pieces as large as the map's own
    # Of equal heat, as where there is none, the order is random.
    heat = seen.cam.double() + 1e-9 * noise * float(seen.cam.max())
    place = torch.stack(torch.meshgrid(*(torch.linspace(-1, 1, n).double() for n in cells), indexing="ij"))
    middle = -place.norm(dim=0).expand(seen.cam.shape)
    of_model = {MODEL: _by_pixel(heat, seen, seen.cell_centres)}
    return of_model | {name: _by_pixel(of, seen) for name, of in {MIDDLE: middle, RANDOM: noise}.items()}


def _by_pixel(cells: Tensor, seen: _Seen, cell_centres: tuple[float, float] | None = None) -> Tensor:
    """The value of the nearest cell at each pixel of the patches, (patch, row, column) or with slices before the rows."""
    for axis, (count, samples) in enumerate(zip(cells.shape[1:], seen.patches.shape[2:], strict=True), start=1):
        first, step = cells_along(count, samples, cell_centres)
        nearest = ((torch.arange(samples) - first) / step).round().long().clamp(0, count - 1)
        cells = cells.index_select(axis, nearest)
    return cells


def _mean_fall(network: LesionNet, seen: _Seen, order: Tensor, whole: float) -> float:
    """Of the answer's probability ``whole``, mean over the shares taken away; what stands around the lesion takes their place."""
    kept = seen.patches.shape[1] - box_channels(seen.spec)
    hu, fill = seen.patches[:, :kept].cpu(), surroundings(seen.patches[:, :kept].cpu())
    shows = (hu != fill).any(dim=1)  # padding has nothing to take away
    ranked = torch.where(shows, order, -torch.inf).flatten().argsort(descending=True)
    falls = []
    for share in SHARES_GONE:
        gone = torch.zeros(shows.numel(), dtype=torch.bool)
        gone[ranked[: int(share * shows.sum())]] = True
        hidden = seen.patches.clone()
        hidden[:, :kept] = torch.where(gone.view_as(shows)[:, None], fill, hu).to(hidden.device)
        falls.append(whole - _probability(network, hidden, seen.answer))
    return float(np.mean(falls))


def _probability(network: LesionNet, patches: Tensor, answer: int) -> float:
    with torch.no_grad():
        return float(network.probabilities(network(patches))[:, answer].mean())


def _correlation(one: _Seen, other: _Seen, volume: CTVolume) -> float:
    """Of two maps of one lesion, on the CT's voxels that one of them looked at; 0 where one is constant."""
    starts = [
        np.rint(transformed_points(volume.rasToIJK, s.heat.ijkToRAS[:3, 3])).astype(int)[::-1] for s in (one, other)
    ]
    low = np.minimum(*starts)
    high = np.maximum(*(start + s.heat.array.shape for start, s in zip(starts, (one, other), strict=True)))
    heats, looked = [], np.zeros(high - low, dtype=bool)
    for start, s in zip(starts, (one, other), strict=True):
        place = tuple(slice(a, a + n) for a, n in zip(start - low, s.heat.array.shape, strict=True))
        heat = np.zeros(high - low, np.float32)
        heat[place] = s.heat.array
        looked[place] |= s.looked_at.array > 0
        heats.append(heat)
    return rank_correlation(heats[0][looked], heats[1][looked])


def _gini(heat: np.ndarray) -> float:
    """Gini index of how heat is spread over places (Hurley and Rickard, IEEE Trans Inf Theory 2009); 0 for an empty map."""
    total, n = float(heat.sum()), heat.size
    if not total > 0:
        return 0.0
    return float(1.0 - 2.0 * (np.sort(heat, axis=None) / total * (n - np.arange(1, n + 1) + 0.5) / n).sum())
