"""Calibration figures against scikit-learn and hand-made examples."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lesiontraining.evaluation.classification import (
    brier_score,
    expected_calibration_error,
    log_loss,
    one_class,
    reliability_bins,
    top_label,
)
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

pairs = st.lists(st.tuples(st.integers(0, 100).map(lambda x: x / 100), st.booleans()), min_size=1, max_size=60)


@pytest.fixture
def answers():
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=400)
    return rng.dirichlet([0.5, 0.5, 0.5], 400), labels


@given(pairs, st.integers(1, 12))
def test_equal_width_is_the_sum_over_bins_of_guo_et_al(rows, bins):
    p, true = np.array([a for a, _ in rows]), np.array([b for _, b in rows])
    edges, total = np.linspace(0, 1, bins + 1), 0.0
    for number, (low, high) in enumerate(pairwise(edges)):
        inside = (p > low) & (p <= high) | ((p == 0) & (number == 0))
        if inside.any():
            total += inside.sum() / len(p) * abs(true[inside].mean() - p[inside].mean())
    assert reliability_bins(p, true, bins=bins).expected_error == pytest.approx(total, abs=1e-12)


@given(pairs, st.integers(1, 12), st.sampled_from(["width", "mass"]))
def test_bins_hold_every_lesion_once_and_the_order_does_not_matter(rows, bins, scheme):
    p, true = np.array([a for a, _ in rows]), np.array([b for _, b in rows])
    found = reliability_bins(p, true, bins=bins, scheme=scheme)
    assert found.lesions.sum() == len(p)
    assert len(found.lesions) <= bins
    assert (found.low <= found.confidence + 1e-12).all()
    assert (found.confidence <= found.high + 1e-12).all()
    assert (found.low[1:] >= found.high[:-1]).all()
    assert (found.lesions * found.observed).sum() == pytest.approx(true.sum())
    turned = reliability_bins(p[::-1], true[::-1], bins=bins, scheme=scheme)
    np.testing.assert_array_equal(found.lesions, turned.lesions)
    assert found.expected_error == pytest.approx(turned.expected_error)


def test_the_reliability_curve_agrees_with_scikit_learn(answers):
    p, true = one_class(*answers, 1)
    for scheme, strategy in (("width", "uniform"), ("mass", "quantile")):
        observed, confidence = calibration_curve(true, p, n_bins=8, strategy=strategy)
        found = reliability_bins(p, true, bins=8, scheme=scheme)
        # scikit-learn's quantiles lie between two lesions, ours on one: a lesion may change its bin.
        np.testing.assert_allclose(found.observed, observed, atol=0.02)
        np.testing.assert_allclose(found.confidence, confidence, atol=0.02)


def test_equal_mass_bins_hold_equally_many_and_do_not_divide_equal_confidences():
    found = reliability_bins(np.linspace(0, 1, 101)[1:] ** 3, np.zeros(100, dtype=bool), bins=10, scheme="mass")
    assert found.lesions.tolist() == [10] * 10
    same = reliability_bins(np.full(50, 0.7), np.arange(50) < 35, bins=10, scheme="mass")
    assert same.lesions.tolist() == [50]
    assert same.expected_error == pytest.approx(0)


def test_an_overconfident_model_by_hand():
    # ten answers at 90 %, six right; ten at 60 %, five right
    p = np.repeat([[0.9, 0.1], [0.6, 0.4]], 10, axis=0)
    labels = np.array([0] * 6 + [1] * 4 + [0] * 5 + [1] * 5)
    assert expected_calibration_error(p, labels) == pytest.approx((0.3 + 0.1) / 2)
    found = reliability_bins(*top_label(p, labels))
    assert found.as_json() == [
        {"low": 0.5, "high": 0.6, "confidence": 0.6, "observed": 0.5, "lesions": 10},
        {"low": 0.8, "high": 0.9, "confidence": 0.9, "observed": 0.6, "lesions": 10},
    ]
    assert json.dumps(found.as_json(), allow_nan=False)


def test_probabilities_that_are_true_are_found_to_be_so():
    rng = np.random.default_rng(1)
    p = rng.dirichlet(np.ones(4), 20000)
    labels = (p.cumsum(axis=1) > rng.random((20000, 1))).argmax(axis=1)
    for scheme in ("width", "mass"):
        assert expected_calibration_error(p, labels, scheme=scheme) < 0.015
        assert expected_calibration_error(p**3 / (p**3).sum(axis=1, keepdims=True), labels, scheme=scheme) > 0.1


def test_brier_and_log_loss_agree_with_scikit_learn(answers):
    p, labels = answers
    assert log_loss(p, labels) == pytest.approx(sk.log_loss(labels, p))
    of_class = [sk.brier_score_loss(labels == c, p[:, c]) for c in range(3)]
    assert brier_score(p, labels) == pytest.approx(sum(of_class))
    two = np.stack([1 - p[:, 1], p[:, 1]], axis=1)
    assert brier_score(two, labels == 1) == pytest.approx(2 * sk.brier_score_loss(labels == 1, p[:, 1]))


def test_one_certain_error_does_not_make_the_log_loss_infinite():
    p = np.array([[1.0, 0.0], [0.5, 0.5]])
    assert log_loss(p, np.array([1, 0])) == pytest.approx((-np.log(1e-7) - np.log(0.5)) / 2)
    assert brier_score(p, np.array([1, 0])) == pytest.approx((2 + 0.5) / 2)


def test_what_is_no_probability_is_refused():
    with pytest.raises(ValueError, match="were these logits"):
        brier_score(np.array([[2.0, -1.0]]), np.array([0]))
    with pytest.raises(ValueError, match="whole numbers from 0 to 1"):
        log_loss(np.array([[0.5, 0.5]]), np.array([2]))
    with pytest.raises(ValueError, match="two classes or more"):
        top_label(np.array([0.5, 0.5]), np.array([0, 1]))
    with pytest.raises(ValueError, match="0 to 1"):
        reliability_bins(np.array([np.nan]), np.array([True]))
    with pytest.raises(ValueError, match="width, mass"):
        reliability_bins(np.array([0.5]), np.array([True]), scheme="depth")
    assert np.isnan(reliability_bins(np.empty(0), np.empty(0, dtype=bool), scheme="mass").expected_error)
