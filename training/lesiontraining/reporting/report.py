"""One report: `metrics.json`, pictures as files, and a page that holds everything."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..evaluation.leaks import LeakReport
from ..predictions import Predictions
from .charts import (
    Chart,
    confusion_chart,
    curve_chart,
    hardest_chart,
    reliability_chart,
    roc_chart,
    tsne_chart,
)
from .measuring import Measured, measure
from .page import page
from .searching import search_rows

_FEWEST = 2


@dataclass(frozen=True, eq=False)
class ReportInput:
    """What is reported. ``methods``: answers on the same tested lesions in the same order, the model first.

    ``shortcuts``: names of methods that know no picture, of which ``ruler`` alone takes part in the search; ``run``: how it
    was made, by name; ``curves``: what was logged, by fold; ``extra``: what the recipe measured beside, in sentences;
    ``notes``: what could not be measured.
    """

    title: str
    methods: Mapping[str, Predictions]
    leaks: LeakReport
    run: Mapping[str, str]
    shortcuts: tuple[str, ...] = ()
    ruler: str | None = None
    curves: Mapping[str, Sequence[Mapping[str, float]]] = field(default_factory=dict)
    extra: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def write_report(
    given: ReportInput,
    out: Path,
    *,
    draws: int = 2000,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> Measured:
    """Write ``metrics.json``, ``report.html`` and ``pictures/*.png`` into ``out``. Raises ValueError for fewer than 2 lesions."""
    known = next(iter(given.methods.values())).labels >= 0
    if known.sum() < _FEWEST:
        msg = f"{int(known.sum())} tested lesions have a label; at least {_FEWEST} are needed for a figure"
        raise ValueError(msg)
    measured = measure(given.methods, draws=draws, seed=seed, say=progress)
    searching = {name: p for name, p in given.methods.items() if name not in given.shortcuts or name == given.ruler}
    search, missing = search_rows(searching, draws=draws, seed=seed, say=progress)
    if progress:
        progress("drawing")
    labelled = {name: p.at(known) for name, p in given.methods.items()}
    charts = [(chart, _png(chart)) for chart in _charts(given, labelled, measured)]
    out.mkdir(parents=True, exist_ok=True)
    (out / "pictures").mkdir(exist_ok=True)
    for chart, png in charts:
        (out / "pictures" / f"{chart.name}.png").write_bytes(png)
    notes = [*given.notes, *missing]
    leaks = given.leaks.as_json()
    for finding in (*leaks["leaks"], *leaks["suspicions"]):
        finding["examples"] = []  # they name patients
    conclusion = conclude(measured, given.shortcuts)
    values = {
        "title": given.title, "conclusion": conclusion, **measured.as_json(), "search": [row.as_json() for row in search],
        "extra": list(given.extra), "run": dict(given.run), **leaks, "bootstrap": {"draws": draws, "seed": seed},
    }  # fmt: skip
    values["notes"] = [*values["notes"], *notes]
    (out / "metrics.json").write_text(json.dumps(values, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    html = page(
        given.title, measured, search, charts, conclusion=conclusion, leaks=leaks, run=given.run, extra=given.extra,
        notes=[*measured.notes, *notes], draws=draws,
    )  # fmt: skip
    (out / "report.html").write_text(html, encoding="utf-8")
    return measured


def conclude(measured: Measured, shortcuts: Sequence[str]) -> str:
    """What the paired differences of AUC to the shortcuts allow to say; words follow from numbers."""
    compared = [c for c in measured.comparisons if c.other in shortcuts and c.auc.value == c.auc.value]
    if not compared:
        return "Nothing without a picture could be compared with, so nothing is shown of what the pictures add."
    better = [c.other for c in compared if c.auc.is_better()]
    worse = [c.other for c in compared if c.auc.high < 0]
    open_ones = [c.other for c in compared if c.other not in better + worse]
    parts = []
    if better:
        parts.append(f"By AUC this model is better than {', '.join(better)}.")
    if worse:
        parts.append(f"By AUC this model is worse than {', '.join(worse)}.")
    if open_ones:
        parts.append(f"No advantage over {', '.join(open_ones)} is shown: the interval of the difference holds 0.")
    return " ".join(parts)


def _charts(given: ReportInput, labelled: Mapping[str, Predictions], measured: Measured) -> list[Chart]:
    name, model = next(iter(labelled.items()))
    found: list[Any] = [
        confusion_chart(measured.confusions[name], model.class_names, name),
        roc_chart(labelled),
        reliability_chart(model, name),
        tsne_chart(model, name),
        hardest_chart(labelled),
        curve_chart(given.curves),
    ]
    return [chart for chart in found if chart is not None]


def _png(chart: Chart) -> bytes:
    buffer = io.BytesIO()
    chart.figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
