"""What the nodule models are asked: the targets of each, and the figures of its out-of-fold answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from LesionLib.io.reader_ratings import KINDS
from LesionLib.uncertainty.conformal import ConformalQuantile, prediction_sets
from scipy.special import log_softmax

from lesiontraining.data.readers.lidc_ratings import ATTRIBUTES, NoduleReaders
from lesiontraining.evaluation.baselines import baseline_features, baseline_probabilities
from lesiontraining.evaluation.classification import auc, balanced_accuracy, macro_auc
from lesiontraining.evaluation.intervals import PatientDraws, difference, interval, over
from lesiontraining.nodules.described import GIVEN, GROWN, LOOSE, Described, file_of
from lesiontraining.nodules.figures import (
    Aim,
    Figures,
    Measuring,
    Metric,
    Steadiness,
    Table,
    balanced_calibration_error,
    spearman,
)
from lesiontraining.nodules.heads import fit_calibration
from lesiontraining.nodules.nested import Nested, Task
from lesiontraining.runs.uncertainty import coverage_of_sets, fit_quantile

MODEL, LOOSE_ROW, GROWN_ROW = "this model", "this model, loose boxes", "this model, boxes drawn larger"
VOLUME, SIZE_HU, FIVE_HU = "volume only", "size + mean HU", "five HU numbers"
MIDDLE_MM = (5.0, 12.0)
_AGREED_BENIGN, _AGREED_MALIGNANT = 2.25, 3.75
_STEADY_WEIGHT = 1.0
_FEWEST = 20  # nodules of a class for a quantile of their own


@dataclass(frozen=True, eq=False)
class Nodules:
    """The lesions of the table with all that figures need; every array is (lesion, ...) in the order of the table.

    ``readers``: None where no readers are matched; ``diameter_mm``, ``volume_mm3``: of the table.
    """

    described: Described
    readers: Sequence[NoduleReaders | None]
    folds: np.ndarray
    malignant: np.ndarray
    volume_mm3: np.ndarray
    diameter_mm: np.ndarray

    @classmethod
    def of(cls, described: Described, ratings: Mapping[str, NoduleReaders], folds: np.ndarray) -> Nodules:
        """``ratings``: by file name."""
        table = described.table

        def column(name: str) -> np.ndarray:
            return np.array([float(row.column(name)) for row in table.rows])

        return cls(
            described,
            [ratings.get(file_of(table, index)) for index in range(len(table))],
            folds,
            table.labels.astype(int),
            column("volume_mm3"),
            column("diameter_mm"),
        )

    @property
    def patients(self) -> np.ndarray:
        """(lesion,)."""
        return self.described.table.patients

    @property
    def middle(self) -> np.ndarray:
        """Nodules of 5-12 mm, bool."""
        low, high = MIDDLE_MM
        return (self.diameter_mm >= low) & (self.diameter_mm <= high)

    @property
    def everyone(self) -> np.ndarray:
        """All, bool."""
        return np.full(len(self.folds), True)

    def rated(self, of: str) -> np.ndarray:
        """Mean rating, NaN where no readers are matched."""
        return np.array([np.nan if r is None else r.mean(of) for r in self.readers])

    def baselines(self, labels: np.ndarray, classes: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Class probabilities (lesion, class) of regressions without images that never saw the patient; NaN without a label."""
        known = labels >= 0
        features = {
            VOLUME: baseline_features(volume_mm3=self.volume_mm3),
            SIZE_HU: baseline_features(
                volume_mm3=self.volume_mm3, diameter_mm=self.diameter_mm, mean_hu=self.described.hu[:, 0]
            ),
            FIVE_HU: self.described.hu,
        }
        found = {}
        for name in names:
            p = np.full((len(labels), classes), np.nan)
            p[known] = baseline_probabilities(
                features[name][known], labels[known], self.folds[known], classes=classes, patients=self.patients[known]
            )
            found[name] = p
        return found


