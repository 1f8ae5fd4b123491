"""Leaks that were put in are found, data without any are left in peace, and what cannot be seen is said."""

from __future__ import annotations

import json

import numpy as np
import pytest
from lesiontraining.evaluation import leaks as near_duplicates
from lesiontraining.evaluation.leaks import (
    check_leaks,
    find_near_duplicates,
    fitted_on_test,
    hash_signs,
    random_projections,
    shared_identifiers,
    shared_images,
    thumbnail,
)
from scipy.ndimage import gaussian_filter, zoom


def _lesion(seed: int, edge: int = 48) -> np.ndarray:
    """A bright ellipse in the middle of noisy tissue, HU: lesions resemble each other, as centred crops do."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : edge * 1j, -1 : 1 : edge * 1j]
    angle, a, b = rng.uniform(0, np.pi), *rng.uniform(0.3, 0.7, 2)
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    disc = 1 / (1 + np.exp(12 * (np.hypot(u / a, v / b) - 1)))
    noise = gaussian_filter(rng.normal(size=(edge, edge)), 0.7)
    return 60 + 120 * disc + 20 * noise / noise.std()


@pytest.fixture(scope="module")
def images():
    return [_lesion(seed) for seed in range(60)]


@pytest.fixture(scope="module")
def splits():
    return np.repeat(["test", "train"], [20, 40])


COPIES = {
    "brightness and contrast": lambda p: 0.5 * p - 200,
    "8 bits": lambda p: np.round(255 * (p - p.min()) / np.ptp(p)),
    "noise of 1 %": lambda p: p + np.random.default_rng(0).normal(0, 0.01 * p.std(), p.shape),
    "mirrored": lambda p: p[:, ::-1],
    "turned": np.rot90,
    "turned and mirrored": lambda p: np.rot90(p, 3)[::-1],
    "another matrix": lambda p: zoom(p, 2, order=1, mode="nearest", grid_mode=True),
}


def test_different_lesions_are_no_near_duplicates(images, splits):
    assert find_near_duplicates(images, splits) == []


@pytest.mark.parametrize("change", COPIES)
def test_a_changed_copy_across_the_split_is_a_leak(images, splits, change):
    changed = [*images, COPIES[change](images[7])]
    (pair,) = find_near_duplicates(changed, np.append(splits, "train"))
    assert (pair.first, pair.second, pair.kind) == (7, 60, "cosine")
    assert pair.cosine > near_duplicates.COSINE
    (leak,) = shared_images(changed, np.append(splits, "train"))
    assert leak.certain
    assert leak.examples == ("rows 7 and 60",)


def test_an_identical_copy_is_called_so_and_one_in_its_own_split_is_none(images, splits):
    (pair,) = find_near_duplicates([*images, images[7].copy()], np.append(splits, "train"))
    assert (pair.first, pair.second, pair.kind) == (7, 60, "identical")
    assert find_near_duplicates([*images, images[7].copy()], np.append(splits, "test")) == []


def test_what_only_the_hash_recognises_is_a_suspicion(images, splits):
    softer = gaussian_filter(images[7], 1)
    (leak,) = shared_images([*images, softer], np.append(splits, "train"))
    assert leak.examples == ("rows 7 and 60",)
    assert not leak.certain
    assert "look at them" in leak.message


def test_the_copies_that_the_report_says_it_misses_are_missed(images, splits):
    # Otherwise the sentence about what is not checked would be wrong.
    shifted = np.roll(images[7], 4, axis=1)
    blurred = gaussian_filter(images[7], 4)
    cropped = images[7][6:-6, 6:-6]
    assert find_near_duplicates([*images, shifted, blurred, cropped], np.append(splits, ["train"] * 3)) == []


def test_three_folds_are_compared_each_with_each_and_in_pieces(images, monkeypatch):
    monkeypatch.setattr(near_duplicates, "_PAIRS_AT_ONCE", 50)
    folds = np.arange(60) % 3
    changed = [*images, 2 * images[0], 2 * images[1], 2 * images[2]]
    found = find_near_duplicates(changed, np.append(folds, [1, 2, 0]))
    assert {(pair.first, pair.second) for pair in found} == {(0, 60), (1, 61), (62, 2)}


def test_pictures_without_contrast_are_only_ever_identical(images, splits):
    flat = [np.full((20, 20), -1000.0), np.full((20, 20), -1000.0), np.full((20, 20), 50.0)]
    found = find_near_duplicates([*images, *flat], np.append(splits, ["test", "train", "train"]))
    assert [(pair.first, pair.second, pair.kind) for pair in found] == [(60, 61, "identical")]


def test_answers_have_length_one_and_do_not_all_point_one_way(images):
    small = np.stack([thumbnail(p) for p in images])
    answers = random_projections(small)
    np.testing.assert_allclose(np.linalg.norm(answers, axis=1), 1)
    np.testing.assert_allclose(random_projections(-small), -answers, atol=1e-12)
    noise = random_projections(np.random.default_rng(0).normal(size=(40, 32, 32)))
    assert abs((noise @ noise.T)[np.triu_indices(40, 1)].mean()) < 0.05
    assert set(np.unique(hash_signs(small))) == {-1, 1}


def test_a_patient_on_both_sides_is_found_however_it_is_written():
    (leak,) = shared_identifiers("patient", ["P1", "p1 ", "P2", "P3"], ["train", "test", "train", "test"])
    assert leak.examples == ("p1: test, train",)
    assert "1 of 3 values of 'patient'" in leak.message
    assert shared_identifiers("patient", ["a", "a", "b"], ["train", "train", "test"]) == []
    with pytest.raises(ValueError, match="2 lesions have no patient, the first in row 1"):
        shared_identifiers("patient", ["a", None, float("nan")], ["train", "train", "test"])


def test_what_was_fitted_on_test_patients_is_found():
    patients, tested = np.array(["a", "a", "b", "c"]), np.array([False, True, False, True])
    (leak,) = fitted_on_test("scaler", np.array([0, 2]), tested, patients)
    assert leak.examples == ("a",)
    assert fitted_on_test("scaler", np.array([2]), tested, patients) == []


def test_the_report_holds_leaks_suspicions_and_what_was_not_checked(images, splits):
    patients, studies = np.arange(60), np.arange(60)
    studies[45] = studies[3]
    clean = check_leaks(splits, identifiers={"patient": patients}, images=images)
    assert clean.as_json()["leaks"] == []
    assert "image" in " ".join(clean.checked)
    assert "Augmentation before the split" in clean.as_json()["not_checked"][0]
    report = check_leaks(
        splits,
        identifiers={"patient": patients, "study": studies},
        images=[*images[:-1], images[0]],
        fitted_on={"SVM": np.arange(20, 60), "temperature": np.arange(10, 60)},
    )
    assert [leak.check for leak in report.leaks] == ["study", "pictures", "fit"]
    assert "temperature" in report.leaks[-1].message
    assert report.suspicions == ()
    assert json.loads(json.dumps(report.as_json())) == report.as_json()


def test_input_that_cannot_be_checked_is_refused(images, splits):
    with pytest.raises(ValueError, match="'patient' is needed"):
        check_leaks(splits, identifiers={"study": splits})
    with pytest.raises(ValueError, match="60 images and 3 splits"):
        find_near_duplicates(images, splits[:3])
    with pytest.raises(ValueError, match=r"image 1 has shape \(2, 3, 4\)"):
        find_near_duplicates([images[0], np.zeros((2, 3, 4))], ["a", "b"])
    with pytest.raises(ValueError, match="image 0 holds NaN"):
        find_near_duplicates([images[0] * np.nan], ["a"])
