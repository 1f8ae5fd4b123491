"""The recipes that come along, as tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lesiontraining import tasks
from lesiontraining.data.augment import Augmentation
from lesiontraining.tasks.base import LesionTask
from repository import ROOT

CONFIGS = sorted((ROOT / "training" / "configs").glob("*/*.yaml"))


def task_of(recipe: Mapping[str, Any], class_names: Sequence[str]) -> LesionTask:
    """A recipe's task at full width, without memory for its weights."""
    task = getattr(tasks, recipe["model"]["class_path"].removeprefix("lesiontraining.tasks."))
    options = dict(recipe["model"]["init_args"])
    if "augmentation" in options:
        options["augmentation"] = Augmentation(**options["augmentation"])
    with torch.device("meta"):
        return task(class_names=list(class_names), **options)
