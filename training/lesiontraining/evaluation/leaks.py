"""What would make the figures too good: the same patient, study or picture on both sides of a split, fits on test data.

A *leak* is certain and fails the run; a *suspicion* is to be looked at. What no table and no picture can show is said, too
(`NOT_CHECKED`), so that an empty list of leaks isn't read as more than it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .near_duplicates import find_near_duplicates

_AUGMENTATION = (
    "Augmentation before the split: only the recipe can promise that it split first and then augmented the training part. "
    "Mirrored and quarter-turned copies are recognised; those shifted, cropped, turned otherwise or blurred are not."
)
NOT_CHECKED = (
    _AUGMENTATION,
    "Choice of a model, an epoch or a threshold by its figures on the test data leaves no trace in a table.",
    "Patients under two identifiers, and lesions of test patients in a public pretraining set.",
)
_EXAMPLES = 10


@dataclass(frozen=True)
class Leak:
    """One finding: by which ``check``, in words, with some ``examples``; not ``certain``: a suspicion."""

    check: str
    message: str
    examples: tuple[str, ...] = ()
    certain: bool = True

    def as_json(self) -> dict[str, object]:
        """For metrics.json."""
        return {"check": self.check, "message": self.message, "examples": list(self.examples)}


@dataclass(frozen=True)
class LeakReport:
    """All findings and which checks were made."""

    findings: tuple[Leak, ...]
    checked: tuple[str, ...]

    @property
    def leaks(self) -> tuple[Leak, ...]:
        """What is certain."""
        return tuple(finding for finding in self.findings if finding.certain)

    @property
    def suspicions(self) -> tuple[Leak, ...]:
        """What somebody should look at."""
        return tuple(finding for finding in self.findings if not finding.certain)

    def as_json(self) -> dict[str, object]:
        """The part of metrics.json: ``"leaks": []`` where there is none."""
        return {
            "leaks": [leak.as_json() for leak in self.leaks],
            "suspicions": [leak.as_json() for leak in self.suspicions],
            "checked": list(self.checked),
            "not_checked": list(NOT_CHECKED),
        }


def check_leaks(
    splits: Sequence[object] | np.ndarray,
    *,
    identifiers: Mapping[str, Sequence[object] | np.ndarray],
    pictures: Sequence[np.ndarray] | np.ndarray | None = None,
    fitted_on: Mapping[str, np.ndarray] | None = None,
    test: object = "test",
) -> LeakReport:
    """All checks for which there is something to check.

    ``splits``: "train", "validation", "test" or the fold's number, (lesion,). ``identifiers``: columns whose values must
    not be on two sides, at least "patient"; also "study", "series" or "file". ``pictures``: one 2-D array a lesion.
    ``fitted_on``: for each thing that was fitted ("SVM", "scaler", "threshold", "temperature") the rows it saw; it must
    not have seen a patient of the split called ``test``.
    """
    if "patient" not in identifiers:
        msg = f"identifiers has {', '.join(identifiers) or 'nothing'}; the column 'patient' is needed"
        raise ValueError(msg)
    findings: list[Leak] = []
    for name, values in identifiers.items():
        findings += shared_identifiers(name, values, splits)
    checked = [f"{name} on both sides of a split" for name in identifiers]
    if pictures is not None:
        findings += shared_pictures(pictures, splits)
        checked.append("identical and near-identical pictures on both sides of a split")
    for name, rows in (fitted_on or {}).items():
        findings += fitted_on_test(name, rows, np.asarray(splits) == test, identifiers["patient"])
        checked.append(f"{name} fitted without test patients")
    return LeakReport(tuple(findings), tuple(checked))


def shared_identifiers(
    name: str, values: Sequence[object] | np.ndarray, splits: Sequence[object] | np.ndarray
) -> list[Leak]:
    """Values on both sides of a split; spaces around them and capitals make no difference."""
    keys = _keys(name, values)
    if len(keys) != len(splits):
        msg = f"{len(keys)} values of {name!r} and {len(splits)} splits were given; one of each a lesion is needed"
        raise ValueError(msg)
    seen: dict[str, set[str]] = {}
    for key, split in zip(keys, splits, strict=True):
        seen.setdefault(key, set()).add(str(split))
    shared = {key: sorted(sides) for key, sides in seen.items() if len(sides) > 1}
    if not shared:
        return []
    examples = tuple(f"{key}: {', '.join(sides)}" for key, sides in sorted(shared.items())[:_EXAMPLES])
    return [Leak(name, f"{len(shared)} of {len(seen)} values of {name!r} are in several splits", examples)]


def shared_pictures(pictures: Sequence[np.ndarray] | np.ndarray, splits: Sequence[object] | np.ndarray) -> list[Leak]:
    """Identical and near-identical pictures across splits, mirrored and quarter-turned ones too; see `near_duplicates`."""
    found = find_near_duplicates(pictures, splits)
    words = {
        "identical": "are identical to one of another split",
        "cosine": "are near-identical to one of another split (random network, cosine above .999)",
        "hash": "look much like one of another split (perceptual hash); look at them",
    }
    leaks = []
    for kind, says in words.items():
        pairs = [pair for pair in found if pair.kind == kind]
        if pairs:
            examples = tuple(f"rows {pair.first} and {pair.second}" for pair in pairs[:_EXAMPLES])
            leaks.append(Leak("pictures", f"{len(pairs)} pictures {says}", examples, certain=kind != "hash"))
    return leaks


def fitted_on_test(
    name: str, rows: np.ndarray, tested: np.ndarray, patients: Sequence[object] | np.ndarray
) -> list[Leak]:
    """Whether what was fitted on ``rows`` saw a patient of the test lesions (``tested``: bool, (lesion,))."""
    keys = np.array(_keys("patient", patients))
    both = sorted(set(keys[np.asarray(rows, dtype=int)]) & set(keys[np.asarray(tested, dtype=bool)]))
    if not both:
        return []
    return [Leak("fit", f"the {name} was fitted on lesions of {len(both)} test patients", tuple(both[:_EXAMPLES]))]


def _keys(name: str, values: Sequence[object] | np.ndarray) -> list[str]:
    keys = ["" if value is None or value != value else str(value).strip().casefold() for value in values]  # noqa: PLR0124
    if "" in keys:
        msg = f"{keys.count('')} lesions have no {name}, the first in row {keys.index('')}; they cannot be checked"
        raise ValueError(msg)
    return keys
