"""What may not become a model folder, and why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from LesionLib.networks import build_network
from lesiontraining.commands.export import ExportError, ExportPlan, export
from lesiontraining.runs.folder import FittedModel, RunError, RunFolder

PLAN = ExportPlan("m", "0.1.0", "", "", "")
ARGUMENTS = {"depth": 18, "width": "tiny", "classes": 2}


@pytest.fixture
def run(tmp_path):
    """A finished, evaluated run, as far as an export looks before it refuses."""

    def make(*, kind: str = "axial_stack", class_names=("a", "b")) -> Path:
        fold = RunFolder(tmp_path / "run").fold(0)
        fold.path.mkdir(parents=True)
        torch.manual_seed(0)
        model = FittedModel("resnet", ARGUMENTS, {"kind": kind}, class_names, 1.0, (1.0, 2.0), (1.0, 1.0))
        model.save(fold.path, build_network("resnet", ARGUMENTS))
        fold.finish({})
        (tmp_path / "run" / "report").mkdir()
        (tmp_path / "run" / "report" / "metrics.json").write_text(json.dumps({}))
        return tmp_path / "run"

    return make


def test_a_model_of_photographs_is_refused(run, tmp_path):
    with pytest.raises(ExportError, match="photograph are no CT"):
        export(run(kind="photograph"), tmp_path / "m", PLAN)
    assert not (tmp_path / "m").exists()


def test_a_class_name_that_a_manifest_may_not_hold_is_named(run, tmp_path):
    with pytest.raises(ExportError, match="'b/c' cannot be the name of a class"):
        export(run(class_names=("a", "b/c")), tmp_path / "m", PLAN)


def test_a_fold_that_is_not_finished_is_named(run, tmp_path):
    with pytest.raises(ExportError, match=r"fold 3 .* is not finished; finished are 0"):
        export(run(), tmp_path / "m", PLAN, fold=3)
    with pytest.raises(RunError, match="holds no finished fold"):
        export(tmp_path / "nowhere", tmp_path / "m", PLAN)
