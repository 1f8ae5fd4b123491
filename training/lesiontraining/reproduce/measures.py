"""What a run is measured by: every figure of the papers' tables as a statistic of its test lesions, with whose they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lesiontraining.evaluation.intervals import Difference, Estimate, PatientDraws, Statistic, difference, interval
from lesiontraining.evaluation.predictions import Predictions
from lesiontraining.evaluation.retrieval import retrieve, without_direction
from lesiontraining.reporting.figures import OF_POSITIVE, classification_statistics, positive_statistics
from lesiontraining.reproduce.plan import ReproductionError

_CLASSIFICATION = ("accuracy", "balanced_accuracy", "macro_specificity", "macro_precision", "macro_f1", "auc")
SEARCH = {
    "mAP@10": "ap_a",
    "mAP@10 of hits": "ap_b",
    "P@1": "p_at_1",
    "P@10": "p_at_k",
    "MAP": "ap",
    "MRR": "reciprocal_rank",
}
RULES = ("all", "same", "cross")
LOCALISED = "localised"


@dataclass(frozen=True, eq=False)
class Measure:
    """A figure as a function of rows, and the patients of these rows, (row,)."""

    statistic: Statistic
    patients: np.ndarray


def tested(predictions: Predictions) -> Predictions:
    """The labelled test lesions, in the order of their names: the same in every run on a table."""
    test = predictions.at((predictions.split == "test") & (predictions.labels >= 0))
    return test.at(np.argsort(test.lesion_ids, kind="stable"))


def measures_of(test: Predictions, hits: Mapping[str, bool] | None = None) -> dict[str, Measure]:
    """By name: "balanced_accuracy", "sensitivity of rim", "mAP@10, cross", "localised", "localised of rim", ...

    ``hits``: by name of a lesion whether the map lies on it; None where that was not asked.
    """
    of_all = {name: s for name, s in classification_statistics(test).items() if name in _CLASSIFICATION}
    found = {name: Measure(statistic, test.patients) for name, statistic in of_all.items()}
    for number, name in enumerate(test.class_names):
        of_class = positive_statistics(test, number)
        found |= {f"{figure} of {name}": Measure(of_class[figure], test.patients) for figure in OF_POSITIVE}
    labels = np.array(test.class_names)[test.labels]
    for rule in () if without_direction(test.embeddings) else RULES:
        studies = test.studies if rule == "cross" else None
        one = retrieve(test.embeddings, labels, test.patients, rule=rule, studies=studies, metric=test.metric)
        if len(one.query):
            of_rule = {f"{shown}, {rule}": one.statistic(figure) for shown, figure in SEARCH.items()}
            found |= {name: Measure(statistic, one.patients) for name, statistic in of_rule.items()}
    return found | _localised(test, hits or {})


def _localised(test: Predictions, hits: Mapping[str, bool]) -> dict[str, Measure]:
    known = test.at(np.isin(test.lesion_ids, list(hits)))
    found = {}
    for name in ("", *test.class_names) if len(known) else ():
        part = known if not name else known.at(known.labels == test.class_names.index(name))
        if len(part):
            hit = np.array([hits[lesion] for lesion in part.lesion_ids], dtype=float)
            found[f"{LOCALISED} of {name}" if name else LOCALISED] = Measure(_mean_of(hit), part.patients)
    return found


def _mean_of(values: np.ndarray) -> Statistic:
    return lambda rows: float(values[rows].mean()) if len(rows) else float("nan")


def over_seeds(runs: Sequence[Mapping[str, Measure]], *, draws: int) -> dict[str, Any]:
    """Every figure that all ``runs`` of a system have, as the mean over their seeds with its interval; plain JSON."""
    found: dict[str, Any] = {}
    drawn: dict[bytes, PatientDraws] = {}
    for name, first in runs[0].items():
        if all(name in run for run in runs):
            patients = drawn.setdefault(first.patients.tobytes(), PatientDraws(first.patients, draws=draws))
            found[name] = interval([run[name].statistic for run in runs], patients).as_json()
    return found


def compared(
    better: Sequence[Mapping[str, Measure]],
    than: Sequence[Mapping[str, Measure]],
    figure: str,
    *,
    draws: int,
    paired: bool,
) -> tuple[Difference, Estimate, Estimate]:
    """The difference, paired by seed, and what either side has. ``paired``: both on the same lesions.

    Two tables are drawn each by its own patients. Raises `ReproductionError` where a run lacks the figure, or lesions differ.
    """
    if not all(figure in run for run in (*better, *than)):
        msg = f"not every run has the figure {figure!r}."
        raise ReproductionError(msg)
    one, other = [run[figure] for run in better], [run[figure] for run in than]
    patients = one[0].patients
    if paired:
        if not all(np.array_equal(patients, side.patients) for side in (*one, *other)):
            msg = "the two sides were not measured on the same lesions."
            raise ReproductionError(msg)
        sides = [side.statistic for side in one], [side.statistic for side in other]
        both = PatientDraws(patients, draws=draws)
    else:
        # One row of lesions after the other, with patients that have nothing to do with each other.
        count = len(patients)
        names = [np.char.add(prefix, side.patients.astype(str)) for prefix, side in (("a", one[0]), ("b", other[0]))]
        both = PatientDraws(np.concatenate(names), draws=draws)
        sides = (
            [_first_part(side.statistic, count) for side in one],
            [_second_part(side.statistic, count) for side in other],
        )
    return difference(*sides, both), interval(sides[0], both), interval(sides[1], both)


def _first_part(statistic: Statistic, count: int) -> Statistic:
    return lambda rows: statistic(rows[rows < count])


def _second_part(statistic: Statistic, count: int) -> Statistic:
    return lambda rows: statistic(rows[rows >= count] - count)
