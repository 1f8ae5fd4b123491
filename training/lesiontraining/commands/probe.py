"""``lesiontrain probe``: a frozen network with a linear head, cross-validated over patients, fitted on all, as a model folder.

What makes a model is a `ProbePlan`. The figures are of lesions whose patient the head had not seen; what is shipped is fitted
on all of them in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from LesionLib.explain.localisation import SanityCheck, sanity_check
from LesionLib.model.bundle import TEMPERATURE
from LesionLib.networks import LesionNet, build_network
from LesionLib.networks.base import device_of
from LesionLib.networks.weights import load_pretrained
from LesionLib.sampling.batches import crop_lesion
from LesionLib.sampling.inputs import Spec

from lesiontraining.commands.plans import PlanError
from lesiontraining.commands.probe_plan import SIZES, LesionGroup, ProbePlan
from lesiontraining.data.lesions import LesionTable, ct_lesions
from lesiontraining.data.messages import Problem, refuse
from lesiontraining.data.readers.registry import read_with
from lesiontraining.data.splits import cross_validation_folds
from lesiontraining.evaluation.baselines import baseline_features, baseline_probabilities
from lesiontraining.evaluation.classification import macro_auc
from lesiontraining.evaluation.intervals import Difference, PatientDraws, difference, over
from lesiontraining.evaluation.leaks import check_leaks
from lesiontraining.evaluation.predictions import Predictions
from lesiontraining.evaluation.subgroups import Subgroup, SubgroupRow, subgroup_table
from lesiontraining.reporting.figures import classification_statistics, positive_statistics
from lesiontraining.reporting.report import ReportInput, write_report
from lesiontraining.runs.heat_maps import HeatFigures, heat_figures
from lesiontraining.runs.inference import embedding_of, lesion_descriptors
from lesiontraining.runs.reliability import Reliability, cross_fitted_reliability
from lesiontraining.runs.table_answers import LesionMeasures, table_predictions
from lesiontraining.runs.uncertainty import best_temperature, cross_fitted_probabilities, mean_probabilities
from lesiontraining.tasks.linear_probe import LinearHead, fit_head, out_of_fold_logits

_TEMPERATURES = (0.2, 10.0)
_UNSEEN_SEED = 1000  # added to the seed: the loose boxes that are tested are none of those that are fitted on
MODEL, LOOSE = "this model", "this model, loose boxes"
Notify = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Described:
    """What the frozen network sees of the table's lesions.

    ``drawings``: descriptors (slice, d) of each lesion, for the given boxes and for each loose drawing; ``unseen``: for one
    more loose drawing that is only tested. ``middles``: images (n, channel, row, column) for the sanity check.
    """

    drawings: list[list[np.ndarray]]
    unseen: list[np.ndarray]
    measures: LesionMeasures
    middles: np.ndarray


@dataclass(frozen=True, eq=False)
class Probed:
    """The network to ship with what is fitted beside it, and the figures under cross-validation.

    ``methods``: out-of-fold answers, the model first; ``rows``: of the table, by group; ``groups``: by group and method;
    ``differences``: AUC of the model minus each baseline, by group.
    """

    network: LesionNet
    temperature: float
    strength: float
    table: LesionTable
    moved_patients: tuple[str, ...]
    methods: dict[str, Predictions]
    rows: dict[str, np.ndarray]
    groups: dict[str, dict[str, SubgroupRow]]
    differences: dict[str, dict[str, Difference]]
    reliability: Reliability
    sanity: SanityCheck
    heat: dict[str, HeatFigures]
    box_size_mm: tuple[float, float]
    slice_distance_mm: tuple[float, float]
    device: str

    def calibration(self) -> dict[str, torch.Tensor]:
        """What the bundle's tensors hold besides the weights."""
        return {TEMPERATURE: torch.tensor([self.temperature]), **self.reliability.tensors()}

    def class_counts(self, group: str) -> list[int]:
        """Lesions of each class in a group."""
        labels = self.table.labels[self.rows[group]]
        return np.bincount(labels, minlength=len(self.table.class_names)).tolist()


