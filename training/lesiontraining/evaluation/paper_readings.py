"""What the five papers meant by their columns, where their printed numbers allow to tell.

A model is compared with a paper's table only by the same reading of the same column name.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lesiontraining.evaluation.classification import checked_confusion, one_vs_rest, overall


def pooled(confusions: Sequence[np.ndarray]) -> np.ndarray:
    """One confusion matrix of several test folds, added up."""
    if not len(confusions):
        msg = "no confusion matrix was given; give one for each test fold"
        raise ValueError(msg)
    shapes = {np.shape(confusion) for confusion in confusions}
    if len(shapes) > 1:
        msg = f"the folds' confusion matrices differ in shape: {sorted(shapes)}; count all folds over the same classes"
        raise ValueError(msg)
    return np.sum([checked_confusion(confusion) for confusion in confusions], axis=0)


def dmrn_columns(confusions: Sequence[np.ndarray]) -> dict[str, float]:
    """Acc, Sen, Spe, Pre, F1 of DMRN's Tables 2 and 4: folds pooled at study level, then unweighted class means."""
    figures = overall(pooled(confusions))
    return {
        "Acc": figures.accuracy,
        "Sen": figures.macro_sensitivity,
        "Spe": figures.macro_specificity,
        "Pre": figures.macro_precision,
        "F1": figures.macro_f1,
    }


def dmrn_class_columns(confusions: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Sen, Spe, Pre, F1 of DMRN's Table 3, shape (class,) each: one-vs-rest in the pooled confusion."""
    each = one_vs_rest(pooled(confusions))
    return {"Sen": each.sensitivity, "Spe": each.specificity, "Pre": each.precision, "F1": each.f1}


def dadrn_class_accuracy(confusions: Sequence[np.ndarray]) -> np.ndarray:
    """DADRN's class-wise accuracy, shape (class,): the class's recall in each test set, then the mean over the sets."""
    return np.mean([one_vs_rest(confusion).sensitivity for confusion in confusions], axis=0)


def dadrn_columns(confusions: Sequence[np.ndarray]) -> dict[str, float]:
    """Accuracy, F1, Precision and Recall of DADRN, means over the test sets.

    Accuracy is the mean of the five class recalls (true of all seven printed rows). The printed Recall differs from it and
    is defined nowhere; here Recall is what the word says, so the two agree.
    """
    sets = [overall(confusion) for confusion in confusions]
    return {
        "Acc": float(dadrn_class_accuracy(confusions).mean()),
        "F1": float(np.mean([figures.macro_f1 for figures in sets])),
        "Prec": float(np.mean([figures.macro_precision for figures in sets])),
        "Rec": float(np.mean([figures.macro_sensitivity for figures in sets])),
    }


def orthopatch_columns(confusion: np.ndarray) -> dict[str, float]:
    """The columns of the Inception-V3 paper's Table 2 but AUC, from two classes of which the first is "positive".

    The column printed without a name is balanced accuracy, F1 is that of the smaller class. Which class the paper calls
    positive cannot be told from its text: `orthopatch_both_ways` gives the columns for both.
    """
    matrix = checked_confusion(confusion)
    if len(matrix) != 2:
        msg = f"this table is of two classes, not {len(matrix)}"
        raise ValueError(msg)
    figures, each = overall(matrix), one_vs_rest(matrix)
    minority = int(matrix.sum(axis=1).argmin())
    return {
        "Acc": figures.accuracy,
        "BalancedAcc": figures.balanced_accuracy,
        "F1": float(each.f1[minority]),
        "Prec": float(each.precision[0]),
        "Rec": float(each.sensitivity[0]),
        "Spec": float(each.specificity[0]),
    }


def orthopatch_both_ways(confusion: np.ndarray, class_names: Sequence[str]) -> dict[str, dict[str, float]]:
    """The same for both positive classes, by the name of the class that is taken as positive."""
    matrix = checked_confusion(confusion)
    if len(class_names) != 2:
        msg = f"two class names are needed, not {list(class_names)}"
        raise ValueError(msg)
    return {
        class_names[0]: orthopatch_columns(matrix),
        class_names[1]: orthopatch_columns(matrix[::-1, ::-1]),
    }


def lesionsearch_columns(confusion: np.ndarray) -> dict[str, float]:
    """Accuracy and F1 of Lesion Search's Table 1; which mean of F1 is not said: macro first, weighted beside it."""
    figures = overall(confusion)
    return {"Acc": figures.accuracy, "F1": figures.macro_f1, "F1 (weighted)": figures.weighted_f1}
