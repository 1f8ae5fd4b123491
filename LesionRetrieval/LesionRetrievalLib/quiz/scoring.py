"""What the learners did, as a score sheet, and what the sheet says.

The sheet is CSV with stable columns, one row a learner and case. It says: right answers before and after the reveal,
confusion, calibration, influence of the AI, time.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from LesionLib.io.tables import csv_cell
from LesionLib.uncertainty.conformal import Proportion, proportion

from LesionRetrievalLib.quiz.attempt import CASE_STEPS, Attempt, CaseRecord, Step
from LesionRetrievalLib.quiz.model import Quiz, QuizCase, box_overlap
from LesionRetrievalLib.quiz.questions import Answers


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

    ``confidence``: as stated, 0 … 1; ``model_probability``: of the model's answer; ``seconds``: per step, those done. ``model``
    is empty, and its probability None, where the model has no answer. ``answers``: to the teacher's own questions.
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
    model_probability: float | None
    box_overlap: float | None
    seconds: Mapping[Step, float]
    interruptions: int
    answers: Answers = field(default_factory=dict)

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
        values = {name: value(row) for name, value in _COLUMNS.items()} | {"quiz": quiz.title}
        writer.writerow({name: csv_cell(value) for name, value in values.items()})
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
        model=case.prediction.label,
        model_probability=case.prediction.probabilities[case.prediction.label] if case.prediction.label else None,
        box_overlap=None if record.box is None else box_overlap(record.box, case.box),
        seconds=dict(record.seconds),
        interruptions=record.interruptions,
        answers=dict(record.answers),
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
    "ai_probability": lambda row: "" if row.model_probability is None else f"{row.model_probability:.4f}",
    "ai_right": lambda row: int(row.model_is_right) if row.model else "",
    "agreed_before": lambda row: int(row.first == row.model) if row.model else "",
    "agreed_after": lambda row: int(row.second == row.model) if row.model else "",
    "box": lambda row: "given" if row.box_overlap is None else "placed",
    "box_iou": lambda row: "" if row.box_overlap is None else f"{row.box_overlap:.4f}",
    **{
        f"seconds_{step.name.lower()}": lambda row, step=step: _seconds(row, step)
        for step in CASE_STEPS
    },
    "seconds_total": lambda row: f"{sum(row.seconds.values()):.3f}",
    "interruptions": lambda row: row.interruptions,
}  # fmt: skip

_BINS = 10


@dataclass(frozen=True)
class Bin:
    """Answers whose confidence lies from ``low`` up to ``high`` (the last bin: and equal to it)."""

    low: float
    high: float
    mean_confidence: float
    share_right: float
    n: int


@dataclass(frozen=True)
class Calibration:
    """Whether stated confidence is worth what it says. ``bins``: those with answers.

    ``ece``: expected calibration error, sum of n_bin / n * |share right - mean confidence| over 10 equal bins (Guo et al.,
    ICML 2017, eq. 3). ``brier``: mean of (confidence - right)^2 (Brier 1950). ``overconfidence``: mean confidence minus
    share right; above 0 promises too much.
    """

    bins: tuple[Bin, ...]
    ece: float
    brier: float
    overconfidence: float


@dataclass(frozen=True)
class Side:
    """The answers before the reveal, or after it. ``confusion``: (truth, answer) -> count."""

    right: Proportion
    confusion: dict[tuple[str, str], int]
    calibration: Calibration
    agreed_with_ai: Proportion


@dataclass(frozen=True)
class Group:
    """Some rows together: one learner's, one case's or all. ``changes``: every kind, 0 included.

    ``followed_right``, ``followed_wrong``: of the first answers that differed from a right (wrong) answer of the AI, how
    many took it over; None where there is none. ``ai``, and agreement with it: of the rows where the model has an answer; of
    all where it has none at all. ``median_seconds``: per step, where it was done. ``median_overlap``: of
    the boxes that learners placed.
    """

    name: str
    n: int
    before: Side
    after: Side
    ai: Proportion
    changes: dict[Change, int]
    followed_right: Proportion | None
    followed_wrong: Proportion | None
    median_seconds: dict[Step, float]
    median_total: float
    median_overlap: float | None


@dataclass(frozen=True)
class Summary:
    """All rows, and the same by learner and by case. ``unfinished``: learner -> cases without a second answer.

    ``notes``: what has to be said of the learners' files.
    """

    everyone: Group
    learners: tuple[Group, ...]
    cases: tuple[Group, ...]
    unfinished: dict[str, int]
    rows: tuple[ScoreRow, ...] = ()
    notes: tuple[str, ...] = ()


def summarise(
    rows: Sequence[ScoreRow], *, cases_per_learner: int, learners: Sequence[str], notes: Sequence[str] = ()
) -> Summary | None:
    """The summary; None where nobody has answered a case yet. ``learners``: all who began; ``notes``: of their files."""
    if not rows:
        return None
    done = Counter(row.learner for row in rows)
    return Summary(
        everyone=group("everyone", rows),
        learners=tuple(group(name, [row for row in rows if row.learner == name]) for name in learners if done[name]),
        cases=tuple(group(case, [r for r in rows if r.case_id == case]) for case in sorted({r.case_id for r in rows})),
        rows=tuple(rows),
        notes=tuple(notes),
        unfinished={name: cases_per_learner - done[name] for name in learners if done[name] < cases_per_learner},
    )


def group(name: str, rows: Sequence[ScoreRow]) -> Group:
    """The figures of ``rows``, at least one."""
    overlaps = [row.box_overlap for row in rows if row.box_overlap is not None]
    counted = Counter(row.change for row in rows)
    per_step = {step: [row.seconds[step] for row in rows if step in row.seconds] for step in CASE_STEPS}
    return Group(
        name=name,
        n=len(rows),
        before=_side(rows, [row.first for row in rows], [row.first_confidence for row in rows]),
        after=_side(rows, [row.second for row in rows], [row.second_confidence for row in rows]),
        ai=proportion(sum(row.model_is_right for row in _answered(rows)), len(_answered(rows))),
        changes={change: counted[change] for change in Change},
        followed_right=_followed([row for row in rows if row.model_is_right]),
        followed_wrong=_followed([row for row in rows if row.model and not row.model_is_right]),
        median_seconds={step: float(np.median(seconds)) for step, seconds in per_step.items() if seconds},
        median_total=float(np.median([sum(row.seconds.values()) for row in rows])),
        median_overlap=float(np.median(overlaps)) if overlaps else None,
    )


def calibration(confidence: Sequence[float], right: Sequence[bool]) -> Calibration:
    """How ``confidence``, 0 … 1, fits whether the answers are ``right``; at least one answer. See `Calibration`."""
    stated, hits = np.array(confidence, dtype=float), np.array(right, dtype=float)
    index = np.minimum((stated * _BINS + 1e-9).astype(int), _BINS - 1)  # 0.3 * 10 is 2.9999…
    bins = tuple(
        Bin(b / _BINS, (b + 1) / _BINS, float(stated[index == b].mean()), float(hits[index == b].mean()), int(n))
        for b, n in enumerate(np.bincount(index, minlength=_BINS))
        if n
    )
    return Calibration(
        bins=bins,
        ece=sum(b.n * abs(b.share_right - b.mean_confidence) for b in bins) / len(stated),
        brier=float(((stated - hits) ** 2).mean()),
        overconfidence=float(stated.mean() - hits.mean()),
    )


def _side(rows: Sequence[ScoreRow], answers: Sequence[str], confidence: Sequence[float]) -> Side:
    right = [answer == row.truth for answer, row in zip(answers, rows, strict=True)]
    agreed = sum(answer == row.model for answer, row in zip(answers, rows, strict=True))  # "" is nobody's answer
    return Side(
        right=proportion(sum(right), len(rows)),
        confusion=dict(Counter((row.truth, answer) for answer, row in zip(answers, rows, strict=True))),
        calibration=calibration(confidence, right),
        agreed_with_ai=proportion(agreed, len(_answered(rows))),
    )


def _answered(rows: Sequence[ScoreRow]) -> Sequence[ScoreRow]:
    """Those that the model has an answer for; all where it has none for any."""
    return [row for row in rows if row.model] or rows


def _followed(rows: Sequence[ScoreRow]) -> Proportion | None:
    differed = [row for row in rows if row.first != row.model]
    return proportion(sum(row.second == row.model for row in differed), len(differed)) if differed else None
