"""A teacher's own questions beside the model's classes, what may be answered, and what is shown with the feedback."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from LesionRetrievalLib.quiz.schema import CODE, LONGEST_TEXT, NAME, TEXT, QuizError, list_of, object_of

SINGLE, RATING, DIFFERENTIAL, FREE_TEXT = "single", "rating", "differential", "text"
KINDS = (SINGLE, RATING, DIFFERENTIAL, FREE_TEXT)
MAX_QUESTIONS, MAX_OPTIONS, MAX_DIFFERENTIAL = 20, 30, 5
MAX_PICTURE = 512 * 1024  # bytes
_MAGIC = {"png": b"\x89PNG\r\n\x1a\n", "jpeg": b"\xff\xd8\xff"}

Answers = Mapping[str, "str | Sequence[str]"]
_OPTIONS = list_of(NAME, low=2, high=MAX_OPTIONS)
_CASES = list_of(CODE, low=1, high=500)
_QUESTION = object_of(
    {"id": CODE, "text": {**TEXT, "minLength": 1}, "kind": {"enum": list(KINDS)}},
    options=_OPTIONS,
    cases=_CASES,
    optional={"const": True},
)
QUESTIONS_SCHEMA = list_of(_QUESTION, low=1, high=MAX_QUESTIONS)
_VALUE = {"anyOf": [{**TEXT, "minLength": 1}, list_of(NAME, low=1, high=MAX_DIFFERENTIAL)]}
ANSWERS_SCHEMA = {
    "type": "object",
    "propertyNames": CODE,
    "additionalProperties": _VALUE,
    "maxProperties": MAX_QUESTIONS,
}
LINK = {"type": "string", "pattern": r"^https?://[^\s<>\"'\\\\]{1,500}$"}
PICTURE_SCHEMA = object_of(
    {
        "type": {"enum": list(_MAGIC)},
        "base64": {"type": "string", "maxLength": 4 * MAX_PICTURE // 3 + 8},
        "description": {**TEXT, "minLength": 1},
    }
)
TEACHING_SCHEMA: dict[str, Any] = {"link": LINK, "picture": PICTURE_SCHEMA, "answers": ANSWERS_SCHEMA}


@dataclass(frozen=True)
class Question:
    """One question, asked with the first answer of its cases.

    ``kind``: "single" (one of ``options``), "rating" (the same, and their order is a scale, such as Lung-RADS 1 to 4B),
    "differential" (up to `MAX_DIFFERENTIAL` of them, the likeliest first) or "text". ``cases``: ids; none are all of them.
    """

    question_id: str
    text: str
    kind: str
    options: tuple[str, ...] = ()
    cases: tuple[str, ...] = ()
    optional: bool = False

    def checked(self, value: object) -> str | list[str]:
        """An answer, if it may be one. Raises `QuizError` saying what may."""
        if self.kind == FREE_TEXT:
            if isinstance(value, str) and len(value.strip()) > 0 and len(value) <= LONGEST_TEXT:
                return value
            msg = f"The answer to {self.question_id!r} is no text of 1 to {LONGEST_TEXT} characters; write one."
            raise QuizError(msg)
        if self.kind == DIFFERENTIAL:
            chosen = list(value) if isinstance(value, list | tuple) else []
            if (
                0 < len(chosen) <= MAX_DIFFERENTIAL
                and len(set(chosen)) == len(chosen)
                and set(chosen) <= set(self.options)
            ):
                return chosen
            msg = (
                f"The answer to {self.question_id!r} is {value!r}; give 1 to {MAX_DIFFERENTIAL} different ones of "
                f"{', '.join(self.options)}, the likeliest first."
            )
            raise QuizError(msg)
        if isinstance(value, str) and value in self.options:
            return value
        msg = f"The answer to {self.question_id!r} is {value!r}; give one of {', '.join(self.options)}."
        raise QuizError(msg)

    def is_right(self, value: str | Sequence[str], truth: str | Sequence[str]) -> bool:
        """Whether an answer is what the teacher says; of a differential, whether its first one is the teacher's first."""
        if self.kind == DIFFERENTIAL:
            return value[0] == truth[0]
        return value == truth

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, the inverse of `from_json`."""
        return {
            "id": self.question_id,
            "text": self.text,
            "kind": self.kind,
            **({"options": list(self.options)} if self.options else {}),
            **({"cases": list(self.cases)} if self.cases else {}),
            **({"optional": True} if self.optional else {}),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Question:
        """What `to_json` wrote."""
        options, cases = tuple(values.get("options", ())), tuple(values.get("cases", ()))
        return cls(values["id"], values["text"], values["kind"], options, cases, values.get("optional", False))


@dataclass(frozen=True)
class Teaching:
    """What is shown with the feedback beside its text. ``picture``: a PNG or JPEG; ``description`` says what it shows."""

    link: str = ""
    picture: bytes = b""
    description: str = ""

    def __post_init__(self) -> None:
        """Refuse another link, a picture of another kind or without words (`QuizError`)."""
        if self.link and not re.fullmatch(LINK["pattern"].strip("^$"), self.link):
            msg = (
                f"The link is {self.link[:60]!r}; give an address that begins with https:// or http://, without spaces."
            )
            raise QuizError(msg)
        if self.picture and (len(self.picture) > MAX_PICTURE or not self.kind):
            msg = f"A teaching picture has {len(self.picture):,} bytes; give a PNG or JPEG of at most {MAX_PICTURE // 1024} KiB."
            raise QuizError(msg)
        if self.picture and not self.description:
            msg = (
                "A teaching picture has no description; say in a few words what it shows, for those who cannot see it."
            )
            raise QuizError(msg)

    @property
    def kind(self) -> str:
        """ "png", "jpeg", or "" for neither."""
        return next((kind for kind, magic in _MAGIC.items() if self.picture.startswith(magic)), "")

    def to_json(self) -> dict[str, Any]:
        """What there is, under the keys of `TEACHING_SCHEMA`."""
        picture = {
            "type": self.kind,
            "base64": base64.b64encode(self.picture).decode("ascii"),
            "description": self.description,
        }
        return {**({"link": self.link} if self.link else {}), **({"picture": picture} if self.picture else {})}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Teaching:
        """What `to_json` wrote. Raises `QuizError`."""
        picture = values.get("picture", {})
        try:
            content = base64.b64decode(picture.get("base64", ""), validate=True)
        except ValueError as error:
            msg = "A teaching picture is damaged; get the quiz again."
            raise QuizError(msg) from error
        return cls(values.get("link", ""), content, picture.get("description", ""))


def require_questions(questions: Sequence[Question], truths: Mapping[str, Answers]) -> None:
    """Refuse questions that do not fit together or to the cases, and true answers that are none (`QuizError`).

    ``truths``: case id -> what is right there, as far as it is known.
    """
    ids = [one.question_id for one in questions]
    if twice := sorted({one for one in ids if ids.count(one) > 1}):
        msg = f"The quiz has the question {twice[0]!r} twice; give each its own id."
        raise QuizError(msg)
    for one in questions:
        if (one.kind == FREE_TEXT) == bool(one.options) or len(set(one.options)) != len(one.options):
            msg = f"The question {one.question_id!r} ({one.kind}) needs {'no options' if one.options else 'different options'}."
            raise QuizError(msg)
        if unknown := sorted(set(one.cases) - set(truths)):
            msg = f"The question {one.question_id!r} is for the case {unknown[0]!r}, which the quiz does not have."
            raise QuizError(msg)
    by_id = {one.question_id: one for one in questions}
    for case_id, truth in truths.items():
        for question_id, value in truth.items():
            if question_id not in by_id:
                msg = f"case {case_id}: the answer to {question_id!r} has no such question in the quiz."
                raise QuizError(msg)
            by_id[question_id].checked(value)


def checked_answers(questions: Sequence[Question], answers: Answers) -> dict[str, str | list[str]]:
    """A learner's answers to the questions of a case, all that must be given. Raises `QuizError`."""
    by_id = {one.question_id: one for one in questions}
    if unknown := sorted(set(answers) - set(by_id)):
        msg = f"{unknown[0]!r} is no question of this case."
        raise QuizError(msg)
    if missing := [one for one in questions if not one.optional and one.question_id not in answers]:
        msg = f"The question {missing[0].question_id!r} is not answered: {missing[0].text[:80]}"
        raise QuizError(msg)
    return {question_id: by_id[question_id].checked(value) for question_id, value in answers.items()}
