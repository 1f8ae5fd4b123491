"""``lesiontrain build``: one command from a plan to a verified model folder that says what plan and run know."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from LesionLib.inference.classifier import Classifier
from LesionLib.model.bundle import load_bundle
from LesionLib.model.folder import CARD, LICENSE
from LesionLib.phantom.masses import mass_ct
from lesiontraining.cli import main
from lesiontraining.commands.build import read_build_plan
from lesiontraining.commands.plans import PlanError

PHANTOMS = ("phantom-adrenal5", "phantom-metastasis-cyst", "phantom-liver5")


def small_plan(folder: Path, **changes) -> Path:
    """Two textures of few computed masses, one epoch, two seeds."""
    plan = yaml.safe_load(
        (Path(__file__).resolve().parents[3] / "training/models/phantom-adrenal5.yaml").read_text("utf-8")
    )
    kept = [0, 3]
    plan["classes"] = [plan["classes"][n] for n in kept]
    names = [one["name"] for one in plan["classes"]]
    plan["phantom"] |= {"patients": 24, "classes": {names[0]: "homogeneous", names[1]: "rim"}}
    plan["recipe"]["model"]["init_args"] |= {"epoch_size": 16, "batch_size": 8}
    plan["recipe"]["data"] |= {"classes": names, "folds": 3, "validation": 0.3}
    plan["recipe"]["trainer"]["max_epochs"] = 1
    plan |= {"name": "small", "seeds": [0, 1], "class_prior": [], "draws": 20, **changes}
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(plan, sort_keys=False), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("build")
    arguments = ["build", str(small_plan(folder)), "--runs", str(folder / "runs"), "--out", str(folder / "small")]
    assert main(arguments) == 0
    return folder


def test_a_plan_becomes_a_verified_model_that_answers(built):
    bundle = load_bundle(built / "small")
    assert bundle.class_names == ("phantom homogeneous", "phantom rim")
    assert len(bundle.training_content.hashes) == 32
    mass = mass_ct(kind="rim", place="fat", seed=99, style_seed=99)
    result = Classifier(bundle, mass.volume).classify(mass.box)
    assert sum(result.probabilities.values()) == pytest.approx(1)


def test_card_licence_and_manifest_say_that_it_is_a_phantom_model(built):
    manifest = load_bundle(built / "small").manifest
    card = (built / "small" / CARD).read_text(encoding="utf-8")
    for text in (manifest["description"], manifest["intended_use"], manifest["task"], card):
        assert "phantom" in text.lower()
    assert all("no disease" in one["description"] for one in manifest["lesionlens"]["classes"])
    assert "on a real CT mean nothing" in (built / "small" / LICENSE).read_text(encoding="utf-8")
    assert "Read this first" in card
    assert "tested computed lesions of 8 phantom patients" in card
    low, high = manifest["lesionlens"]["phantom"]["mean_hu"]
    assert -100 < low < high < 200
    assert "size and mean HU" in card


def test_a_model_of_phantoms_lies_nowhere_in_a_body_and_a_site_that_is_no_code_is_refused_at_once(built, tmp_path):
    assert load_bundle(built / "small").finding_site is None
    plan = yaml.safe_load((built / "small.yaml").read_text("utf-8"))
    plan["text"]["finding_site"] = {"scheme": "SCT", "value": "39607008"}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan), "utf-8")
    with pytest.raises(PlanError, match="finding_site: 'meaning' is a required property"):
        read_build_plan(tmp_path / "plan.yaml")
    plan["text"]["finding_site"]["meaning"] = "Lung"
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan), "utf-8")
    assert read_build_plan(tmp_path / "plan.yaml").text.finding_site["value"] == "39607008"


def test_probabilities_assume_the_shares_of_training_and_every_seed_is_printed(built):
    ours = load_bundle(built / "small").manifest["lesionlens"]
    assert sum(ours["class_prior"]) == pytest.approx(1, abs=1e-3)
    seeds = ours["training"]["seeds"]
    assert seeds["seeds"] == [0, 1]
    assert seeds["mean"] == pytest.approx(np.mean(seeds["auc"]))
    assert seeds["low"] <= seeds["mean"] <= seeds["high"]
    first = next(iter(ours["training"]["metrics"]["figures"].values()))["auc"]["value"]
    assert seeds["auc"][0] == pytest.approx(first, abs=1e-4)  # rounded in the metrics
    assert f"{seeds['auc'][1]:.3f} (seed 1)" in (built / "small" / CARD).read_text(encoding="utf-8")


def test_the_same_command_makes_the_same_weights(built, tmp_path):
    arguments = ["build", str(built / "small.yaml"), "--runs", str(tmp_path), "--out", str(tmp_path / "again")]
    assert main(arguments) == 0
    files = [
        json.loads((m / "configs/metadata.json").read_text("utf-8"))["lesionlens"]["files"]
        for m in (built / "small", tmp_path / "again")
    ]
    assert files[0]["models/model.safetensors"] == files[1]["models/model.safetensors"]


@pytest.mark.parametrize("name", [*PHANTOMS, "adrenal-shape"])
def test_the_plans_that_come_along_can_be_read(name):
    plan = read_build_plan(name)
    assert plan.name == name
    assert [one.name for one in plan.classes] == plan.recipe["data"].get("classes", ["normal", "mass or hyperplasia"])
    assert (plan.phantom is None) == (name == "adrenal-shape")
    if plan.phantom is not None:
        assert list(plan.phantom.classes) == [one.name for one in plan.classes]
        assert all(one.name.startswith("phantom ") for one in plan.classes)


def test_what_does_not_fit_is_refused_before_anything_is_computed(tmp_path, capsys):
    with pytest.raises(PlanError, match="there is no plan 'nothing'"):
        read_build_plan("nothing")
    with pytest.raises(PlanError, match="seeds are"):
        read_build_plan(small_plan(tmp_path, seeds=[1, 1]))
    with pytest.raises(PlanError, match="no plan of a recipe's model"):
        read_build_plan(small_plan(tmp_path, phantom={"place": "moon"}))
    assert main(["build", "adrenal-shape", "--out", str(tmp_path / "m"), "--runs", str(tmp_path)]) == 2
    assert "give them as --data" in capsys.readouterr().err
    data = ["--data", str(tmp_path / "x.csv")]
    assert main(["build", "phantom-liver5", *data, "--out", str(tmp_path / "m"), "--runs", str(tmp_path)]) == 2
    assert "leave out --data" in capsys.readouterr().err