def probe(plan: ProbePlan, data: Path, weights: Path, notify: Notify) -> Probed:
    """Cross-validate the plan on folds by patient, then fit what is shipped on all lesions. Raises `LesionLensError`."""
    table = read_with(plan.reader, data, label=plan.label, classes=list(plan.class_names), **plan.reader_options)
    table = table.where(lambda row: bool(row.label))
    folds, moved = cross_validation_folds(table, plan.folds, seed=plan.seed)
    notify(f"{len(table)} lesions of {len(set(table.patients))} patients; {len(moved)} patient(s) moved to one fold")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = build_network(plan.network, {**plan.arguments, "classes": len(plan.classes)}).to(device).eval()
    report = load_pretrained(network, weights)
    notify(f"{len(report.taken)} tensors of {weights.name} taken, {len(report.left)} left to be learned")
    described = describe(table, network, plan, notify)
    notify("cross-validating")
    options = {"classes": len(plan.classes), "strengths": plan.strengths}
    given, loose = out_of_fold_logits(
        described.drawings,
        [described.drawings[0], described.unseen],
        table.labels,
        table.patients,
        folds,
        **options,
    )
    head = fit_head(described.drawings, table.labels, table.patients, **options)
    _fill(network, head, table, plan.spec)
    temperature = best_temperature(
        lambda t: mean_probabilities(given, t), table.labels, balanced=True, bounds=_TEMPERATURES
    )
    methods = _methods(plan, table, folds, described, given, mean_probabilities(loose, temperature))
    notify("fitting what tells how far to rely on an answer")
    model = methods[MODEL]
    # Not of `Predictions`: what is shipped keeps the network's own precision.
    embeddings = np.stack([embedding_of(of_lesion) for of_lesion in described.drawings[0]])
    try:
        reliability = cross_fitted_reliability(
            model.probabilities, table.labels, embeddings, folds, class_names=plan.class_names, alpha=plan.alpha
        )
    except ValueError as error:
        msg = f"{table.name} has too few lesions or folds for a model that says how far to rely on it: {error}."
        raise PlanError(msg) from error
    middles = torch.from_numpy(described.middles).to(device)
    sanity = sanity_check(network, middles, seed=plan.seed)
    notify("measuring intervals")
    rows = {group.name: _rows(group, table) for group in plan.groups}
    groups, differences = _figures(plan, table, rows, methods)
    notify("measuring where the heat maps lie")
    heat = heat_figures(network, ((volume, box) for _, volume, box in ct_lesions(table)), plan.spec, plan.class_names)
    sizes, distances = np.stack(described.measures.size_mm), [mm[2] for mm in described.measures.spacing_mm]
    return Probed(
        network=network.cpu(),
        temperature=temperature,
        strength=head.strength,
        table=table,
        moved_patients=moved,
        methods=methods,
        rows=rows,
        groups=groups,
        differences=differences,
        reliability=reliability,
        sanity=sanity,
        heat=heat,
        box_size_mm=(float(sizes.min()), float(sizes.max() + 2 * plan.jitter.grow_mm)),
        slice_distance_mm=(float(min(distances)), float(max(distances))),
        device=device.type,
    )