def balanced_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    """Log loss in which every class that occurs weighs the same."""
    log_p = log_softmax(logits, axis=1)[np.arange(len(labels)), labels]
    return float(-np.mean([log_p[labels == c].mean() for c in np.unique(labels)]))


def steady_loss(given: np.ndarray, loose: np.ndarray, task: Task) -> float:
    """Balanced log loss over both drawings, plus the mean change of a probability from the one to the other."""
    known = task.labels >= 0
    outputs, labels = np.concatenate([given[known], loose[known]]), np.tile(task.labels[known], 2)
    logits = fit_calibration(outputs, labels, classes=task.classes).of(outputs)
    one, other = np.split(np.exp(log_softmax(logits, axis=1)), 2)
    return balanced_loss(logits, labels) + _STEADY_WEIGHT * float(np.abs(one - other).sum(axis=1).mean() / 2)


def score_loss(given: np.ndarray, loose: np.ndarray, task: Task) -> float:
    """Mean absolute error over both drawings."""
    return float((np.abs(given - task.targets) + np.abs(loose - task.targets)).mean() / 2)


def malignancy_task(nodules: Nodules) -> Task:
    """The share of readers who rated above 3; a nodule without matched readers gets the mean share of its label."""
    share = np.array([np.nan if r is None else r.share_suspicious for r in nodules.readers])
    for label in (0, 1):
        of_label = nodules.malignant == label
        share[of_label & np.isnan(share)] = np.nanmean(share[of_label])
    return Task(share[:, None], nodules.malignant, 2, np.ones(len(share)), steady_loss)


def kind_labels(nodules: Nodules) -> np.ndarray:
    """Index into `KINDS` by majority of the readers, -1 for ties, mixed nodules and those without matched readers."""
    kinds = ["" if r is None else r.kind for r in nodules.readers]
    return np.array([KINDS.index(kind) if kind else -1 for kind in kinds])


def kind_task(nodules: Nodules) -> Task:
    """One target for each kind, every kind weighing the same."""
    labels = kind_labels(nodules)
    targets = np.where(labels[:, None] >= 0, np.eye(len(KINDS))[labels], np.nan)
    counts = np.bincount(labels[labels >= 0], minlength=len(KINDS))
    weights = np.where(labels >= 0, 1.0 / np.sqrt(counts[labels]), 0.0)
    return Task(targets, labels, len(KINDS), weights, steady_loss)


def score_task(nodules: Nodules) -> Task:
    """Mean ratings of the seven attributes, in units of their scales."""
    targets = np.stack([nodules.rated(name) for name in ATTRIBUTES], axis=1)
    return Task(targets, np.full(len(targets), -1), 0, np.ones(len(targets)), score_loss)


def class_metrics(labels: np.ndarray, classes: int) -> dict[str, Metric]:
    """What is printed of classes; values are probabilities (lesion, class)."""
    if classes > 2:
        return {
            "AUC": lambda p, i: macro_auc(labels[i], p),
            "balanced accuracy": lambda p, i: balanced_accuracy(labels[i], p.argmax(axis=1), classes),
        }

    def share_right(p: np.ndarray, i: np.ndarray, of: int) -> float:
        chosen = labels[i] == of
        return float((p[chosen].argmax(axis=1) == of).mean()) if chosen.any() else float("nan")

    return {
        "AUC": lambda p, i: auc(labels[i] == 1, p[:, 1]),
        "balanced accuracy": lambda p, i: (share_right(p, i, 0) + share_right(p, i, 1)) / 2,
        "sensitivity": lambda p, i: share_right(p, i, 1),
        "specificity": lambda p, i: share_right(p, i, 0),
    }


