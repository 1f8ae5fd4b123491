"""What a quiz is made of: its cases, what is known of them, and the model's answers. Nothing of it names a patient.

With it: what a quiz file and a learner's attempt may hold, as JSON schemas, how both are read with suspicion, and how well
two boxes agree.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from LesionLib.errors import LesionLensError
from LesionLib.explain.heat_map import HeatMap
from LesionLib.geometry import CTVolume, LesionBox, require_overlap
from LesionLib.model.scores import MAX_SCORES, SCORES_SCHEMA, ScoreSpec
from LesionLib.uncertainty.reliability import Reliability

from LesionRetrievalLib.library.cases import Case, Scalar

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
NOTICE = "Research use only, not for diagnosis."

MAX_CASES, MAX_SIMILAR, MAX_CLASSES = 500, 50, 200
LONGEST_TITLE, LONGEST_TEXT = 200, 2000
MAX_VOXELS, MAX_PIXELS = 16 * 1024**2, 512**2  # of one patch or heat map; of one picture
MAX_VOXELS_TOGETHER = 128 * 1024**2
_CHARACTERS = 4  # base64 of an int16, with room for what zlib adds to values that it cannot shorten

# Names start with a letter or digit: a spreadsheet takes what starts with = + - @ for a formula.
_NAME = {"type": "string", "pattern": r"^\w[^\x00-\x1f\x7f]{0,99}$"}
_TEXT = {"type": "string", "maxLength": LONGEST_TEXT}
_CODE = {"type": "string", "pattern": r"^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$"}
_SHA256 = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_NUMBER = {"type": "number", "minimum": -1e12, "maximum": 1e12}
_SHARE = {"type": "number", "minimum": 0, "maximum": 1 + 1e-6}  # float32 rounds
_SECONDS = {"type": "number", "minimum": 0, "maximum": 1e8}
_SCALAR = {"type": ["string", "number", "boolean", "null"], "maxLength": 200}


def _object(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    properties = {**required, **optional}
    return {"type": "object", "additionalProperties": False, "required": list(required), "properties": properties}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [{"type": "null"}, schema]}


def _list(items: dict[str, Any], *, low: int = 0, high: int) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": low, "maxItems": high}


def _numbers(count: int) -> dict[str, Any]:
    return _list({"type": "number", "minimum": -1e6, "maximum": 1e6}, low=count, high=count)


def packed_schema(dtype: str, dimensions: int, most: int) -> dict[str, Any]:
    """The schema of an array packed by `file.pack_array`: ``most`` bounds its sides, and the text that holds it."""
    side = {"type": "integer", "minimum": 1, "maximum": most}
    data = {"type": "string", "maxLength": _CHARACTERS * most + 64}
    return _object({"dtype": {"const": dtype}, "shape": _list(side, low=dimensions, high=dimensions), "zlib": data})


_MATRIX = _list(_numbers(4), low=4, high=4)
BOX_SCHEMA = _object(
    {"centerRAS": _numbers(3), "sizeMm": _numbers(3), "axesRAS": _list(_numbers(3), low=3, high=3)},
)
_ATTRIBUTES = {"type": "object", "maxProperties": 100, "additionalProperties": _SCALAR}
_PICTURES = {
    "type": "object",
    "propertyNames": {"enum": ["axial", "coronal", "sagittal"]},
    "additionalProperties": packed_schema("uint8", 2, MAX_PIXELS),
}
_HEAT_MAP = _object(
    {
        "values": packed_schema("uint8", 3, MAX_VOXELS),
        "ijkToRAS": _MATRIX,
        "peak": _NUMBER,
        "className": _NAME,
    }
)
_WHOLE = {"type": "integer", "minimum": 0, "maximum": 100_000}
_SHARES = _list(_or_null(_SHARE), low=2, high=MAX_CLASSES)
_SPREAD = _object(
    {
        **dict.fromkeys(("mean", "minimum", "maximum", "sd"), _SHARES),
        **dict.fromkeys(("label", "keeping", "answered", "skipped"), _WHOLE),
        **dict.fromkeys(("shift_mm", "size_mm"), _NUMBER),
    },
    **dict.fromkeys(("score_minimum", "score_maximum"), _list(_or_null(_NUMBER), high=MAX_SCORES)),
)
_RELIABILITY = _object(
    {
        "predictionSet": _or_null(_list(_NAME, high=MAX_CLASSES)),
        "promisedCoverage": _or_null(_SHARE),
        "distance": _or_null(_NUMBER),
        "usualDistance": _or_null(_NUMBER),
        "heatInside": _or_null(_SHARE),
        "boxSpread": _or_null(_SPREAD),
    }
)
_ANSWER = _object(
    {
        "label": {"anyOf": [_NAME, {"const": ""}]},
        "probabilities": {"type": "object", "additionalProperties": _SHARE, "minProperties": 2},
        "reliability": _RELIABILITY,
        "warnings": _list(_TEXT, high=50),
        "heatMap": _or_null(_HEAT_MAP),
    },
    scores={"type": "object", "additionalProperties": _NUMBER, "maxProperties": MAX_SCORES},
    sentence=_TEXT,
)
_SIMILAR = _object(
    {
        "caseId": {"type": "string", "pattern": r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$"},
        "label": _NAME,
        "similarity": {"type": "number", "minimum": -1.001, "maximum": 1.001},
        "labelSource": _TEXT,
        "organ": _TEXT,
        "attributes": _ATTRIBUTES,
        "pictures": _PICTURES,
    }
)
_CASE = _object(
    {
        "id": _CODE,
        "patch": _object({"hu": packed_schema("int16", 3, MAX_VOXELS), "ijkToRAS": _MATRIX}),
        "box": BOX_SCHEMA,
        "known": _object(
            {"label": _NAME, "labelSource": _TEXT, "organ": _TEXT, "attributes": _ATTRIBUTES},
            feedback={**_TEXT, "minLength": 1},
        ),
        "answer": _ANSWER,
        "similar": _list(_SIMILAR, high=MAX_SIMILAR),
    }
)
_CLASS = _object(
    {
        "name": _NAME,
        "description": _TEXT,
        "colorRGB": _list(_SHARE, low=3, high=3),
    }
)
QUIZ_SCHEMA = _object(
    {
        "format": {"const": FORMAT},
        "schema": {"const": SCHEMA_VERSION},
        "title": {"type": "string", "minLength": 1, "maxLength": LONGEST_TITLE},
        "instructions": _TEXT,
        "boxes": {"enum": ["given", "placed", "free"]},
        "seed": {"type": "integer", "minimum": 0, "maximum": 2**63},
        "windowHU": _numbers(2),
        "model": _object({"name": _NAME, "version": _NAME, "sha256": _SHA256}),
        "classes": _list(_CLASS, low=2, high=MAX_CLASSES),
        "cases": _list(_CASE, low=1, high=MAX_CASES),
        "notice": {"const": NOTICE},
    },
    scores=SCORES_SCHEMA,
)
ATTEMPT_SCHEMA = _object(
    {
        "format": {"const": ATTEMPT_FORMAT},
        "version": {"const": ATTEMPT_VERSION},
        "quiz": _SHA256,
        "learner": _CODE,
        "started": {"type": "string", "maxLength": 40},
        "order": _list(_CODE, low=1, high=MAX_CASES),
    }
)
_EVENT = {"case": _CODE, "seconds": _SECONDS}
EVENT_SCHEMA = {
    "oneOf": [
        _object({"interrupted": {"const": True}}),
        _object({**_EVENT, "step": {"enum": ["look", "reveal", "feedback"]}}),
        _object({**_EVENT, "step": {"const": "box"}, "box": _or_null(BOX_SCHEMA)}),
        _object(
            {
                **_EVENT,
                "step": {"enum": ["first answer", "second answer"]},
                "label": _NAME,
                "confidence": _SHARE,
            }
        ),
    ]
}


class QuizError(LesionLensError):
    """A quiz, a learner's answers or a step of it is not what it should be; the text says what to do."""


