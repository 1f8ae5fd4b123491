"""The papers' printed tables follow from whole-number confusions by the readings of `paper_readings`."""

from __future__ import annotations

import numpy as np
import pytest
from lesiontraining.evaluation.classification import OneVsRest
from lesiontraining.evaluation.paper_readings import (
    dadrn_class_accuracy,
    dadrn_columns,
    dmrn_class_columns,
    dmrn_columns,
    lesionsearch_columns,
    orthopatch_both_ways,
    orthopatch_columns,
    pooled,
)

# DMRN, ACA NAA GN AM PCC: studies of each class, and the printed rows of Table 3 (%), then of Table 2.
STUDIES = np.array([54, 35, 58, 33, 49])
TABLE_3 = {
    "VGG-19": {
        "Sen": [79.63, 88.57, 70.69, 90.91, 77.55],
        "Spe": [94.29, 91.75, 95.32, 99.49, 93.89],
        "Pre": [81.13, 65.96, 83.67, 96.77, 77.55],
        "F1": [80.37, 75.61, 76.64, 93.75, 77.55],
    },
    "ResNet-101": {
        "Sen": [90.74, 80.00, 79.31, 90.91, 71.43],
        "Spe": [92.57, 95.88, 90.06, 100, 98.33],
        "Pre": [79.03, 77.78, 73.02, 100, 92.11],
        "F1": [84.48, 78.87, 76.03, 95.24, 80.46],
    },
    "SDL": {
        "Sen": [83.33, 88.57, 77.59, 96.97, 83.67],
        "Spe": [95.43, 93.81, 95.91, 99.49, 96.11],
        "Pre": [84.91, 72.09, 86.54, 96.97, 85.42],
        "F1": [84.11, 79.49, 81.82, 96.97, 84.54],
    },
    "DMRN": {
        "Sen": [92.59, 94.29, 81.03, 100, 85.71],
        "Spe": [96.57, 94.33, 98.83, 100, 97.22],
        "Pre": [89.29, 75.00, 95.92, 100, 89.36],
        "F1": [90.91, 83.54, 87.85, 100, 87.50],
    },
}
TABLE_2 = {  # DMRN's Spe is printed as 97.34; its classes' mean is 97.39
    "VGG-19": {"Acc": 79.91, "Sen": 81.47, "Spe": 94.95, "Pre": 81.02, "F1": 80.78},
    "ResNet-101": {"Acc": 82.10, "Sen": 82.48, "Spe": 95.37, "Pre": 84.39, "F1": 83.02},
    "SDL": {"Acc": 84.72, "Sen": 86.03, "Spe": 96.15, "Pre": 85.18, "F1": 85.38},
    "DMRN": {"Acc": 89.52, "Sen": 90.73, "Spe": 97.39, "Pre": 89.91, "F1": 89.96},
}
# DADRN, Normal CYST FNH HCC HEM, and overall accuracy.
DADRN = {
    "DRN50": ([0.9788, 0.9327, 0.7596, 0.8427, 0.5278], 0.8083),
    "SEResnet50": ([0.9334, 0.9327, 0.7788, 0.9116, 0.5917], 0.8296),
    "RAResnet50": ([0.9675, 0.9182, 0.7596, 0.8227, 0.5556], 0.8047),
    "SADRN50-A": ([0.9577, 0.9096, 0.8132, 0.8816, 0.6625], 0.8449),
    "CADRN50-A": ([0.9675, 0.9551, 0.8530, 0.9016, 0.6181], 0.8591),
    "DADRN50-A": ([0.9690, 0.9451, 0.7802, 0.8024, 0.7069], 0.8407),
    "DADRN50-B": ([0.9804, 0.9551, 0.8159, 0.9116, 0.6819], 0.8690),
}
# Inception-V3: TP FN FP TN, then accuracy, balanced accuracy, F1 of the smaller class, precision, recall, specificity.
ORTHOPATCH = {
    "IRv2 NPW": ([29, 3, 3, 11], [0.870, 0.846, 0.786, 0.906, 0.906, 0.786]),
    "IRv2 IPW": ([28, 4, 1, 13], [0.891, 0.902, 0.839, 0.966, 0.875, 0.929]),
    "IV3 NPW": ([26, 6, 0, 14], [0.870, 0.906, 0.824, 1.00, 0.812, 1.00]),
    "proposed": ([32, 0, 2, 12], [0.957, 0.929, 0.923, 0.941, 1.00, 0.857]),
}


def _counts_behind(row) -> tuple[np.ndarray, np.ndarray]:
    """True and false positives of each class, the whole numbers nearest to printed sensitivity and specificity."""
    others = STUDIES.sum() - STUDIES
    tp = np.rint(np.array(row["Sen"]) / 100 * STUDIES).astype(int)
    return tp, np.rint((1 - np.array(row["Spe"]) / 100) * others).astype(int)


def _dealt_out(tp, fp) -> np.ndarray:
    """A confusion with these counts: which class a wrong answer belongs to is not printed and changes no figure."""
    confusion, missing, wrongly = np.diag(tp), STUDIES - tp, fp.copy()
    for truth in np.argsort(-missing, kind="stable"):
        for called in np.argsort(-wrongly, kind="stable"):
            if called != truth:
                moved = min(missing[truth], wrongly[called])
                confusion[truth, called] += moved
                missing[truth] -= moved
                wrongly[called] -= moved
    assert not missing.any()
    assert not wrongly.any()
    return confusion


