"""Batch norms folded into convolutions: the answers stay, and the network that learns on keeps its own."""

from __future__ import annotations

import pytest
import torch
from LesionLib.inference.loaded_models import ModelCache
from LesionLib.model.bundle import load_bundle
from LesionLib.model.folder import golden_case
from LesionLib.networks import ARCHITECTURES, EXAMPLE_INPUTS, LesionNet, build_network
from LesionLib.networks.base import folded
from LesionLib.sampling.batches import crop_lesion
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

# The architectures whose batch norms do not all follow a convolution that is named as such: (of how many, how many are left).
LEFT = {"ra_resnet50": (131, 3), "se_resnet50": (53, 52)}
SIDES = {"orthopatch": 96}


def norms_of(network: nn.Module) -> int:
    return sum(isinstance(module, _BatchNorm) for module in network.modules())


def as_after_training(network: LesionNet) -> LesionNet:
    """Statistics that are not those of a new network, so that leaving out a norm is seen."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.running_mean.normal_(0, 0.05)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.8, 1.2)
            nn.init.normal_(module.bias, 0, 0.2)
    return network


def example(name: str) -> torch.Tensor:
    channels, *edges = EXAMPLE_INPUTS[name]
    side = SIDES.get(name, 64)
    edges = edges if len(edges) == 3 else [side, side]
    return torch.rand(1, channels, *edges, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("name", sorted(set(ARCHITECTURES) - {"vgg19"}))  # which has no norms
def test_every_architecture_gives_the_same_map_without_its_batch_norms(name):
    network = as_after_training(build_network(name, {}))
    fast, x = folded(network), example(name)
    before, left = LEFT.get(name, (norms_of(network), 0))
    assert (norms_of(network), norms_of(fast)) == (before, left)
    with torch.no_grad():
        exact, found = network.features(x), fast.features(x)
    assert float((exact - found).abs().max()) <= 1e-5 * float(exact.abs().max())


def test_a_norm_that_follows_something_else_stays():
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1))
    assert norms_of(folded(module)) == 1


def test_a_model_answers_without_its_batch_norms_what_it_answers_with_them():
    exact, fast = load_bundle("lung-nodule-kind"), ModelCache().get("lung-nodule-kind", torch.device("cpu"), "float32")
    assert (norms_of(exact.network), norms_of(fast.bundle.network)) == (51, 0)
    patches = torch.from_numpy(crop_lesion(*golden_case(), exact.spec).patches)
    with torch.no_grad():
        here, there = exact.network(patches), fast.bundle.network(patches)
        torch.testing.assert_close(there, here, rtol=1e-5, atol=1e-4)
        p, q = (exact.network.probabilities(logits, exact.temperature) for logits in (here, there))
    assert float((p - q).abs().max()) <= 1e-5
