"""``lesiontrain reproduce``: the claims of a suite, carried out as far as there is time, and the page."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

from lesiontraining.reproduce import page as pages
from lesiontraining.reproduce.outcomes import read_numbers
from lesiontraining.reproduce.plan import NUMBERS, PLAN, RESULTS, read_plan, reproduction_folder
from lesiontraining.reproduce.runs import Reproduction, Results
from lesiontraining.reproduce.summary import Paper

PAGE, PAPERS = "REPRODUCTION.md", "papers.yaml"


def reproduce(  # noqa: PLR0913
    *,
    suite: str | None,
    budget: str,
    work: Path,
    data: Path | None,
    weights: Path | None,
    only: Sequence[str],
    hours: float | None,
    results: Path | None,
    page: Path | None,
    notify: Callable[[str], None],
) -> Path:
    """Carry out the suite (None: nothing) and write the page; returns the page. Raises `ReproductionError`."""
    folder = reproduction_folder()
    plan = read_plan(folder / PLAN)
    kept = Results(results or folder / RESULTS)
    target = page or folder.parent / PAGE
    write_page(folder, kept, target)  # what is wrong with plan or numbers is said before hours of training
    if suite is not None:
        carried = Reproduction(plan, suite, budget, kept, work, data, weights, notify, only)
        carried.concluded = lambda: write_page(folder, kept, target)
        carried.carry_out(until=None if hours is None else time.monotonic() + 3600 * hours)
        for run, reason in carried.failed.items():
            notify(f"failed: {run}, {' '.join(reason.split())[:200]} ({work / 'failed'})")
    write_page(folder, kept, target)
    return target


def write_page(folder: Path, kept: Results, target: Path) -> None:
    """The page from the plan, the published numbers and the results that are kept."""
    plan = read_plan(folder / PLAN)
    papers = [Paper(**of) for of in yaml.safe_load((folder / PAPERS).read_text(encoding="utf-8"))]
    text = pages.page(plan, papers, read_numbers(folder / NUMBERS, plan), kept)
    target.write_text(text, encoding="utf-8")
