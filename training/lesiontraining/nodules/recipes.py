"""``lesiontrain nodule-recipes``: what was tried for the malignancy of nodules, each on the same folds, as a table of Markdown."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from LesionLib.networks import build_network
from LesionLib.networks.weights import load_pretrained

from lesiontraining.data.readers.lidc import read_nodule_set
from lesiontraining.data.readers.lidc_ratings import read_ratings
from lesiontraining.data.splits import cross_validation_folds
from lesiontraining.evaluation.classification import auc
from lesiontraining.evaluation.intervals import PatientDraws, difference, interval, over
from lesiontraining.nodules.described import GIVEN, GROWN, LOOSE, Notify, describe
from lesiontraining.nodules.figures import Steadiness
from lesiontraining.nodules.nested import HeadOptions, Task, nested
from lesiontraining.nodules.questions import SIZE_HU, VOLUME, Nodules, malignancy_task
from lesiontraining.reporting.model_card import markdown_table, shown, signed

_COMMAND = (
    "lesiontrain nodule-recipes --data lung_nodules --readers lidc_readers --imagenet mobilenet_v2.pth "
    "--out training/nodule-recipes.md"
)


@dataclass(frozen=True)
class NoduleRecipe:
    """One way to fit the head. ``target``: "share" of readers above 3, "label" 0 or 1, or the mean "rating"."""

    name: str
    target: str = "share"
    components: int = 250
    measures_weight: float = 1.0
    penalty: float = 0.001
    steadiness: float = 6.0


RECIPES: tuple[NoduleRecipe, ...] = (
    NoduleRecipe("share of readers, 250 directions, steady"),
    NoduleRecipe("the same, not held steady", steadiness=0.0),
    NoduleRecipe("the same, held very steady", steadiness=24.0),
    NoduleRecipe("label 0/1 as the target", target="label"),
    NoduleRecipe("mean rating as the target", target="rating"),
    NoduleRecipe("60 directions", components=60),
    NoduleRecipe("500 directions", components=500),
    NoduleRecipe("penalty ten times larger", penalty=0.01),
    NoduleRecipe("penalty ten times smaller", penalty=0.0001),
    NoduleRecipe("measures hardly", measures_weight=0.01),
    NoduleRecipe("measures and one direction", components=1),
)


def recipe_table(
    *, data: Path, readers: Path, weights: Path, cache: Path, draws: int = 1000, seed: int = 0, notify: Notify
) -> str:
    """Of every recipe the AUC by patient-wise folds, paired with size, how steady it is, and its time. Raises `LesionLensError`."""
    table = read_nodule_set(data, label="malignant", classes=("benign", "malignant"))
    folds, _ = cross_validation_folds(table, "luna16_subset", seed=seed)
    network = build_network("nodule", {"classes": 2})
    load_pretrained(network, weights)
    ratings = read_ratings(readers)
    described = describe(table, ratings, network, cache=cache, notify=notify)
    nodules = Nodules.of(described, ratings, folds)
    rows = list(_rows(nodules, RECIPES, network.mapped_channels, draws, seed, notify))
    header = [
        "recipe", "all: AUC", "minus volume", "minus size + mean HU", "5-12 mm: AUC", "loose: all / 5-12 mm",
        "change of p, drawn larger", "seed", "time",
    ]  # fmt: skip
    head = (
        f"# Recipes for the malignancy of nodules\n\n{len(table)} nodules of {len(set(table.patients))} patients, eight "
        "patient-wise folds along the LUNA16 subsets; every row out of fold with these settings, none chosen inside. In brackets: "
        f"95 % interval over {draws} bootstrap samples of patients, differences paired. The rows were compared with each other on "
        "these folds, so the best of them is a little flattered; the figures of a model's card are nested.\n\n"
        f"Made by `{_COMMAND}`.\n\n"
    )
    return head + markdown_table(header, rows) + "\n"


def _rows(
    nodules: Nodules, recipes: Sequence[NoduleRecipe], places: int, draws: int, seed: int, notify: Notify
) -> Iterator[list[str]]:
    positive = nodules.malignant == 1
    baselines = {name: p[:, 1] for name, p in nodules.baselines(nodules.malignant, 2, (VOLUME, SIZE_HU)).items()}
    drawn = PatientDraws(nodules.patients, draws=draws, seed=seed)
    middle = np.flatnonzero(nodules.middle)
    drawn_middle = PatientDraws(nodules.patients[middle], draws=draws, seed=seed)
    for recipe in recipes:
        started = time.process_time()
        choices = {"penalty": [recipe.penalty], "steadiness": [recipe.steadiness]}
        options = HeadOptions(places, recipe.components, recipe.measures_weight, choices, seed)
        answers = nested(nodules.described.seen, nodules.folds, _task(nodules, recipe.target), options)
        seconds = time.process_time() - started
        p = {name: answers.probabilities(name)[:, 1] for name in (GIVEN, LOOSE, GROWN)}
        whole = interval(over(auc, positive, p[GIVEN]), drawn)
        part = interval(over(auc, positive[middle], p[GIVEN][middle]), drawn_middle)
        minus = [difference(over(auc, positive, p[GIVEN]), over(auc, positive, q), drawn) for q in baselines.values()]
        loose = f"{auc(positive, p[LOOSE]):.3f} / {auc(positive[middle], p[LOOSE][middle]):.3f}"
        notify(f"{recipe.name}: AUC {whole}")
        yield [
            recipe.name, shown(whole.value, whole.low, whole.high), *map(signed, minus),
            shown(part.value, part.low, part.high), loose, str(Steadiness.of(p[GIVEN], p[GROWN])), str(seed), f"{seconds:.0f} s",
        ]  # fmt: skip


def _task(nodules: Nodules, target: str) -> Task:
    task = malignancy_task(nodules)
    if target == "label":
        return replace(task, targets=nodules.malignant[:, None].astype(float))
    if target == "rating":
        return replace(task, targets=nodules.rated("malignancy")[:, None])
    return task
