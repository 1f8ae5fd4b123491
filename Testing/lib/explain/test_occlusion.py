"""Occlusion: where covering the input makes a class less likely, on a network whose answer is known by construction."""

from __future__ import annotations

import pytest
import torch
from LesionLib.errors import BundleError
from LesionLib.explain import occlusion
from LesionLib.explain.occlusion import occlusion_map
from LesionLib.inference.classifier import Classifier
from LesionLib.inference.messages import RunnerCancelled, RunOptions, RunRequest, reply_from_frame, reply_to_frame
from LesionLib.inference.runner import InProcessRunner, RunnerError
from LesionLib.model.bundle import load_bundle
from LesionLib.model.card import heat_sentence
from LesionLib.model.folder import golden_case, map_method
from LesionLib.networks import LesionNet
from scored_model import CLASSES, NAME, write_scored_model
from torch import nn


class CornerNet(LesionNet):
    """Its second class is likely where the upper left quarter is bright; its last column is a score of no class."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(8.0))

    def features(self, x):
        return x

    def descriptor(self, f):
        return f.flatten(2).mean(dim=2)

    def head(self, f):
        quarter = f[(slice(None), 0, *(slice(0, size // 2) for size in f.shape[2:]))].flatten(1).mean(dim=1)
        return torch.stack([torch.zeros_like(quarter), self.scale * (quarter - 0.5), 100 * quarter], dim=1)


def bright_quarter(*shape: int) -> torch.Tensor:
    patches = torch.zeros(2, 1, *shape)
    patches[(slice(None), 0, *(slice(0, size // 2) for size in shape))] = 1.0
    patches[1] = 0.0  # the second patch has nothing to cover
    return patches


@pytest.mark.parametrize(("shape", "cells"), [((32, 32), 12), ((16, 16, 16), 8)])
def test_the_map_is_hot_where_the_class_lives_and_cold_elsewhere(shape, cells):
    found = occlusion_map(CornerNet().eval(), bright_quarter(*shape), 1, scores=1)
    assert found.shape == (2, *[cells] * len(shape))
    inside = tuple(slice(0, cells // 2 - 2) for _ in shape)
    beyond = tuple(slice(cells // 2 + 2, None) for _ in shape)
    assert found[0][inside].min() > 0.005
    assert found[0][beyond].abs().max() == 0
    assert found[1].abs().max() == 0


def test_where_covering_helps_a_class_its_map_is_zero():
    assert occlusion_map(CornerNet().eval(), bright_quarter(32, 32), 0, scores=1).abs().max() == 0


def test_whoever_watches_hears_every_step_and_may_stop_it():
    shares: list[float] = []
    occlusion_map(CornerNet().eval(), bright_quarter(32, 32), 1, scores=1, watch=shares.append)
    assert len(shares) == 100
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert shares[-1] < 1

    class Stop(Exception):
        pass

    def stop(share: float) -> None:
        if share > 0.1:
            raise Stop

    with pytest.raises(Stop):
        occlusion_map(CornerNet().eval(), bright_quarter(32, 32), 1, scores=1, watch=stop)


@pytest.fixture
def few_windows(monkeypatch):
    """9 windows in the place of 100: what is tested here is who makes the map, not how fine it is."""
    monkeypatch.setattr(occlusion, "_CELLS", {2: (4, 2), 3: (4, 2)})


@pytest.fixture(scope="module")
def model_with(tmp_path_factory):
    """The small model, with this in its manifest's ``explanation``."""
    made: dict[str, object] = {}

    def make(**explanation):
        key = repr(sorted(explanation.items()))
        if key not in made:
            made[key] = write_scored_model(tmp_path_factory.mktemp("model") / NAME, explanation=explanation)
        return made[key]

    return make


def run(model, options: RunOptions | None = None, **rest):
    volume, box = golden_case()
    return InProcessRunner().run(RunRequest(str(model), volume, [box], options or RunOptions()), **rest)


def test_the_manifest_chooses_whose_map_is_shown_and_how_it_is_made(model_with, few_windows):
    model = model_with(**{"class": "calcified", "method": "occlusion"})
    result = run(model).results[0]
    assert result.label == "solid"
    assert (result.heat_map.class_name, result.heat_map.method) == ("calcified", "occlusion")
    assert result.reliability.energy_inside is not None
    plain = run(model, RunOptions(map_method="grad_cam", class_name="solid")).results[0]
    assert (plain.heat_map.class_name, plain.heat_map.method) == ("solid", "grad_cam")
    assert run(model, RunOptions(map_method="none")).results[0].heat_map is None
    assert map_method(model) == "occlusion"


