"""A new library from cases as they come: the file appears when it is whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from LesionLib.errors import CaseLibraryError, OutputError

from .library import CaseEntry, CaseLibrary, ModelIdentity


def write_library(out: Path, model: ModelIdentity, entries: Iterator[CaseEntry]) -> int:
    """Write the entries to a new library beside ``out`` and move it there when all are in; returns how many.

    Whether a file at ``out`` may be replaced is the caller's to ask. Raises `CaseLibraryError` where there is no entry,
    `OutputError` where the file cannot be written.
    """
    partial = out.with_name(f".{out.name}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        first = next(entries, None)
        if first is None:
            msg = f"there is no case to put into {out}."
            raise CaseLibraryError(msg)
        partial.unlink(missing_ok=True)
        with CaseLibrary.create(partial, model=model, dimension=len(first.vector)) as library:
            # As they come: with the CT around each lesion they would not all fit into memory.
            count = library.add_many(chain([first], entries), model_sha256=model.sha256)
        os.replace(partial, out)
        return count
    except OSError as error:
        msg = f"{out} cannot be written ({error.strerror}); choose another place."
        raise OutputError(msg) from error
    finally:
        partial.unlink(missing_ok=True)
