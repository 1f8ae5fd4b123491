"""What makes a model of ``lesiontrain probe``: data, folds, network, input, baselines, and the text of its card.

A plan is a YAML file; those that come along are in ``training/models``. It holds values only: text of the card may name numbers
of the input, nothing in it is evaluated.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from string import Template

import numpy as np
from LesionLib.geometry import LesionBox
from LesionLib.sampling.inputs import KINDS, Spec

from lesiontraining.commands.plans import LesionClass, ModelText, PlanError, read_plan_as
from lesiontraining.data.crops import input_spec
from lesiontraining.tasks.linear_probe import STRENGTHS

SIZES = ("volume_mm3", "diameter_mm")
FEATURES = (*SIZES, "mean_hu")


@dataclass(frozen=True)
class LesionGroup:
    """A part of the lesions with figures of its own: ``column`` of the table from ``low`` to ``high``, both in; "": all."""

    name: str
    column: str = ""
    low: float = float("-inf")
    high: float = float("inf")


@dataclass(frozen=True)
class BoxJitter:
    """How another reader's box may differ from the given one: moved, grown a side, turned about the body axis.

    ``drawings``: how many such boxes of each lesion are fitted on, beside the given one.
    """

    drawings: int = 3
    shift_mm: float = 2.0
    grow_mm: float = 3.0
    turn_degrees: float = 15.0

    def drawn(self, box: LesionBox, rng: np.random.Generator) -> LesionBox:
        """The box drawn again."""
        return box.jittered(rng, shift_mm=self.shift_mm, grow_mm=self.grow_mm, turn_degrees=self.turn_degrees)


@dataclass(frozen=True)
class ProbePlan:
    """All that decides a model besides the data and the published weights.

    ``reader``, ``reader_options``, ``label``: how the table is read; ``folds``: a number, or a column of the table, patients
    never across. ``network``, ``arguments``: of `LesionLib.networks.build_network`; ``input``: kind and fields of its input.
    ``strengths``: of which C is chosen by inner folds. ``baselines``: by name, which of `FEATURES` a regression without
    images knows; ``table_sizes``: volume and diameter are columns of the table, else they are measured. ``groups``: with
    figures of their own, the first being all. ``alpha``: what prediction sets may miss.
    """

    name: str
    version: str
    classes: list[LesionClass]
    text: ModelText
    label: str
    network: str
    input: dict[str, bool | int | float | str | list[float] | list[list[float]]]
    arguments: dict[str, bool | int | float | str] = field(default_factory=dict)
    reader: str = "table"
    reader_options: dict[str, bool | int | float | str] = field(default_factory=dict)
    folds: int | str = 5
    table_sizes: bool = False
    jitter: BoxJitter = field(default_factory=BoxJitter)
    strengths: list[float] = field(default_factory=lambda: list(STRENGTHS))
    baselines: dict[str, list[str]] = field(default_factory=dict)
    groups: list[LesionGroup] = field(default_factory=lambda: [LesionGroup("all lesions")])
    draws: int = 2000
    alpha: float = 0.1
    sanity_patches: int = 32
    seed: int = 0

    @property
    def class_names(self) -> tuple[str, ...]:
        """In the order of the outputs."""
        return tuple(one.name for one in self.classes)

    @property
    def spec(self) -> Spec:
        """How a box becomes network input. Raises `BundleError`."""
        return input_spec(self.input)

    def filled(self, text: str, **measured: float) -> str:
        """A text of the card with numbers in place of their names: the input's, and those ``measured``."""
        values = {**{f.name: getattr(self.spec, f.name) for f in fields(self.spec)}, **measured}
        numbers = {key: f"{value:g}" for key, value in values.items() if isinstance(value, int | float)}
        return Template(text.strip()).safe_substitute(numbers)


def read_plan(name: str | Path) -> ProbePlan:
    """The plan of a YAML file, or of one that comes along by its name. Raises `PlanError` for what does not fit."""
    plan, source = read_plan_as(ProbePlan, name, of="a frozen network with a linear head", field="network")
    _check(plan, source)
    return plan


def _check(plan: ProbePlan, source: str) -> None:
    wrong = sorted({feature for features in plan.baselines.values() for feature in features} - set(FEATURES))
    if wrong:
        msg = f"{source}: baselines know {', '.join(FEATURES)}, not {', '.join(wrong)}."
        raise PlanError(msg)
    if not plan.strengths or len(plan.classes) < 2:
        msg = f"{source}: {len(plan.classes)} class(es) and {len(plan.strengths)} strength(s); two and one are the fewest."
        raise PlanError(msg)
    if plan.input.get("kind") not in KINDS:
        msg = f"{source}: input of kind {plan.input.get('kind')!r} is no CT; choose one of {', '.join(KINDS)}."
        raise PlanError(msg)