def test_without_a_choice_the_map_is_the_grad_cam_of_the_answer(model_with):
    for model in (model_with(), model_with(**{"class": "predicted"})):
        result = run(model).results[0]
        assert (result.heat_map.class_name, result.heat_map.method) == (result.label, "grad_cam")
        assert map_method(model) == "grad_cam"


def test_an_occlusion_map_lies_on_the_ct_as_a_grad_cam_does_and_crosses_the_border(model_with, few_windows):
    model, (volume, box) = model_with(), golden_case()
    classifier = Classifier(load_bundle(model), volume)
    cam, occluded = (classifier.classify(box, map_method=method).heat_map for method in ("grad_cam", "occlusion"))
    assert occluded.array.shape == cam.array.shape
    assert (occluded.ijkToRAS == cam.ijkToRAS).all()
    assert occluded.array.max() == 1.0
    request = RunRequest(str(model), volume, [box], RunOptions(map_method="occlusion"))
    response = InProcessRunner().run(request)
    again = reply_from_frame(reply_to_frame(response), request).results[0].heat_map
    assert (again.method, again.class_name) == ("occlusion", occluded.class_name)


def test_progress_of_a_slow_map_is_told_and_it_can_be_cancelled_within_a_lesion(model_with, few_windows):
    heard: list[tuple[int, int, str]] = []
    options = RunOptions(map_method="occlusion")
    run(model_with(), options, progress=lambda *step: heard.append(step))
    within = [name for _, _, name in heard if "map" in name]
    assert within[0] == "golden lesion (map 0%)"
    assert len(within) == 9
    runner, (volume, box) = InProcessRunner(), golden_case()

    def cancel_midway(_done: int, _total: int, name: str) -> None:
        if "map 3" in name:
            runner.cancel()

    with pytest.raises(RunnerCancelled, match="cancelled after 0 of 1 lesions"):
        runner.run(RunRequest(str(model_with()), volume, [box], options), progress=cancel_midway)


def test_a_lesion_without_an_answer_costs_no_slow_map(model_with, few_windows):
    volume, box = golden_case()
    classifier = Classifier(load_bundle(model_with()), volume)
    shares: list[float] = []
    large = type(box)(box.centerRAS, [60.0, 12, 14], box.axesRAS, name="large")
    options = {"map_method": "occlusion", "watch": lambda _name, share: shares.append(share)}
    (result,) = classifier.classify_all([large], **options)
    assert (result.label, result.heat_map, shares) == ("", None, [])
    (asked,) = classifier.classify_all([large], class_name="solid", **options)
    assert asked.heat_map.method == "occlusion"
    assert shares


def test_an_unknown_kind_of_map_is_refused(model_with):
    with pytest.raises(RunnerError, match="unknown kind of map 'tea leaves'; choose grad_cam, occlusion, none"):
        run(model_with(), RunOptions(map_method="tea leaves"))


@pytest.mark.parametrize(
    ("explanation", "message"),
    [
        ({"class": "liver"}, rf"explain the class 'liver'; it knows {', '.join(CLASSES)}, or write 'predicted'"),
        ({"method": "tea leaves"}, r"explanation\.method: 'tea leaves' is not one of"),
        ({"note": "a\x1b[2J"}, r"explanation\.note: "),
        ({"colour": "red"}, r"explanation: Additional properties are not allowed"),
    ],
)
def test_an_explanation_that_makes_no_sense_is_refused(tmp_path, explanation, message):
    with pytest.raises(BundleError, match=message):
        write_scored_model(tmp_path / NAME, explanation=explanation)


def test_the_note_of_a_model_is_said_beside_maps_by_its_own_method_only():
    note = "On its own lesions this map is no better than chance."
    manifest = {"lesionlens": {"explanation": {"method": "occlusion", "note": note}}}
    assert heat_sentence(manifest, method="occlusion").endswith(note)
    assert note not in heat_sentence(manifest)
    measured = {"lesionlens": {"training": {"grad_cam": {"all": {"energy": 0.2, "chance": 0.2}}}}}
    assert "chance puts 20%" in heat_sentence(measured)
    assert "chance" not in heat_sentence(measured, method="occlusion")
    assert heat_sentence({"lesionlens": {"explanation": {"note": 7}}}) == heat_sentence({})


def test_a_channel_without_pixels_is_never_covered():
    class SecondChannelNet(CornerNet):
        def head(self, f):
            return super().head(f[:, 1:])

    patches = bright_quarter(16, 16, 16).repeat(1, 2, 1, 1, 1)
    net = SecondChannelNet().eval()
    assert occlusion_map(net, patches, 1, scores=1)[0].max() > 0.005
    assert occlusion_map(net, patches, 1, scores=1, uncovered=1).max() == 0
