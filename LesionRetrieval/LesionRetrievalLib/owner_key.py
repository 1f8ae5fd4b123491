"""Where the owner's pseudonym key lies: one for all libraries, and the same one as on the command line."""

from __future__ import annotations

import os
from pathlib import Path

from LesionLib.errors import CaseLibraryError

from .pseudonyms import Pseudonymiser


def settings_folder() -> Path:
    """Where LesionLens keeps what belongs to its user and not to a library."""
    home = os.environ.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path.home() / ".config") / "lesionlens"


def default_key_path() -> Path:
    """The key that is taken where no other is named."""
    return settings_folder() / "pseudonym.key"


def owner_key(path: Path | None = None) -> Pseudonymiser:
    """The key at ``path`` (default: the owner's); made there at the first use. Raises `CaseLibraryError`."""
    path = path or default_key_path()
    if path.exists():
        return Pseudonymiser.load(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"{path.parent} cannot be made ({error.strerror}); choose another place for the key."
        raise CaseLibraryError(msg) from error
    return Pseudonymiser.create(path)


def key_if_there(path: Path | None = None) -> Pseudonymiser | None:
    """The key at ``path``, or None: a search makes no key, it could not match anything in a library. `CaseLibraryError`."""
    path = path or default_key_path()
    return Pseudonymiser.load(path) if path.exists() else None
