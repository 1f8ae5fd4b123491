"""Embeddings unlike those of training are found; those like them are let through as often as promised."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from LesionLib.errors import BundleError
from LesionLib.uncertainty.out_of_distribution import Mahalanobis, OutOfDistribution
from lesiontraining.runs import uncertainty
from lesiontraining.runs.uncertainty import cross_fitted, fit_out_of_distribution, ledoit_wolf
from safetensors.torch import load, save
from scipy.spatial.distance import cdist
from scipy.stats import binomtest
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import NearestNeighbors

METHODS = ["mahalanobis", "neighbours"]


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def embeddings(n: int, rng: np.random.Generator, *, d: int = 40, classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors round one centre per class, varying much in some directions and little in others."""
    centers = np.random.default_rng(99).normal(0, 1, (classes, d))
    y = rng.integers(classes, size=n)
    return unit(centers[y] + rng.normal(0, 1, (n, d)) * np.geomspace(1.0, 0.02, d)), y


@pytest.mark.parametrize(("n", "d"), [(200, 10), (30, 60), (60, 60), (2, 5)])
def test_the_shrunk_covariance_is_scikit_learn_s(n, d):
    x = np.random.default_rng(n).normal(0, 1, (n, d)) * np.geomspace(1, 0.1, d)
    x -= x.mean(axis=0)
    covariance, shrinkage = ledoit_wolf(x)
    reference = LedoitWolf(assume_centered=True).fit(x)
    np.testing.assert_allclose(covariance, reference.covariance_, rtol=1e-9, atol=1e-12)
    assert shrinkage == pytest.approx(reference.shrinkage_, abs=1e-10)


@settings(max_examples=60, deadline=None)
@given(arrays(np.float64, st.tuples(st.integers(2, 12), st.integers(1, 8)), elements=st.floats(-10, 10)))
def test_shrinkage_is_a_share_and_keeps_the_total_variance(x):
    covariance, shrinkage = ledoit_wolf(x - x.mean(axis=0))
    assert -1e-9 <= shrinkage <= 1
    assert np.linalg.eigvalsh(covariance).min() >= -1e-8
    assert np.trace(covariance) == pytest.approx(((x - x.mean(axis=0)) ** 2).sum() / len(x), abs=1e-8)


@pytest.mark.parametrize(("n", "d"), [(300, 40), (25, 60)])
def test_the_distance_is_mahalanobis_with_scikit_learn_s_precision(n, d):
    rng = np.random.default_rng(5)
    train, y = embeddings(n, rng, d=d)
    other, _ = embeddings(50, rng, d=d)
    ood = fit_out_of_distribution(train, other, labels=y)
    means = np.stack([train[y == c].mean(axis=0) for c in (0, 1)])
    precision = LedoitWolf(assume_centered=True).fit(train - means[y]).precision_
    expected = cdist(other, means, "mahalanobis", VI=precision).min(axis=1)
    np.testing.assert_allclose([ood.score(e) for e in other], expected, rtol=1e-6)
    without = fit_out_of_distribution(train, other)
    expected = np.sqrt(LedoitWolf().fit(train).mahalanobis(other))
    np.testing.assert_allclose([without.score(e) for e in other], expected, rtol=1e-6)


