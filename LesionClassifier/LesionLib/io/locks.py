"""A file that one program holds at a time, so that two do not write the same thing; free again however that program ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from LesionLib.io.private_files import PRIVATE_FILE


@contextmanager
def held(lock: Path) -> Iterator[bool]:
    """Hold ``lock``, which is there meanwhile and gone afterwards; False where another program holds it.

    Raises `OSError` where the folder cannot be written. On a drive without locks everybody holds it: work must not fail for that.
    """
    descriptor = _locked(lock)
    if descriptor is None:
        yield False
        return
    try:
        yield True
    finally:
        if os.name == "nt":  # an open file cannot be removed there
            os.close(descriptor)
        with suppress(OSError):
            lock.unlink()
        if os.name != "nt":
            os.close(descriptor)


def _locked(lock: Path) -> int | None:
    """A descriptor that holds the lock, None where another program does."""
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, PRIVATE_FILE)
        if not _try_lock(descriptor):
            os.close(descriptor)
            return None
        with suppress(FileNotFoundError):
            if os.name == "nt" or os.path.samestat(os.fstat(descriptor), os.stat(lock)):
                return descriptor
        os.close(descriptor)  # another program has just removed the file under this name: it locks nothing


def _try_lock(descriptor: int) -> bool:
    if os.name == "nt":
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a drive without locks: building must not fail for that
        return True
    return True
