"""The recipe end to end on phantoms, and the figures of the model that ships."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from LesionLib.geometry import CTVolume, LesionBox
from LesionLib.inference.classifier import Classifier
from LesionLib.model.bundle import load_bundle
from LesionLib.model.folder import CARD, find_bundle, golden_case
from LesionLib.networks import build_network
from LesionLib.phantom.nodules import nodule_patch
from lesiontraining.commands.export import write_bundle
from lesiontraining.linear_probe import recipe as lung_nodules
from lesiontraining.linear_probe.data import Nodule, patientwise
from lesiontraining.linear_probe.model_card import LICENSE_TEXT, card, manifest_head, manifest_section


def phantom_nodule(number: int) -> Nodule:
    """Malignant is spiculated here; two nodules a patient, four patients a fold."""
    kind = ("spiculated", "round")[number % 2]
    volume, truth = nodule_patch(
        kind=kind, diameter_mm=8 + number % 7, seed=number, spacing_mm=(0.9, 0.9, 2.0), size_mm=40
    )
    segment = CTVolume((volume.array > -500).astype(np.uint8), volume.ijkToRAS, "nodule")
    box = LesionBox(truth.box.centerRAS, truth.box.sizeMm, segment=segment)
    size = float(truth.diameter_mm)
    patient = number // 2
    return Nodule(volume, box, f"P{patient}", patient % 4, kind == "spiculated", size, size**3 / 2, float(number % 5))


@pytest.fixture(scope="module")
def nodules():
    return [phantom_nodule(number) for number in range(32)]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    network = build_network("mobilenet_v2", {"classes": 1000})
    path = tmp_path_factory.mktemp("weights") / "published.pth"
    torch.save({name.replace("features_.", "features."): t for name, t in network.state_dict().items()}, path)
    return path


@pytest.fixture(scope="module")
def recipe():
    return lung_nodules.Recipe(
        loose_drawings=1, strengths=(1e-3, 1e-2), bootstrap_draws=50, alpha=0.25, sanity_pictures=4
    )


@pytest.fixture(scope="module")
def trained(nodules, weights, recipe):
    patch = pytest.MonkeyPatch()
    patch.setattr(lung_nodules, "read_nodules", lambda _folder: nodules)
    result = lung_nodules.train(None, weights, recipe, lambda _text: None)
    patch.undo()
    return result


def test_a_patient_in_two_folds_is_moved_whole_into_one(nodules):
    torn = [replace(nodules[0], fold=3), replace(nodules[1], fold=1), nodules[2]]
    whole, moved = patientwise(torn)
    assert moved == ("P0",)
    assert [nodule.fold for nodule in whole[:2]] == [1, 1]


def test_every_group_has_the_baselines_beside_the_model(trained):
    for group in trained.groups:
        assert set(group.rows) == {"this model", "volume only", "size + mean HU", "this model, loose boxes"}
        for figures in group.rows.values():
            assert set(figures) == {"AUC", "balanced accuracy", "sensitivity", "specificity"}
    assert trained.groups[0].nodules == 32
    assert trained.groups[0].patients == 16


def test_what_tells_how_far_to_rely_on_it_is_checked_on_nodules_that_took_no_part(trained):
    fit = trained.reliability
    assert {group: share.covered.n for group, share in fit.coverage.items()} == {
        "all": 32,
        "benign": 16,
        "malignant": 16,
    }
    assert fit.coverage["all"].promised == 0.75
    assert fit.warned.n == 32
    assert fit.sanity.pictures + fit.sanity.left_out == 4
    assert {name.partition(".")[0] for name in fit.tensors()} == {"conformal", "ood"}


def test_where_the_heat_lies_is_counted_beside_chance(trained):
    everyone = trained.heat["all"]
    assert everyone.peak_inside.n == 32 == sum(f.peak_inside.n for name, f in trained.heat.items() if name != "all")
    assert 0 < everyone.chance < 1
    assert 0 <= everyone.energy <= 1


def test_no_head_answers_for_a_patient_it_was_fitted_on(nodules, recipe, monkeypatch):
    seen = []
    real = lung_nodules.fit_head

    def watched(drawings, truth, patients, strengths):
        seen.append(set(patients))
        return real(drawings, truth, patients, strengths)

    monkeypatch.setattr(lung_nodules, "fit_head", watched)
    drawing = [np.random.default_rng(i).normal(size=(3, 8)) for i in range(32)]
    lung_nodules._out_of_fold_logits(nodules, [drawing], [drawing], recipe)
    by_fold = [{n.patient for n in nodules if n.fold == fold} for fold in range(4)]
    assert [patients & held_out for patients, held_out in zip(seen, by_fold, strict=True)] == [set()] * 4


def test_the_exported_model_answers_the_same_where_there_is_no_sklearn(trained, recipe, nodules, tmp_path):
    folder = tmp_path / "model"
    write_bundle(
        folder,
        head=manifest_head(),
        lesionlens=manifest_section(trained),
        network=trained.network,
        spec=recipe.spec,
        calibration=trained.calibration(),
        card=card(trained, recipe),
        license_text=LICENSE_TEXT,
    )
    volume, box = golden_case()
    result = Classifier(load_bundle(folder), volume).classify(box)
    here = result.probabilities["malignant"]
    assert result.reliability.promised == 0.75
    assert result.reliability.distance > 0
    code = f"""
import sys
from LesionLib.model.bundle import load_bundle
from LesionLib.inference.classifier import Classifier
from LesionLib.model.folder import golden_case
volume, box = golden_case()
print(Classifier(load_bundle({str(folder)!r}), volume).classify(box).probabilities["malignant"])
assert not {{"sklearn", "lightning", "lesiontraining", "monai"}} & set(sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False)
    assert float(ran.stdout) == pytest.approx(here, abs=1e-5), ran.stderr


def is_printed(figure: dict[str, float], text: str) -> bool:
    """Whether the text has it; the manifest has four digits, a text three."""
    printed = re.findall(r"(\d\.\d{3}) \((\d\.\d{3})-(\d\.\d{3})\)", text)
    wanted = (figure["value"], figure["low"], figure["high"])
    return any(np.allclose([float(v) for v in row], wanted, atol=6e-4) for row in printed)


def test_the_card_that_ships_prints_the_figures_of_its_manifest():
    folder = find_bundle("lung-nodule-malignancy")
    manifest = json.loads((folder / "configs" / "metadata.json").read_text())
    text = (folder / CARD).read_text()
    for group in manifest["lesionlens"]["training"]["groups"]:
        for figures in group["figures"].values():
            for figure in figures.values():
                assert is_printed(figure, text)


def test_the_readme_quotes_the_card_that_ships():
    folder = find_bundle("lung-nodule-malignancy")
    groups = json.loads((folder / "configs" / "metadata.json").read_text())["lesionlens"]["training"]["groups"]
    readme = (folder.parents[2] / "README.md").read_text()
    for group in groups:
        for row in ("this model", "volume only", "size + mean HU"):
            assert is_printed(group["figures"][row]["AUC"], readme)
