"""All figures of a report: of each method its own, against the model the paired differences, and how well it searches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, TypeVar

import numpy as np

from lesiontraining.evaluation.classification import (
    brier_score,
    confusion_matrix,
    expected_calibration_error,
    log_loss,
    macro_auc,
    one_vs_rest,
    overall,
)
from lesiontraining.evaluation.comparisons import delong_paired, mcnemar
from lesiontraining.evaluation.intervals import (
    Difference,
    Estimate,
    PatientDraws,
    Statistic,
    difference,
    holm,
    interval,
)
from lesiontraining.evaluation.predictions import Predictions, PredictionsError
from lesiontraining.evaluation.retrieval import Retrieval, retrieve, without_direction
from lesiontraining.evaluation.subgroups import Subgroup, SubgroupRow, by_tercile, by_value, subgroup_table

Notify = Callable[[str], None]
Found = TypeVar("Found")
_MAX_VALUES = 6


@dataclass(frozen=True)
class Comparison:
    """The model minus one other on the same lesions. ``p_delong`` None for more than two classes; ``p_holm``: of McNemar's."""

    other: str
    auc: Difference
    balanced_accuracy: Difference
    p_mcnemar: float
    p_holm: float
    p_delong: float | None

    def as_json(self) -> dict[str, Any]:
        """For metrics.json."""
        return {
            "auc": self.auc.as_json(),
            "balanced_accuracy": self.balanced_accuracy.as_json(),
            "p_mcnemar": round(self.p_mcnemar, 4),
            "p_mcnemar_holm": round(self.p_holm, 4),
            "p_delong": None if self.p_delong is None else round(self.p_delong, 4),
        }


