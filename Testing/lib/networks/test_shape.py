"""ShapeNet answers a shape and its mirror images alike, and its map lies in the frame that was given."""

from __future__ import annotations

import pytest
import torch
from LesionLib.errors import BundleError
from LesionLib.networks import build_network
from LesionLib.networks.resnet import ShapeNet


@pytest.fixture
def network() -> ShapeNet:
    torch.manual_seed(0)
    return ShapeNet(width=4).double().eval()


@pytest.fixture
def shape() -> torch.Tensor:
    torch.manual_seed(1)
    return (torch.rand(1, 1, 28, 28, 28, dtype=torch.float64) > 0.8).double()


@pytest.mark.parametrize("axes", [(2,), (3,), (4,), (2, 4), (2, 3, 4)])
def test_mirror_images_have_one_answer_and_one_descriptor(network, shape, axes):
    with torch.no_grad():
        torch.testing.assert_close(network(shape.flip(axes)), network(shape))
        torch.testing.assert_close(network.embed(shape.flip(axes)), network.embed(shape))


def test_exchanged_axes_are_another_shape(network, shape):
    with torch.no_grad():
        assert (network(shape.transpose(2, 4)) - network(shape)).abs().max() > 1e-6


def test_the_map_of_a_mirrored_shape_is_the_mirrored_map(network, shape):
    # Views stand one after the other: their mean over the channels' groups is what Grad-CAM comes to with equal weights.
    def mean_map(x):
        return network.features(x).unflatten(1, (8, network.size)).mean(dim=1)

    with torch.no_grad():
        torch.testing.assert_close(mean_map(shape.flip(2)), mean_map(shape).flip(2))
        assert (mean_map(shape).flip(2) - mean_map(shape)).abs().max() > 1e-6


def test_in_training_a_shape_is_seen_once(network, shape):
    assert network.features(shape).shape == (1, 8 * 16, 4, 4, 4)
    assert network.train().features(torch.cat([shape, shape])).shape == (2, 16, 4, 4, 4)


def test_a_width_that_is_none_is_refused():
    with pytest.raises(BundleError, match="width must be from 1 to 64"):
        build_network("shape", {"width": 0})
