"""Inception networks: the published sizes and names, and OrthoPatch's head on them."""

from __future__ import annotations

import pytest
import torch
from LesionLib.errors import BundleError
from LesionLib.explain.saliency import grad_cam
from LesionLib.networks import build_network
from LesionLib.networks.inception_resnet_v2 import InceptionResNetV2
from LesionLib.networks.inception_v3 import InceptionAux, InceptionV3, channels_at
from LesionLib.networks.orthopatch import OrthoPatch
from torch.nn import functional

BACKBONES = {"inception_v3": 2048, "inception_resnet_v2": 1536}
BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def parameters(network) -> int:
    return sum(p.numel() for p in network.parameters())


def tiny(backbone="inception_v3", **arguments):
    torch.manual_seed(0)
    return OrthoPatch(backbone=backbone, width="tiny", **arguments)


def patches(count=2, rows=96, columns=90, *, seed=1):
    return torch.randn(count, 3, rows, columns, generator=torch.Generator().manual_seed(seed))


def settled(network):
    """In evaluation mode, with the batch statistics of a few patches: a fresh network hardly tells them apart."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # the statistics of these patches, without a trace of the initial ones
    with torch.no_grad():
        network.train()(patches(8, rows=128, columns=128, seed=5))
    return network.eval()


def of_convolutions(names):
    return {f"{n}.{part}" for n in names for part in ("conv.weight", *(f"bn.{p}" for p in BATCH_NORM))}


def of_linear(name):
    return {f"{name}.weight", f"{name}.bias"}


def torchvision_names():
    """Inception-V3's, by its rule: a letter per kind of block, a word per branch, a number per convolution in it."""
    stem = [f"Conv2d_{place}" for place in ("1a_3x3", "2a_3x3", "2b_3x3", "3b_1x1", "4a_3x3")]
    double = [f"branch3x3dbl_{i}" for i in (1, 2, 3)]
    seven, seven_twice = [f"branch7x7_{i}" for i in (1, 2, 3)], [f"branch7x7dbl_{i}" for i in (1, 2, 3, 4, 5)]
    wide = [
        f"{b}_{i}"
        for b, last in (("branch3x3", 2), ("branch3x3dbl", 3))
        for i in (*range(1, last), f"{last}a", f"{last}b")
    ]
    branches = {
        "5b 5c 5d": ["branch1x1", "branch5x5_1", "branch5x5_2", *double, "branch_pool"],
        "6a": ["branch3x3", *double],
        "6b 6c 6d 6e": ["branch1x1", *seven, *seven_twice, "branch_pool"],
        "7a": ["branch3x3_1", "branch3x3_2", *(f"branch7x7x3_{i}" for i in (1, 2, 3, 4))],
        "7b 7c": ["branch1x1", *wide, "branch_pool"],
    }
    mixed = [f"Mixed_{place}.{b}" for places, inside in branches.items() for place in places.split() for b in inside]
    auxiliary = ["AuxLogits.conv0", "AuxLogits.conv1"]
    return of_convolutions([*stem, *mixed, *auxiliary]) | of_linear("AuxLogits.fc") | of_linear("fc")


def cadene_names():
    """Inception-ResNet-V2's, by its rule: branches are counted, and in a branch of several its convolutions."""

    def block(name, *lengths):
        long = {b: length for b, length in enumerate(lengths) if length > 1}
        chains = [f"{name}.branch{b}.{i}" for b, length in long.items() for i in range(length)]
        return [f"{name}.branch{b}" for b in range(len(lengths)) if b not in long] + chains

    residual = {f"repeat.{i}": (1, 2, 3) for i in range(10)} | {f"repeat_1.{i}": (1, 3) for i in range(20)}
    residual |= {f"repeat_2.{i}": (1, 3) for i in range(9)} | {"block8": (1, 3)}
    names = [f"conv2d_{place}" for place in ("1a", "2a", "2b", "3b", "4a", "7b")]
    names += block("mixed_5b", 1, 2, 3) + ["mixed_5b.branch3.1"]  # behind an average, which has no weights
    names += block("mixed_6a", 1, 3) + block("mixed_7a", 2, 2, 3)
    names += [n for name, lengths in residual.items() for n in block(name, *lengths)]
    projections = set().union(*(of_linear(f"{name}.conv2d") for name in residual))
    return of_convolutions(names) | projections | of_linear("last_linear")


@pytest.mark.parametrize(
    ("network_class", "arguments", "count"),
    [
        (InceptionV3, {}, 27_161_264),
        (InceptionV3, {"auxiliary": False}, 23_834_568),
        (InceptionResNetV2, {}, 55_843_464),
    ],
)
def test_a_network_for_1000_classes_has_the_published_number_of_parameters(network_class, arguments, count):
    with torch.device("meta"):
        assert parameters(network_class(**arguments)) == count


