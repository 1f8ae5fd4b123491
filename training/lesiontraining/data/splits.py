"""Who is learned from and who is measured on: folds and splits that no patient crosses, the same for the same seed.

`divided` is how a recipe asks for its split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from LesionLib.errors import LesionLensError

from lesiontraining.data.lesions import SPLITS, UNKNOWN, LesionTable, natural

DADRN_RATIOS = (639, 216, 236)  # slices of train, validation and test in each of the paper's two sets (papers 1.2)
ORTHOPATCH_RATIOS = (138, 46, 46)  # lesions of train, validation and test (papers 1.3)
NEXT_FOLD = "next"
NO_FOLD = -1


class SplitError(LesionLensError):
    """Lesions cannot be divided as asked."""


@dataclass(frozen=True, eq=False)
class Split:
    """Rows of a table, sorted indices, (row,) each: what is fitted on, what choices are made on, what is measured on once."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray

    def names(self, count: int) -> np.ndarray:
        """ "train", "val", "test" or "" of each of ``count`` rows."""
        names = np.full(count, "", dtype="U5")
        for name in ("train", "val", "test"):
            names[getattr(self, name)] = name
        return names


def patient_folds(patients: Sequence[str], labels: Sequence[int], *, folds: int, seed: int = 0) -> np.ndarray:
    """A fold 0 ... ``folds`` - 1 for each lesion: whole patients, and as much of every class in each fold as can be.

    Raises `SplitError` for fewer patients than folds.
    """
    count = len(np.unique(group_keys(patients)))
    if not 2 <= folds <= count:
        msg = f"{folds} folds of {count} patients: give at least 2 folds, and no more than there are patients."
        raise SplitError(msg)
    return stratified_parts(patients, labels, np.full(folds, 1 / folds), seed=seed)


def stratified_parts(
    groups: Sequence[str], labels: Sequence[int], shares: Sequence[float] | np.ndarray, *, seed: int
) -> np.ndarray:
    """The part of each lesion: whole ``groups``, parts of the size ``shares`` (sum 1), each with its share of every class.

    Greedy: groups in random order, the largest first, each to the part where the sum over classes and parts of
    count² / (share · total²) grows least; that sum is smallest where every part has its share of every class. Uses
    nothing but numpy's seeded generator, so that a seed means the same folds in every version of every library.
    """
    shares = np.asarray(shares, dtype=float)
    names, group = np.unique(group_keys(groups), return_inverse=True)
    _, kind = np.unique(np.asarray(labels), return_inverse=True)
    counts = np.zeros((len(names), kind.max() + 1))
    np.add.at(counts, (group, kind), 1.0)
    total = counts.sum(axis=0)
    shuffled = np.random.default_rng(seed).permutation(len(names))
    order = shuffled[np.argsort(-counts[shuffled].sum(axis=1), kind="stable")]
    count = np.zeros((len(shares), len(total)))
    taken = np.zeros(len(shares))
    part_of = np.zeros(len(names), dtype=int)
    for index, number in enumerate(order):
        growth = ((2 * count + counts[number]) * counts[number] / total**2).sum(axis=1) / shares
        growth += 1e-9 * taken / shares  # equal otherwise: the part with the fewest groups
        left = len(order) - index
        empty = np.flatnonzero(taken == 0)
        part = int(growth.argmin()) if left > len(empty) else int(empty[growth[empty].argmin()])
        part_of[number] = part
        count[part] += counts[number]
        taken[part] += 1
    return part_of[group]


def held_out_split(
    folds: np.ndarray,
    held_out: int,
    *,
    patients: Sequence[str],
    labels: Sequence[int],
    validation: float | str = 0.15,
    seed: int = 0,
) -> Split:
    """Fold ``held_out`` is the test set. ``validation``: a share of the other patients, or "next", the fold that follows.

    ``held_out`` = `NO_FOLD` (-1): there is no test set; for the model that is shipped after it was measured fold by fold.
    """
    folds, known = np.asarray(folds), np.unique(folds)
    if held_out not in known and held_out != NO_FOLD:
        msg = f"there is no fold {held_out}; the folds are {', '.join(map(str, known))}."
        raise SplitError(msg)
    test, rest = np.flatnonzero(folds == held_out), np.flatnonzero(folds != held_out)
    if validation == NEXT_FOLD:
        if len(known) < 3:
            msg = "validation on the next fold needs at least 3 folds; give a share such as 0.15."
            raise SplitError(msg)
        index = 0 if held_out == NO_FOLD else int(np.flatnonzero(known == held_out)[0])
        following = known[(index + 1) % len(known)]
        is_val = folds[rest] == following
    else:
        is_val = validation_rows(rest, patients=patients, labels=labels, validation=validation, seed=seed)
    return _apart(Split(rest[~is_val], rest[is_val], test), patients)


