"""Prediction sets whose quantiles depend on the size of the lesion: chosen by the box, stored, and refused where damaged."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from LesionLib.errors import BundleError
from LesionLib.uncertainty.conformal import ConformalQuantile, prediction_set

BANDED = ConformalQuantile(
    np.array([0.5, 0.6]), 0.1, np.array([30, 40]), True,
    band_edges_mm=np.array([5.0, 12.0]), band_scores=np.array([[0.4, 0.4], [0.9, 0.8], [0.3, 0.2]]),
)  # fmt: skip


@pytest.mark.parametrize(("shortest_mm", "band"), [(2.0, 0), (5.0, 0), (5.1, 1), (12.0, 1), (12.1, 2), (60.0, 2)])
def test_a_lesion_s_size_chooses_its_quantiles(shortest_mm, band):
    np.testing.assert_array_equal(BANDED.of_size(shortest_mm).scores, BANDED.band_scores[band])


def test_the_same_probabilities_give_a_larger_set_where_the_band_is_less_sure():
    p = np.array([0.75, 0.25])
    assert prediction_set(p, BANDED.of_size(20.0)) == (0,)
    assert prediction_set(p, BANDED.of_size(8.0)) == (0, 1)


def test_without_bands_the_size_changes_nothing():
    plain = ConformalQuantile(np.array([0.5, 0.6]), 0.1, np.array([30, 40]))
    assert plain.of_size(3.0) is plain
    assert not {"conformal.band_edges_mm", "conformal.band_quantiles"} & set(plain.to_tensors())


def test_bands_are_read_back_as_they_were_stored():
    read = ConformalQuantile.from_tensors(BANDED.to_tensors(), classes=2)
    np.testing.assert_array_equal(read.band_edges_mm, BANDED.band_edges_mm)
    np.testing.assert_array_equal(read.band_scores, BANDED.band_scores)
    np.testing.assert_array_equal(read.scores, BANDED.scores)


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("conformal.band_edges_mm", [12.0, 5.0], "outside their range"),
        ("conformal.band_edges_mm", [0.0, 5.0], "outside their range"),
        ("conformal.band_edges_mm", [5.0], "expected"),
        ("conformal.band_edges_mm", None, "expected"),
        ("conformal.band_quantiles", None, "expected"),
        ("conformal.band_quantiles", [[0.4, 0.4], [1.9, 0.8], [0.3, 0.2]], "outside their range"),
        ("conformal.band_quantiles", [[0.4, float("nan")], [0.9, 0.8], [0.3, 0.2]], "outside their range"),
        ("conformal.band_edges_mm", list(range(1, 40)), "expected"),
    ],
)
def test_damaged_bands_are_refused(name, values, reason):
    tensors = BANDED.to_tensors()
    if values is None:
        del tensors[name]
    else:
        tensors[name] = torch.tensor(values, dtype=torch.float64)
    with pytest.raises(BundleError, match=reason):
        ConformalQuantile.from_tensors(tensors, classes=2)
