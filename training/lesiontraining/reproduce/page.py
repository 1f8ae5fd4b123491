"""``training/REPRODUCTION.md``, made of the plan, the published numbers and the results; nothing in it is typed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from lesiontraining.reporting.model_card import markdown_table
from lesiontraining.reproduce.outcomes import (
    SAME,
    STATUSES,
    Number,
    Outcome,
    kept_figures,
    ours_beside,
    outcomes,
    status_of,
    why_status,
)
from lesiontraining.reproduce.plan import SUITES, Plan
from lesiontraining.reproduce.runs import Results
from lesiontraining.reproduce.summary import Paper, is_opposite, summary

_ABOUT_NUMBERS = (
    "A printed number is of the paper's own data and is not reproduced by a figure on other data: what can be found again is the "
    "claim that it stands for, and the status says that. *Ours* is the same figure of the same kind of system, mean over the seeds."
)
_HOW = (
    "A comparison is the mean over {seeds} seeds on the same test lesions, with the 95 % interval of {draws} bootstrap samples that "
    "draw patients and seeds. A published claim is shown where the interval lies above zero (of *as well as*: above minus the "
    "margin) and the p-value, adjusted for all measured claims of its paper (Holm), is at most .05."
)
_CHANCE = (
    "Where a system of the small budget itself does no better than chance, it was trained too little to say anything of its claim; "
    "it is marked so, and its printed numbers count as not run. Chance is computed of the test lesions: one over the number of "
    "classes for balanced accuracy, .5 for AUC, and for a search (MAP, mAP@10) what a random order of the same lesions scores on "
    "average. A system is at chance where its 95 % interval reaches down to that; a share of right answers (accuracy) is judged by "
    "the balanced accuracy of the same answers, for the largest class alone can make it look high."
)
_SAME = (
    "Systems that differ as published may have the same settings at the small budget; a comparison that comes to the same runs as an "
    "earlier one is marked as the same and shows no figures."
)
_SMALL = (
    "**The small budget is small**: networks of a sixteenth of the published channels, from random weights, on pictures of 32 to 84 "
    "pixels, for {few} to {many} epochs. That a claim is not supported here means that it is not found at this size; it is no "
    "verdict on the full system. Phantoms and nodules stand for lesions that are private."
)
_COMMAND = "lesiontrain reproduce --suite {suite} --only {claim}"


def page(plan: Plan, papers: Sequence[Paper], numbers: Sequence[Number], results: Results) -> str:
    """The whole page."""
    found = outcomes(plan, results)
    statuses = [status_of(number, found) for number in numbers]
    runs = results.all_of("run")
    parts = [
        "# What the five papers claim, and what of it is found here",
        "Made by `lesiontrain reproduce`; nothing here is typed. Research use only, not for diagnosis.",
        "## In short: what held up, and what to choose",
        *summary(papers, found),
        "## What was measured, and how",
        *_method(plan, runs),
        "### Printed numbers by status",
        _counts(papers, numbers, statuses),
        "## The claims",
        _claims(found),
        "### Comparisons that are ours",
        _controls(found),
        "## The systems, over all seeds",
        _systems(plan, results),
        "## Every printed number",
        _ABOUT_NUMBERS,
    ]
    for paper in papers:
        own = [(n, s) for n, s in zip(numbers, statuses, strict=True) if n.paper == paper.name]
        parts += [f"### {paper.title}", _numbers(own, plan, results, found)]
    return "\n\n".join(parts) + "\n"


def _method(plan: Plan, runs: Sequence[Mapping[str, Any]]) -> list[str]:
    budgets = Counter(one["budget"] for one in runs)
    hours = sum(one["seconds"] for one in runs) / 3600
    made = ", ".join(f"{count} of the {budget} budget" for budget, count in sorted(budgets.items())) or "none"
    rows = [[name, table.suite, table.says] for name, table in plan.tables.items()]
    asked = [of.small["options"] for of in plan.systems.values() if "options" in of.small]
    epochs = [options["trainer.max_epochs"] for options in asked if "trainer.max_epochs" in options]
    return [
        f"Runs so far: {made}; {hours:.1f} hours of CPU.",
        _HOW.format(seeds=len(plan.seeds), draws=plan.draws),
        _CHANCE,
        _SAME,
        _SMALL.format(few=min(epochs), many=max(epochs)),
        markdown_table(["set of lesions", "suite", "what it is"], rows),
    ]


def _counts(papers: Sequence[Paper], numbers: Sequence[Number], statuses: Sequence[str]) -> str:
    of = Counter((number.paper, status) for number, status in zip(numbers, statuses, strict=True))
    rows = [
        [status, *(str(of[paper.name, status]) for paper in papers), str(sum(of[p.name, status] for p in papers))]
        for status in STATUSES
    ]
    total = ["all", *(str(sum(of[p.name, s] for s in STATUSES)) for p in papers), str(len(numbers))]
    return markdown_table(["status", *(paper.name for paper in papers), "all"], [*rows, total])


def _difference(d: Mapping[str, Any]) -> str:
    if d["low"] is None:
        return f"{d['value']:+.3f}"
    return f"{d['value']:+.3f}, {d['low']:+.3f} to {d['high']:+.3f}"


def _estimate(e: Mapping[str, Any]) -> str:
    return f"{e['value']:.3f} ({e['low']:.3f}-{e['high']:.3f})" if e["low"] is not None else f"{e['value']:.3f}"


_MEASURED = ("figure", "by chance", "it", "its control", "difference, 95 %", "n (patients)")


def _claims(found: Sequence[Outcome]) -> str:
    rows = []
    for one in (one for one in found if one.claim.published and not one.claim.report):
        p = "" if one.p_holm is None else f"{one.p_holm:.3f}"
        verdict = _not_judged(one) or ("shown" if one.shown else "not supported")
        verdict += "; its control is at chance" if one.shown and one.weak_control else ""
        verdict += "; its control did better" if one.shown is False and is_opposite(one) else ""
        rows.append([one.claim.id, one.claim.says, one.place, *_measured(one), p, verdict])
    return markdown_table(["claim", "it says", "on", *_MEASURED, "p, Holm", "outcome"], rows)


def _controls(found: Sequence[Outcome]) -> str:
    rows = []
    for one in (one for one in found if not one.claim.published):
        verdict = _not_judged(one) or ("reported" if one.claim.report else "yes" if one.shown else "no")
        rows.append([one.claim.id, one.claim.says, one.place, *_measured(one), verdict])
    return markdown_table(["comparison", "is it so that", "on", *_MEASURED, "outcome"], rows)


def _not_judged(one: Outcome) -> str:
    """Why a comparison says nothing; empty where it says something."""
    if one.reason == SAME:
        return f"{SAME} as {'its control' if one.same_as == one.claim.id else one.same_as}"
    return f"{one.reason} ({one.needs})" if one.needs else one.reason


def _measured(one: Outcome) -> list[str]:
    figure = one.claim.figure.replace("_", " ")
    if one.found is None or one.reason == SAME:
        return [figure, "", "", "", "", ""]
    d, levels = one.found["difference"], dict.fromkeys(f"{level:.3f}" for level in one.chance if level is not None)
    first, second = _estimate(one.found["first"]), _estimate(one.found["second"])
    return [figure, ", ".join(levels), first, second, _difference(d), f"{d['lesions']} ({d['patients']})"]


def _systems(plan: Plan, results: Results) -> str:
    shown = ("balanced_accuracy", "auc", "mAP@10, cross", "localised")
    rows, seen = [], {}
    for name, system in plan.systems.items():
        for table in plan.tables:
            kept = kept_figures(name, table, plan, results)
            runs = () if kept is None else tuple(run.hash for run in plan.runs_of(name, table, kept[0]))
            if runs in seen:
                rows.append([name, system.says, table, kept[0], f"{SAME} as {seen[runs]}", *("" for _ in shown[1:])])
            elif kept is not None:
                seen[runs] = name
                figures = [
                    _estimate(kept[1][f]) if f in kept[1] and kept[1][f]["value"] is not None else "" for f in shown
                ]
                rows.append([name, system.says, table, kept[0], *figures])
    heads = ["system", "what it is", "on", "budget", *(figure.replace("_", " ") for figure in shown)]
    return markdown_table(heads, rows) if rows else "None is finished yet."


def _numbers(own: Sequence[tuple[Number, str]], plan: Plan, results: Results, found: Sequence[Outcome]) -> str:
    rows = []
    for number, status in own:
        why = why_status(number, status, found)
        ours = ours_beside(number, plan, results)
        claim = next((one for one in plan.claims if one.id == number.claim), None)
        suites = dict.fromkeys(plan.tables[claim.tables(place)[0]].suite for place in claim.where) if claim else {}
        commands = "; ".join(f"`{_COMMAND.format(suite=suite, claim=claim.id)}`" for suite in suites)
        corrected = " ".join(filter(None, [number.corrected, f"({number.why})" if number.why else ""]))
        rows.append(
            [number.table, number.method, number.group, number.metric, number.printed, corrected,
             *(str(ours[suite]) if suite in ours else "" for suite in SUITES), status, why, number.claim, commands]
        )  # fmt: skip
    heads = [
        "table",
        "method",
        "group",
        "metric",
        "printed",
        "corrected",
        "ours, phantom",
        "ours, real data",
        "status",
        "because",
        "claim",
        "command",
    ]
    return markdown_table(heads, rows)