def malignancy_figures(nodules: Nodules, answers: Nested, measuring: Measuring, alpha: float) -> Figures:
    """Every table and aim of the card."""
    y = nodules.malignant
    p = {name: answers.probabilities(name) for name in (GIVEN, LOOSE, GROWN)}
    methods = {MODEL: p[GIVEN], **nodules.baselines(y, 2, (VOLUME, SIZE_HU)), LOOSE_ROW: p[LOOSE], GROWN_ROW: p[GROWN]}
    groups = {"All nodules": nodules.everyone, "Nodules of 5-12 mm": nodules.middle}
    tables = {
        name: measuring.table(
            name, rows, methods, class_metrics(y, 2), counts={"malignant": y == 1},
            against=(VOLUME, SIZE_HU, LOOSE_ROW),
        )
        for name, rows in groups.items()
    }  # fmt: skip
    ranked = [_ranked_table(nodules, methods, measuring, name, rows) for name, rows in groups.items()]
    agreed = [_agreed_table(nodules, methods, measuring, name, rows) for name, rows in groups.items()]
    steady = steadiness_by_group({name: of[:, 1] for name, of in p.items()}, groups)
    ece = {name: balanced_calibration_error(p[GIVEN][rows, 1], y[rows] == 1) for name, rows in groups.items()}
    sets = banded_sets(p[GIVEN], y, nodules)
    cover, cover_json = coverage_by_band(sets(alpha), y, nodules, alpha)
    middle = coverage_of_sets(sets(alpha)[nodules.middle], y[nodules.middle], alpha=alpha)
    others = coverage_of_sets(sets(alpha)[~nodules.middle], y[~nodules.middle], alpha=alpha)
    first, second = tables["All nodules"], tables["Nodules of 5-12 mm"]
    grown = steady[GROWN_ROW]["All nodules"]
    aims = (
        Aim("AUC, all nodules", 0.935, first.rows[MODEL]["AUC"].value),
        Aim("AUC, 5-12 mm", 0.875, second.rows[MODEL]["AUC"].value),
        Aim("AUC minus volume only, all, lower end of the interval", 0.0, first.differences[VOLUME].low),
        Aim("AUC minus volume only, 5-12 mm, lower end of the interval", 0.0, second.differences[VOLUME].low),
        Aim("AUC minus size + mean HU, all, lower end of the interval", 0.0, first.differences[SIZE_HU].low),
        Aim("AUC lost on loose boxes, all", 0.005, first.differences[LOOSE_ROW].value, at_least=False),
        Aim("AUC lost on loose boxes, 5-12 mm", 0.005, second.differences[LOOSE_ROW].value, at_least=False),
        Aim("change of p in a box drawn 0-3 mm larger, median", 0.04, grown.median, at_least=False),
        Aim("the same, 95th percentile", 0.15, grown.p95, at_least=False),
        Aim("the same, mean shift", 0.03, abs(grown.shift), at_least=False),
        Aim("calibration error, classes equally frequent", 0.05, ece["All nodules"], at_least=False),
        Aim("sets that hold the truth, 5-12 mm", 1 - alpha, middle.covered.value),
        Aim("sets that hold the truth, all others", 1 - alpha, others.covered.value),
    )
    return Figures(
        tables=(
            *tables.values(),
            *ranked,
            *agreed,
            _diagnosis_table(nodules, methods, measuring),
            _human_table(nodules, methods, measuring),
        ),
        sentences={
            **{f"Box drawn otherwise, {row}, {group}": str(s) for row, of in steady.items() for group, s in of.items()},
            **{f"Calibration error, classes equally frequent, {name.lower()}": f"{value:.3f}" for name, value in ece.items()},
            **cover,
        },
        aims=aims,
        numbers={
            "steadiness": {row: {group: s.as_json() for group, s in of.items()} for row, of in steady.items()},
            "calibration_error": {name: round(value, 4) for name, value in ece.items()},
            "coverage": cover_json,
        },
    )  # fmt: skip