@pytest.mark.parametrize("method", TABLE_3)
def test_dmrn_table_3_is_one_whole_number_confusion_and_table_2_its_macro_means(method):
    tp, fp = _counts_behind(TABLE_3[method])
    assert tp.sum() + fp.sum() == STUDIES.sum()  # each of the 229 studies is called one class
    fn = STUDIES - tp
    each = OneVsRest(tp, fn, fp, STUDIES.sum() - tp - fn - fp)
    columns = {"Sen": each.sensitivity, "Spe": each.specificity, "Pre": each.precision, "F1": each.f1}
    for name, values in columns.items():
        np.testing.assert_allclose(100 * values, TABLE_3[method][name], atol=0.0051, err_msg=name)
        assert 100 * values.mean() == pytest.approx(TABLE_2[method][name], abs=0.0051), name
    assert 100 * tp.sum() / STUDIES.sum() == pytest.approx(TABLE_2[method]["Acc"], abs=0.0051)


def test_dmrn_columns_of_a_confusion_pooled_over_folds_are_the_printed_ones():
    tp, fp = _counts_behind(TABLE_3["DMRN"])
    assert tp.tolist() == [50, 33, 47, 33, 42]
    assert fp.tolist() == [6, 11, 2, 0, 5]
    whole = _dealt_out(tp, fp)
    fold = whole // 5
    folds = [fold, fold, fold, fold, whole - 4 * fold]
    np.testing.assert_array_equal(pooled(folds), whole)
    for name, value in dmrn_columns(folds).items():
        assert 100 * value == pytest.approx(TABLE_2["DMRN"][name], abs=0.0051), name
    for name, values in dmrn_class_columns(folds).items():
        np.testing.assert_allclose(100 * values, TABLE_3["DMRN"][name], atol=0.0051)


@pytest.mark.parametrize("method", DADRN)
def test_dadrn_accuracy_is_the_mean_of_its_class_accuracies(method):
    of_class, printed = DADRN[method]
    right = np.rint(np.array(of_class) * 10000).astype(int)
    confusion = np.diag(right) + np.roll(np.diag(10000 - right), 1, axis=1)
    assert dadrn_columns([confusion, confusion])["Acc"] == pytest.approx(printed, abs=0.00011)


def _two_sets(sizes, hits):
    return [np.array([[k, n - k], [0, 1]]) for n, k in zip(sizes, hits, strict=True)]


@pytest.mark.parametrize("method", DADRN)
@pytest.mark.parametrize(("place", "sizes"), [(0, (51, 44)), (2, (26, 28)), (3, (50, 51))])
def test_dadrn_class_accuracy_is_the_mean_of_the_recalls_in_both_test_sets(method, place, sizes):
    printed = DADRN[method][0][place]
    first, second = np.meshgrid(*(np.arange(n + 1) for n in sizes), indexing="ij")
    off = np.abs((first / sizes[0] + second / sizes[1]) / 2 - printed)
    hits = np.unravel_index(off.argmin(), off.shape)
    assert dadrn_class_accuracy(_two_sets(sizes, hits))[0] == pytest.approx(printed, abs=0.00005 + 1e-9)


def test_dadrn_columns_are_means_over_the_sets_and_not_of_the_pooled_lesions():
    sets = [np.array([[9, 1], [0, 2]]), np.array([[1, 1], [10, 10]])]
    columns = dadrn_columns(sets)
    assert columns["Acc"] == pytest.approx((0.9 + 0.5 + 1 + 0.5) / 4) == columns["Rec"]
    assert columns["Prec"] == pytest.approx((1 + 2 / 3 + 1 / 11 + 10 / 11) / 4)
    assert columns["F1"] == pytest.approx((18 / 19 + 4 / 5 + 2 / 13 + 20 / 31) / 4)


@pytest.mark.parametrize("row", ORTHOPATCH)
def test_the_rows_of_the_inception_table_are_confusions_of_32_and_14_lesions(row):
    (tp, fn, fp, tn), printed = ORTHOPATCH[row]
    columns = orthopatch_columns(np.array([[tp, fn], [fp, tn]]))
    assert list(columns) == ["Acc", "BalancedAcc", "F1", "Prec", "Rec", "Spec"]
    np.testing.assert_allclose(list(columns.values()), printed, atol=0.00055)


def test_the_other_positive_class_exchanges_recall_with_specificity_and_keeps_the_rest():
    both = orthopatch_both_ways(np.array([[32, 0], [2, 12]]), ["metastasis", "cyst"])
    one, other = both["metastasis"], both["cyst"]
    assert (one["Rec"], one["Spec"]) == (other["Spec"], other["Rec"])
    assert [one[name] for name in ("Acc", "BalancedAcc", "F1")] == [
        other[name] for name in ("Acc", "BalancedAcc", "F1")
    ]
    assert other["Prec"] == 1.0


def test_lesion_search_prints_both_means_of_f1():
    columns = lesionsearch_columns(np.array([[8, 2], [1, 1]]))
    assert columns["Acc"] == pytest.approx(9 / 12)
    assert columns["F1"] == pytest.approx((16 / 19 + 2 / 5) / 2)
    assert columns["F1 (weighted)"] == pytest.approx((10 * 16 / 19 + 2 * 2 / 5) / 12)


def test_folds_over_different_classes_are_not_pooled():
    with pytest.raises(ValueError, match="differ in shape"):
        pooled([np.eye(2, dtype=int), np.eye(3, dtype=int)])
    with pytest.raises(ValueError, match="no confusion"):
        pooled([])
    with pytest.raises(ValueError, match="of two classes, not 3"):
        orthopatch_columns(np.eye(3, dtype=int))
