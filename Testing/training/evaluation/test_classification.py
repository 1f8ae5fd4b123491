"""Confusion matrices, one-vs-rest figures and AUCs against scikit-learn and counting by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lesiontraining.evaluation.classification import (
    accuracy,
    auc,
    balanced_accuracy,
    confusion_matrix,
    macro_auc,
    macro_f1,
    one_vs_rest,
    overall,
)
from sklearn import metrics as sk

answers = st.integers(2, 6).flatmap(
    lambda classes: st.tuples(
        st.just(classes),
        st.lists(st.tuples(st.integers(0, classes - 1), st.integers(0, classes - 1)), min_size=1, max_size=80),
    )
)


@given(answers)
def test_confusion_and_one_vs_rest_agree_with_scikit_learn(case):
    classes, pairs = case
    truth, predicted = np.array(pairs).T
    confusion = confusion_matrix(truth, predicted, classes)
    names = list(range(classes))
    np.testing.assert_array_equal(confusion, sk.confusion_matrix(truth, predicted, labels=names))
    each = one_vs_rest(confusion)
    multilabel = sk.multilabel_confusion_matrix(truth, predicted, labels=names)
    np.testing.assert_array_equal(np.stack([each.tn, each.fp, each.fn, each.tp], axis=1), multilabel.reshape(-1, 4))
    precision, recall, f1, support = sk.precision_recall_fscore_support(truth, predicted, labels=names, zero_division=0)
    occurs = support > 0
    np.testing.assert_allclose(each.sensitivity[occurs], recall[occurs])
    np.testing.assert_allclose(each.precision[occurs], precision[occurs])
    np.testing.assert_allclose(each.f1[occurs], f1[occurs])
    assert np.isnan(each.sensitivity[~occurs]).all()


@given(answers)
def test_overall_figures_agree_with_scikit_learn_where_all_classes_occur(case):
    classes, pairs = case
    truth, predicted = np.array(pairs + [(c, c) for c in range(classes)]).T
    figures = overall(confusion_matrix(truth, predicted, classes))
    assert figures.accuracy == pytest.approx(sk.accuracy_score(truth, predicted)) == accuracy(truth, predicted)
    assert figures.balanced_accuracy == pytest.approx(sk.balanced_accuracy_score(truth, predicted))
    assert figures.macro_sensitivity == figures.balanced_accuracy == balanced_accuracy(truth, predicted, classes)
    assert figures.macro_precision == pytest.approx(sk.precision_score(truth, predicted, average="macro"))
    assert figures.macro_f1 == pytest.approx(sk.f1_score(truth, predicted, average="macro"))
    assert figures.macro_f1 == macro_f1(truth, predicted, classes)
    assert figures.weighted_f1 == pytest.approx(sk.f1_score(truth, predicted, average="weighted"))


@given(answers, st.randoms(use_true_random=False))
def test_the_order_of_the_lesions_changes_nothing(case, random):
    classes, pairs = case
    shuffled = random.sample(pairs, len(pairs))
    first, second = (overall(confusion_matrix(*np.array(p).T, classes)) for p in (pairs, shuffled))
    np.testing.assert_array_equal(list(vars(first).values()), list(vars(second).values()))


def test_figures_of_a_small_table_by_hand():
    # 3 of class 0 (2 right), 2 of class 1 (1 right), 1 of class 2 (never called so)
    confusion = confusion_matrix(np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 0, 0]), 3)
    each, all_of_it = one_vs_rest(confusion), overall(confusion)
    np.testing.assert_allclose(each.sensitivity, [2 / 3, 1 / 2, 0])
    np.testing.assert_allclose(each.specificity, [1 / 3, 3 / 4, 1])
    np.testing.assert_allclose(each.precision, [1 / 2, 1 / 2, 0])
    np.testing.assert_allclose(each.f1, [4 / 7, 1 / 2, 0])
    assert all_of_it.accuracy == 1 / 2
    assert all_of_it.macro_specificity == pytest.approx((1 / 3 + 3 / 4 + 1) / 3)


def test_a_class_that_nobody_has_makes_macro_means_undefined_but_not_the_accuracy():
    figures = overall(confusion_matrix(np.array([0, 1]), np.array([0, 2]), 3))
    assert figures.accuracy == 0.5
    assert np.isnan([figures.balanced_accuracy, figures.macro_precision, figures.macro_f1]).all()
    assert np.isnan(accuracy(np.empty(0), np.empty(0)))


@given(st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=1, max_size=40))
def test_auc_is_the_share_of_pairs_in_the_right_order(pairs):
    truth, score = np.array([t for t, _ in pairs]), np.array([s for _, s in pairs], dtype=float)
    order = [(a > b) + 0.5 * (a == b) for a in score[truth] for b in score[~truth]]
    if order:
        assert auc(truth, score) == pytest.approx(np.mean(order), abs=1e-12)
        assert auc(truth, score) == pytest.approx(sk.roc_auc_score(truth, score), abs=1e-12)
        assert auc(~truth, score) == pytest.approx(1 - auc(truth, score), abs=1e-12)
    else:
        assert np.isnan(auc(truth, score))


def test_macro_auc_agrees_with_scikit_learn():
    rng = np.random.default_rng(0)
    truth = np.arange(90) % 4
    p = rng.dirichlet(np.ones(4), 90) + 0.3 * np.eye(4)[truth]
    p /= p.sum(axis=1, keepdims=True)
    assert macro_auc(truth, p) == pytest.approx(sk.roc_auc_score(truth, p, multi_class="ovr", average="macro"))
    assert np.isnan(macro_auc(np.zeros(90, dtype=int), p))


def test_what_cannot_be_counted_is_refused():
    with pytest.raises(ValueError, match="class indices from 0 to 1"):
        confusion_matrix(np.array([0, 2]), np.array([0, 1]), 2)
    with pytest.raises(ValueError, match="class indices"):
        confusion_matrix(np.array([0.5, 1]), np.array([0, 1]), 2)
    with pytest.raises(ValueError, match="3 lesions and predicted 2"):
        confusion_matrix(np.array([0, 1, 1]), np.array([0, 1]), 2)
    with pytest.raises(ValueError, match="whole numbers"):
        overall(np.array([[1, -1], [0, 2]]))
    with pytest.raises(ValueError, match="not a number"):
        auc(np.array([True, False]), np.array([0.1, np.nan]))
    with pytest.raises(ValueError, match=r"\(lesion, class\)"):
        macro_auc(np.array([0, 1]), np.array([0.1, 0.2]))
