"""The teaching room: one learner's way through a quiz, step by step, from a script as well as from a panel."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from LesionLib.errors import BoxError
from LesionLib.geometry import CTVolume, LesionBox, require_overlap
from LesionLib.io.boxes import box_to_json

from LesionRetrievalLib.quiz.attempt import (
    CASE_STEPS,
    Attempt,
    AttemptLog,
    CaseRecord,
    LearnerAnswer,
    Step,
    open_log,
    require_answers,
    require_class,
)
from LesionRetrievalLib.quiz.file import load_quiz, save_quiz
from LesionRetrievalLib.quiz.model import Diagnosis, ModelPrediction, Quiz, QuizCase, QuizError, box_overlap
from LesionRetrievalLib.quiz.questions import Answers, Question
from LesionRetrievalLib.quiz.sealing import SealedCase

__all__ = ["Feedback", "LearnerAnswer", "Quiz", "QuizError", "QuizSession", "Step", "load_quiz", "save_quiz"]


@dataclass(frozen=True)
class Feedback:
    """What the learner is told at the end of a case. ``box_overlap``: IoU with the teacher's box, None where it was taken.

    ``answers``: the learner's to the teacher's own questions.
    """

    known: Diagnosis
    first: LearnerAnswer
    second: LearnerAnswer
    predicted_label: str
    box_overlap: float | None
    answers: Answers = field(default_factory=dict)

    @property
    def first_is_right(self) -> bool:
        """Whether the answer before the reveal is right."""
        return self.first.label == self.known.label

    @property
    def second_is_right(self) -> bool:
        """Whether the answer after the reveal is right."""
        return self.second.label == self.known.label

    @property
    def model_is_right(self) -> bool:
        """Whether the model's answer is right."""
        return self.predicted_label == self.known.label


