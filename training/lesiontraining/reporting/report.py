"""One report: `metrics.json`, images as files, and a page that holds everything."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite, isnan
from pathlib import Path
from typing import Any

import jinja2
from LesionLib.io.private_files import write_private
from LesionLib.io.tables import csv_text

from lesiontraining.evaluation.leaks import LeakReport
from lesiontraining.evaluation.predictions import Predictions
from lesiontraining.reporting.charts import (
    Chart,
    confusion_chart,
    curve_chart,
    hardest_chart,
    reliability_chart,
    roc_chart,
    tsne_chart,
)
from lesiontraining.reporting.claim import ClaimRun, answered_share, as_markdown, claim_items
from lesiontraining.reporting.figures import (
    FIGURES,
    RULES,
    Measured,
    SearchRow,
    class_figures,
    measure,
    search_rows,
)
from lesiontraining.reporting.model_card import signed
from lesiontraining.reporting.where_maps_lie import FIGURES as MAP_FIGURES
from lesiontraining.reporting.where_maps_lie import Counts, table_of

_ANY = {"auc": "AUC", "balanced_accuracy": "balanced accuracy", "accuracy": "accuracy"}
_OF_TWO = {"sensitivity": "sensitivity", "specificity": "specificity", "precision": "precision", "f1": "F1"}
_OF_MORE = {
    "macro_specificity": "mean specificity", "macro_precision": "mean precision", "macro_f1": "macro F1",
    "weighted_f1": "weighted F1",
}  # fmt: skip
TRUST = {"calibration_error": "calibration error (ECE)", "brier": "Brier score", "log_loss": "log loss"}
_SEARCH = ("ap_a", "p_at_1", "p_at_k", "ap_b", "reciprocal_rank")


def main_figures(positive: str | None) -> dict[str, str]:
    """The figures of a report, as they are called: of two classes those of the one that is looked for, else means."""
    return _ANY | (_OF_MORE if positive is None else _OF_TWO)


def page(
    title: str,
    measured: Measured,
    search: Sequence[SearchRow],
    charts: Sequence[tuple[Chart, bytes]],
    **texts: object,
) -> str:
    """The report's page: one file, images inside, no network.

    The HTML; ``charts`` with their PNG bytes. ``texts``: conclusion, leaks, run, extra, notes, draws, baselines and maps, as in the
    template.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("report.html.j2").render(
        title=title,
        m=measured,
        main=main_figures(measured.positive),
        per_class=per_class(measured),
        class_figures=_OF_TWO,
        trust=TRUST,
        rules=RULES,
        search=_grouped(search),
        search_figures=_SEARCH,
        search_names=FIGURES,
        k_eff=min((row.k_eff for row in search), default=0.0),
        charts=[{"name": c.name, "title": c.title, "caption": c.caption, "source": _source(png)} for c, png in charts],
        estimate=_estimate,
        signed=signed,
        p=_p,
        map_heads=list(MAP_FIGURES.values()),
        **texts,
    )


def per_class(measured: Measured) -> dict[str, list[tuple[str, dict[str, float | None]]]]:
    """By class, each method's sensitivity, specificity, precision and F1 of it against all others; None: not measured."""
    found = {name: class_figures(matrix, measured.class_names) for name, matrix in measured.confusions.items()}
    return {name: [(method, of[name]) for method, of in found.items()] for name in measured.class_names}


def _grouped(rows: Sequence[SearchRow]) -> list[dict[str, object]]:
    rules = [row.rule for row in rows]
    return [
        {
            **{name: getattr(row, name) for name in ("rule", "method", "queries", "figures", "chance", "against")},
            "first": rules.index(row.rule) == index,
            "last": index == len(rows) - 1 or rules[index + 1] != row.rule,
        }
        for index, row in enumerate(rows)
    ]


def _estimate(estimate: object) -> str:
    return "not measured" if isnan(estimate.value) else str(estimate)


