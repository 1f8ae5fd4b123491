"""The summary of a quiz as one self-contained page: text made here, nothing fetched, nothing run, all of it escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from LesionLib.proportion import Proportion

from . import quiz_charts as charts
from .case_pictures import case_pictures
from .quiz_attempt import CASE_STEPS
from .quiz_model import KnownTruth, Quiz, QuizCase
from .quiz_page_style import STYLE
from .quiz_png import png_data_uri
from .quiz_schema import NOTICE
from .quiz_summary import Group, Side, Summary

_SHOWN_ATTRIBUTES = 6
_MOST_ROWS_OF_A_CHART = 40  # a class; beyond that the table says it better
_BOXES = {
    "given": "given by the teacher",
    "placed": "placed by the learners",
    "free": "given or placed, as the learner liked",
}
_RIGHT, _WRONG = "#2a7a4e", "#b0433f"
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def summary_page(quiz: Quiz, summary: Summary) -> str:
    """The page as text."""
    shown = list(summary.learners)
    if len(shown) > 1:
        shown = [summary.everyone, *shown[:_MOST_ROWS_OF_A_CHART]]
    sections = [
        _facts(quiz, summary),
        _section("Right answers", _right_answers(summary.everyone, shown)),
        _section("What seeing the model's answer did", _influence(summary.everyone, shown)),
        _section("Is stated confidence worth what it says?", _confidence(summary.everyone)),
        _section("Confusion", _two(_confusion, summary.everyone, quiz)),
        _section("Time for a case", _time(shown)),
        _section("Learners", _learners(summary)),
        _section("Cases", _cases(quiz, summary)),
    ]
    title, body = escape(quiz.title), "\n".join(sections)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>LesionLens quiz: {title}</title>
<style>{STYLE}</style>
</head>
<body>
<header><div><h1>{title}</h1><p>{_subtitle(summary)}</p></div></header>
<div class="notice">{escape(NOTICE)}</div>
<main>
{body}
<footer>{escape(NOTICE)} Intervals are Wilson's and take all answers to be independent, which answers of one learner, or to
one case, are not: they are too narrow for more than one learner. The sheet with every answer is score.csv.</footer>
</main>
</body>
</html>
"""


def _subtitle(summary: Summary) -> str:
    who = f"What {escape(summary.learners[0].name)}" if len(summary.learners) == 1 else "What the class"
    return f"{who} made of it, before and after seeing what the model says"


