"""What a learner did with a quiz, as a list of events; and the file that keeps them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from LesionLib.errors import LesionLensError
from LesionLib.geometry import LesionBox
from LesionLib.io.boxes import box_from_json
from LesionLib.io.private_files import open_private, private_folder

from LesionRetrievalLib.quiz.chain import Chain, chain_of
from LesionRetrievalLib.quiz.file import quiz_sha256
from LesionRetrievalLib.quiz.model import (
    ATTEMPT_FORMAT,
    ATTEMPT_SCHEMA,
    ATTEMPT_VERSION,
    EVENT_SCHEMA,
    Quiz,
    QuizError,
    checked_learner,
)
from LesionRetrievalLib.quiz.questions import checked_answers
from LesionRetrievalLib.quiz.schema import checked_json


class Step(StrEnum):
    """What the learner does now. A case begins with the first and ends with the last but one."""

    LOOK = "look"
    BOX = "box"
    FIRST_ANSWER = "first answer"
    REVEAL = "reveal"
    SECOND_ANSWER = "second answer"
    FEEDBACK = "feedback"
    DONE = "done"

    @property
    def advice(self) -> str:
        """What to do to go on."""
        return _ADVICE[self]


CASE_STEPS = tuple(step for step in Step if step is not Step.DONE)
_ADVICE = {
    Step.LOOK: "look at the case, then call finish_looking",
    Step.BOX: "call place_box or take_box",
    Step.FIRST_ANSWER: "call answer",
    Step.REVEAL: "look at what the model says, then call finish_reveal",
    Step.SECOND_ANSWER: "call answer once more",
    Step.FEEDBACK: "read the feedback, then call next_case",
    Step.DONE: "nothing is left to do",
}


@dataclass(frozen=True)
class LearnerAnswer:
    """A class and how sure the learner is that it is right, 0 … 1."""

    label: str
    confidence: float


@dataclass(eq=False)
class CaseRecord:
    """One case of one learner. ``box``: the learner's own, None where the teacher's was taken. ``seconds``: per step done.

    ``answers``: to the teacher's own questions, by their ids.
    """

    case_id: str
    box: LesionBox | None = None
    answers: dict[str, str | list[str]] = field(default_factory=dict)
    first: LearnerAnswer | None = None
    second: LearnerAnswer | None = None
    seconds: dict[Step, float] = field(default_factory=dict)
    interruptions: int = 0

    @property
    def is_answered(self) -> bool:
        return self.second is not None


class Attempt:
    """What a learner did with a quiz, as a list of events: which step comes next, and what was answered so far.

    The state of a learner's way through the cases, made only of the events so far; knows neither file nor clock.
    ``order``: the case ids in this learner's order. ``records``: one for every case begun, in that order. ``chain``: what the
    hash chain of its log says.
    """

    def __init__(self, learner: str, order: Sequence[str], *, chain: Chain | None = None) -> None:
        self.learner, self.chain = learner, chain or Chain()
        self.order = tuple(order)
        self.records: list[CaseRecord] = []
        self.step = Step.LOOK if self.order else Step.DONE
        self._begin_case()

    @property
    def record(self) -> CaseRecord:
        """The case at hand. Raises `QuizError` when all are done."""
        if self.step is Step.DONE:
            msg = "All cases of this quiz are done."
            raise QuizError(msg)
        return self.records[-1]

    def require(self, event: Mapping[str, Any]) -> None:
        """Refuse an event that is not of the step or case at hand (`QuizError`)."""
        case_id = self.record.case_id
        if "interrupted" not in event and (event["case"], event["step"]) != (case_id, self.step.value):
            msg = (
                f"Step {event['step']!r} of case {event['case']} cannot be now: case {case_id} is at step "
                f"{self.step.value!r}; {self.step.advice}."
            )
            raise QuizError(msg)

    def apply(self, event: Mapping[str, Any]) -> None:
        """Take one event in. Raises as `require` does, and then stays as it was."""
        self.require(event)
        if "interrupted" in event:
            self.record.interruptions += 1
            return
        record, step = self.record, self.step
        self._fill(record, step, event)
        record.seconds[step] = float(event["seconds"])
        self.step = Step.LOOK if step is Step.FEEDBACK else CASE_STEPS[CASE_STEPS.index(step) + 1]
        if step is Step.FEEDBACK:
            self._begin_case()

    def _fill(self, record: CaseRecord, step: Step, event: Mapping[str, Any]) -> None:
        if step is Step.BOX and event["box"] is not None:
            record.box = box_from_json(event["box"], name=f"{record.case_id} by {self.learner}")
        elif step is Step.FIRST_ANSWER:
            record.first = LearnerAnswer(event["label"], float(event["confidence"]))
            record.answers = dict(event.get("answers", {}))
        elif step is Step.SECOND_ANSWER:
            record.second = LearnerAnswer(event["label"], float(event["confidence"]))

    def _begin_case(self) -> None:
        if len(self.records) == len(self.order):
            self.step = Step.DONE
        else:
            self.records.append(CaseRecord(self.order[len(self.records)]))


def order_for(quiz: Quiz, learner: str) -> tuple[str, ...]:
    """The cases in the order for this learner."""
    ids = [case.case_id for case in quiz.cases]
    return tuple(ids) if quiz.order == "fixed" else order_of(ids, seed=quiz.seed, learner=learner)


def order_of(case_ids: Sequence[str], *, seed: int, learner: str) -> tuple[str, ...]:
    """The cases in the order for this learner: by a hash, so that it is the same on every machine and for ever."""
    return tuple(
        sorted(case_ids, key=lambda case_id: hashlib.sha256(f"{seed}\0{learner}\0{case_id}".encode()).digest())
    )


_PREFIX, _SUFFIX = "attempt-", ".jsonl"  # with a prefix, since Windows lets no file be called con or nul
_MAX_FILE = 64 * 1024**2


@dataclass(eq=False)
class AttemptLog:
    """The file with a learner's answers: one JSON line an event, each on the disk before the next step begins.

    A learner's file, open to be continued. ``attempt``: what it says so far.
    """

    path: Path
    attempt: Attempt
    _size: int

    def append(self, event: Mapping[str, Any]) -> None:
        """Write the event through to the disk, then take it in. Raises `QuizError`; then nothing has changed."""
        self.attempt.require(event)
        line, chain = self.attempt.chain.line(_json(event))
        try:
            with self.path.open("r+b") as file:
                if file.seek(0, os.SEEK_END) != self._size:
                    msg = f"{self.path} was changed by another window or program; close one of the two and resume."
                    raise QuizError(msg)
                try:
                    _write_through(file, line)
                except OSError:
                    file.truncate(self._size)
                    raise
        except OSError as error:
            msg = f"{self.path}: the answer cannot be saved ({error.strerror}); make room on the disk and try again."
            raise QuizError(msg) from error
        self._size += len(line)
        self.attempt.chain = chain
        self.attempt.apply(event)


def open_log(quiz: Quiz, folder: str | Path, learner: str) -> AttemptLog:
    """The learner's file in ``folder``: a new one, or the one there is, at the step where it stopped.

    A last line that was torn by a crash is cut off. Raises `QuizError`: answers to another quiz, a damaged file.
    """
    folder, learner = Path(folder), checked_learner(learner)
    path = folder / f"{_PREFIX}{learner}{_SUFFIX}"
    if not path.exists() or b"\n" not in _content(path):  # nothing, or torn before its first line was whole
        return _new_log(quiz, path, learner)
    attempt, whole = _read(path, quiz, quiz_sha256(quiz))
    if attempt.learner != learner:
        msg = f"{path} holds the answers of {attempt.learner!r}; give {learner!r} another code."
        raise QuizError(msg)
    try:
        with path.open("r+b") as file:
            file.truncate(whole)
    except OSError as error:
        msg = f"{path} cannot be continued ({error.strerror}); check the folder."
        raise QuizError(msg) from error
    return AttemptLog(path, attempt, whole)


def read_attempts(quiz: Quiz, folder: str | Path) -> list[Attempt]:
    """All learners' answers in ``folder``, by code; nothing is written. Raises `QuizError`."""
    paths = sorted(Path(folder).glob(f"{_PREFIX}*{_SUFFIX}")) if Path(folder).is_dir() else []
    if not paths:
        msg = f"{folder} holds no answers ({_PREFIX}CODE{_SUFFIX}); give the folder where the learners' files are."
        raise QuizError(msg)
    sha256 = quiz_sha256(quiz)
    attempts = {path: _read(path, quiz, sha256)[0] for path in paths}
    codes = [attempt.learner for attempt in attempts.values()]
    for path, attempt in attempts.items():
        if codes.count(attempt.learner) > 1:
            msg = f"{path} and another file hold answers of {attempt.learner!r}; leave one of them in the folder."
            raise QuizError(msg)
    return sorted(attempts.values(), key=lambda attempt: attempt.learner)


