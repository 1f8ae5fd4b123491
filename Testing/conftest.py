"""For all tests: the same examples in every run, and a fair share of the cores."""

from __future__ import annotations

import os

from hypothesis import settings

# A change is judged by what it changes, not by the dice.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # a core for each process; torch reads it when it is imported
