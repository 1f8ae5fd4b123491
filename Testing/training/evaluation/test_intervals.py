"""The bootstrap that draws patients: the same draws again, honest width, failed draws counted, seeds, Holm."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lesiontraining.evaluation.classification import auc, balanced_accuracy
from lesiontraining.evaluation.intervals import Estimate, PatientDraws, difference, holm, interval, over
from scipy.stats import bootstrap
from sklearn.metrics import roc_auc_score


@pytest.fixture
def sample():
    rng = np.random.default_rng(0)
    truth = rng.random(120) < 0.4
    score = np.clip(0.35 + 0.3 * truth + rng.normal(0, 0.2, 120), 0, 1)
    worse = np.clip(score + rng.normal(0, 0.4, 120), 0, 1)
    return truth, score, worse, np.array([f"p{i // 3}" for i in range(120)])


def draws_by_hand(patients, *, draws: int, seed: int) -> list[np.ndarray]:
    """How the figures on the shipped model's card were drawn: so they are found again."""
    names, patient_of = np.unique(np.asarray(patients), return_inverse=True)
    rng = np.random.default_rng(seed)
    drawn = [rng.integers(len(names), size=len(names)) for _ in range(draws)]
    return [np.concatenate([np.flatnonzero(patient_of == patient) for patient in one]) for one in drawn]


def _mean(values):
    return over(lambda x: float(x.mean()) if len(x) else float("nan"), values)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=25), st.integers(0, 99))
def test_draws_are_the_same_again_and_those_of_the_shipped_model(patients, seed):
    drawn = PatientDraws(np.array(patients), draws=5, seed=seed)
    first, again = list(drawn), list(drawn)
    older = draws_by_hand([str(p) for p in patients], draws=5, seed=seed)
    assert len(first) == len(drawn) == 5
    for a, b, c in zip(first, again, older, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(np.sort(a), np.sort(c))
        lesions = np.bincount(a, minlength=len(patients))
        for patient in set(patients):
            assert len(set(lesions[np.array(patients) == patient])) == 1
        drawn_patients = sum(lesions[patients.index(p)] for p in set(patients))
        assert drawn_patients == len(set(patients))


def test_an_interval_is_that_of_the_shipped_model_for_the_same_seed(sample):
    truth, score, _, patients = sample
    values = [roc_auc_score(truth[rows], score[rows]) for rows in draws_by_hand(patients, draws=200, seed=3)]
    low, high = np.percentile(values, [2.5, 97.5])
    newer = interval(over(auc, truth, score), PatientDraws(patients, draws=200, seed=3))
    assert (newer.value, newer.low, newer.high) == pytest.approx((roc_auc_score(truth, score), low, high))
    assert (newer.lesions, newer.patients, newer.draws, newer.failed) == (120, 40, 200, 0)
    assert str(newer) == f"{newer.value:.3f} ({low:.3f}-{high:.3f})"


def test_with_one_lesion_a_patient_it_agrees_with_scipy():
    values = np.random.default_rng(1).exponential(size=80)
    ours = interval(_mean(values), PatientDraws(np.arange(80), draws=4000, seed=0))
    theirs = bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(0))
    np.testing.assert_allclose([ours.low, ours.high], theirs.confidence_interval, atol=0.02)
    narrow = interval(_mean(values), PatientDraws(np.arange(80), draws=4000, seed=0), level=0.5)
    assert ours.low < narrow.low < narrow.high < ours.high


def test_lesions_that_copy_each_other_do_not_make_the_interval_narrower():
    values = np.random.default_rng(2).normal(size=50)
    once = interval(_mean(values), PatientDraws(np.arange(50), draws=1000, seed=0))
    copied = interval(_mean(np.repeat(values, 6)), PatientDraws(np.repeat(np.arange(50), 6), draws=1000, seed=0))
    lesions = interval(_mean(np.repeat(values, 6)), PatientDraws(np.arange(300), draws=1000, seed=0))
    assert (copied.low, copied.high) == pytest.approx((once.low, once.high))
    assert lesions.high - lesions.low < 0.6 * (once.high - once.low)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(150):
        patients = np.repeat(np.arange(40), 3)
        values = rng.normal(size=40)[patients] + rng.normal(size=120)
        estimate = interval(_mean(values), PatientDraws(patients, draws=200, seed=0))
        covered += estimate.low <= 0 <= estimate.high
    assert 0.87 <= covered / 150 <= 0.99


def test_draws_without_a_class_are_counted_and_left_out():
    truth, score = np.array([True, False, False, False]), np.array([0.9, 0.1, 0.2, 0.3])
    drawn = PatientDraws(np.arange(4), draws=500, seed=0)
    estimate = interval(over(auc, truth, score), drawn)
    lacking = sum(not 0 < truth[rows].sum() < len(rows) for rows in drawn)
    assert estimate.failed == lacking > 100
    assert (estimate.low, estimate.high) == (1, 1)


def test_one_patient_and_impossible_figures_have_no_interval():
    one = interval(_mean(np.arange(5.0)), PatientDraws(np.zeros(5), draws=20))
    assert one.value == 2
    assert np.isnan([one.low, one.high]).all()
    none = interval(over(auc, np.ones(6, dtype=bool), np.arange(6.0)), PatientDraws(np.arange(6), draws=20))
    assert none.failed == 20
    assert json.loads(json.dumps(none.as_json(), allow_nan=False))["value"] is None