def checked_json(text: str, schema: dict[str, Any], *, where: str) -> dict[str, Any]:
    """``text`` as JSON, with finite numbers and as ``schema`` says. Raises `QuizError`, naming ``where`` and the place."""
    try:
        import jsonschema  # not at file scope: a panel may open before it is installed
    except ImportError as error:
        msg = (
            "The package jsonschema, which checks quizzes, is not installed; set it up in Lesion Classifier, or by pip."
        )
        raise QuizError(msg) from error
    try:
        content = json.loads(text, parse_float=_finite, parse_constant=_finite)
        jsonschema.Draft202012Validator(schema).validate(content)
    except (ValueError, RecursionError) as error:
        msg = f"{where} cannot be read as JSON ({_short(error)}); it was damaged or is another kind of file."
        raise QuizError(msg) from error
    except jsonschema.ValidationError as error:
        msg = f"{where} is not as it should be at {error.json_path}: {_short(error.message)}."
        raise QuizError(msg) from error
    return content


def checked_learner(learner: object) -> str:
    """``learner`` if it may be a learner's code. Raises `QuizError`."""
    if not isinstance(learner, str) or not re.fullmatch(_CODE["pattern"].rstrip("$"), learner):
        msg = f"The learner's code is {str(learner)[:40]!r}; give 1 to 32 of A-Z a-z 0-9 . _ - beginning with a letter or digit."
        raise QuizError(msg)
    return learner


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        msg = f"the number {text[:20]} is not finite"
        raise ValueError(msg)
    return value


def _short(problem: object) -> str:
    lines = str(problem).strip().splitlines() or [type(problem).__name__]
    return lines[0][:200].rstrip(".")


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
    cases: tuple[QuizCase, ...]
    scores: tuple[ScoreSpec, ...] = ()

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
        for case in self.cases:
            _require_sound(case, self.class_names)
            _require_scales_of(case, self.scores)

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


def _plain_attributes(case_id: str, entry: Diagnosis | QuizNeighbour) -> Mapping[str, Scalar]:
    """Checked as those of a library's case, NumPy scalars made plain."""
    text = getattr(entry, "feedback", "")
    return Case(
        case_id, entry.label, entry.label_source, entry.organ, NOBODY, NOBODY, entry.attributes, text
    ).attributes


def _require_sound(case: QuizCase, class_names: tuple[str, ...]) -> None:
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
