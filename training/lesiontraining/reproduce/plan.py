"""What is run and what is claimed: ``training/reproduction/plan.yaml``, and the hashes by which results are kept.

A *system* is a recipe with options for each budget; a *table* a computed or a real set of lesions; a *run* a system on a table with
a seed. A *claim* says that one system does better than another on a table, by one figure. The runs follow from the claims, in their
order: what tells most comes first.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml
from LesionLib.errors import LesionLensError

from lesiontraining.commands.recipes import brought_along, recipe_file
from lesiontraining.evaluation.baselines import SIZE, SIZE_AND_HU

PLAN, NUMBERS, RESULTS = "plan.yaml", "papers_numbers.csv", "results"
SUITES = ("phantom", "real")
BUDGETS = ("small", "full")
WITHOUT_IMAGE = (SIZE, SIZE_AND_HU)  # systems that need no run of their own
_OVER = " > "
_DIGITS = 16


class ReproductionError(LesionLensError):
    """A plan that does not fit, or data that a suite needs and that are not there."""


@dataclass(frozen=True)
class System:
    """``name`` of a recipe with ``small`` and ``full``: each ``recipe`` (a name of `recipe_file`) and ``options``; where one is left
    out, that budget does not run it. ``classical``: a comparator without a network, for which the recipe only says what is seen.

    ``starts_from``: the system whose network it starts from, fitted on the same table with the same seed. ``seeded`` False: nothing
    is drawn, one run stands for all seeds. ``weights``: the option ``--weights`` must be given, a file with published weights.
    """

    name: str
    says: str
    small: Mapping[str, Any] = field(default_factory=dict)
    full: Mapping[str, Any] = field(default_factory=dict)
    starts_from: str = ""
    seeded: bool = True
    weights: bool = False


@dataclass(frozen=True)
class Table:
    """``suite``; ``make``: what `lesiontraining.reproduce.tables` makes it by, with ``small`` and ``full`` arguments;
    ``needs``: folders below ``--data``; ``options``: of every run on it. ``localises``: whole slices with the place of their lesion.
    """

    name: str
    suite: str
    says: str
    make: str
    small: Mapping[str, Any] = field(default_factory=dict)
    full: Mapping[str, Any] = field(default_factory=dict)
    needs: Sequence[str] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    localises: bool = False


@dataclass(frozen=True)
class Claim:
    """``better`` has a higher ``figure`` than ``than``, by more than minus ``margin``, on each of the tables ``where``.

    ``where``: names of tables; "one > other" compares the same kind of run on two tables. ``published``: whether the paper
    itself says it; else the comparison is ours. ``report``: not a claim but a size that is asked for, such as the optimism of a
    leaky split.
    """

    id: str
    paper: str
    says: str
    better: str
    than: str
    figure: str
    where: Sequence[str]
    margin: float = 0.0
    published: bool = True
    report: bool = False

    def tables(self, place: str) -> tuple[str, str]:
        """Of an entry of ``where`` the tables of either side."""
        one, _, other = place.partition(_OVER)
        return one, other or one


@dataclass(frozen=True)
class Run:
    """A system on a table with a seed, of one budget. ``hash``: of all that decides what comes out, the data's maker with it."""

    system: System
    table: Table
    seed: int
    budget: str
    hash: str
    first: Run | None = None

    @property
    def name(self) -> str:
        """As it is told to people."""
        return f"{self.system.name} on {self.table.name}, seed {self.seed}"

    @property
    def asked(self) -> Mapping[str, Any]:
        """Recipe and options of this budget."""
        return getattr(self.system, self.budget)


