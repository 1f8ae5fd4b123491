"""``lesiontrain build``: from a plan to a model folder: data where they are computed, a recipe for each seed, figures, export."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from lesiontraining.commands.evaluate import evaluate
from lesiontraining.commands.export import ExportPlan, SeedFigures, export
from lesiontraining.commands.fit import fit
from lesiontraining.commands.plans import LesionClass, ModelText, PlanError, read_plan_as
from lesiontraining.data.phantom_tables import TABLE, PhantomTable, write_phantom_table
from lesiontraining.evaluation.classification import auc
from lesiontraining.evaluation.intervals import PatientDraws, interval, over
from lesiontraining.runs.folder import RunFolder

Notify = Callable[[str], None]
_CONFIG = "recipe.yaml"


@dataclass(frozen=True)
class BuildPlan:
    """What makes a model by a recipe. ``recipe``: what ``lesiontrain fit --config`` takes, without table and seed.

    ``seeds``: of the trainings; the first is shipped, which was settled before any was looked at, the others say how much hangs on a
    seed. ``phantom``: the table is computed. ``class_prior``: what the probabilities assume; empty: the shares among the training
    lesions. ``aim_auc``: the mean AUC of the seeds that was to be reached. ``draws``: of the bootstrap.
    """

    name: str
    version: str
    text: ModelText
    classes: list[LesionClass]
    recipe: dict[str, Any]
    phantom: PhantomTable | None = None
    seeds: list[int] = field(default_factory=lambda: [0])
    class_prior: list[float] = field(default_factory=list)
    aim_auc: float | None = None
    draws: int = 2000


def read_build_plan(name: str | Path) -> BuildPlan:
    """The plan of a YAML file, or of one that comes along by its name. Raises `PlanError` for what does not fit."""
    plan, source = read_plan_as(BuildPlan, name, of="a recipe's model", field="recipe")
    if not plan.seeds or len(set(plan.seeds)) != len(plan.seeds):
        msg = f"{source}: the seeds are {plan.seeds}; give at least one, each once."
        raise PlanError(msg)
    return plan


def build(plan: BuildPlan, *, out: Path, runs: Path, data: Path | None, notify: Notify) -> str:
    """Write the model folder ``out``; returns its SHA-256. Raises `LesionLensError`.

    ``data``: the table or archive; None for a plan that computes its own. ``runs``: folder of what is made on the way, by the plan's
    name; trainings that are finished there are left as they are.
    """
    folder = runs / plan.name
    folder.mkdir(parents=True, exist_ok=True)
    table = _table(plan, folder, data, notify)
    config = folder / _CONFIG
    config.write_text(yaml.safe_dump(plan.recipe, sort_keys=False), encoding="utf-8")
    trained = []
    for seed in plan.seeds:
        notify(f"{plan.name}, seed {seed}")
        run = folder / f"seed-{seed}"
        fit(run, [f"--config={config}", f"--data.table={table}", f"--seed_everything={seed}"], folds="0", notify=notify)
        trained.append(run)
    return _shipped(plan, trained, out, notify)


def _shipped(plan: BuildPlan, trained: Sequence[Path], out: Path, notify: Notify) -> str:
    """Measure the run of the first seed and export it, with the figures of the others."""
    notify("measuring")
    evaluate([trained[0]], None, draws=plan.draws, progress=notify)
    seeds = _seed_figures(plan, trained) if len(plan.seeds) > 1 else None
    out.parent.mkdir(parents=True, exist_ok=True)
    text = plan.text
    return export(
        trained[0],
        out,
        ExportPlan(
            name=plan.name,
            version=plan.version,
            description=text.description,
            intended_use=text.intended_use.strip(),
            license_text=text.license,
            text=text,
            classes=tuple(plan.classes),
            class_prior=tuple(plan.class_prior) or _shares(trained[0], plan.classes),
            seeds=seeds,
            phantom=plan.phantom is not None,
        ),
    )


def _table(plan: BuildPlan, folder: Path, data: Path | None, notify: Notify) -> Path:
    if plan.phantom is None:
        if data is None:
            msg = f"{plan.name} learns from data that do not come along; give them as --data (see the credit in its plan)."
            raise PlanError(msg)
        return data
    if data is not None:
        msg = f"{plan.name} learns from computed lesions; leave out --data."
        raise PlanError(msg)
    notify(f"computing {plan.phantom.patients * plan.phantom.lesions} phantom lesions")
    shutil.rmtree(folder / "data", ignore_errors=True)
    write_phantom_table(folder / "data", plan.phantom)
    return folder / "data" / TABLE


def _shares(run: Path, classes: Sequence[LesionClass]) -> tuple[float, ...]:
    """Of the classes among the training lesions, which the temperature's lesions share by stratification."""
    predictions = RunFolder(run).finished_folds()[0].predictions()
    labels = predictions.labels[predictions.split == "train"]
    return tuple(round(float((labels == c).mean()), 4) for c in range(len(classes)))


def _seed_figures(plan: BuildPlan, runs: Sequence[Path]) -> SeedFigures:
    """AUC of each seed, and of their mean with an interval: in each bootstrap sample of patients all seeds are measured."""
    found = [RunFolder(run).finished_folds()[0].predictions() for run in runs]
    tested = [part.at((part.split == "test") & (part.labels >= 0)) for part in found]
    labels, patients = tested[0].labels, tested[0].patients
    scores = [part.probabilities[:, 1] for part in tested]
    if tested[0].probabilities.shape[1] != 2:
        msg = "several seeds are compared by AUC, which two classes have; give one seed."
        raise PlanError(msg)
    of_seeds = [over(auc, labels == 1, score) for score in scores]
    # Of these very seeds: the card asks how sure their mean is, not what a sixth one would give.
    mean = interval(of_seeds, PatientDraws(patients, draws=plan.draws), draw_seeds=False)
    aucs = tuple(of_seed(np.arange(len(labels))) for of_seed in of_seeds)
    return SeedFigures(tuple(plan.seeds), aucs, mean.value, mean.low, mean.high, plan.aim_auc)