def _section(title: str, content: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n{content}\n</section>"


def _facts(quiz: Quiz, summary: Summary) -> str:
    learners = f"{len(summary.learners)}, with {summary.everyone.n} answered cases"
    if summary.unfinished:
        learners += "; not finished: " + ", ".join(f"{name} ({left} left)" for name, left in summary.unfinished.items())
    name, version, sha256 = quiz.model
    facts = {
        "Cases": f"{len(quiz.cases)}; boxes {_BOXES[quiz.boxes]}",
        "Learners": learners,
        "Model": f"{name} {version}, SHA-256 {sha256}",
    }
    lines = "".join(f"<dt>{escape(what)}</dt><dd>{escape(text)}</dd>" for what, text in facts.items())
    return f'<dl class="facts">{lines}</dl>'


def _right_answers(everyone: Group, shown: Sequence[Group]) -> str:
    figures = "".join(
        f'<div class="figure" style="border-color:{color}"><b>{share.value:.0%}</b>{what}<br>'
        f"<span>{share.hits} of {share.n}; 95% interval {share.low:.0%} to {share.high:.0%}</span></div>"
        for what, share, color in (
            ("before the reveal", everyone.before.right, charts.BEFORE),
            ("after the reveal", everyone.after.right, charts.AFTER),
            ("the model", everyone.ai, charts.MODEL),
        )
    )
    key = [
        ("before the reveal", charts.BEFORE),
        ("after the reveal", charts.AFTER),
        ("the model, on the cases that this learner answered", charts.MODEL),
    ]
    return f'<div class="three">{figures}</div><h3>By learner</h3>{charts.accuracy_chart(shown)}{_key(key)}'


def _influence(everyone: Group, shown: Sequence[Group]) -> str:
    key = [(f"{change.value}: {everyone.changes[change]}", color) for change, color in charts.CHANGE_COLORS.items()]
    rows = [
        ("Agreed with the model before the reveal", _share(everyone.before.agreed_with_ai)),
        ("Agreed with the model after the reveal", _share(everyone.after.agreed_with_ai)),
        ("Differed from the model where it was right, and took its answer over", _share(everyone.followed_right)),
        ("Differed from the model where it was wrong, and took its answer over", _share(everyone.followed_wrong)),
    ]
    return charts.change_chart(shown) + _key(key) + _table([], rows)


def _confidence(everyone: Group) -> str:
    before, after = everyone.before.calibration, everyone.after.calibration
    drawn = "".join(
        f"<div><h3>{what.capitalize()}</h3>{charts.calibration_chart(side, color, what)}</div>"
        for what, side, color in (
            ("before the reveal", before, charts.BEFORE),
            ("after the reveal", after, charts.AFTER),
        )
    )
    rows = [
        ("Expected calibration error (0 is perfect)", f"{before.ece:.3f}", f"{after.ece:.3f}"),
        ("Brier score of the confidence (0 is perfect)", f"{before.brier:.3f}", f"{after.brier:.3f}"),
        (
            "Mean confidence minus share right (above 0: too sure)",
            f"{before.overconfidence:+.3f}",
            f"{after.overconfidence:+.3f}",
        ),
    ]
    return f'<div class="two">{drawn}</div>' + _table(["", "before", "after"], rows)


def _two(draw, everyone: Group, quiz: Quiz) -> str:
    sides = (("Before the reveal", everyone.before), ("After the reveal", everyone.after))
    return (
        '<div class="two">'
        + "".join(f"<div><h3>{what}</h3>{draw(side, quiz)}</div>" for what, side in sides)
        + "</div>"
    )


def _confusion(side: Side, quiz: Quiz) -> str:
    """One row a true class; each count shaded by its share of the row."""
    rows = []
    for truth in quiz.class_names:
        counts = [side.confusion.get((truth, answer), 0) for answer in quiz.class_names]
        cells = "".join(
            f'<td style="background:rgba({"47,143,91" if answer == truth else "176,67,63"},{0.75 * n / (sum(counts) or 1):.2f})">'
            f"{n}</td>"
            for n, answer in zip(counts, quiz.class_names, strict=True)
        )
        rows.append(f"<tr><th>{escape(truth)}</th>{cells}</tr>")
    head = "".join(f"<th>{escape(name)}</th>" for name in quiz.class_names)
    return (
        f'<table class="confusion"><thead><tr><th>truth \\ answer</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _time(shown: Sequence[Group]) -> str:
    key = [(step.value, charts.STEP_COLORS[step]) for step in CASE_STEPS]
    said = '<p class="soft">Medians; time while the quiz was paused or closed does not count.</p>'
    return charts.time_chart(shown) + _key(key) + said


def _learners(summary: Summary) -> str:
    head = ["learner", "cases", "right before", "right after", "Brier before / after", "median time"]
    placed = summary.everyone.median_overlap is not None
    rows = []
    for one in summary.learners:
        brier = f"{one.before.calibration.brier:.3f} / {one.after.calibration.brier:.3f}"
        row = [escape(one.name), str(one.n), _short_share(one.before.right), _short_share(one.after.right), brier]
        row.append(f"{one.median_total:.0f} s")
        if placed:
            row.append("-" if one.median_overlap is None else f"{one.median_overlap:.2f}")
        rows.append(row)
    return _table([*head, *(["box overlap"] if placed else [])], rows)


def _cases(quiz: Quiz, summary: Summary) -> str:
    head = ["", "case", "what it is", "the model says", "right before", "right after", "median time"]
    by_case = {group.name: group for group in summary.cases}
    lines = "".join(_case(quiz, case, by_case.get(case.case_id)) for case in quiz.cases)
    return f'<table class="case"><thead>{_row(head, "th")}</thead><tbody>{lines}</tbody></table>'


def _case(quiz: Quiz, case: QuizCase, group: Group | None) -> str:
    known, answer = case.known, case.answer
    picture = png_data_uri(case_pictures(case.volume, case.box, window_hu=quiz.window_hu)["axial"])
    is_right, attributes = answer.label == known.label, _attributes(known)
    source = escape(known.label_source) + (f"<br>{escape(attributes)}" if attributes else "")
    said = f"{escape(answer.label)} {answer.probabilities[answer.label]:.2f}<br>{'right' if is_right else 'wrong'}"
    done = '<td colspan="3" class="soft">not answered yet</td>'
    if group is not None:
        right = [f"{side.right.hits} of {group.n}" for side in (group.before, group.after)]
        done = f"<td>{right[0]}</td><td>{right[1]}</td><td>{group.median_total:.0f} s</td>"
    return (
        f'<tr><td><img src="{picture}" alt="Axial picture of {escape(case.case_id)}"></td>'
        f'<td style="white-space:nowrap">{escape(case.case_id)}</td>'
        f'<td><b>{escape(known.label)}</b><br><span class="soft">{source}</span></td>'
        f'<td style="color:{_RIGHT if is_right else _WRONG}">{said}</td>{done}</tr>'
    )


def _attributes(known: KnownTruth) -> str:
    shown = [
        f"{name.replace('_', ' ')} {value:g}" if isinstance(value, float) else f"{name.replace('_', ' ')} {value}"
        for name, value in known.attributes.items()
        if value is not None
    ]
    return ", ".join(shown[:_SHOWN_ATTRIBUTES])


def _share(share: Proportion | None) -> str:
    """``67% (8 of 12; 39% to 86%)``."""
    if share is None:
        return "-"
    return f"{share.value:.0%} ({share.hits} of {share.n}; {share.low:.0%} to {share.high:.0%})"


def _short_share(share: Proportion) -> str:
    interval = f'<br><span class="soft">{share.low:.0%} to {share.high:.0%}</span>'
    return f"{share.value:.0%} ({share.hits} of {share.n}){interval}"


def _key(entries: Iterable[tuple[str, str]]) -> str:
    items = "".join(f'<li><i style="background:{color}"></i>{escape(what)}</li>' for what, color in entries)
    return f'<ul class="key">{items}</ul>'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """``rows``: cells as HTML, escaped by who made them."""
    top = f"<thead>{_row(head, 'th')}</thead>" if head else ""
    return f"<table>{top}<tbody>{''.join(_row(row, 'td') for row in rows)}</tbody></table>"


def _row(cells: Sequence[str], kind: str) -> str:
    return "<tr>" + "".join(f"<{kind}>{cell}</{kind}>" for cell in cells) + "</tr>"
