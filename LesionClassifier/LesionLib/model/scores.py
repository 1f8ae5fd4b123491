"""What a model says beside its classes: ordinal scores, each on a scale whose levels its manifest names. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from LesionLib.model.codes import CODE_SCHEMA, DicomCode, code_from_json

SAY = ("always", "when_high", "never")
MAX_SCORES, MAX_LEVELS = 32, 21
_NAME = {"type": "string", "pattern": r"^[A-Za-z0-9][A-Za-z0-9 _-]{0,47}\Z"}
# One line, and nothing that moves a terminal's cursor.
_LINE = {"type": "string", "maxLength": 200, "pattern": r"^[^\x00-\x1f\x7f-\x9f]*\Z"}
_WORDS = {**_LINE, "pattern": r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*\Z"}
_LEVEL = {"type": "integer", "minimum": -1000, "maximum": 1000}
_MEAN_ERROR = {"type": "number", "minimum": 0, "maximum": 2000}
SCORES_SCHEMA = {
    "type": "array",
    "maxItems": MAX_SCORES,
    "description": "the last columns of the network's output, in units of their scales, one a score; none: classes only",
    "items": {
        "type": "object",
        "additionalProperties": False,
        "required": ["name", "description", "low", "high", "levels"],
        "properties": {
            "name": _NAME,
            "description": _LINE,
            "low": _LEVEL,
            "high": _LEVEL,
            "levels": {
                "type": "array", "items": _WORDS, "minItems": 2, "maxItems": MAX_LEVELS,
                "description": "one text for each whole number from low to high",
            },
            "code": {
                **CODE_SCHEMA,
                "description": "the DICOM code of the score in a structured report; left out: one of our own scheme",
            },
            "error": {
                "type": "object",
                "additionalProperties": False,
                "required": ["model", "reader", "n"],
                "properties": {
                    "model": _MEAN_ERROR,
                    "reader": _MEAN_ERROR,
                    "n": {"type": "integer", "minimum": 1, "maximum": 10**9},
                },
                "description": "mean absolute error against the readers' mean; of one reader against the mean of the others",
            },
            "say": {"enum": list(SAY), "description": "whether it is part of the sentence; left out: never"},
            "say_from": {**_LEVEL, "description": "the level from which when_high says it; left out: the middle of the scale"},
            "word": {**_WORDS, "maxLength": 64, "description": "what the sentence says before the level; left out: the name"},
            "phrases": {
                "type": "array", "items": _LINE, "minItems": 2, "maxItems": MAX_LEVELS,
                "description": "what the sentence says in place of word and level, one a level; where empty, nothing",
            },
        },
    },
}  # fmt: skip


@dataclass(frozen=True)
class ScoreError:
    """Mean absolute errors in units of the scale on ``n`` lesions: of the ``model`` against the readers' mean, and of one
    ``reader`` against the mean of the others.
    """

    model: float
    reader: float
    n: int


@dataclass(frozen=True)
class ScoreSpec:
    """One score: its scale from ``low`` to ``high``, the text of each whole level, and how a sentence says it.

    ``say``: "always", "when_high" (from the level ``say_from`` on) or "never". What is said is the level's entry of
    ``phrases``, or ``word`` and the level: ``lobulated 3 of 5``. ``code``: for a structured report. Raises ValueError for
    what does not fit together.
    """

    name: str
    description: str
    low: int
    high: int
    levels: tuple[str, ...]
    code: DicomCode | None = None
    error: ScoreError | None = None
    say: str = "never"
    say_from: int | None = None
    word: str = ""
    phrases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check what a schema cannot see."""
        wanted = self.high - self.low + 1
        if wanted < 2:
            msg = f"score {self.name!r} runs from {self.low} to {self.high}; low must be below high"
            raise ValueError(msg)
        for what, texts in (("levels", self.levels), ("phrases", self.phrases)):
            if len(texts) != wanted and (texts or what == "levels"):
                msg = (
                    f"score {self.name!r} runs from {self.low} to {self.high} and has {len(texts)} {what}, not {wanted}"
                )
                raise ValueError(msg)
        if self.say_from is not None and not self.low <= self.say_from <= self.high:
            msg = f"score {self.name!r} is said from {self.say_from} on, which is not on its scale of {self.low} to {self.high}"
            raise ValueError(msg)

    def clipped(self, value: float) -> float:
        """``value`` on the scale: what lies beyond an end is that end."""
        return min(max(float(value), float(self.low)), float(self.high))

    def level(self, value: float) -> int:
        """The nearest level; the higher one from the middle between two on."""
        return math.floor(self.clipped(value) + 0.5)

    def level_text(self, value: float) -> str:
        """What the nearest level means."""
        return self.levels[self.level(value) - self.low]

    def level_on_scale(self, value: float) -> str:
        """``3 of 5``; ``3 on 0 to 4`` for a scale that does not begin with 1."""
        level = self.level(value)
        return f"{level} of {self.high}" if self.low == 1 else f"{level} on {self.low} to {self.high}"

    def share(self, value: float) -> float:
        """How far up the scale ``value`` lies, 0 to 1."""
        return (self.clipped(value) - self.low) / (self.high - self.low)

    def phrase(self, value: float) -> str:
        """What a sentence says of this score; "" where nothing."""
        level = self.level(value)
        lowest = math.ceil((self.low + self.high) / 2) if self.say_from is None else self.say_from
        if self.say == "never" or (self.say == "when_high" and level < lowest):
            return ""
        if self.phrases:
            return self.phrases[level - self.low]
        return f"{self.word or self.name} {self.level_on_scale(value)}"

    @property
    def errs_more_than_a_reader(self) -> bool:
        """Whether the model's error is larger than one reader's; False where it was not measured."""
        return self.error is not None and self.error.model > self.error.reader

    @property
    def note(self) -> str:
        """What has to be said where the model errs more than a reader; else ""."""
        if self.error is None or not self.errs_more_than_a_reader:
            return ""
        return (
            f"For {self.name} the model is off by {self.error.model:.2f} on average, more than one reader is from the "
            f"others ({self.error.reader:.2f})."
        )

    def to_json(self) -> dict[str, Any]:
        """As the manifest has it; what was left out stays left out."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
            if value not in (None, "", ()) or key == "description"
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ScoreSpec:
        """What `to_json` wrote, or an entry of a checked manifest. Raises ValueError, TypeError or LookupError."""
        code, error = values.get("code"), values.get("error")
        return cls(**{
            **values,
            "levels": tuple(values["levels"]),
            "phrases": tuple(values.get("phrases", ())),
            "code": code_from_json(code),
            "error": None if error is None else ScoreError(**error),
        })  # fmt: skip


def scores_from_json(entries: Iterable[Mapping[str, Any]]) -> tuple[ScoreSpec, ...]:
    """The scores of a checked manifest, in the order of the network's columns. Raises ValueError naming what does not fit."""
    specs = tuple(map(ScoreSpec.from_json, entries))
    names = [spec.name for spec in specs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        msg = f"two scores are named {twice!r}"
        raise ValueError(msg)
    return specs


def named_scores(specs: Sequence[ScoreSpec], values: Iterable[float]) -> dict[str, float]:
    """The values by the names of their scores, each brought onto its scale."""
    return {spec.name: spec.clipped(value) for spec, value in zip(specs, values, strict=True)}
