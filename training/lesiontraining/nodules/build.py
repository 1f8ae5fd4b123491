"""``lesiontrain lung-nodules``: one of the nodule models from the readers' ratings and published weights, with its figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from LesionLib.errors import LesionLensError
from LesionLib.geometry import CTVolume, LesionBox, transformed_points
from LesionLib.io.volumes import read_ct
from LesionLib.model.bundle import TEMPERATURE
from LesionLib.networks import build_network
from LesionLib.networks.nodule import NoduleNet
from LesionLib.networks.weights import load_pretrained
from LesionLib.uncertainty.conformal import ConformalQuantile, Proportion, proportion
from LesionLib.uncertainty.out_of_distribution import OutOfDistribution

from lesiontraining.commands.plans import PlanError
from lesiontraining.data.lesions import LesionTable, ct_lesions
from lesiontraining.data.readers.lidc import read_nodule_set
from lesiontraining.data.readers.lidc_ratings import ATTRIBUTES, read_ratings
from lesiontraining.data.splits import cross_validation_folds
from lesiontraining.nodules.described import GIVEN, Described, Notify, describe, loosely_drawn, seen_of
from lesiontraining.nodules.figures import Figures, Measuring
from lesiontraining.nodules.heads import Linear, Space, unit
from lesiontraining.nodules.nested import Fitted, HeadOptions, Nested, Task, nested
from lesiontraining.nodules.plan import NodulePlan
from lesiontraining.nodules.questions import (
    MODEL,
    Nodules,
    banded_quantile,
    description_figures,
    kind_figures,
    kind_task,
    malignancy_figures,
    malignancy_task,
    score_errors,
    score_task,
)
from lesiontraining.nodules.search import (
    compared_vectors,
    other_vectors,
    search_descriptor,
    search_figures,
    search_task,
)
from lesiontraining.runs.heat_maps import MapChecks, map_checks
from lesiontraining.runs.uncertainty import cross_fitted

CLASSES = ("benign", "malignant")
_SPACE_DIRECTIONS = 24  # of the comparison space, beside the measures
_CONSTANT = 6.0  # what keeps the length of a strange descriptor visible after it is normalised
_ELSEWHERE_BOXES = 200
_BODY_HU = -300.0


@dataclass(frozen=True, eq=False)
class Built:
    """The network to ship with what is fitted beside it, and its out-of-fold figures.

    ``warned``: held-out nodules that were warned of; ``elsewhere``: boxes at places without nodules that were, where CTs were
    given. ``map_checks``: where the heat maps lie, and what they are worth beside maps that ask no network.
    """

    network: NoduleNet
    table: LesionTable
    moved_patients: tuple[str, ...]
    figures: Figures
    conformal: ConformalQuantile | None
    ood: OutOfDistribution
    warned: Proportion
    elsewhere: Proportion | None
    map_checks: MapChecks | None
    chosen: Sequence[Mapping[str, float]]
    box_size_mm: tuple[float, float]
    slice_distance_mm: tuple[float, float]
    scores: Sequence[Mapping[str, Any]] = ()

    def calibration(self) -> dict[str, torch.Tensor]:
        """What the bundle's tensors hold besides the weights; the temperature is part of the head."""
        conformal = {} if self.conformal is None else self.conformal.to_tensors()
        return {TEMPERATURE: torch.ones(1), **conformal, **self.ood.to_tensors()}


