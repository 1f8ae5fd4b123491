"""What a quiz is made of: its cases, what is known of them, and the model's answers. Nothing of it names a patient.

With it: what a quiz file and a learner's attempt may hold, as JSON schemas, how both are read with suspicion, and how well
two boxes agree.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from LesionLib.explain.heat_map import HeatMap
from LesionLib.geometry import CTVolume, LesionBox, require_overlap
from LesionLib.model.scores import MAX_SCORES, SCORES_SCHEMA, ScoreSpec
from LesionLib.uncertainty.reliability import Reliability

from LesionRetrievalLib.library.cases import Case, Scalar
from LesionRetrievalLib.quiz.chain import CHAIN
from LesionRetrievalLib.quiz.questions import (
    ANSWERS_SCHEMA,
    QUESTIONS_SCHEMA,
    TEACHING_SCHEMA,
    Answers,
    Question,
    Teaching,
    require_questions,
)
from LesionRetrievalLib.quiz.schema import (
    CODE,
    MAX_CLASSES,
    NAME,
    NUMBER,
    SCALAR,
    SECONDS,
    SHA256,
    SHARE,
    TEXT,
    QuizError,
    list_of,
    object_of,
    or_null,
)
from LesionRetrievalLib.quiz.sealing import LEARNER_FORMAT, LEARNER_VERSION, SealedCase, sealed_part_schema

_PARALLEL = 1 - 1e-9  # cosine
_THIN = 1e-6  # of the smallest edge: what is thinner has no volume worth counting


def box_overlap(a: LesionBox, b: LesionBox) -> float:
    """Intersection over union of two boxes however they are turned, 0 … 1."""
    both = _parallel(a, b) if _are_parallel(a, b) else _turned(a, b)
    return both / float(np.prod(a.sizeMm) + np.prod(b.sizeMm) - both)


def _are_parallel(a: LesionBox, b: LesionBox) -> bool:
    """Whether their edges are, whichever axis is called x."""
    return bool((np.abs(a.axesRAS.T @ b.axesRAS).max(axis=0) > _PARALLEL).all())


def _parallel(a: LesionBox, b: LesionBox) -> float:
    """The volume of the intersection, in mm3: in the frame of ``a`` both are ranges along each axis."""
    turned = np.abs(a.axesRAS.T @ b.axesRAS)
    center, half = a.axesRAS.T @ (b.centerRAS - a.centerRAS), turned @ b.sizeMm / 2
    low, high = np.maximum(-a.sizeMm / 2, center - half), np.minimum(a.sizeMm / 2, center + half)
    return float(np.prod(np.clip(high - low, 0, None)))


def _turned(a: LesionBox, b: LesionBox) -> float:
    """The same of boxes in any position: the polytope that the twelve sides have in common."""
    from scipy.optimize import linprog
    from scipy.spatial import ConvexHull, HalfspaceIntersection

    normals = np.vstack([sign * box.axesRAS.T for box in (a, b) for sign in (1, -1)])
    # Distances from the middle between the centres: qhull likes numbers near zero.
    middle = (a.centerRAS + b.centerRAS) / 2
    reach = np.concatenate([box.sizeMm / 2 for box in (a, a, b, b)])
    offsets = reach + np.concatenate(
        [sign * box.axesRAS.T @ (box.centerRAS - middle) for box in (a, b) for sign in (1, -1)]
    )
    # The largest ball inside all sides (its radius is the fourth unknown) gives the inner point that qhull asks for.
    ball = linprog([0, 0, 0, -1], np.c_[normals, np.ones(12)], offsets, bounds=[(None, None)] * 4)
    if not ball.success or ball.x[3] < _THIN * min(a.sizeMm.min(), b.sizeMm.min()):
        return 0.0
    corners = HalfspaceIntersection(np.c_[normals, -offsets], ball.x[:3]).intersections
    return float(ConvexHull(corners, qhull_options="QJ").volume)


FORMAT, SCHEMA_VERSION = "lesionlens-quiz", 1
ATTEMPT_FORMAT, ATTEMPT_VERSION = "lesionlens-quiz-attempt", 1
ORDERS = ("random", "fixed")
NOTICE = "Research use only, not for diagnosis."

MAX_CASES, MAX_SIMILAR = 500, 50
LEVELS = 6  # of confidence that can be chosen
LONGEST_TITLE = 200
MAX_VOXELS, MAX_PIXELS = 16 * 1024**2, 512**2  # of one patch or heat map; of one picture
MAX_VOXELS_TOGETHER = 128 * 1024**2
_CHARACTERS = 4  # base64 of an int16, with room for what zlib adds to values that it cannot shorten


def _numbers(count: int) -> dict[str, Any]:
    return list_of({"type": "number", "minimum": -1e6, "maximum": 1e6}, low=count, high=count)


def packed_schema(dtype: str, dimensions: int, most: int) -> dict[str, Any]:
    """The schema of an array packed by `file.pack_array`: ``most`` bounds its sides, and the text that holds it."""
    side = {"type": "integer", "minimum": 1, "maximum": most}
    data = {"type": "string", "maxLength": _CHARACTERS * most + 64}
    return object_of({"dtype": {"const": dtype}, "shape": list_of(side, low=dimensions, high=dimensions), "zlib": data})


_MATRIX = list_of(_numbers(4), low=4, high=4)
BOX_SCHEMA = object_of(
    {"centerRAS": _numbers(3), "sizeMm": _numbers(3), "axesRAS": list_of(_numbers(3), low=3, high=3)},
)
_ATTRIBUTES = {"type": "object", "maxProperties": 100, "additionalProperties": SCALAR}
_PICTURES = {
    "type": "object",
    "propertyNames": {"enum": ["axial", "coronal", "sagittal"]},
    "additionalProperties": packed_schema("uint8", 2, MAX_PIXELS),
}
_HEAT_MAP = object_of(
    {
        "values": packed_schema("uint8", 3, MAX_VOXELS),
        "ijkToRAS": _MATRIX,
        "peak": NUMBER,
        "className": NAME,
    }
)
_WHOLE = {"type": "integer", "minimum": 0, "maximum": 100_000}
_SHARES = list_of(or_null(SHARE), low=2, high=MAX_CLASSES)
_SPREAD = object_of(
    {
        **dict.fromkeys(("mean", "minimum", "maximum", "sd"), _SHARES),
        **dict.fromkeys(("label", "keeping", "answered", "skipped"), _WHOLE),
        **dict.fromkeys(("shift_mm", "size_mm"), NUMBER),
    },
    **dict.fromkeys(("score_minimum", "score_maximum"), list_of(or_null(NUMBER), high=MAX_SCORES)),
)
_RELIABILITY = object_of(
    {
        "predictionSet": or_null(list_of(NAME, high=MAX_CLASSES)),
        "promisedCoverage": or_null(SHARE),
        "distance": or_null(NUMBER),
        "usualDistance": or_null(NUMBER),
        "heatInside": or_null(SHARE),
        "boxSpread": or_null(_SPREAD),
    }
)
_ANSWER = object_of(
    {
        "label": {"anyOf": [NAME, {"const": ""}]},
        "probabilities": {"type": "object", "additionalProperties": SHARE, "minProperties": 2},
        "reliability": _RELIABILITY,
        "warnings": list_of(TEXT, high=50),
        "heatMap": or_null(_HEAT_MAP),
    },
    scores={"type": "object", "additionalProperties": NUMBER, "maxProperties": MAX_SCORES},
    sentence=TEXT,
)
_SIMILAR = object_of(
    {
        "caseId": {"type": "string", "pattern": r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$"},
        "label": NAME,
        "similarity": {"type": "number", "minimum": -1.001, "maximum": 1.001},
        "labelSource": TEXT,
        "organ": TEXT,
        "attributes": _ATTRIBUTES,
        "pictures": _PICTURES,
    }
)
_CASE = object_of(
    {
        "id": CODE,
        "patch": object_of({"hu": packed_schema("int16", 3, MAX_VOXELS), "ijkToRAS": _MATRIX}),
        "box": BOX_SCHEMA,
        "known": object_of(
            {"label": NAME, "labelSource": TEXT, "organ": TEXT, "attributes": _ATTRIBUTES},
            feedback={**TEXT, "minLength": 1},
            **TEACHING_SCHEMA,
        ),
        "answer": _ANSWER,
        "similar": list_of(_SIMILAR, high=MAX_SIMILAR),
    }
)
_CLASS = object_of(
    {
        "name": NAME,
        "description": TEXT,
        "colorRGB": list_of(SHARE, low=3, high=3),
    }
)
_COMMON = {
    "title": {"type": "string", "minLength": 1, "maxLength": LONGEST_TITLE},
    "instructions": TEXT,
    "boxes": {"enum": ["given", "placed", "free"]},
    "seed": {"type": "integer", "minimum": 0, "maximum": 2**63},
    "windowHU": _numbers(2),
    "model": object_of({"name": NAME, "version": NAME, "sha256": SHA256}),
    "classes": list_of(_CLASS, low=2, high=MAX_CLASSES),
    "notice": {"const": NOTICE},
}
_OPTIONAL = {
    "scores": SCORES_SCHEMA,
    "questions": QUESTIONS_SCHEMA,
    "order": {"enum": list(ORDERS)},
    "repeat": {"const": True},
}
QUIZ_SCHEMA = object_of(
    {
        "format": {"const": FORMAT},
        "schema": {"const": SCHEMA_VERSION},
        "cases": list_of(_CASE, low=1, high=MAX_CASES),
        **_COMMON,
    },
    **_OPTIONAL,
)
# What is sealed in a quiz for learners, as JSON once it is open.
PREDICTION_SCHEMA = object_of(
    {"answer": _ANSWER, "similar": _CASE["properties"]["similar"]}, box=BOX_SCHEMA, shown={"type": "object"}
)
KNOWN_SCHEMA = _CASE["properties"]["known"]
LEARNER_SCHEMA = object_of(
    {
        "format": {"const": LEARNER_FORMAT},
        "version": {"const": LEARNER_VERSION},
        "quiz": SHA256,
        "cases": list_of(
            object_of(
                {"id": CODE, "patch": _CASE["properties"]["patch"], "model": sealed_part_schema()},
                box=BOX_SCHEMA,
                truth=sealed_part_schema(),
            ),
            low=1,
            high=MAX_CASES,
        ),
        **_COMMON,
    },
    confidence=list_of({"type": "integer", "minimum": 0, "maximum": 100}, low=2, high=LEVELS),
    **_OPTIONAL,
)
_CHAINED = {CHAIN: SHA256}  # lines of an earlier version have none
ATTEMPT_SCHEMA = object_of(
    {
        "format": {"const": ATTEMPT_FORMAT},
        "version": {"const": ATTEMPT_VERSION},
        "quiz": SHA256,
        "learner": CODE,
        "started": {"type": "string", "maxLength": 40},
        "order": list_of(CODE, low=1, high=MAX_CASES),
    },
    **_CHAINED,
)
_EVENT = {"case": CODE, "seconds": SECONDS}
EVENT_SCHEMA = {
    "oneOf": [
        object_of({"interrupted": {"const": True}}, **_CHAINED),
        object_of({**_EVENT, "step": {"enum": ["look", "reveal", "feedback"]}}, **_CHAINED),
        object_of({**_EVENT, "step": {"const": "box"}, "box": or_null(BOX_SCHEMA)}, **_CHAINED),
        object_of(
            {
                **_EVENT,
                "step": {"enum": ["first answer", "second answer"]},
                "label": NAME,
                "confidence": SHARE,
            },
            answers=ANSWERS_SCHEMA,
            **_CHAINED,
        ),
    ]
}


def confidence_levels(classes: int) -> list[int]:
    """Per cent from a guess among so many classes up to certain, in six steps; whole numbers, none twice."""
    lowest = 100 / classes
    return [round(lowest + (100 - lowest) * level / (LEVELS - 1)) for level in range(LEVELS)]


def checked_learner(learner: object) -> str:
    """``learner`` if it may be a learner's code. Raises `QuizError`."""
    if not isinstance(learner, str) or not re.fullmatch(CODE["pattern"].rstrip("$"), learner):
        msg = f"The learner's code is {str(learner)[:40]!r}; give 1 to 32 of A-Z a-z 0-9 . _ - beginning with a letter or digit."
        raise QuizError(msg)
    return learner


