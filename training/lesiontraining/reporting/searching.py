"""How well the embeddings find lesions of the same class, beside chance and beside the size alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..evaluation.intervals import Difference, Estimate, PatientDraws, difference, interval
from ..evaluation.retrieval import Retrieval, retrieve
from ..predictions import Predictions

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
    say: Callable[[str], None] | None = None,
) -> tuple[list[SearchRow], list[str]]:
    """Every method under every rule, the first being the model; and what could not be measured.

    A query is never in its gallery; "same" leaves out patients with a single lesion. Embeddings of different folds are by
    different networks, so that lesions are only compared within their fold.
    """
    rows, notes = [], []
    for rule, says in RULES.items():
        model: list[Retrieval] | None = None
        for name, predictions in methods.items():
            if say:
                say(f"search by {name}, {says}")
            found = _of_folds(predictions, rule, k)
            if not found:
                notes.append(f"Search among {says}: not measured, no lesion has another one to be compared with.")
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
            one = retrieve(part.embeddings, labels, part.patients, rule=rule, k=k, studies=studies)
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
