"""How far the answer moves with the box: seeded, inside the volume, said plainly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from LesionLib.geometry import CTVolume, LesionBox
from LesionLib.inference.classifier import Classifier
from LesionLib.model.bundle import load_bundle
from LesionLib.phantom.nodules import nodule_patch
from LesionLib.uncertainty.stability import box_stability, jittered_boxes, lies_inside
from scipy.spatial.transform import Rotation

VOLUME = CTVolume(np.zeros((40, 60, 60), np.float32), np.diag([1.0, 1.0, 1.5, 1.0]))
BOX = LesionBox([30, 30, 30], [20, 16, 12], name="L1")


def size_answer(box: LesionBox) -> np.ndarray:
    """Class 1 the likelier the wider the box: its answers are known."""
    p = 1 / (1 + np.exp(-(box.sizeMm[0] - 20.2)))
    return np.array([1 - p, p])


def test_the_figures_are_those_of_the_answers_to_the_jittered_boxes():
    spread = box_stability(size_answer, BOX, VOLUME, n=50, seed=3)
    answers = np.array([size_answer(b) for b in jittered_boxes(BOX, n=50, shift_mm=2.0, size_mm=2.0, seed=3)])
    np.testing.assert_allclose(spread.mean, answers.mean(axis=0))
    np.testing.assert_allclose(spread.minimum, answers.min(axis=0))
    np.testing.assert_allclose(spread.maximum, answers.max(axis=0))
    np.testing.assert_allclose(spread.sd, answers.std(axis=0, ddof=1))
    assert (spread.label, spread.answered, spread.skipped) == (0, 50, 0)
    assert spread.share_keeping == (answers[:, 0] > 0.5).mean()
    assert 0.2 < spread.share_keeping < 0.9


def test_an_answer_that_does_not_look_at_the_box_does_not_move():
    spread = box_stability(lambda _box: np.array([0.2, 0.7, 0.1]), BOX, VOLUME)
    assert (spread.answered, spread.keeping, spread.share_keeping, spread.label) == (8, 8, 1.0, 1)
    np.testing.assert_allclose(spread.sd, 0, atol=1e-12)
    np.testing.assert_array_equal(spread.minimum, spread.maximum)


@settings(deadline=None)
@given(
    st.lists(st.floats(0.1, 80), min_size=3, max_size=3),
    st.floats(0, 5),
    st.floats(0, 5),
    st.integers(0, 1000),
    st.floats(-180, 180),
)
def test_boxes_stay_near_the_user_s_in_its_own_axes(size, shift, change, seed, degrees):
    axes = Rotation.from_euler("xyz", [degrees, 20, -degrees], degrees=True).as_matrix()
    box = LesionBox([5, -7, 11], size, axes, name="a")
    for near in jittered_boxes(box, n=4, shift_mm=shift, size_mm=change, seed=seed):
        moved = np.abs(axes.T @ (near.centerRAS - box.centerRAS))
        assert (moved <= np.minimum(shift, box.sizeMm / 4) + 1e-9).all()
        assert (np.abs(near.sizeMm - box.sizeMm) <= np.minimum(change, box.sizeMm / 4) + 1e-9).all()
        np.testing.assert_array_equal(near.axesRAS, box.axesRAS)
        assert near.name == "a"


def test_shifts_and_sizes_fill_their_range_evenly():
    boxes = list(jittered_boxes(BOX, n=3000, shift_mm=2.0, size_mm=3.0, seed=0))
    shifts = np.array([b.centerRAS - BOX.centerRAS for b in boxes])
    changes = np.array([b.sizeMm - BOX.sizeMm for b in boxes])
    np.testing.assert_allclose(shifts.std(axis=0), 2.0 / 3**0.5, rtol=0.05)
    np.testing.assert_allclose(changes.std(axis=0), 3.0 / 3**0.5, rtol=0.05)
    assert np.abs(np.corrcoef(np.hstack([shifts, changes]).T) - np.eye(6)).max() < 0.08


def test_the_same_seed_gives_the_same_boxes_and_another_seed_others():
    a, b, c = (box_stability(size_answer, BOX, VOLUME, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(a.mean, b.mean)
    assert (a.mean != c.mean).all()


def test_boxes_that_would_leave_the_volume_are_skipped_and_counted():
    asked = []

    def answer(box: LesionBox) -> np.ndarray:
        asked.append(box)
        return np.array([0.4, 0.6])

    at_the_edge = LesionBox([9.7, 30, 30], [20, 16, 12])
    spread = box_stability(answer, at_the_edge, VOLUME, n=40, probabilities=np.array([0.4, 0.6]))
    assert 5 < spread.skipped < 40
    assert spread.answered == len(asked) == 40 - spread.skipped
    assert all(lies_inside(VOLUME, b) for b in asked)
    assert f"{spread.skipped} boxes would have left the volume" in spread.message(["a", "b"])


def test_a_box_that_fills_the_volume_lies_inside_and_one_beyond_a_tilted_one_does_not():
    assert lies_inside(VOLUME, LesionBox([29.5, 29.5, 29.25], [60, 60, 60]))
    assert not lies_inside(VOLUME, LesionBox([29.5, 29.5, 29.25], [60.01, 60, 60]))
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("z", 45, degrees=True).as_matrix()
    tilted = CTVolume(np.zeros((20, 20, 20), np.float32), matrix)
    middle = (matrix @ [9.5, 9.5, 9.5, 1])[:3]
    assert lies_inside(tilted, LesionBox(middle, [14, 14, 20]))
    assert not lies_inside(tilted, LesionBox(middle, [15, 15, 20]))


def test_where_no_box_fits_nothing_is_claimed():
    spread = box_stability(size_answer, LesionBox([0, 30, 30], [20, 16, 12]), VOLUME)
    assert (spread.answered, spread.skipped) == (0, 8)
    assert np.isnan(spread.share_keeping)
    assert np.isnan(np.concatenate([spread.mean, spread.minimum, spread.maximum, spread.sd])).all()
    text = spread.message(["benign", "malignant"])
    assert text == "How the answer depends on the box was not measured. 8 boxes would have left the volume."


def test_the_sentence_gives_counts_and_range():
    text = box_stability(size_answer, BOX, VOLUME, n=1, seed=1).message(["benign", "malignant"])
    assert "of 1 box give" in text
    spread = box_stability(lambda _box: np.array([0.25, 0.75]), BOX, VOLUME)
    assert spread.message(["benign", "malignant"]) == (
        "Drawn a little differently (moved by up to 2 mm, edges up to 2 mm longer or shorter), "
        "8 of 8 boxes give the same answer, malignant; its probability runs from 75% to 75%."
    )


@pytest.mark.parametrize("options", [{"n": 0}, {"shift_mm": -1.0}, {"size_mm": -0.1}])
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(ValueError, match="n must be at least 1"):
        box_stability(size_answer, BOX, VOLUME, **options)


def test_the_shipped_model_s_answer_moves_a_little_and_its_own_answer_is_among_the_likely():
    volume, nodule = nodule_patch(kind="spiculated", diameter_mm=14.0, seed=3, size_mm=60.0)
    classifier = Classifier(load_bundle("lung-nodule-malignancy"), volume)

    def answer(box: LesionBox) -> np.ndarray:
        return np.array(list(classifier.classify(box).probabilities.values()))

    spread = box_stability(answer, nodule.box.grown(1.5), volume, n=4)
    assert spread.answered == 4
    np.testing.assert_allclose(spread.mean.sum(), 1, atol=1e-5)
    assert 0 < spread.sd[0] < 0.4