NOBODY = "0" * 32  # in the place of a patient's hash: a quiz knows none


@dataclass(frozen=True)
class QuizClass:
    """An answer that can be given; ``color`` is RGB, 0 … 1."""

    name: str
    description: str
    color: tuple[float, float, float]


@dataclass(frozen=True)
class Diagnosis:
    """What a case turned out to be, and how that was established. ``attributes``: as a case library holds them.

    ``feedback``: what the teacher tells the learner at the end of the case, up to 2000 characters; ``teaching``: a link and a
    picture with it. ``answers``: what is right for the teacher's own questions, by their ids, as far as it is known.
    """

    label: str
    label_source: str
    organ: str
    attributes: Mapping[str, Scalar] = field(default_factory=dict, hash=False)
    feedback: str = ""
    teaching: Teaching = field(default_factory=Teaching)
    answers: Answers = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Refuse what a case library would refuse (`CaseLibraryError`): nothing may lead back to a patient."""
        object.__setattr__(self, "attributes", _plain_attributes("case", self))


@dataclass(frozen=True, eq=False)
class QuizNeighbour:
    """A similar case of the library; ``thumbnails``: plane -> uint8 grey (height, width), {} where the library has none."""

    case_id: str
    label: str
    similarity: float
    label_source: str
    organ: str
    attributes: Mapping[str, Scalar]
    thumbnails: Mapping[str, np.ndarray]

    def __post_init__(self) -> None:
        """As `Diagnosis`."""
        object.__setattr__(self, "attributes", _plain_attributes(self.case_id, self))


@dataclass(frozen=True, eq=False)
class ModelPrediction:
    """What the model says of a case, computed when the quiz was made. ``probabilities``: one per class, in their order.

    ``label`` is empty where the model has no answer: then the probabilities are shown to nobody. ``scores``: by name, empty for
    most models, on the scales of the quiz; ``sentence``: what they say of the lesion in one line.
    """

    label: str
    probabilities: Mapping[str, float]
    reliability: Reliability
    warnings: tuple[str, ...]
    heat_map: HeatMap | None
    similar: tuple[QuizNeighbour, ...]
    scores: Mapping[str, float] = field(default_factory=dict)
    sentence: str = ""


@dataclass(frozen=True, eq=False)
class QuizCase:
    """One case. ``volume``: the patch, int16 HU; ``box``: the teacher's box on it."""

    case_id: str
    volume: CTVolume
    box: LesionBox
    known: Diagnosis
    prediction: ModelPrediction


