"""An accelerator computes the costly part of a network and changes nothing else; without it, nothing changes at all."""

from __future__ import annotations

import copy
import os
import re
import sys
from dataclasses import replace
from time import monotonic, sleep, time

import numpy as np
import pytest
import torch
from LesionLib.geometry import LesionBox
from LesionLib.inference import accelerator, loaded_models
from LesionLib.inference.accelerator import (
    MAX_CHANGE,
    MIN_COSINE,
    AcceleratorError,
    accelerated,
    accelerator_state,
    accelerator_version,
    conversion_folder,
    convert,
    difference,
    golden_patches,
    hardly_faster,
    is_converted,
    measured_slowness,
    no_faster_with_many,
    start_conversion,
    with_part,
)
from LesionLib.inference.classifier import Engine
from LesionLib.inference.messages import EmbeddingRequest, Precision, RunOptions, RunRequest
from LesionLib.inference.precision import Bfloat16Features
from LesionLib.model.bundle import load_bundle
from LesionLib.model.folder import golden_case

MODEL, FLOAT32, BFLOAT16 = "phantom-adrenal5", Precision("float32", "asked for"), Precision("bfloat16", "asked for")
needs_openvino = pytest.mark.skipif(accelerator_version() is None, reason="OpenVINO is not installed")


@pytest.fixture(scope="module")
def bundle():
    return load_bundle(MODEL)


@pytest.fixture(autouse=True)
def switched_on(monkeypatch):
    monkeypatch.setenv(accelerator.SWITCH, "auto")


@pytest.fixture(scope="module")
def converted(bundle, tmp_path_factory):
    """A data folder that holds a conversion of the model."""
    if accelerator_version() is None:
        pytest.skip("OpenVINO is not installed")
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(folder))
        convert(bundle, must_pay=False)  # whether it pays is this machine's business
    return folder


@pytest.fixture
def kept(converted, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(converted))


def asked(engine: Engine, **options) -> object:
    volume, box = golden_case()
    boxes = [box, LesionBox(box.centerRAS + 1.0, box.sizeMm, box.axesRAS, "other")]
    return engine.run(RunRequest(MODEL, volume, boxes, RunOptions(answer_anyway=True, **options)))


def test_answers_maps_and_embeddings_are_those_of_the_network_alone(kept):
    alone, fast = (asked(Engine(default_precision="float32", default_accelerator=a)) for a in ("off", "auto"))
    assert fast.info.device == f"cpu, OpenVINO {accelerator_version()}"
    assert fast.precision.accelerator in fast.precision.reason
    for here, there in zip(alone.results, fast.results, strict=True):
        assert here.label == there.label
        assert (
            max(abs(here.probabilities[name] - there.probabilities[name]) for name in here.probabilities) <= MAX_CHANGE
        )
        assert float(here.embedding @ there.embedding) >= MIN_COSINE
        assert np.corrcoef(here.heat_map.array.ravel(), there.heat_map.array.ravel())[0, 1] > 0.99


def test_what_reports_the_use_of_openvino_is_not_loaded(bundle, kept):
    accelerated(bundle, FLOAT32)
    assert "openvino" in sys.modules
    assert not [name for name in sys.modules if name.startswith("openvino_telemetry")]


def test_any_number_of_patches_goes_through_a_conversion(bundle, kept):
    fast, patches = accelerated(bundle, FLOAT32), golden_patches(bundle)
    with torch.no_grad():
        for count in (1, 3, 2):
            many = torch.cat([patches + 0.01 * number for number in range(count)])
            assert torch.allclose(fast.features(many), bundle.network.features(many), atol=1e-3)


def test_a_model_that_bfloat16_was_chosen_for_keeps_its_close_calls_in_float32(bundle, kept):
    fast = accelerated(bundle, BFLOAT16)
    with torch.no_grad():
        assert difference(bundle, fast, golden_patches(bundle), max_change=0.02, min_cosine=0.99) == ""


def test_what_it_is_to_a_model_is_said(bundle, kept, monkeypatch):
    assert accelerator_state(bundle.sha256) == "converted"
    assert accelerator_state("0" * 64) == "not converted yet"
    monkeypatch.setenv(accelerator.SWITCH, "off")
    assert accelerator_state(bundle.sha256) == "switched off by LESIONLENS_ACCELERATOR"


def test_an_embedding_for_a_library_is_the_network_s_own_to_the_last_bit(kept, monkeypatch):
    engine = Engine(default_precision="float32", default_accelerator="auto")
    asked(engine)
    vector = engine.embed(EmbeddingRequest(MODEL, *golden_case())).vector
    monkeypatch.setenv(accelerator.SWITCH, "off")
    alone = Engine(default_precision="float32").embed(EmbeddingRequest(MODEL, *golden_case())).vector
    assert np.array_equal(vector, alone)


