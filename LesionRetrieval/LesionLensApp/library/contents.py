"""``lesionlens library list``: what is in a library, as a summary with a table, as CSV, or as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from LesionLib.io.csv_cells import csv_text
from LesionRetrievalLib.libraries import open_store
from LesionRetrievalLib.library.cases import CREDIT_PROPERTY, Case, IndexedModel
from rich.console import Console
from rich.table import Table

from LesionLensApp.output import NOTICE, cell

LISTED = 50


def print_contents(path: Path | str, *, limit: int = LISTED) -> None:
    """``lesionlens library list``: a summary, and one line a case for the first ``limit`` of them (0: all)."""
    console = Console(highlight=False)
    with open_store(path) as library:
        labels = ", ".join(f"{count} {label}" for label, count in library.labels().items())
        console.print(cell(f"{str(path).rsplit('/', 1)[-1]}: {len(library)} cases: {labels or 'none'}"))
        for model in library.models():
            console.print(cell(f"Embedded by {described_model(model)}."))
        credit = library.properties().get(CREDIT_PROPERTY)
        if credit:
            console.print(cell(f"Credit: {credit}"))
        cases = library.cases()
        shown = cases[: limit or None] if limit >= 0 else cases
        contents = library.contents()
    table = Table(caption=NOTICE)
    for heading in _HEADINGS:
        table.add_column(heading)
    for case in shown:
        table.add_row(*map(cell, _listed(case, contents)))
    console.print(table)
    if len(shown) < len(cases):
        console.print(cell(f"{len(cases) - len(shown)} more: --limit 0 shows all, --csv and --json print all."))


_HEADINGS = ("case", "answer", "established by", "organ", "attributes", "with")


def _listed(case: Case, contents: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    attributes = ", ".join(f"{name} {value}" for name, value in case.attributes.items())
    stored = ", ".join(contents.get(case.case_id, ())) or "-"
    return case.case_id, case.label, case.label_source, case.organ, attributes or "-", stored


def contents_as_csv(path: Path | str) -> str:
    """All cases as CSV: a column an attribute, without hashes."""
    with open_store(path) as library:
        cases, contents = library.cases(), library.contents()
    names = sorted({name for case in cases for name in case.attributes})
    rows: list[Sequence[object]] = [("case_id", "label", "label_source", "organ", "note", "with", *names)]
    for case in cases:
        first = (case.case_id, case.label, case.label_source, case.organ, case.note)
        stored = " | ".join(contents.get(case.case_id, ()))
        attributes = [case.attributes.get(name, "") for name in names]
        rows.append((*first, stored, *attributes))
    return csv_text(rows).rstrip("\n")


def contents_as_json(path: Path | str) -> str:
    """The same as JSON, without hashes."""
    with open_store(path) as library:
        contents = library.contents()
        names = ("case_id", "label", "label_source", "organ", "attributes", "note")
        cases = [
            {**{name: getattr(case, name) for name in names}, "with": contents.get(case.case_id, ())}
            for case in library.cases()
        ]
        models = [
            {
                **{name: getattr(model.identity, name) for name in ("name", "version", "sha256", "segment_margin_mm")},
                **{name: getattr(model, name) for name in ("dimension", "cases", "unfinished")},
            }
            for model in library.models()
        ]
        credit = library.properties().get(CREDIT_PROPERTY, "")
    return json.dumps({"models": models, "credit": credit, "cases": cases}, indent=2, ensure_ascii=False)


def described_model(model: IndexedModel) -> str:
    """A model of a library, and how many cases it has embedded."""
    state = ", not finished: run the reindex again" if model.unfinished else ""
    return f"{model.identity}, {model.cases} cases{state}"