def column_split(
    values: Sequence[str], *, patients: Sequence[str], labels: Sequence[int], validation: float | str, seed: int = 0
) -> Split:
    """As a column with train, val and test says; without "val", a share of the training patients is taken for it."""
    values = np.asarray(values, dtype=str)
    rows = {name: np.flatnonzero(values == name) for name in ("train", "val", "test")}
    if not len(rows["train"]):
        msg = "the column has no row 'train'; there is nothing to learn from."
        raise SplitError(msg)
    if not len(rows["val"]):
        train = rows["train"]
        is_val = validation_rows(train, patients=patients, labels=labels, validation=validation, seed=seed)
        rows |= {"train": train[~is_val], "val": train[is_val]}
    return _apart(Split(**rows), patients)


def typed_split(
    values: Sequence[str], *, patients: Sequence[str], labels: Sequence[int], validation: float | str, seed: int = 0
) -> Split:
    """Where types are known in the official validation and test parts only, as in DeepLesion as it is released.

    Fitted on the labelled lesions of the official validation part (a share of its patients makes the choices), measured on
    those of the official test part, as the authors' code does. ``values``: the official part of each row, (row,). The
    official training part is in none of the three. Raises `SplitError`.
    """
    values, known = np.asarray(values, dtype=str), np.asarray(labels) >= 0
    fitted, test = (np.flatnonzero((values == name) & known) for name in ("val", "test"))
    if not (len(fitted) and len(test)):
        msg = (
            f"the protocol 'typed' fits on labelled lesions of the official validation part and measures on those of the test "
            f"part; there are {len(fitted)} and {len(test)}. Give a table with the column split, or other folds."
        )
        raise SplitError(msg)
    is_val = validation_rows(fitted, patients=patients, labels=labels, validation=validation, seed=seed)
    return _apart(Split(fitted[~is_val], fitted[is_val], test), patients)


def validation_rows(
    rows: np.ndarray, *, patients: Sequence[str], labels: Sequence[int], validation: float | str, seed: int
) -> np.ndarray:
    """Which of ``rows`` are set aside for validation, bool: a share of whole patients, stratified."""
    if isinstance(validation, str) or not 0 < validation < 1:
        msg = f"validation is {validation!r}; give a share of the training patients between 0 and 1, such as 0.15."
        raise SplitError(msg)
    theirs = group_keys(patients)[rows]
    if len(np.unique(theirs)) < 2:
        msg = "there is only one patient to learn from; none can be set aside for validation."
        raise SplitError(msg)
    parts = stratified_parts(theirs, np.asarray(labels)[rows], [1 - validation, validation], seed=seed)
    return parts == 1


def two_random_splits(
    patients: Sequence[str], labels: Sequence[int], *, seed: int = 0, ratios: Sequence[int] = DADRN_RATIOS
) -> tuple[Split, Split]:
    """DADRN's protocol: two independent random splits by patient; what is reported is the mean of the two."""
    return tuple(random_split(patients, labels, ratios=ratios, seed=2 * seed + number) for number in (0, 1))


def random_split(patients: Sequence[str], labels: Sequence[int], *, ratios: Sequence[float], seed: int) -> Split:
    """One random split into train, validation and test by patient, in the ``ratios``, stratified."""
    if len(ratios) != 3 or min(ratios) <= 0 or len(np.unique(patients)) < 3:
        msg = f"ratios {tuple(ratios)}: three positive numbers (train, validation, test) and 3 patients are needed."
        raise SplitError(msg)
    parts = stratified_parts(patients, labels, np.asarray(ratios) / np.sum(ratios), seed=seed)
    return _apart(Split(*(np.flatnonzero(parts == part) for part in range(3))), patients)


def leaky_lesion_split(labels: Sequence[int], *, ratios: Sequence[float], seed: int = 0) -> Split:
    """For the ablation only: lesions of one patient fall on both sides, as in the paper of 1.3. Its figures are too good."""
    lesions = [str(row) for row in range(len(labels))]
    parts = stratified_parts(lesions, labels, np.asarray(ratios) / np.sum(ratios), seed=seed)
    return Split(*(np.flatnonzero(parts == part) for part in range(3)))


