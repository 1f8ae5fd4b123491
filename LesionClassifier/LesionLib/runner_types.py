"""What goes into a runner and what comes out of it. Knows no torch, so that an interface can import it at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from .errors import LesionLensError
from .geometry import CTVolume, LesionBox
from .results import LesionResult, RunInfo

Device = Literal["auto", "cpu", "cuda"]
PrecisionChoice = Literal["auto", "float32"]
Progress = Callable[[int, int, str], None]


class RunnerError(LesionLensError):
    """Inference could not be started, was refused, or its process came to an end."""


class RunnerCancelled(RunnerError):
    """The request was cancelled; there is no answer."""


@dataclass(frozen=True)
class RunOptions:
    """How to answer.

    ``class_name``: the class that the Grad-CAM explains (None: the one that is answered). ``redrawn``: how many boxes drawn
    a little differently are asked too, for the spread of the answer. ``device``: "auto" is the
    GPU where there is one. ``precision``: "auto" measures once whether bfloat16 pays on this CPU, "float32" never
    does; None is the runner's own default ("auto" in a worker, "float32" in the process itself).
    """

    class_name: str | None = None
    device: Device = "auto"
    precision: PrecisionChoice | None = None
    redrawn: int = 0


@dataclass(frozen=True, eq=False)
class RunRequest:
    """The boxes of one CT for one model, given by its name or the path of its folder."""

    model: str
    volume: CTVolume
    boxes: Sequence[LesionBox]
    options: RunOptions = field(default_factory=RunOptions)


@dataclass(frozen=True)
class Precision:
    """What a network computes in, and why. The times are milliseconds for one batch; None where not measured."""

    name: Literal["float32", "bfloat16"]
    reason: str
    float32_ms: float | None = None
    bfloat16_ms: float | None = None


@dataclass(frozen=True, eq=False)
class RunAnswer:
    """One result a box, in the order of the boxes, and what they share: enough to show them without the model."""

    results: list[LesionResult]
    info: RunInfo
    class_names: tuple[str, ...]
    class_colors: tuple[tuple[float, float, float], ...]
    precision: Precision
