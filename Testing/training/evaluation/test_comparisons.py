"""McNemar's and DeLong's tests against published values, scipy and the definitions written out."""

from __future__ import annotations

import numpy as np
import pytest
from lesiontraining.evaluation.classification import auc
from lesiontraining.evaluation.comparisons import delong, delong_paired, mcnemar
from lesiontraining.evaluation.intervals import PatientDraws
from scipy.stats import binom


@pytest.fixture
def scores():
    """Two scores with ties on 70 lesions."""
    rng = np.random.default_rng(4)
    truth = rng.random(70) < 0.45
    shared = rng.normal(size=70)
    first = np.round(shared + 1.2 * truth, 1)
    return truth, first, np.round(0.5 * shared + 0.6 * rng.normal(size=70) + 0.6 * truth, 1)


def _delong_by_definition(truth, scores):
    """Equations 4 to 7 of DeLong et al. 1988 over all pairs."""
    positive, negative = scores[:, truth], scores[:, ~truth]
    wins = (positive[:, :, None] > negative[:, None, :]) + 0.5 * (positive[:, :, None] == negative[:, None, :])
    v10, v01 = wins.mean(axis=2), wins.mean(axis=1)
    return wins.mean(axis=(1, 2)), np.cov(v10) / v10.shape[1] + np.cov(v01) / v01.shape[1]


def test_delong_gives_the_published_figures_of_hanley_and_mcneil():
    # 58 normal and 51 abnormal CTs rated 1 to 5 (Radiology 1982, table 1). Area and DeLong's standard error and interval
    # as Stata's roctab prints them for these data.
    normal, abnormal = [33, 6, 6, 11, 2], [3, 2, 2, 11, 33]
    truth = np.repeat([False, True], [58, 51])
    rating = np.concatenate([np.repeat(np.arange(1, 6), normal), np.repeat(np.arange(1, 6), abnormal)])
    result = delong(truth, rating)
    assert result.auc[0] == pytest.approx(0.8932, abs=5e-5)
    assert result.standard_error[0] == pytest.approx(0.0307, abs=5e-5)
    np.testing.assert_allclose(result.interval()[0], [0.83295, 0.95339], atol=5e-6)


def test_delong_is_the_definition_over_all_pairs(scores):
    truth, first, second = scores
    area, covariance = _delong_by_definition(truth, np.stack([first, second]))
    result = delong(truth, np.stack([first, second]))
    np.testing.assert_allclose(result.auc, area, atol=1e-12)
    np.testing.assert_allclose(result.covariance, covariance, atol=1e-12)
    np.testing.assert_allclose(result.auc, [auc(truth, first), auc(truth, second)], atol=1e-12)


def test_delong_with_a_patient_for_each_lesion_is_delong(scores):
    truth, first, second = scores
    both = np.stack([first, second])
    order = np.random.default_rng(0).permutation(70)
    np.testing.assert_allclose(
        delong(truth, both, patients=order).covariance, delong(truth, both).covariance, atol=1e-15
    )


def test_copied_lesions_make_delong_sure_of_itself_unless_it_knows_the_patients(scores):
    truth, first, _ = scores
    once = delong(truth, first).standard_error[0]
    copies, patients = (np.repeat(truth, 4), np.repeat(first, 4)), np.repeat(np.arange(70), 4)
    assert delong(*copies).standard_error[0] < 0.55 * once
    assert delong(*copies, patients=patients).standard_error[0] == pytest.approx(once)


def test_delong_by_patient_agrees_with_a_bootstrap_that_draws_patients():
    rng = np.random.default_rng(6)
    patients = np.repeat(np.arange(150), rng.integers(1, 6, size=150))
    truth = rng.random(len(patients)) < rng.beta(1, 1, 150)[patients]  # most patients have both
    score = truth + rng.normal(size=150)[patients] + rng.normal(size=len(patients))
    drawn = [auc(truth[rows], score[rows]) for rows in PatientDraws(patients, draws=800, seed=0)]
    assert delong(truth, score, patients=patients).standard_error[0] == pytest.approx(np.std(drawn), rel=0.1)


def test_the_paired_test_uses_the_covariance(scores):
    truth, first, second = scores
    area, covariance = _delong_by_definition(truth, np.stack([first, second]))
    paired = delong_paired(truth, first, second)
    assert paired.difference == pytest.approx(area[0] - area[1])
    assert paired.standard_error**2 == pytest.approx(np.array([1, -1]) @ covariance @ np.array([1, -1]))
    assert paired.z == pytest.approx(paired.difference / paired.standard_error)
    turned = delong_paired(truth, second, first)
    assert (turned.z, turned.p_value) == pytest.approx((-paired.z, paired.p_value))


def test_scores_in_the_same_order_do_not_differ(scores):
    truth, first, _ = scores
    same = delong_paired(truth, first, 3 * first + 7)
    assert (same.z, same.p_value) == (0, 1)


def test_delong_p_values_are_spread_evenly_where_nothing_differs():
    rng = np.random.default_rng(7)
    p = []
    for _ in range(300):
        truth = np.arange(80) % 2 == 0
        first, second = rng.normal(size=(2, 80)) + truth
        p.append(delong_paired(truth, first, second).p_value)
    assert 0.02 <= np.mean(np.array(p) < 0.05) <= 0.09


def test_delong_refuses_what_has_no_variance():
    with pytest.raises(ValueError, match="at least 2 of each"):
        delong(np.array([True, False, False]), np.arange(3.0))
    with pytest.raises(ValueError, match="positives of 1 and negatives of 2 patients"):
        delong(np.array([True, True, False, False]), np.arange(4.0), patients=np.array([1, 1, 2, 3]))
    with pytest.raises(ValueError, match="not a number"):
        delong(np.array([True, True, False, False]), np.array([1, 2, 3, np.nan]))
    with pytest.raises(ValueError, match="expected"):
        delong(np.array([True, False]), np.arange(3.0))


def test_mcnemar_is_a_sign_test_on_the_rows_that_only_one_got_right():
    truth = np.zeros(30, dtype=int)
    first = np.array([0] * 20 + [1] * 10)
    second = np.array([0] * 12 + [1] * 8 + [0] * 2 + [2] * 8)
    result = mcnemar(truth, first, second)
    assert (result.only_first, result.only_second) == (8, 2)
    assert result.p_value == pytest.approx(2 * binom.cdf(2, 10, 0.5))
    turned = mcnemar(truth, second, first)
    assert (turned.only_first, turned.p_value) == (2, result.p_value)
    assert mcnemar(truth, first, first).p_value == 1


def test_205_against_201_of_229_studies_is_no_difference_even_at_its_clearest():
    # DMRN with and without multi-scale: at least four studies differ; were these all, p would be 1/8.
    right = np.zeros(229, dtype=int)
    wrong = np.arange(229)
    assert mcnemar(right, (wrong >= 205).astype(int), (wrong >= 201).astype(int)).p_value == pytest.approx(0.125)
