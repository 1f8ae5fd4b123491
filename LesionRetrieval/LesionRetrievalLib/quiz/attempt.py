"""The file with a learner's answers: one JSON line an event, each on the disk before the next step begins."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from LesionLib.errors import LesionLensError

from .quiz_attempt import Attempt, order_of
from .quiz_file import quiz_sha256
from .quiz_model import Quiz
from .quiz_schema import (
    ATTEMPT_FORMAT,
    ATTEMPT_SCHEMA,
    ATTEMPT_VERSION,
    EVENT_SCHEMA,
    QuizError,
    checked_json,
    checked_learner,
)

_PREFIX, _SUFFIX = "attempt-", ".jsonl"  # with a prefix, since Windows lets no file be called con or nul
_LARGEST_FILE = 64 * 1024**2


@dataclass(eq=False)
class AttemptLog:
    """A learner's file, open to be continued. ``attempt``: what it says so far."""

    path: Path
    attempt: Attempt
    _size: int

    def append(self, event: Mapping[str, Any]) -> None:
        """Write the event through to the disk, then take it in. Raises `QuizError`; then nothing has changed."""
        self.attempt.require(event)
        line = _line(event)
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
    order = order_of([case.case_id for case in quiz.cases], seed=quiz.seed, learner=learner)
    header = {
        "format": ATTEMPT_FORMAT,
        "version": ATTEMPT_VERSION,
        "quiz": quiz_sha256(quiz),
        "learner": learner,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "order": list(order),
    }
    line = _line(header)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            _write_through(file, line)
    except OSError as error:
        msg = f"{path} cannot be written ({error.strerror}); choose another folder for the answers."
        raise QuizError(msg) from error
    return AttemptLog(path, Attempt(learner, order), len(line))


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
    attempt, whole = Attempt(header["learner"], header["order"]), len(lines[0]) + 1
    for number, line in enumerate(lines[1:], start=2):
        where = f"{path.name}, line {number}"
        try:
            event = checked_json(_text(line), EVENT_SCHEMA, where=where)
        except QuizError:
            if number == len(lines):  # a crash of the machine may leave a last line of any bytes
                break
            raise
        _apply(attempt, event, quiz, where)
        whole += len(line) + 1
    return attempt, whole


def require_class(event: Mapping[str, Any], quiz: Quiz) -> None:
    """Refuse an answer that is no class of the quiz (`QuizError`)."""
    if event.get("label", quiz.class_names[0]) not in quiz.class_names:
        msg = f"{event['label']!r} is no answer of this quiz; give one of {', '.join(quiz.class_names)}."
        raise QuizError(msg)


def _apply(attempt: Attempt, event: Mapping[str, Any], quiz: Quiz, where: str) -> None:
    try:
        require_class(event, quiz)
        attempt.apply(event)
    except LesionLensError as error:
        msg = f"{where}: {error}"
        raise QuizError(msg) from error


def _content(path: Path) -> bytes:
    try:
        if path.stat().st_size > _LARGEST_FILE:
            msg = f"{path} is larger than {_LARGEST_FILE // 1024**2} MiB; these are not a learner's answers."
            raise QuizError(msg)
        return path.read_bytes()
    except OSError as error:
        msg = f"{path} cannot be read ({error.strerror}); check the folder."
        raise QuizError(msg) from error


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace")


def _line(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, allow_nan=False, ensure_ascii=True, separators=(",", ":")).encode("ascii") + b"\n"


def _write_through(file: Any, line: bytes) -> None:
    file.write(line)
    file.flush()
    os.fsync(file.fileno())
