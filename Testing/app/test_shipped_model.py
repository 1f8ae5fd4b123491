"""The model that comes along is the one that was measured: its hash, its figures, its answer. A change here is a new version."""

from __future__ import annotations

import pytest
from LesionLib.inference.classifier import Classifier
from LesionLib.model.bundle import load_bundle
from LesionLib.model.card import figure_sentences, heat_sentence
from LesionLib.model.folder import CARD, WEIGHTS, find_bundle, golden_case

NAME = "lung-nodule-malignancy"
SHA256 = "c47432e662bb1d1f74a3420305e9ae730a92c59a5f63a7ad411ce732fa9e97dd"
WEIGHTS_SHA256 = "74e57fdf36fad1c62a9e7e525cd0bd41ca22bee9f69f1dbec015cb1c0519f183"  # since 1.1.0
AUC = {
    "all nodules": {
        "this model": (0.9279, 0.9074, 0.9472),
        "volume only": (0.9211, 0.8993, 0.9422),
        "size + mean HU": (0.9253, 0.905, 0.9456),
        "this model, loose boxes": (0.926, 0.905, 0.9453),
    },
    "nodules of 5-12 mm": {
        "this model": (0.8664, 0.8275, 0.9026),
        "volume only": (0.8407, 0.7938, 0.8846),
        "size + mean HU": (0.8558, 0.811, 0.8963),
        "this model, loose boxes": (0.8568, 0.8157, 0.8935),
    },
}


@pytest.fixture(scope="module")
def bundle():
    return load_bundle(NAME)


@pytest.fixture(scope="module")
def training(bundle):
    return bundle.manifest["lesionlens"]["training"]


def test_the_model_is_the_very_one_that_was_measured(bundle):
    assert (bundle.name, bundle.version, bundle.sha256) == (NAME, "1.2.0", SHA256)
    assert bundle.manifest["lesionlens"]["files"][WEIGHTS] == WEIGHTS_SHA256
    assert bundle.class_names == ("benign", "malignant")


def test_its_answer_to_the_golden_case_stays(bundle):
    volume, box = golden_case()
    result = Classifier(bundle, volume).classify(box)
    assert result.probabilities == pytest.approx({"benign": 0.534763, "malignant": 0.465237}, abs=1e-4)
    assert result.reliability.prediction_set == ("benign", "malignant")
    assert result.reliability.target_coverage == pytest.approx(0.9)
    assert result.reliability.distance == pytest.approx(0.29364, abs=1e-3)
    assert result.reliability.distance_threshold == pytest.approx(0.487619, abs=1e-5)
    assert result.reliability.energy_inside == pytest.approx(0.12846, abs=1e-3)


def test_its_auc_and_those_of_the_baselines_stay(training):
    found = {
        group["name"]: {
            row: tuple(f["AUC"][k] for k in ("value", "low", "high")) for row, f in group["figures"].items()
        }
        for group in training["groups"]
    }
    assert found == AUC
    assert [(g["nodules"], g["malignant"], g["patients"]) for g in training["groups"]] == [
        (806, 261, 441),
        (489, 124, 308),
    ]
    difference = training["groups"][1]["auc_difference"]["size + mean HU"]
    assert difference == {"value": 0.0106, "low": -0.0229, "high": 0.046}


def test_its_coverage_warnings_and_heat_maps_stay_as_measured(training):
    reliability = training["reliability"]
    assert {name: (c["hits"], c["n"]) for name, c in reliability["coverage"].items()} == {
        "all": (739, 806), "benign": (503, 545), "malignant": (236, 261),
    }  # fmt: skip
    assert (reliability["warned_as_unlike"]["hits"], reliability["warned_as_unlike"]["n"]) == (37, 806)
    everyone = training["grad_cam"]["all"]
    assert (everyone["peak_inside"]["hits"], everyone["energy"], everyone["chance"]) == (87, 0.1602, 0.1498)


def test_its_card_prints_the_figures_of_its_manifest():
    card = (find_bundle(NAME) / CARD).read_text(encoding="utf-8")
    assert (
        "| this model | 0.928 (0.907-0.947) | 0.843 (0.814-0.872) | 0.762 (0.707-0.815) | 0.923 (0.899-0.945) |" in card
    )
    assert (
        "| this model | 0.866 (0.827-0.903) | 0.729 (0.681-0.777) | 0.532 (0.439-0.623) | 0.926 (0.898-0.951) |" in card
    )


def test_it_says_what_boxes_it_was_made_for_what_it_assumes_and_what_it_learned_from(bundle):
    assert bundle.segment_margin_mm == 0.0
    assert bundle.manifest["lesionlens"]["class_prior"] == [0.5, 0.5]
    assert len(bundle.training_content.hashes) == 806


def test_its_figures_stand_beside_its_answers_as_the_card_has_them(bundle):
    auc, prior = figure_sentences(bundle.manifest)
    assert auc == (
        "Measured on 806 lesions of 441 patients: AUC 0.928 (0.907-0.947); size alone has 0.921 (0.899-0.942)."
    )
    assert prior.startswith(
        "The probabilities assume 50% benign, 50% malignant (of the lesions that it was measured on 32%"
    )
    assert "16% of the heat lay in the lesion, where chance puts 15%" in heat_sentence(bundle.manifest)


def test_a_manifest_without_figures_says_only_what_a_map_shows():
    assert figure_sentences({"lesionlens": {"classes": [], "training": {}}}) == ()
    assert heat_sentence({}) == "It shows where the model looked, not where disease is."


def test_a_model_of_other_lesions_has_its_figures_beside_size_too():
    auc = {"AUC": {"value": 0.9, "low": 0.8, "high": 0.95}}
    group = {"name": "all", "lesions": 120, "patients": 80, "figures": {"this model": auc, "volume only": auc}}
    (message,) = figure_sentences({"lesionlens": {"classes": [], "training": {"groups": [group]}}})
    assert "120 lesions of 80 patients" in message
