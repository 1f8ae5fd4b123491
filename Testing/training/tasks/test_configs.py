"""Every recipe that comes along can be built: its task at full width, its data's options, its input."""

from __future__ import annotations

import inspect

import pytest
import yaml
from lesiontraining.data.crops import input_spec
from lesiontraining.data.data_module import LesionDataModule
from lesiontraining.data.readers.registry import READERS
from recipe_tasks import CONFIGS, task_of


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recipe_can_be_built(path):
    recipe = yaml.safe_load(path.read_text())
    built = task_of(recipe, ["a", "b", "c"])
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
