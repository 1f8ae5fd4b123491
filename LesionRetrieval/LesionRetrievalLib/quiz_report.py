"""The score of a quiz as files: ``score.csv`` and one self-contained page, ``summary.html``."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from LesionLib.errors import OutputError

from .quiz_attempt import Attempt
from .quiz_model import Quiz
from .quiz_page import page_can_be_made, summary_page
from .quiz_score import ScoreRow, score_csv, score_rows
from .quiz_summary import Summary, summarise

SHEET, PAGE = "score.csv", "summary.html"


@dataclass(frozen=True)
class Score:
    """What some learners did. ``learners``: all who began; ``summary``: None where nobody has answered a case yet."""

    learners: tuple[str, ...]
    rows: tuple[ScoreRow, ...]
    summary: Summary | None


def score_of(quiz: Quiz, attempts: Iterable[Attempt]) -> Score:
    """Count the answers of one or several learners."""
    attempts = list(attempts)
    rows, learners = score_rows(quiz, attempts), tuple(attempt.learner for attempt in attempts)
    return Score(learners, tuple(rows), summarise(rows, cases_per_learner=len(quiz.cases), learners=learners))


def write_score(out: Path, quiz: Quiz, rows: Sequence[ScoreRow], summary: Summary | None) -> None:
    """Write ``score.csv`` and, where somebody has answered and jinja2 is there, ``summary.html`` to the folder ``out``.

    An earlier score there is replaced, other files stay as they are. Raises `OutputError`.
    """
    contents = {SHEET: score_csv(quiz, rows)}
    if summary is not None and page_can_be_made():
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
        msg = f"{out} cannot be written ({error.strerror}); choose another folder."
        raise OutputError(msg) from error
