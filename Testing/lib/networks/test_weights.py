"""Published weights: every form they come in, and never a trunk that is only half theirs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from LesionLib.networks.dadrn import DADRN
from LesionLib.networks.dmrn import DMRN
from LesionLib.networks.inception_resnet_v2 import InceptionResNetV2
from LesionLib.networks.inception_v3 import InceptionV3
from LesionLib.networks.mobilenet_v2 import MobileNetV2
from LesionLib.networks.orthopatch import OrthoPatch
from LesionLib.networks.resnet import ResNet, SEResNet50
from LesionLib.networks.siamese import SiameseNet
from LesionLib.networks.weights import load_pretrained
from repository import ROOT
from safetensors.torch import save_file

DATA = Path(os.environ.get("LESIONLENS_DATA", ROOT.parent / "shared" / "data"))
BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def batch_norm(name, channels):
    shapes = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (channels,))
    return {f"{name}.{part}": shape for part, shape in {**shapes, "num_batches_tracked": ()}.items()}


def torchvision_shapes(depth, *, planes=4, classes=1000):
    """Names and shapes of a published ResNet, written down from the architecture."""
    expansion, kernels = (1, (3, 3)) if depth == 18 else (4, (1, 3, 1))
    shapes = {"conv1.weight": (planes, 3, 7, 7), **batch_norm("bn1", planes)}
    inputs = planes
    for stage, blocks in enumerate(BLOCKS[depth]):
        inner = planes * 2**stage
        for block in range(blocks):
            prefix, before = f"layer{stage + 1}.{block}", inputs
            for i, kernel in enumerate(kernels):
                outputs = inner * expansion if i == len(kernels) - 1 else inner
                shapes[f"{prefix}.conv{i + 1}.weight"] = (outputs, before, kernel, kernel)
                shapes |= batch_norm(f"{prefix}.bn{i + 1}", outputs)
                before = outputs
            if block == 0 and (stage > 0 or expansion > 1):
                shapes[f"{prefix}.downsample.0.weight"] = (before, inputs, 1, 1)
                shapes |= batch_norm(f"{prefix}.downsample.1", before)
            inputs = before
    return {**shapes, "fc.weight": (classes, inputs), "fc.bias": (classes,)}


def cadene_shapes(*, planes=4, classes=1000):
    """Names and shapes of the published SE-ResNet-50, which has its stem in layer0 and does not count batches."""
    shapes = {}
    for name, shape in torchvision_shapes(50, planes=planes, classes=classes).items():
        if name.endswith("num_batches_tracked"):
            continue
        stem = name.startswith(("conv1.", "bn1."))
        shapes[f"layer0.{name}" if stem else name.replace("fc.", "last_linear.", 1)] = shape
        if name.endswith("conv3.weight"):
            prefix, (outputs, *_) = name.removesuffix("conv3.weight") + "se_module", shape
            shapes |= {f"{prefix}.fc1.weight": (outputs // 16, outputs, 1, 1), f"{prefix}.fc1.bias": (outputs // 16,)}
            shapes |= {f"{prefix}.fc2.weight": (outputs, outputs // 16, 1, 1), f"{prefix}.fc2.bias": (outputs,)}
    return shapes


def tensors(shapes):
    torch.manual_seed(0)
    counters = {name: torch.tensor(7) for name in shapes if name.endswith("num_batches_tracked")}
    values = {name: torch.rand(shape) + 0.1 for name, shape in shapes.items() if name not in counters}
    return {name: counters[name] if name in counters else values[name] for name in shapes}


@pytest.mark.parametrize("depth", [18, 50, 101])
def test_a_full_resnet_has_the_published_names_and_shapes(depth):
    with torch.device("meta"):
        own = ResNet(depth=depth).trunk.state_dict()
    published = torchvision_shapes(depth, planes=64)
    expected = {name: shape for name, shape in published.items() if not name.startswith("fc.")}
    assert {name: tuple(tensor.shape) for name, tensor in own.items()} == expected


@pytest.mark.parametrize(
    ("network_class", "arguments", "depth"),
    [
        (ResNet, {"depth": 18}, 18),
        (ResNet, {"depth": 50, "output_stride": 8}, 50),
        (DADRN, {}, 50),
        (DMRN, {}, 101),
        (SiameseNet, {}, 50),
    ],
    ids=["resnet18", "resnet50", "dadrn", "dmrn", "siamese"],
)
def test_torchvision_s_resnet_fills_the_trunk_of_every_resnet(network_class, arguments, depth):
    network = network_class(width="tiny", **arguments)
    published = tensors(torchvision_shapes(depth))
    report = load_pretrained(network, published)
    assert report.source == "resnet"
    assert set(report.unused) == {"fc.weight", "fc.bias"}
    assert not any(name.startswith("trunk.") for name in report.left)
    for name, tensor in network.trunk.state_dict().items():
        assert torch.equal(tensor, published[name])


def test_the_published_classifier_is_taken_too_where_it_fits():
    network = ResNet(depth=18, width="tiny", classes=1000)
    published = tensors(torchvision_shapes(18))
    report = load_pretrained(network, published)
    assert (report.left, report.unused, report.mismatched) == ((), (), {})
    assert torch.equal(network.classifier[1].weight, published["fc.weight"])


def test_a_classifier_of_other_classes_is_reported_with_both_shapes():
    report = load_pretrained(ResNet(depth=18, width="tiny", classes=2), tensors(torchvision_shapes(18)))
    assert report.mismatched["classifier.1.weight"] == ((1000, 32), (2, 32))
    assert report.left == ("classifier.1.weight", "classifier.1.bias")


def test_cadene_s_se_resnet50_is_read_although_its_names_and_its_squeezes_differ():
    network = SEResNet50(width="tiny")
    published = tensors(cadene_shapes())
    report = load_pretrained(network, published)
    assert report.source == "se_resnet"
    block = network.trunk.layer2[0]
    assert torch.equal(network.trunk.layer0.conv1.weight, published["layer0.conv1.weight"])
    assert torch.equal(block.conv2.conv.weight, published["layer2.0.conv2.weight"])
    assert torch.equal(block.conv3.adn.N.running_var, published["layer2.0.bn3.running_var"])
    assert torch.equal(block.se_layer.fc[0].weight, published["layer2.0.se_module.fc1.weight"][:, :, 0, 0])
    assert torch.equal(block.se_layer.fc[2].bias, published["layer2.0.se_module.fc2.bias"])
    assert torch.equal(block.project.conv.weight, published["layer2.0.downsample.0.weight"])
    kept = {name for name in report.left if name.startswith("trunk.")}
    assert all(name.endswith("num_batches_tracked") for name in kept)
    assert set(report.unused) == {"last_linear.weight", "last_linear.bias"}


def inception(network_class):
    """The published network, narrow, in evaluation mode, and its tensors under the published names."""
    network = network_class(width="tiny").eval()
    published = tensors({name: tuple(tensor.shape) for name, tensor in network.state_dict().items()})
    network.load_state_dict(published)
    return network, published


NEW_HEAD = {f"{layer}.{part}" for layer in ("hidden.0", "hidden.3", "classifier.1") for part in ("weight", "bias")}


@pytest.mark.parametrize(
    ("network_class", "backbone", "unused"),
    [
        (InceptionV3, "inception_v3", ("AuxLogits.", "fc.")),
        (InceptionResNetV2, "inception_resnet_v2", ("last_linear.",)),
    ],
)
def test_published_inceptions_fill_the_trunk_of_orthopatch_which_then_sees_as_they_do(network_class, backbone, unused):
    original, published = inception(network_class)
    network = OrthoPatch(backbone=backbone, width="tiny").eval()
    report = load_pretrained(network, published)
    assert report.source == backbone
    assert set(report.left) == NEW_HEAD
    assert set(report.unused) == {name for name in published if name.startswith(unused)}
    assert (report.mismatched, report.adapted) == ({}, ())
    x = torch.randn(1, 3, 110, 96)
    with torch.no_grad():
        expected = super(network_class, original).forward(x)
        assert torch.equal(network.features(x), expected)


def test_timm_s_inception_resnet_v2_differs_only_in_its_classifier_s_name():
    _, published = inception(InceptionResNetV2)
    timm = {name.replace("last_linear.", "classif."): tensor for name, tensor in published.items()}
    report = load_pretrained(OrthoPatch(backbone="inception_resnet_v2", width="tiny"), timm)
    assert (report.source, set(report.unused)) == ("inception_resnet_v2", {"classif.weight", "classif.bias"})


def test_the_published_auxiliary_classifier_is_taken_where_the_network_has_one():
    _, published = inception(InceptionV3)
    network = OrthoPatch(auxiliary=True, width="tiny")
    report = load_pretrained(network, published)
    assert torch.equal(network.auxiliary.conv1.conv.weight, published["AuxLogits.conv1.conv.weight"])
    assert set(report.left) == NEW_HEAD | {"auxiliary.fc.weight", "auxiliary.fc.bias"}
    assert report.mismatched["auxiliary.fc.bias"] == ((1000,), (2,))
    whole = load_pretrained(OrthoPatch(auxiliary=True, width="tiny", classes=1000), published)
    assert set(whole.left) == NEW_HEAD


def test_an_inception_published_without_its_auxiliary_classifier_leaves_ours_as_it_was():
    published = {name: tensor for name, tensor in inception(InceptionV3)[1].items() if "AuxLogits" not in name}
    network = OrthoPatch(auxiliary=True, width="tiny")
    before = network.auxiliary.conv0.conv.weight.clone()
    report = load_pretrained(network, published)
    assert torch.equal(network.auxiliary.conv0.conv.weight, before)
    assert "auxiliary.conv0.conv.weight" in report.left


def test_orthopatch_of_one_channel_takes_the_summed_first_convolution():
    _, published = inception(InceptionV3)
    network = OrthoPatch(channels=1, width="tiny")
    report = load_pretrained(network, published)
    assert report.adapted == ("trunk.Conv2d_1a_3x3.conv.weight: 3 input channels made 1 (summed)",)
    first = published["Conv2d_1a_3x3.conv.weight"]
    torch.testing.assert_close(network.trunk.Conv2d_1a_3x3.conv.weight, first.sum(dim=1, keepdim=True))


def test_an_inception_is_not_filled_by_the_other_one_nor_by_a_resnet():
    _, published = inception(InceptionResNetV2)
    for other in (published, tensors(torchvision_shapes(18))):
        with pytest.raises(ValueError, match=r"trunk\.Conv2d_1a_3x3\.conv\.weight \(not in the file\)"):
            load_pretrained(OrthoPatch(width="tiny"), other)
    with pytest.raises(ValueError, match=r"trunk\.conv1\.weight \(not in the file\)"):
        load_pretrained(ResNet(depth=18, width="tiny"), published)


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "model_state_dict"])
def test_wrapped_and_parallel_checkpoints_are_unwrapped(wrapper, tmp_path):
    published = tensors(torchvision_shapes(18))
    content = {wrapper: {f"module.{name}": tensor for name, tensor in published.items()}, "epoch": 90}
    torch.save(content, tmp_path / "checkpoint.pth")
    network = ResNet(depth=18, width="tiny")
    load_pretrained(network, tmp_path / "checkpoint.pth")
    assert torch.equal(network.trunk.conv1.weight, published["conv1.weight"])


def test_a_safetensors_file_is_read(tmp_path):
    published = tensors(torchvision_shapes(18))
    save_file(published, tmp_path / "model.safetensors")
    network = ResNet(depth=18, width="tiny")
    load_pretrained(network, str(tmp_path / "model.safetensors"))
    assert torch.equal(network.trunk.layer4[1].bn2.bias, published["layer4.1.bn2.bias"])


def test_our_own_names_are_read_alone_and_as_a_bundle_writes_them():
    trained, fresh = ResNet(depth=18, width="tiny"), ResNet(depth=18, width="tiny")
    bundled = {f"network.{name}": tensor for name, tensor in trained.state_dict().items()}
    report = load_pretrained(fresh, {**bundled, "calibration.temperature": torch.ones(1)})
    assert (report.source, report.left, report.unused) == ("own", (), ("calibration.temperature",))


def test_a_file_that_executes_something_is_not_read(tmp_path):
    torch.save({"state_dict": ResNet(depth=18, width="tiny")}, tmp_path / "whole_network.pth")
    with pytest.raises(Exception, match="Weights only load failed"):
        load_pretrained(ResNet(depth=18, width="tiny"), tmp_path / "whole_network.pth")


@pytest.mark.parametrize(("channels", "how"), [(1, "summed"), (5, "averaged and rescaled")])
def test_a_first_convolution_for_other_channels_answers_a_grey_picture_as_before(channels, how):
    published = tensors(torchvision_shapes(18))
    colour = ResNet(depth=18, width="tiny").double().eval()
    other = ResNet(depth=18, width="tiny", channels=channels).double().eval()
    assert load_pretrained(colour, published).adapted == ()
    report = load_pretrained(other, published)
    assert report.adapted == (f"trunk.conv1.weight: 3 input channels made {channels} ({how})",)
    grey = torch.randn(1, 1, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(
            other.features(grey.expand(-1, channels, -1, -1)), colour.features(grey.expand(-1, 3, -1, -1))
        )


def test_a_trunk_with_a_hole_is_refused_by_name_and_left_as_it_was():
    network = ResNet(depth=18, width="tiny")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    published = tensors(torchvision_shapes(18))
    del published["layer3.0.conv2.weight"]
    with pytest.raises(ValueError, match=r"trunk\.layer3\.0\.conv2\.weight \(not in the file\)"):
        load_pretrained(network, published)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_weights_of_another_stem_are_refused_with_both_shapes():
    network = ResNet(depth=18, width="tiny", stem="small")
    with pytest.raises(ValueError, match=r"trunk\.conv1\.weight \(\(4, 3, 7, 7\) there, \(4, 3, 3, 3\) here\)"):
        load_pretrained(network, tensors(torchvision_shapes(18)))


@pytest.mark.parametrize("given", [{}, {"epoch": 3}, {"state_dict": {}}])
def test_a_file_without_tensors_is_refused(given):
    with pytest.raises(ValueError, match="no tensors"):
        load_pretrained(ResNet(depth=18, width="tiny"), given)


def test_an_unknown_form_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="'resnet', 'mobilenet_v2', 'se_resnet'"):
        load_pretrained(ResNet(depth=18, width="tiny"), tensors(torchvision_shapes(18)), source="tensorflow")


def test_published_mobilenet_v2_fills_ours():
    path = DATA / "imagenet" / "mobilenet_v2.pth"
    if not path.is_file():
        pytest.skip(f"{path} is not there; set LESIONLENS_DATA to the folder of the real data")
    network = MobileNetV2(classes=1000)
    report = load_pretrained(network, path)
    assert (report.source, report.left, report.unused) == ("mobilenet_v2", (), ())
    report = load_pretrained(MobileNetV2(classes=2, channels=1, stem_stride=1, output_stride=8), path)
    assert set(report.left) == {"classifier.1.weight", "classifier.1.bias"}
    assert report.adapted == ("features_.0.0.weight: 3 input channels made 1 (summed)",)
