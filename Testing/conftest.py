"""For all tests: the same examples in every run, and a fair share of the cores."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# A change is judged by what it changes, not by the dice.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # a core for each process; torch reads it when it is imported


@pytest.hookimpl(wrapper=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """A file's tests go to one process, which makes its fixtures once; all tests of the server to one, since its ports are fixed."""
    for item in items:
        path = Path(item.path)
        item.add_marker(pytest.mark.xdist_group("server" if path.parent.name == "server" else str(path)))
    return (yield)