def fold_numbers(values: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """A column's names of folds as 0, 1, ... in natural order, and the names. Raises `SplitError` for an empty cell."""
    values = np.asarray(values, dtype=str)
    names = sorted(set(values.tolist()), key=natural)
    if "" in names or len(names) < 2:
        msg = f"the column of the folds has {len(names)} value(s), {(values == '').sum()} cell(s) are empty; fill all, with 2 folds."
        raise SplitError(msg)
    index = {name: number for number, name in enumerate(names)}
    return np.array([index[value] for value in values]), tuple(names)


def patientwise(folds: Sequence[int], patients: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """The folds with every patient whole in the lowest of theirs, and the patients that had to be moved."""
    of: dict[str, set[int]] = {}
    for fold, patient in zip(folds, patients, strict=True):
        of.setdefault(str(patient), set()).add(int(fold))
    moved = tuple(sorted(patient for patient, theirs in of.items() if len(theirs) > 1))
    return np.array([min(of[str(patient)]) for patient in patients]), moved


def cross_validation_folds(table: LesionTable, folds: int | str, *, seed: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """The fold 0, 1, ... of each lesion for a model that is measured on all of them, and the patients that were moved.

    ``folds``: a number (folds by patient, stratified), or a column with names of folds, where a patient that stands in
    several goes whole to the lowest. Raises `SplitError`.
    """
    if isinstance(folds, int):
        return patient_folds(table.patients, table.labels, folds=folds, seed=seed), ()
    numbers, _ = fold_numbers(table.column(folds))
    return patientwise(numbers, table.patients)


def class_counts(parts: Sequence[object], labels: Sequence[int], class_names: Sequence[str]) -> Mapping[str, dict]:
    """Lesions of each class in each part (a fold or a split's name): {part: {class: count}}, unknown ones as "not known"."""
    parts, labels = np.asarray(parts).astype(str), np.asarray(labels)
    found: dict[str, dict[str, int]] = {}
    for part in sorted(set(parts.tolist()), key=natural):
        here = labels[parts == part]
        found[part] = {name: int((here == number).sum()) for number, name in enumerate(class_names)}
        if (here < 0).any():
            found[part]["not known"] = int((here < 0).sum())
    return found


def crossing_patients(split: Split, patients: Sequence[str]) -> tuple[str, ...]:
    """Patients with lesions in more than one part."""
    keys = group_keys(patients)
    written = dict(zip(keys.tolist(), map(str, patients), strict=True))
    train, val, test = (set(keys[rows].tolist()) for rows in (split.train, split.val, split.test))
    return tuple(sorted(written[key] for key in (train & val) | (train & test) | (val & test)))


def group_keys(groups: Sequence[str] | np.ndarray) -> np.ndarray:
    """Identifiers as they are compared: capitals and spaces around them make no difference."""
    return np.array([str(group).strip().casefold() for group in groups])


def _apart(split: Split, patients: Sequence[str]) -> Split:
    crossing = crossing_patients(split, patients)
    if crossing:
        msg = (
            f"{len(crossing)} patient(s) have lesions in more than one part of the split ({', '.join(crossing[:5])}); "
            "give every patient one part, or let the folds be made by patient."
        )
        raise SplitError(msg)
    return split


TWO_RANDOM = "two_random_splits"
LEAKY = "leaky_lesion_split"
TYPED = "typed"
PROTOCOLS = (TWO_RANDOM, LEAKY, TYPED)  # what `divided` knows by name; every other text is a column


@dataclass(frozen=True, eq=False)
class FoldSplit:
    """The split of a recipe. ``folds``: the fold that each lesion is held out in, (n,), `UNKNOWN` for one that never is.

    ``leaky``: made for the ablation.
    """

    split: Split
    folds: np.ndarray
    fold_names: tuple[str, ...]
    leaky: bool = False


def divided(table: LesionTable, folds: int | str, *, held_out: int, validation: float | str, seed: int) -> FoldSplit:
    """How a recipe asks for its split: folds made by patient, a column of the table, or a named protocol.

    The split of a table. Raises `SplitError`.

    ``folds``: a number (folds by patient, stratified); a column with train, val and test; a column with names of folds;
    "two_random_splits" (DADRN: ``held_out`` 0 or 1 chooses); "leaky_lesion_split" (ablation only); "typed" (DeepLesion).
    ``held_out``: the place of the test fold among the folds in natural order, -1: none, all is learned from.
    """
    who = {"patients": table.patients, "labels": table.labels}
    if isinstance(folds, str) and folds.isascii() and folds.isdecimal():
        folds = int(folds)
    if isinstance(folds, int):
        numbers = patient_folds(**who, folds=folds, seed=seed)
        names = tuple(map(str, range(folds)))
        return FoldSplit(held_out_split(numbers, held_out, **who, validation=validation, seed=seed), numbers, names)
    if folds == TWO_RANDOM:
        if held_out not in (0, 1):
            msg = f"held_out is {held_out}; of the two random splits choose 0 or 1."
            raise SplitError(msg)
        return _single(two_random_splits(**who, seed=seed)[held_out], len(table), held_out, ("first", "second"))
    if folds == LEAKY:
        split = leaky_lesion_split(table.labels, ratios=ORTHOPATCH_RATIOS, seed=seed)
        return _single(split, len(table), 0, ("leaky",), leaky=True)
    if folds == TYPED:
        split = typed_split(table.column("split"), **who, validation=validation, seed=seed)
        return _single(split, len(table), 0, ("test",))
    values = table.column(folds)
    if not any(values):
        msg = f"the table has no column {folds!r}, or nothing in it; give a number of folds, or a column of the table."
        raise SplitError(msg)
    if set(values.tolist()) <= set(SPLITS):
        return _single(column_split(values, **who, validation=validation, seed=seed), len(table), 0, ("test",))
    numbers, names = fold_numbers(values)
    return FoldSplit(held_out_split(numbers, held_out, **who, validation=validation, seed=seed), numbers, names)


def _single(split: Split, count: int, number: int, names: tuple[str, ...], *, leaky: bool = False) -> FoldSplit:
    folds = np.full(count, UNKNOWN)
    folds[split.test] = number
    return FoldSplit(split, folds, names, leaky)
