"""The smallest parts of the JSON schemas of quizzes and attempts, how a text is read by one, and the error of all that is no quiz."""

from __future__ import annotations

import json
import math
from typing import Any

from LesionLib.errors import LesionLensError

LONGEST_TEXT = 2000
MAX_CLASSES = 200

# Names start with a letter or digit: a spreadsheet takes what starts with = + - @ for a formula.
NAME = {"type": "string", "pattern": r"^\w[^\x00-\x1f\x7f]{0,99}$"}
TEXT = {"type": "string", "maxLength": LONGEST_TEXT}
CODE = {"type": "string", "pattern": r"^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$"}
SHA256 = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
NUMBER = {"type": "number", "minimum": -1e12, "maximum": 1e12}
SHARE = {"type": "number", "minimum": 0, "maximum": 1 + 1e-6}  # float32 rounds
SECONDS = {"type": "number", "minimum": 0, "maximum": 1e8}
SCALAR = {"type": ["string", "number", "boolean", "null"], "maxLength": 200}


def object_of(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    """An object with these keys and no others."""
    properties = {**required, **optional}
    return {"type": "object", "additionalProperties": False, "required": list(required), "properties": properties}


def or_null(schema: dict[str, Any]) -> dict[str, Any]:
    """What the schema says, or null."""
    return {"anyOf": [{"type": "null"}, schema]}


def list_of(items: dict[str, Any], *, low: int = 0, high: int) -> dict[str, Any]:
    """A list of them."""
    return {"type": "array", "items": items, "minItems": low, "maxItems": high}


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


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        msg = f"the number {text[:20]} is not finite"
        raise ValueError(msg)
    return value


def _short(problem: object) -> str:
    lines = str(problem).strip().splitlines() or [type(problem).__name__]
    return lines[0][:200].rstrip(".")
