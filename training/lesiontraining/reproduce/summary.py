"""The head of the page, for whoever uses a classifier and not for whoever trains one: what held up, what did not, what to choose.

Every sentence follows from the outcomes; what is advised for each of them stands in ``papers.yaml``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lesiontraining.reporting.model_card import markdown_table
from lesiontraining.reproduce.outcomes import NEEDS_GPU, SAME, UNLEARNED, Outcome
from lesiontraining.reproduce.plan import BUDGETS

_KINDS = {"phantom": "computed", "real": "real"}
# What a figure says, for one who does not know its name.
_FIGURES = {
    "balanced_accuracy": "the share of each kind of lesion that is named right, averaged over the kinds (balanced accuracy)",
    "accuracy": "the share of lesions named right (accuracy)",
    "auc": "how surely the two kinds are told apart; .5 is guessing, 1 is always (AUC)",
    "localised": "the share of lesions that the heat map lies on",
    "MAP": "how far up a search brings lesions of the same kind; 1 is all of them on top (MAP)",
    "mAP@10": "how far up a search brings lesions of the same kind among its first ten; 1 is all of them on top (mAP@10)",
}
_WEAK = (
    "But the other method learned nothing with this little training. So it is shown which of the two learns sooner, not which is "
    "better in the end."
)
_FEW = (
    "All networks here are small and were trained for minutes, from random weights. A *no* means that the advantage was not seen at "
    "this size. It does not mean that the published system is bad."
)
_ABOUT = (
    "Five papers each say that their method does better than others. All five methods are in LesionLens. We tried them beside those "
    "others: on computed lesions whose truth is known, on lung nodules in real CTs, and on real photographs of the retina. "
    "The papers' own images are private or too many; none of them was used."
)


@dataclass(frozen=True)
class Paper:
    """What is said of a paper: ``name`` in the published numbers, ``title``, ``task``: what it is for, ``headline``: the claim it
    rests on, ``claims``: that claim in plain words.

    ``shown``, ``not_shown``, ``not_run``: what a user makes of the headline's outcome; ``opposite``: where the control did better
    wherever it was measured.
    """

    name: str
    title: str
    task: str
    headline: str
    claims: str
    shown: str
    not_shown: str
    opposite: str
    not_run: str


def summary(papers: Sequence[Paper], found: Sequence[Outcome]) -> list[str]:
    """The parts of the head: the sum of it, a row a paper, then each paper with its figures."""
    published = [one for one in found if one.claim.published and not one.claim.report]
    rows = []
    for paper in papers:
        headline = _headline(paper, published)
        rows.append([paper.task, paper.claims, _answers(headline), advice(paper, headline)])
    parts = [
        *_sums(published),
        *([_FEW] if all(one.found["budget"] == BUDGETS[0] for one in found if one.found is not None) else []),
        markdown_table(["what it is for", "what its paper claims", "did it hold up here?", "what to choose"], rows),
    ]
    for paper in papers:
        own = [one for one in published if one.claim.paper == paper.name]
        parts += [f"### {paper.title}", _paper(paper, own)]
    checks = _own_checks(found)
    return [*parts, *(["### Our own checks", checks] if checks else [])]


def _sums(published: Sequence[Outcome]) -> list[str]:
    """How many claims held up, did not, could not be judged or were not tried; a claim counts once, by the best of its tables."""
    claims: dict[str, list[Outcome]] = {}
    for one in published:
        claims.setdefault(one.claim.id, []).append(one)
    shown = sum(any(one.shown for one in of) for of in claims.values())
    judged = sum(any(one.shown is not None for one in of) for of in claims.values())
    unlearned = sum(
        not any(one.shown is not None for one in of) and any(one.reason == UNLEARNED for one in of)
        for of in claims.values()
    )
    untried = len(claims) - judged - unlearned
    counted = (
        f"The papers make {len(claims)} claims that can be tried here. **{judged} were judged: {shown} held up on at least one set "
        f"of lesions, {judged - shown} did not.** In {unlearned} more the network learned too little to be judged. {untried} were "
        "not tried yet."
    )
    return [_ABOUT, counted]


def _headline(paper: Paper, found: Sequence[Outcome]) -> list[Outcome]:
    return [one for one in found if one.claim.id == paper.headline]


def _answers(headline: Sequence[Outcome]) -> str:
    """Answers, each with the sets of lesions it was found on."""
    on: dict[str, list[str]] = {}
    for one in headline:
        on.setdefault(answer(one), []).append(one.place)
    return "; ".join(f"{said} ({', '.join(places)})" for said, places in on.items())


def answer(one: Outcome) -> str:
    """Of a published claim on a table, in a word or two."""
    if one.reason == UNLEARNED:
        return "cannot be said, it learned too little"
    if one.reason == SAME:
        return "not tried, it is the same as its control here"
    if one.reason == NEEDS_GPU:
        return f"not tried, it needs {one.needs}"
    if one.shown is None:
        return "not tried yet"
    if one.shown:
        return "yes, but the other learned nothing" if one.weak_control else "yes"
    return "no, the other did better" if is_opposite(one) else "no"


def is_opposite(one: Outcome) -> bool:
    """Whether the whole interval lies on the control's side."""
    return one.found is not None and one.found["difference"]["high"] < 0


