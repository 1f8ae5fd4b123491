"""What a learner did with a quiz, as a list of events: which step comes next, and what was answered so far."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from LesionLib.box_files import box_from_json
from LesionLib.geometry import LesionBox

from .quiz_schema import QuizError


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
    """One case of one learner. ``box``: the learner's own, None where the teacher's was taken. ``seconds``: per step done."""

    case_id: str
    box: LesionBox | None = None
    first: LearnerAnswer | None = None
    second: LearnerAnswer | None = None
    seconds: dict[Step, float] = field(default_factory=dict)
    interruptions: int = 0

    @property
    def is_answered(self) -> bool:
        return self.second is not None


class Attempt:
    """The state of a learner's way through the cases, made only of the events so far; knows neither file nor clock.

    ``order``: the case ids in this learner's order. ``records``: one for every case begun, in that order.
    """

    def __init__(self, learner: str, order: Sequence[str]) -> None:
        self.learner = learner
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
        elif step is Step.SECOND_ANSWER:
            record.second = LearnerAnswer(event["label"], float(event["confidence"]))

    def _begin_case(self) -> None:
        if len(self.records) == len(self.order):
            self.step = Step.DONE
        else:
            self.records.append(CaseRecord(self.order[len(self.records)]))


def order_of(case_ids: Sequence[str], *, seed: int, learner: str) -> tuple[str, ...]:
    """The cases in the order for this learner: by a hash, so that it is the same on every machine and for ever."""
    return tuple(
        sorted(case_ids, key=lambda case_id: hashlib.sha256(f"{seed}\0{learner}\0{case_id}".encode()).digest())
    )
