"""What the command line shows, and how results reach their folder: whole or not at all."""

from __future__ import annotations

import argparse
import fnmatch
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeVar

from LesionLib.errors import OutputError
from LesionLib.inference.results import NO_ANSWER, LesionResult, SimilarCase
from LesionLib.io.image_headers import shown_path
from LesionLib.io.private_files import make_private, private_folder
from LesionLib.io.swap import put_folder, staging_folder
from LesionLib.model.scores import ScoreSpec
from LesionLib.terminal import printable
from LesionRetrievalLib.library.cases import MAY_BE_THE_LESION, NEARLY_THE_SAME
from LesionRetrievalLib.server.connection import is_server_address

if TYPE_CHECKING:  # late: a command that is refused draws nothing
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table
    from rich.text import Text

NOTICE = "Research use only, not for diagnosis."
_SHOWN_WARNINGS = 8
_SECONDS_BETWEEN_LINES = 10.0
_T = TypeVar("_T")


def cell(text: object) -> Text:
    """A cell of a table, or a line, as rich draws it."""
    from rich.text import Text

    return Text(printable(text))


def new_console(*, stderr: bool = False, quiet: bool = False) -> Console:
    """Where tables and progress are drawn."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, quiet=quiet)


def new_table(*, title: str | Text | None = None, caption: str = "", show_header: bool = True) -> Table:
    """A table without columns yet."""
    from rich.table import Table

    return Table(title=title, caption=caption or None, show_header=show_header)


def library_file(text: str) -> Path:
    """The type of an option where a library has to be a file."""
    if is_server_address(text):
        msg = f"{text} is on a server, and this works on a file; copy it into one by lesionlens library pull"
        raise argparse.ArgumentTypeError(msg)
    return Path(text)


def kept_names(given: list[str]) -> tuple[str, ...]:
    """The columns that were typed, one an option or several with commas between."""
    return tuple(name.strip() for each in given for name in each.split(",") if name.strip())


class Steps:
    """Steps as they begin, and a bar for long ones.

    Tells on standard error what is being done; standard output stays for the answer.
    """

    quiet: ClassVar[bool] = False  # whether those made from now on say nothing

    def __init__(self) -> None:
        self._console = new_console(stderr=True, quiet=self.quiet)
        self._start = time.monotonic()

    def begin(self, what: str) -> None:
        """One line: the time since the start, and what begins now."""
        self._console.print(cell(f"{time.monotonic() - self._start:6.1f} s  {what}"))

    def note(self, what: str) -> None:
        """Something to be known before the answer is read."""
        self._console.print(cell(f"          {what}"), style="yellow")

    def warn(self, warnings: Iterable[str]) -> None:
        """One line a warning, for commands whose results have no place for them."""
        for warning in dict.fromkeys(warnings):
            self.note(warning)

    def each(self, items: Sequence[_T] | Iterable[_T], what: str, *, total: int | None = None) -> Iterator[_T]:
        """The items again, with a bar where there is a terminal to draw it on, else with a line every few seconds."""
        self.begin(what)
        total = total if total is not None else len(items)
        if not self._console.is_terminal:
            yield from self._with_lines(items, total)
            return
        with self._drawn() as progress:
            yield from progress.track(items, total=total)

    @contextmanager
    def bar(self) -> Iterator[Callable[[int, int], None]]:
        """The same for work that tells (done, of) by a call."""
        if not self._console.is_terminal:
            lines = _Lines(self)
            yield lines.tell
            return
        with self._drawn() as progress:
            task = progress.add_task("", total=None)
            yield lambda done, total: progress.update(task, completed=done, total=total)

    def _drawn(self) -> Progress:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = [TextColumn("         "), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
        return Progress(*columns, console=self._console, transient=True)

    def _with_lines(self, items: Iterable[_T], total: int) -> Iterator[_T]:
        lines = _Lines(self)
        for done, item in enumerate(items):
            lines.tell(done, total)
            yield item


class _Lines:
    """A line of progress every few seconds, with the time that is left at the pace so far."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._start = self._last = time.monotonic()

    def tell(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._last > _SECONDS_BETWEEN_LINES:
            self._last = now
            left = f", about {_duration((now - self._start) / done * (total - done))} left" if 0 < done <= total else ""
            self._steps.begin(f"{done} of {total}{left}")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def print_results(results: Sequence[LesionResult], out: Path, *, scores: Sequence[ScoreSpec] = ()) -> None:
    """The table of answers, and what the model's ``scores`` say of each lesion in a sentence; ``out``: where the rest is."""
    console = new_console()
    table = new_table(title="LesionLens", caption=NOTICE)
    for heading in ("lesion", "answer", "probabilities", "most similar cases", "warnings"):
        table.add_column(heading)
    for result in results:
        answer = result.label or NO_ANSWER
        probabilities = "  ".join(f"{name} {p:.2f}" for name, p in result.shown_probabilities.items()) or "-"
        similar = ", ".join(map(_similar, result.similar_cases[:3])) or "-"
        warnings = str(len(result.warnings)) if result.warnings else "-"
        table.add_row(*map(cell, (result.name, answer, probabilities, similar, warnings)))
    console.print(table)
    for result in results:
        if sentence := result.sentence(scores):
            console.print(cell(f"{result.name}: {sentence}"))
    warnings = list(dict.fromkeys(warning for result in results for warning in result.warnings))
    for warning in warnings[:_SHOWN_WARNINGS]:
        names = [result.name for result in results if warning in result.warnings]
        whose = "All lesions" if len(names) == len(results) > 1 else ", ".join(names)
        console.print(cell(f"{whose}: {warning}"), style="yellow")
    if len(warnings) > _SHOWN_WARNINGS:
        console.print(
            cell(f"{len(warnings) - _SHOWN_WARNINGS} more warnings are in {out / 'results.csv'}."), style="yellow"
        )


def print_where_to_look(out: Path) -> None:
    """The page and the scene."""
    new_console().print(cell(f"Open {out / 'report.html'} in a browser, {out / 'scene.mrb'} in 3D Slicer."))


def _similar(case: SimilarCase) -> str:
    very = f" ({MAY_BE_THE_LESION})" if case.similarity > NEARLY_THE_SAME else ""
    return f"{case.label} {case.similarity:.2f}{very}"


_OURS = (
    "report.html", "scene.mrb", "results.json", "results.csv", "similar.csv", "results.dcm", "lesions.seg.dcm", "gradcam_*.nrrd",
    "gradcam_*.nii.gz", "gradcam_*.dcm",
)  # fmt: skip


@contextmanager
def staged_output(out: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Results appear whole or not at all: everything is written beside the folder, and the folders are swapped at the end.

    A folder to write to; when the block ends well it becomes ``out``, otherwise nothing is left (also after SIGTERM in a
    command: see `LesionLib.faults`). A link stays a link: the folder that it points to is replaced.

    An ``out`` with content is refused (`OutputError`) unless ``overwrite``; then nothing of an earlier run stays, and files
    that are not ours move on into the new folder.
    """
    check_output(out, overwrite=overwrite)
    out = out.resolve()
    with ExitStack() as until_the_end:
        try:
            private_folder(out.parent)
            staging = until_the_end.enter_context(staging_folder(out.parent, prefix=f".{out.name}-"))
        except OSError as error:
            msg = f"{out} cannot be written ({error.strerror}); choose another folder with --out."
            raise OutputError(msg) from error
        folder = private_folder(staging / "new")
        yield folder
        for new in folder.iterdir():
            make_private(new)
        _swap(folder, out, staging / "old")


def _swap(new: Path, out: Path, old: Path) -> None:
    """``new`` in the place of ``out``, with what was there and is not ours; at no moment there is neither."""
    try:
        for foreign in out.iterdir() if out.is_dir() else ():
            if not _is_ours(foreign.name):
                _also_at(foreign, new / foreign.name)
        put_folder(new, out, old)
    except OSError as error:
        msg = f"{out} cannot be replaced ({error.strerror}); choose another folder with --out."
        raise OutputError(msg) from error


def _also_at(path: Path, target: Path) -> None:
    """The same file, or folder of files, under a second name; a copy where the drive knows no second names."""
    if path.is_dir() and not path.is_symlink():
        shutil.copytree(path, target, symlinks=True, copy_function=_link_or_copy)
    else:
        _link_or_copy(path, target)


def _link_or_copy(path: str | Path, target: str | Path) -> None:
    try:
        os.link(path, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(path, target, follow_symlinks=False)


def _is_ours(name: str) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in _OURS)


def check_output(out: Path, *, overwrite: bool) -> None:
    """Refuse early what could not be written later (`OutputError`)."""
    try:
        str(out).encode("utf-8")
    except UnicodeEncodeError as error:
        msg = f"{shown_path(out)}: the name of the folder is not UTF-8 text; give another name with --out."
        raise OutputError(msg) from error
    if out.is_symlink() and not out.exists():
        msg = f"{out} is a link to {os.readlink(out)}, which is not there; give a folder with --out."
        raise OutputError(msg)
    if out.exists() and not out.is_dir():
        msg = f"{out} is a file; give a folder with --out."
        raise OutputError(msg)
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        msg = f"{out} is not empty; give another folder, or --overwrite to replace the results in it."
        raise OutputError(msg)
    in_the_way = [p.name for p in out.iterdir() if p.is_dir() and _is_ours(p.name)] if out.is_dir() else []
    if in_the_way:
        msg = f"{out} holds a folder named {in_the_way[0]}, where a file belongs; rename it, or give another folder."
        raise OutputError(msg)
