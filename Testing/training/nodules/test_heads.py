"""Ridge, calibration and nested folds: what is fitted is what was asked for, and no fold knows what it is tested on."""

from __future__ import annotations

import numpy as np
import pytest
from lesiontraining.nodules.heads import Linear, fit_calibration, fit_ridge, fit_space, settings
from lesiontraining.nodules.nested import HeadOptions, Task, fit, nested
from lesiontraining.nodules.questions import Nodules, coverage_by_band, score_loss, steady_loss
from scipy.special import softmax

RNG = np.random.default_rng(0)
CHOICES = {"penalty": [1e-3, 1e-1], "steadiness": [0.0, 2.0]}
OPTIONS = HeadOptions(places=24, components=20, measures_weight=1.0, choices=CHOICES)


def drawings(n: int = 80, d: int = 30) -> list[np.ndarray]:
    """The same lesions twice; the first half of the numbers moves when the box does."""
    seen = RNG.normal(size=(n, d))
    moved = seen.copy()
    moved[:, : d // 2] += RNG.normal(size=(n, d // 2))
    return [seen, moved]


def test_a_ridge_without_penalty_is_least_squares():
    x, y = RNG.normal(size=(60, 5)), RNG.normal(size=(60, 2))
    found = fit_ridge([x], y, penalty=0.0, steadiness=0.0)
    expected, *_ = np.linalg.lstsq(np.column_stack([x, np.ones(60)]), y, rcond=None)
    np.testing.assert_allclose(found.of(x), np.column_stack([x, np.ones(60)]) @ expected, atol=1e-10)


def test_weights_count_a_lesion_as_often_as_they_say():
    x, y = RNG.normal(size=(40, 4)), RNG.normal(size=(40, 1))
    weights = np.where(np.arange(40) < 20, 2.0, 1.0)
    twice = fit_ridge([np.vstack([x[:20], x])], np.vstack([y[:20], y]), penalty=0.01, steadiness=0.0)
    np.testing.assert_allclose(
        fit_ridge([x], y, penalty=0.01, steadiness=0.0, weights=weights).weight, twice.weight, atol=1e-10
    )


def test_steadiness_turns_the_answer_towards_what_does_not_move():
    seen, moved = drawings()
    target = seen.sum(axis=1, keepdims=True)
    changes = []
    for steadiness in (0.0, 1.0, 10.0):
        head = fit_ridge([seen, moved], target, penalty=1e-3, steadiness=steadiness)
        changes.append(np.abs(head.of(moved) - head.of(seen)).mean())
    assert changes[0] > changes[1] > changes[2]


def test_a_head_in_its_space_is_the_same_head_on_what_is_seen():
    seen = RNG.normal(3.0, 2.0, size=(50, 20))
    space = fit_space([seen], places=14, components=6, measures_weight=1.0)
    assert space.of(seen).shape == (50, 6 + 6)
    head = Linear(RNG.normal(size=(12, 3)), RNG.normal(size=3))
    np.testing.assert_allclose(head.on_seen(space).of(seen), head.of(space.of(seen)), atol=1e-10)
    after = Linear(RNG.normal(size=(3, 2)), RNG.normal(size=2))
    np.testing.assert_allclose(head.then(after).of(space.of(seen)), after.of(head.of(space.of(seen))), atol=1e-10)


@pytest.mark.parametrize("classes", [2, 3])
def test_calibrated_probabilities_hold_where_classes_are_equally_frequent(classes):
    labels = np.repeat(np.arange(classes), [600] + [200] * (classes - 1))
    outputs = np.eye(classes)[labels] + RNG.normal(0, 0.8, size=(len(labels), classes))
    p = softmax(fit_calibration(outputs, labels, classes=classes).of(outputs), axis=1)
    of_class = np.array([p[labels == c].mean(axis=0) for c in range(classes)])
    np.testing.assert_allclose(of_class.mean(axis=0), np.full(classes, 1 / classes), atol=0.01)
    assert (p.argmax(axis=1) == labels).mean() > 0.5


def test_logits_of_two_classes_are_minus_and_plus_the_same():
    labels = RNG.integers(0, 2, 100)
    outputs = labels[:, None] + RNG.normal(size=(100, 1))
    logits = fit_calibration(outputs, labels, classes=2).of(outputs)
    np.testing.assert_allclose(logits[:, 0], -logits[:, 1], atol=1e-9)


def test_all_combinations_are_tried():
    assert settings(CHOICES) == [
        {"penalty": p, "steadiness": s} for p in CHOICES["penalty"] for s in CHOICES["steadiness"]
    ]


def seen_by_drawing(n: int = 80, d: int = 30) -> dict[str, np.ndarray]:
    given, moved = drawings(n, d)
    return {"given": given, "reader": moved, "drawn loosely": moved, "loose": moved, "grown": given}


def class_task(seen: np.ndarray) -> Task:
    labels = (seen[:, -1] > 0).astype(int)
    return Task(labels[:, None].astype(float), labels, 2, np.ones(len(labels)), steady_loss)


def test_a_fold_s_answers_do_not_depend_on_its_own_labels():
    seen, folds = seen_by_drawing(), np.arange(80) % 5
    task = class_task(seen["given"])
    first = nested(seen, folds, task, OPTIONS)
    here = folds == 2
    labels = np.where(here, 1 - task.labels, task.labels)
    other = Task(labels[:, None].astype(float), labels, 2, task.weights, task.loss)
    second = nested(seen, folds, other, OPTIONS)
    for drawing in seen:
        np.testing.assert_array_equal(first.logits[drawing][here], second.logits[drawing][here])
        assert not np.array_equal(first.logits[drawing][~here], second.logits[drawing][~here])
    assert len(first.chosen) == 5


def test_what_can_be_learned_is_learned_out_of_fold():
    seen, folds = seen_by_drawing(200), np.arange(200) % 5
    task = class_task(seen["given"])
    answers = nested(seen, folds, task, OPTIONS)
    assert (answers.probabilities().argmax(axis=1) == task.labels).mean() > 0.85
    assert (answers.probabilities("loose").argmax(axis=1) == task.labels).mean() > 0.85


def test_lesions_without_a_target_are_answered_and_not_fitted_on():
    seen, folds = seen_by_drawing(), np.arange(80) % 5
    targets = seen["given"][:, -1:].copy()
    targets[::7] = np.nan
    task = Task(targets, np.full(80, -1), 0, np.ones(80), score_loss)
    answers = nested(seen, folds, task, OPTIONS)
    assert np.isfinite(answers.outputs["given"]).all()
    assert answers.final.calibration is None
    known = task.known
    fitted = fit(
        {name: seen[name][known] for name in ("given", "reader", "drawn loosely")}, folds[known], task.at(known),
        OPTIONS,
    )  # fmt: skip
    assert np.isfinite(fitted.outputs(seen["given"])).all()


def test_a_size_band_without_a_nodule_of_a_class_is_not_measured():
    unread = np.zeros(6)
    nodules = Nodules(None, [None] * 6, unread, unread, unread, np.array([6.0, 7, 8, 9, 20, 22]))
    labels = np.array([0, 0, 1, 1, 0, 0])
    words, numbers = coverage_by_band(np.ones((6, 2), dtype=bool), labels, nodules, 0.1)
    assert words["Prediction sets, all other sizes, malignant"] == "not measured: there is no such nodule."
    assert "all other sizes, malignant" not in numbers
    assert "in 2 of 2 lesions" in words["Prediction sets, all other sizes, benign"]