def kind_figures(nodules: Nodules, answers: Nested, measuring: Measuring, alpha: float) -> Figures:
    """Every table and aim of the card."""
    labels = kind_labels(nodules)
    known = labels >= 0
    p = {name: answers.probabilities(name) for name in (GIVEN, LOOSE, GROWN)}
    methods = {
        MODEL: p[GIVEN], **nodules.baselines(labels, len(KINDS), (FIVE_HU, SIZE_HU, VOLUME)),
        LOOSE_ROW: p[LOOSE], GROWN_ROW: p[GROWN],
    }  # fmt: skip
    groups = {"All nodules of one kind": known, "Nodules of 5-12 mm": known & nodules.middle}
    of_kinds = {kind: labels == c for c, kind in enumerate(KINDS)}
    metrics = class_metrics(labels, len(KINDS)) | {
        f"AUC, {kind}": (lambda v, i, c=c: auc(labels[i] == c, v[:, c])) for c, kind in enumerate(KINDS)
    }
    tables = [
        measuring.table(
            name,
            rows,
            methods,
            metrics,
            counts=of_kinds,
            against=(FIVE_HU, SIZE_HU, LOOSE_ROW),
        )
        for name, rows in groups.items()
    ]
    answered = p[GIVEN].argmax(axis=1)
    rows = np.arange(len(labels))
    steady = steadiness_by_group({name: of[rows, answered] for name, of in p.items()}, groups)
    sets = banded_sets(p[GIVEN], labels, nodules)(alpha)
    cover, cover_json = coverage_by_band(sets, labels, nodules, alpha)
    first = tables[0].rows[MODEL]
    grown = steady[GROWN_ROW]["All nodules of one kind"]
    return Figures(
        tables=tuple(tables),
        sentences={
            **{f"Box drawn otherwise, {row}, {g}": str(s) for row, of in steady.items() for g, s in of.items()},
            **cover,
        },
        aims=(
            Aim("AUC, mean over the kinds", 0.98, first["AUC"].value),
            Aim("balanced accuracy", 0.90, first["balanced accuracy"].value),
            Aim("change of p in a box drawn 0-3 mm larger, median", 0.04, grown.median, at_least=False),
            Aim("the same, 95th percentile", 0.15, grown.p95, at_least=False),
        ),
        numbers={
            "steadiness": {row: {g: s.as_json() for g, s in of.items()} for row, of in steady.items()},
            "coverage": cover_json,
        },
    )


