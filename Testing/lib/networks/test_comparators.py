"""The networks that the papers compare with: as many parameters as their originals, maps and descriptors of the published shapes."""

from __future__ import annotations

import pytest
import torch
from LesionLib.networks import build_network, sizes_of
from LesionLib.networks.dadrn import AttentionModule
from LesionLib.networks.dmrn import AttentionResidualBlock

RESNET50 = 23_508_032  # without its classifier, as published
BLOCKS = 16


@pytest.mark.parametrize(
    ("name", "count", "features", "descriptor"),
    [
        # One parameter more in each block than ResNet-50.
        ("arl", RESNET50 + BLOCKS + 2048 * 5 + 5, 2048, 2048),
        # Two of them, two classifiers, and 4096 -> 1024 -> 1.
        ("sdl", 2 * (RESNET50 + 2048 * 5 + 5) + (4096 * 1024 + 1024) + (1024 + 1), 4096, 4096),
        # The average of 2048, and one number more by which lengths are kept.
        ("single_cnn", RESNET50 + 2048 * 128 + 128 + 128 * 5 + 5, 2048, 2049),
    ],
)
def test_it_has_the_parameters_and_shapes_that_its_paper_gives(name, count, features, descriptor):
    sizes = sizes_of(name)
    assert sizes.parameters == count
    assert sizes.map == (features, 7, 7)
    assert sizes.descriptor == (descriptor,)


def test_residual_attention_adds_its_modules_to_resnet_50_and_keeps_its_map():
    def unit(channels: int) -> int:
        inner = channels // 4
        return 2 * channels * inner + 9 * inner**2 + 2 * (2 * inner + channels)

    def module(channels: int, halvings: int) -> int:
        return (4 + 2 * halvings) * unit(channels) + 2 * channels**2 + channels + 4 * channels

    added = module(256, 3) + module(512, 2) + module(1024, 1)
    sizes = sizes_of("ra_resnet50")
    assert sizes.parameters == RESNET50 + added + 2048 * 5 + 5
    assert sizes.map == (2048, 7, 7)


def test_attention_of_nothing_leaves_a_residual_block_as_it_is_and_attention_weighs_the_input():
    torch.manual_seed(0)
    block = AttentionResidualBlock(32, 8).eval()
    x = torch.rand(2, 32, 6, 6)
    with torch.no_grad():
        small = block(x)
        block.alpha.zero_()
        plain = block(x)
        block.alpha.fill_(1.0)
        strong = block(x)
    torch.testing.assert_close(small, plain, atol=0.05, rtol=0)
    assert (strong - plain).min() >= 0  # both summands are at least 0 here
    assert (strong - plain).max() > 0.1


def test_an_attention_module_keeps_the_shape_of_odd_maps():
    module = AttentionModule(16, halvings=3).eval()
    with torch.no_grad():
        assert module(torch.rand(1, 16, 15, 13)).shape == (1, 16, 15, 13)


def test_sdl_answers_with_the_mean_of_its_two_networks():
    torch.manual_seed(0)
    network = build_network("sdl", {"depth": 18, "width": "tiny", "classes": 3})
    x = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        one, other, same = network.training_logits(x, x)
        answer = network(x).softmax(dim=1)
    torch.testing.assert_close(answer, (one.softmax(dim=1) + other.softmax(dim=1)) / 2)
    assert same.shape == (4,)


@pytest.mark.parametrize(("descriptor", "length"), [("third_last", 32), ("second_last", 16), ("softmax", 5)])
def test_a_single_cnn_is_compared_at_three_depths_and_classifies_alike(descriptor, length):
    arguments = {"depth": 18, "width": "tiny", "descriptor_size": 16, "metric": "cosine"}
    torch.manual_seed(0)
    first = build_network("single_cnn", {**arguments, "descriptor": "third_last"})
    network = build_network("single_cnn", {**arguments, "descriptor": descriptor})
    network.load_state_dict(first.state_dict())
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert network.descriptor(network.features(x)).shape == (2, length)
        torch.testing.assert_close(network(x), first(x))


def test_resglnet_labels_every_place_by_its_patch_and_by_the_whole():
    torch.manual_seed(0)
    network = build_network("resglnet", {"width": "tiny", "classes": 3, "channels": 1})
    x = torch.rand(2, 1, 128, 128)
    with torch.no_grad():
        labels = network.label_map(network.features(x))
        shares = network.descriptor(network.features(x))
        far = x.clone()
        far[:, :, 112:, 112:] += 3.0
        local, changed = network.features(x), network.features(far)
    assert labels.shape == (2, 3, 16, 16)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(2))
    n = network.mapped_channels
    torch.testing.assert_close(local[:, :n, :4, :4], changed[:, :n, :4, :4])  # their patches end before the change
    assert (local[:, :n, -1, -1] - changed[:, :n, -1, -1]).abs().max() > 1e-3
    assert (local[:, n:, 0, 0] - changed[:, n:, 0, 0]).abs().max() > 1e-4  # the whole is seen everywhere
    torch.testing.assert_close(local[:, n:, 0, 0], local[:, n:, 9, 5])
