"""A heat map must change when the network forgets; the check tells maps that do from maps that do not."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from LesionLib.explain.localisation import (
    grad_cam_of_patches,
    layers_from_the_head,
    overlap,
    randomise,
    rank_correlation,
    sanity_check,
)
from LesionLib.networks import LesionNet, build_network
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional

NETWORKS = {
    "mobilenet_v2": {"width": 0.25},
    "resnet3d": {"width": "tiny", "stem_stride": 2},
    "dmrn": {"depth": 18, "width": "tiny", "classes": 3},
    "dadrn": {"width": "tiny"},
}


class CornerNet(LesionNet):
    """Twelve feature maps; class 1 is the brightness of patches, the rest of the maps sees noise."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Linear(12, 2)
        self.conv = nn.Conv2d(1, 12, 5, stride=2, padding=2)

    def features(self, x: Tensor) -> Tensor:
        return functional.relu(self.conv(x))

    def descriptor(self, f: Tensor) -> Tensor:
        return f.mean(dim=(2, 3))

    def head(self, f: Tensor) -> Tensor:
        return self.classifier(self.descriptor(f))


def pictures_and_truth(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Half hold a smooth disc, half a ring of the same brightness, all of them vertical stripes as a distraction."""
    rng = np.random.default_rng(seed)
    y = rng.integers(2, size=n)
    row, column = np.mgrid[:32, :32]
    x = 0.3 * rng.normal(0, 1, (n, 32, 32)) + 0.8 * np.sin(column * 1.5)
    for i in range(n):
        center = rng.uniform(9, 23, 2)
        r = np.hypot(row - center[0], column - center[1])
        x[i] += 3.0 * (r < 5) if y[i] else 3.0 * ((r > 5) & (r < 7))
    return torch.from_numpy(x[:, None].astype(np.float32)), torch.from_numpy(y)


@pytest.fixture(scope="module")
def trained() -> LesionNet:
    torch.manual_seed(1)
    network = CornerNet()
    x, y = pictures_and_truth(256, seed=0)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(120):
        optimiser.zero_grad()
        functional.cross_entropy(network(x), y).backward()
        optimiser.step()
    network.eval()
    test_x, test_y = pictures_and_truth(128, seed=1)
    assert (network(test_x).argmax(dim=1) == test_y).float().mean() > 0.9
    return network


def edges(_network: LesionNet, x: Tensor, _class_index: int) -> Tensor:
    """An edge detector: looks like an explanation and never asks the network."""
    return (x[:, 0].diff(dim=1)[:, :, 1:] ** 2 + x[:, 0].diff(dim=2)[:, 1:] ** 2).sqrt()


def test_grad_cam_of_a_trained_network_passes(trained):
    found = sanity_check(trained, pictures_and_truth(48, seed=2)[0])
    assert found.passed
    assert found.steps[-1].high < 0.5
    assert [step.layers for step in found.steps] == [("classifier",), ("conv",)]
    assert "changes, as it must" in str(found)
    assert f"n = {found.patches} patches" in str(found)
    assert "3 randomisations" in str(found)


def test_an_edge_detector_does_not(trained):
    found = sanity_check(trained, pictures_and_truth(16, seed=2)[0], explain=edges, method="edge map")
    assert not found.passed
    assert all(step.rank_correlation == pytest.approx(1.0) for step in found.steps)
    assert all(step.overlap == pytest.approx(1.0) for step in found.steps)
    assert "edge map hardly changes" in str(found)


def test_a_network_is_told_from_its_randomised_copy_but_not_from_an_equal_one(trained):
    x, _ = pictures_and_truth(24, seed=3)
    randomised, equal = copy.deepcopy(trained), copy.deepcopy(trained)
    randomise(randomised, ["classifier", "conv"], seed=5)
    own, same, other = (grad_cam_of_patches(n, x, 1).numpy() for n in (trained, equal, randomised))
    usable = [i for i in range(len(x)) if np.ptp(own[i]) > 0]
    assert np.mean([rank_correlation(own[i], same[i]) for i in usable]) == pytest.approx(1.0)
    assert np.mean([rank_correlation(own[i], other[i]) for i in usable]) < 0.5


def test_the_same_seed_gives_the_same_numbers_and_nothing_else_is_touched(trained):
    x, _ = pictures_and_truth(12, seed=4)
    before = copy.deepcopy(trained.state_dict())
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    first = sanity_check(trained, x, seed=1)
    assert torch.rand(1) == expected
    assert sanity_check(trained, x, seed=1) == first
    for other in (sanity_check(trained, x, seed=2), sanity_check(trained, x, seed=1, repeats=1)):
        assert [s.rank_correlation for s in other.steps] != [s.rank_correlation for s in first.steps]
    for name, tensor in trained.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert not any(module._forward_hooks for module in trained.modules())


def patch(name: str) -> Tensor:
    torch.manual_seed(0)
    return torch.rand(2, 1, 32, 32, 32) if name == "resnet3d" else torch.rand(2, 3, 64, 64)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_layers_are_found_from_the_head_down_in_every_network(name):
    network = build_network(name, NETWORKS[name])
    layers = layers_from_the_head(network, patch(name)[:1])
    head = "svm" if name == "dmrn" else "classifier"
    assert layers[0].startswith(head)
    first_conv = {"mobilenet_v2": "features_.0.0"}.get(name, "trunk.conv1")
    assert layers[-1] == first_conv
    answering = network.inference_state() if name == "dmrn" else network.state_dict()
    owners = {key.rpartition(".")[0] for key in answering}
    assert set(layers) == owners
    # Independently of hooks: randomising a layer never changes what is computed before it.
    middle = len(layers) // 2
    changed = copy.deepcopy(network)
    randomise(changed, layers[:middle], seed=0)
    x, kept = patch(name), []
    probe = layers[middle]
    for n in (network, changed):
        handle = n.get_submodule(probe).register_forward_hook(lambda _m, _i, out: kept.append(out))
        with torch.no_grad():
            n(x)
        handle.remove()
    assert torch.equal(kept[0], kept[1])


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_the_cascade_runs_through_every_network_in_few_steps(name):
    network = build_network(name, NETWORKS[name])
    found = sanity_check(network, patch(name), max_steps=4)
    assert len(found.steps) == 4
    layers = [layer for step in found.steps for layer in step.layers]
    assert layers == layers_from_the_head(network, patch(name))
    assert len(found.steps[0].layers) == 1
    for step in found.steps:
        assert -1 <= step.low <= step.rank_correlation <= step.high <= 1
        assert 0 <= step.overlap <= 1 + 1e-9


def test_shuffling_keeps_the_values_and_moves_them():
    network = build_network("mobilenet_v2", NETWORKS["mobilenet_v2"])
    before = copy.deepcopy(network.state_dict())
    randomise(network, ["classifier.1"], seed=0)
    for name, tensor in network.state_dict().items():
        if name == "classifier.1.weight":
            assert torch.equal(tensor.flatten().sort().values, before[name].flatten().sort().values)
            assert not torch.equal(tensor, before[name])
        elif not name.startswith("classifier.1"):
            assert torch.equal(tensor, before[name])


@settings(max_examples=100, deadline=None)
@given(arrays(np.float64, (2, 12), elements=st.integers(0, 5).map(float)))
def test_rank_correlation_is_scipy_s_with_ties_and_0_for_constant_maps(maps):
    a, b = maps
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        assert rank_correlation(a, b) == 0.0
    else:
        assert rank_correlation(a, b) == pytest.approx(spearmanr(a, b).statistic, abs=1e-12)
    assert 0 <= overlap(a, b) <= 1 + 1e-12
    assert overlap(a, a) == pytest.approx(1.0 if a.any() else 0.0)


def test_maps_that_die_count_as_changed_and_those_that_never_were_are_left_out(trained):
    x, _ = pictures_and_truth(6, seed=5)
    calls = []

    def dying(_network: LesionNet, patches: Tensor, _class_index: int) -> Tensor:
        calls.append(len(patches))
        flat = torch.zeros(len(patches), 4, 4)
        return flat if sum(calls) > len(x) else flat + (patches.amax(dim=(1, 2, 3)) < 1e9)[:, None, None] * torch.eye(4)

    found = sanity_check(trained, x, explain=dying)
    assert (found.patches, found.left_out) == (6, 0)
    assert all((s.rank_correlation, s.overlap, s.empty) == (0.0, 0.0, 18) for s in found.steps)

    def some(_network: LesionNet, patches: Tensor, _class_index: int) -> Tensor:
        odd = (patches[:, 0, 0, 0] > x[:, 0, 0, 0].median()).float()
        return odd[:, None, None] * torch.eye(4)

    assert (sanity_check(trained, x, explain=some).patches, sanity_check(trained, x, explain=some).left_out) == (3, 3)
    with pytest.raises(ValueError, match="none of the 6 patches has a map"):
        sanity_check(trained, x, explain=lambda _n, p, _c: torch.zeros(len(p), 4, 4))


def test_a_network_in_training_mode_is_refused(trained):
    with pytest.raises(ValueError, match="evaluation mode"):
        sanity_check(copy.deepcopy(trained).train(), pictures_and_truth(4, seed=6)[0])
    with pytest.raises(ValueError, match="at least 1 step"):
        sanity_check(trained, pictures_and_truth(4, seed=6)[0], max_steps=0)
