"""What is said of data: the progress of a long preparation, and what is wrong with a table of lesions.

Progress goes to stderr, so that output can be piped. Problems are told all at once, each with its row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from LesionLib.errors import LesionLensError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")


def notify(text: str) -> None:
    """One line on stderr, as it is."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(text, markup=False)


@contextmanager
def bar(title: str, total: int, *, shown: bool = True) -> Iterator[Progress]:
    """A progress bar with one task; gone when done, and not drawn where stderr is a file."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not (shown and console.is_terminal)) as progress:
        progress.add_task(title, total=total)
        yield progress


def tracked(items: Iterable[T], title: str, *, total: int, shown: bool = True) -> Iterator[T]:
    """The items, with a bar."""
    with bar(title, total, shown=shown) as progress:
        for item in items:
            yield item
            progress.advance(progress.task_ids[0])


SHOWN = 20
_LONGEST = 400  # characters of a problem that are printed


@dataclass(frozen=True)
class Problem:
    """``line``: of the table, 0 where the problem is not of one row. ``text``: what is given, expected, to be done."""

    line: int
    text: str

    def __str__(self) -> str:
        """One line of a report."""
        text = " ".join(self.text.split())
        text = text if len(text) <= _LONGEST else text[:_LONGEST] + " ..."
        return f"line {self.line}: {text}" if self.line else text


class TableError(LesionLensError):
    """A table of lesions cannot be used. ``problems`` holds all of them; the text shows the first and counts the rest."""

    def __init__(self, source: str, problems: Iterable[Problem], *, shown: int = SHOWN) -> None:
        self.source = source
        self.problems = tuple(sorted(problems, key=lambda problem: problem.line))
        count = len(self.problems)
        lines = [f"  {problem}" for problem in self.problems[:shown]]
        if count > shown:
            lines.append(f"  and {count - shown} more")
        head = f"{source} has {count} problem{'s' * (count != 1)}:"
        super().__init__("\n".join([head, *lines]) if count != 1 else f"{source}: {self.problems[0]}")


def one_problem(source: str, text: str, *, line: int = 0) -> TableError:
    """A `TableError` with a single problem."""
    return TableError(source, [Problem(line, text)])


def refuse(source: str, problems: Iterable[Problem], *, shown: int = SHOWN) -> None:
    """Raise `TableError` where there are problems."""
    found = list(problems)
    if found:
        raise TableError(source, found, shown=shown)
