"""MobileNetV2 as published, and as dense as small lesions need it."""

from __future__ import annotations

import pytest
import torch
from LesionLib.errors import BundleError
from LesionLib.networks import build_network
from LesionLib.networks.base import device_of
from torch import nn

NARROW = {"width": 0.25, "stem_stride": 1, "output_stride": 8}


@pytest.fixture
def lively() -> nn.Module:
    """A narrow network whose normalisations have statistics as after training, so that nothing is near zero."""
    torch.manual_seed(0)
    network = build_network("mobilenet_v2", {**NARROW, "classes": 3})
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.05)
            module.running_var.fill_(0.2)
            nn.init.uniform_(module.weight, 0.8, 1.2)
            nn.init.normal_(module.bias, 0, 0.2)
    return network.eval()


def test_forward_is_the_head_of_the_features(lively):
    x = torch.rand(4, 3, 64, 64) * 2 - 1
    with torch.inference_mode():
        f = lively.features(x)
        assert f.shape == (4, 1280, 8, 8)
        assert f.std() > 0.01
        logits = lively(x)
        torch.testing.assert_close(logits, lively.head(f))
        torch.testing.assert_close(lively.descriptor(f), f.mean(dim=(2, 3)))
        torch.testing.assert_close(logits, lively.classifier[1](f.mean(dim=(2, 3))))
    assert logits.shape == (4, 3)


def test_embeddings_have_length_one_and_tell_pictures_apart(lively):
    x = torch.rand(4, 3, 64, 64) * 2 - 1
    with torch.inference_mode():
        embedding = lively.embed(x)
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(4))
    assert (embedding @ embedding.T - torch.eye(4)).max() < 1 - 1e-6


def test_a_picture_s_answer_does_not_depend_on_its_neighbours_in_the_batch(lively):
    x = torch.rand(5, 3, 64, 64) * 2 - 1
    with torch.inference_mode():
        together, alone = lively(x), torch.cat([lively(one[None]) for one in x])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-4)


def test_a_higher_temperature_gives_flatter_probabilities_of_the_same_order(lively):
    logits = torch.tensor([[2.0, 0.5, -1.0]])
    sharp, flat = lively.probabilities(logits), lively.probabilities(logits, temperature=3.0)
    torch.testing.assert_close(sharp, logits.softmax(dim=1))
    assert sharp.argsort().tolist() == flat.argsort().tolist()
    assert flat.max() < sharp.max()


@pytest.mark.parametrize("stem_stride", [1, 2])
@pytest.mark.parametrize("output_stride", [8, 16, 32])
@pytest.mark.parametrize("size", [(64, 64), (96, 128), (65, 33)])
def test_the_map_is_as_fine_as_the_output_stride_says(stem_stride, output_stride, size):
    arguments = {"width": 0.25, "stem_stride": stem_stride, "output_stride": output_stride}
    with torch.device("meta"):
        network = build_network("mobilenet_v2", arguments)
        f = network.features(torch.empty(2, 3, *size))
    # A stem without stride leaves one halving fewer; there are four more.
    stride = min(output_stride, 16 * stem_stride)
    assert f.shape == (2, 1280, *(-(-n // stride) for n in size))


@pytest.mark.parametrize(
    "arguments", [{"output_stride": 8}, {"output_stride": 16}, {"stem_stride": 1, "output_stride": 8}]
)
def test_the_finer_networks_have_the_published_weights_shapes(arguments):
    with torch.device("meta"):
        published = build_network("mobilenet_v2", {}).state_dict()
        finer = build_network("mobilenet_v2", arguments).state_dict()
    assert {k: v.shape for k, v in finer.items()} == {k: v.shape for k, v in published.items()}


# Millions of parameters as Keras lists them for ImageNet's 1000 classes; it counts a little differently.
@pytest.mark.parametrize(("width", "millions"), [(1.4, 6.06), (1.3, 5.34), (1.0, 3.47), (0.75, 2.61)])
def test_every_width_has_about_its_published_number_of_parameters(width, millions):
    with torch.device("meta"):
        network = build_network("mobilenet_v2", {"classes": 1000, "width": width})
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, rel=0.015)


def test_the_full_width_has_exactly_the_published_number_of_parameters():
    with torch.device("meta"):
        network = build_network("mobilenet_v2", {"classes": 1000})
    assert sum(p.numel() for p in network.parameters()) == 3_504_872


def test_channels_and_classes_are_as_asked():
    with torch.device("meta"):
        network = build_network("mobilenet_v2", {"classes": 7, "channels": 1, "width": 0.25})
        assert network(torch.empty(2, 1, 32, 32)).shape == (2, 7)
        assert device_of(network).type == "meta"


@pytest.mark.parametrize(
    "arguments",
    [
        {"stem_stride": 0},
        {"stem_stride": 4},
        {"output_stride": 4},
        {"output_stride": 64},
        {"output_stride": "8"},
        {"classes": "two"},
        {"dropout": 1.5},
        {"pretrained": True},
    ],
)
def test_arguments_mobilenet_does_not_take_are_refused_in_one_line(arguments):
    with pytest.raises(BundleError, match="architecture 'mobilenet_v2' does not take the arguments"):
        build_network("mobilenet_v2", arguments)


def test_an_unknown_architecture_is_refused_with_those_that_are_known():
    with pytest.raises(
        BundleError, match=r"unknown architecture 'vgg'; this version knows arl, cnn3d, dadrn, .*mobilenet_v2"
    ):
        build_network("vgg", {})
