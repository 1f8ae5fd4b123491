"""bfloat16 is used where it is measured to be faster and leaves the answer alone; nowhere else."""

from __future__ import annotations

import pytest
import torch
from LesionLib.inference import precision
from LesionLib.inference.devices import chosen_device
from LesionLib.inference.messages import Precision
from LesionLib.inference.precision import Bfloat16Features, choose_precision, in_precision, mean_probabilities
from LesionLib.model.bundle import load_bundle
from LesionLib.networks import LesionNet, build_network
from torch import nn


class SmallNet(LesionNet):
    """One convolution, average, linear head whose logits are multiplied by ``gain``."""

    def __init__(self, *, gain: float = 4.0, offset: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution, self.linear = nn.Conv2d(3, 8, 3), nn.Linear(8, 2)
        self.gain, self.offset = gain, offset
        self.eval()

    def features(self, x):
        return self.convolution(x)

    def descriptor(self, f):
        return f.mean(dim=(2, 3))

    def head(self, f):
        return self.gain * (self.linear(self.descriptor(f)) + torch.tensor([self.offset, 0.0]))


class StubbornNet(SmallNet):
    def features(self, x):
        if x.dtype != torch.float32:
            msg = "only float32 here\nand a long trace"
            raise RuntimeError(msg)
        return super().features(x)


def patches(count: int = 4, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def measured(monkeypatch):
    """Say what was measured, so that the decision can be tested on any CPU."""

    def say(float32_ms: float, bfloat16_ms: float) -> list:
        calls = []
        monkeypatch.setattr(precision, "interleaved_ms", lambda *_: calls.append(1) or (float32_ms, bfloat16_ms))
        return calls

    return say


def test_the_probe_measures_both_and_gives_a_reason():
    choice = choose_precision(SmallNet(), patches())
    assert choice.float32_ms > 0
    assert choice.bfloat16_ms > 0
    assert choice.reason


def test_bfloat16_is_chosen_where_it_is_faster_and_changes_nothing(measured):
    measured(60.0, 20.0)
    choice = choose_precision(SmallNet(), patches())
    assert choice.name == "bfloat16"
    assert "20.0 ms instead of 60.0 ms" in choice.reason


@pytest.mark.parametrize("bfloat16_ms", [55.0, 200.0])
def test_bfloat16_is_refused_where_it_is_not_clearly_faster(measured, bfloat16_ms):
    measured(60.0, bfloat16_ms)
    choice = choose_precision(SmallNet(), patches())
    assert (choice.name, choice.bfloat16_ms) == ("float32", bfloat16_ms)
    assert "does not pay" in choice.reason


def test_bfloat16_is_refused_where_it_moves_the_test_case_s_answer(measured):
    measured(60.0, 20.0)
    trembling = SmallNet(gain=1e5)
    with torch.no_grad():
        middle = trembling.linear(trembling.descriptor(trembling.features(patches(1))))[0]
    trembling.offset = float(middle[1] - middle[0])
    choice = choose_precision(trembling, patches(1))
    assert choice.name == "float32"
    assert "would change the test case's answer" in choice.reason


def test_a_network_that_does_not_run_in_bfloat16_stays_in_float32():
    choice = choose_precision(StubbornNet(), patches())
    assert choice.name == "float32"
    assert choice.reason == "this network does not run in bfloat16: only float32 here"


def test_a_network_is_measured_once(measured):
    calls = measured(60.0, 20.0)
    network = SmallNet()
    assert choose_precision(network, patches()) is choose_precision(network, patches())
    assert len(calls) == 1


def test_what_was_measured_is_kept_for_the_next_process_under_the_model_s_hash(measured, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    calls = measured(60.0, 20.0)
    first = choose_precision(SmallNet(), patches(), kept_as="ab" * 32)
    assert choose_precision(SmallNet(), patches(), kept_as="ab" * 32) == first  # as another process would ask
    assert len(calls) == 1
    choose_precision(SmallNet(), patches(), kept_as="cd" * 32)
    assert len(calls) == 2


def test_the_class_of_every_lesion_is_that_of_float32():
    exact = SmallNet(gain=20.0)
    fast = in_precision(exact, precision.Precision("bfloat16", "test"), dimensions=4, temperature=1.0)
    rounded = 0
    for seed in range(50):
        x = patches(seed=seed)
        with torch.no_grad():
            a, b = exact.features(x), fast.features(x)
        assert b.dtype == torch.float32
        assert mean_probabilities(exact, a).argmax() == mean_probabilities(fast, b).argmax()
        rounded += not torch.equal(a, b)
    assert rounded > 0


def test_a_close_call_is_computed_in_float32():
    exact = SmallNet(gain=0.0)
    fast = in_precision(exact, precision.Precision("bfloat16", "test"), dimensions=4, temperature=1.0)
    with torch.no_grad():
        assert torch.equal(fast.features(patches()), exact.features(patches()))
        assert not torch.equal(fast.rounded_features(patches()), exact.features(patches()))


def test_float32_is_the_network_itself():
    network = SmallNet()
    choice = precision.Precision("float32", "test")
    assert in_precision(network, choice, dimensions=4, temperature=1.0) is network


def test_the_shipped_model_keeps_its_weights_in_float32_when_it_is_probed():
    bundle = load_bundle("lung-nodule-malignancy")
    choose_precision(bundle.network, torch.zeros(1, 2, 84, 84, 84))
    assert {p.dtype for p in bundle.network.parameters()} == {torch.float32}
    assert chosen_device("cpu").type == "cpu"


# What a wrapped network computes by the methods beside them, and what nobody asks a network in another precision.
OF_THE_BASE = {"forward", "embed", "metric", "costly", "reference_values"}


def test_a_network_in_bfloat16_says_of_its_map_what_the_float32_network_does():
    """Whatever is added to the protocol: a map that fell back on the default would be laid beside the lesion."""
    asked = {name for name in vars(LesionNet) if not name.startswith("_")} - OF_THE_BASE
    assert asked <= set(vars(Bfloat16Features))
    network = build_network("resnet", {"depth": 18, "width": "tiny"})
    wrapped = in_precision(network, Precision("bfloat16", "asked for"), dimensions=4, temperature=1.0)
    assert isinstance(wrapped, Bfloat16Features)
    assert wrapped.cell_centres == network.cell_centres == (0.0, 32.0)
