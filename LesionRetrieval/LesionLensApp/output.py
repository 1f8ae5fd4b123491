"""What the command line shows, and how results reach their folder: whole or not at all."""

from __future__ import annotations

import fnmatch
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from LesionLib.errors import OutputError
from LesionLib.inference.results import NO_ANSWER, LesionResult
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

NOTICE = "Research use only, not for diagnosis."
_SHOWN_WARNINGS = 8
_T = TypeVar("_T")


class Steps:
    """Steps as they begin, and a bar for long ones.

    Tells on standard error what is being done; standard output stays for the answer.
    """

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._start = time.monotonic()

    def begin(self, what: str) -> None:
        """One line: the time since the start, and what begins now."""
        self._console.print(Text(f"{time.monotonic() - self._start:6.1f} s  {what}"))

    def each(self, items: Sequence[_T] | Iterable[_T], what: str, *, total: int | None = None) -> Iterator[_T]:
        """The items again, with a bar where there is a terminal to draw it on."""
        self.begin(what)
        columns = [TextColumn("         "), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
        with Progress(*columns, console=self._console, transient=True) as progress:
            yield from progress.track(items, total=total if total is not None else len(items))


def print_results(results: Sequence[LesionResult], out: Path) -> None:
    """The table of answers, and where to look."""
    console = Console(highlight=False)
    table = Table(title="LesionLens", caption=NOTICE)
    for heading in ("lesion", "answer", "probabilities", "most similar cases", "warnings"):
        table.add_column(heading)
    for result in results:
        answer = result.label or NO_ANSWER
        probabilities = "  ".join(f"{name} {p:.2f}" for name, p in result.shown_probabilities.items()) or "-"
        similar = ", ".join(f"{case.label} {case.similarity:.2f}" for case in result.similar_cases[:3]) or "-"
        warnings = str(len(result.warnings)) if result.warnings else "-"
        table.add_row(*(Text(cell) for cell in (result.name, answer, probabilities, similar, warnings)))
    console.print(table)
    warnings = list(dict.fromkeys(warning for result in results for warning in result.warnings))
    for warning in warnings[:_SHOWN_WARNINGS]:
        names = [result.name for result in results if warning in result.warnings]
        whose = "All lesions" if len(names) == len(results) > 1 else ", ".join(names)
        console.print(Text(f"{whose}: {warning}", style="yellow"))
    if len(warnings) > _SHOWN_WARNINGS:
        console.print(
            Text(f"{len(warnings) - _SHOWN_WARNINGS} more warnings are in {out / 'results.csv'}.", style="yellow")
        )
    console.print(Text(f"Open {out / 'report.html'} in a browser, {out / 'scene.mrb'} in 3D Slicer."))


_OURS = ("report.html", "scene.mrb", "results.json", "results.csv", "gradcam_*.nrrd")


@contextmanager
def staged_output(out: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Results appear whole or not at all: everything is written beside the folder and moved in at the end.

    A folder to write to; when the block ends well its files move into ``out``, otherwise nothing is left.

    An ``out`` with content is refused (`OutputError`) unless ``overwrite``; then only files named as ours are replaced.
    """
    check_output(out, overwrite=overwrite)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        msg = f"{out} cannot be written ({error.strerror}); choose another folder with --out."
        raise OutputError(msg) from error
    try:
        yield staging
        out.mkdir(exist_ok=True)
        for old in out.iterdir():
            if any(fnmatch.fnmatch(old.name, pattern) for pattern in _OURS):
                old.unlink()
        for new in staging.iterdir():
            os.replace(new, out / new.name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def check_output(out: Path, *, overwrite: bool) -> None:
    """Refuse early what could not be written later (`OutputError`)."""
    if out.exists() and not out.is_dir():
        msg = f"{out} is a file; give a folder with --out."
        raise OutputError(msg)
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        msg = f"{out} is not empty; give another folder, or --overwrite to replace the results in it."
        raise OutputError(msg)
