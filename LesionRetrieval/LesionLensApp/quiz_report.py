"""The score of a quiz: ``score.csv`` and one self-contained page."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from LesionLib.errors import OutputError
from LesionLib.proportion import Proportion
from LesionRetrievalLib.case_pictures import case_pictures
from LesionRetrievalLib.quiz_attempt import CASE_STEPS
from LesionRetrievalLib.quiz_model import KnownTruth, Quiz, QuizCase
from LesionRetrievalLib.quiz_score import ScoreRow, score_csv
from LesionRetrievalLib.quiz_summary import Group, Side, Summary

from . import quiz_charts
from .console import NOTICE
from .output_folder import check_output
from .report_pictures import png_data_uri

SHEET, PAGE = "score.csv", "summary.html"
_TEMPLATES = Path(__file__).resolve().parent / "templates"
_SHOWN_ATTRIBUTES = 6
_MOST_ROWS_OF_A_CHART = 40  # a class; beyond that the table says it better


@dataclass(frozen=True)
class CaseLine:
    """One case on the page: its picture, what it is, and how the class did."""

    case: QuizCase
    picture: str
    attributes: str
    group: Group | None


def write_score(
    out: Path, quiz: Quiz, rows: Sequence[ScoreRow], summary: Summary | None, *, overwrite: bool = False
) -> None:
    """Write ``score.csv`` and, where somebody has answered, ``summary.html`` to the folder ``out``.

    Other files in ``out`` stay as they are. Raises `OutputError` for a folder that is not empty, unless ``overwrite``.
    """
    check_output(out, overwrite=overwrite)
    contents = {SHEET: score_csv(quiz, rows)}
    if summary is not None:
        contents[PAGE] = summary_page(quiz, summary)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".score-", dir=out) as staging:
            for name, text in contents.items():
                Path(staging, name).write_text(text, encoding="utf-8", newline="")
            for name in (SHEET, PAGE):  # an earlier page beside a new sheet would contradict it
                (out / name).unlink(missing_ok=True)
            for name in contents:
                os.replace(Path(staging, name), out / name)
    except OSError as error:
        msg = f"{out} cannot be written ({error.strerror}); choose another folder with --out."
        raise OutputError(msg) from error


def summary_page(quiz: Quiz, summary: Summary) -> str:
    """The page as text; nothing in it is fetched from anywhere."""
    environment = Environment(loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined)
    environment.filters["share"] = _share
    environment.filters["confusion"] = lambda side: _confusion(side, quiz.class_names)
    shown = [summary.everyone, *summary.learners[:_MOST_ROWS_OF_A_CHART]]
    if len(summary.learners) == 1:
        shown = list(summary.learners)
    by_case = {group.name: group for group in summary.cases}
    return environment.get_template("quiz.html.j2").render(
        quiz=quiz,
        summary=summary,
        everyone=summary.everyone,
        notice=NOTICE,
        charts=quiz_charts,
        shown=shown,
        steps=CASE_STEPS,
        cases=[
            CaseLine(case, _picture(quiz, case), _attributes(case.known), by_case.get(case.case_id))
            for case in quiz.cases
        ],
    )


def _picture(quiz: Quiz, case: QuizCase) -> str:
    return png_data_uri(case_pictures(case.volume, case.box, window_hu=quiz.window_hu)["axial"])


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


def _confusion(side: Side, class_names: Sequence[str]) -> list[tuple[str, list[tuple[int, float, bool]]]]:
    """One row a true class: count, share of the row (for its shade), and whether the answer is right."""
    rows = []
    for truth in class_names:
        counts = [side.confusion.get((truth, answer), 0) for answer in class_names]
        whole = sum(counts) or 1
        rows.append((truth, [(n, n / whole, answer == truth) for n, answer in zip(counts, class_names, strict=True)]))
    return rows
