"""What a quiz file and a learner's attempt may hold, as JSON schemas, and how both are read with suspicion."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from LesionLib.errors import LesionLensError

FORMAT, SCHEMA_VERSION = "lesionlens-quiz", 1
ATTEMPT_FORMAT, ATTEMPT_VERSION = "lesionlens-quiz-attempt", 1
NOTICE = "Research use only, not for diagnosis."

MOST_CASES, MOST_SIMILAR, MOST_CLASSES = 500, 50, 200
LONGEST_TITLE, LONGEST_TEXT = 200, 2000
MOST_VOXELS, MOST_PIXELS = 16 * 1024**2, 512**2  # of one patch or heat map; of one picture
MOST_VOXELS_TOGETHER = 128 * 1024**2
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
    """The schema of an array packed by `quiz_arrays`: ``most`` bounds its sides, and the text that holds it."""
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
    "additionalProperties": packed_schema("uint8", 2, MOST_PIXELS),
}
_HEAT_MAP = _object(
    {
        "values": packed_schema("uint8", 3, MOST_VOXELS),
        "ijkToRAS": _MATRIX,
        "peak": _NUMBER,
        "className": _NAME,
    }
)
_WHOLE = {"type": "integer", "minimum": 0, "maximum": 100_000}
_SHARES = _list(_or_null(_SHARE), low=2, high=MOST_CLASSES)
_SPREAD = _object(
    {
        **dict.fromkeys(("mean", "minimum", "maximum", "sd"), _SHARES),
        **dict.fromkeys(("label", "keeping", "answered", "skipped"), _WHOLE),
        **dict.fromkeys(("shift_mm", "size_mm"), _NUMBER),
    }
)
_RELIABILITY = _object(
    {
        "predictionSet": _or_null(_list(_NAME, high=MOST_CLASSES)),
        "promisedCoverage": _or_null(_SHARE),
        "distance": _or_null(_NUMBER),
        "usualDistance": _or_null(_NUMBER),
        "heatInside": _or_null(_SHARE),
        "boxSpread": _or_null(_SPREAD),
    }
)
_ANSWER = _object(
    {
        "label": _NAME,
        "probabilities": {"type": "object", "additionalProperties": _SHARE, "minProperties": 2},
        "reliability": _RELIABILITY,
        "warnings": _list(_TEXT, high=50),
        "heatMap": _or_null(_HEAT_MAP),
    }
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
        "patch": _object({"hu": packed_schema("int16", 3, MOST_VOXELS), "ijkToRAS": _MATRIX}),
        "box": BOX_SCHEMA,
        "known": _object(
            {"label": _NAME, "labelSource": _TEXT, "organ": _TEXT, "attributes": _ATTRIBUTES},
            feedback={**_TEXT, "minLength": 1},
        ),
        "answer": _ANSWER,
        "similar": _list(_SIMILAR, high=MOST_SIMILAR),
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
        "classes": _list(_CLASS, low=2, high=MOST_CLASSES),
        "cases": _list(_CASE, low=1, high=MOST_CASES),
        "notice": {"const": NOTICE},
    }
)
ATTEMPT_SCHEMA = _object(
    {
        "format": {"const": ATTEMPT_FORMAT},
        "version": {"const": ATTEMPT_VERSION},
        "quiz": _SHA256,
        "learner": _CODE,
        "started": {"type": "string", "maxLength": 40},
        "order": _list(_CODE, low=1, high=MOST_CASES),
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
