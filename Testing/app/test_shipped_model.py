"""The model that comes along is the one that was measured: its hash, its figures, its answer. A change here is a new version."""

from __future__ import annotations

import pytest
from LesionLib.inference.classifier import Classifier
from LesionLib.model.bundle import load_bundle
from LesionLib.model.card import figure_sentences, heat_sentence
from LesionLib.model.folder import CARD, WEIGHTS, find_bundle, golden_case

NAME = "lung-nodule-malignancy"
SHA256 = "f57ad919e0331fa64a24217da9c97eb36714b7ef9aec23350a54c1a8bcaab175"
WEIGHTS_SHA256 = "84c057267d0935dc2991375d774b824c4e609d046f31fc3c8139e9b5d2bc1112"
AUC = {
    "all nodules": {
        "this model": (0.9373, 0.9183, 0.9543),
        "volume only": (0.9211, 0.8999, 0.9425),
        "size + mean HU": (0.9253, 0.905, 0.9454),
        "this model, loose boxes": (0.9333, 0.9144, 0.9511),
        "this model, boxes drawn larger": (0.9345, 0.917, 0.9516),
    },
    "nodules of 5-12 mm": {
        "this model": (0.8806, 0.8426, 0.9134),
        "volume only": (0.8407, 0.7949, 0.8838),
        "size + mean HU": (0.8558, 0.8122, 0.8991),
        "this model, loose boxes": (0.8698, 0.8329, 0.9049),
        "this model, boxes drawn larger": (0.8724, 0.8366, 0.907),
    },
}


@pytest.fixture(scope="module")
def bundle():
    return load_bundle(NAME)


@pytest.fixture(scope="module")
def training(bundle):
    return bundle.manifest["lesionlens"]["training"]


def test_the_model_is_the_very_one_that_was_measured(bundle):
    assert (bundle.name, bundle.version, bundle.sha256) == (NAME, "2.0.0", SHA256)
    assert bundle.manifest["lesionlens"]["files"][WEIGHTS] == WEIGHTS_SHA256
    assert bundle.class_names == ("benign", "malignant")


def test_its_answer_to_the_golden_case_stays(bundle):
    volume, box = golden_case()
    result = Classifier(bundle, volume).classify(box)
    assert result.probabilities == pytest.approx({"benign": 0.200465, "malignant": 0.799535}, abs=1e-4)
    assert result.reliability.prediction_set == ("malignant",)
    assert result.reliability.target_coverage == pytest.approx(0.9)
    assert result.reliability.distance == pytest.approx(6.73701, abs=1e-2)
    assert result.reliability.distance_threshold == pytest.approx(8.305983, abs=1e-5)
    assert result.reliability.energy_inside == pytest.approx(0.446896, abs=1e-3)


def test_its_auc_and_those_of_the_baselines_stay(training):
    found = {
        group["name"]: {
            row: tuple(f["AUC"][k] for k in ("value", "low", "high")) for row, f in group["figures"].items()
        }
        for group in training["groups"][:2]
    }
    assert found == AUC
    assert [(g["nodules"], g["malignant"], g["patients"]) for g in training["groups"][:2]] == [
        (806, 261, 441),
        (489, 124, 308),
    ]
    difference = training["groups"][1]["auc_difference"]["size + mean HU"]
    assert difference == {"value": 0.0248, "low": 0.0007, "high": 0.0495}


def test_its_coverage_warnings_and_heat_maps_stay_as_measured(training):
    reliability = training["reliability"]
    assert {name: (c["hits"], c["n"]) for name, c in reliability["coverage"].items()} == {
        "5-12 mm": (444, 489), "5-12 mm, benign": (332, 365), "5-12 mm, malignant": (112, 124),
        "all other sizes": (300, 317), "all other sizes, benign": (167, 180), "all other sizes, malignant": (133, 137),
    }  # fmt: skip
    assert (reliability["warned_as_unlike"]["hits"], reliability["warned_as_unlike"]["n"]) == (34, 806)
    assert (reliability["warned_elsewhere"]["hits"], reliability["warned_elsewhere"]["n"]) == (197, 200)
    everyone = training["grad_cam"]["all"]
    assert (everyone["peak_inside"]["hits"], everyone["energy"], everyone["chance"]) == (43, 0.383, 0.1351)


def test_its_card_prints_the_figures_of_its_manifest():
    card = (find_bundle(NAME) / CARD).read_text(encoding="utf-8")
    assert (
        "| this model | 0.937 (0.918-0.954) | 0.868 (0.841-0.894) | 0.835 (0.786-0.878) | 0.901 (0.874-0.927) |" in card
    )
    assert (
        "| this model | 0.881 (0.843-0.913) | 0.787 (0.743-0.833) | 0.685 (0.602-0.770) | 0.888 (0.853-0.920) |" in card
    )


def test_it_says_what_boxes_it_was_made_for_what_it_assumes_and_what_it_learned_from(bundle):
    assert bundle.segment_margin_mm == 0.0
    assert bundle.manifest["lesionlens"]["class_prior"] == [0.5, 0.5]
    assert len(bundle.training_content.hashes) == 806


def test_its_figures_stand_beside_its_answers_as_the_card_has_them(bundle):
    auc, prior = figure_sentences(bundle.manifest)
    assert auc == (
        "Measured on 806 lesions of 441 patients: AUC 0.937 (0.918-0.954); size alone has 0.921 (0.900-0.943)."
    )
    assert prior.startswith(
        "The probabilities assume 50% benign, 50% malignant (of the lesions that it was measured on 32%"
    )
    said = heat_sentence(bundle.manifest)
    assert "38% of the heat lay in the lesion, where chance puts 14%" in said
    assert "hottest place lay in the lesion in 84%, the middle of the box in 98%" in said
    assert "not for where the lesion is" in said


@pytest.mark.parametrize(
    ("name", "classes", "scores", "sha256"),
    [
        ("lung-nodule-kind", ("calcified", "solid", "subsolid"), 0,
         "72d21ae59150095600c2ccbea5188afe62efe2b88c71b91b76d8f667890ce1f7"),
        ("lung-nodule-description", ("calcified", "solid", "subsolid"), 7,
         "6bf961ff563275fba08ee42c13f8bdd19bf2aa21cad7e91f91f6b85f98bac192"),
    ],
)  # fmt: skip
def test_the_other_nodule_models_are_the_very_ones_that_were_measured(name, classes, scores, sha256):
    bundle = load_bundle(name)
    assert (bundle.version, bundle.sha256) == ("1.0.0", sha256)
    assert bundle.class_names == classes
    assert len(bundle.scores) == scores
    auc = bundle.manifest["lesionlens"]["training"]["groups"][0]["figures"]["this model"]["AUC"]
    assert auc == {"value": 0.9895, "low": 0.9822, "high": 0.9951}
    volume, box = golden_case()
    assert Classifier(bundle, volume).classify(box).label == "solid"


def test_a_manifest_without_figures_says_only_what_a_map_shows():
    assert figure_sentences({"lesionlens": {"classes": [], "training": {}}}) == ()
    assert heat_sentence({}) == "It shows where the model looked, not where disease is."


def test_a_model_of_other_lesions_has_its_figures_beside_size_too():
    auc = {"AUC": {"value": 0.9, "low": 0.8, "high": 0.95}}
    group = {"name": "all", "lesions": 120, "patients": 80, "figures": {"this model": auc, "volume only": auc}}
    (message,) = figure_sentences({"lesionlens": {"classes": [], "training": {"groups": [group]}}})
    assert "120 lesions of 80 patients" in message