@pytest.mark.parametrize("why", ["the environment", "the options", "no OpenVINO", "no conversion"])
def test_without_it_nothing_changes(kept, monkeypatch, tmp_path, why):
    started = []
    monkeypatch.setattr(loaded_models, "start_conversion", started.append)
    if why == "the environment":
        monkeypatch.setenv(accelerator.SWITCH, "off")
    elif why == "no OpenVINO":
        monkeypatch.setattr(loaded_models, "accelerator_version", lambda: None)
    elif why == "no conversion":
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    options = {"accelerator": "off"} if why == "the options" else {}
    engine = Engine(default_precision="float32", default_accelerator="auto")
    responses = [asked(engine, **options), asked(engine, **options)]
    for response in responses:
        assert (response.info.device, response.precision.accelerator) == ("cpu", "")
        assert "OpenVINO" not in response.precision.reason
    assert len(started) == (1 if why == "no conversion" else 0)  # once, after the first answer


def test_a_conversion_that_answers_differently_is_not_used_and_says_so_in_one_line(bundle, kept, monkeypatch):
    part = accelerator._part

    def wrong(path, **options):
        return lambda x: part(path, **options)(x) * 1.5 + 0.5

    monkeypatch.setattr(accelerator, "_part", wrong)
    monkeypatch.setattr(accelerator.shutil, "rmtree", lambda *_a, **_k: None)  # other tests use it, too
    response = asked(Engine(default_precision="float32", default_accelerator="auto"))
    assert "OpenVINO is not used, for it answers the test case differently" in response.precision.reason
    assert "\n" not in response.precision.reason
    assert (response.info.device, response.precision.accelerator) == ("cpu", "")


def test_a_damaged_conversion_is_not_used_and_says_so(bundle, converted, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    folder = conversion_folder(bundle.sha256)
    folder.mkdir(parents=True)
    (folder / "model.xml").write_text("<net", encoding="utf-8")
    with pytest.raises(AcceleratorError, match=r"could not compute this model"):
        accelerated(bundle, FLOAT32)


@needs_openvino
def test_a_network_that_cannot_be_converted_is_refused_once_a_week(bundle, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))

    def of_as_many_as_when_it_was_converted(x):
        return bundle.network.features(x)[: int(x.shape[0])]

    convert(replace(bundle, network=with_part(bundle.network, of_as_many_as_when_it_was_converted)))
    assert is_converted(bundle.sha256)
    with pytest.raises(AcceleratorError, match="OpenVINO cannot compute this model"):
        accelerated(bundle, FLOAT32)
    assert accelerator_state(bundle.sha256).startswith("OpenVINO cannot compute this model")
    assert sorted(path.name for path in conversion_folder(bundle.sha256).iterdir()) == ["refused.txt"]
    long_ago = time() - 8 * 24 * 3600  # it may have been a busy computer
    os.utime(conversion_folder(bundle.sha256) / "refused.txt", (long_ago, long_ago))
    assert not is_converted(bundle.sha256)
    assert accelerator_state(bundle.sha256) == "not converted yet"


