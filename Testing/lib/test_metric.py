"""Points of a Euclidean model as vectors of length 1, and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from LesionLib.metric import embeddings_of, least_cosine_within, metric_of, points_of, similarity_at
from LesionLib.networks import build_network

POINTS = np.random.default_rng(0).normal(size=(50, 6)) * np.geomspace(0.01, 50.0, 50)[:, None]


def test_a_point_is_the_same_after_the_way_through_float32():
    embeddings = embeddings_of(POINTS)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1.0)
    back = points_of(embeddings.astype(np.float32))
    np.testing.assert_allclose(back, POINTS, rtol=1e-5, atol=1e-6)


def test_what_is_no_point_is_refused():
    with pytest.raises(ValueError, match="of another model"):
        points_of(np.array([[0.6, -0.8]]))


def test_no_point_within_a_distance_has_a_smaller_cosine_than_is_said():
    embeddings = embeddings_of(POINTS)
    for query, direction in zip(POINTS, embeddings, strict=True):
        distance = np.linalg.norm(POINTS - query, axis=1)
        bounds = [least_cosine_within(d, query) for d in distance]
        assert (embeddings @ direction >= np.array(bounds) - 1e-12).all()


def test_similarity_falls_from_one_with_the_distance():
    shown = similarity_at(np.array([0.0, 0.5, 1.0, 9.0]))
    assert shown[0] == 1.0
    assert (np.diff(shown) < 0).all()
    assert shown[-1] > 0


def test_a_manifest_that_says_nothing_compares_by_cosine():
    assert metric_of({"lesionlens": {}}) == "cosine"


@pytest.mark.parametrize("normalize", [False, True])
def test_a_siamese_descriptor_holds_the_points_that_its_loss_compares(normalize):
    arguments = {"depth": 18, "width": "tiny", "descriptor_size": 8, "normalize": normalize}
    network = build_network("siamese", {**arguments, "metric": "euclidean"})
    x = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        points, embeddings = network(x), network.embed(x)
    assert network.metric == "euclidean"
    assert embeddings.shape == (3, 9)
    np.testing.assert_allclose(points_of(embeddings.numpy()), points.numpy(), atol=1e-5)
    assert build_network("siamese", arguments).metric == "cosine"
