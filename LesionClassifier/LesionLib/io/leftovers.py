"""What a run left that was killed before it could clean up: hidden files and folders beside the place it wrote to."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

_INSIDE = (".score-*", ".lesionlens-*", ".installing-*")
_STILL_AT_WORK_S = 600.0


def leftovers(out: Path, *, now: float | None = None) -> list[Path]:
    """Hidden files and folders of an earlier run beside and in ``out`` (a file or a folder), by name.

    What was touched within the last ten minutes may belong to a run that is still at work, and is left out. What may not be
    looked at is left out too. ``now``: seconds since the epoch, for tests.
    """
    now = time.time() if now is None else now
    return sorted(path for path in _candidates(out) if _age_s(path, now) > _STILL_AT_WORK_S)


def _candidates(out: Path) -> Iterator[Path]:
    try:
        beside = list(out.absolute().parent.iterdir())
        own = tuple(f"{dots}{out.name}{mark}" for dots in (".", "..") for mark in "-.")  # "..": the draft of a draft
        yield from (path for path in beside if path.name.startswith(own))
        if out.is_dir():
            yield from (path for pattern in _INSIDE for path in out.glob(pattern))
    except OSError:
        return


def _age_s(path: Path, now: float) -> float:
    try:
        return now - path.lstat().st_mtime
    except OSError:
        return 0.0


def unfinished_build(out: Path) -> Path:
    """Where a library that is being built into ``out`` lies until it is whole."""
    return out.with_name(f".{out.name}.building")


def leftovers_note(path: Path, out: Path) -> str:
    """The line for the user of what an earlier run left beside ``out``."""
    if path.name.startswith(unfinished_build(out).name):
        return (
            f"note: {path} is what is done of a library whose building was broken off; the same command goes on with it. Where "
            "nobody wants it any more, delete it."
        )
    if path.is_dir() and not os.path.exists(
        out
    ):  # ended between the two steps of a replacement, or before the first result
        return (
            f"note: {path} was left by a run that was ended before it could clean up, and {out} is not there: if it was "
            "before, it is in that folder; look before you delete it."
        )
    return f"note: {path} was left by a run that was ended before it could clean up; nothing needs it, delete it."
