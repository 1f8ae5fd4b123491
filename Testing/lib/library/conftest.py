"""An empty library in a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from case_libraries import a_library_at
from LesionRetrievalLib.library.store import CaseLibrary


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cases #1 50%.sqlite"  # characters that mean something in a URI


@pytest.fixture
def library(path: Path) -> Iterator[CaseLibrary]:
    with a_library_at(path) as library:
        yield library
