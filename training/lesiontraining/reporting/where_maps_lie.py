"""How often a map lies on its lesion, class by class, as counts that can be added up over folds or splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Counts = dict[str, dict[str, dict[str, int]]]
FIGURES = {
    "gt_known_iou_50": "IoU .5 or more",
    "gt_known_iou_30": "IoU .3 or more",
    "top_1": "IoU .5 and the class right",
    "pointing": "hottest point inside",
}


def added(parts: Sequence[Mapping[str, Any]]) -> Counts:
    """By class and figure of `FIGURES`, ``hits`` and ``n``. ``parts``: ``classes`` of `runs.localising`, a fold each."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {
        name: {
            figure: {
                key: sum(part[name][figure][key] for part in parts if name in part and figure in part[name])
                for key in ("hits", "n")
            }
            for figure in FIGURES
        }
        for name in names
    }


def table_of(methods: Mapping[str, Counts]) -> list[tuple[str, str, list[str]]]:
    """Rows of class, method and the cells of `FIGURES` ("7 of 12, 0.583"), the classes one after the other and all of them last."""
    classes = dict.fromkeys(name for of in methods.values() for name in of)
    rows = [(name, method, _cells(of[name])) for name in classes for method, of in methods.items() if name in of]
    return rows + [("all", method, _cells(_all_of(of))) for method, of in methods.items() if of]


def _all_of(of: Counts) -> dict[str, dict[str, int]]:
    return {f: {key: sum(one[f][key] for one in of.values()) for key in ("hits", "n")} for f in FIGURES}


def _cells(of: Mapping[str, Mapping[str, int]]) -> list[str]:
    shown = ((of[figure]["hits"], of[figure]["n"]) for figure in FIGURES)
    return [f"{hits} of {n}, {hits / n:.3f}" if n else "none" for hits, n in shown]
