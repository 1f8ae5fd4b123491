"""ResNets: the published sizes, dilation that changes nothing but the grid, Grad-CAM as hooks would give it."""

from __future__ import annotations

import pytest
import torch
from LesionLib.explain.saliency import grad_cam
from LesionLib.networks.dadrn import DADRN
from LesionLib.networks.dmrn import DMRN
from LesionLib.networks.resnet import ResNet, ResNet3D, SEResNet50, last_map, resnet_trunk, stages_of
from LesionLib.networks.siamese import SiameseNet
from torch.nn import functional


def unsettled(network):
    """In evaluation mode, with batch statistics and attention weights as after a training: neither 0 nor 1."""
    torch.manual_seed(3)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm3d):
            module.running_mean.normal_(std=0.2)
            module.running_var.uniform_(0.5, 1.5)
    for name, parameter in network.named_parameters():
        if name.endswith("beta"):
            torch.nn.init.constant_(parameter, 0.4)
    return network.eval()


def parameters(network) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("depth", "count"),
    [(18, 11_689_512), (34, 21_797_672), (50, 25_557_032), (101, 44_549_160), (152, 60_192_808)],
)
def test_a_resnet_for_1000_classes_has_the_published_number_of_parameters(depth, count):
    with torch.device("meta"):
        assert parameters(ResNet(depth=depth, classes=1000)) == count


@pytest.mark.parametrize(
    ("depth", "name", "dimensions", "stem"), [(18, "basic", 3, "small"), (50, "bottleneck", 2, "imagenet")]
)
def test_a_trunk_is_monai_s_in_names_drawn_weights_and_numbers(depth, name, dimensions, stem):
    from monai.networks.nets.resnet import ResNet as MonaiResNet

    torch.manual_seed(1)
    ours = resnet_trunk(depth=depth, channels=1, width="tiny", stem=stem, spatial_dims=dimensions)
    torch.manual_seed(1)
    kernel, stride, pooled = (7, 2, True) if stem == "imagenet" else (3, 1, False)
    theirs = MonaiResNet(
        block=name, layers=[len(stage) for stage in stages_of(ours)], block_inplanes=[4, 8, 16, 32],
        spatial_dims=dimensions, n_input_channels=1, conv1_t_size=kernel, conv1_t_stride=stride,
        no_max_pool=not pooled, feed_forward=False, bias_downsample=False,
    )  # fmt: skip
    mine, other = ours.state_dict(), theirs.state_dict()
    assert list(mine) == list(other)
    assert all(torch.equal(mine[key], other[key]) for key in mine)
    x = torch.rand(2, 1, *[24] * dimensions)
    with torch.no_grad():
        pooled_map = last_map(unsettled(ours), x).flatten(2).mean(dim=2)
        assert torch.allclose(pooled_map, unsettled(theirs)(x), atol=1e-5)


def test_se_resnet50_has_the_published_number_of_parameters():
    with torch.device("meta"):
        assert parameters(SEResNet50(classes=1000)) == 28_088_024


@pytest.mark.parametrize("network_class", [ResNet, SEResNet50])
@pytest.mark.parametrize(("output_stride", "side"), [(32, 7), (16, 14), (8, 28)])
def test_the_output_stride_sets_the_grid_of_the_last_map(network_class, output_stride, side):
    with torch.device("meta"):
        network = network_class(output_stride=output_stride)
        assert network.features(torch.empty(1, 3, 224, 224)).shape == (1, 2048, side, side)


def test_the_small_stem_keeps_a_small_picture_s_grid():
    with torch.device("meta"):
        network = ResNet(depth=18, stem="small", channels=1)
        assert network.features(torch.empty(1, 1, 64, 64)).shape == (1, 512, 8, 8)


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("output_stride", [16, 8])
def test_a_dilated_network_gives_the_strided_network_s_numbers_in_between_new_ones(depth, output_stride):
    strided = unsettled(ResNet(depth=depth, width="tiny").double())
    dilated = ResNet(depth=depth, width="tiny", output_stride=output_stride).double().eval()
    dilated.load_state_dict(strided.state_dict())
    x = torch.randn(2, 3, 96, 64, dtype=torch.float64)
    step = 32 // output_stride
    with torch.no_grad():
        torch.testing.assert_close(dilated.features(x)[:, :, ::step, ::step], strided.features(x))


@pytest.mark.parametrize(("network_class", "arguments"), [(ResNet, {"depth": 101}), (SEResNet50, {}), (ResNet3D, {})])
def test_a_tiny_network_has_every_layer_of_the_full_one(network_class, arguments):
    with torch.device("meta"):
        full, tiny = (network_class(width=width, **arguments) for width in ("full", "tiny"))
    assert list(tiny.state_dict()) == list(full.state_dict())
    assert parameters(tiny) < parameters(full) / 100


