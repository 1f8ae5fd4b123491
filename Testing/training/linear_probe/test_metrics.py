"""Figures against their definitions, and intervals that draw patients."""

from __future__ import annotations

import numpy as np
import pytest
from lesiontraining.linear_probe.figures import (
    auc,
    balanced_accuracy,
    cross_fitted_probability,
    fit_temperature,
    lesion_probability,
    paired_difference,
    patient_draws,
    sensitivity,
    specificity,
    with_interval,
)


@pytest.fixture
def sample():
    rng = np.random.default_rng(0)
    truth = rng.random(120) < 0.4
    score = np.clip(0.35 + 0.3 * truth + rng.normal(0, 0.2, 120), 0, 1).round(2)
    patients = [f"p{i // 3}" for i in range(120)]
    return truth, score, patients


def test_auc_is_the_share_of_pairs_in_the_right_order(sample):
    truth, score, _ = sample
    pairs = [(a > b) + 0.5 * (a == b) for a in score[truth] for b in score[~truth]]
    assert auc(truth, score) == pytest.approx(np.mean(pairs), abs=1e-12)
    assert np.isnan(auc(np.ones(5, bool), np.arange(5.0)))


def test_sensitivity_and_specificity_count_what_they_say(sample):
    truth, score, _ = sample
    called = score >= 0.5
    assert sensitivity(truth, score) == (called & truth).sum() / truth.sum()
    assert specificity(truth, score) == (~called & ~truth).sum() / (~truth).sum()
    assert balanced_accuracy(truth, score) == pytest.approx((sensitivity(truth, score) + specificity(truth, score)) / 2)


def test_a_draw_takes_all_lesions_of_a_patient_or_none(sample):
    _, _, patients = sample
    names = np.array(patients)
    for draw in patient_draws(patients, draws=20, seed=1):
        assert len(draw) == 120
        for patient in np.unique(names[draw]):
            times = np.unique([np.sum(draw == lesion) for lesion in np.flatnonzero(names == patient)])
            assert len(times) == 1


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(100):
        truth = rng.random(150) < 0.5
        patients = [str(i) for i in range(150)]
        score = np.where(rng.random(150) < 0.8, truth, ~truth).astype(float)
        figure = with_interval(balanced_accuracy, truth, score, patient_draws(patients, draws=200, seed=0))
        covered += figure.low <= 0.8 <= figure.high
    assert 86 <= covered <= 100


def test_patients_with_many_alike_lesions_widen_the_interval():
    rng = np.random.default_rng(3)
    truth = np.repeat(rng.random(40) < 0.5, 10)
    score = np.repeat(rng.random(40), 10) * 0.5 + 0.3 * truth
    clustered = with_interval(auc, truth, score, patient_draws([str(i // 10) for i in range(400)], draws=300, seed=0))
    independent = with_interval(auc, truth, score, patient_draws([str(i) for i in range(400)], draws=300, seed=0))
    assert clustered.high - clustered.low > 1.8 * (independent.high - independent.low)


def test_a_score_does_not_differ_from_itself(sample):
    truth, score, patients = sample
    figure = paired_difference(auc, truth, score, score, patient_draws(patients, draws=50, seed=0))
    assert (figure.value, figure.low, figure.high) == (0, 0, 0)


def test_temperature_cools_answers_that_are_too_sure():
    rng = np.random.default_rng(4)
    honest = rng.normal(0, 1.5, 4000)
    truth = rng.random(4000) < 1 / (1 + np.exp(-honest))
    too_sure = [np.array([[-1.5 * h, 1.5 * h]]) for h in honest]  # the difference is three times too large
    temperature = fit_temperature(too_sure, truth)
    assert temperature == pytest.approx(3.0, rel=0.15)
    assert lesion_probability(too_sure, temperature).mean() == pytest.approx(truth.mean(), abs=0.03)


def test_a_fold_s_temperature_never_sees_the_fold():
    rng = np.random.default_rng(5)
    logits = [rng.normal(0, 2, (3, 2)) for _ in range(60)]
    truth, folds = rng.random(60) < 0.5, np.arange(60) % 3
    before = cross_fitted_probability(logits, truth, folds)
    flipped = np.where(folds == 0, ~truth, truth)
    after = cross_fitted_probability(logits, flipped, folds)
    np.testing.assert_array_equal(before[folds == 0], after[folds == 0])
    assert (before[folds == 1] != after[folds == 1]).any()
