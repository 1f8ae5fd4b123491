"""A run folder, a table and a recipe of version 0.1: measured, exported and fitted again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from lesion_tables import write_lesion_table
from LesionLib.model.bundle import load_bundle
from lesiontraining.cli import main
from lesiontraining.data.readers.registry import read_with
from lesiontraining.runs.folder import FittedModel, RunFolder
from repository import FILES_OF_0_1 as FILES

RECIPE = FILES / "run" / "fold-0" / "logs" / "version_0" / "config.yaml"
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def run(tmp_path) -> Path:
    return Path(shutil.copytree(FILES / "run", tmp_path / "run"))


@pytest.fixture
def table(tmp_path) -> Path:
    """The table of 0.1 beside CTs computed again: the same boxes in the same CTs."""
    made = write_lesion_table(tmp_path / "table", patients=9, lesions=1)
    return Path(shutil.copy(FILES / "lesions.csv", made))


def test_a_finished_run_has_its_predictions_facts_and_network(run):
    (fold,) = RunFolder(run).finished_folds()
    predictions = fold.predictions()
    assert predictions.class_names == ("bright", "hollow")
    assert (len(predictions), predictions.embeddings.shape) == (9, (9, 32))
    assert (fold.facts["task"], fold.facts["epochs"]) == ("CrossEntropyTask", 2)
    model, network = FittedModel.load(fold.path)
    assert (model.architecture, model.class_names, model.temperature) == ("resnet", ("bright", "hollow"), 1.0)
    assert not network.training


def test_a_finished_run_is_measured_as_it_was(run):
    then = json.loads((run / "report" / "metrics.json").read_text())
    assert main(["evaluate", str(run), "--draws", "20"]) == 0
    now = json.loads((run / "report" / "metrics.json").read_text())
    for method, figures in then["figures"].items():  # sensitivity and specificity of one class have come to them
        assert {name: now["figures"][method][name] for name in figures} == figures
    assert (now["lesions"], now["patients"], now["classes"]) == (then["lesions"], then["patients"], then["classes"])


def test_a_finished_run_becomes_the_model_that_it_became(run, tmp_path):
    (tmp_path / "licence.txt").write_text("Phantoms only.\n")
    arguments = ["export", run, "--out", tmp_path / "model", "--license", tmp_path / "licence.txt", "--name", "tiny"]
    assert main([str(argument) for argument in arguments]) == 0
    now, then = (load_bundle(folder).manifest["lesionlens"] for folder in (tmp_path / "model", FILES / "model"))
    np.testing.assert_allclose(now["golden_logits"], then["golden_logits"], atol=1e-5)
    for key in ("architecture", "arguments", "classes", "input", "box_size_mm", "slice_distance_mm"):
        assert now[key] == then[key], key


def test_a_finished_fold_is_left_as_it_is_when_the_fit_is_asked_for_again(run, table, capsys):
    before = (run / "fold-0" / "network.safetensors").read_bytes()
    assert main(["fit", "--config", str(RECIPE), "--data.table", str(table), "--out", str(run)]) == 0
    assert "is finished" in capsys.readouterr().err
    assert (run / "fold-0" / "network.safetensors").read_bytes() == before


def test_a_recipe_of_0_1_names_its_task_by_a_path_that_still_works(table, tmp_path):
    """The path of the class stands in every recipe that a user wrote, and in the one that a run keeps."""
    recipe = yaml.safe_load(RECIPE.read_text())
    assert recipe["model"]["class_path"] == "lesiontraining.tasks.CrossEntropyTask"
    mine = {key: recipe[key] for key in ("seed_everything", "model", "data")}
    mine["trainer"] = {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False}
    mine["model"]["init_args"].pop("class_names", None)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(mine))
    arguments = ["fit", "--config", tmp_path / "mine.yaml", "--data.table", table, "--out", tmp_path / "again"]
    assert main([str(argument) for argument in arguments]) == 0
    assert len(RunFolder(tmp_path / "again").finished_folds()) == 1


@pytest.mark.parametrize(
    "name",
    [
        "CrossEntropyTask",
        "DMRNTask",
        "DADRNTask",
        "OrthoPatchTask",
        "SimCLRTask",
        "LesionSearchTask",
        "SiameseTask",
        "VAETask",
    ],
)
def test_every_task_of_0_1_is_found_under_its_path(name):
    from lesiontraining import tasks
    from lesiontraining.tasks.base import LesionTask

    assert issubclass(getattr(tasks, name), LesionTask)


def test_a_table_of_0_1_is_read(table):
    found = read_with("table", table, label="kind", classes=None)
    assert found.class_names == ("bright", "hollow")
    assert found.labels.tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0]
    assert len(found.rows) == 9