@pytest.mark.parametrize(
    ("network_class", "names"), [(InceptionV3, torchvision_names), (InceptionResNetV2, cadene_names)]
)
def test_a_network_has_the_published_names_at_every_width(network_class, names):
    for width in ("full", "tiny"):
        with torch.device("meta"):
            assert set(network_class(width=width).state_dict()) == names()


@pytest.mark.parametrize("network_class", [InceptionV3, InceptionResNetV2])
def test_batch_norms_have_the_published_epsilon(network_class):
    with torch.device("meta"):
        norms = [m for m in network_class().modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert {norm.eps for norm in norms} == {1e-3}


@pytest.mark.parametrize(
    ("network", "expected"),
    [(InceptionV3(width="tiny", classes=7), 7), (InceptionResNetV2(width="tiny", classes=5), 5)],
    ids=["inception_v3", "inception_resnet_v2"],
)
def test_the_published_classifier_is_linear_in_the_average_of_the_last_map(network, expected):
    network.eval()
    last = network.fc if isinstance(network, InceptionV3) else network.last_linear
    with torch.no_grad():
        logits = network(patches())
        average = super(type(network), network).forward(patches()).flatten(2).mean(dim=2)
    assert logits.shape == (2, expected)
    torch.testing.assert_close(logits, average @ last.weight.T + last.bias)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize(
    ("rows", "columns", "grid"), [(252, 210, (6, 5)), (210, 252, (5, 6)), (299, 299, (8, 8)), (75, 140, (1, 3))]
)
def test_the_last_map_has_the_published_channels_and_the_picture_s_grid(backbone, rows, columns, grid):
    with torch.device("meta"):
        network = OrthoPatch(backbone=backbone).eval()
        f = network.features(torch.empty(1, 3, rows, columns))
        assert f.shape == (1, BACKBONES[backbone], *grid)
        assert network.descriptor(f).shape == (1, 512)
        assert network.head(f).shape == (1, 2)


def test_the_head_is_two_layers_of_512_and_one_of_the_classes():
    with torch.device("meta"):
        network = OrthoPatch(classes=3)
    head = (2048 * 512 + 512) + (512 * 512 + 512) + (512 * 3 + 3)
    assert parameters(network) == 23_834_568 - (2048 * 1000 + 1000) + head
    assert [m.p for m in network.modules() if isinstance(m, torch.nn.Dropout)] == [0.4, 0.4]


def test_a_full_network_answers_a_picture_in_the_paper_s_size():
    torch.manual_seed(0)
    network = OrthoPatch().eval()
    with torch.no_grad():
        f = network.features(patches(1, 252, 210))
    assert f.shape == (1, 2048, 6, 5)
    assert 0.01 < f.std() < 100  # neither faded nor grown out of hand on its way through untrained layers


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_answer_is_linear_in_the_descriptor(backbone):
    network = settled(tiny(backbone, classes=3))
    with torch.no_grad():
        f = network.features(patches())
        descriptor = network.descriptor(f)
        linear = network.classifier[1]
        assert descriptor.shape == (2, 32)
        torch.testing.assert_close(network.head(f), descriptor @ linear.weight.T + linear.bias)
        torch.testing.assert_close(network.embed(patches()), functional.normalize(descriptor, dim=1))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_answers_are_the_same_every_time_and_depend_on_every_channel(backbone):
    network = settled(tiny(backbone))
    x = patches()
    with torch.no_grad():
        answer = network(x)
        assert torch.equal(network(x), answer)
        assert torch.equal(settled(tiny(backbone))(x), answer)
        for channel in range(3):
            changed = x.clone()
            changed[:, channel] += 1
            assert not torch.allclose(network(changed), answer, atol=1e-4)
        alone = torch.cat([network(x[:1]), network(x[1:])])
    torch.testing.assert_close(alone, answer, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_parameter_learns(backbone):
    network = tiny(backbone).train()
    functional.cross_entropy(network(patches(4)), torch.tensor([0, 1, 0, 1])).backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert without == []
    assert network.trunk.get_parameter(next(iter(dict(network.trunk.named_parameters())))).grad.abs().sum() > 0


@pytest.mark.parametrize("backbone", BACKBONES)
def test_grad_cam_weighs_the_maps_by_the_slope_of_the_answer_in_their_averages(backbone):
    network = settled(tiny(backbone))
    with torch.no_grad():
        f = network.features(patches(rows=128, columns=160))
    averages = f.mean(dim=(2, 3)).requires_grad_()
    (slope,) = torch.autograd.grad(network.head(averages[:, :, None, None])[:, 1].sum(), averages)
    expected = functional.relu(torch.einsum("bc,bchw->bhw", slope, f)) / (2 * 3)
    assert expected.max() > 0
    torch.testing.assert_close(grad_cam(network, f, 1), expected)


def test_the_auxiliary_classifier_gives_a_second_answer_in_training_and_no_part_of_the_first():
    network = settled(tiny(auxiliary=True, classes=3))
    x = patches(rows=128, columns=110)
    with torch.no_grad():
        answer = network(x)
        main, auxiliary = network.training_logits(x)
        torch.testing.assert_close(main, answer)
        assert auxiliary.shape == (2, 3)
        for parameter in network.auxiliary.parameters():
            parameter.fill_(float("nan"))
        assert torch.equal(network(x), answer)
        assert network.training_logits(x)[1].isnan().all()


def test_the_auxiliary_loss_teaches_only_the_layers_before_it():
    network = tiny(auxiliary=True).train()
    _, auxiliary = network.training_logits(patches(4))
    functional.cross_entropy(auxiliary, torch.tensor([0, 1, 0, 1])).backward()
    learned = {name for name, p in network.named_parameters() if p.grad is not None}
    before = ("trunk.Conv2d_", "trunk.Mixed_5", "trunk.Mixed_6", "auxiliary.")
    assert learned == {name for name, _ in network.named_parameters() if name.startswith(before)}


def test_the_auxiliary_classifier_takes_the_paper_s_14_by_11_map_and_is_as_published_at_17_by_17():
    torch.manual_seed(0)
    auxiliary = InceptionAux(12, 2, channels_at("tiny")).eval()
    with torch.no_grad():
        assert auxiliary(torch.randn(2, 12, 14, 11)).shape == (2, 2)
        middle = torch.randn(2, 12, 17, 17)
        windows = [
            middle[:, :, r : r + 5, c : c + 5].mean(dim=(2, 3)) for r in range(0, 13, 3) for c in range(0, 13, 3)
        ]
        places = torch.stack(windows, dim=2).unflatten(2, (5, 5))
        expected = auxiliary.fc(auxiliary.conv1(auxiliary.conv0(places)).flatten(1))
        torch.testing.assert_close(auxiliary(middle), expected)
    with torch.device("meta"):
        assert OrthoPatch(auxiliary=True).trunk.middle(torch.empty(2, 3, 252, 210)).shape == (2, 768, 14, 11)


def test_what_is_exported_is_the_network_without_its_auxiliary_classifier():
    trained = settled(tiny(auxiliary=True))
    state = trained.inference_state()
    assert not any("auxiliary" in name for name in state)
    exported = tiny().eval()
    exported.load_state_dict(state, strict=True)
    with torch.no_grad():
        assert torch.equal(exported(patches()), trained(patches()))
    with pytest.raises(ValueError, match="build it with auxiliary=True"):
        exported.training_logits(patches())


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_tiny_network_is_small_and_keeps_at_least_four_channels_everywhere(backbone):
    network = tiny(backbone)
    assert parameters(network) < 250_000
    assert network.trunk.out_channels == BACKBONES[backbone] // 16
    assert min(m.out_channels for m in network.modules() if isinstance(m, torch.nn.Conv2d)) == 4


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize(("rows", "columns"), [(74, 210), (252, 74), (10, 10)])
def test_a_picture_too_small_for_a_last_map_is_refused_with_its_size(backbone, rows, columns):
    network = tiny(backbone).eval()
    with pytest.raises(ValueError, match=rf"at least 75 rows and 75 columns, not {rows} x {columns}"):
        network(torch.zeros(1, 3, rows, columns))
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 75, 75)).shape == (1, 2)


def test_too_small_a_picture_is_refused_in_training_too():
    with pytest.raises(ValueError, match="at least 75 rows"):
        tiny(auxiliary=True).training_logits(torch.zeros(2, 3, 64, 64))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"backbone": "inception_v4"}, "backbone must be one of 'inception_v3', 'inception_resnet_v2'"),
        ({"backbone": "inception_resnet_v2", "auxiliary": True}, "has no auxiliary classifier"),
        ({"width": "small"}, "width must be one of 'full', 'tiny'"),
    ],
)
def test_an_argument_that_is_not_offered_is_refused_by_name(arguments, named):
    with pytest.raises(BundleError, match=named):
        build_network("orthopatch", {"width": "tiny", **arguments})