class QuizSession:
    """One learner at one quiz. Every step is saved before the next begins, so that a crash loses the step at hand only.

    A case goes: look, place or take the box, answer, see what the model says, answer again, read the feedback. A call out
    of order is a `QuizError` that says what to do, and changes nothing. What the learner may not see yet is refused too.
    ``clock`` gives seconds, from any beginning; time between a crash and the resumption does not count. From a script::

        session = QuizSession.open(load_quiz("quiz.json"), "answers", learner="L07")
        while session.step is not Step.DONE:
            session.finish_looking()
            session.take_box()
            session.answer("benign", 0.7)
            print(session.model_prediction.probabilities)
            session.finish_reveal()
            session.answer("malignant", 0.8)
            print(session.feedback.known.label)
            session.next_case()
    """

    def __init__(self, quiz: Quiz, log: AttemptLog, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.quiz = quiz
        self._log = log
        self._clock = clock
        self._began = clock()
        self._paused: float | None = None

    @classmethod
    def open(
        cls, quiz: Quiz, folder: str | Path, *, learner: str, clock: Callable[[], float] = time.monotonic
    ) -> QuizSession:
        """Begin, or resume where the learner stopped. ``folder`` holds one file a learner; ``learner`` is a code, no name."""
        log = open_log(quiz, folder, learner)
        session = cls(quiz, log, clock=clock)
        if session.step is not Step.DONE and (session.step is not Step.LOOK or session.position > 1):
            log.append({"interrupted": True})
        return session

    @property
    def is_paused(self) -> bool:
        """Whether the clock stands."""
        return self._paused is not None

    def pause(self) -> None:
        """Stop the clock; no step can be finished until `resume`. Twice is once."""
        if self._paused is None:
            self._paused = self._clock()

    def resume(self) -> None:
        """Let the clock go on; the step at hand keeps the time it had, and counts an interruption."""
        if self._paused is not None:
            if self.step is not Step.DONE:
                self._log.append({"interrupted": True})
            self._began += max(0.0, self._clock() - self._paused)
            self._paused = None

    @property
    def attempt(self) -> Attempt:
        """What this learner has done so far, for `report.score_of`; not to be changed."""
        return self._log.attempt

    @property
    def learner(self) -> str:
        """The learner's code."""
        return self._log.attempt.learner

    @property
    def step(self) -> Step:
        return self._log.attempt.step

    @property
    def position(self) -> int:
        """The number of the case at hand, from 1; of the last one when all are done."""
        return len(self._log.attempt.records)

    @property
    def total(self) -> int:
        """How many cases there are."""
        return len(self.quiz.cases)

    @property
    def volume(self) -> CTVolume:
        """The CT of the case at hand, int16 HU."""
        return self._case().volume

    @property
    def box(self) -> LesionBox | None:
        """The box to show now: the learner's or the teacher's; None as long as the learner has to find the lesion."""
        case, record = self._case(), self._log.attempt.record
        if record.box is not None:
            return record.box
        if self.step is Step.LOOK or (self.step is Step.BOX and self.quiz.boxes != "given"):
            return None
        return case.box

    @property
    def teacher_box(self) -> LesionBox:
        """The box that the model was asked about; to be seen from the reveal on."""
        self._require_from(Step.REVEAL, "The teacher's box")
        return self._opened().box

    @property
    def model_prediction(self) -> ModelPrediction:
        """Probabilities, reliability, Grad-CAM and similar cases; to be seen from the reveal on."""
        self._require_from(Step.REVEAL, "What the model says")
        return self._opened().prediction

    @property
    def feedback(self) -> Feedback:
        """The truth and how the learner did; to be seen when both answers are given."""
        self._require_from(Step.FEEDBACK, "The truth")
        case, record = self._opened(), self._log.attempt.record
        overlap = None if record.box is None else box_overlap(record.box, case.box)
        return Feedback(case.known, record.first, record.second, case.prediction.label, overlap, record.answers)

    def finish_looking(self) -> None:
        """The learner has seen the case and goes on to the box."""
        self._finish(Step.LOOK)

    def take_box(self) -> LesionBox:
        """Take the teacher's box; returns it. Refused where the learner has to place it."""
        self._require(Step.BOX)
        if self.quiz.boxes == "placed":
            msg = "In this quiz the learner places the box; call place_box."
            raise QuizError(msg)
        self._finish(Step.BOX, box=None)
        return self._case().box

    def place_box(self, box: LesionBox) -> None:
        """Keep the learner's own box, in the RAS of `volume`. Refused where the box is given, or beside the CT."""
        self._require(Step.BOX)
        if self.quiz.boxes == "given":
            msg = "In this quiz the box is given; call take_box."
            raise QuizError(msg)
        if np.abs(box.centerRAS).max() > 1e6 or box.sizeMm.max() > 1e6:
            msg = f"box {box.name!r} is more than a kilometre away or wide; place it around the lesion."
            raise BoxError(msg)
        require_overlap(self._case().volume, box)
        self._finish(Step.BOX, box=box_to_json(box))

    @property
    def questions(self) -> tuple[Question, ...]:
        """The teacher's own questions of the case at hand, to be answered with the first answer."""
        return self.quiz.questions_of(self._log.attempt.record.case_id)

    def answer(self, label: str, confidence: float, answers: Answers | None = None) -> None:
        """Give the first or the second answer. ``confidence``: how probable it is that the answer is right, 0 … 1.

        ``answers``: with the first one, to `questions`, by their ids.
        """
        if self.step not in (Step.FIRST_ANSWER, Step.SECOND_ANSWER):
            self._require(Step.FIRST_ANSWER)
        if isinstance(confidence, bool) or not isinstance(confidence, int | float | np.integer | np.floating):
            msg = f"The confidence is {confidence!r}; give a number from 0 to 1."
            raise QuizError(msg)
        if not (math.isfinite(confidence) and 0 <= confidence <= 1):
            msg = (
                f"The confidence is {confidence:g}; give a number from 0 (a guess that is surely wrong) to 1 (certain)."
            )
            raise QuizError(msg)
        if not isinstance(label, str):
            msg = f"The answer is {label!r}; give one of {', '.join(self.quiz.class_names)}."
            raise QuizError(msg)
        own = {"answers": dict(answers)} if answers else {}
        self._finish(self.step, label=label, confidence=float(confidence), **own)

    def finish_reveal(self) -> None:
        """The learner has seen what the model says and goes on to the second answer."""
        self._finish(Step.REVEAL)

    def next_case(self) -> Step:
        """The learner has read the feedback; returns the step that comes: `Step.LOOK`, or `Step.DONE` after the last case."""
        self._finish(Step.FEEDBACK)
        return self.step

    @property
    def answered_quiz(self) -> Quiz:
        """The quiz, of a sealed one with the answered cases opened: what `report.score_of` counts."""
        for record in self._log.attempt.records:
            _open(self.quiz.case(record.case_id), record)
        return self.quiz

    def _case(self) -> QuizCase | SealedCase:
        return self.quiz.case(self._log.attempt.record.case_id)

    def _opened(self) -> QuizCase | SealedCase:
        """The case at hand, of a sealed one as much as is due opened."""
        case = self._case()
        _open(case, self._log.attempt.record)
        return case

    def _finish(self, step: Step, **event: Any) -> None:
        self._require(step)
        now = self._clock()
        # A clock that was set back is no reason to lose an answer.
        seconds = max(0.0, now - self._began)
        complete = {"case": self._log.attempt.record.case_id, "step": step.value, "seconds": round(seconds, 3), **event}
        require_class(complete, self.quiz)
        require_answers(complete, self.quiz)
        self._log.append(complete)
        self._began = now

    def _require(self, step: Step) -> None:
        if self.is_paused:
            msg = "The quiz is paused; call resume."
            raise QuizError(msg)
        if self.step is not step:
            msg = f"This cannot be done now: the quiz is at step {self.step.value!r}; {self.step.advice}."
            raise QuizError(msg)

    def _require_from(self, first: Step, what: str) -> None:
        if self.step is Step.DONE or CASE_STEPS.index(self.step) < CASE_STEPS.index(first):
            msg = f"{what} can be seen from step {first.value!r} on; the quiz is at {self.step.value!r}: {self.step.advice}."
            raise QuizError(msg)


def _open(case: QuizCase | SealedCase, record: CaseRecord) -> None:
    if isinstance(case, SealedCase):
        if record.second is not None:
            case.open_known(record.first.label, record.second.label)
        elif record.first is not None:
            case.open_prediction(record.first.label)