@needs_openvino
def test_a_network_that_is_hardly_faster_by_it_stays_with_torch_and_says_both_times(bundle, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr(accelerator, "_WORTH_IT", 1e6)
    convert(bundle)
    said = r"OpenVINO is hardly faster with this model \(it takes [\d.]+ ms, torch [\d.]+ ms\)"
    assert re.fullmatch(said, accelerator_state(bundle.sha256))
    with pytest.raises(AcceleratorError, match=said):
        accelerated(bundle, FLOAT32)


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """What is measured, one after the other; how often it was."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    asked_for = []

    def say(*answers: str) -> list:
        def measured_slowness(*_):
            asked_for.append(1)
            return answers[len(asked_for) - 1]

        monkeypatch.setattr(accelerator, "measured_slowness", measured_slowness)
        return asked_for

    return say


SLOW, FAST = "OpenVINO is hardly faster", ""


@needs_openvino
@pytest.mark.parametrize(("first", "then", "state"), [(FAST, SLOW, "converted"), (SLOW, FAST, "OpenVINO is hardly")])
def test_models_of_one_trunk_are_decided_alike_whatever_a_second_look_would_say(bundle, measured, first, then, state):
    times = measured(first, then)
    other = replace(bundle, sha256="1" * 64, network=copy.deepcopy(bundle.network))
    with torch.no_grad():  # what follows the trunk may be another
        list(other.network.parameters())[-1].add_(1e-6)
    for each in (bundle, other):
        convert(each)
        assert accelerator_state(each.sha256).startswith(state)
    assert len(times) == 1


@needs_openvino
def test_another_trunk_is_measured_by_itself_and_a_slow_one_again_after_a_week(bundle, measured):
    times = measured(SLOW, FAST, FAST)
    convert(bundle)
    other = replace(bundle, sha256="1" * 64, network=copy.deepcopy(bundle.network))
    with torch.no_grad():
        next(other.network.parameters()).mul_(1.001)
    convert(other)
    assert accelerator_state(other.sha256) == "converted"
    assert len(times) == 2
    long_ago = time() - 8 * 24 * 3600
    for path in (accelerator.user_data_folder() / "measured").glob("openvino-*.json"):
        os.utime(path, (long_ago, long_ago))
    convert(other)  # what pays is not asked again
    assert len(times) == 2
    convert(bundle)
    assert (accelerator_state(bundle.sha256), len(times)) == ("converted", 3)


@needs_openvino
def test_the_nodule_models_have_one_trunk():
    openvino, found = accelerator._openvino(), []
    for name in ("lung-nodule-kind", "lung-nodule-retrieval"):
        network = load_bundle(name).network
        example = torch.zeros(5, 3, 112, 112)
        with torch.no_grad():
            found.append(
                accelerator._trunk_hash(openvino.convert_model(accelerator._Costly(network), example_input=example))
            )
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("ratios", "pays"),
    [
        ([1.3] * 20, True),
        ([1.05] * 20, False),
        ([0.5] * 5 + [1.3] * 15, True),  # another program came between
        ([0.5] * 6 + [1.3] * 14, False),
        ([9.0] * 6 + [1.05] * 14, False),  # luck
        ([1.05, 1.25] * 10, False),  # about the margin: in doubt, no
        ([1.3] * 6, True),
        ([1.3] * 5 + [1.0], False),
    ],
)
def test_it_must_pay_for_certain(ratios, pays):
    assert (hardly_faster([(10.0 * ratio, 10.0) for ratio in ratios]) == "") is pays


@pytest.mark.parametrize(
    ("ratios", "pays"),
    [([1.05] * 20, True), ([0.95] * 20, False), ([0.9, 1.05] * 10, False), ([0.9] * 5 + [1.05] * 15, True)],
)
def test_with_many_lesions_at_once_it_must_be_as_fast_for_certain(ratios, pays):
    said = no_faster_with_many([(10.0 * ratio, 10.0) for ratio in ratios], 4)
    assert (said == "") is pays
    assert pays or re.fullmatch(
        r"OpenVINO is no faster with 4 lesions at once \(they take 10.0 ms, with torch 9.\d ms\)", said
    )


@needs_openvino
@pytest.mark.parametrize(
    ("one", "many", "said"), [(2.0, 2.0, ""), (1.0, 9.0, "hardly faster"), (2.0, 0.5, "16 lesions")]
)
def test_one_lesion_is_measured_and_as_many_as_go_at_once(bundle, kept, monkeypatch, one, many, said):
    seen = []

    def pairs(alone, other, **_):
        here, there = alone(), other()
        assert torch.allclose(here, there, atol=1e-3)
        seen.append(len(here))
        return [(10.0 * (one if len(here) == 1 else many), 10.0)] * 20

    monkeypatch.setattr(accelerator, "_WORTH_IT", 1.1)
    monkeypatch.setattr(accelerator, "interleaved_pairs_ms", pairs)
    found = measured_slowness(bundle, conversion_folder(bundle.sha256) / "model.xml", FLOAT32)
    assert said in found
    assert bool(found) is bool(said)
    assert seen == ([1] if one < 1.1 else [1, 16])


@needs_openvino
@pytest.mark.parametrize(("precision", "rounds"), [(FLOAT32, False), (BFLOAT16, True)])
def test_it_is_measured_in_the_precision_that_is_chosen_here(bundle, kept, monkeypatch, precision, rounds):
    rounded, seen = Bfloat16Features.features_of_lesions, []
    monkeypatch.setattr(
        Bfloat16Features, "features_of_lesions", lambda self, *of: seen.append(id(self)) or rounded(self, *of)
    )
    monkeypatch.setattr(
        accelerator, "interleaved_pairs_ms", lambda alone, other, **_: [(alone(), other()) and (1.0, 1.0)] * 20
    )
    measured_slowness(bundle, conversion_folder(bundle.sha256) / "model.xml", precision)
    assert len(set(seen)) == (2 if rounds else 0)  # torch's and OpenVINO's


def test_the_median_of_twenty_lies_below_the_sixth_once_in_forty():
    assert [accelerator._rank_of_lower_end(n) for n in (6, 7, 8, 9, 20)] == [0, 0, 0, 1, 5]


@needs_openvino
def test_the_nodule_network_converts_its_maps_of_planes():
    nodule = load_bundle("lung-nodule-malignancy")
    example = accelerator._input_of_part(nodule.network, golden_patches(nodule))
    assert tuple(example.shape) == (5, 3, 112, 112)
    seen = []

    def counted(x):
        seen.append(len(x))
        return nodule.network.depth_maps(x)

    patches = golden_patches(nodule)
    with torch.no_grad():
        assert torch.equal(with_part(nodule.network, counted).features(patches), nodule.network.features(patches))
    assert seen == [5]


@needs_openvino
def test_a_process_of_its_own_converts_a_model(bundle, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    started = monotonic()
    process = start_conversion(bundle.folder)
    while process.poll() is None and monotonic() - started < 200:
        sleep(0.1)
    assert process.returncode == 0
    assert is_converted(bundle.sha256)
