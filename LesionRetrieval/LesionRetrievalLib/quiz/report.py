"""The summary of a quiz as one self-contained page, from the templates beside this file: nothing fetched, nothing run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from .attribute_lines import attribute_pairs
from .case_pictures import case_pictures
from .quiz_attempt import CASE_STEPS
from .quiz_model import Quiz
from .quiz_png import png_data_uri
from .quiz_schema import NOTICE
from .quiz_score import Change
from .quiz_summary import Side, Summary

if TYPE_CHECKING:
    from jinja2 import Environment

PAGE_REQUIREMENT = "jinja2>=3.1.4"

_TEMPLATES = Path(__file__).resolve().parent / "templates"
_SHOWN_ATTRIBUTES = 6
_MOST_ROWS_OF_A_CHART = 40  # a class; beyond that the table says it better
_BOXES = {
    "given": "given by the teacher",
    "placed": "placed by the learners",
    "free": "given or placed, as the learner liked",
}
_CHANGE_COLORS = {
    Change.STAYED_RIGHT: "#2f8f5b",
    Change.WRONG_TO_RIGHT: "#8fd0a5",
    Change.RIGHT_TO_WRONG: "#f2a65a",
    Change.WRONG_TO_WRONG: "#d9b4b4",
    Change.STAYED_WRONG: "#b0433f",
}
_STEP_COLORS = dict(
    zip(CASE_STEPS, ("#16324f", "#2a6f97", "#61a5c2", "#c96f00", "#f2a65a", "#b8c0ca"), strict=True),
)


def page_can_be_made() -> bool:
    """Whether `PAGE_REQUIREMENT` is installed: a learner's Slicer may lack it."""
    try:
        import jinja2  # noqa: F401
    except ImportError:
        return False
    return True


def summary_page(quiz: Quiz, summary: Summary) -> str:
    """The page as text. Needs jinja2, see `page_can_be_made`."""
    shown = list(summary.learners)
    if len(shown) > 1:
        shown = [summary.everyone, *shown[:_MOST_ROWS_OF_A_CHART]]
    by_case = {group.name: group for group in summary.cases}
    return (
        _environment()
        .get_template("quiz_summary.html.j2")
        .render(
            quiz=quiz,
            summary=summary,
            shown=shown,
            boxes=_BOXES[quiz.boxes],
            notice=NOTICE,
            change_colors=_CHANGE_COLORS,
            step_colors=_STEP_COLORS,
            ticks=_round_ticks(max(sum(group.median_seconds.values()) for group in shown) or 1.0),
            confusion=lambda side: _confusion(side, quiz),
            cases=[
                {
                    "case": case,
                    "group": by_case.get(case.case_id),
                    "picture": png_data_uri(case_pictures(case.volume, case.box, window_hu=quiz.window_hu)["axial"]),
                    "attributes": ", ".join(
                        f"{name} {text}" for name, text in attribute_pairs(case.known.attributes)[:_SHOWN_ATTRIBUTES]
                    ),
                }
                for case in quiz.cases
            ],
        )
    )


def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    # Every template is a part of a page, whatever its name ends in: all of them escape.
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = "{:.0%}".format
    return environment


def _confusion(side: Side, quiz: Quiz) -> list[tuple[str, dict[str, int]]]:
    """Each true class with how often every class was the answer."""
    names = quiz.class_names
    return [(truth, {answer: side.confusion.get((truth, answer), 0) for answer in names}) for truth in names]


def _round_ticks(highest: float) -> list[float]:
    """From 0 to at least ``highest`` in 3 to 6 steps of 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(highest))
    step = next(power * part for part in (0.2, 0.5, 1, 2, 5) if highest <= 5 * power * part)
    return [step * count for count in range(math.ceil(highest / step) + 1)]
