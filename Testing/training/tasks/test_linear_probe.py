"""The linear head on frozen descriptors: fitted on whole patients, the same in the network as beside it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from LesionLib.networks import build_network
from lesiontraining.runs.inference import lesion_descriptors
from lesiontraining.tasks import linear_probe
from lesiontraining.tasks.base import TrainingError
from lesiontraining.tasks.linear_probe import fit_head, out_of_fold_logits

ARGUMENTS = {"width": 0.25, "classes": 3}


def descriptors_of(labels: np.ndarray, *, seed: int, size: int = 8) -> list[np.ndarray]:
    """Two to four slices a lesion, around one direction a class."""
    rng = np.random.default_rng(seed)
    return [rng.normal(0, 0.7, (2 + row % 3, size)) + np.eye(size)[label] * 2 for row, label in enumerate(labels)]


@pytest.mark.parametrize("classes", [2, 3])
def test_classes_that_lie_apart_are_told_apart_on_patients_not_seen(classes):
    patients = np.arange(60) // 2
    labels = patients % classes
    drawings = [descriptors_of(labels, seed=seed) for seed in (0, 1)]
    (found,) = out_of_fold_logits(
        drawings, [drawings[0]], labels, patients, patients % 5, classes=classes, strengths=[1e-2, 1.0]
    )
    assert [len(of_lesion) for of_lesion in found] == [len(of_lesion) for of_lesion in drawings[0]]
    called = np.array([of_lesion.mean(axis=0).argmax() for of_lesion in found])
    assert (called == labels).mean() > 0.9


def test_no_head_answers_for_a_patient_it_was_fitted_on(monkeypatch):
    patients = np.array([f"P{row // 2}" for row in range(32)])
    folds, labels = np.arange(32) // 2 % 4, np.arange(32) % 2
    fitted_on = []
    real = linear_probe.fit_head

    def watched(drawings, of_labels, of_patients, **options):
        fitted_on.append(set(of_patients))
        return real(drawings, of_labels, of_patients, **options)

    monkeypatch.setattr(linear_probe, "fit_head", watched)
    drawing = descriptors_of(labels, seed=0)
    out_of_fold_logits([drawing], [drawing], labels, patients, folds, classes=2, strengths=[1e-2])
    held_out = [set(patients[folds == fold]) for fold in range(4)]
    assert [seen & here for seen, here in zip(fitted_on, held_out, strict=True)] == [set()] * 4
    assert [seen | here for seen, here in zip(fitted_on, held_out, strict=True)] == [set(patients)] * 4


def test_a_lesion_has_no_say_in_its_own_logits():
    patients = np.arange(32)
    labels, folds = np.arange(32) % 2, np.arange(32) // 2 % 4
    drawing = descriptors_of(labels, seed=0)
    options = {"classes": 2, "strengths": [1e-2]}
    (before,) = out_of_fold_logits([drawing], [drawing], labels, patients, folds, **options)
    turned = np.where(folds == 0, 1 - labels, labels)
    (after,) = out_of_fold_logits([drawing], [drawing], turned, patients, folds, **options)
    same = [np.array_equal(one, other) for one, other in zip(before, after, strict=True)]
    assert same == (folds == 0).tolist()


def test_logits_of_two_classes_are_half_the_log_odds_to_either_side():
    labels = np.arange(24) % 2
    head = fit_head([descriptors_of(labels, seed=0)], labels, np.arange(24), classes=2, strengths=[1e-2])
    for of_lesion in head.logits(descriptors_of(labels, seed=1)):
        np.testing.assert_array_equal(of_lesion[:, 0], -of_lesion[:, 1])
    assert head.strength == 1e-2


def test_the_strength_is_that_which_tells_patients_apart_that_took_no_part():
    rng = np.random.default_rng(0)
    labels = np.arange(80) % 2
    # One direction tells a little, forty others nothing: too weak a penalty learns the noise by heart.
    drawing = [rng.normal(0, 1, (2, 41)) + np.eye(41)[0] * (2 * label - 1) * 0.8 for label in labels]
    head = fit_head([drawing], labels, np.arange(80), classes=2, strengths=[1e-3, 1e4])
    assert head.strength == 1e-3


def test_the_network_says_what_the_head_says():
    torch.manual_seed(0)
    network = build_network("mobilenet_v2", ARGUMENTS).eval()
    images = [np.random.default_rng(row).normal(size=(2, 3, 32, 32)).astype(np.float32) for row in range(12)]
    descriptors, labels = lesion_descriptors(network, images), np.arange(12) % 3
    head = fit_head([descriptors], labels, np.arange(12), classes=3, strengths=[1e-2])
    head.fill(network)
    head.check(network, torch.from_numpy(images[0]), descriptors[0])
    with torch.no_grad():
        network.classifier[1].bias.add_(torch.tensor([5.0, 0.0, 0.0]))
    with pytest.raises(TrainingError, match="no single linear layer"):
        head.check(network, torch.from_numpy(images[0]), descriptors[0])


def test_a_network_of_another_size_and_a_class_without_lesions_are_refused():
    labels = np.arange(12) % 3
    head = fit_head([descriptors_of(labels, seed=0)], labels, np.arange(12), classes=3, strengths=[1e-2])
    with pytest.raises(TrainingError, match=r"the network's last linear layer is \(3, 1280\), the head needs \(3, 8\)"):
        head.fill(build_network("mobilenet_v2", ARGUMENTS))
    with pytest.raises(TrainingError, match=r"\[3\]: no training lesion is of these classes"):
        fit_head([descriptors_of(labels, seed=0)], labels, np.arange(12), classes=4, strengths=[1e-2])
