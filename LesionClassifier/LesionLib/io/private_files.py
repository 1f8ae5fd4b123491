"""Files and folders for their owner only: what is written about patients is nobody else's, where the system can keep it so."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

PRIVATE_FILE, PRIVATE_FOLDER = 0o600, 0o700


def open_private(path: str | Path, mode: str = "wb", **options: Any) -> IO[Any]:
    """Open a file to be written, for its owner only from its first byte on; ``options``: those of `open`. Raises `OSError`."""
    # The mode is given at creation: a chmod afterwards would leave a moment open to everyone.
    file = open(path, mode, opener=lambda name, flags: os.open(name, flags, PRIVATE_FILE), **options)  # noqa: SIM115
    make_private(path)  # one that was there keeps its mode otherwise
    return file


def write_private(path: str | Path, text: str) -> None:
    """Write ``text`` in UTF-8 as it is, for the owner only. Raises `OSError`."""
    with open_private(path, "w", encoding="utf-8", newline="") as file:
        file.write(text)


def private_folder(path: str | Path) -> Path:
    """The folder at ``path``; it and those above it that are new are their owner's only. Raises `OSError`."""
    path = Path(path)
    missing = []
    folder = path
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for folder in reversed(missing):
        with suppress(FileExistsError):
            os.mkdir(folder, PRIVATE_FOLDER)
    path.mkdir(exist_ok=True)  # says so where it is a file
    return path


def make_private(path: str | Path) -> None:
    """Take what is at ``path`` from everybody but its owner; where the drive knows no owners it stays as it is."""
    with suppress(OSError, NotImplementedError):
        os.chmod(path, PRIVATE_FOLDER if os.path.isdir(path) else PRIVATE_FILE)
