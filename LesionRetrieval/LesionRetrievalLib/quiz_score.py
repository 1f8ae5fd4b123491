"""What the learners did, as a score sheet: one row a learner and case, as CSV with stable columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from .quiz_attempt import CASE_STEPS, Attempt, CaseRecord, Step
from .quiz_box import box_overlap
from .quiz_model import Quiz, QuizCase


class Change(StrEnum):
    """What became of the answer when the learner had seen what the model says."""

    STAYED_RIGHT = "stayed right"
    STAYED_WRONG = "stayed wrong"
    WRONG_TO_RIGHT = "wrong to right"
    RIGHT_TO_WRONG = "right to wrong"
    WRONG_TO_WRONG = "wrong to another wrong"


@dataclass(frozen=True)
class ScoreRow:
    """One case that a learner has answered twice. ``box_overlap``: IoU with the teacher's box, None where it was taken.

    ``confidence``: as stated, 0 … 1; ``model_probability``: of the model's answer; ``seconds``: per step, those done.
    """

    learner: str
    position: int
    case_id: str
    truth: str
    first: str
    first_confidence: float
    second: str
    second_confidence: float
    model: str
    model_probability: float
    box_overlap: float | None
    seconds: Mapping[Step, float]
    interruptions: int

    @property
    def first_is_right(self) -> bool:
        """Before the reveal."""
        return self.first == self.truth

    @property
    def second_is_right(self) -> bool:
        """After the reveal."""
        return self.second == self.truth

    @property
    def model_is_right(self) -> bool:
        """The model's answer."""
        return self.model == self.truth

    @property
    def change(self) -> Change:
        """From the first answer to the second."""
        if self.first_is_right:
            return Change.STAYED_RIGHT if self.second_is_right else Change.RIGHT_TO_WRONG
        if self.second_is_right:
            return Change.WRONG_TO_RIGHT
        return Change.STAYED_WRONG if self.first == self.second else Change.WRONG_TO_WRONG


def score_rows(quiz: Quiz, attempts: Iterable[Attempt]) -> list[ScoreRow]:
    """One row for every case that has both answers, by learner and in the order in which they were done."""
    cases = {case.case_id: case for case in quiz.cases}
    return [
        _row(attempt.learner, position, record, cases[record.case_id])
        for attempt in attempts
        for position, record in enumerate(attempt.records, start=1)
        if record.is_answered
    ]


def score_csv(quiz: Quiz, rows: Sequence[ScoreRow]) -> str:
    """The score sheet. The columns are the same for every quiz; empty is what was not measured."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(_COLUMNS), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: value(row) for name, value in _COLUMNS.items()} | {"quiz": quiz.title})
    return text.getvalue()


def _row(learner: str, position: int, record: CaseRecord, case: QuizCase) -> ScoreRow:
    return ScoreRow(
        learner=learner,
        position=position,
        case_id=case.case_id,
        truth=case.known.label,
        first=record.first.label,
        first_confidence=record.first.confidence,
        second=record.second.label,
        second_confidence=record.second.confidence,
        model=case.answer.label,
        model_probability=case.answer.probabilities[case.answer.label],
        box_overlap=None if record.box is None else box_overlap(record.box, case.box),
        seconds=dict(record.seconds),
        interruptions=record.interruptions,
    )


def _seconds(row: ScoreRow, step: Step) -> str:
    return f"{row.seconds[step]:.3f}" if step in row.seconds else ""


_COLUMNS = {
    "quiz": lambda row: "",
    "learner": lambda row: row.learner,
    "position": lambda row: row.position,
    "case": lambda row: row.case_id,
    "truth": lambda row: row.truth,
    "first_answer": lambda row: row.first,
    "first_confidence": lambda row: f"{row.first_confidence:.4f}",
    "first_right": lambda row: int(row.first_is_right),
    "second_answer": lambda row: row.second,
    "second_confidence": lambda row: f"{row.second_confidence:.4f}",
    "second_right": lambda row: int(row.second_is_right),
    "change": lambda row: row.change.value,
    "ai_answer": lambda row: row.model,
    "ai_probability": lambda row: f"{row.model_probability:.4f}",
    "ai_right": lambda row: int(row.model_is_right),
    "agreed_before": lambda row: int(row.first == row.model),
    "agreed_after": lambda row: int(row.second == row.model),
    "box": lambda row: "given" if row.box_overlap is None else "placed",
    "box_iou": lambda row: "" if row.box_overlap is None else f"{row.box_overlap:.4f}",
    **{
        f"seconds_{step.name.lower()}": lambda row, step=step: _seconds(row, step)
        for step in CASE_STEPS
    },
    "seconds_total": lambda row: f"{sum(row.seconds.values()):.3f}",
    "interruptions": lambda row: row.interruptions,
}  # fmt: skip
