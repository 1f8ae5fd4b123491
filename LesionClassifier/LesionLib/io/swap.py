"""A folder made aside and put into the place of another; on Linux and macOS so that at no moment there is none."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_AT_FDCWD, _RENAME_EXCHANGE, _RENAME_SWAP = -100, 2, 2  # Linux' and macOS' own numbers
_CANNOT = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM}


@contextmanager
def staging_folder(parent: Path, *, prefix: str) -> Iterator[Path]:
    """A new folder in ``parent`` that is gone afterwards, also where Ctrl-C or a signal falls into its removal. Raises `OSError`."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        yield folder
    finally:
        try:
            shutil.rmtree(folder, ignore_errors=True)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise


def put_folder(new: Path, place: Path, aside: Path) -> None:
    """Move ``new`` to ``place``; what was there goes to ``aside``, which is the caller's to remove. Raises `OSError`.

    All three lie on one file system. Linux and macOS exchange two folders in one step. Windows has no such call, and a few
    file systems refuse it: there it takes two steps, and a process that is killed between them leaves nothing at ``place`` and
    the earlier folder whole at ``aside``: what is left beside ``place`` is named at the next run.
    """
    if not place.exists():
        os.replace(new, place)
        return
    if _exchanged(new, place):
        os.replace(new, aside)
        return
    os.replace(place, aside)
    try:
        os.replace(new, place)
    except OSError:
        os.replace(aside, place)
        raise


def _exchanged(first: Path, second: Path) -> bool:
    """Whether the two have changed places; False where this system cannot do it in one step."""
    names = os.fsencode(first), os.fsencode(second)
    try:
        library = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "linux":
            failed = library.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE)
        elif sys.platform == "darwin":
            failed = library.renamex_np(*names, _RENAME_SWAP)
        else:
            return False
    except (OSError, AttributeError, TypeError):
        return False
    if failed and ctypes.get_errno() not in _CANNOT:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(second))
    return not failed