@pytest.mark.parametrize(("stem_stride", "side"), [(1, 4), (2, 2)])
def test_a_cube_of_28_voxels_keeps_a_grid(stem_stride, side):
    with torch.device("meta"):
        network = ResNet3D(stem_stride=stem_stride)
        assert network.features(torch.empty(2, 1, 28, 28, 28)).shape == (2, 512, side, side, side)
        assert network(torch.empty(2, 1, 28, 28, 28)).shape == (2, 2)
    assert parameters(network) == 33_140_802


@pytest.mark.parametrize("network_class", [ResNet, SEResNet50])
def test_the_embedding_is_the_normalised_average_of_the_features(network_class):
    network = unsettled(network_class(width="tiny"))
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        f = network.features(x)
        torch.testing.assert_close(network.embed(x), functional.normalize(f.mean(dim=(2, 3)), dim=1))
        torch.testing.assert_close(network(x), network.head(f))


def test_a_siamese_network_answers_with_its_descriptor_and_never_with_probabilities():
    network = unsettled(SiameseNet(depth=18, width="tiny"))
    x = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        answer = network(x)
        assert answer.shape == (3, 128)
        torch.testing.assert_close(functional.normalize(answer, dim=1), network.embed(x))
    with pytest.raises(TypeError, match="no classes"):
        network.probabilities(answer)


def test_a_siamese_network_can_keep_its_descriptors_on_the_unit_sphere():
    network = unsettled(SiameseNet(depth=18, width="tiny", normalize=True))
    x = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(network(x), network.embed(x))
        assert not torch.allclose(network.descriptor(network.features(x)).norm(dim=1), torch.ones(3))


def test_the_siamese_descriptor_of_resnet50_has_128_numbers():
    with torch.device("meta"):
        network = SiameseNet()
        assert network(torch.empty(2, 3, 224, 224)).shape == (2, 128)
        assert parameters(network) == 23_508_032 + 2048 * 128 + 128


@pytest.mark.parametrize(
    ("network_class", "arguments", "named"),
    [
        (ResNet, {"depth": 51}, "depth"),
        (ResNet, {"width": "narrow"}, "width"),
        (ResNet, {"output_stride": 4}, "output_stride"),
        (ResNet, {"stem": "big"}, "stem"),
        (SEResNet50, {"output_stride": True}, "output_stride"),
        (ResNet3D, {"stem_stride": 4}, "stem_stride"),
        (SiameseNet, {"depth": 20}, "depth"),
    ],
)
def test_an_argument_that_is_not_offered_is_refused_by_name(network_class, arguments, named):
    with pytest.raises(ValueError, match=named):
        network_class(**arguments)


def grad_cam_by_hooks(network, layer, x, class_index):
    """The usual way: keep the layer's output on the way forward, and its gradient on the way back."""
    kept = []
    layer.register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    logits = network(x)
    (f,) = kept
    f.retain_grad()
    logits[:, class_index].sum().backward()
    spatial = tuple(range(2, f.ndim))
    return functional.relu((f.grad.mean(dim=spatial, keepdim=True) * f).sum(dim=1)).detach()


@pytest.mark.parametrize(
    ("network_class", "arguments", "layer_name", "shape"),
    [
        (ResNet, {"depth": 18, "output_stride": 8}, "trunk.layer4", (3, 64, 64)),
        (SEResNet50, {"output_stride": 8}, "trunk.layer4", (3, 64, 64)),
        (ResNet3D, {}, "trunk.layer4", (1, 28, 28, 28)),
        (DADRN, {}, "attention", (3, 64, 64)),
        (DADRN, {"attention": "channel", "normalise": "softmax"}, "attention", (3, 64, 64)),
        (DMRN, {"depth": 18}, "trunk.layer4", (3, 96, 96)),
        (DMRN, {"depth": 18, "classes": 2}, "trunk.layer4", (3, 96, 96)),
    ],
    ids=["resnet", "se_resnet50", "resnet3d", "dadrn", "cadrn", "dmrn", "dmrn of two classes"],
)
def test_grad_cam_of_the_head_alone_is_grad_cam_by_hooks(network_class, arguments, layer_name, shape):
    torch.manual_seed(1)
    network = unsettled(network_class(width="tiny", **arguments))
    x = torch.randn(2, *shape)
    expected = grad_cam_by_hooks(network, network.get_submodule(layer_name), x, class_index=1)
    with torch.no_grad():
        features = network.features(x)
    found = grad_cam(network, features, 1)
    assert found.shape == expected.shape == (2, *features.shape[2:])
    assert expected.max() > 0
    assert (found - expected).abs().max() <= 1e-5 * expected.max()
