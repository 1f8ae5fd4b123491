"""What became of the claims, and by that of every printed number: rules, no judgement.

A published claim is *shown* on a table where the whole 95 % interval of its paired difference lies above zero (of "as well as": above
minus the margin) and the p-value, adjusted for all published claims of its paper that were measured (Holm), is at most .05.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lesiontraining.evaluation.intervals import holm
from lesiontraining.reproduce.chance import JUDGED_BY, level, table_key
from lesiontraining.reproduce.plan import BUDGETS, SUITES, Claim, Plan, ReproductionError, Run
from lesiontraining.reproduce.runs import Results, claim_key, system_key

SHOWN = {"phantom": "shown on phantom", "real": "shown on real data"}
NOT_SUPPORTED = "claim not supported here"
PRIVATE = "not reproducible: private data"
NEEDS_GPU = "not run: needs GPU"
BUDGET = "not run: budget"
UNLEARNED = "no better than chance at this budget"
SAME = "the same at this budget"
STATUSES = (*SHOWN.values(), NOT_SUPPORTED, PRIVATE, NEEDS_GPU, BUDGET)
_LEVEL = 0.05
_ROUNDING = 1e-4  # results keep four digits


@dataclass(frozen=True)
class Outcome:
    """A claim on one of its tables. ``found``: the comparison as it was kept, None where it was not made, for ``reason``; one that
    says nothing where the reason is `UNLEARNED` or `SAME`.

    ``p_holm``: None for what is only reported and for "as well as". ``shown``: None where nothing was claimed or measured.
    ``chance``: of either side, None where its figure has no such level. ``weak_control``: what it is compared with did no better than
    that at the small budget. ``same_as``: where the reason is `SAME`, the earlier claim that comes to the same runs, or the claim
    itself where its own two sides do. ``needs``: what is missing, in words.
    """

    claim: Claim
    place: str
    suite: str
    found: Mapping[str, Any] | None
    reason: str = ""
    p_holm: float | None = None
    shown: bool | None = None
    weak_control: bool = False
    chance: tuple[float | None, float | None] = (None, None)
    same_as: str = ""
    needs: str = ""


def outcomes(plan: Plan, results: Results) -> list[Outcome]:
    """Of all claims and tables, in the plan's order."""
    kept = [_looked_up(plan, results, claim, place, suite) for suite in SUITES for claim, place in plan.places(suite)]
    order = {claim.id: number for number, claim in enumerate(plan.claims)}
    kept.sort(key=lambda one: (order[one.claim.id], SUITES.index(one.suite)))
    kept = _with_what_is_the_same(plan, kept)
    adjusted: dict[int, float] = {}
    for paper in {one.claim.paper for one in kept}:
        family = [i for i, one in enumerate(kept) if one.claim.paper == paper and _is_tested(one)]
        p_values = [kept[i].found["difference"]["p_value"] for i in family]
        adjusted |= dict(zip(family, map(float, holm(p_values)), strict=True)) if family else {}
    return [_judged(one, adjusted.get(i)) for i, one in enumerate(kept)]


def _looked_up(plan: Plan, results: Results, claim: Claim, place: str, suite: str) -> Outcome:
    """The comparison of the largest budget that was made; else why there is none."""
    reason = NEEDS_GPU
    for budget in reversed(BUDGETS):
        sides = plan.sides(claim, place, budget)
        if sides is None:
            continue
        found = results.read("claim", claim_key(claim, sides, plan))
        if found is not None:
            each = [_Side(runs, found[side]) for runs, side in zip(sides, ("first", "second"), strict=True)]
            levels = [side.chance(claim.figure, results) for side in each]
            first, second = (budget == BUDGETS[0] and side.is_at_chance(claim.figure, plan, results) for side in each)
            return Outcome(
                claim,
                place,
                suite,
                found,
                UNLEARNED if first else "",
                weak_control=second,
                chance=(levels[0], levels[1]),
            )
        reason = BUDGET if budget == BUDGETS[0] else reason
    return Outcome(claim, place, suite, None, reason, needs=_needs(plan, claim) if reason == NEEDS_GPU else "")


def _needs(plan: Plan, claim: Claim) -> str:
    """What the systems of a claim need that is not here."""
    systems = [plan.systems[name] for name in (claim.better, claim.than) if name in plan.systems]
    return "published weights and a GPU" if any(system.weights for system in systems) else "a GPU"


def _with_what_is_the_same(plan: Plan, kept: Sequence[Outcome]) -> list[Outcome]:
    """Marks what is no comparison of its own at the small budget: systems with the same settings there are one and the same run."""
    seen: dict[tuple[object, ...], str] = {}
    found = []
    for one in kept:
        sides = plan.sides(one.claim, one.place, BUDGETS[0])
        full = one.found is not None and one.found["budget"] != BUDGETS[0]
        if sides is None or not all(sides) or full:
            found.append(one)
            continue
        first, second = (tuple(run.hash for run in side) for side in sides)
        same_as = one.claim.id if first == second else seen.get((first, second, one.claim.figure))
        found.append(one if same_as is None else replace(one, reason=SAME, same_as=same_as, needs=""))
        seen.setdefault((first, second, one.claim.figure), one.claim.id)
    return found