def build(
    plan: NodulePlan,
    *,
    data: Path,
    readers: Path,
    weights: Path,
    cache: Path,
    elsewhere: Sequence[Path] = (),
    beside: Sequence[Path] = (),
    notify: Notify,
) -> Built:
    """Describe, cross-validate, fit on all. Raises `LesionLensError`.

    ``data``: folder with nodules.csv, image/ and mask/; ``readers``: what each reader said of them; ``weights``: MobileNetV2's
    as published; ``cache``: where what the network sees is kept; ``elsewhere``: CTs without nodules, for a figure only;
    ``beside``: model folders whose embeddings are compared with those of a model for retrieval.
    """
    table = read_nodule_set(data, label="malignant", classes=CLASSES)
    folds, moved = cross_validation_folds(table, "luna16_subset", seed=plan.seed)
    network = build_network("nodule", {"classes": 2})
    load_pretrained(network, weights)
    ratings = read_ratings(readers)
    notify(f"{len(table)} nodules of {len(set(table.patients))} patients, readers matched for {len(ratings)}")
    described = describe(table, ratings, network, cache=cache, notify=notify)
    nodules = Nodules.of(described, ratings, folds)
    try:
        asked = _ASKED[plan.question]
    except KeyError as error:
        msg = f"no nodule model answers {plan.question!r}; known are {', '.join(_ASKED)}."
        raise PlanError(msg) from error
    notify("cross-validating")
    answered = asked(
        plan,
        nodules,
        Measuring(nodules.patients, plan.draws, plan.seed),
        Given(network.mapped_channels, cache, beside, notify),
    )
    finished = _filled(network, answered)
    notify("fitting what tells how far to rely on an answer")
    likeness = answered.likeness or answered.space
    ood, warned = _unlike(likeness, described, folds, plan.quantile)
    strange = _elsewhere(network, likeness, ood, described, elsewhere, plan.seed + 1)
    checks = None
    if plan.classes:
        notify("measuring where the heat maps lie, and what they are worth")
        lesions = ((row.patient, volume, box) for row, volume, box in ct_lesions(_every(table, plan.heat_every)))
        checks = map_checks(
            finished, lesions, plan.spec, loosely_drawn, plan.class_names, draws=plan.draws, seed=plan.seed
        )
    sizes, distances = described.size_mm, described.spacing_mm[:, 2]
    return Built(
        network=finished,
        table=table,
        moved_patients=moved,
        figures=answered.figures,
        conformal=answered.conformal,
        ood=ood,
        warned=warned,
        elsewhere=strange,
        map_checks=checks,
        chosen=answered.chosen,
        box_size_mm=(float(sizes.min()), float(sizes.max() + 6.0)),
        slice_distance_mm=(float(distances.min()), float(distances.max())),
        scores=answered.scores,
    )


@dataclass(frozen=True)
class Given:
    """What a question may need besides the nodules: how many numbers belong to places, and what is compared with the model."""

    places: int
    cache: Path
    beside: Sequence[Path]
    notify: Notify


@dataclass(frozen=True, eq=False)
class Answered:
    """What one question comes to. ``head``: on what is seen less ``space.mean``, the classes' logits, then the scores.
    ``likeness``: in which unlike lesions are told, with the same mean; None: in ``space``.
    """

    figures: Figures
    head: Linear | None
    classes: int
    space: ComparisonSpace
    conformal: ConformalQuantile | None
    chosen: Sequence[Mapping[str, float]]
    scores: Sequence[Mapping[str, Any]] = ()
    likeness: ComparisonSpace | None = None


@dataclass(frozen=True, eq=False)
class ComparisonSpace:
    """The descriptor: ``linear`` on what is seen less ``mean``. ``out_of_fold``: of each lesion, by a map that never saw it."""

    mean: np.ndarray
    linear: Linear
    out_of_fold: np.ndarray

    def of(self, seen: np.ndarray) -> np.ndarray:
        """L2-normalised embeddings (n, d)."""
        return unit(self.linear.of(seen - self.mean))


def usual_space(space: Space, seen: np.ndarray) -> Linear:
    """First directions and measures, each with variance 1, and a constant; on what is seen less ``space.mean``."""
    matrix = space.matrix
    count = matrix.shape[1]
    measures = count - _measures_of(space)
    columns = np.r_[0:_SPACE_DIRECTIONS, measures:count]
    z = (seen - space.mean) @ matrix[:, columns]
    scaled = matrix[:, columns] / (z.std(axis=0) + 1e-6)
    weight = np.hstack([scaled, np.zeros((len(matrix), 1))])
    return Linear(weight, np.r_[np.zeros(len(columns)), _CONSTANT])


