"""What all plans of shipped models share: how they are read, their classes, and the text of a card.

A plan is a YAML file; those that come along are in ``training/models``. It holds values only: text of the card may name numbers
of the input, nothing in it is evaluated.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import jsonschema
import yaml
from jsonargparse import ArgumentError, ArgumentParser
from LesionLib.errors import LesionLensError
from LesionLib.model.codes import CODE_SCHEMA

from lesiontraining.commands.recipe_check import restrict_imports
from lesiontraining.commands.recipes import brought_along

PLANS = brought_along("models")
_Plan = TypeVar("_Plan")


class PlanError(LesionLensError):
    """A plan of a model that cannot be read, or that does not fit its data."""


@dataclass(frozen=True)
class LesionClass:
    """A class of the model: its name as the reader gives it, what it means, and its colour, red, green and blue in 0 ... 1."""

    name: str
    description: str
    color: tuple[float, float, float]


@dataclass(frozen=True)
class ModelText:
    """What the model says of itself. ``lesion``: what it is asked about, in a word; ``command``: how it is made again.

    ``how`` and ``limits`` may name fields of the input, such as $margin_mm; ``limits`` also $low_mm and $high_mm, the smallest and
    the largest box edge of training. ``channels``: of the network's input, by name.
    ``protocol``: the collection and how its folds were made; ``boxes``: what the given boxes are; ``lead``: what a reader must
    know before the figures. ``finding_site``: scheme, value and meaning of the DICOM code of where in
    the body its lesions lie; none for a model of phantoms.
    """

    lesion: str
    task: str
    description: str
    intended_use: str
    question: str
    how: str
    protocol: str
    lead: str
    limits: list[str]
    credit: str
    license: str
    command: str
    data_source: str
    boxes: str = "the box of the table"
    remark: str = ""
    authors: str = ""
    copyright: str = ""
    references: list[str] = field(default_factory=list)
    channels: list[str] = field(default_factory=list)
    changelog: dict[str, str] = field(default_factory=dict)
    finding_site: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a finding site that no manifest could hold before anything is trained."""
        if not self.finding_site:
            return
        try:
            jsonschema.validate(self.finding_site, CODE_SCHEMA)
        except jsonschema.ValidationError as error:
            msg = f"finding_site: {error.message}"
            raise ValueError(msg) from error


def read_plan_as(kind: type[_Plan], name: str | Path, *, of: str, field: str) -> tuple[_Plan, str]:
    """The plan of a YAML file, or of one that comes along by its name, and the file's name for messages.

    ``of``: what such a plan makes, for messages; ``field``: what only plans of this kind have. Raises `PlanError`.
    """
    path = Path(name)
    if not os.path.isfile(path):
        path = PLANS / f"{name}.yaml"
    if not os.path.isfile(path):
        known = (found.stem for found in PLANS.glob("*.yaml") if f"\n{field}:" in found.read_text("utf-8"))
        msg = f"there is no plan {str(name)!r}; give a YAML file, or one of {', '.join(sorted(known))}."
        raise PlanError(msg)
    restrict_imports()
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        plan = kind(**vars(parser.instantiate(parser.parse_object(values))))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ArgumentError, TypeError, ValueError, KeyError) as error:
        msg = f"{path.name} is no plan of {of}: {' '.join(str(error).split())[:600]}"
        raise PlanError(msg) from error
    return plan, path.name