def reader_errors(nodules: Nodules, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of every pair of a nodule and one of its readers: lesion index, that reader's rating, and the mean of the others."""
    of, own, others = [], [], []
    for index, readers in enumerate(nodules.readers):
        said = np.array([] if readers is None else readers.ratings[name], dtype=float)
        if len(said) < 2:
            continue
        of += [index] * len(said)
        own += said.tolist()
        others += ((said.sum() - said) / (len(said) - 1)).tolist()
    return np.array(of), np.array(own), np.array(others)


def score_errors(nodules: Nodules, outputs: np.ndarray, scales: Mapping[str, tuple[float, float]]) -> dict[str, dict]:
    """By attribute, for the manifest: mean absolute error of the model against the readers' mean, and of one reader against the
    mean of the others. ``outputs``: out-of-fold, (lesion, attribute).
    """
    found = {}
    for column, name in enumerate(ATTRIBUTES):
        rated = nodules.rated(name)
        known = ~np.isnan(rated)
        _, own, others = reader_errors(nodules, name)
        error = np.abs(np.clip(outputs[:, column], *scales[name]) - rated)[known].mean()
        found[name] = {
            "model": round(float(error), 3),
            "reader": round(float(np.abs(own - others).mean()), 3),
            "n": int(known.sum()),
        }
    return found


def description_table(
    nodules: Nodules, answers: Nested, measuring: Measuring, scales: Mapping[str, tuple[float, float]]
) -> Table:
    """By attribute: error against the mean of a nodule's other readers, of the model and of the reader that was left out."""
    rows, differences, count = {}, {}, 0
    for column, name in enumerate(ATTRIBUTES):
        of, own, others = reader_errors(nodules, name)
        count = len(of)
        drawn = PatientDraws(nodules.patients[of], draws=measuring.draws, seed=measuring.seed)
        said = {d: np.clip(answers.outputs[d][:, column], *scales[name]) for d in (GIVEN, LOOSE)}
        errors = {"this model": np.abs(said[GIVEN][of] - others), "one reader": np.abs(own - others)}
        errors |= {"this model, loose boxes": np.abs(said[LOOSE][of] - others)}
        errors |= {"the mean of all nodules": np.abs(others.mean() - others)}
        rows[name] = {who: interval(over(np.mean, values), drawn) for who, values in errors.items()}
        rated = nodules.rated(name)
        known = np.flatnonzero(~np.isnan(rated))
        ranks = PatientDraws(nodules.patients[known], draws=measuring.draws, seed=measuring.seed)
        rows[name]["Spearman with the mean"] = interval(over(spearman, said[GIVEN][known], rated[known]), ranks)
        differences[f"one reader, {name}"] = difference(
            over(np.mean, errors["this model"]), over(np.mean, errors["one reader"]), drawn
        )
    return Table(
        "Mean absolute error against the mean of the other readers, in steps of the scale",
        count, len(np.unique(nodules.patients[of])), {}, rows, "Error", differences,
        "Below zero the model is nearer to the other readers than one of them is.", "pairs of a nodule and a reader",
    )  # fmt: skip


def description_figures(
    nodules: Nodules, kinds: Figures, answers: Nested, measuring: Measuring, scales: Mapping[str, tuple[float, float]]
) -> Figures:
    """Those of the kind, and the scores beside one reader."""
    table = description_table(nodules, answers, measuring, scales)
    aims = tuple(
        Aim(f"error minus one reader's, {name.removeprefix('one reader, ')}", 0.0, found.value, at_least=False)
        for name, found in table.differences.items()
    )
    return Figures((*kinds.tables, table), kinds.sentences, (*aims, *kinds.aims), kinds.numbers)


def banded_sets(p: np.ndarray, labels: np.ndarray, nodules: Nodules):
    """A function of alpha -> sets, bool (lesion, class), of quantiles fitted on the other folds, for each band of size."""
    shortest = nodules.described.size_mm.min(axis=1)

    def sets(alpha: float) -> np.ndarray:
        found = np.zeros(p.shape, dtype=bool)
        for fold in np.unique(nodules.folds):
            rest, here = (nodules.folds != fold) & (labels >= 0), np.flatnonzero(nodules.folds == fold)
            quantile = banded_quantile(p[rest], labels[rest], shortest[rest], alpha)
            for index in here:
                found[index] = prediction_sets(p[index : index + 1], quantile.of_size(shortest[index]))[0]
        return found

    return sets


def banded_quantile(p: np.ndarray, labels: np.ndarray, shortest_mm: np.ndarray, alpha: float) -> ConformalQuantile:
    """Class by class for boxes below, in and above 5-12 mm; a class too rare in a band takes its quantile over all sizes."""
    whole = fit_quantile(p, labels, alpha, class_conditional=True)
    band = np.searchsorted(MIDDLE_MM, shortest_mm, side="left")
    scores = np.tile(whole.scores, (len(MIDDLE_MM) + 1, 1))
    for of, c in product(range(len(scores)), range(p.shape[1])):
        chosen = (band == of) & (labels == c)
        if chosen.sum() >= _FEWEST:
            scores[of, c] = fit_quantile(p[chosen], labels[chosen], alpha).scores[c]
    return ConformalQuantile(whole.scores, alpha, whole.counts, True, np.array(MIDDLE_MM), scores)


def coverage_by_band(
    sets: np.ndarray, labels: np.ndarray, nodules: Nodules, alpha: float
) -> tuple[dict[str, str], dict[str, object]]:
    """How often the sets held, in 5-12 mm and in the rest, by class: in words and as JSON."""
    words, numbers = {}, {}
    names = ("benign", "malignant") if sets.shape[1] == 2 else KINDS
    known = labels >= 0
    for band, rows in (("5-12 mm", nodules.middle), ("all other sizes", ~nodules.middle)):
        parts = {band: rows & known} | {f"{band}, {name}": rows & (labels == c) for c, name in enumerate(names)}
        for name, of in parts.items():
            if not of.any():
                words[f"Prediction sets, {name}"] = "not measured: there is no such nodule."
                continue
            measured = coverage_of_sets(sets[of], labels[of], alpha=alpha)
            words[f"Prediction sets, {name}"] = str(measured)
            numbers[name] = measured.as_json()
    return words, numbers


def steadiness_by_group(
    p: Mapping[str, np.ndarray], groups: Mapping[str, np.ndarray]
) -> dict[str, dict[str, Steadiness]]:
    """``p``: of one class, by drawing. By row of the tables, by group."""
    return {
        row: {name: Steadiness.of(p[GIVEN][rows], p[drawing][rows]) for name, rows in groups.items()}
        for row, drawing in ((LOOSE_ROW, LOOSE), (GROWN_ROW, GROWN))
    }


def _suspicion(methods: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: methods[name][:, 1] for name in (MODEL, VOLUME, SIZE_HU, LOOSE_ROW)}


def _ranked_table(
    nodules: Nodules, methods: Mapping[str, np.ndarray], measuring: Measuring, name: str, rows: np.ndarray
) -> Table:
    rating = nodules.rated("malignancy")
    chosen = rows & ~np.isnan(rating)
    return measuring.table(
        f"Rank correlation with the readers' mean rating, {name.lower()}", chosen, _suspicion(methods),
        {"Spearman": lambda v, i: spearman(v, rating[i])}, against=(VOLUME, SIZE_HU),
    )  # fmt: skip


def _agreed_table(
    nodules: Nodules, methods: Mapping[str, np.ndarray], measuring: Measuring, name: str, rows: np.ndarray
) -> Table:
    rating = nodules.rated("malignancy")
    high = rating >= _AGREED_MALIGNANT
    chosen = rows & (high | (rating <= _AGREED_BENIGN))
    return measuring.table(
        f"Nodules that readers agree on (mean at most 2.25 or at least 3.75), {name.lower()}", chosen, _suspicion(methods),
        {"AUC": lambda v, i: auc(high[i], v)}, counts={"at least 3.75": high},
        against=(VOLUME, SIZE_HU),
    )  # fmt: skip


def _diagnosis_table(nodules: Nodules, methods: Mapping[str, np.ndarray], measuring: Measuring) -> Table:
    known = np.array([r is not None and r.diagnosis is not None for r in nodules.readers])
    cancer = np.array([bool(r is not None and r.diagnosis) for r in nodules.readers])
    return measuring.table(
        "Against diagnoses", known, _suspicion(methods), {"AUC": lambda v, i: auc(cancer[i], v)},
        counts={"cancer": cancer}, against=(VOLUME, SIZE_HU),
        note="The question is how readers would rate a nodule. Whether it is cancer is another one, and this is the only answer to "
        "it that the collection allows.",
    )  # fmt: skip


def _human_table(nodules: Nodules, methods: Mapping[str, np.ndarray], measuring: Measuring) -> Table:
    """Each reader beside the model, against what the other readers of the same nodule said."""
    of, rating, truth = [], [], []
    for index, readers in enumerate(nodules.readers):
        if readers is None:
            continue
        said = np.array(readers.ratings["malignancy"])
        above = said > 3
        of += [index] * len(said)
        rating += said.tolist()
        truth += [int(above.sum() - own) >= 2 for own in above]
    index, target = np.array(of), np.array(truth)
    pairs = Measuring(nodules.patients[index], measuring.draws, measuring.seed)
    values = {"this model": methods[MODEL][index, 1], "one reader": np.array(rating, dtype=float)}
    values |= {name: methods[name][index, 1] for name in (VOLUME, SIZE_HU)}
    return pairs.table(
        "Beside one reader: at least two of the other readers above 3", np.full(len(index), True), values,
        {"AUC": lambda v, i: auc(target[i], v)}, against=("one reader", VOLUME, SIZE_HU),
        unit="pairs of a nodule and a reader",
    )  # fmt: skip
