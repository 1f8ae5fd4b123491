"""Shortcut baselines for any number of classes; the shipped model stands beside the same ones."""

from __future__ import annotations

import numpy as np
import pytest
from lesiontraining.evaluation.baselines import baseline_features, baseline_probabilities


@pytest.fixture
def lesions():
    """150 lesions of 50 patients: class 2 is large, class 1 is dense."""
    rng = np.random.default_rng(0)
    patients = np.arange(150) // 3
    labels = rng.integers(3, size=150)
    volume = np.exp(rng.normal(6, 0.5, 150) + 2 * (labels == 2))
    return labels, patients, patients % 5, volume, rng.normal(0, 30, 150) + 90 * (labels == 1)


def test_three_classes_are_told_apart_by_what_the_features_hold(lesions):
    labels, patients, folds, volume, hu = lesions
    size = baseline_probabilities(
        baseline_features(volume_mm3=volume), labels, folds, classes=3, patients=patients
    ).argmax(axis=1)
    features = baseline_features(volume_mm3=volume, diameter_mm=np.cbrt(volume), mean_hu=hu)
    assert features.shape == (150, 3)
    both = baseline_probabilities(features, labels, folds, classes=3, patients=patients)
    np.testing.assert_allclose(both.sum(axis=1), 1)
    assert (size == labels)[labels == 2].mean() > 0.9
    assert (size == labels)[labels < 2].mean() < 0.7
    assert (both.argmax(axis=1) == labels).mean() > 0.85


def test_a_lesion_has_no_say_in_its_own_probability(lesions):
    labels, patients, folds, volume, _ = lesions
    features = baseline_features(volume_mm3=volume)
    turned = np.where(folds == 0, (labels + 1) % 3, labels)
    first, second = (baseline_probabilities(features, y, folds, classes=3, patients=patients) for y in (labels, turned))
    np.testing.assert_array_equal(first[folds == 0], second[folds == 0])
    assert not np.allclose(first[folds == 1], second[folds == 1])


def test_a_class_that_the_other_folds_lack_has_probability_zero():
    labels, folds = np.array([0, 1, 0, 1, 2, 0]), np.array([0, 0, 1, 1, 1, 0])
    p = baseline_probabilities(np.arange(6.0)[:, None], labels, folds, classes=3, patients=np.arange(6))
    assert (p[folds == 1, 2] == 0).all()
    assert (p[folds == 0, 2] > 0).all()


def test_a_patient_in_two_folds_and_sizes_of_zero_are_refused():
    with pytest.raises(ValueError, match="1 patient\\(s\\) are in several folds, e.g. a"):
        baseline_probabilities(
            np.zeros((4, 1)), np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1]), classes=2, patients=np.array(list("abac"))
        )
    with pytest.raises(ValueError, match="above 0"):
        baseline_features(volume_mm3=np.array([1.0, 0.0]))
    with pytest.raises(ValueError, match=r"1 class\(es\) only"):
        baseline_probabilities(
            np.zeros((4, 1)), np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]), classes=2, patients=np.arange(4)
        )
