"""What a runner is asked about a lesion that is to be compared, and what it answers. Knows no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from LesionLib.golden import golden_case
from LesionLib.heat_map import HeatMap
from LesionLib.runner_types import RunOptions, RunRequest

from .library_schema import ModelIdentity

RGB = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class LookRequest(RunRequest):
    """One box of one CT for one model. ``similar_to``: the embedding (d,) of the case to be compared with, if any."""

    similar_to: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class LesionLook:
    """How a model sees a lesion.

    ``embedding``: L2-normalised float32, (d,). ``probabilities`` and ``class_colors`` are empty for a model that only
    compares lesions. ``heat_map``: what in the lesion makes it resemble the one asked for; None where none was.
    """

    embedding: np.ndarray
    probabilities: Mapping[str, float]
    class_colors: Mapping[str, RGB]
    heat_map: HeatMap | None
    model: ModelIdentity
    device: str


def describing_request(model: str, options: RunOptions | None = None) -> LookRequest:
    """A look at a lesion made from a formula: its answer says who the model is and how long its embeddings are."""
    volume, box = golden_case()
    return LookRequest(model, volume, [box], options or RunOptions())