@dataclass(frozen=True)
class _Side:
    """The runs of one side of a comparison (none for a system without image), and the estimate of its figure."""

    runs: Sequence[Run]
    estimate: Mapping[str, Any]

    def chance(self, figure: str, results: Results) -> float | None:
        """What knowing nothing reaches on its test lesions; None where that is not known."""
        kept = results.read("run", self.runs[0].hash) if self.runs else None
        if kept is None:
            return None
        return level(figure, kept["counts"], results.read("table", table_key(self.runs[0])))

    def is_at_chance(self, figure: str, plan: Plan, results: Results) -> bool:
        """Whether its interval reaches down to chance: a system that was trained too little to answer at all says nothing of its
        claim. False for a figure that has no such level."""
        judged = JUDGED_BY.get(figure, figure)
        estimate: Mapping[str, Any] | None = self.estimate
        if judged != figure:
            of_system = results.read("system", system_key(self.runs, plan)) if self.runs else None
            estimate = None if of_system is None else of_system["figures"].get(judged)
        by_chance = self.chance(judged, results)
        if estimate is None or estimate["low"] is None or by_chance is None:
            return False
        return estimate["low"] <= by_chance + _ROUNDING


def _is_tested(one: Outcome) -> bool:
    """Whether it counts among the tests of its paper."""
    published = one.claim.published and not one.claim.report and not one.claim.margin
    return published and one.found is not None and not one.reason and one.found["difference"]["p_value"] is not None


def _judged(one: Outcome, p_holm: float | None) -> Outcome:
    if one.found is None or one.claim.report or one.reason:
        return one
    low = one.found["difference"]["low"]
    shown = low is not None and low > -one.claim.margin
    if not one.claim.margin and one.claim.published:
        shown = shown and p_holm is not None and p_holm <= _LEVEL
    return replace(one, p_holm=p_holm, shown=shown)


@dataclass(frozen=True)
class Number:
    """A printed number. ``corrected``: what it should be, with ``why``; ``why`` alone: how its column is read.

    ``system``, ``figure``: what of ours stands beside it; ``claim``: whose outcome it follows; none: ``reason`` says why.
    """

    paper: str
    table: str
    method: str
    group: str
    metric: str
    printed: str
    corrected: str
    why: str
    system: str
    figure: str
    claim: str
    reason: str


def read_numbers(path: Path, plan: Plan) -> list[Number]:
    """The table of the published numbers. Raises `ReproductionError` for one that follows no claim and has no reason."""
    with path.open(encoding="utf-8", newline="") as handle:
        numbers = [Number(**row) for row in csv.DictReader(handle)]
    claims = {claim.id for claim in plan.claims}
    for line, number in enumerate(numbers, start=2):
        if number.claim not in claims and number.reason not in STATUSES:
            msg = f"{path.name}, line {line}: the number follows no claim of the plan and has no reason for it."
            raise ReproductionError(msg)
    return numbers


def status_of(number: Number, found: Sequence[Outcome]) -> str:
    """Exactly one of `STATUSES`: shown on real data where it is, else on a phantom, else what was measured, else why nothing was.

    Where the system was trained too little to answer at all (`UNLEARNED`), its claim was not put to the test: the budget's fault.
    """
    own = [one for one in found if one.claim.id == number.claim]
    if not own:
        return number.reason
    for suite in reversed(SUITES):
        if any(one.shown for one in own if one.suite == suite):
            return SHOWN[suite]
    if any(one.shown is not None for one in own):
        return NOT_SUPPORTED
    return BUDGET if any(one.reason in {BUDGET, UNLEARNED, SAME} for one in own) else NEEDS_GPU


def why_status(number: Number, status: str, found: Sequence[Outcome]) -> str:
    """What is behind a status that says that nothing was shown; empty where something was measured."""
    own = [one for one in found if one.claim.id == number.claim]
    if status == NEEDS_GPU:
        return "; ".join(dict.fromkeys(f"needs {one.needs}" for one in own if one.needs))
    if status == BUDGET and any(one.reason == UNLEARNED for one in own):
        return UNLEARNED
    return ""


@dataclass(frozen=True)
class Ours:
    """A figure of ours beside a printed one, with the table it was measured on and the budget."""

    table: str
    budget: str
    value: Mapping[str, Any]

    def __str__(self) -> str:
        v = self.value
        among = f"n {v['lesions']}, {self.table}"
        low, high = v["low"], v["high"]
        return f"{v['value']:.3f} ({low:.3f}-{high:.3f}), {among}" if low is not None else f"{v['value']:.3f}, {among}"


def ours_beside(number: Number, plan: Plan, results: Results) -> dict[str, Ours]:
    """By suite: the figure of the number's system on the first table of its claim on which it was measured."""
    claim = next((one for one in plan.claims if one.id == number.claim), None)
    found: dict[str, Ours] = {}
    for place in claim.where if claim is not None and number.system in plan.systems else ():
        table = plan.tables[claim.tables(place)[1]]
        kept = kept_figures(number.system, table.name, plan, results)
        if kept is not None and number.figure in kept[1] and kept[1][number.figure]["value"] is not None:
            found.setdefault(table.suite, Ours(table.name, kept[0], kept[1][number.figure]))
    return found


def kept_figures(system: str, table: str, plan: Plan, results: Results) -> tuple[str, Mapping[str, Any]] | None:
    """Budget and figures of a system on a table over all seeds, of the largest budget; None where there are none."""
    for budget in reversed(BUDGETS):
        runs: list[Run] = plan.runs_of(system, table, budget)
        kept = results.read("system", system_key(runs, plan)) if runs else None
        if kept is not None:
            return budget, kept["figures"]
    return None
