"""Any architecture with any kind of input becomes a bundle, and answers from it all the way from the box."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from LesionLib.errors import BoxError, BundleError, WarningName
from LesionLib.inference.classifier import Classifier
from LesionLib.inference.messages import RunOptions, RunRequest
from LesionLib.inference.runner import InProcessRunner
from LesionLib.model.bundle import TEMPERATURE, load_bundle, manifest_sha256
from LesionLib.model.folder import MANIFEST, WEIGHTS, golden_case
from LesionLib.networks import build_network
from LesionLib.sampling.planes import KeySliceSpec, OrthogonalPlanesSpec, SliceWithNeighboursSpec
from LesionLib.sampling.resample import AxialStackSpec
from LesionLib.sampling.volumes import IsotropicCubeSpec, ShapeMaskSpec
from LesionLib.uncertainty.conformal import ConformalQuantile
from LesionLib.uncertainty.stability import Stability
from lesiontraining.commands.export import write_bundle
from lesiontraining.runs.uncertainty import fit_out_of_distribution

HU = ((-1000.0, 400.0),)
WAYS = {
    "dmrn, axial stack": ("dmrn", {"depth": 18, "width": "tiny", "classes": 3}, AxialStackSpec()),
    "dadrn, whole slice": ("dadrn", {"width": "tiny", "classes": 3}, SliceWithNeighboursSpec(size=64)),
    "resnet, box of every slice": (
        "resnet",
        {"depth": 18, "width": "tiny", "classes": 3},
        SliceWithNeighboursSpec(size=64, view="box", slices="every"),
    ),
    "resnet, orthogonal planes": (
        "resnet",
        {"depth": 18, "width": "tiny", "classes": 3},
        OrthogonalPlanesSpec(rows=84, columns=70),
    ),
    "resnet, key slice": (
        "resnet",
        {"depth": 18, "width": "tiny", "classes": 3, "channels": 1},
        KeySliceSpec(windows_hu=HU),
    ),
    "resnet3d, cube": ("resnet3d", {"width": "tiny", "classes": 3}, IsotropicCubeSpec(voxels=24, edge_mm=24.0)),
    "resnet3d, shape": ("resnet3d", {"width": "tiny", "classes": 3}, ShapeMaskSpec(edge_mm=32.0)),
}
SECTION = {
    "classes": [{"name": n, "description": "", "colorRGB": [1.0, c / 2, 0.0]} for c, n in enumerate("abc")],
    "aggregation": "mean_slice_probability",
    "box_size_mm": [2.0, 60.0],
    "slice_distance_mm": [0.5, 5.0],
    "not_for_clinical_use": True,
}
HEAD = {"name": "tiny", "version": "0.1.0", "description": "", "intended_use": "tests", "network_data_format": {}}


def written(folder, way: str, **calibration: torch.Tensor):
    """A bundle with random weights; the network beside it."""
    name, arguments, spec = WAYS[way]
    torch.manual_seed(0)
    network = build_network(name, arguments)
    section = {**SECTION, "architecture": name, "arguments": arguments}
    write_bundle(
        folder, head=HEAD, lesionlens=section, network=network, spec=spec, calibration=calibration, card="", license_text=""
    )  # fmt: skip
    return network


@pytest.mark.parametrize("way", WAYS)
def test_it_answers_from_the_box_with_a_heat_map_in_the_ct(way, tmp_path):
    written(tmp_path / "tiny", way)
    volume, box = golden_case()
    (result,) = InProcessRunner().run(RunRequest(str(tmp_path / "tiny"), volume, [box])).results
    assert sum(result.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert np.linalg.norm(result.embedding) == pytest.approx(1, abs=1e-5)
    offset = volume.rasToIJK @ result.heat_map.ijkToRAS[:, 3]
    np.testing.assert_allclose(offset, np.round(offset), atol=1e-6)
    if not result.heat_map.is_empty:
        assert 0 <= result.reliability.energy_inside <= 1


@pytest.mark.parametrize("way", WAYS)
def test_several_lesions_at_once_get_the_answers_that_each_gets_alone(way, tmp_path):
    written(tmp_path / "tiny", way)
    volume, box = golden_case()
    boxes = [box, box.grown(2.0), replace(box, centerRAS=box.centerRAS + [2.0, 1.0, 1.0])]
    classifier = Classifier(load_bundle(tmp_path / "tiny"), volume)
    for together, one in zip(classifier.classify_all(boxes), boxes, strict=True):
        alone = classifier.classify(one)
        np.testing.assert_allclose(list(together.probabilities.values()), list(alone.probabilities.values()), atol=1e-5)
        np.testing.assert_allclose(together.embedding, alone.embedding, atol=1e-4)
        np.testing.assert_allclose(together.heat_map.array, alone.heat_map.array, atol=1e-3)
        assert together.box is one


def test_a_model_without_classes_compares_and_says_that_it_does_not_classify(tmp_path):
    network = build_network("siamese", {"depth": 18, "width": "tiny", "channels": 1})
    section = {**SECTION, "classes": [], "architecture": "siamese"}
    section["arguments"] = {"depth": 18, "width": "tiny", "channels": 1}
    write_bundle(
        tmp_path / "tiny", head=HEAD, lesionlens=section, network=network, spec=KeySliceSpec(windows_hu=HU),
        calibration={}, card="", license_text="",
    )  # fmt: skip
    volume, box = golden_case()
    classifier = Classifier(load_bundle(tmp_path / "tiny"), volume)
    embedding = classifier.embed(box)
    assert np.linalg.norm(embedding) == pytest.approx(1, abs=1e-5)
    assert classifier.similarity_to(box, embedding).array.shape == classifier.similarity_to(box, -embedding).array.shape
    with pytest.raises(BundleError, match="only compares lesions"):
        classifier.classify(box)


def test_a_model_of_shapes_asks_for_the_segment(tmp_path):
    written(tmp_path / "tiny", "resnet3d, shape")
    volume, box = golden_case()
    with pytest.raises(BoxError, match="give the segment"):
        Classifier(load_bundle(tmp_path / "tiny"), volume).classify(replace(box, segment=None))


def test_what_the_bundle_holds_of_reliability_is_on_every_result(tmp_path):
    volume, box = golden_case()
    way = "resnet, orthogonal planes"
    network = written(tmp_path / "plain", way)
    d = network.descriptor(network.features(torch.zeros(1, 3, 84, 70))).shape[1]
    far = np.eye(d)[:40] if d >= 40 else np.random.default_rng(0).normal(size=(40, d))
    far /= np.linalg.norm(far, axis=1, keepdims=True)
    ood = fit_out_of_distribution(far[:20], far[:20], method="neighbours", k=1)
    quantile = ConformalQuantile(np.full(3, 0.99), 0.1, np.full(3, 20))
    written(tmp_path / "tiny", way, **quantile.to_tensors(), **ood.to_tensors())
    result = Classifier(load_bundle(tmp_path / "tiny"), volume).classify(box)
    assert result.label == ""  # so unlike those of training that the model has no answer
    assert result.reliability.prediction_set[0] == result.answered_anyway.label
    assert result.reliability.target_coverage == pytest.approx(0.9)
    assert result.reliability.distance > result.reliability.distance_threshold
    assert WarningName.OUT_OF_DISTRIBUTION in [w.name for w in result.warnings]
    assert "unlike" in " ".join(result.reliability.messages("abc"))
    bare = Classifier(load_bundle(tmp_path / "plain"), volume).classify(box)
    assert (bare.reliability.prediction_set, bare.reliability.distance) == (None, None)


def test_the_golden_case_holds_the_probabilities_after_the_temperature(tmp_path):
    way, temperature = "resnet, orthogonal planes", torch.tensor([2.5])
    written(tmp_path / "tiny", way, **{TEMPERATURE: temperature})
    loaded = load_bundle(tmp_path / "tiny")
    ours = loaded.manifest["lesionlens"]
    logits = torch.tensor(ours["golden_logits"])
    expected = (logits / temperature).softmax(dim=1).mean(dim=0)
    np.testing.assert_allclose(ours["golden_probabilities"], expected, atol=1e-4)
    assert not np.allclose(ours["golden_probabilities"], logits.softmax(dim=1).mean(dim=0), atol=1e-3)
    volume, box = golden_case()
    np.testing.assert_allclose(Classifier(loaded, volume).probabilities(box), ours["golden_probabilities"], atol=1e-4)
    changed = [ours["golden_probabilities"][n] for n in (1, 2, 0)]
    manifest = {**loaded.manifest, "lesionlens": {**ours, "golden_probabilities": changed}}
    manifest["sha256"] = manifest_sha256(manifest)
    (tmp_path / "tiny" / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="answers its own test case differently"):
        load_bundle(tmp_path / "tiny")


def test_boxes_drawn_a_little_differently_are_asked_where_one_wants_it(tmp_path):
    written(tmp_path / "tiny", "resnet3d, cube")
    volume, box = golden_case()
    options = RunOptions(box_jitter=3)
    (result,) = InProcessRunner().run(RunRequest(str(tmp_path / "tiny"), volume, [box], options)).results
    spread = result.reliability.spread
    assert isinstance(spread, Stability)
    assert spread.answered + spread.skipped == 3


@pytest.mark.parametrize(
    ("tensors", "what"),
    [
        ({"conformal.quantile": torch.zeros(3)}, "conformal"),
        ({"ood.threshold": torch.zeros(1)}, "out-of-distribution"),
    ],
)
def test_broken_reliability_tensors_are_refused_with_the_model_s_name(tensors, what, tmp_path):
    with pytest.raises(BundleError, match=rf"model tiny: the model's {what} tensors"):
        written(tmp_path / "tiny", "resnet3d, cube", **tensors)


def test_an_input_that_its_network_cannot_take_is_a_bundle_error(tmp_path):
    folder = tmp_path / "tiny"
    written(folder, "resnet, key slice")
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["lesionlens"]["input"]["windows_hu"] = [[-1000, 400], [0, 100]]
    manifest["sha256"] = manifest_sha256(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="cannot take the input that its manifest names"):
        load_bundle(folder)
    assert (folder / WEIGHTS).is_file()


def test_the_golden_case_of_a_voting_machine_is_kept_as_margins(tmp_path):
    written(tmp_path / "tiny", "dmrn, axial stack")
    manifest = json.loads((tmp_path / "tiny" / MANIFEST).read_text())
    assert {len(row) for row in manifest["lesionlens"]["golden_logits"]} == {3}  # pairs of three classes
    bundle = load_bundle(tmp_path / "tiny")
    f = bundle.network.features(torch.zeros(1, 3, 64, 64))
    votes, margins = bundle.network.head(f), bundle.network.reference_values(f)
    assert not torch.allclose(votes, margins)