@dataclass(frozen=True, eq=False)
class Quiz:
    """A quiz. ``boxes``: "given" by the teacher, "placed" by the learner, or "free", as the learner likes.

    ``model``: name, version and SHA-256 of the model that answered; ``scores``: the scales on which it scored the cases.
    ``questions``: the teacher's own, asked with the first answer. ``order``: "random" for each learner, or "fixed" as the cases
    stand here; ``repeat``: whether a learner may begin it once more at its end. ``sealed_from``: of a quiz for learners, whose
    cases are `sealing.SealedCase`, the fingerprint of the teacher's; answers belong to that one.
    Make one with `making.make_quiz`, read one with `file.load_quiz`.
    Raises `QuizError` for cases that do not fit together or that would name a patient.
    """

    title: str
    instructions: str
    boxes: str
    seed: int
    window_hu: tuple[float, float]
    model: tuple[str, str, str]
    classes: tuple[QuizClass, ...]
    cases: tuple[QuizCase | SealedCase, ...]
    scores: tuple[ScoreSpec, ...] = ()
    questions: tuple[Question, ...] = ()
    order: str = "random"
    repeat: bool = False
    sealed_from: str = ""

    def __post_init__(self) -> None:
        """Check what a schema cannot see."""
        _require_different("class", [c.name for c in self.classes])
        _require_different("case", [c.case_id for c in self.cases])
        if sum(c.volume.array.size for c in self.cases) > MAX_VOXELS_TOGETHER:
            msg = f"The patches have more than {MAX_VOXELS_TOGETHER:,} voxels together; take fewer cases or a smaller margin."
            raise QuizError(msg)
        if not self.window_hu[0] < self.window_hu[1]:
            msg = f"The window runs from {self.window_hu[0]:g} to {self.window_hu[1]:g} HU; give the lower value first."
            raise QuizError(msg)
        whole = [case for case in self.cases if isinstance(case, QuizCase)]  # a sealed one is checked when it is opened
        truths = {case.case_id: case.known.answers for case in whole}
        require_questions(self.questions, {c.case_id: truths.get(c.case_id, {}) for c in self.cases})
        for case in whole:
            require_sound(case, self.class_names, self.scores)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The answers that can be given."""
        return tuple(c.name for c in self.classes)

    def questions_of(self, case_id: str) -> tuple[Question, ...]:
        """The teacher's own questions for a case."""
        return tuple(one for one in self.questions if not one.cases or case_id in one.cases)

    def case(self, case_id: str) -> QuizCase | SealedCase:
        """The case of this id. Raises `QuizError`."""
        for case in self.cases:
            if case.case_id == case_id:
                return case
        msg = f"The quiz {self.title!r} has no case {case_id!r}."
        raise QuizError(msg)


