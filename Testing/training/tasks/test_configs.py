"""Every recipe that comes along can be built: its task at full width, its data's options, its input."""

from __future__ import annotations

import inspect

import pytest
import torch
import yaml
from lesiontraining import tasks
from lesiontraining.data.augment import Augmentation
from lesiontraining.data.crops import input_spec
from lesiontraining.data.data_module import LesionDataModule
from lesiontraining.data.readers.registry import READERS
from repository import ROOT

CONFIGS = sorted((ROOT / "training" / "configs").glob("*/*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recipe_can_be_built(path):
    recipe = yaml.safe_load(path.read_text())
    task = getattr(tasks, recipe["model"]["class_path"].removeprefix("lesiontraining.tasks."))
    options = dict(recipe["model"]["init_args"])
    if "augmentation" in options:
        options["augmentation"] = Augmentation(**options["augmentation"])
    with torch.device("meta"):
        built = task(class_names=["a", "b", "c"], **options)
    assert built.bundle_parts
    spec = input_spec(recipe["data"]["input"])
    known = inspect.signature(LesionDataModule).parameters
    assert set(recipe["data"]) <= set(known)
    assert recipe["data"].get("reader", "table") in READERS
    windows = len(getattr(spec, "windows_hu", ((0, 1),) * 3))
    assert built.arguments.get("channels", windows) % windows == 0


def test_every_paper_has_its_recipe():
    names = {path.stem for path in CONFIGS if path.parent.name == "paper"}
    assert names == {"dmrn", "dadrn", "orthopatch", "lesionsearch", "lesionsearch-pretrain", "siamese", "vae"}
