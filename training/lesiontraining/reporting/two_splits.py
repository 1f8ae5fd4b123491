"""What DADRN's paper prints: the mean over two random splits. Their lesions are never pooled, for a lesion may be in both tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lesiontraining.evaluation.classification import confusion_matrix
from lesiontraining.evaluation.paper_readings import dadrn_class_accuracy, dadrn_columns
from lesiontraining.evaluation.predictions import Predictions

_FOUND = ("gt_known_iou_50", "gt_known_iou_30", "top_1", "pointing")


def mean_of_splits(
    methods: Mapping[str, Sequence[Predictions]], localisation: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[str, Any]:
    """By method: ``splits`` and their ``mean``, each with the classes' accuracies and the columns Acc, F1, Prec and Rec.

    ``methods``: the test lesions of each split, labelled ones. ``localisation``: of each split ``classes`` by name, as
    `lesiontraining.runs.localising` makes them; their counts are added up, as the paper's denominators are.
    """
    found = {}
    for name, splits in methods.items():
        names = splits[0].class_names
        confusions = [
            confusion_matrix(p.labels, p.probabilities.argmax(axis=1), len(names))
            for p in (split.at(split.labels >= 0) for split in splits)
        ]
        found[name] = {
            "splits": [_columns([one], names) for one in confusions],
            "mean": _columns(confusions, names),
            "localisation": _added([split.get("classes", {}) for split in localisation.get(name, ())]),
        }
    return found


def as_markdown(found: Mapping[str, Any]) -> str:
    """Tables of the classes' accuracies with the columns beside them, and of the localisation where it was measured."""
    first = next(iter(found.values()))["mean"]
    heads = [*first["classes"], *first["columns"]]
    lines = ["| | | " + " | ".join(heads) + " |", "|---" * (2 + len(heads)) + "|"]
    for name, of in found.items():
        rows = [(f"split {number}", one) for number, one in enumerate(of["splits"])] + [("mean of both", of["mean"])]
        for what, values in rows:
            cells = [*values["classes"].values(), *values["columns"].values()]
            lines.append(f"| {name} | {what} | " + " | ".join(_number(cell) for cell in cells) + " |")
    lines += ["", "A class's accuracy is its recall; Acc is their mean. The two splits are never pooled.", ""]
    measured = {name: of["localisation"] for name, of in found.items() if of["localisation"]}
    if measured:
        classes = list(next(iter(measured.values())))
        lines += ["| localised, both test sets | " + " | ".join(classes) + " |", "|---" * (1 + len(classes)) + "|"]
        for name, of in measured.items():
            cells = " | ".join(
                f"{s['hits']}/{s['n']} ({s['hits'] / s['n']:.4f})" for s in (one[_FOUND[0]] for one in of.values())
            )
            lines.append(f"| {name}, IoU .5 | {cells} |")
    return "\n".join(lines).rstrip() + "\n"


def _columns(confusions: Sequence[np.ndarray], names: Sequence[str]) -> dict[str, dict[str, float]]:
    classes = dadrn_class_accuracy(confusions)
    return {
        "classes": {name: _plain(value) for name, value in zip(names, classes, strict=True)},
        "columns": {name: _plain(value) for name, value in dadrn_columns(confusions).items()},
    }


def _added(splits: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, int]]]:
    names = dict.fromkeys(name for split in splits for name in split)
    return {
        name: {
            figure: {
                key: sum(split[name][figure][key] for split in splits if name in split and figure in split[name])
                for key in ("hits", "n")
            }
            for figure in _FOUND
        }
        for name in names
    }


def _plain(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4f}"