@pytest.mark.parametrize("k", [1, 7])
def test_the_neighbour_distance_is_scikit_learn_s(k):
    rng = np.random.default_rng(6)
    train, other = embeddings(600, rng)[0], embeddings(300, rng)[0]
    ood = fit_out_of_distribution(train, other, method="neighbours", k=k)
    expected = NearestNeighbors(n_neighbors=k).fit(train).kneighbors(other)[0][:, -1]
    np.testing.assert_allclose(ood.distance.of(other), expected, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_usual_lesions_are_warned_of_as_often_as_promised(method, monkeypatch):
    rng, warned, runs = np.random.default_rng(7), 0, 600
    train, _ = embeddings(150, rng)
    distance = fit_out_of_distribution(train, train, method=method).distance
    monkeypatch.setattr(uncertainty, "_distance", lambda *_: distance)  # of the same lesions in every run
    for _ in range(runs):
        other, _ = embeddings(40, rng)
        ood = fit_out_of_distribution(train, other[:39], method=method, quantile=0.9)
        warned += ood.is_out_of_distribution(other[39])
    # ceil(40 x .9) = 36 of 40 places lie at or below the threshold.
    assert binomtest(warned, runs, 4 / 40).pvalue > 0.001


@pytest.mark.parametrize("method", METHODS)
def test_lesions_of_another_kind_are_found(method):
    rng = np.random.default_rng(8)
    train, y = embeddings(400, rng)
    ood = fit_out_of_distribution(train, embeddings(200, rng)[0], labels=y, method=method)
    strange = unit(rng.normal(0, 1, (100, 40)))
    assert np.mean([ood.is_out_of_distribution(e) for e in strange]) > 0.95
    assert np.mean([ood.is_out_of_distribution(e) for e in embeddings(300, rng)[0]]) < 0.12


def test_the_default_sees_what_a_cosine_cannot_a_step_in_a_direction_that_never_varies():
    rng = np.random.default_rng(9)
    train, y = embeddings(400, rng)
    other, _ = embeddings(200, rng)
    ood = fit_out_of_distribution(train, other, labels=y)
    shifted = embeddings(100, rng)[0]
    shifted[:, -5:] += 0.06
    shifted = unit(shifted)
    means = unit(np.stack([train[y == c].mean(axis=0) for c in (0, 1)]))
    cosine_limit = np.sort((other @ means.T).max(axis=1))[9]
    assert np.mean([ood.is_out_of_distribution(e) for e in shifted]) > 0.9
    assert np.mean((shifted @ means.T).max(axis=1) < cosine_limit) < 0.3


@pytest.mark.parametrize("method", METHODS)
def test_it_survives_safetensors(method):
    rng = np.random.default_rng(10)
    train, y = embeddings(120, rng)
    other, _ = embeddings(60, rng)
    ood = fit_out_of_distribution(train, other, labels=y, method=method)
    assert all(name.startswith("ood.") for name in ood.to_tensors())
    again = OutOfDistribution.from_tensors(load(save({"network.x": torch.zeros(1), **ood.to_tensors()})), size=40)
    np.testing.assert_allclose([again.score(e) for e in other], [ood.score(e) for e in other], rtol=1e-4)
    assert (again.threshold, again.quantile) == (ood.threshold, 0.95)


def test_a_bundle_without_it_has_none():
    assert OutOfDistribution.from_tensors({"network.x": torch.zeros(1)}) is None


def stored() -> dict[str, torch.Tensor]:
    return OutOfDistribution(Mahalanobis(np.ones((2, 3)), np.eye(3)), 2.0, 0.95).to_tensors()


@pytest.mark.parametrize(
    "change",
    [
        {"ood.whitening": torch.zeros(3, 4)},
        {"ood.means": torch.ones(3)},
        {"ood.means": torch.full((2, 3), torch.inf)},
        {"ood.threshold": torch.tensor([torch.nan])},
        {"ood.threshold": torch.tensor([-1.0])},
        {"ood.quantile": torch.tensor([1.0])},
        {"ood.embeddings": torch.zeros(2, 3)},
        {"ood.means": torch.ones(2, 4), "ood.whitening": torch.eye(4)},
    ],
)
def test_tensors_that_do_not_fit_are_refused(change):
    with pytest.raises(BundleError, match="out-of-distribution tensors"):
        OutOfDistribution.from_tensors(stored() | change, size=3)


@pytest.mark.parametrize("missing", sorted(stored()))
def test_a_missing_tensor_is_refused(missing):
    tensors = {name: tensor for name, tensor in stored().items() if name != missing}
    with pytest.raises(BundleError, match="out-of-distribution tensors"):
        OutOfDistribution.from_tensors(tensors, size=3)


def test_too_few_validation_lesions_are_refused_with_the_number_that_is_needed():
    rng = np.random.default_rng(11)
    train, _ = embeddings(50, rng)
    with pytest.raises(ValueError, match=r"18 validation lesions are too few for the quantile 0\.95; at least 19"):
        fit_out_of_distribution(train, embeddings(18, rng)[0])
    fit_out_of_distribution(train, embeddings(19, rng)[0])


@pytest.mark.parametrize(
    ("options", "said"),
    [({"method": "cosine"}, "method"), ({"quantile": 1.0}, "quantile"), ({"labels": np.zeros(3)}, "labels")],
)
def test_options_that_make_no_sense_are_refused(options, said):
    rng = np.random.default_rng(12)
    with pytest.raises(ValueError, match=said):
        fit_out_of_distribution(embeddings(50, rng)[0], embeddings(50, rng)[0], **options)
    with pytest.raises(ValueError, match="k must lie between 1 and"):
        fit_out_of_distribution(embeddings(5, rng)[0], embeddings(50, rng)[0], method="neighbours", k=6)


def test_lesions_that_are_all_the_same_are_refused():
    same = np.tile(unit(np.ones((1, 4))), (10, 1))
    with pytest.raises(ValueError, match="do not differ"):
        fit_out_of_distribution(same, embeddings(50, np.random.default_rng(0), d=4)[0])


@pytest.mark.parametrize("bad", [np.ones(40), np.full(40, np.nan), np.ones(3) / 3**0.5])
def test_embeddings_that_do_not_fit_are_refused(bad):
    rng = np.random.default_rng(13)
    ood = fit_out_of_distribution(embeddings(50, rng)[0], embeddings(50, rng)[0])
    with pytest.raises(ValueError, match="embeddings must"):
        ood.score(bad)


def test_the_warning_is_a_plain_sentence_and_only_where_it_is_due():
    rng = np.random.default_rng(14)
    train, y = embeddings(100, rng)
    ood = fit_out_of_distribution(train, embeddings(50, rng)[0], labels=y)
    assert ood.warning(train[0]) is None
    text = ood.warning(-train[0])
    assert "looks unlike those it learned from" in text
    assert "95% of its validation lesions" in text


@pytest.mark.parametrize("method", ["mahalanobis", "neighbours"])
def test_cross_fitting_warns_of_as_many_unseen_lesions_as_it_says(method):
    rng = np.random.default_rng(8)
    e = rng.normal(size=(1200, 6)) + [4, 0, 0, 0, 0, 0]
    e /= np.linalg.norm(e, axis=1, keepdims=True)
    fitted, warned = cross_fitted(e, np.arange(1200) % 6, method=method, quantile=0.9)
    # Binomial: 10 % of 1200, three standard deviations.
    assert abs(warned.mean() - 0.1) < 3 * (0.09 / 1200) ** 0.5
    assert fitted.score(np.array([-1.0, 0, 0, 0, 0, 0])) > fitted.threshold


def test_a_fold_s_scores_come_from_the_other_folds():
    rng = np.random.default_rng(9)
    groups = np.repeat(np.eye(4), 30, axis=0) + rng.normal(scale=0.01, size=(120, 4))
    e = groups / np.linalg.norm(groups, axis=1, keepdims=True)
    # Each fold is a cluster of its own: unlike all others, so every score is large, and the threshold with it.
    fitted, _ = cross_fitted(e, np.repeat(np.arange(4), 30), method="neighbours", quantile=0.9)
    assert fitted.threshold > 1.3
    with pytest.raises(ValueError, match="at least 3 folds"):
        cross_fitted(e, np.repeat([0, 1], 60))
