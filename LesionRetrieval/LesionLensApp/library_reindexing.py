"""``lesionlens library reindex``: the cases embedded by another model, with a bar, to be broken off and resumed."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from LesionRetrievalLib.library import CaseLibrary
from LesionRetrievalLib.library_reindex import ReindexReport, patch_embedder, reindex
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .asked_model import AskedModel
from .console import Steps

_INTERRUPTED = 130
_SHOWN_CASES = 5


def reindex_library(path: Path, model: AskedModel, steps: Steps) -> str:
    """Embed what is not embedded yet; returns what was done, in a few lines. Raises `CaseLibraryError`.

    Ends the program with code 130 when interrupted; what is done is kept.
    """
    with CaseLibrary.open(path, read_only=False) as library:
        try:
            who = model.described
            steps.begin(f"Embedding {len(library)} cases by {who.name} {who.version}")
            with _bar() as bar:
                report = reindex(library, who, progress=bar, embed=patch_embedder(who.spec, model.embed))
        except KeyboardInterrupt:
            print("lesionlens: interrupted; what is embedded is kept, reindex again to go on.", file=sys.stderr)
            raise SystemExit(_INTERRUPTED) from None
    return "\n".join([f"{path}: {_counted(report)}", *_left_out(report)])


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None]]:
    """What `reindex` tells its progress to, drawn where there is a terminal."""
    columns = [TextColumn("         "), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _counted(report: ReindexReport) -> str:
    earlier = f", {report.kept} were already" if report.kept else ""
    return f"{report.embedded} cases embedded by {report.model}{earlier}."


def _left_out(report: ReindexReport) -> list[str]:
    lines = []
    for reason, count in Counter(report.left_out.values()).items():
        names = [case_id for case_id, why in report.left_out.items() if why == reason]
        more = ", …" if count > _SHOWN_CASES else ""
        lines.append(f"{count} cannot be: {reason} ({', '.join(names[:_SHOWN_CASES])}{more}).")
    return lines