@dataclass(frozen=True, eq=False)
class Measured:
    """What a report says in numbers. ``rows``: method to figure to estimate.

    ``positive``: of two classes the one whose sensitivity and specificity are meant; None where there are more.
    ``confusions``: by method, counts (class, class), rows are the truth, columns the answer.
    """

    class_names: tuple[str, ...]
    lesions: int
    patients: int
    unlabelled: int
    class_counts: dict[str, int]
    rows: dict[str, dict[str, Estimate]]
    comparisons: tuple[Comparison, ...]
    confusions: dict[str, np.ndarray]
    subgroups: tuple[SubgroupRow, ...]
    notes: tuple[str, ...]
    positive: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain JSON without NaN."""
        return {
            "positive": self.positive,
            "lesions": self.lesions,
            "patients": self.patients,
            "without_label": self.unlabelled,
            "classes": self.class_counts,
            "figures": {name: {f: e.as_json() for f, e in row.items()} for name, row in self.rows.items()},
            "comparisons": {one.other: one.as_json() for one in self.comparisons},
            "confusion": {name: matrix.tolist() for name, matrix in self.confusions.items()},
            "per_class": {name: class_figures(matrix, self.class_names) for name, matrix in self.confusions.items()},
            "subgroups": [row.as_json() for row in self.subgroups],
            "notes": list(self.notes),
        }


def measure(
    methods: Mapping[str, Predictions],
    *,
    draws: int,
    seed: int,
    positive: str | None = None,
    beside: str | None = None,
    notify: Notify | None = None,
) -> Measured:
    """All methods answered the same lesions in the same order; the first is the model. Lesions without label are left out.

    ``positive``: of two classes the one that is looked for (default: the second). ``beside``: the
    method that stands beside the model in the groups. Raises `PredictionsError` for another class.
    """
    known = next(iter(methods.values())).labels >= 0
    labelled = {name: p.at(known) for name, p in methods.items()}
    (_, model), *others = labelled.items()
    drawn = PatientDraws(model.patients, draws=draws, seed=seed)
    index = _positive_index(model.class_names, positive)
    statistics = {name: classification_statistics(p) for name, p in labelled.items()}
    for name, p in labelled.items() if index is not None else ():
        statistics[name] |= positive_statistics(p, index)
    rows = {}
    for name, of in statistics.items():
        if notify:
            notify(f"figures of {name}")
        rows[name] = {figure: interval(statistic, drawn) for figure, statistic in of.items()}
    counts = np.bincount(model.labels, minlength=len(model.class_names))
    return Measured(
        class_names=model.class_names,
        lesions=len(model),
        patients=drawn.patients,
        unlabelled=int((~known).sum()),
        class_counts=dict(zip(model.class_names, map(int, counts), strict=True)),
        rows=rows,
        comparisons=_comparisons(model, dict(others), statistics, drawn),
        confusions={
            n: confusion_matrix(p.labels, p.probabilities.argmax(axis=1), len(counts)) for n, p in labelled.items()
        },
        subgroups=tuple(_subgroups(model, statistics, beside=beside, draws=draws, seed=seed)),
        notes=_notes(counts, model.class_names),
        positive=None if index is None else model.class_names[index],
    )


def classification_statistics(p: Predictions) -> dict[str, Statistic]:
    """Each figure of a method as a function of rows; all lesions labelled."""
    labels, probabilities = p.labels, p.probabilities
    confusion = _confusions(p)
    line = _once_a_draw(lambda rows: overall(confusion(rows)))

    def of_confusion(name: str) -> Statistic:
        return lambda rows: getattr(line(rows), name)

    names = ("accuracy", "balanced_accuracy", "macro_specificity", "macro_precision", "macro_f1", "weighted_f1")
    return {
        "auc": lambda rows: macro_auc(labels[rows], probabilities[rows]),
        **{name: of_confusion(name) for name in names},
        "calibration_error": lambda rows: expected_calibration_error(probabilities[rows], labels[rows]),
        "brier": lambda rows: brier_score(probabilities[rows], labels[rows]),
        "log_loss": lambda rows: log_loss(probabilities[rows], labels[rows]),
    }


OF_POSITIVE = ("sensitivity", "specificity", "precision", "f1")


def positive_statistics(p: Predictions, positive: int = 1) -> dict[str, Statistic]:
    """Of the class that is looked for (``positive``, its index): sensitivity, specificity, precision and F1 of rows."""
    confusion = _confusions(p)
    counts = _once_a_draw(lambda rows: one_vs_rest(confusion(rows)))

    def of_positive(name: str) -> Statistic:
        return lambda rows: float(getattr(counts(rows), name)[positive])

    return {name: of_positive(name) for name in OF_POSITIVE}


def _confusions(p: Predictions) -> Callable[[np.ndarray], np.ndarray]:
    """The confusion matrix of rows."""
    called, classes = p.probabilities.argmax(axis=1), p.probabilities.shape[1]
    return lambda rows: confusion_matrix(p.labels[rows], called[rows], classes)


def _once_a_draw(compute: Callable[[np.ndarray], Found]) -> Callable[[np.ndarray], Found]:
    """What is computed of rows is kept: each figure goes through the very same draws."""
    kept: dict[bytes, Found] = {}

    def of(rows: np.ndarray) -> Found:
        key = blake2b(np.ascontiguousarray(rows), digest_size=16).digest()
        if key not in kept:
            kept[key] = compute(rows)
        return kept[key]

    return of


def _positive_index(class_names: tuple[str, ...], positive: str | None) -> int | None:
    """Of two classes the one that is looked for: the named one, else the second. None where there are more."""
    if positive is not None and positive not in class_names:
        msg = f"--positive is {positive!r}; the classes are {', '.join(class_names)}."
        raise PredictionsError(msg)
    if len(class_names) != 2:
        if positive is not None:
            msg = f"--positive is for two classes, and these lesions have {len(class_names)}; leave it out."
            raise PredictionsError(msg)
        return None
    return 1 if positive is None else class_names.index(positive)


def _comparisons(
    model: Predictions,
    others: Mapping[str, Predictions],
    statistics: Mapping[str, Mapping[str, Statistic]],
    drawn: PatientDraws,
) -> tuple[Comparison, ...]:
    ours = next(iter(statistics.values()))
    called = model.probabilities.argmax(axis=1)
    p_values = [mcnemar(model.labels, called, p.probabilities.argmax(axis=1)).p_value for p in others.values()]
    adjusted = holm(p_values) if p_values else []
    return tuple(
        Comparison(
            other=name,
            auc=difference(ours["auc"], statistics[name]["auc"], drawn),
            balanced_accuracy=difference(ours["balanced_accuracy"], statistics[name]["balanced_accuracy"], drawn),
            p_mcnemar=p_value,
            p_holm=float(corrected),
            p_delong=_delong(model, p),
        )
        for (name, p), p_value, corrected in zip(others.items(), p_values, adjusted, strict=True)
    )


def _delong(model: Predictions, other: Predictions) -> float | None:
    if len(model.class_names) != 2:
        return None
    scores = (model.probabilities[:, 1], other.probabilities[:, 1])
    try:
        found = delong_paired(model.labels == 1, *scores, patients=model.patients)
    except ValueError:
        return None
    return found.p_value if np.isfinite(found.p_value) else None


def _subgroups(
    model: Predictions,
    statistics: Mapping[str, Mapping[str, Statistic]],
    *,
    beside: str | None,
    draws: int,
    seed: int,
) -> list[SubgroupRow]:
    groups: list[Subgroup] = []
    diameter, distance = model.size_mm.max(axis=1), model.spacing_mm[:, 2]
    if np.isfinite(diameter).any():
        groups += by_tercile("longest edge", diameter, unit="mm")
    if np.isfinite(distance).any():
        rounded = np.round(distance, 2)
        few = len(np.unique(rounded[np.isfinite(rounded)])) <= _MAX_VALUES
        groups += by_value("slice distance (mm)", rounded) if few else by_tercile("slice distance", distance, unit="mm")
    shown = {"": next(iter(statistics.values()))} | ({} if beside is None else {f", {beside}": statistics[beside]})
    chosen = {f"{name}{of}": rows[name] for of, rows in shown.items() for name in ("auc", "balanced_accuracy")}
    return subgroup_table(groups, chosen, model.patients, draws=draws, seed=seed)


def class_figures(matrix: np.ndarray, names: tuple[str, ...]) -> dict[str, dict[str, float | None]]:
    """Of each class, one against all others in a confusion matrix; None where it does not exist."""
    each = one_vs_rest(matrix)
    figures = {
        "sensitivity": each.sensitivity,
        "specificity": each.specificity,
        "precision": each.precision,
        "f1": each.f1,
    }
    return {
        name: {f: round(float(v[c]), 4) if np.isfinite(v[c]) else None for f, v in figures.items()}
        for c, name in enumerate(names)
    }


def _notes(counts: np.ndarray, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(
        f"No tested lesion is {name}: figures that are means over classes do not exist."
        for name, count in zip(names, counts, strict=True)
        if not count
    )


RULES = {"all": "all other lesions", "same": "the same patient's", "cross": "other patients' lesions"}
FIGURES = {
    "ap_a": "mAP@10", "p_at_1": "P@1", "p_at_k": "P@10", "ap_b": "mAP@10 of hits", "ap_d": "mean of P@1 to P@10",
    "ap_c": "mAP@10 of all", "ap": "MAP", "reciprocal_rank": "MRR",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class SearchRow:
    """One method under one rule. ``chance``: of a random order; ``against``: mAP@10 of the model minus this method's."""

    rule: str
    method: str
    queries: int
    patients: int
    k_eff: float
    figures: dict[str, Estimate]
    chance: dict[str, float]
    against: Difference | None

    def as_json(self) -> dict[str, Any]:
        """For metrics.json."""
        return {
            "rule": self.rule,
            "method": self.method,
            "queries": self.queries,
            "patients": self.patients,
            "k_eff": round(self.k_eff, 2),
            "figures": {name: e.as_json() for name, e in self.figures.items()},
            "chance": {name: round(value, 4) for name, value in self.chance.items()},
            "model_minus_this": None if self.against is None else self.against.as_json(),
        }


