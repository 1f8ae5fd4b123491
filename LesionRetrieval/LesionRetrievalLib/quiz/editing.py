"""What a teacher adds to a quiz that is made: own questions, texts, links and pictures, the order, from one JSON file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from LesionRetrievalLib.quiz.model import LONGEST_TITLE, MAX_CASES, ORDERS, Diagnosis, Quiz
from LesionRetrievalLib.quiz.questions import ANSWERS_SCHEMA, LINK, MAX_PICTURE, QUESTIONS_SCHEMA, Question, Teaching
from LesionRetrievalLib.quiz.schema import CODE, TEXT, QuizError, checked_json, object_of

_CASE = object_of(
    {},
    feedback=TEXT,
    link=LINK,
    picture={"type": "string", "minLength": 1, "maxLength": 500},
    description=TEXT,
    answers=ANSWERS_SCHEMA,
)
TEACHING_FILE_SCHEMA = object_of(
    {},
    title={"type": "string", "minLength": 1, "maxLength": LONGEST_TITLE},
    instructions=TEXT,
    order={"enum": list(ORDERS)},
    repeat={"type": "boolean"},
    questions={**QUESTIONS_SCHEMA, "minItems": 0},
    cases={"type": "object", "propertyNames": CODE, "additionalProperties": _CASE, "maxProperties": MAX_CASES},
)


def edited_quiz(quiz: Quiz, path: Path) -> Quiz:
    """``quiz`` with what the JSON file ``path`` says: ``title``, ``instructions``, ``order`` ("random" or "fixed"), ``repeat``,
    ``questions``, and under ``cases`` by case id ``feedback``, ``link``, ``picture`` (a PNG or JPEG beside the file) with its
    ``description``, and ``answers``: what is right for the questions. What is not named stays. Raises `QuizError`.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        msg = f"{path} cannot be read ({getattr(error, 'strerror', None) or 'it is not text'}); give a JSON file."
        raise QuizError(msg) from error
    given = checked_json(text, TEACHING_FILE_SCHEMA, where=path.name)
    cases: Mapping[str, Mapping[str, Any]] = given.get("cases", {})
    if unknown := sorted(set(cases) - {case.case_id for case in quiz.cases}):
        msg = f"{path.name} names the case {unknown[0]!r}, which the quiz does not have; its cases are {_ids(quiz)}."
        raise QuizError(msg)
    questions = quiz.questions
    if "questions" in given:
        questions = tuple(Question.from_json(one) for one in given["questions"])
    return replace(
        quiz,
        title=given.get("title", quiz.title),
        instructions=given.get("instructions", quiz.instructions),
        order=given.get("order", quiz.order),
        repeat=given.get("repeat", quiz.repeat),
        questions=questions,
        cases=tuple(
            replace(case, known=_taught(case.known, cases.get(case.case_id, {}), path.parent)) for case in quiz.cases
        ),
    )


def _taught(known: Diagnosis, given: Mapping[str, Any], folder: Path) -> Diagnosis:
    teaching = known.teaching
    if "link" in given:
        teaching = replace(teaching, link=given["link"])
    if "picture" in given:
        picture = _picture(folder / given["picture"])
        teaching = Teaching(teaching.link, picture, given.get("description", ""))
    return replace(
        known,
        feedback=given.get("feedback", known.feedback),
        teaching=teaching,
        answers=given.get("answers", known.answers),
    )


def _picture(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_PICTURE + 1)
    except OSError as error:
        msg = f"The picture {path} cannot be read ({error.strerror}); give its place beside the JSON file."
        raise QuizError(msg) from error


def _ids(quiz: Quiz) -> str:
    ids = [case.case_id for case in quiz.cases]
    return ", ".join(ids[:5]) + (", ..." if len(ids) > 5 else "")
