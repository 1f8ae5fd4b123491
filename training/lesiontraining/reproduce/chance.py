"""What a system reaches that knows nothing, by figure: the level that a figure has to be above before it says anything of its claim.

Every level is computed of the test lesions: a guess among the classes (balanced accuracy), a random order (AUC, and search: the exact
expectation over all orders of each query's gallery, `lesiontraining.evaluation.retrieval.chance_levels`), a map that lies on nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lesiontraining.evaluation.predictions import Predictions
from lesiontraining.evaluation.retrieval import chance_levels, retrieve
from lesiontraining.reproduce.measures import LOCALISED, RULES, SEARCH
from lesiontraining.reproduce.plan import Run, short_hash

K = 10
_ALL = RULES[0]
_GUESSED = "balanced_accuracy"
# A share of right answers has no level that would be fair to all: always the largest class may be right more often than a network
# that tells rare ones apart. Whether such a system learned anything is seen from the balanced accuracy of the same answers.
JUDGED_BY: Mapping[str, str] = {"accuracy": _GUESSED}


def table_key(run: Run) -> str:
    """Under which the levels of a table are kept: they are the same for all systems and seeds, for all answer its one test set."""
    return short_hash({"make": run.table.make, **getattr(run.table, run.budget), "options": dict(run.table.options)})


def search_levels(test: Predictions) -> dict[str, float]:
    """Of a random order of the galleries of these test lesions, by figure and rule ("mAP@10, cross")."""
    labels = np.array(test.class_names)[test.labels]
    found = {}
    for rule in RULES:
        studies = test.studies if rule == "cross" else None
        # Who may answer is decided by patients and studies, whatever the embeddings.
        one = retrieve(np.ones((len(test), 1)), labels, test.patients, rule=rule, k=K, studies=studies)
        if len(one.query):
            found |= {f"{shown}, {rule}": round(one.chance_mean(name), 6) for shown, name in SEARCH.items()}
    return found


def search_levels_of_counts(counts: Mapping[str, int]) -> dict[str, float]:
    """The same for "all", where every other lesion may answer: for that the lesions of each class are enough."""
    of_class = np.array([count for count in counts.values() if count > 1])
    if not len(of_class):
        return {}
    candidates = np.full(len(of_class), sum(counts.values()) - 1)
    levels = chance_levels(candidates, of_class - 1, k=K)
    return {f"{shown}, {_ALL}": float(np.average(levels[name], weights=of_class)) for shown, name in SEARCH.items()}


def level(figure: str, counts: Mapping[str, Mapping[str, int]], kept: Mapping[str, Any] | None) -> float | None:
    """Of a figure on test lesions with ``counts`` by part and class; ``kept``: the table's levels of search, where they are known.

    None for a figure that has no such level.
    """
    classes = known_classes(counts)
    by_name = {_GUESSED: 1 / max(len(classes), 1), "auc": 0.5, LOCALISED: 0.0}
    test = {name: count for name, count in counts.get("test", {}).items() if name in classes}
    return {**search_levels_of_counts(test), **((kept or {}).get("levels", {})), **by_name}.get(figure)


def known_classes(counts: Mapping[str, Mapping[str, int]]) -> Sequence[str]:
    """Their names, without the lesions that have none."""
    return sorted({name for part in counts.values() for name in part} - {"not known"})
