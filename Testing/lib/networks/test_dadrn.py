"""DADRN: the paper's grid, and attention that is its formula."""

from __future__ import annotations

import pytest
import torch
from LesionLib.explain.saliency import grad_cam
from LesionLib.networks.attention import ChannelAttention, SpatialAttention
from LesionLib.networks.dadrn import DADRN
from torch import nn
from torch.nn import functional


def parameters(network) -> int:
    return sum(p.numel() for p in network.parameters())


def on_meta(**arguments):
    """The network without memory, and the shape of its features of a 224 x 224 patch."""
    with torch.device("meta"):
        network = DADRN(**arguments)
        return network, tuple(network.features(torch.empty(1, 3, 224, 224)).shape)


def test_the_trunk_is_drn_a_50_with_2048_maps_of_28_by_28():
    network, shape = on_meta(attention="none")
    assert shape == (1, 2048, 28, 28)
    assert parameters(network.trunk) == 23_508_032
    assert parameters(network) == 23_508_032 + 2048 * 5 + 5


@pytest.mark.parametrize(
    ("arguments", "channels"),
    [
        ({}, 1024),
        ({"fusion": "sum"}, 512),
        ({"attention": "spatial"}, 512),
        ({"attention": "channel"}, 512),
        ({"reduce": None}, 4096),
        ({"reduce": None, "fusion": "sum"}, 2048),
        ({"reduce": None, "attention": "channel"}, 2048),
    ],
)
def test_the_head_sees_the_attended_map_in_the_paper_s_28_by_28(arguments, channels):
    network, shape = on_meta(**arguments)
    assert shape == (1, channels, 28, 28)
    assert network.classifier[1].weight.shape == (5, channels)


def test_channel_attention_has_no_weights_but_beta_and_spatial_attention_its_three_convolutions():
    none = parameters(on_meta(attention="none", reduce=None)[0])
    assert parameters(on_meta(attention="channel", reduce=None)[0]) - none == 1
    convolutions = 2 * (2048 * 256 + 256) + 2048 * 2048 + 2048
    assert parameters(on_meta(attention="spatial", reduce=None)[0]) - none == convolutions + 1


def alpha(s, normalise):
    return s.sigmoid() if normalise == "sigmoid" else s.softmax(dim=0)


@pytest.mark.parametrize("normalise", ["sigmoid", "softmax"])
@pytest.mark.parametrize("scale", [True, False])
def test_spatial_attention_is_its_formula_position_by_position(normalise, scale):
    torch.manual_seed(0)
    attention = SpatialAttention(16, normalise=normalise, scale=scale).double()
    nn.init.constant_(attention.beta, 0.3)
    a = torch.randn(2, 16, 3, 4, dtype=torch.float64)
    expected = a.clone()
    with torch.no_grad():
        b1, b2, d = (conv(a).flatten(2) for conv in (attention.query, attention.key, attention.value))
        for patch in range(2):
            for j in range(12):
                s = torch.stack([b1[patch, :, j] @ b2[patch, :, i] for i in range(12)]) / (2**0.5 if scale else 1)
                o = sum(weight * d[patch, :, i] for i, weight in enumerate(alpha(s, normalise)))
                expected[patch, :, j // 4, j % 4] += 0.3 * o
        torch.testing.assert_close(attention(a), expected)


@pytest.mark.parametrize("normalise", ["sigmoid", "softmax"])
@pytest.mark.parametrize("scale", [True, False])
def test_channel_attention_is_its_formula_channel_by_channel(normalise, scale):
    torch.manual_seed(0)
    attention = ChannelAttention(normalise=normalise, scale=scale).double()
    nn.init.constant_(attention.beta, 0.3)
    a = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    expected = a.clone()
    with torch.no_grad():
        for patch in range(2):
            for j in range(5):
                s = torch.stack([(a[patch, j] * a[patch, i]).sum() for i in range(5)]) / (12 if scale else 1)
                s = s if normalise == "sigmoid" else s.max() - s  # DANet
                o = sum(weight * a[patch, i] for i, weight in enumerate(alpha(s, normalise)))
                expected[patch, j] += 0.3 * o
        torch.testing.assert_close(attention(a), expected)


def test_softmax_rows_add_up_to_one_and_sigmoid_rows_to_about_half_their_positions():
    torch.manual_seed(0)
    a = torch.randn(1, 64, 28, 28)
    with torch.no_grad():
        softmax = SpatialAttention(64, normalise="softmax", scale=True).weights(a).sum(dim=2)
        sigmoid = SpatialAttention(64, normalise="sigmoid", scale=True).weights(a).sum(dim=2)
    torch.testing.assert_close(softmax, torch.ones(1, 784))
    assert 350 < sigmoid.mean() < 430


def test_scaling_keeps_the_sigmoid_of_a_large_map_away_from_its_flat_ends():
    torch.manual_seed(0)
    a = torch.rand(1, 32, 28, 28)  # not negative, as behind a ReLU
    assert ChannelAttention(normalise="sigmoid", scale=False).weights(a).min() > 0.99
    assert ChannelAttention(normalise="sigmoid", scale=True).weights(a).max() < 0.9


@pytest.mark.parametrize("attention", ["dual", "spatial", "channel"])
def test_attention_starts_as_the_identity_and_beta_can_leave_it(attention):
    torch.manual_seed(0)
    plain = DADRN(width="tiny", attention="none").eval()
    network = DADRN(width="tiny", attention=attention, fusion="sum", reduce=None).eval()
    network.trunk.load_state_dict(plain.trunk.state_dict())
    x = torch.randn(2, 3, 64, 64)
    times = 2 if attention == "dual" else 1
    features = network.features(x)
    torch.testing.assert_close(features, times * plain.features(x))
    network.head(features).square().sum().backward()
    betas = [p for name, p in network.named_parameters() if name.endswith("beta")]
    assert len(betas) == times
    assert all(beta.grad.abs() > 0 for beta in betas)


def test_sum_and_concat_fuse_the_same_two_maps():
    torch.manual_seed(0)
    summed, concatenated = (DADRN(width="tiny", fusion=fusion).eval() for fusion in ("sum", "concat"))
    for name, parameter in summed.named_parameters():
        if name.endswith("beta"):
            nn.init.constant_(parameter, 0.2)
    for part in ("trunk", "attention"):
        concatenated.get_submodule(part).load_state_dict(summed.get_submodule(part).state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        spatial, channel = concatenated.features(x).chunk(2, dim=1)
        assert not torch.allclose(spatial, channel)
        torch.testing.assert_close(spatial + channel, summed.features(x))


def test_grad_cam_behind_a_global_average_is_the_cam():
    torch.manual_seed(0)
    network = DADRN(width="tiny").eval()
    with torch.no_grad():
        f = network.features(torch.randn(2, 3, 64, 64))
        cam = functional.relu(torch.einsum("c,bchw->bhw", network.classifier[1].weight[3], f))
    torch.testing.assert_close(grad_cam(network, f, 3) * f.shape[2] * f.shape[3], cam)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"attention": "both"}, "attention"),
        ({"normalise": "relu"}, "normalise"),
        ({"fusion": "product"}, "fusion"),
        ({"reduce": 4}, "reduce"),
        ({"width": "small"}, "width"),
    ],
)
def test_an_argument_that_is_not_offered_is_refused_by_name(arguments, named):
    with pytest.raises(ValueError, match=named):
        DADRN(**{"width": "tiny", **arguments})
