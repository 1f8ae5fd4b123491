"""Lesion search and its generative baseline: GeM, descriptors of length 1, the small stem and whose weights fit it."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from LesionLib.explain.saliency import grad_cam, similarity_map
from LesionLib.networks.base import GeM
from LesionLib.networks.lesionsearch import LesionSearchNet
from LesionLib.networks.resnet import ResNet
from LesionLib.networks.vae import VAEEncoder
from LesionLib.networks.weights import load_pretrained
from torch.nn import functional

BOTH = pytest.mark.parametrize("network_class", [LesionSearchNet, VAEEncoder])


def tiny(network_class=LesionSearchNet, **arguments):
    """A narrow network with random weights in double precision, its batch statistics as after a training."""
    torch.manual_seed(3)
    network = network_class(width="tiny", **arguments).double().eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.2)
            module.running_var.uniform_(0.5, 1.5)
    return network


def patches(count=3):
    torch.manual_seed(5)
    return torch.rand(count, 1, 64, 64, dtype=torch.float64)


def parameters(network) -> int:
    return sum(p.numel() for p in network.parameters())


def trunk_parameters(channels, widths):
    """Of a ResNet-18 without classifier, with a 3 x 3 stem, counted by hand."""
    count = channels * widths[0] * 9 + 2 * widths[0]
    inputs = widths[0]
    for stage, outputs in enumerate(widths):
        count += 9 * (inputs * outputs + 3 * outputs**2) + 4 * 2 * outputs
        count += inputs * outputs + 2 * outputs if stage else 0  # the 1 x 1 shortcut
        inputs = outputs
    return count


def named_as_published(trunk):
    """A trunk's tensors under torchvision's names, and random numbers where a new network has 0 and 1."""
    torch.manual_seed(7)
    return {name: torch.rand(t.shape) + 0.1 if t.ndim else torch.tensor(7) for name, t in trunk.state_dict().items()}


def test_gem_of_numbers_computed_by_hand():
    f = torch.tensor([[[[1.0, 2.0], [3.0, 0.0]], [[5.0, 5.0], [5.0, 5.0]]]])
    torch.testing.assert_close(GeM()(f), torch.tensor([[((1 + 8 + 27) / 4) ** (1 / 3), 5.0]]))


def test_gem_is_the_average_for_p_1_and_nears_the_maximum_for_large_p():
    torch.manual_seed(0)
    f = torch.rand(2, 5, 8, 8) + 0.1
    torch.testing.assert_close(GeM(1.0)(f), f.mean(dim=(2, 3)))
    means = [GeM(p)(f) for p in (1.0, 3.0, 10.0, 1000.0)]
    assert all((lower < higher).all() for lower, higher in pairwise(means))
    torch.testing.assert_close(means[-1], f.amax(dim=(2, 3)), rtol=0.01, atol=0)


def test_gem_takes_volumes_too():
    f = torch.rand(2, 5, 3, 4, 4)
    torch.testing.assert_close(GeM()(f), GeM()(f.reshape(2, 5, 6, 8)))


def test_the_gradients_of_gem_are_those_of_finite_differences_also_in_p():
    torch.manual_seed(0)
    gem = GeM().double()
    f = (torch.rand(2, 3, 2, 2, dtype=torch.float64) + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(lambda f, p: torch.func.functional_call(gem, {"p": p}, (f,)), (f, gem.p))
    gem(f).sum().backward()
    assert gem.p.grad.item() > 0


@pytest.mark.parametrize("p", [3.0, 30.0])
def test_gem_of_a_zero_map_is_eps_and_its_gradients_are_numbers(p):
    gem = GeM(p)
    f = torch.zeros(2, 4, 8, 8, requires_grad=True)
    pooled = gem(f)
    torch.testing.assert_close(pooled, torch.full((2, 4), 1e-6))
    pooled.sum().backward()
    assert torch.isfinite(gem.p.grad).all()
    assert torch.isfinite(f.grad).all()


@pytest.mark.parametrize("kind", [torch.float32, torch.float16])
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_no_power_overflows_and_twice_the_map_has_twice_the_mean(kind, size):
    torch.manual_seed(0)
    gem, f = GeM(16.0).to(kind), (torch.rand(2, 4, 8, 8) * size).to(kind)
    assert torch.isfinite(gem(f)).all()
    torch.testing.assert_close(gem(2 * f), 2 * gem(f), rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("p", "eps", "named"), [(0.0, 1e-6, "p of"), (float("nan"), 1e-6, "p of"), (3.0, 0.0, "eps of")]
)
def test_a_generalised_mean_without_sense_is_refused(p, eps, named):
    with pytest.raises(ValueError, match=f"{named} a generalised mean must be above 0"):
        GeM(p, eps=eps)


@BOTH
@pytest.mark.parametrize("channels", [1, 3])
def test_64_pixels_leave_a_map_of_8_by_8_and_512_features(network_class, channels):
    with torch.device("meta"):
        network = network_class(channels=channels)
        f = network.features(torch.empty(2, channels, 64, 64))
        assert f.shape == (2, 512, 8, 8)
        assert network.head(f).shape == (2, 8)


@pytest.mark.parametrize(
    ("arguments", "length"), [({}, 512), ({"reduction": 256}, 256), ({"descriptor": "logits", "classes": 5}, 5)]
)
def test_the_descriptor_is_as_long_as_asked(arguments, length):
    with torch.device("meta"):
        network = LesionSearchNet(**arguments)
        assert network.embed(torch.empty(2, 1, 64, 64)).shape == (2, length)


@pytest.mark.parametrize(("width", "widths"), [("full", (64, 128, 256, 512)), ("tiny", (4, 8, 16, 32))])
def test_the_networks_have_as_many_parameters_as_counted_by_hand(width, widths):
    trunk, last = trunk_parameters(1, widths), widths[-1]
    convolutions = 2 * (9 * last**2 + 2 * last)
    with torch.device("meta"):
        assert parameters(LesionSearchNet(width=width)) == trunk + convolutions + 1 + last * 8 + 8
        reduced = LesionSearchNet(width=width, reduction=24, classes=3)
        assert parameters(reduced) == trunk + convolutions + 1 + last * 24 + 24 + 24 * 3 + 3
        assert parameters(VAEEncoder(width=width)) == trunk + 2 * (last * 256 + 256) + 256 * 8 + 8


def test_a_resnet18_for_1000_classes_and_a_7_by_7_stem_counts_as_published():
    assert trunk_parameters(3, (64, 128, 256, 512)) + 3 * 64 * (49 - 9) + 512 * 1000 + 1000 == 11_689_512


@BOTH
def test_a_tiny_network_has_every_layer_of_the_full_one(network_class):
    with torch.device("meta"):
        full, narrow = network_class(), network_class(width="tiny")
    assert list(narrow.state_dict()) == list(full.state_dict())
    assert parameters(narrow) < parameters(full) / 50


@pytest.mark.parametrize("arguments", [{}, {"reduction": 16}, {"descriptor": "logits"}])
def test_lesion_search_answers_by_its_features_and_compares_at_length_1(arguments):
    network, x = tiny(**arguments), patches()
    with torch.no_grad():
        f = network.features(x)
        torch.testing.assert_close(network(x), network.head(f))
        embedding = network.embed(x)
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(3, dtype=torch.float64))
    assert (embedding[0] - embedding[1]).abs().max() > 1e-6


def test_the_embedding_is_gem_at_length_1_and_the_classifier_reads_it():
    network, x = tiny(), patches()
    with torch.no_grad():
        f = network.features(x)
        gem = f.pow(3).mean(dim=(2, 3)).pow(1 / 3)
        torch.testing.assert_close(network.embed(x), functional.normalize(gem, dim=1), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(network(x), network.classifier(network.embed(x)))
        torch.testing.assert_close(network.head(7 * f), network.head(f), rtol=1e-5, atol=1e-6)


def test_a_reduced_descriptor_is_linear_in_the_normalised_gem():
    network, x = tiny(reduction=16), patches()
    with torch.no_grad():
        f = network.features(x)
        reduced = network.reduction(functional.normalize(network.pool(f), dim=1))
        torch.testing.assert_close(network.descriptor(f), reduced)
        torch.testing.assert_close(network(x), network.classifier(functional.normalize(reduced, dim=1)))


def test_logits_as_descriptor_change_what_is_compared_and_nothing_that_is_answered():
    by_gem, by_types, x = tiny(), tiny(descriptor="logits"), patches()
    by_types.load_state_dict(by_gem.state_dict())
    with torch.no_grad():
        logits = by_gem(x)
        torch.testing.assert_close(by_types(x), logits)
        torch.testing.assert_close(by_types.embed(x), functional.normalize(logits.sigmoid(), dim=1))


def test_the_vae_compares_and_classifies_the_mean_of_its_distribution():
    network, x = tiny(VAEEncoder, latent_size=20), patches()
    with torch.no_grad():
        f = network.features(x)
        mean, log_variance = network.distribution(f)
        assert mean.shape == log_variance.shape == (3, 20)
        torch.testing.assert_close(mean, network.mean(f.mean(dim=(2, 3))))
        torch.testing.assert_close(log_variance, network.log_variance(f.mean(dim=(2, 3))))
        torch.testing.assert_close(network.embed(x), functional.normalize(mean, dim=1))
        torch.testing.assert_close(network(x), network.classifier(mean))


def test_an_empty_map_still_has_a_descriptor_of_length_1():
    network = tiny()
    f = torch.zeros(2, 32, 8, 8, dtype=torch.float64)
    embedding = functional.normalize(network.descriptor(f), dim=1)
    torch.testing.assert_close(embedding, torch.full_like(embedding, 32**-0.5))


@BOTH
def test_a_training_step_reaches_every_weight_that_answers(network_class):
    network = tiny(network_class).train()
    loss = functional.cross_entropy(network(patches()), torch.tensor([0, 1, 2]))
    loss.backward()
    without = {name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()}
    assert without == ({"log_variance.weight", "log_variance.bias"} if network_class is VAEEncoder else set())


@pytest.mark.parametrize(
    ("network_class", "layer"), [(LesionSearchNet, lambda n: n.convs), (VAEEncoder, lambda n: n.trunk.layer4)]
)
def test_grad_cam_and_similarity_maps_are_those_through_the_whole_network(network_class, layer):
    network, x = tiny(network_class), patches()
    x, other = x[:2], network.embed(x[2:])[0].detach()
    kept = []
    layer(network).register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    logits = network(x)
    likeliest = logits.argmax(dim=1)  # random weights may speak against any other class everywhere
    likeness = (network.embed(x) @ other).sum()
    kept, features = kept[:2], kept[0].detach()
    for found, target, f in (
        (grad_cam(network, features, likeliest), logits.amax(dim=1).sum(), kept[0]),
        (similarity_map(network, features, other), likeness, kept[1]),
    ):
        (gradient,) = torch.autograd.grad(target, f)
        expected = functional.relu((gradient.mean(dim=(2, 3), keepdim=True) * f).sum(dim=1)).detach()
        assert found.shape == (2, 8, 8)
        assert expected.max() > 0
        torch.testing.assert_close(found / expected.max(), expected / expected.max(), rtol=0, atol=1e-9)


@BOTH
def test_published_weights_are_refused_for_their_7_by_7_stem_and_change_nothing(network_class):
    network = network_class(width="tiny")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(
        ValueError, match=r"1 of \d+ .* trunk\.conv1\.weight \(\(4, 3, 7, 7\) there, \(4, 1, 3, 3\) here"
    ):
        load_pretrained(network, named_as_published(ResNet(depth=18, width="tiny").trunk))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@BOTH
def test_published_weights_with_a_stem_of_one_s_own_fill_the_trunk(network_class):
    network = network_class(width="tiny")
    published = named_as_published(ResNet(depth=18, width="tiny").trunk)
    report = load_pretrained(network, {**published, "conv1.weight": network.trunk.conv1.weight.detach().clone()})
    assert report.source == "resnet"
    assert not any(name.startswith("trunk.") for name in report.left)
    for name in set(published) - {"conv1.weight"}:
        assert torch.equal(network.trunk.state_dict()[name], published[name])


def test_a_small_stem_learned_on_colours_is_summed_for_one_channel():
    published = named_as_published(ResNet(depth=18, width="tiny", stem="small").trunk)
    network = LesionSearchNet(width="tiny")
    report = load_pretrained(network, published)
    assert report.adapted == ("trunk.conv1.weight: 3 input channels made 1 (summed)",)
    torch.testing.assert_close(network.trunk.conv1.weight, published["conv1.weight"].sum(dim=1, keepdim=True))


def test_lesion_search_starts_from_the_trunk_of_a_vae():
    vae, network = VAEEncoder(width="tiny"), LesionSearchNet(width="tiny")
    report = load_pretrained(network, vae.state_dict())
    assert report.source == "own"
    for name, tensor in vae.trunk.state_dict().items():
        assert torch.equal(network.trunk.state_dict()[name], tensor)
    assert {name.split(".")[0] for name in report.left} == {"convs", "pool", "classifier"}


@pytest.mark.parametrize(
    ("network_class", "arguments", "named"),
    [
        (LesionSearchNet, {"descriptor": "mac"}, "descriptor"),
        (LesionSearchNet, {"reduction": 0}, "reduction"),
        (LesionSearchNet, {"reduction": 2.5}, "reduction"),
        (LesionSearchNet, {"width": "narrow"}, "width"),
        (VAEEncoder, {"latent_size": 0}, "latent_size"),
        (VAEEncoder, {"width": "narrow"}, "width"),
    ],
)
def test_an_argument_that_is_not_offered_is_refused_by_name(network_class, arguments, named):
    with pytest.raises(ValueError, match=named):
        network_class(**arguments)
