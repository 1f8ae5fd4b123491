"""A share of lesions with its interval."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from LesionLib.uncertainty.conformal import proportion
from scipy.special import ndtri
from scipy.stats import binomtest


@pytest.mark.parametrize("n", [1, 2, 3, 7, 10, 29, 30, 137, 1000, 98_765])
def test_the_interval_is_wilson_s_of_scipy_to_the_last_digit(n):
    for hits in {0, 1, 2, n // 3, n // 2, n - 1, n} & set(range(n + 1)):
        found, expected = proportion(hits, n), binomtest(hits, n).proportion_ci(method="wilson")
        assert (found.hits, found.n, found.low, found.high) == (hits, n, expected.low, expected.high)
        assert found.low <= found.value <= found.high


def test_its_quantile_is_that_of_the_normal_distribution():
    from LesionLib.uncertainty import conformal

    assert ndtri(0.975) == conformal._NORMAL_97_5


def test_counts_of_numpy_become_plain_numbers():
    found = proportion(np.int64(3), np.int64(4))
    assert {type(value) for value in (found.hits, found.n)} == {int}
    assert {type(value) for value in (found.low, found.high)} == {float}


@pytest.mark.parametrize(("hits", "n"), [(-1, 3), (4, 3), (0, 0), (1, -1)])
def test_what_is_no_proportion_is_refused(hits, n):
    with pytest.raises(ValueError, match="is no proportion"):
        proportion(hits, n)


def test_whoever_scores_a_quiz_does_not_wait_for_scipy():
    code = """import sys
from LesionLib.uncertainty.conformal import proportion
import LesionRetrievalLib.quiz.scoring
proportion(2, 3)
print("scipy" in sys.modules)"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.strip() == "False"