def _new_log(quiz: Quiz, path: Path, learner: str) -> AttemptLog:
    order = order_for(quiz, learner)
    header = {
        "format": ATTEMPT_FORMAT,
        "version": ATTEMPT_VERSION,
        "quiz": quiz_sha256(quiz),
        "learner": learner,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "order": list(order),
    }
    line, chain = Chain().line(_json(header))
    try:
        private_folder(path.parent)
        with open_private(path) as file:
            _write_through(file, line)
    except OSError as error:
        msg = f"{path} cannot be written ({error.strerror}); choose another folder for the answers."
        raise QuizError(msg) from error
    return AttemptLog(path, Attempt(learner, order, chain=chain), len(line))


def _read(path: Path, quiz: Quiz, sha256: str) -> tuple[Attempt, int]:
    """What the file says, and how many of its bytes are whole lines."""
    content = _content(path)
    lines = content.split(b"\n")
    del lines[-1]  # empty after a whole last line, else torn
    if not lines:
        msg = f"{path} has no whole line; it was torn when it was begun; delete it, or begin that learner again."
        raise QuizError(msg)
    header = checked_json(_text(lines[0]), ATTEMPT_SCHEMA, where=f"{path.name}, line 1")
    if header["quiz"] != sha256:
        msg = f"{path} holds answers to another quiz than {quiz.title!r} as it is now; choose the quiz they belong to."
        raise QuizError(msg)
    if sorted(header["order"]) != sorted(case.case_id for case in quiz.cases):
        msg = f"{path.name}, line 1: the order does not name every case once; the file was changed."
        raise QuizError(msg)
    attempt, whole, taken = Attempt(header["learner"], header["order"]), len(lines[0]) + 1, 1
    for number, line in enumerate(lines[1:], start=2):
        where = f"{path.name}, line {number}"
        try:
            event = checked_json(_text(line), EVENT_SCHEMA, where=where)
        except QuizError:
            if number == len(lines):  # a crash of the machine may leave a last line of any bytes
                break
            raise
        _apply(attempt, event, quiz, where)
        whole, taken = whole + len(line) + 1, number
    attempt.chain = chain_of(lines[:taken])
    return attempt, whole


