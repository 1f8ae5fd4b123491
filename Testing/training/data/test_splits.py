"""Folds and splits: patients whole, classes spread, the same for the same seed, and protocols by name."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lesiontraining.data.dataset import data_fingerprint
from lesiontraining.data.lesions import LesionRow, LesionTable
from lesiontraining.data.splits import (
    NO_FOLD,
    SplitError,
    class_counts,
    column_split,
    crossing_patients,
    divided,
    fold_numbers,
    held_out_split,
    leaky_lesion_split,
    patient_folds,
    patientwise,
    two_random_splits,
)


@pytest.fixture(scope="module")
def who():
    """120 patients with 1 to 4 lesions, three classes, the last rare."""
    rng = np.random.default_rng(0)
    patients, labels = [], []
    for number in range(120):
        kind = 2 if number % 12 == 0 else number % 2
        count = int(rng.integers(1, 5))
        patients += [f"P{number:03d}"] * count
        labels += [kind] * count
    order = rng.permutation(len(patients))
    return {"patients": np.array(patients)[order], "labels": np.array(labels)[order]}


def test_every_fold_has_its_share_of_every_class_and_no_patient_twice(who):
    folds = patient_folds(**who, folds=5, seed=3)
    shares = np.array([[(who["labels"][folds == f] == c).mean() for c in range(3)] for f in range(5)])
    everywhere = np.array([(who["labels"] == c).mean() for c in range(3)])
    assert np.abs(shares - everywhere).max() < 0.04
    assert np.ptp(np.bincount(folds)) <= 6
    assert all(len(set(folds[who["patients"] == p])) == 1 for p in set(who["patients"]))


def test_folds_are_as_even_as_those_of_scikit_learn(who):
    from sklearn.model_selection import StratifiedGroupKFold

    def unevenness(folds):
        counts = np.array([np.bincount(who["labels"][folds == f], minlength=3) for f in range(5)])
        return counts.std(axis=0).sum()

    theirs = np.empty(len(who["labels"]), dtype=int)
    for fold, (_, test) in enumerate(StratifiedGroupKFold(5).split(who["labels"], who["labels"], who["patients"])):
        theirs[test] = fold
    assert unevenness(patient_folds(**who, folds=5)) <= unevenness(theirs)


def test_a_seed_means_the_same_folds_and_another_seed_others(who):
    first, again, other = (patient_folds(**who, folds=4, seed=seed) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).mean() > 0.4


def test_capitals_and_spaces_do_not_make_another_patient():
    patients = ["A1", "a1 ", "B", "b", "C", "D"]
    folds = patient_folds(patients, [0, 0, 1, 1, 0, 1], folds=3)
    assert folds[0] == folds[1]
    assert folds[2] == folds[3]


def test_folds_do_not_depend_on_the_order_of_the_rows(who):
    turned = {name: values[::-1] for name, values in who.items()}
    assert (patient_folds(**turned, folds=4, seed=1)[::-1] == patient_folds(**who, folds=4, seed=1)).all()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(-1, 3)), min_size=1, max_size=60),
    st.integers(2, 6),
    st.integers(0, 5),
)
def test_any_lesions_give_folds_without_crossing_patients_or_a_split_error(lesions, folds, seed):
    patients = np.array([f"P{p}" for p, _ in lesions])
    labels = np.array([label for _, label in lesions])
    if len(set(patients)) < folds:
        with pytest.raises(SplitError):
            patient_folds(patients, labels, folds=folds, seed=seed)
        return
    numbers = patient_folds(patients, labels, folds=folds, seed=seed)
    assert set(numbers) == set(range(folds))
    split = (
        held_out_split(numbers, 0, patients=patients, labels=labels, validation="next" if folds > 2 else 0.3, seed=seed)
        if len(set(patients[numbers != 0])) > 1
        else None
    )
    if split is not None:
        assert crossing_patients(split, patients) == ()
        assert sorted(np.concatenate([split.train, split.val, split.test])) == list(range(len(lesions)))
        assert len(split.train)
        assert len(split.val)


def test_validation_is_a_share_of_the_other_patients_or_the_next_fold(who):
    folds = patient_folds(**who, folds=5)
    share = held_out_split(folds, 4, **who, validation=0.2)
    assert abs(len(share.val) / (len(share.val) + len(share.train)) - 0.2) < 0.03
    following = held_out_split(folds, 4, **who, validation="next")
    assert (following.val == np.flatnonzero(folds == 0)).all()
    assert (following.test == np.flatnonzero(folds == 4)).all()


def test_no_fold_is_held_out_for_the_model_that_ships(who):
    split = held_out_split(patient_folds(**who, folds=5), NO_FOLD, **who, validation=0.1)
    assert len(split.test) == 0
    assert len(split.train) + len(split.val) == len(who["labels"])


@pytest.mark.parametrize("validation", [0, 1.0, -0.2, "half"])
def test_a_share_that_is_none_is_refused(who, validation):
    with pytest.raises(SplitError, match="give a share"):
        held_out_split(patient_folds(**who, folds=5), 0, **who, validation=validation)


def test_the_two_random_splits_are_by_patient_in_the_papers_ratios_and_not_the_same(who):
    first, second = two_random_splits(**who, seed=0)
    count = len(who["labels"])
    for split in (first, second):
        assert crossing_patients(split, who["patients"]) == ()
        sizes = np.array([len(split.train), len(split.val), len(split.test)]) / count
        assert np.abs(sizes - np.array([639, 216, 236]) / 1091).max() < 0.03
    assert len(np.intersect1d(first.test, second.test)) < 0.5 * len(first.test)


def test_the_leaky_split_crosses_patients(who):
    split = leaky_lesion_split(who["labels"], ratios=(3, 1, 1), seed=0)
    assert len(crossing_patients(split, who["patients"])) > 20


def test_the_leaky_protocol_has_the_papers_138_46_and_46_of_230_lesions():
    rows = [LesionRow(i, f"l{i}", f"p{i // 3}", None, label="ab"[i % 2]) for i in range(230)]
    fold = divided(LesionTable(tuple(rows), ("a", "b"), "t"), "leaky_lesion_split", held_out=0, validation=0.1, seed=0)
    assert [len(part) for part in (fold.split.train, fold.split.val, fold.split.test)] == [138, 46, 46]
    assert fold.leaky


def test_a_column_with_a_patient_on_two_sides_is_refused_by_name(who):
    values = np.where(np.arange(len(who["labels"])) % 3 == 0, "test", "train")
    with pytest.raises(SplitError, match="lesions in more than one part of the split .*P0"):
        column_split(values, **who, validation=0.2)


def test_a_column_without_val_gives_a_share_of_its_training_patients(who):
    values = np.where(np.char.find(who["patients"], "9") > 0, "test", "train")
    split = column_split(values, **who, validation=0.25)
    assert (values[split.val] == "train").all()
    assert 0.2 < len(split.val) / (values == "train").sum() < 0.3


def test_names_of_folds_are_numbered_in_natural_order_and_none_may_be_empty():
    numbers, names = fold_numbers(["10", "2", "b", "2", "a"])
    assert names == ("2", "10", "a", "b")
    assert numbers.tolist() == [1, 0, 3, 0, 2]
    with pytest.raises(SplitError, match="empty"):
        fold_numbers(["1", "", "2"])


def test_a_patient_in_two_folds_goes_whole_to_the_lowest():
    folds, moved = patientwise([3, 1, 2, 2], ["a", "a", "b", "c"])
    assert folds.tolist() == [1, 1, 2, 2]
    assert moved == ("a",)


def test_classes_are_counted_in_every_part():
    counts = class_counts(["10", "2", "2", "10"], [0, 1, -1, 0], ("cyst", "metastasis"))
    assert list(counts) == ["2", "10"]
    assert counts["2"] == {"cyst": 0, "metastasis": 1, "not known": 1}


def test_the_fingerprint_sees_labels_and_splits_but_not_the_order():
    ids, labels, splits = ["a", "b"], ["cyst", "cyst"], ["train", "test"]
    same = data_fingerprint(ids[::-1], labels, splits[::-1])
    assert data_fingerprint(ids, labels, splits) == same
    assert data_fingerprint(ids, ["cyst", ""], splits) != same
    assert data_fingerprint(ids, labels, ["train", "val"]) != same
