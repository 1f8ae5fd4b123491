"""Results appear whole or not at all: everything is written beside the folder and moved in at the end."""

from __future__ import annotations

import fnmatch
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from LesionLib.errors import OutputError

_OURS = ("report.html", "scene.mrb", "results.json", "results.csv", "gradcam_*.nrrd")


@contextmanager
def staged_output(out: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A folder to write to; when the block ends well its files move into ``out``, otherwise nothing is left.

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
