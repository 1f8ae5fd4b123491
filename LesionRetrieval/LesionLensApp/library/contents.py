"""``lesionlens library list`` and ``show``: what is in a library, as a summary with a table, as CSV, or as JSON; one case."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from LesionLib.io.tables import csv_text
from LesionLib.terminal import notify
from LesionRetrievalLib.libraries import open_store
from LesionRetrievalLib.library.attributes import attribute_pairs
from LesionRetrievalLib.library.cases import ADDED, CREDIT_PROPERTY, Case, CaseStore, Change, IndexedModel

from LesionLensApp.output import NOTICE, cell, new_console, new_table

LISTED = 50


@dataclass(frozen=True)
class Inventory:
    """All that is shown of a library, read at once."""

    cases: list[Case]
    contents: Mapping[str, Sequence[str]]
    created: Mapping[str, str]
    changes: Mapping[str, list[Change]]
    models: list[IndexedModel]
    credit: str

    @classmethod
    def of(cls, library: CaseStore) -> Inventory:
        """Raises `CaseLibraryError`."""
        changes: dict[str, list[Change]] = defaultdict(list)
        for change in library.changes():
            changes[change.case_id].append(change)
        credit = library.properties().get(CREDIT_PROPERTY, "")
        return cls(library.cases(), library.contents(), library.created(), changes, library.models(), credit)

    def added(self, case_id: str) -> tuple[str, str]:
        """When, to the second where it was kept, else the date; and by whom."""
        found = [change for change in self.changes.get(case_id, ()) if change.what == ADDED]
        return (found[-1].when, found[-1].by) if found else (self.created.get(case_id, ""), "")

    def changed(self, case_id: str) -> tuple[str, str, str]:
        """When, by whom and what, the last time since it was added; empty where never."""
        found = self.changes.get(case_id, [])
        return (found[-1].when, found[-1].by, found[-1].what) if found and found[-1].what != ADDED else ("", "", "")

    def summary(self) -> list[str]:
        """How many cases there are of what, and since when, in lines."""
        labels = _counts(case.label for case in self.cases)
        lines = [f"{len(self.cases)} cases: {labels or 'none'}"]
        if self.cases:
            lines.append(f"Organs: {_counts(case.organ for case in self.cases)}")
            when, who = max(self.added(case.case_id) for case in self.cases)
            lines.append(f"Last added: {when}{f' by {who}' if who else ''}.")
        for model in self.models:
            lines.append(f"Embedded by {described_model(model)}.")
        lines += [f"{change}." for change in self.changes.get("", ())]
        return [*lines, f"Credit: {self.credit}"] if self.credit else lines


def _counts(values: Iterable[str]) -> str:
    return ", ".join(f"{count} {value}" for value, count in sorted(Counter(values).items()))


def print_contents(path: Path | str, *, limit: int = LISTED) -> None:
    """``lesionlens library list``: a summary, and one line a case for the first ``limit`` of them (0: all)."""
    console = new_console()
    with open_store(path) as library:
        inventory = Inventory.of(library)
    first, *others = inventory.summary()
    for line in (f"{str(path).rsplit('/', 1)[-1]}: {first}", *others):
        console.print(cell(line))
    cases = inventory.cases
    shown = cases[: limit or None] if limit >= 0 else cases
    table = new_table(caption=NOTICE)
    for heading in _HEADINGS:
        table.add_column(heading)
    for case in shown:
        table.add_row(*map(cell, _listed(case, inventory.contents)))
    console.print(table)
    if len(shown) < len(cases):
        console.print(cell(f"{len(cases) - len(shown)} more: --limit 0 shows all, --csv and --json print all."))


_HEADINGS = ("case", "answer", "established by", "organ", "attributes", "with")


def _listed(case: Case, contents: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    attributes = ", ".join(f"{name} {value}" for name, value in case.attributes.items())
    stored = ", ".join(contents.get(case.case_id, ())) or "-"
    return case.case_id, case.label, case.label_source, case.organ, attributes or "-", stored


_HISTORY = ("added", "added_by", "changed", "changed_by")


def contents_as_csv(path: Path | str) -> str:
    """All cases as CSV: a column an attribute, and who added and changed them when; without hashes."""
    with open_store(path) as library:
        inventory = Inventory.of(library)
    cases = inventory.cases
    names = sorted({name for case in cases for name in case.attributes})
    rows: list[Sequence[object]] = [("case_id", "label", "label_source", "organ", "note", "with", *_HISTORY, *names)]
    for case in cases:
        first = (case.case_id, case.label, case.label_source, case.organ, case.note)
        stored = " | ".join(inventory.contents.get(case.case_id, ()))
        attributes = [case.attributes.get(name, "") for name in names]
        history = (*inventory.added(case.case_id), *inventory.changed(case.case_id)[:2])
        rows.append((*first, stored, *history, *attributes))
    return csv_text(rows).rstrip("\n")


def contents_as_json(path: Path | str) -> str:
    """The same as JSON, without hashes."""
    with open_store(path) as library:
        inventory = Inventory.of(library)
    models = [
        {
            **{name: getattr(model.identity, name) for name in ("name", "version", "sha256", "segment_margin_mm")},
            **{name: getattr(model, name) for name in ("dimension", "cases", "unfinished")},
        }
        for model in inventory.models
    ]
    cases = [_as_json(case, inventory) for case in inventory.cases]
    shown = {"models": models, "credit": inventory.credit, "cases": cases, "history": _history(inventory, "")}
    return json.dumps(shown, indent=2, ensure_ascii=False)


def _as_json(case: Case, inventory: Inventory) -> dict[str, Any]:
    names = ("case_id", "label", "label_source", "organ", "attributes", "note")
    stored = inventory.contents.get(case.case_id, ())
    fields = {name: getattr(case, name) for name in names}
    return {**fields, "with": stored, "history": _history(inventory, case.case_id)}


def _history(inventory: Inventory, case_id: str) -> list[dict[str, str]]:
    return [{"at": c.at, "by": c.by, "what": c.what} for c in inventory.changes.get(case_id, ())]


def print_case(path: Path | str, case_id: str, *, as_json: bool = False) -> None:
    """``lesionlens library show``: all that a library says of one case, without hashes. Raises `CaseLibraryError`."""
    with open_store(path) as library:
        case = library.case(case_id)
        stored = _contents_of(library, case_id)
        created = library.created()[case_id]
        changes = {case_id: library.changes(case_id)}
    inventory = Inventory([case], {case_id: stored}, {case_id: created}, changes, [], "")
    if as_json:
        notify(json.dumps(_as_json(case, inventory), indent=2, ensure_ascii=False))
        return
    console = new_console()
    table = new_table(title=cell(f"Case {case_id}"), caption=NOTICE, show_header=False)
    rows = [("answer", case.label), ("established by", case.label_source), ("organ", case.organ), ("note", case.note)]
    rows += attribute_pairs(case.attributes)
    rows.append(("with", ", ".join(stored)))
    if not any(change.what == ADDED for change in inventory.changes[case_id]):
        rows.append(("added", f"{created}, by whom and at what hour was not kept"))
    rows += [("history", str(change)) for change in inventory.changes[case_id]]
    for name, value in rows:
        table.add_row(cell(name), cell(value or "-"))
    console.print(table)


def _contents_of(library: CaseStore, case_id: str) -> tuple[str, ...]:
    has = {"pictures": bool(library.thumbnails(case_id)), "patch": library.patch(case_id) is not None}
    return tuple(name for name, is_there in has.items() if is_there)


def described_model(model: IndexedModel) -> str:
    """A model of a library, and how many cases it has embedded."""
    state = ", not finished: run the reindex again" if model.unfinished else ""
    return f"{model.identity}, {model.cases} cases{state}"