def _p(value: float | None) -> str:
    if value is None or isnan(value):
        return "not measured"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _source(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


_FEWEST = 2


@dataclass(frozen=True, eq=False)
class ReportInput:
    """What is reported. ``methods``: answers on the same tested lesions in the same order, the model first.

    ``baselines``: names of methods that know no image, of which ``size_baseline`` alone takes part in the search; ``run``: how it
    was made, by name; ``curves``: what was logged, by fold; ``extra``: what the recipe measured beside, in sentences;
    ``notes``: what could not be measured; ``localised``: of methods whose maps were looked at, on how many lesions these lie;
    ``examples``: pictures of single lesions; ``claim``: what the journals' checklist is
    answered from, where a run is reported.
    """

    title: str
    methods: Mapping[str, Predictions]
    leaks: LeakReport
    run: Mapping[str, str]
    baselines: tuple[str, ...] = ()
    size_baseline: str | None = None
    curves: Mapping[str, Sequence[Mapping[str, float]]] = field(default_factory=dict)
    extra: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    claim: ClaimRun | None = None
    localised: Mapping[str, Counts] = field(default_factory=dict)
    examples: tuple[Chart, ...] = ()


def write_report(
    given: ReportInput,
    out: Path,
    *,
    draws: int = 2000,
    seed: int = 0,
    positive: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> Measured:
    """Write ``metrics.json``, ``predictions.csv``, ``claim.md``, ``report.html`` and ``pictures/*.png`` into ``out``.

    Raises ValueError for fewer than 2 lesions.
    """
    known = next(iter(given.methods.values())).labels >= 0
    if known.sum() < _FEWEST:
        msg = f"{int(known.sum())} tested lesions have a label; at least {_FEWEST} are needed for a figure"
        raise ValueError(msg)
    measured = measure(
        given.methods, draws=draws, seed=seed, positive=positive, beside=given.size_baseline, notify=progress
    )
    searching = {
        name: p for name, p in given.methods.items() if name not in given.baselines or name == given.size_baseline
    }
    search, missing = search_rows(searching, draws=draws, seed=seed, notify=progress)
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
    conclusion = conclude(measured, given.baselines)
    values = {
        "title": given.title, "conclusion": conclusion, **measured.as_json(), "search": [row.as_json() for row in search],
        "localised": {name: dict(of) for name, of in given.localised.items()},
        "extra": list(given.extra), "run": dict(given.run), **leaks, "bootstrap": {"draws": draws, "seed": seed},
    }  # fmt: skip
    values["notes"] = [*values["notes"], *notes]
    (out / "metrics.json").write_text(json.dumps(values, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    write_private(out / "predictions.csv", predictions_table(given.methods))
    claim = () if given.claim is None else claim_items(given.claim, measured, given.leaks)
    if claim:
        (out / "claim.md").write_text(as_markdown(claim), encoding="utf-8")
    html = page(
        given.title, measured, search, charts, conclusion=conclusion, leaks=leaks, run=given.run, extra=given.extra,
        notes=[*measured.notes, *notes], draws=draws, claim=claim, claim_known=answered_share(claim),
        baselines=given.baselines, maps=table_of(given.localised),
    )  # fmt: skip
    (out / "report.html").write_text(html, encoding="utf-8")
    return measured


def predictions_table(methods: Mapping[str, Predictions]) -> str:
    """What each method said of each tested lesion, as CSV: a row a lesion and method, the model's first.

    A lesion is named by its line in the table, a patient by a code; ``label`` is empty where it is not known.
    """
    names = next(iter(methods.values())).class_names
    of_classes = (f"p_{name}" for name in names)
    rows: list[Sequence[object]] = [
        ("method", "lesion", "patient", "fold", "label", "predicted", *of_classes, "longest_edge_mm")
    ]
    for method, p in methods.items():
        for i in range(len(p)):
            label = names[p.labels[i]] if p.labels[i] >= 0 else ""
            known = [method, str(p.lesion_ids[i]), str(p.patients[i]), int(p.folds[i]), label]
            numbers = [f"{value:.6f}" for value in p.probabilities[i]]
            edge = float(p.size_mm[i].max())
            answer = [names[int(p.probabilities[i].argmax())], *numbers, f"{edge:.2f}" if isfinite(edge) else ""]
            rows.append([*known, *answer])
    return csv_text(rows)


def conclude(measured: Measured, baselines: Sequence[str]) -> str:
    """What the paired differences of AUC to the shortcuts allow to say; words follow from numbers."""
    compared = [c for c in measured.comparisons if c.other in baselines and c.auc.value == c.auc.value]
    if not compared:
        return "Nothing without an image could be compared with, so nothing is shown of what the images add."
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
    of_networks = {other: p for other, p in labelled.items() if other not in given.baselines}
    found: list[Any] = [
        confusion_chart(measured.confusions[name], model.class_names, name),
        roc_chart(labelled),
        reliability_chart(model, name),
        tsne_chart(model, name),
        *(
            confusion_chart(measured.confusions[other], p.class_names, other, name=f"confusion-{number}")
            for number, (other, p) in enumerate(labelled.items(), start=1)
            if number > 1
        ),
        *(
            tsne_chart(p, other, name=f"embeddings-{number}")
            for number, (other, p) in enumerate(of_networks.items(), start=1)
            if number > 1
        ),
        hardest_chart(labelled),
        *given.examples,
        curve_chart(given.curves),
    ]
    return [chart for chart in found if chart is not None]


def _png(chart: Chart) -> bytes:
    buffer = io.BytesIO()
    chart.figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
