"""The checklist that radiology journals ask for, answered from a run: which item, what is known of it, where it stands.

Tejani et al., "Checklist for Artificial Intelligence in Medical Imaging (CLAIM): 2024 update", Radiology: Artificial Intelligence
6(4):e240300, 2024. The items are named in our words. What a run cannot know is left to the author, and said so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from lesiontraining.evaluation.leaks import LeakReport
from lesiontraining.reporting.figures import Measured
from lesiontraining.reporting.model_card import markdown_table

STATES = ("answered", "in part", "for the author", "not applicable")
_UNSET = ("null", "None", "")


@dataclass(frozen=True)
class ClaimItem:
    """``number``, ``topic``: of the checklist; ``state``: one of `STATES`; ``where``: the part of the report that holds more."""

    number: int
    topic: str
    state: str
    answer: str
    where: str


@dataclass(frozen=True)
class ClaimRun:
    """What the items are answered from. ``facts``: of each fold, as `fit` left them; ``settings``: of the first, flat.

    ``architecture``, ``parameters``: of the network; ``box_size_mm``, ``slice_distance_mm``: smallest and largest in training;
    ``baselines``: those that know no image.
    """

    facts: Sequence[Mapping[str, Any]]
    settings: Mapping[str, str]
    architecture: str
    parameters: int
    box_size_mm: tuple[float, float]
    slice_distance_mm: tuple[float, float]
    baselines: Sequence[str]
    draws: int

    def setting(self, names: str, before: str = "") -> str:
        """Of these options, by the end of their names, those that are set, with ``before`` in front; "" where none is."""
        wanted = tuple(names.split())
        set_ones = {
            name: value for name, value in self.settings.items() if name.endswith(wanted) and value not in _UNSET
        }
        found = ", ".join(f"{name.rpartition('.')[2]} {value}" for name, value in set_ones.items())
        return f"{before}{found}" if found else ""


def claim_items(run: ClaimRun, measured: Measured, leaks: LeakReport) -> tuple[ClaimItem, ...]:
    """All 44, in order."""
    data, model = run.facts[0]["data"], next(iter(measured.rows.values()))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), undefined=jinja2.StrictUndefined, finalize=_cell
    )
    text = environment.get_template("claim.txt.j2").render(
        run=run,
        m=measured,
        data=data,
        first=run.facts[0],
        set=run.setting,
        leaks=leaks.as_json(),
        classes=", ".join(data["classes"]),
        input=", ".join(f"{name} {value}" for name, value in data["input"].items() if value is not None),
        minutes=sum(fact["seconds"] for fact in run.facts) / 60,
        figures=", ".join(name.replace("_", " ") for name in model),
        groups=list(dict.fromkeys(row.column for row in measured.subgroups)),
        counts=", ".join(f"{n} {name}" for name, n in measured.class_counts.items()),
        shown="; ".join(f"{name.replace('_', ' ')} {model[name]}" for name in ("auc", "balanced_accuracy")),
    )
    rows = [line.split("|") for line in text.strip().splitlines()]
    return tuple(ClaimItem(int(row[0]), *(cell.strip() for cell in row[1:])) for row in rows)


def answered_share(items: Sequence[ClaimItem]) -> tuple[int, int, int]:
    """How many are answered from the run, how many of these in part, and how many apply."""
    states = [item.state for item in items]
    part = states.count("in part")
    return states.count("answered") + part, part, len(states) - states.count("not applicable")


def as_markdown(items: Sequence[ClaimItem]) -> str:
    """The table for a manuscript's supplement."""
    known, part, apply = answered_share(items)
    head = (
        f"CLAIM 2024, filled from the run: {known} of {apply} items that apply, {part} of them in part. Read every answer before you "
        "hand it in. Research use only, not for diagnosis."
    )
    rows = [[str(item.number), item.topic, item.state, item.answer, item.where] for item in items]
    return f"{head}\n\n{markdown_table(['item', 'topic', 'state', 'answer', 'where'], rows)}\n"


def _cell(value: object) -> object:
    """A value within a line of cells."""
    return (
        " ".join(value.split()).replace("|", "/")
        if isinstance(value, str) and ("|" in value or "\n" in value)
        else value
    )