def _plain_attributes(case_id: str, entry: Diagnosis | QuizNeighbour) -> Mapping[str, Scalar]:
    """Checked as those of a library's case, NumPy scalars made plain."""
    text = getattr(entry, "feedback", "")
    return Case(
        case_id, entry.label, entry.label_source, entry.organ, NOBODY, NOBODY, entry.attributes, text
    ).attributes


def require_sound(case: QuizCase, class_names: tuple[str, ...], scores: Sequence[ScoreSpec]) -> None:
    """Refuse a case that does not fit the classes and scales of its quiz (`QuizError`)."""
    answer, where = case.prediction, f"case {case.case_id}"
    if case.volume.array.dtype != np.int16 or case.volume.array.size > MAX_VOXELS:
        msg = (
            f"{where}: the patch is {case.volume.array.dtype} of {case.volume.array.size:,} voxels; "
            f"give int16, at most {MAX_VOXELS:,}."
        )
        raise QuizError(msg)
    named = {case.known.label, answer.label or case.known.label, *answer.probabilities}
    if unknown := sorted(named - set(class_names)):
        msg = f"{where}: {unknown[0]!r} is no class of this quiz; its classes are {', '.join(class_names)}."
        raise QuizError(msg)
    if abs(sum(answer.probabilities.values()) - 1) > 1e-3:
        msg = f"{where}: the probabilities add up to {sum(answer.probabilities.values()):.3f}, not to 1."
        raise QuizError(msg)
    _require_spread_of(answer.reliability, len(class_names), where)
    require_overlap(case.volume, case.box)
    _require_scales_of(case, scores)


def _require_scales_of(case: QuizCase, scores: Sequence[ScoreSpec]) -> None:
    known = {spec.name for spec in scores}
    if case.prediction.scores and set(case.prediction.scores) != known:
        unknown = sorted(set(case.prediction.scores) ^ known)[0]
        msg = f"case {case.case_id}: the score {unknown!r} is not both in the case and among the quiz's; make the quiz again."
        raise QuizError(msg)


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
