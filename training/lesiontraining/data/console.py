"""What a long preparation says while it runs: on stderr, so that output can be piped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")


def say(text: str) -> None:
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