def describe(table: LesionTable, network: LesionNet, plan: ProbePlan, notify: Notify) -> Described:
    """Every lesion read once, cut for all its drawings, and shown to the frozen network."""
    numbers = [*range(1, plan.jitter.drawings + 1), _UNSEEN_SEED]
    generators = [np.random.default_rng(plan.seed + number) for number in numbers]
    shown = set(np.linspace(0, len(table) - 1, min(plan.sanity_patches, len(table))).astype(int).tolist())
    drawings: list[list[np.ndarray]] = [[] for _ in range(len(numbers) + 1)]
    measures, middles = LesionMeasures(), []
    for index, (_, volume, box) in enumerate(ct_lesions(table)):
        boxes = [box, *(plan.jitter.drawn(box, rng) for rng in generators)]
        images = [crop_lesion(volume, drawn, plan.spec).patches for drawn in boxes]
        # One lesion at a time: what it is like depends on no other one.
        for drawing, descriptors in zip(drawings, lesion_descriptors(network, images, at_once=1), strict=True):
            drawing.append(descriptors)
        measures.add(volume, box)
        if index in shown:
            middles.append(images[0][len(images[0]) // 2])
        if (index + 1) % 100 == 0 or index + 1 == len(table):
            notify(f"{index + 1} of {len(table)} lesions described, {len(boxes)} drawings each")
    return Described(drawings[:-1], drawings[-1], measures, np.stack(middles))


def _fill(network: LesionNet, head: LinearHead, table: LesionTable, spec: Spec) -> None:
    head.fill(network)
    _, volume, box = next(ct_lesions(table))
    images = crop_lesion(volume, box, spec).patches
    head.check(
        network,
        torch.from_numpy(images).to(device_of(network)),
        lesion_descriptors(network, [images], at_once=1)[0],
    )


def _methods(
    plan: ProbePlan,
    table: LesionTable,
    folds: np.ndarray,
    described: Described,
    given: Sequence[np.ndarray],
    loose: np.ndarray,
) -> dict[str, Predictions]:
    """Out-of-fold answers: the model on the given boxes, the baselines, and the model on boxes drawn again."""
    probabilities = {MODEL: cross_fitted_probabilities(given, table.labels, folds, balanced=True, bounds=_TEMPERATURES)}
    known = _features(plan, table, described.measures)
    for name, features in plan.baselines.items():
        x = baseline_features(**{feature: known[feature] for feature in features})
        probabilities[name] = baseline_probabilities(
            x, table.labels, folds, classes=len(plan.classes), patients=table.patients
        )
    probabilities[LOOSE] = loose
    embeddings = {
        name: np.stack([embedding_of(of_lesion) for of_lesion in of])
        for name, of in ((MODEL, described.drawings[0]), (LOOSE, described.unseen))
    }
    return {
        name: table_predictions(
            table,
            described.measures,
            probabilities=p,
            folds=folds,
            embeddings=embeddings.get(name, embeddings[MODEL]),
        )
        for name, p in probabilities.items()
    }


def _features(plan: ProbePlan, table: LesionTable, measures: LesionMeasures) -> dict[str, np.ndarray]:
    sizes = {"volume_mm3": np.array(measures.volume_mm3), "diameter_mm": np.stack(measures.size_mm).max(axis=1)}
    if plan.table_sizes:
        sizes = {name: _numbers(table, name) for name in SIZES}
    return {**sizes, "mean_hu": np.array(measures.mean_hu)}


def _numbers(table: LesionTable, column: str) -> np.ndarray:
    numbers, problems = np.full(len(table), np.nan), []
    for index, row in enumerate(table.rows):
        try:
            numbers[index] = float(row.column(column))
        except ValueError:
            problems.append(Problem(row.line, f"{column} is {row.column(column)!r}; a number is needed"))
    refuse(table.name, problems)
    return numbers


def _figures(
    plan: ProbePlan, table: LesionTable, rows: dict[str, np.ndarray], methods: dict[str, Predictions]
) -> tuple[dict[str, dict[str, SubgroupRow]], dict[str, dict[str, Difference]]]:
    """By group: every method's figures, and the AUC of the model minus that of each baseline."""
    options = {"draws": plan.draws, "seed": plan.seed}
    parts = [Subgroup("group", name, of_group) for name, of_group in rows.items()]
    tables = {name: subgroup_table(parts, _printed(p), table.patients, **options) for name, p in methods.items()}
    groups = {part.name: {name: of[index] for name, of in tables.items()} for index, part in enumerate(parts)}

    def minus(name: str, part: Subgroup) -> Difference:
        ours, theirs = (
            over(macro_auc, p.labels[part.rows], p.probabilities[part.rows]) for p in (methods[MODEL], methods[name])
        )
        return difference(ours, theirs, PatientDraws(table.patients[part.rows], **options))

    return groups, {part.name: {name: minus(name, part) for name in plan.baselines} for part in parts}


def printed_figures(classes: int) -> dict[str, str]:
    """The figures of the card, as they are printed."""
    names = {"auc": "AUC", "balanced_accuracy": "balanced accuracy"}
    if classes == 2:
        return names | {"sensitivity": "sensitivity", "specificity": "specificity"}
    return names | {"macro_specificity": "specificity", "macro_f1": "macro F1"}


def _printed(predictions: Predictions) -> dict[str, Callable[[np.ndarray], float]]:
    statistics = classification_statistics(predictions) | positive_statistics(predictions)
    return {name: statistics[name] for name in printed_figures(len(predictions.class_names))}


def _rows(group: LesionGroup, table: LesionTable) -> np.ndarray:
    if not group.column:
        return np.arange(len(table))
    values = _numbers(table, group.column)
    found = np.flatnonzero((values >= group.low) & (values <= group.high))
    if not len(found):
        msg = f"no lesion is in the group {group.name!r}: {group.column} from {group.low:g} to {group.high:g}."
        raise PlanError(msg)
    return found


def report(plan: ProbePlan, probed: Probed, out: Path, notify: Notify) -> None:
    """The page with all figures, charts and the reliability diagram, as of every recipe."""
    table = probed.table
    folds = probed.methods[MODEL].folds
    given = ReportInput(
        title=f"{plan.name} {plan.version}",
        methods=probed.methods,
        baselines=tuple(plan.baselines),
        leaks=check_leaks(folds, identifiers={"patient": table.patients, "study": table.studies}),
        run={
            "Recipe": f"linear head on frozen {plan.network}, C = {probed.strength:g}, {len(np.unique(folds))} folds",
            "Command": plan.text.command,
            "Seed": str(plan.seed),
            "Data": table.credit,
        },
        extra=tuple(f"{name}: {text}" for name, text in probed.reliability.figures.items()),
        notes=table.warnings,
    )
    write_report(given, out, draws=plan.draws, seed=plan.seed, progress=notify)