def advice(paper: Paper, headline: Sequence[Outcome]) -> str:
    """What to choose, by the headline's outcomes."""
    measured = [one for one in headline if one.shown is not None]
    if not measured:
        return paper.not_run
    if any(one.shown for one in measured):
        weak = all(one.weak_control for one in measured if one.shown)
        return f"{paper.shown} {_WEAK}" if weak else paper.shown
    return paper.opposite if all(map(is_opposite, measured)) else paper.not_shown


def _paper(paper: Paper, own: Sequence[Outcome]) -> str:
    """The headline with its figures, and which of the paper's other claims held up."""
    headline = _headline(paper, own)
    lines = [f"Its main claim ({paper.headline}) is that {paper.claims}.", ""]
    if headline:
        lines[:1] = [f"{lines[0]} Measured is {_what(headline[0].claim.figure)}."]
    lines += [f"- On {_place(one)}: **{answer(one)}**.{_figures(one)}" for one in headline]
    others = [one for one in own if one.claim.id != paper.headline and one.shown is not None]
    for said, those in (
        ("Also held up", [one for one in others if one.shown]),
        ("Did not hold up", [one for one in others if not one.shown]),
    ):
        if those:
            lines += ["", f"{said}: {'; '.join(_named(those))}."]
    return "\n".join(lines)


def _named(some: Sequence[Outcome]) -> list[str]:
    """Claims with the sets of lesions, each claim once; where the other did better or learned nothing, that beside it."""
    on: dict[str, list[str]] = {}
    for one in some:
        beside = ", where the other did better" if is_opposite(one) else ""
        beside = ", where the other learned nothing" if one.shown and one.weak_control else beside
        on.setdefault(one.claim.says, []).append(f"{_place(one)}{beside}")
    return [f"{says} ({'; '.join(places)})" for says, places in on.items()]


def _place(one: Outcome) -> str:
    return f"{one.place}, {_KINDS[one.suite]}"


def _figures(one: Outcome) -> str:
    """Of a measured one: either side, the difference and its interval, and what the figure is."""
    if one.found is None or one.reason == SAME:
        return ""
    first, second, d = (one.found[name] for name in ("first", "second", "difference"))
    said = f" It reached {first['value']:.2f}, its control {second['value']:.2f}"
    said += f"; guessing reaches {one.chance[0]:.2f}." if one.chance[0] is not None else "."
    if d["low"] is not None:
        said += f" Difference {d['value']:+.2f}, 95 % interval {d['low']:+.2f} to {d['high']:+.2f}"
    return f"{said}, {d['lesions']} lesions of {d['patients']} patients."


def _what(figure: str) -> str:
    return _FIGURES.get(figure.partition(",")[0], figure.replace("_", " "))


def _own_checks(found: Sequence[Outcome]) -> str:
    """What was only asked for its size, and our own comparisons, where they were measured and say something."""
    lines = []
    for one in found:
        if one.found is None or one.claim.published or one.reason:
            continue
        d: Mapping[str, Any] = one.found["difference"]
        if one.claim.report:
            lines.append(
                f"- {one.claim.says[0].upper()}{one.claim.says[1:]} ({one.place}): {d['value']:+.2f}{_interval(d)}."
            )
        else:
            said = "yes" if one.shown else "no, the other did better" if is_opposite(one) else "no"
            lines.append(
                f"- Is it so that {one.claim.says} ({_place(one)})? {said[0].upper()}{said[1:]}: {d['value']:+.2f}{_interval(d)}."
            )
    return "\n".join(lines)


def _interval(d: Mapping[str, Any]) -> str:
    return "" if d["low"] is None else f" ({d['low']:+.2f} to {d['high']:+.2f})"