def require_class(event: Mapping[str, Any], quiz: Quiz) -> None:
    """Refuse an answer that is no class of the quiz (`QuizError`)."""
    if event.get("label", quiz.class_names[0]) not in quiz.class_names:
        msg = f"{event['label']!r} is no answer of this quiz; give one of {', '.join(quiz.class_names)}."
        raise QuizError(msg)


def require_answers(event: Mapping[str, Any], quiz: Quiz) -> None:
    """Refuse a first answer without those to the teacher's own questions, and others that have some (`QuizError`)."""
    is_first = event.get("step") == Step.FIRST_ANSWER.value
    checked_answers(quiz.questions_of(event["case"]) if is_first else (), event.get("answers", {}))


def _apply(attempt: Attempt, event: Mapping[str, Any], quiz: Quiz, where: str) -> None:
    try:
        require_class(event, quiz)
        attempt.apply(event)
        if "interrupted" not in event:
            require_answers(event, quiz)
    except LesionLensError as error:
        msg = f"{where}: {error}"
        raise QuizError(msg) from error


def _content(path: Path) -> bytes:
    try:
        if path.stat().st_size > _MAX_FILE:
            msg = f"{path} is larger than {_MAX_FILE // 1024**2} MiB; these are not a learner's answers."
            raise QuizError(msg)
        return path.read_bytes()
    except OSError as error:
        msg = f"{path} cannot be read ({error.strerror}); check the folder."
        raise QuizError(msg) from error


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace")


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, allow_nan=False, ensure_ascii=True, separators=(",", ":"))


def _write_through(file: Any, line: bytes) -> None:
    file.write(line)
    file.flush()
    os.fsync(file.fileno())
