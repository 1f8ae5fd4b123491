"""The card of an exported model: every number from ``metrics.json`` and the fold's predictions, none typed by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .fitted_model import FittedModel
from .fold_reliability import FoldReliability
from .reporting.page import MAIN, TRUST
from .run_folder import FoldFolder

if TYPE_CHECKING:
    from .export_command import ExportPlan

_CARD = """# {name} {version}

**Research use only, not for diagnosis.** {intended_use}

{description}

**How:** {architecture} on pictures of kind {kind} ({input}); the probabilities of a lesion's pictures are averaged.{temperature}

## Figures

{lesions} tested lesions of {patients} patients ({classes}), of {folds}, patients never across. The figures are of all tested
folds, each by its own network; this is the network of fold {fold}. In brackets: 95 % interval over {draws} bootstrap samples of
patients.

{table}

**{conclusion}**

{search}
## How far to rely on an answer

Fitted on the validation lesions of fold {fold}, checked on its test lesions:

{reliability}

## Made by

`{command}`; {recipe}; {time}; {software}. Data fingerprint `{fingerprint}`.

## Limits

- Measured on the collection named below and nowhere else: other scanners, populations and diseases are not measured.
- Boxes in training had edges from {smallest:g} to {largest:g} mm; slices were {thinnest:g} to {thickest:g} mm apart.
{notes}
## Data

{credit}
"""


def card(
    plan: ExportPlan, model: FittedModel, fold: FoldFolder, metrics: Mapping[str, Any], reliability: FoldReliability
) -> str:
    """The model card as Markdown."""
    run = metrics["run"]
    section = {key: value for key, value in model.input.items() if key != "kind"}
    figures = [f"- {name}: {text}" for name, text in reliability.figures.items()]
    lines = [*figures, *(f"- {note}" for note in reliability.notes)]
    return _CARD.format(
        name=plan.name,
        version=plan.version,
        intended_use=plan.intended_use,
        description=plan.description or "What it answers was not described.",
        architecture=model.architecture,
        kind=model.input["kind"],
        input=", ".join(f"{key} {value}" for key, value in section.items()),
        temperature=f" Temperature {model.temperature:.3f}."
        if model.class_names
        else " It compares lesions and knows no classes.",
        lesions=metrics["lesions"],
        patients=metrics["patients"],
        classes=", ".join(f"{count} {name}" for name, count in metrics["classes"].items()),
        folds=f"fold(s) {run['Folds']}",
        fold=fold.number,
        draws=metrics["bootstrap"]["draws"],
        table=_table(metrics["figures"]),
        conclusion=metrics["conclusion"],
        search=_search(metrics["search"]),
        reliability="\n".join(lines) or "- nothing could be fitted",
        command=run["Command"],
        recipe=run["Recipe"],
        time=run["Training time"],
        software=run["Software"],
        fingerprint=run["Data fingerprint"],
        smallest=model.box_size_mm[0],
        largest=model.box_size_mm[1],
        thinnest=model.slice_distance_mm[0],
        thickest=model.slice_distance_mm[1],
        notes="".join(f"- {note}\n" for note in metrics["notes"]),
        credit=run["Data"] or "The owner of the table did not say where its lesions come from.",
    )


def _table(rows: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    names = MAIN | TRUST
    lines = ["| | " + " | ".join(names.values()) + " |", "|---|" + "---|" * len(names)]
    lines += [f"| {row} | " + " | ".join(_estimate(figures[f]) for f in names) + " |" for row, figures in rows.items()]
    return "\n".join(lines)


def _search(rows: list[Mapping[str, Any]]) -> str:
    """Among other patients' lesions: what a case library is for."""
    cross = [row for row in rows if row["rule"] == "cross"]
    if not cross:
        return ""
    lines = ["Search among other patients' lesions (mAP@10 by definition A; chance is a random order):", ""]
    lines += ["| | queries | mAP@10 | P@1 | P@10 | mAP@10 by chance |", "|---|---|---|---|---|---|"]
    for row in cross:
        figures = " | ".join(_estimate(row["figures"][f]) for f in ("ap_a", "p_at_1", "p_at_k"))
        lines.append(f"| {row['method']} | {row['queries']} | {figures} | {row['chance']['ap_a']:.3f} |")
    return "\n".join([*lines, "", ""])


def _estimate(figure: Mapping[str, Any]) -> str:
    if figure["value"] is None:
        return "not measured"
    if figure["low"] is None:
        return f"{figure['value']:.3f}"
    return f"{figure['value']:.3f} ({figure['low']:.3f}-{figure['high']:.3f})"
