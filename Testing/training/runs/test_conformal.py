"""Prediction sets hold the true class as often as they promise, and say when they cannot promise it."""

from __future__ import annotations

import itertools
from math import ceil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from LesionLib.errors import BundleError
from LesionLib.uncertainty.conformal import ConformalQuantile, prediction_set, prediction_sets
from lesiontraining.runs.uncertainty import coverage, fit_quantile, smallest_n
from safetensors.torch import load, save
from scipy.stats import beta, binomtest


def simulated(n: int, rng: np.random.Generator, shares=(0.7, 0.2, 0.1), spread=1.0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of an overconfident model of three classes, and the truth."""
    y = rng.choice(3, size=n, p=shares)
    logits = rng.normal(0, spread, (n, 3))
    logits[np.arange(n), y] += np.array([2.0, 1.0, 0.5])[y]
    p = np.exp(2 * logits)
    return p / p.sum(axis=1, keepdims=True), y


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
def test_coverage_over_many_calibrations_lies_within_binomial_bounds_of_the_promise(alpha):
    rng, n, runs = np.random.default_rng(1), 99, 3000
    hits = 0
    for _ in range(runs):
        p, y = simulated(n + 1, rng)
        quantile = fit_quantile(p[:-1], y[:-1], alpha)
        hits += y[-1] in prediction_set(p[-1], quantile, never_empty=False)
    # Exactly ceil((n + 1)(1 - alpha)) / (n + 1) for scores without ties; one test lesion a run: truly binomial.
    exact = ceil(round((n + 1) * (1 - alpha), 9)) / (n + 1)
    assert binomtest(hits, runs, exact).pvalue > 0.001


def test_coverage_of_one_calibration_follows_the_beta_distribution_that_theory_gives():
    rng, n, alpha = np.random.default_rng(2), 49, 0.1
    found = []
    for _ in range(300):
        p, y = simulated(n, rng)
        test_p, test_y = simulated(2000, rng)
        found.append(coverage(test_p, test_y, fit_quantile(p, y, alpha), never_empty=False).covered.value)
    # Vovk 2012: Beta(n + 1 - l, l) with l = floor((n + 1) alpha).
    expected = beta(n + 1 - 5, 5)
    assert abs(np.mean(found) - expected.mean()) < 4 * expected.std() / 300**0.5
    assert abs(np.std(found) - np.hypot(expected.std(), (0.09 / 2000) ** 0.5)) < 0.01


def test_only_class_conditional_sets_keep_the_promise_for_the_rare_class():
    rng = np.random.default_rng(3)
    p, y = simulated(4000, rng)
    test_p, test_y = simulated(20_000, rng)
    rare = test_y == 2
    pooled = coverage(test_p[rare], test_y[rare], fit_quantile(p, y, 0.1))
    by_class = coverage(test_p[rare], test_y[rare], fit_quantile(p, y, 0.1, class_conditional=True))
    assert pooled.covered.high < 0.85
    assert by_class.covered.low < 0.93
    assert by_class.covered.high > 0.88
    for c in range(3):
        of_class = coverage(test_p[test_y == c], test_y[test_y == c], fit_quantile(p, y, 0.1, class_conditional=True))
        assert of_class.covered.value > 0.87


def test_the_quantile_is_the_rank_that_the_formula_names():
    y = np.zeros(9, dtype=int)
    p = np.stack([np.arange(1, 10) / 10, 1 - np.arange(1, 10) / 10], axis=1)
    # n = 9, alpha = .1: rank ceil(10 x .9) = 9, the largest score, 1 - .1; alpha .2: rank 8; .25: ceil(7.5) = 8.
    for alpha, score in ((0.1, 0.9), (0.2, 0.8), (0.25, 0.8), (0.5, 0.5), (0.95, 0.1)):
        np.testing.assert_allclose(fit_quantile(p, y, alpha).scores, score)


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.37])
def test_the_lesion_that_set_the_quantile_is_in_its_own_set(alpha):
    p, y = simulated(200, np.random.default_rng(5))
    held = coverage(p, y, fit_quantile(p, y, alpha), never_empty=False)
    assert held.covered.hits == ceil(round(201 * (1 - alpha), 9))


@settings(deadline=None)
@given(st.integers(1, 300), st.floats(0.01, 0.99))
def test_the_fewest_lesions_are_enough_and_one_less_is_not(n, alpha):
    p = np.full((n, 2), 0.5)
    if n >= smallest_n(alpha):
        fit_quantile(p, np.zeros(n, dtype=int), alpha)
    else:
        with pytest.raises(ValueError, match=rf"{n} lesions are too few .* at least {smallest_n(alpha)} are needed"):
            fit_quantile(p, np.zeros(n, dtype=int), alpha)


def test_the_class_that_has_too_few_lesions_is_named():
    p, y = np.full((30, 2), 0.5), np.array([0] * 25 + [1] * 5)
    with pytest.raises(ValueError, match=r"class 1: 5 lesions are too few for alpha 0\.1; at least 9"):
        fit_quantile(p, y, 0.1, class_conditional=True)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(0.001, 1), min_size=2, max_size=6), st.floats(0, 1), st.floats(0, 1))
def test_sets_grow_with_the_quantile_begin_with_the_likeliest_and_are_never_empty(raw, low, high):
    p = np.array(raw) / sum(raw)
    low, high = sorted((low, high))
    small, large = (
        prediction_set(p, ConformalQuantile(np.full(len(p), q), 0.1, np.full(len(p), 20))) for q in (low, high)
    )
    assert set(small) <= set(large)
    assert p[small[0]] == p.max()
    assert all(p[a] >= p[b] for a, b in itertools.pairwise(large))


def test_without_the_rule_a_lesion_like_no_class_has_an_empty_set():
    quantile = ConformalQuantile(np.array([0.3, 0.3, 0.3]), 0.1, np.full(3, 20))
    p = np.array([0.4, 0.3, 0.3])
    assert prediction_set(p, quantile, never_empty=False) == ()
    assert prediction_set(p, quantile) == (0,)
    assert prediction_sets(np.stack([p, [0.8, 0.1, 0.1]]), quantile).tolist() == [[True, False, False]] * 2


def test_coverage_is_counted_with_wilson_s_interval():
    quantile = ConformalQuantile(np.array([0.5, 0.5]), 0.1, np.full(2, 20))
    p = np.array([[0.9, 0.1]] * 8 + [[0.1, 0.9]] * 2)
    measured = coverage(p, np.zeros(10, dtype=int), quantile)
    # Wilson 1927 by hand: (p + z2/2n -+ z sqrt(p(1-p)/n + z2/4n2)) / (1 + z2/n)
    z, n, share = 1.959964, 10, 0.8
    middle, half = share + z**2 / (2 * n), z * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5
    np.testing.assert_allclose(
        [measured.covered.low, measured.covered.high], np.array([middle - half, middle + half]) / (1 + z**2 / n)
    )
    assert (measured.covered.hits, measured.covered.n, measured.mean_size) == (8, 10, 1.0)
    assert str(measured).startswith(
        "The set held the true class in 8 of 10 lesions, 80.0% (95 % interval 49.0% to 94.3%"
    )


@pytest.mark.parametrize("class_conditional", [False, True])
def test_it_survives_safetensors(class_conditional):
    p, y = simulated(300, np.random.default_rng(4))
    fitted = fit_quantile(p, y, 0.1, class_conditional=class_conditional)
    tensors = load(save({"network.weight": torch.zeros(2), **fitted.to_tensors()}))
    assert all(name.startswith("conformal.") for name in fitted.to_tensors())
    again = ConformalQuantile.from_tensors(tensors, classes=3)
    np.testing.assert_array_equal(again.scores, fitted.scores)
    np.testing.assert_array_equal(again.counts, np.bincount(y))
    assert (again.alpha, again.class_conditional) == (0.1, class_conditional)
    # A lesion of the calibration that sits exactly on the quantile is still in its set.
    assert coverage(p, y, again, never_empty=False) == coverage(p, y, fitted, never_empty=False)


def test_a_bundle_without_it_has_none():
    assert ConformalQuantile.from_tensors({"network.weight": torch.zeros(2)}, classes=3) is None


@pytest.mark.parametrize(
    "change",
    [
        {"conformal.quantile": torch.zeros(2, dtype=torch.float64)},
        {"conformal.quantile": torch.full((3,), torch.nan)},
        {"conformal.quantile": torch.full((3,), 1.5)},
        {"conformal.alpha": torch.tensor([0.0])},
        {"conformal.alpha": torch.tensor(0.1)},
        {"conformal.counts": torch.tensor([-1, 2, 3])},
        {"conformal.more": torch.zeros(1)},
    ],
)
def test_tensors_that_are_no_quantile_are_refused(change):
    tensors = ConformalQuantile(np.full(3, 0.5), 0.1, np.full(3, 20)).to_tensors() | change
    with pytest.raises(BundleError, match="conformal tensors"):
        ConformalQuantile.from_tensors(tensors, classes=3)


@pytest.mark.parametrize(
    ("p", "y"),
    [
        ([[0.5, 0.6]], [0]),
        ([[np.nan, 1.0]], [0]),
        ([[1.5, -0.5]], [0]),
        ([0.5, 0.5], [0]),
        ([[0.5, 0.5]], [2]),
        ([[0.5, 0.5]], [0.0]),
        ([[0.5, 0.5]], [0, 1]),
    ],
)
def test_what_are_no_probabilities_or_labels_is_refused(p, y):
    with pytest.raises(ValueError, match=r"probabilities must|labels must"):
        fit_quantile(np.array(p), np.array(y), 0.9)
