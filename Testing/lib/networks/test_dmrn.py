"""DMRN: the paper's sizes, descriptors at every stage, and scikit-learn's support vector machine as tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from LesionLib.networks import build_network, sizes_of
from LesionLib.networks.dmrn import DMRN, ResidualPoolingUnit
from LesionLib.networks.svm import LinearSVM, fill_from_sklearn
from LesionLib.networks.weights import load_pretrained
from safetensors.torch import load, save
from sklearn.calibration import CalibratedClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch.nn import functional

SMALL_VGG = {"width": "tiny"}

MILLION = 1e6


def parameters(network) -> int:
    return sum(p.numel() for p in network.parameters())


def test_resnet101_and_its_four_units_have_the_paper_s_sizes():
    with torch.device("meta"):
        network = DMRN()
        descriptors = network.stage_descriptors(torch.empty(2, 3, 224, 224))
        concatenated = DMRN(descriptor="concat").features(torch.empty(2, 3, 224, 224))
    assert [tuple(d.shape) for d in descriptors] == [(2, 64), (2, 128), (2, 256), (2, 512)]
    assert concatenated.shape == (2, 256 + 512 + 1024 + 2048, 7, 7)
    units = [parameters(unit) / MILLION for unit in network.units.values()]
    assert units == pytest.approx([1.20, 4.79, 19.14, 76.55], abs=0.005)
    assert sum(units) == pytest.approx(101.7, abs=0.05)
    assert parameters(network.trunk) / MILLION == pytest.approx(42.5, abs=0.05)


def test_an_answer_needs_only_the_trunk_and_the_last_unit():
    with torch.device("meta"):
        assert parameters(DMRN(supervised_stages=1)) / MILLION == pytest.approx(119, abs=0.5)
        assert parameters(DMRN(supervised_stages=1, rpu_width=256)) / MILLION == pytest.approx(44.3, abs=0.05)


@pytest.mark.parametrize("rpu_width", [None, 6])
def test_a_residual_pooling_unit_is_its_formula(rpu_width):
    torch.manual_seed(0)
    unit = ResidualPoolingUnit(16, rpu_width).double()
    x = torch.randn(2, 16, 5, 7, dtype=torch.float64)
    with torch.no_grad():
        y = x if rpu_width is None else functional.conv2d(x, unit.reduce.weight, unit.reduce.bias)
        inner = functional.conv2d(functional.relu(y), unit.conv1.weight, unit.conv1.bias, padding=1)
        inner = functional.conv2d(functional.relu(inner), unit.conv2.weight, unit.conv2.bias, padding=1)
        expected = functional.linear((y + inner).mean(dim=(2, 3)), unit.fc.weight, unit.fc.bias)
        assert expected.shape == (2, 4)
        torch.testing.assert_close(unit(x), expected)


@pytest.fixture
def patches():
    torch.manual_seed(0)
    return torch.randn(2, 3, 96, 64, dtype=torch.float64)


@pytest.mark.parametrize("depth", [18, 50])
def test_the_last_descriptor_is_that_of_the_last_stage(depth, patches):
    network = DMRN(depth=depth, width="tiny").double().eval()
    with torch.no_grad():
        descriptors = network.stage_descriptors(patches)
        assert len(descriptors) == 4
        torch.testing.assert_close(network.descriptor(network.features(patches)), descriptors[-1])


@pytest.mark.parametrize("rpu_width", [None, 6])
def test_the_concatenated_descriptor_is_exactly_that_of_the_four_stages(rpu_width, patches):
    network = DMRN(depth=18, width="tiny", descriptor="concat", rpu_width=rpu_width).double().eval()
    with torch.no_grad():
        f = network.features(patches)
        assert f.shape[2:] == (3, 2)
        torch.testing.assert_close(network.descriptor(f), torch.cat(network.stage_descriptors(patches), dim=1))
        assert network.head(f).shape == (2, 5)


def test_the_concatenated_descriptor_refuses_a_size_for_which_it_would_not_be_exact():
    network = DMRN(depth=18, width="tiny", descriptor="concat")
    with pytest.raises(ValueError, match="multiples of 32, not 80 x 64"):
        network.features(torch.zeros(1, 3, 80, 64))


def test_an_answer_computes_no_unit_but_the_last(patches):
    network = DMRN(depth=18, width="tiny").double().eval()
    called = []
    for name, unit in network.units.items():
        unit.register_forward_hook(lambda *_, name=name: called.append(name))
    network(patches)
    assert called == ["stage4"]


def test_what_is_exported_answers_the_same_without_the_other_units(patches):
    trained = DMRN(depth=18, width="tiny").double().eval()
    exported = DMRN(depth=18, width="tiny", supervised_stages=1).double().eval()
    exported.load_state_dict(load(save(trained.inference_state())), strict=True)
    with torch.no_grad():
        assert torch.equal(exported(patches), trained(patches))


def test_the_loss_of_every_stage_reaches_the_trunk_and_none_the_support_vector_machine(patches):
    network = DMRN(depth=18, width="tiny").double()
    sum(d.square().sum() for d in network.stage_descriptors(patches)).backward()
    assert all(p.grad is not None for p in network.parameters())
    assert not list(network.svm.parameters())


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"descriptor": "first"}, "descriptor"),
        ({"supervised_stages": 5}, "supervised_stages"),
        ({"descriptor": "concat", "supervised_stages": 1}, "all 4 stages"),
        ({"classes": 1}, "at least 2 classes"),
        ({"rpu_width": 0}, "rpu_width"),
    ],
)
def test_an_argument_that_is_not_offered_is_refused_by_name(arguments, named):
    with pytest.raises(ValueError, match=named):
        DMRN(**{"depth": 18, "width": "tiny", **arguments})


def toy(classes, *, seed=0, size=12):
    """Overlapping, imbalanced classes: votes tie, probabilities are far from 0 and 1."""
    rng = np.random.default_rng(seed)
    counts = [40 + 15 * c for c in range(classes)]
    centers = rng.normal(0, 0.7, (classes, size))
    points = np.concatenate([rng.normal(c, 1.5, (n, size)) for c, n in zip(centers, counts, strict=True)])
    return points * rng.uniform(0.1, 10, size) + 3, np.repeat(np.arange(classes), counts)


def calibrated(estimator, points, labels, **arguments):
    return CalibratedClassifierCV(estimator, **{"ensemble": False, "cv": 3, **arguments}).fit(points, labels)


def filled(fitted, classes, size=12, **arguments):
    svm = LinearSVM(size, classes).double()
    fill_from_sklearn(svm, fitted, **arguments)
    return svm


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("standardised", [False, True])
def test_margins_probabilities_and_answers_are_scikit_learn_s(classes, standardised):
    points, labels = toy(classes)
    # Raw features spread over two orders of magnitude: libsvm needs a limit there.
    svc = SVC(kernel="linear", C=1.0 if standardised else 0.01)
    fitted = calibrated(make_pipeline(StandardScaler(), svc) if standardised else svc, points, labels)
    svm = filled(fitted, classes)
    unseen = toy(classes, seed=1)[0]
    margins = svm(torch.from_numpy(unseen))
    probabilities = svm.probabilities(margins).numpy()

    expected = fitted.calibrated_classifiers_[0].estimator.decision_function(unseen)
    expected = np.stack([-expected, expected], axis=1) if classes == 2 else expected
    np.testing.assert_allclose(margins.numpy(), expected, rtol=0, atol=1e-8)
    np.testing.assert_allclose(probabilities, fitted.predict_proba(unseen), rtol=0, atol=1e-8)
    assert (probabilities.argmax(axis=1) == fitted.predict(unseen)).all()
    assert len(set(probabilities.argmax(axis=1))) > 1


def test_a_scaler_fitted_outside_the_calibration_is_taken_along():
    points, labels = toy(3)
    scaler = StandardScaler().fit(points)
    fitted = calibrated(SVC(kernel="linear"), scaler.transform(points), labels)
    svm = filled(fitted, 3, scaler=scaler)
    margins = svm(torch.from_numpy(points))
    expected = fitted.predict_proba(scaler.transform(points))
    np.testing.assert_allclose(svm.probabilities(margins).numpy(), expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("switches", [{"with_mean": False}, {"with_std": False}])
def test_a_scaler_that_does_only_half_is_followed(switches):
    points, labels = toy(2)
    fitted = calibrated(make_pipeline(StandardScaler(**switches), SVC(kernel="linear", C=0.01)), points, labels)
    margins = filled(fitted, 2)(torch.from_numpy(points))
    estimator = fitted.calibrated_classifiers_[0].estimator
    np.testing.assert_allclose(margins[:, 1].numpy(), estimator.decision_function(points), rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    ("estimator", "arguments", "shift", "named"),
    [
        (SVC(kernel="linear"), {"ensemble": True}, 0, "ensemble=False"),
        (SVC(kernel="rbf"), {}, 0, "linear"),
        (SVC(kernel="linear"), {"method": "isotonic"}, 0, "sigmoid"),
        (SVC(kernel="linear"), {}, 1, "labels must be 0 to 2"),
    ],
)
def test_a_machine_that_cannot_be_copied_exactly_is_refused(estimator, arguments, shift, named):
    points, labels = toy(3)
    fitted = calibrated(make_pipeline(StandardScaler(), estimator), points, labels + shift, **arguments)
    with pytest.raises(ValueError, match=named):
        filled(fitted, 3)


def test_a_machine_for_other_descriptors_is_refused_and_nothing_is_changed():
    points, labels = toy(3)
    fitted = calibrated(make_pipeline(StandardScaler(), SVC(kernel="linear")), points, labels)
    svm = LinearSVM(10, 3)
    before = {name: buffer.clone() for name, buffer in svm.named_buffers()}
    with pytest.raises(ValueError, match=r"\(3, 12\), expected \(3, 10\)"):
        fill_from_sklearn(svm, fitted)
    assert all(torch.equal(buffer, before[name]) for name, buffer in svm.named_buffers())


@pytest.mark.parametrize("classes", [2, 5])
def test_a_temperature_above_one_takes_certainty_away_and_keeps_the_answer(classes):
    torch.manual_seed(0)
    svm = LinearSVM(8, classes)
    margins = svm(torch.randn(20, 8))
    cold, warm = svm.probabilities(margins), svm.probabilities(margins, 2.0)
    torch.testing.assert_close(cold.sum(dim=1), torch.ones(20))
    torch.testing.assert_close(warm.sum(dim=1), torch.ones(20))
    assert (warm.amax(dim=1) < cold.amax(dim=1)).all()
    assert torch.equal(warm.argmax(dim=1), cold.argmax(dim=1))


def test_where_every_sigmoid_is_zero_all_classes_are_equally_likely():
    svm = LinearSVM(4, 3)
    svm.platt_offset.fill_(1e4)
    torch.testing.assert_close(svm.probabilities(torch.zeros(2, 3)), torch.full((2, 3), 1 / 3))


def test_the_machine_travels_with_the_weights():
    names = set(DMRN(depth=18, width="tiny").state_dict())
    assert {f"svm.{part}" for part in ("weight", "bias", "platt_slope", "platt_offset", "mean", "scale")} <= names


def test_the_networks_that_dmrn_is_compared_with_have_their_published_sizes():
    assert sizes_of("vgg19").parameters == 139_578_434  # 143,667,240 of ImageNet, whose last layer has 1000 classes
    assert sizes_of("vgg19").map == (512, 7, 7)
    assert sizes_of("vgg19").descriptor == (4096,)
    convolutions = [m for m in build_network("cnn3d", {}).modules() if isinstance(m, torch.nn.Conv3d)]
    linear = [m for m in build_network("cnn3d", {}).modules() if isinstance(m, torch.nn.Linear)]
    assert (len(convolutions), len(linear)) == (6, 3)


def test_published_weights_of_vgg19_fill_its_trunk_and_its_hidden_layers():
    there = {
        k.replace("features_.", "features."): v + 1 for k, v in build_network("vgg19", SMALL_VGG).state_dict().items()
    }
    there |= {"classifier.6.weight": torch.zeros(1000, 256), "classifier.6.bias": torch.zeros(1000)}
    network = build_network("vgg19", SMALL_VGG)
    report = load_pretrained(network, there)
    assert report.left == ("classifier.6.weight", "classifier.6.bias")
    torch.testing.assert_close(network.classifier[3].weight, there["classifier.3.weight"])


def test_lesion_search_without_gem_has_no_exponent_and_takes_the_average():
    network = build_network("lesionsearch", {"width": "tiny", "pooling": "average"})
    f = torch.rand(2, network.classifier.in_features, 4, 4)
    torch.testing.assert_close(network.descriptor(f), f.mean(dim=(2, 3)))
    assert not any(name.startswith("pool.") for name in network.state_dict())