def test_a_difference_is_paired_and_has_the_opposite_sign_the_other_way_round(sample):
    truth, score, worse, patients = sample
    drawn = PatientDraws(patients, draws=500, seed=0)
    good, bad = over(auc, truth, score), over(auc, truth, worse)
    gain, loss = difference(good, bad, drawn), difference(bad, good, drawn)
    assert (gain.value, gain.low, gain.high) == pytest.approx((-loss.value, -loss.high, -loss.low))
    assert gain.p_value == loss.p_value
    apart = interval(good, drawn), interval(bad, drawn)
    assert gain.high - gain.low < sum(e.high - e.low for e in apart)
    same = difference(good, good, drawn)
    assert (same.value, same.low, same.high, same.p_value) == (0, 0, 0, 1)


def test_the_p_value_agrees_with_whether_the_interval_holds_zero(sample):
    truth, score, worse, patients = sample
    drawn = PatientDraws(patients, draws=999, seed=0)
    gain = difference(over(auc, truth, score), over(auc, truth, worse), drawn)
    assert gain.is_better()
    assert 1 / 500 <= gain.p_value < 0.05
    assert gain.as_json()["p_value"] == round(gain.p_value, 4)
    none = difference(over(auc, truth, score), over(auc, truth, score**2), drawn)
    assert none.p_value == 1
    assert not none.is_better()


def test_under_no_difference_p_values_are_spread_evenly():
    rng = np.random.default_rng(8)
    p = []
    for _ in range(120):
        a, b = rng.normal(size=(2, 40))
        p.append(difference(_mean(a), _mean(b), PatientDraws(np.arange(40), draws=199, seed=0)).p_value)
    assert 0.01 <= np.mean(np.array(p) < 0.05) <= 0.12
    assert 0.35 <= np.mean(np.array(p) < 0.5) <= 0.65


def test_seeds_are_averaged_within_each_draw(sample):
    truth, score, worse, patients = sample
    drawn = PatientDraws(patients, draws=300, seed=0)
    runs = [over(auc, truth, score), over(auc, truth, worse)]
    together = interval(runs, drawn, draw_seeds=False)
    by_hand = [(auc(truth[rows], score[rows]) + auc(truth[rows], worse[rows])) / 2 for rows in drawn]
    assert together.value == pytest.approx((auc(truth, score) + auc(truth, worse)) / 2)
    np.testing.assert_allclose([together.low, together.high], np.percentile(by_hand, [2.5, 97.5]))
    wider = interval(runs, drawn)
    assert wider.high - wider.low > together.high - together.low
    assert wider.value == together.value
    alone = interval([runs[0]], drawn)
    assert (alone.low, alone.high) == (interval(runs[0], drawn).low, interval(runs[0], drawn).high)


def test_drawn_seeds_carry_the_spread_between_trainings():
    seeds = [_mean(np.full(30, value)) for value in (0.0, 1.0, 2.0, 3.0)]
    drawn = PatientDraws(np.arange(30), draws=4000, seed=0)
    estimate = interval(seeds, drawn)
    # The mean of 4 values drawn with replacement: 95 % of it lies within 0.5 and 2.5 (256 outcomes).
    means = np.array(np.meshgrid(*[range(4)] * 4)).reshape(4, -1).mean(axis=0)
    np.testing.assert_allclose([estimate.low, estimate.high], np.percentile(means, [2.5, 97.5]), atol=0.26)
    fixed = interval(seeds, drawn, draw_seeds=False)
    assert fixed.low == fixed.high == fixed.value == 1.5


def test_seeds_of_two_models_are_drawn_together():
    first = [_mean(np.full(10, value)) for value in (1.0, 2.0, 3.0)]
    second = [_mean(np.full(10, value)) for value in (0.5, 1.5, 2.5)]
    paired = difference(first, second, PatientDraws(np.arange(10), draws=100, seed=0))
    assert (paired.low, paired.value, paired.high) == pytest.approx((0.5, 0.5, 0.5))
    with pytest.raises(ValueError, match="3 and 2 seeds"):
        difference(first, second[:2], PatientDraws(np.arange(10), draws=10))


def test_holm_by_hand():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    assert len(holm([])) == 0
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([0.1, float("nan")])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.001, 0.5))
def test_holm_rejects_what_stepping_down_rejects(p_values, alpha):
    rejected = set()
    for step, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[place] * (len(p_values) - step) > alpha:
            break
        rejected.add(place)
    adjusted = holm(p_values)
    assert set(np.flatnonzero(adjusted <= alpha)) == rejected
    assert (adjusted >= np.array(p_values)).all()


def test_metrics_with_options_and_mismatched_arrays(sample):
    truth, score, _, _ = sample
    statistic = over(balanced_accuracy, truth.astype(int), (score > 0.5).astype(int), classes=2)
    assert statistic(np.arange(120)) == balanced_accuracy(truth.astype(int), (score > 0.5).astype(int), 2)
    with pytest.raises(ValueError, match="same lesions"):
        over(auc, truth, score[:5])
    with pytest.raises(ValueError, match="no statistic"):
        interval([], PatientDraws(np.arange(3)))
    with pytest.raises(ValueError, match="level"):
        interval(_mean(score), PatientDraws(np.arange(120), draws=5), level=95)


def test_a_figure_reads_alike_from_a_card_and_from_a_manifest():
    estimate = Estimate(0.989473, 0.98245, 0.99457, 120, 40, 2000, 0)
    kept = estimate.as_json()
    assert str(estimate) == f"{kept['value']:.3f} ({kept['low']:.3f}-{kept['high']:.3f})"


def test_estimates_read_well():
    estimate = Estimate(0.91234, 0.8871, 0.93449, 120, 40, 2000, 3)
    assert str(estimate) == "0.912 (0.887-0.934)"
    assert estimate.as_json() == {
        "value": 0.9123,
        "low": 0.8871,
        "high": 0.9345,
        "lesions": 120,
        "patients": 40,
        "failed_draws": 3,
    }
