"""What goes into a runner and what comes out of it. Knows no torch, so that an interface can import it at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .errors import LesionLensError
from .geometry import CTVolume, LesionBox
from .heat_map import HeatMap
from .input_warning import InputWarning
from .results import LesionResult, RunInfo

if TYPE_CHECKING:
    from .sampling_kinds import Spec

Device = Literal["auto", "cpu", "cuda"]
PrecisionChoice = Literal["auto", "float32"]
Progress = Callable[[int, int, str], None]
RGB = tuple[float, float, float]


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


@dataclass(frozen=True, eq=False)
class EmbeddingRequest:
    """One lesion of one CT for one model that may know no classes: where does it lie among others?

    Answered in float32 whatever the options say: a library's vectors were made so, and the last bits order close cases.
    ``similar_to``: the embedding (d,) of another lesion; the answer then shows what in this one makes it resemble that
    one. ``query_only``: the vector alone is wanted, no class probabilities.
    """

    model: str
    volume: CTVolume
    box: LesionBox
    options: RunOptions = field(default_factory=RunOptions)
    similar_to: np.ndarray | None = None
    query_only: bool = False


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
    class_colors: tuple[RGB, ...]
    precision: Precision


@dataclass(frozen=True, eq=False)
class ModelDescription:
    """A loaded model without its network: whoever keeps it keeps no memory of a GPU.

    ``sha256`` names the bundle. ``device``: how results name what it computes on. ``spec``: what of a CT it looks at.
    """

    name: str
    version: str
    sha256: str
    class_names: tuple[str, ...]
    class_colors: tuple[RGB, ...]
    spec: Spec
    manifest: Mapping[str, Any]
    folder: Path
    device: str


@dataclass(frozen=True, eq=False)
class Embedding:
    """Where a model sees a lesion among others.

    ``vector``: L2-normalised float32, (d,). ``probabilities`` is empty where only the vector was asked for, and like
    ``class_colors`` for a model that only compares lesions. ``heat_map``: what in the lesion makes it resemble the one
    asked for; None where none was. ``warnings``: how it was computed, as on the CPU for want of GPU memory.
    """

    vector: np.ndarray
    probabilities: Mapping[str, float]
    class_colors: Mapping[str, RGB]
    heat_map: HeatMap | None
    info: RunInfo
    warnings: tuple[InputWarning, ...] = ()


def describing_request(model: str, options: RunOptions | None = None) -> EmbeddingRequest:
    """Asks about a lesion made from a formula: the answer says who the model is and how long its vectors are."""
    from .golden import golden_case

    return EmbeddingRequest(model, *golden_case(), options or RunOptions())
