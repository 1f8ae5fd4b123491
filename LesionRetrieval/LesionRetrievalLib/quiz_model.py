"""What a quiz is made of: its cases, what is known of them, and the model's answers. Nothing of it names a patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from LesionLib.geometry import CTVolume, LesionBox, require_overlap
from LesionLib.heat_map import HeatMap
from LesionLib.reliability import Reliability

from .library_schema import Case, Scalar
from .quiz_schema import MOST_VOXELS, MOST_VOXELS_TOGETHER, QuizError

_NOBODY = "0" * 32


@dataclass(frozen=True)
class QuizClass:
    """An answer that can be given; ``color`` is RGB, 0 … 1."""

    name: str
    description: str
    color: tuple[float, float, float]


@dataclass(frozen=True)
class KnownTruth:
    """What a case turned out to be, and how that was established. ``attributes``: as a case library holds them.

    ``feedback``: what the teacher tells the learner at the end of the case, up to 2000 characters.
    """

    label: str
    label_source: str
    organ: str
    attributes: Mapping[str, Scalar] = field(default_factory=dict, hash=False)
    feedback: str = ""

    def __post_init__(self) -> None:
        """Refuse what a case library would refuse (`CaseLibraryError`): nothing may lead back to a patient."""
        object.__setattr__(self, "attributes", _plain_attributes("case", self))


@dataclass(frozen=True, eq=False)
class QuizNeighbour:
    """A similar case of the library; ``pictures``: plane -> uint8 grey (height, width), {} where the library has none."""

    case_id: str
    label: str
    similarity: float
    label_source: str
    organ: str
    attributes: Mapping[str, Scalar]
    pictures: Mapping[str, np.ndarray]

    def __post_init__(self) -> None:
        """As `KnownTruth`."""
        object.__setattr__(self, "attributes", _plain_attributes(self.case_id, self))


@dataclass(frozen=True, eq=False)
class QuizAnswer:
    """What the model says of a case, computed when the quiz was made. ``probabilities``: one per class, in their order."""

    label: str
    probabilities: Mapping[str, float]
    reliability: Reliability
    warnings: tuple[str, ...]
    heat_map: HeatMap | None
    similar: tuple[QuizNeighbour, ...]


@dataclass(frozen=True, eq=False)
class QuizCase:
    """One case. ``volume``: the patch, int16 HU; ``box``: the teacher's box on it."""

    case_id: str
    volume: CTVolume
    box: LesionBox
    known: KnownTruth
    answer: QuizAnswer


@dataclass(frozen=True, eq=False)
class Quiz:
    """A quiz. ``boxes``: "given" by the teacher, "placed" by the learner, or "free", as the learner likes.

    ``model``: name, version and SHA-256 of the model that answered. Make one with `quiz_making.make_quiz`, read one with
    `quiz_file.load_quiz`.
    Raises `QuizError` for cases that do not fit together or that would name a patient.
    """

    title: str
    instructions: str
    boxes: str
    seed: int
    window_hu: tuple[float, float]
    model: tuple[str, str, str]
    classes: tuple[QuizClass, ...]
    cases: tuple[QuizCase, ...]

    def __post_init__(self) -> None:
        """Check what a schema cannot see."""
        _require_different("class", [c.name for c in self.classes])
        _require_different("case", [c.case_id for c in self.cases])
        if sum(c.volume.array.size for c in self.cases) > MOST_VOXELS_TOGETHER:
            msg = f"The patches have more than {MOST_VOXELS_TOGETHER:,} voxels together; take fewer cases or a smaller margin."
            raise QuizError(msg)
        if not self.window_hu[0] < self.window_hu[1]:
            msg = f"The window runs from {self.window_hu[0]:g} to {self.window_hu[1]:g} HU; give the lower value first."
            raise QuizError(msg)
        for case in self.cases:
            _require_sound(case, self.class_names)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The answers that can be given."""
        return tuple(c.name for c in self.classes)

    def case(self, case_id: str) -> QuizCase:
        """The case of this id. Raises `QuizError`."""
        for case in self.cases:
            if case.case_id == case_id:
                return case
        msg = f"The quiz {self.title!r} has no case {case_id!r}."
        raise QuizError(msg)


def _plain_attributes(case_id: str, entry: KnownTruth | QuizNeighbour) -> Mapping[str, Scalar]:
    """Checked as those of a library's case, NumPy scalars made plain."""
    text = getattr(entry, "feedback", "")
    return Case(
        case_id, entry.label, entry.label_source, entry.organ, _NOBODY, _NOBODY, entry.attributes, text
    ).attributes


def _require_sound(case: QuizCase, class_names: tuple[str, ...]) -> None:
    answer, where = case.answer, f"case {case.case_id}"
    if case.volume.array.dtype != np.int16 or case.volume.array.size > MOST_VOXELS:
        msg = (
            f"{where}: the patch is {case.volume.array.dtype} of {case.volume.array.size:,} voxels; "
            f"give int16, at most {MOST_VOXELS:,}."
        )
        raise QuizError(msg)
    named = {case.known.label, answer.label, *answer.probabilities}
    if unknown := sorted(named - set(class_names)):
        msg = f"{where}: {unknown[0]!r} is no class of this quiz; its classes are {', '.join(class_names)}."
        raise QuizError(msg)
    if abs(sum(answer.probabilities.values()) - 1) > 1e-3:
        msg = f"{where}: the probabilities add up to {sum(answer.probabilities.values()):.3f}, not to 1."
        raise QuizError(msg)
    _require_spread_of(answer.reliability, len(class_names), where)
    require_overlap(case.volume, case.box)


def _require_spread_of(reliability: Reliability, classes: int, where: str) -> None:
    spread = reliability.spread
    if spread is not None and not (spread.label < classes and all(len(v) == classes for v in (spread.mean, spread.sd))):
        msg = f"{where}: the spread of its answer is not that of {classes} classes; make the quiz again."
        raise QuizError(msg)


def _require_different(what: str, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        msg = f"The quiz has the {what} {twice[0]!r} twice; give each its own name."
        raise QuizError(msg)
