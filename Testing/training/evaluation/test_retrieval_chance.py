"""Chance levels against the mean over every order of a small gallery."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from lesiontraining.evaluation.comparisons import list_figures
from lesiontraining.evaluation.retrieval import chance_levels


@pytest.mark.parametrize(
    ("candidates", "relevant", "k"), [(7, 3, 4), (6, 1, 3), (5, 5, 2), (8, 6, 5), (3, 2, 10), (1, 1, 1)]
)
def test_chance_is_the_mean_over_all_orders(candidates, relevant, k):
    places = list(combinations(range(candidates), relevant))
    hits = np.zeros((len(places), candidates), dtype=bool)
    for row, which in enumerate(places):
        hits[row, list(which)] = True
    figures = list_figures(hits, k=k)
    chance = chance_levels(np.array([candidates]), np.array([relevant]), k=k)
    for name, level in chance.items():
        assert level[0] == pytest.approx(getattr(figures, name).mean()), name


def test_each_query_has_its_own_level_and_none_without_relevant_candidates():
    chance = chance_levels(np.array([4, 10, 4]), np.array([2, 0, 2]), k=3)
    assert chance["p_at_k"][[0, 2]].tolist() == [0.5, 0.5]
    assert all(np.isnan(level[1]) for level in chance.values())


def test_levels_of_a_large_gallery_are_near_the_class_share():
    chance = chance_levels(np.array([32734]), np.array([6547]), k=10)
    assert chance["ap"][0] == pytest.approx(0.2, abs=0.001)
    assert chance["reciprocal_rank"][0] == pytest.approx(-0.2 / 0.8 * np.log(0.2), abs=1e-4)  # geometric law
