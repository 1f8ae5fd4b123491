"""What DADRN's paper prints: the mean over two random splits. Their lesions are never pooled, for a lesion may be in both tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from lesiontraining.evaluation.classification import confusion_matrix
from lesiontraining.evaluation.paper_readings import dadrn_class_accuracy, dadrn_columns
from lesiontraining.evaluation.predictions import Predictions
from lesiontraining.reporting.where_maps_lie import FIGURES, added, table_of

_SHOWN = "gt_known_iou_50"


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
            "localisation": added([split.get("classes", {}) for split in localisation.get(name, ())]),
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
                f"{s['hits']}/{s['n']} ({s['hits'] / s['n']:.4f})" for s in (one[_SHOWN] for one in of.values())
            )
            lines.append(f"| {name}, IoU .5 | {cells} |")
    return "\n".join(lines).rstrip() + "\n"


def as_page(found: Mapping[str, Any], title: str, parts: Sequence[str]) -> str:
    """The same as one HTML file, with links to the reports of the splits, ``parts`` (their folders), and why they stay apart."""
    first = next(iter(found.values()))["mean"]
    rows = [
        (name, what, [_number(cell) for cell in (*values["classes"].values(), *values["columns"].values())])
        for name, of in found.items()
        for what, values in [*((f"split {n}", one) for n, one in enumerate(of["splits"])), ("mean of both", of["mean"])]
    ]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("two_splits.html.j2").render(
        title=title,
        heads=[*first["classes"], *first["columns"]],
        rows=rows,
        parts=parts,
        maps=table_of({name: of["localisation"] for name, of in found.items()}),
        map_heads=list(FIGURES.values()),
    )


def _columns(confusions: Sequence[np.ndarray], names: Sequence[str]) -> dict[str, dict[str, float]]:
    classes = dadrn_class_accuracy(confusions)
    return {
        "classes": {name: _plain(value) for name, value in zip(names, classes, strict=True)},
        "columns": {name: _plain(value) for name, value in dadrn_columns(confusions).items()},
    }


def _plain(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4f}"
