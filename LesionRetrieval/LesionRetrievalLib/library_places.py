"""A case library wherever it is: a file on this computer, or an address of a server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .milvus_connection import is_server_address

if TYPE_CHECKING:
    from .library_protocol import CaseStore


def library_place(text: str) -> Path | str:
    """What a user typed: an address stays text, for a path would lose one of its slashes."""
    return text if is_server_address(text) else Path(text)


def open_store(place: Path | str) -> CaseStore:
    """Open to read. Raises `CaseLibraryError`."""
    if is_server_address(str(place)):
        from .milvus_library import MilvusLibrary

        return MilvusLibrary.open(str(place))
    from .library import CaseLibrary

    return CaseLibrary.open(place)
