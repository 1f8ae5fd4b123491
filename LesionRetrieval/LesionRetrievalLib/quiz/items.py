"""What a teacher asks of a quiz itself: how hard its cases are, whether they tell learners apart, and what the model did to them.

With it the sheets beside the score: the answers to a teacher's own questions, and one for Moodle's gradebook.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from LesionLib.inference.results import TRAINING_LESION_TEXT
from LesionLib.io.tables import csv_text
from LesionLib.uncertainty.conformal import Proportion, proportion

from LesionRetrievalLib.quiz.model import Quiz
from LesionRetrievalLib.quiz.questions import FREE_TEXT, Answers, Question
from LesionRetrievalLib.quiz.scoring import ScoreRow

FEWEST_LEARNERS = 3  # for a correlation between them


@dataclass(frozen=True)
class Item:
    """One case as an item of a test, by the answers before the reveal.

    ``difficulty``: the share that was right (the higher, the easier). ``discrimination``: the correlation, over learners, between
    being right here and the share right in their other cases (item-rest, point-biserial), -1 … 1; None for fewer than
    `FEWEST_LEARNERS` learners, or where all of them did alike.
    """

    case_id: str
    difficulty: Proportion
    discrimination: float | None


@dataclass(frozen=True)
class Reliance:
    """What the model's answer did. Each None where there was no such case.

    ``over``: of the first answers that were right where the model was wrong, how many became the model's. ``benefit``: of those
    that were wrong where the model was right, how many became right.
    """

    over: Proportion | None
    benefit: Proportion | None


def items(rows: Sequence[ScoreRow]) -> dict[str, Item]:
    """By case id, of those that somebody answered."""
    right = {(row.learner, row.case_id): float(row.first_is_right) for row in rows}
    learners = sorted({row.learner for row in rows})
    return {case: _item(case, right, learners) for case in sorted({row.case_id for row in rows})}


def _item(case: str, right: Mapping[tuple[str, str], float], learners: Sequence[str]) -> Item:
    here, others = [], []
    for learner in learners:
        rest = [value for (who, which), value in right.items() if who == learner and which != case]
        if (learner, case) in right and rest:
            here.append(right[learner, case])
            others.append(float(np.mean(rest)))
    hits = [value for (_, which), value in right.items() if which == case]
    return Item(case, proportion(int(sum(hits)), len(hits)), _correlation(here, others))


def _correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    if len(a) < FEWEST_LEARNERS or np.ptp(a) == 0 or np.ptp(b) < 1e-12:
        return None
    return float(np.corrcoef(a, b)[0, 1])


def reliance(rows: Sequence[ScoreRow]) -> Reliance:
    """Over ``rows``, all or those of a learner."""
    tempted = [row for row in rows if row.model and row.first_is_right and not row.model_is_right]
    helped = [row for row in rows if row.model_is_right and not row.first_is_right]
    return Reliance(
        over=proportion(sum(row.second == row.model for row in tempted), len(tempted)) if tempted else None,
        benefit=proportion(sum(row.second_is_right for row in helped), len(helped)) if helped else None,
    )


def learned_cases(quiz: Quiz) -> list[str]:
    """The cases that the model learned from, by its own warning: what it says there is no evidence of how good it is."""
    return [case.case_id for case in quiz.cases if TRAINING_LESION_TEXT in case.prediction.warnings]


def questions_csv(quiz: Quiz, rows: Iterable[ScoreRow]) -> str:
    """One row an answer to a teacher's own question; ``right`` is empty where the quiz does not say what is."""
    truths = {case.case_id: case.known.answers for case in quiz.cases}
    lines = [
        {
            "quiz": quiz.title,
            "learner": row.learner,
            "case": row.case_id,
            "question": one.question_id,
            "kind": one.kind,
            "answer": _written(row.answers[one.question_id]),
            "truth": _written(truths[row.case_id].get(one.question_id, "")),
            "right": _right(one, row, truths[row.case_id]),
        }
        for row in rows
        for one in quiz.questions_of(row.case_id)
        if one.question_id in row.answers
    ]
    return _sheet(("quiz", "learner", "case", "question", "kind", "answer", "truth", "right"), lines)


def question_shares(quiz: Quiz, rows: Sequence[ScoreRow]) -> list[tuple[str, Proportion | None, int]]:
    """For each question its text, the share right where the quiz says what is (None where it never does), and the answers."""
    truths = {case.case_id: case.known.answers for case in quiz.cases}
    found = []
    for one in quiz.questions:
        given = [row for row in rows if one.question_id in row.answers]
        judged = [right for row in given if (right := _right(one, row, truths[row.case_id])) != ""]
        found.append((one.text, proportion(sum(judged), len(judged)) if judged else None, len(given)))
    return found


def moodle_csv(quiz: Quiz, rows: Sequence[ScoreRow], learners: Sequence[str]) -> str:
    """Grades 0 … 100 for Moodle's *Import > CSV file*: the learner's code as ``ID number``, right of all cases before and after."""
    before, after = f"{quiz.title}: before the reveal", f"{quiz.title}: after the reveal"
    lines = []
    for learner in learners:
        own = [row for row in rows if row.learner == learner]
        grades = (sum(row.first_is_right for row in own), sum(row.second_is_right for row in own))
        shares = [f"{100 * right / len(quiz.cases):.2f}" for right in grades]
        lines.append({"ID number": learner, before: shares[0], after: shares[1]})
    return _sheet(("ID number", before, after), lines)


def _right(question: Question, row: ScoreRow, truth: Answers) -> int | str:
    if question.kind == FREE_TEXT or question.question_id not in truth:
        return ""
    return int(question.is_right(row.answers[question.question_id], truth[question.question_id]))


def _written(value: object) -> str:
    return "; ".join(value) if isinstance(value, list | tuple) else str(value)


def _sheet(columns: Sequence[str], lines: Iterable[Mapping[str, object]]) -> str:
    return csv_text([columns, *([line[column] for column in columns] for line in lines)])
