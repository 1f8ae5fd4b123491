"""Figures against their definitions, intervals that draw patients, and temperatures."""

from __future__ import annotations

import numpy as np
import pytest
from lesiontraining.evaluation.classification import accuracy, auc, macro_auc
from lesiontraining.evaluation.intervals import PatientDraws, difference, interval, over
from lesiontraining.reporting.figures import classification_statistics, positive_statistics
from lesiontraining.runs.uncertainty import best_temperature, cross_fitted_probabilities, mean_probabilities
from scipy.special import softmax


@pytest.fixture
def sample():
    rng = np.random.default_rng(0)
    truth = rng.random(120) < 0.4
    score = np.clip(0.35 + 0.3 * truth + rng.normal(0, 0.2, 120), 0, 1).round(2)
    patients = [f"p{i // 3}" for i in range(120)]
    return truth, score, patients


class Answers:
    """What the statistics read of predictions of two classes."""

    def __init__(self, truth: np.ndarray, score: np.ndarray) -> None:
        self.labels, self.probabilities = truth.astype(int), np.stack([1 - score, score], axis=1)


def test_auc_is_the_share_of_pairs_in_the_right_order(sample):
    truth, score, _ = sample
    pairs = [(a > b) + 0.5 * (a == b) for a in score[truth] for b in score[~truth]]
    assert auc(truth, score) == pytest.approx(np.mean(pairs), abs=1e-12)
    assert macro_auc(truth.astype(int), np.stack([1 - score, score], axis=1)) == auc(truth, score)
    assert np.isnan(auc(np.ones(5, bool), np.arange(5.0)))


def test_sensitivity_and_specificity_count_what_they_say(sample):
    truth, score, _ = sample
    score = np.where(score == 0.5, 0.51, score)
    answers, rows = Answers(truth, score), np.arange(120)
    statistics = classification_statistics(answers) | positive_statistics(answers)
    called = score > 0.5
    sensitivity, specificity = (statistics[name](rows) for name in ("sensitivity", "specificity"))
    assert sensitivity == (called & truth).sum() / truth.sum()
    assert specificity == (~called & ~truth).sum() / (~truth).sum()
    assert statistics["balanced_accuracy"](rows) == pytest.approx((sensitivity + specificity) / 2)
    assert np.isnan(statistics["sensitivity"](np.flatnonzero(~truth)))


def test_a_draw_takes_all_lesions_of_a_patient_or_none(sample):
    _, _, patients = sample
    names = np.array(patients)
    for draw in PatientDraws(patients, draws=20, seed=1):
        assert len(draw) == 120
        for patient in np.unique(names[draw]):
            times = np.unique([np.sum(draw == lesion) for lesion in np.flatnonzero(names == patient)])
            assert len(times) == 1


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(100):
        truth = rng.random(150) < 0.5
        called = np.where(rng.random(150) < 0.8, truth, ~truth)
        statistic = over(accuracy, truth, called)
        figure = interval(statistic, PatientDraws(np.arange(150), draws=200, seed=0))
        covered += figure.low <= 0.8 <= figure.high
    assert 86 <= covered <= 100


def test_patients_with_many_alike_lesions_widen_the_interval():
    rng = np.random.default_rng(3)
    truth = np.repeat(rng.random(40) < 0.5, 10)
    score = np.repeat(rng.random(40), 10) * 0.5 + 0.3 * truth
    clustered = interval(over(auc, truth, score), PatientDraws(np.arange(400) // 10, draws=300, seed=0))
    independent = interval(over(auc, truth, score), PatientDraws(np.arange(400), draws=300, seed=0))
    assert clustered.high - clustered.low > 1.8 * (independent.high - independent.low)


def test_a_score_does_not_differ_from_itself(sample):
    truth, score, patients = sample
    ours = over(auc, truth, score)
    figure = difference(ours, ours, PatientDraws(patients, draws=50, seed=0))
    assert (figure.value, figure.low, figure.high) == (0, 0, 0)


def test_slices_are_averaged_after_the_temperature_and_rows_add_up_to_one():
    rng = np.random.default_rng(6)
    logits = [rng.normal(0, 3, (slices, 3)) for slices in (1, 4, 9)]
    found = mean_probabilities(logits, 2.0)
    np.testing.assert_allclose(found, [softmax(of / 2.0, axis=1).mean(axis=0) for of in logits], atol=1e-12)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=0, atol=1e-15)


def test_temperature_cools_answers_that_are_too_sure():
    rng = np.random.default_rng(4)
    honest = rng.normal(0, 1.5, 4000)
    truth = rng.random(4000) < 1 / (1 + np.exp(-honest))
    too_sure = [np.array([[-1.5 * h, 1.5 * h]]) for h in honest]  # the difference is three times too large
    temperature = best_temperature(lambda t: mean_probabilities(too_sure, t), truth.astype(int), balanced=True)
    assert temperature == pytest.approx(3.0, rel=0.15)
    assert mean_probabilities(too_sure, temperature)[:, 1].mean() == pytest.approx(truth.mean(), abs=0.03)


def test_a_balanced_temperature_is_that_of_equally_frequent_classes():
    rng = np.random.default_rng(7)
    labels = (rng.random(600) < 0.1).astype(int)
    logits = [rng.normal(0, 2, (1, 2)) + np.array([[1.0, -1.0]]) for _ in labels]
    at = lambda of: lambda t: mean_probabilities(of, t)  # noqa: E731
    balanced = best_temperature(at(logits), labels, balanced=True)
    # Every rare lesion as often as it takes to be as many as the others.
    times = np.where(labels == 1, round((labels == 0).sum() / labels.sum()), 1)
    repeated = [of for of, n in zip(logits, times, strict=True) for _ in range(n)]
    assert balanced == pytest.approx(best_temperature(at(repeated), np.repeat(labels, times)), rel=0.05)
    assert balanced != pytest.approx(best_temperature(at(logits), labels), rel=0.05)


def test_a_fold_s_temperature_never_sees_the_fold():
    rng = np.random.default_rng(5)
    logits = [rng.normal(0, 2, (3, 2)) for _ in range(60)]
    labels, folds = (rng.random(60) < 0.5).astype(int), np.arange(60) % 3
    before = cross_fitted_probabilities(logits, labels, folds, balanced=True)
    after = cross_fitted_probabilities(logits, np.where(folds == 0, 1 - labels, labels), folds, balanced=True)
    np.testing.assert_array_equal(before[folds == 0], after[folds == 0])
    assert (before[folds == 1] != after[folds == 1]).any()
