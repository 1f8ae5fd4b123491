"""``lesionlens library list`` and ``verify``: what is in a library, and whether it is sound."""

from __future__ import annotations

import json
from pathlib import Path

from LesionLib.errors import CaseLibraryError
from LesionRetrievalLib.library import CaseLibrary, IndexedModel
from LesionRetrievalLib.library_places import open_store
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .console import NOTICE

_SHOWN_PROBLEMS = 10


def print_contents(path: Path | str) -> None:
    """Models, answers, and one line a case."""
    console = Console(highlight=False)
    with open_store(path) as library:
        table = Table(title=str(path).rsplit("/", 1)[-1], caption=NOTICE)
        for heading in ("case", "answer", "established by", "organ", "attributes", "with"):
            table.add_column(heading)
        contents = library.contents()
        for case in library.cases():
            attributes = ", ".join(f"{name} {value}" for name, value in case.attributes.items())
            stored = ", ".join(contents.get(case.case_id, ())) or "-"
            row = (case.case_id, case.label, case.label_source, case.organ, attributes or "-", stored)
            table.add_row(*map(Text, row))
        console.print(table)
        answers = ", ".join(f"{count} {label}" for label, count in library.labels().items())
        console.print(Text(f"{len(library)} cases: {answers or 'none'}"))
        for model in library.models():
            console.print(Text(f"Embedded by {_described(model)}."))


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
            {**vars(model.identity), "dimension": model.dimension, "cases": model.cases, "unfinished": model.unfinished}
            for model in library.models()
        ]
    return json.dumps({"models": models, "cases": cases}, indent=2, ensure_ascii=False)


def verify_library(path: Path) -> str:
    """One line that all is well, or `CaseLibraryError` with what is not."""
    with CaseLibrary.open(path) as library:
        problems = library.integrity_problems()
        if problems:
            more = f" and {len(problems) - _SHOWN_PROBLEMS} more" if len(problems) > _SHOWN_PROBLEMS else ""
            msg = f"{path} is damaged: {'; '.join(problems[:_SHOWN_PROBLEMS])}{more}."
            raise CaseLibraryError(msg)
        models = "; ".join(map(_described, library.models()))
        return f"{path} is sound: {len(library)} cases, embedded by {models}."


def _described(model: IndexedModel) -> str:
    state = ", not finished: run the reindex again" if model.unfinished else ""
    return f"{model.identity}, {model.cases} cases{state}"
