"""``training/REPRODUCTION.md``, made of the plan, the published numbers and the results; nothing in it is typed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lesiontraining.reporting.model_card import markdown_table
from lesiontraining.reproduce.outcomes import STATUSES, Number, Outcome, kept_figures, ours_beside, outcomes, status_of
from lesiontraining.reproduce.plan import SUITES, Plan
from lesiontraining.reproduce.runs import Results

_ABOUT_NUMBERS = (
    "A printed number is of the paper's own data and is not reproduced by a figure on other data: what can be found again is the "
    "claim that it stands for, and the status says that. *Ours* is the same figure of the same kind of system, mean over the seeds."
)
_HOW = (
    "A comparison is the mean over {seeds} seeds on the same test lesions, with the 95 % interval of {draws} bootstrap samples that "
    "draw patients and seeds. A published claim is shown where the interval lies above zero (of *as well as*: above minus the "
    "margin) and the p-value, adjusted for all measured claims of its paper (Holm), is at most .05. Where a system of the small "
    "budget itself does no better than chance, it was trained too little to say anything of its claim; it is marked so, and its "
    "printed numbers count as not run."
)
_SMALL = (
    "**The small budget is small**: networks of a sixteenth of the published channels, from random weights, on pictures of 32 to 84 "
    "pixels, for {few} to {many} epochs. That a claim is not supported here means that it is not found at this size; it is no "
    "verdict on the full system. Phantoms and nodules stand for lesions that are private."
)
_COMMAND = "lesiontrain reproduce --suite {suite} --only {claim}"


@dataclass(frozen=True)
class Paper:
    """What is said of a paper: ``name`` in the published numbers, ``title``, ``headline``: the claim it rests on.

    ``shown``, ``not_shown``, ``not_run``: what a user makes of the headline's outcome; ``opposite``: where the control did better
    wherever it was measured.
    """

    name: str
    title: str
    headline: str
    shown: str
    not_shown: str
    opposite: str
    not_run: str


def page(plan: Plan, papers: Sequence[Paper], numbers: Sequence[Number], results: Results) -> str:
    """The whole page."""
    found = outcomes(plan, results)
    statuses = [status_of(number, found) for number in numbers]
    runs = results.all_of("run")
    parts = [
        "# What the five papers claim, and what of it is found here",
        "Made by `lesiontrain reproduce`; nothing here is typed. Research use only, not for diagnosis.",
        *_head(papers, found),
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
        parts += [f"### {paper.title}", _numbers(own, plan, results)]
    return "\n\n".join(parts) + "\n"


def _head(papers: Sequence[Paper], found: Sequence[Outcome]) -> list[str]:
    lines = []
    for paper in papers:
        own = [one for one in found if one.claim.paper == paper.name and one.claim.published and not one.claim.report]
        headline = [one for one in own if one.claim.id == paper.headline]
        measured = [one for one in own if one.shown is not None]
        shown = [one for one in measured if one.shown]
        lines.append(f"**{paper.title}.** {_outcome_in_words(headline)} {_advice(paper, headline)}")
        if measured:
            claims, tried = (len({one.claim.id for one in some}) for some in (own, measured))
            lines[-1] += (
                f" Of its {claims} claims measured so far: {tried}, in {len(measured)} comparisons; held up: {len(shown)}"
            )
            lines[-1] += f" ({', '.join(f'{o.claim.says} ({o.place})' for o in shown)})." if shown else "."
    return lines


def _outcome_in_words(headline: Sequence[Outcome]) -> str:
    if not headline:
        return "Its main claim has no test here."
    says = headline[0].claim.says
    words = []
    for one in headline:
        if one.reason:
            words.append(f"{one.reason} on {one.place}")
        else:
            d = one.found["difference"]
            words.append(f"{_verdict(one)} on {one.place} ({_difference(d)}, n {d['lesions']})")
    return f"Its main claim, that {says}: {'; '.join(words)}."


_WEAK = "Its control learned nothing at this budget: that says which of them learns sooner, not yet which is better in the end."


def _verdict(one: Outcome) -> str:
    if one.shown:
        return "held up, beside a control no better than chance," if one.weak_control else "held up"
    return "did not hold up, its control did better," if _is_opposite(one) else "did not hold up"


def _is_opposite(one: Outcome) -> bool:
    return one.found is not None and one.found["difference"]["high"] < 0


def _advice(paper: Paper, headline: Sequence[Outcome]) -> str:
    measured = [one for one in headline if one.shown is not None]
    if not measured:
        return paper.not_run
    if any(one.shown for one in measured):
        weak = all(one.weak_control for one in measured if one.shown)
        return f"{paper.shown} {_WEAK}" if weak else paper.shown
    return paper.opposite if all(map(_is_opposite, measured)) else paper.not_shown


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


def _claims(found: Sequence[Outcome]) -> str:
    rows = []
    for one in (one for one in found if one.claim.published and not one.claim.report):
        measured = _measured(one)
        p = "" if one.p_holm is None else f"{one.p_holm:.3f}"
        verdict = one.reason if one.shown is None else "shown" if one.shown else "not supported"
        verdict += "; its control is at chance" if one.shown and one.weak_control else ""
        rows.append([one.claim.id, one.claim.says, one.place, *measured, p, verdict])
    heads = [
        "claim",
        "it says",
        "on",
        "figure",
        "it",
        "its control",
        "difference, 95 %",
        "n (patients)",
        "p, Holm",
        "outcome",
    ]
    return markdown_table(heads, rows)


def _controls(found: Sequence[Outcome]) -> str:
    rows = []
    for one in (one for one in found if not one.claim.published):
        verdict = one.reason or ("reported" if one.claim.report else "yes" if one.shown else "no")
        rows.append([one.claim.id, one.claim.says, one.place, *_measured(one), verdict])
    heads = [
        "comparison",
        "is it so that",
        "on",
        "figure",
        "it",
        "the other",
        "difference, 95 %",
        "n (patients)",
        "outcome",
    ]
    return markdown_table(heads, rows)


def _measured(one: Outcome) -> list[str]:
    if one.found is None:
        return [one.claim.figure.replace("_", " "), "", "", "", ""]
    d = one.found["difference"]
    first, second = _estimate(one.found["first"]), _estimate(one.found["second"])
    return [one.claim.figure.replace("_", " "), first, second, _difference(d), f"{d['lesions']} ({d['patients']})"]


def _systems(plan: Plan, results: Results) -> str:
    shown = ("balanced_accuracy", "auc", "mAP@10, cross", "localised")
    rows = []
    for name, system in plan.systems.items():
        for table in plan.tables:
            kept = kept_figures(name, table, plan, results)
            if kept is not None:
                figures = [
                    _estimate(kept[1][f]) if f in kept[1] and kept[1][f]["value"] is not None else "" for f in shown
                ]
                rows.append([name, system.says, table, kept[0], *figures])
    heads = ["system", "what it is", "on", "budget", *(figure.replace("_", " ") for figure in shown)]
    return markdown_table(heads, rows) if rows else "None is finished yet."


def _numbers(own: Sequence[tuple[Number, str]], plan: Plan, results: Results) -> str:
    rows = []
    for number, status in own:
        ours = ours_beside(number, plan, results)
        claim = next((one for one in plan.claims if one.id == number.claim), None)
        suites = dict.fromkeys(plan.tables[claim.tables(place)[0]].suite for place in claim.where) if claim else {}
        commands = "; ".join(f"`{_COMMAND.format(suite=suite, claim=claim.id)}`" for suite in suites)
        corrected = " ".join(filter(None, [number.corrected, f"({number.why})" if number.why else ""]))
        rows.append(
            [number.table, number.method, number.group, number.metric, number.printed, corrected,
             *(str(ours[suite]) if suite in ours else "" for suite in SUITES), status, number.claim, commands]
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
        "claim",
        "command",
    ]
    return markdown_table(heads, rows)