def _measures_of(space: Space) -> int:
    return len(space.mean) - NoduleNet.mapped_channels


def _comparison(space: Space, described: Described) -> ComparisonSpace:
    """Without labels: what makes nodules differ most."""
    linear = usual_space(space, described.seen[GIVEN])
    return ComparisonSpace(space.mean, linear, unit(linear.of(described.seen[GIVEN] - space.mean)))


def _nested(plan: NodulePlan, nodules: Nodules, task: Task, places: int) -> Nested:
    choices = {"penalty": plan.penalties, "steadiness": plan.steadiness}
    options = HeadOptions(places, plan.components, plan.measures_weight, choices, plan.seed)
    return nested(nodules.described.seen, nodules.folds, task, options)


def centered_head(fitted: Fitted) -> Linear:
    """Ridge and calibration in one, on what is seen less the mean of the space."""
    linear = fitted.ridge if fitted.calibration is None else fitted.ridge.then(fitted.calibration)
    return Linear(fitted.space.matrix @ linear.weight, linear.bias)


def _malignancy(plan: NodulePlan, nodules: Nodules, measuring: Measuring, given: Given) -> Answered:
    answers = _nested(plan, nodules, malignancy_task(nodules), given.places)
    p, shortest = answers.probabilities(), nodules.described.size_mm.min(axis=1)
    return Answered(
        malignancy_figures(nodules, answers, measuring, plan.alpha),
        centered_head(answers.final),
        2,
        _comparison(answers.final.space, nodules.described),
        banded_quantile(p, nodules.malignant, shortest, plan.alpha),
        answers.chosen,
    )


def _kind(plan: NodulePlan, nodules: Nodules, measuring: Measuring, given: Given) -> Answered:
    task = kind_task(nodules)
    answers = _nested(plan, nodules, task, given.places)
    known = task.labels >= 0
    shortest = nodules.described.size_mm.min(axis=1)
    return Answered(
        kind_figures(nodules, answers, measuring, plan.alpha),
        centered_head(answers.final),
        task.classes,
        _comparison(answers.final.space, nodules.described),
        banded_quantile(answers.probabilities()[known], task.labels[known], shortest[known], plan.alpha),
        answers.chosen,
    )


def _description(plan: NodulePlan, nodules: Nodules, measuring: Measuring, given: Given) -> Answered:
    named = [score["name"] for score in plan.scores]
    if tuple(named) != ATTRIBUTES:
        msg = f"the plan scores {', '.join(named) or 'nothing'}; the readers scored {', '.join(ATTRIBUTES)}, in this order."
        raise PlanError(msg)
    kinds = _kind(plan, nodules, measuring, given)
    answers = _nested(plan, nodules, score_task(nodules), given.places)
    scales = {score["name"]: (float(score["low"]), float(score["high"])) for score in plan.scores}
    errors = score_errors(nodules, answers.outputs[GIVEN], scales)
    scores = centered_head(answers.final)  # in the same space: it is fitted without labels
    head = Linear(np.hstack([kinds.head.weight, scores.weight]), np.hstack([kinds.head.bias, scores.bias]))
    return replace(
        kinds,
        figures=description_figures(nodules, kinds.figures, answers, measuring, scales),
        head=head,
        chosen=[*kinds.chosen, *answers.chosen],
        scores=[{**score, "error": errors[score["name"]]} for score in plan.scores],
    )


def _retrieval(plan: NodulePlan, nodules: Nodules, measuring: Measuring, given: Given) -> Answered:
    task = search_task(nodules)
    answers = _nested(plan, nodules, task, given.places)
    others = other_vectors(
        nodules.described, cache=given.cache, models=given.beside, seed=plan.seed, notify=given.notify
    )
    vectors = compared_vectors(nodules, answers, task, others, plan.seed)
    descriptor = search_descriptor(centered_head(answers.final), task.targets)
    return Answered(
        search_figures(nodules, vectors, measuring),
        None,
        0,
        ComparisonSpace(answers.final.space.mean, descriptor, unit(vectors[MODEL])),
        None,
        answers.chosen,
        # Nine numbers that readers gave say too little of what is no nodule at all.
        likeness=_comparison(answers.final.space, nodules.described),
    )


