"""The report's page: one file, pictures inside, no network."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from math import isnan
from pathlib import Path

import jinja2

from .charts import Chart
from .measuring import Measured
from .searching import FIGURES, RULES, SearchRow

MAIN = {
    "auc": "AUC", "balanced_accuracy": "balanced accuracy", "accuracy": "accuracy", "macro_specificity": "specificity",
    "macro_precision": "precision", "macro_f1": "macro F1", "weighted_f1": "weighted F1",
}  # fmt: skip
TRUST = {"calibration_error": "calibration error (ECE)", "brier": "Brier score", "log_loss": "log loss"}
_SEARCH = ("ap_a", "p_at_1", "p_at_k", "ap_b", "reciprocal_rank")


def page(
    title: str,
    measured: Measured,
    search: Sequence[SearchRow],
    charts: Sequence[tuple[Chart, bytes]],
    **texts: object,
) -> str:
    """The HTML; ``charts`` with their PNG bytes. ``texts``: conclusion, leaks, run, extra, notes, draws, as in the template."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("report.html.j2").render(
        title=title,
        m=measured,
        main=MAIN,
        trust=TRUST,
        rules=RULES,
        search=_grouped(search),
        search_figures=_SEARCH,
        search_names=FIGURES,
        k_eff=min((row.k_eff for row in search), default=0.0),
        charts=[{"name": c.name, "title": c.title, "caption": c.caption, "source": _source(png)} for c, png in charts],
        estimate=_estimate,
        signed=_signed,
        p=_p,
        **texts,
    )


def _grouped(rows: Sequence[SearchRow]) -> list[dict[str, object]]:
    rules = [row.rule for row in rows]
    return [
        {
            **{name: getattr(row, name) for name in ("rule", "method", "queries", "figures", "chance", "against")},
            "first": rules.index(row.rule) == place,
            "last": place == len(rows) - 1 or rules[place + 1] != row.rule,
        }
        for place, row in enumerate(rows)
    ]


def _estimate(estimate: object) -> str:
    return "not measured" if isnan(estimate.value) else str(estimate)


def _signed(estimate: object) -> str:
    if isnan(estimate.value):
        return "not measured"
    return f"{estimate.value:+.3f} ({estimate.low:+.3f} to {estimate.high:+.3f})"


def _p(value: float | None) -> str:
    if value is None or isnan(value):
        return "not measured"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _source(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
