"""The score of a quiz as files: ``score.csv`` and one self-contained page, ``summary.html``.

The page is made from the templates beside this file: nothing fetched, nothing run.
"""

from __future__ import annotations

import base64
import math
import os
import struct
import tempfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from LesionLib.errors import OutputError
from LesionLib.io.private_files import private_folder, write_private

from LesionRetrievalLib.library.attributes import attribute_pairs
from LesionRetrievalLib.library.patches import case_thumbnails
from LesionRetrievalLib.quiz.attempt import CASE_STEPS, Attempt
from LesionRetrievalLib.quiz.items import (
    FEWEST_LEARNERS,
    items,
    learned_cases,
    moodle_csv,
    question_shares,
    questions_csv,
    reliance,
)
from LesionRetrievalLib.quiz.model import NOTICE, Quiz
from LesionRetrievalLib.quiz.scoring import Change, ScoreRow, Side, Summary, score_csv, score_rows, summarise

if TYPE_CHECKING:
    from jinja2 import Environment


def png_data_uri(grey: np.ndarray) -> str:
    """A grey picture as a PNG inside a data URI, written with the standard library alone.

    ``grey``: uint8 (height, width). PNG, second edition (ISO/IEC 15948): 8-bit greyscale, every row unfiltered.
    """
    height, width = grey.shape
    rows = np.zeros((height, width + 1), np.uint8)  # each row begins with the number of its filter, 0
    rows[:, 1:] = grey
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows.tobytes(), 9)) + _chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + chunks).decode("ascii")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


PAGE_REQUIREMENT = "jinja2>=3.1.4"

_TEMPLATES = Path(__file__).resolve().parent / "templates"
_SHOWN_ATTRIBUTES = 6
_MAX_ROWS_OF_A_CHART = 40  # a class; beyond that the table says it better
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
        shown = [summary.everyone, *shown[:_MAX_ROWS_OF_A_CHART]]
    by_case = {group.name: group for group in summary.cases}
    by_item = items(summary.rows)
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
            reliance=reliance(summary.rows),
            learned=learned_cases(quiz),
            questions=question_shares(quiz, summary.rows),
            fewest_learners=FEWEST_LEARNERS,
            confusion=lambda side: _confusion(side, quiz),
            cases=[
                {
                    "case": case,
                    "group": by_case.get(case.case_id),
                    "item": by_item.get(case.case_id),
                    "picture": png_data_uri(case_thumbnails(case.volume, case.box, window_hu=quiz.window_hu)["axial"]),
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


SHEET, PAGE, QUESTIONS, MOODLE = "score.csv", "summary.html", "questions.csv", "moodle.csv"


@dataclass(frozen=True)
class Score:
    """What some learners did. ``learners``: all who began; ``summary``: None where nobody has answered a case yet.

    ``notes``: what has to be said of their files, such as lines that were changed afterwards.
    """

    learners: tuple[str, ...]
    rows: tuple[ScoreRow, ...]
    summary: Summary | None
    notes: tuple[str, ...] = ()


def score_of(quiz: Quiz, attempts: Iterable[Attempt]) -> Score:
    """Count the answers of one or several learners."""
    attempts = list(attempts)
    rows, learners = score_rows(quiz, attempts), tuple(attempt.learner for attempt in attempts)
    notes = tuple(filter(None, (attempt.chain.note(attempt.learner) for attempt in attempts)))
    summary = summarise(rows, cases_per_learner=len(quiz.cases), learners=learners, notes=notes)
    return Score(learners, tuple(rows), summary, notes)


def write_score(
    out: Path,
    quiz: Quiz,
    rows: Sequence[ScoreRow],
    summary: Summary | None,
    *,
    moodle_learners: Sequence[str] | None = None,
) -> None:
    """Write ``score.csv`` and, where somebody has answered and jinja2 is there, ``summary.html`` to the folder ``out``.

    ``questions.csv`` where the quiz has a teacher's own questions; ``moodle.csv`` with the grades of ``moodle_learners``.
    An earlier score there is replaced, other files stay as they are. Raises `OutputError`.
    """
    contents = {SHEET: score_csv(quiz, rows)}
    if quiz.questions:
        contents[QUESTIONS] = questions_csv(quiz, rows)
    if moodle_learners is not None:
        contents[MOODLE] = moodle_csv(quiz, rows, moodle_learners)
    if summary is not None and page_can_be_made():
        contents[PAGE] = summary_page(quiz, summary)
    try:
        private_folder(out)
        with tempfile.TemporaryDirectory(prefix=".score-", dir=out) as staging:
            for name, text in contents.items():
                write_private(Path(staging, name), text)
            for name in (SHEET, PAGE, QUESTIONS, MOODLE):  # an earlier page beside a new sheet would contradict it
                (out / name).unlink(missing_ok=True)
            for name in contents:
                os.replace(Path(staging, name), out / name)
    except OSError as error:
        msg = f"{out} cannot be written ({error.strerror}); choose another folder."
        raise OutputError(msg) from error