def search_rows(
    methods: Mapping[str, Predictions],
    *,
    draws: int,
    seed: int,
    k: int = 10,
    notify: Callable[[str], None] | None = None,
) -> tuple[list[SearchRow], list[str]]:
    """How well the embeddings find lesions of the same class, beside chance and beside the size alone.

    Every method under every rule, the first being the model; and what could not be measured.

    A query is never in its gallery; "same" leaves out patients with a single lesion. Embeddings of different folds are by
    different networks, so that lesions are only compared within their fold.
    """
    rows, notes = [], []
    for rule, description in RULES.items():
        model: list[Retrieval] | None = None
        for name, predictions in methods.items():
            if count := without_direction(predictions.embeddings):
                notes.append(
                    f"Search among {description} by {name}: not measured, the embeddings of {count} lesions are zero everywhere."
                )
                if model is None:
                    break
                continue
            if notify:
                notify(f"search by {name}, {description}")
            found = _of_folds(predictions, rule, k)
            if not found:
                notes.append(
                    f"Search among {description}: not measured, no lesion has another one to be compared with."
                )
                break
            rows.append(_row(rule, name, found, model, draws=draws, seed=seed))
            model = model or found
    return rows, notes


def _of_folds(predictions: Predictions, rule: str, k: int) -> list[Retrieval]:
    found = []
    for fold in np.unique(predictions.folds):
        part = predictions.at((predictions.folds == fold) & (predictions.labels >= 0))
        if len(part) > 1:
            labels = np.array(part.class_names)[part.labels]
            studies = part.studies if rule == "cross" else None
            one = retrieve(part.embeddings, labels, part.patients, rule=rule, k=k, studies=studies, metric=part.metric)
            found += [one] if len(one.query) else []
    return found


def _row(
    rule: str, method: str, found: list[Retrieval], model: list[Retrieval] | None, *, draws: int, seed: int
) -> SearchRow:
    patients = np.concatenate([one.patients for one in found])
    drawn = PatientDraws(patients, draws=draws, seed=seed)

    def values(of: list[Retrieval], name: str) -> np.ndarray:
        return np.concatenate([one.per_query(name) for one in of])

    def mean_of(of: list[Retrieval], name: str) -> Callable[[np.ndarray], float]:
        column = values(of, name)
        return lambda rows: float(column[rows].mean())

    # The same queries in the same order, or the two cannot be paired.
    paired = model is not None and np.array_equal(patients, np.concatenate([one.patients for one in model]))
    return SearchRow(
        rule=rule,
        method=method,
        queries=drawn.lesions,
        patients=drawn.patients,
        k_eff=float(np.concatenate([one.figures.k_eff for one in found]).mean()),
        figures={name: interval(mean_of(found, name), drawn) for name in FIGURES},
        chance={
            name: float(np.concatenate([one.chance[name] for one in found]).mean())
            for name in FIGURES
            if name in found[0].chance
        },
        against=difference(mean_of(model, "ap_a"), mean_of(found, "ap_a"), drawn) if paired else None,
    )
