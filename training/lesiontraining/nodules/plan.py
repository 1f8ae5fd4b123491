"""What makes a nodule model: its question, what its head may choose from, and the text of its card. A YAML file of values."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any, Literal

from LesionLib.sampling.inputs import Spec

from lesiontraining.commands.plans import LesionClass, ModelText, read_plan_as
from lesiontraining.nodules.described import NODULE_SPEC

Question = Literal["malignancy", "kind", "description", "retrieval"]


@dataclass(frozen=True)
class NodulePlan:
    """``components``: principal directions of what the network sees; ``measures_weight``: of its measures beside them, in units
    of all directions together; ``penalties``, ``steadiness``: what the ridge may choose from, see
    `lesiontraining.nodules.heads.fit_ridge`. ``alpha``: what prediction sets may miss. ``quantile``: the share of nodules that
    count as usual. ``draws``: of the bootstrap. ``heat_every``: of how many nodules one has its heat map measured.
    ``explained``: the class whose map is shown unasked; "" for the answered one.
    ``scores``: as in a manifest, without the errors, which are measured.
    """

    name: str
    version: str
    question: Question
    text: ModelText
    classes: list[LesionClass] = field(default_factory=list)
    components: int = 250
    measures_weight: float = 1.0
    penalties: list[float] = field(default_factory=lambda: [0.01])
    steadiness: list[float] = field(default_factory=lambda: [0.0])
    alpha: float = 0.1
    quantile: float = 0.96
    draws: int = 2000
    heat_every: int = 16
    explained: str = ""
    scores: list[dict[str, Any]] = field(default_factory=list)
    seed: int = 0

    @property
    def class_names(self) -> tuple[str, ...]:
        """In the order of the outputs."""
        return tuple(one.name for one in self.classes)

    @property
    def spec(self) -> Spec:
        """How a box becomes network input."""
        return NODULE_SPEC

    def filled(self, text: str, **measured: float) -> str:
        """A text of the card with measured numbers in place of their names, such as $low_mm."""
        return Template(text.strip()).safe_substitute({name: f"{value:g}" for name, value in measured.items()})


def read_nodule_plan(name: str | Path) -> NodulePlan:
    """The plan of a YAML file, or of one that comes along by its name. Raises `PlanError` for what does not fit."""
    return read_plan_as(NodulePlan, name, of="a nodule model", field="question")[0]
