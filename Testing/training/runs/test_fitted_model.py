"""A fitted network answers in training as it answers in use, and is kept as plain data."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from LesionLib.inference.classifier import Classifier
from LesionLib.model.bundle import load_bundle
from LesionLib.model.folder import golden_case
from LesionLib.networks import build_network
from LesionLib.sampling.batches import crop_lesion
from LesionLib.sampling.inputs import section_from_spec
from LesionLib.sampling.resample import AxialStackSpec
from lesiontraining.commands.export import write_bundle
from lesiontraining.runs.folder import DESCRIPTION, WEIGHTS, FittedModel, FittedModelError
from lesiontraining.runs.inference import fit_temperature, lesion_features, lesion_probabilities

ARGUMENTS = {"depth": 18, "width": "tiny", "classes": 3}
SPEC = AxialStackSpec(size=48)


@pytest.fixture
def network():
    torch.manual_seed(1)
    return build_network("resnet", ARGUMENTS)


@pytest.fixture
def model():
    return FittedModel(
        "resnet", ARGUMENTS, section_from_spec(SPEC), ("a", "b", "c"), 1.5, (2.0, 60.0), (0.5, 5.0), {"x": 1}
    )


@pytest.fixture
def lesions():
    volume, box = golden_case()
    return volume, [box, box.grown(3.0), box.grown(-2.0)]


def test_probabilities_and_embeddings_are_those_of_the_classifier(network, model, lesions, tmp_path):
    section = {
        "architecture": "resnet", "arguments": ARGUMENTS, "aggregation": "mean_slice_probability",
        "classes": [{"name": n, "description": "", "colorRGB": [0.0, 0.0, 0.0]} for n in "abc"],
        "box_size_mm": [2.0, 60.0], "slice_distance_mm": [0.5, 5.0], "not_for_clinical_use": True,
    }  # fmt: skip
    head = {"name": "t", "version": "0.1.0", "description": "", "intended_use": "", "network_data_format": {}}
    calibration = {"calibration.temperature": torch.tensor([1.5])}
    write_bundle(
        tmp_path / "m", head=head, lesionlens=section, network=network, spec=SPEC, calibration=calibration, card="", license_text=""
    )  # fmt: skip
    volume, boxes = lesions
    images = [crop_lesion(volume, box, SPEC).patches for box in boxes]
    logits, embeddings = lesion_features(network, images, at_once=8)
    probabilities = lesion_probabilities(network, logits, 1.5)
    for place, result in enumerate(Classifier(load_bundle(tmp_path / "m"), volume).classify_all(boxes)):
        np.testing.assert_allclose(probabilities[place], list(result.probabilities.values()), atol=1e-5)
        np.testing.assert_allclose(embeddings[place], result.embedding, atol=1e-5)


def test_the_temperature_undoes_an_overconfident_network(network):
    rng = np.random.default_rng(0)
    true_logits = rng.normal(size=(400, 3))
    p = np.exp(true_logits) / np.exp(true_logits).sum(axis=1, keepdims=True)
    labels = np.array([rng.choice(3, p=row) for row in p])
    logits = [torch.tensor(3.0 * row[None], dtype=torch.float32) for row in true_logits]
    assert fit_temperature(network, logits, labels) == pytest.approx(3.0, rel=0.2)
    assert fit_temperature(network, logits[:5], labels[:5]) is None


def test_a_fitted_model_comes_back_with_its_answers(network, model, tmp_path):
    x = torch.randn(2, 3, 48, 48)
    model.save(tmp_path, network)
    again, loaded = FittedModel.load(tmp_path)
    assert again == model
    assert again.spec == SPEC
    with torch.inference_mode():
        torch.testing.assert_close(loaded(x), network(x))


@pytest.mark.parametrize("damage", ["missing", "no json", "another network", "cut weights"])
def test_a_damaged_fitted_model_is_refused_with_what_to_do(network, model, tmp_path, damage):
    model.save(tmp_path, network)
    if damage == "missing":
        (tmp_path / WEIGHTS).unlink()
    elif damage == "no json":
        (tmp_path / DESCRIPTION).write_text("{")
    elif damage == "another network":
        values = json.loads((tmp_path / DESCRIPTION).read_text())
        (tmp_path / DESCRIPTION).write_text(json.dumps({**values, "arguments": {**ARGUMENTS, "classes": 4}}))
    else:
        (tmp_path / WEIGHTS).write_bytes((tmp_path / WEIGHTS).read_bytes()[:100])
    with pytest.raises(FittedModelError, match="run lesiontrain fit"):
        FittedModel.load(tmp_path)