@dataclass(frozen=True)
class Plan:
    """Everything of the YAML. ``reasons``: why rows without a claim cannot be measured, by key."""

    systems: Mapping[str, System]
    tables: Mapping[str, Table]
    claims: Sequence[Claim]
    seeds: Sequence[int]
    draws: int
    # Every claim and every printed number asks for its runs again; their hashes are made once.
    _runs: dict[tuple[str, str, int, str], Run | None] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def run(self, system: str, table: str, seed: int, budget: str) -> Run | None:
        """The run, None where this budget does not run the system."""
        key = (system, table, seed, budget)
        if key not in self._runs:
            self._runs[key] = self._new_run(system, table, seed, budget)
        return self._runs[key]

    def _new_run(self, system: str, table: str, seed: int, budget: str) -> Run | None:
        of, on = self.systems[system], self.tables[table]
        asked = getattr(of, budget)
        if not asked:
            return None
        first = self.run(of.starts_from, table, seed, budget) if of.starts_from else None
        decides = {
            "recipe": _recipe(asked["recipe"]),
            **({"classical": asked["classical"]} if "classical" in asked else {}),
            "options": {**on.options, **asked.get("options", {})},
            "table": {"make": on.make, **getattr(on, budget)},
            "seed": seed,
            "first": None if first is None else first.hash,
        }
        return Run(of, on, seed, budget, short_hash(decides), first)

    def runs_of(self, system: str, table: str, budget: str) -> list[Run]:
        """One a seed; of a system in which nothing is drawn the same one for all. Empty where the budget does not run it."""
        seeds = self.seeds if self.systems[system].seeded else [self.seeds[0]] * len(self.seeds)
        found = [self.run(system, table, seed, budget) for seed in seeds]
        return [] if None in found else found

    def places(self, suite: str) -> Iterator[tuple[Claim, str]]:
        """Every claim of a suite with each of its tables, in the plan's order."""
        for claim in self.claims:
            for place in claim.where:
                if self.tables[claim.tables(place)[0]].suite == suite:
                    yield claim, place

    def sides(self, claim: Claim, place: str, budget: str) -> tuple[list[Run], list[Run]] | None:
        """The runs that a comparison needs, by seed; a side without image has none. None where the budget lacks one."""
        found = []
        for system, table in zip((claim.better, claim.than), claim.tables(place), strict=True):
            runs = [] if system in WITHOUT_IMAGE else self.runs_of(system, table, budget)
            if not runs and system not in WITHOUT_IMAGE:
                return None
            found.append(runs)
        return found[0], found[1]

    def wanted(self, suite: str, budget: str) -> list[Run]:
        """All runs of a suite, each once, those that others start from before them."""
        found: dict[str, Run] = {}
        for claim, place in self.places(suite):
            for run in (run for side in self.sides(claim, place, budget) or ((), ()) for run in side):
                for one in (run.first, run):
                    if one is not None:
                        found.setdefault(one.hash, one)
        return list(found.values())


@cache
def _recipe(name: str) -> Mapping[str, Any]:
    """What the recipe holds; read once, for every run is asked for its hash again and again."""
    path = recipe_file(name)
    if path is None:
        msg = f"the plan names the recipe {name!r}, which there is not."
        raise ReproductionError(msg)
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def short_hash(value: Any) -> str:
    """Sixteen digits of what is plain JSON."""
    return sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:_DIGITS]


def reproduction_folder() -> Path:
    """Where plan, published numbers and results lie. Raises `ReproductionError` where they did not come along."""
    folder = brought_along("reproduction")
    if not (folder / PLAN).is_file():
        msg = "the plan of the reproduction did not come along; run this from the sources of LesionLens."
        raise ReproductionError(msg)
    return folder


def read_plan(path: Path) -> Plan:
    """The plan of a YAML file. Raises `ReproductionError` for names that do not belong together."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        plan = Plan(
            systems={name: System(name, **of) for name, of in values["systems"].items()},
            tables={name: Table(name, **of) for name, of in values["tables"].items()},
            claims=[Claim(**of) for of in values["claims"]],
            seeds=values["seeds"],
            draws=values["draws"],
        )
    except (OSError, yaml.YAMLError, TypeError, KeyError) as error:
        msg = f"{path.name} is no plan of a reproduction: {' '.join(str(error).split())[:300]}"
        raise ReproductionError(msg) from error
    for claim in plan.claims:
        known = {*plan.systems, *WITHOUT_IMAGE}
        tables = {table for place in claim.where for table in claim.tables(place)}
        if not ({claim.better, claim.than} <= known and tables <= set(plan.tables)):
            msg = f"{path.name}: claim {claim.id} names a system or a table that there is not."
            raise ReproductionError(msg)
    return plan