_ASKED: dict[str, Callable[[NodulePlan, Nodules, Measuring, Given], Answered]] = {
    "malignancy": _malignancy,
    "kind": _kind,
    "description": _description,
    "retrieval": _retrieval,
}


def _filled(network: NoduleNet, answered: Answered) -> NoduleNet:
    """A network with the frozen weights of ``network`` and the fitted layers."""
    linear, head, likeness = answered.space.linear, answered.head, answered.likeness
    arguments = {"classes": answered.classes, "scores": len(answered.scores), "space": linear.weight.shape[1]}
    if likeness is not None:
        arguments["likeness"] = likeness.linear.weight.shape[1]
    filled = build_network("nodule", arguments)
    filled.features_.load_state_dict(network.features_.state_dict())
    layers = [(filled.projection, linear)] + ([] if head is None else [(filled.classifier, head)])
    layers += [] if likeness is None else [(filled.likeness, likeness.linear)]
    with torch.no_grad():
        filled.center.copy_(torch.from_numpy(answered.space.mean).float())
        for layer, values in layers:
            layer.weight.copy_(torch.from_numpy(values.weight.T).float())
            layer.bias.copy_(torch.from_numpy(values.bias).float())
    return filled


def _unlike(
    space: ComparisonSpace, described: Described, folds: np.ndarray, quantile: float
) -> tuple[OutOfDistribution, Proportion]:
    try:
        ood, warned = cross_fitted(space.out_of_fold, folds, method="mahalanobis", quantile=quantile)
    except ValueError as error:
        msg = f"{described.table.name} has too few nodules for a model that says what is unlike them: {error}."
        raise LesionLensError(msg) from error
    return ood, proportion(int(warned.sum()), len(warned))


def _elsewhere(
    network: NoduleNet,
    space: ComparisonSpace,
    ood: OutOfDistribution,
    described: Described,
    volumes: Sequence[Path],
    seed: int,
) -> Proportion | None:
    """How many random boxes in the bodies of these CTs, of nodules' sizes, are told to be unlike nodules."""
    if not volumes:
        return None
    rng = np.random.default_rng(seed)
    cts = [read_ct(path) for path in volumes]
    boxes = [random_box(cts[n % len(cts)], described.size_mm, rng) for n in range(_ELSEWHERE_BOXES)]
    seen = np.stack([seen_of(network, cts[n % len(cts)], box) for n, box in enumerate(boxes)]).astype(np.float64)
    beyond = ood.distance.of(space.of(seen)) > ood.threshold
    return proportion(int(beyond.sum()), len(beyond))


def random_box(volume: CTVolume, sizes_mm: np.ndarray, rng: np.random.Generator) -> LesionBox:
    """A box of a nodule's size somewhere in the body: its middle voxel is denser than lung, and it lies inside the CT."""
    last = np.array(volume.sizeIJK) - 1
    for _ in range(1000):
        size = sizes_mm[rng.integers(len(sizes_mm))]
        margin = np.ceil(size / 2 / np.array(volume.spacingMm)).astype(int)
        if (margin * 2 > last).any():
            continue
        i, j, k = rng.integers(margin, last - margin + 1)
        if volume.array[k, j, i] > _BODY_HU:
            return LesionBox(transformed_points(volume.ijkToRAS, [i, j, k]), size, name="elsewhere")
    msg = f"{volume.name} has no place for a box in a body; give another CT."
    raise LesionLensError(msg)


def _every(table: LesionTable, step: int) -> LesionTable:
    lines = {row.line for row in table.rows[::step]}
    return table.where(lambda row: row.line in lines)
