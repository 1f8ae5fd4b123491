"""How a recipe asks for its split: folds made by patient, a column of the table, or a named protocol."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .lesion_row import SPLITS, LesionTable
from .picture_set import UNKNOWN
from .splits import (
    DADRN_RATIOS,
    Split,
    SplitError,
    column_split,
    fold_numbers,
    held_out_split,
    leaky_lesion_split,
    patient_folds,
    two_random_splits,
)

TWO_RANDOM = "two_random_splits"
LEAKY = "leaky_lesion_split"


@dataclass(frozen=True, eq=False)
class Division:
    """``folds``: the fold that each lesion is held out in, `UNKNOWN` for one that never is. ``leaky``: made for the ablation."""

    split: Split
    folds: np.ndarray
    fold_names: tuple[str, ...]
    leaky: bool = False


def divided(table: LesionTable, folds: int | str, *, held_out: int, validation: float | str, seed: int) -> Division:
    """The split of a table. Raises `SplitError`.

    ``folds``: a number (folds by patient, stratified); a column with train, val and test; a column with names of folds;
    "two_random_splits" (DADRN: ``held_out`` 0 or 1 chooses); "leaky_lesion_split" (ablation only).
    ``held_out``: the place of the test fold among the folds in natural order, -1: none, all is learned from.
    """
    who = {"patients": table.patients, "labels": table.labels}
    if isinstance(folds, str) and folds.isascii() and folds.isdecimal():
        folds = int(folds)
    if isinstance(folds, int):
        numbers = patient_folds(**who, folds=folds, seed=seed)
        names = tuple(map(str, range(folds)))
        return Division(held_out_split(numbers, held_out, **who, validation=validation, seed=seed), numbers, names)
    if folds == TWO_RANDOM:
        if held_out not in (0, 1):
            msg = f"held_out is {held_out}; of the two random splits choose 0 or 1."
            raise SplitError(msg)
        return _single(two_random_splits(**who, seed=seed)[held_out], len(table), held_out, ("first", "second"))
    if folds == LEAKY:
        split = leaky_lesion_split(table.labels, ratios=DADRN_RATIOS, seed=seed)
        return _single(split, len(table), 0, ("leaky",), leaky=True)
    values = table.column(folds)
    if not any(values):
        msg = f"the table has no column {folds!r}, or nothing in it; give a number of folds, or a column of the table."
        raise SplitError(msg)
    if set(values.tolist()) <= set(SPLITS):
        return _single(column_split(values, **who, validation=validation, seed=seed), len(table), 0, ("test",))
    numbers, names = fold_numbers(values)
    return Division(held_out_split(numbers, held_out, **who, validation=validation, seed=seed), numbers, names)


def _single(split: Split, count: int, number: int, names: tuple[str, ...], *, leaky: bool = False) -> Division:
    folds = np.full(count, UNKNOWN)
    folds[split.test] = number
    return Division(split, folds, names, leaky)
