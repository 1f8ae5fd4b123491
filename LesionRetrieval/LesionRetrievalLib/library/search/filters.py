"""Which cases of a library may answer: by patient, study, label and attributes; what a search leaves out, in words."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from LesionLib.errors import CaseLibraryError

from LesionRetrievalLib.library.cases import Scalar, checked_case_id, checked_hash
from LesionRetrievalLib.library.pseudonyms import forms_of

Scope = Literal["all", "same-patient", "cross-patient"]
Range = tuple[float | None, float | None]


@dataclass(frozen=True)
class SearchFilter:
    """Which cases of a library may answer a query: by patient, study, label, organ and attributes.

    All filters must be met. Malformed ones: `CaseLibraryError`.
    ``scope`` is that of the Lesion Search paper: "all" searches every other lesion, "same-patient" those of ``patient``,
    "cross-patient" those of other patients. ``patient``: the hash of the query's patient. ``exclude_patient``,
    ``exclude_study`` (hashes) and ``exclude_case`` (the query itself, where the library holds it) leave cases out;
    ``label`` and ``organ`` keep only theirs. ``attributes``: name to the value wanted, or to a (low, high) range with
    both ends in, None for an open one; a case without the attribute is left out.
    """

    scope: Scope = "all"
    patient: str | None = None
    exclude_patient: str | None = None
    exclude_study: str | None = None
    exclude_case: str | None = None
    label: str | None = None
    organ: str | None = None
    attributes: Mapping[str, Scalar | Range] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Check every field; a raw identifier would exclude nothing, and nobody would notice."""
        if self.scope not in get_args(Scope):
            msg = f"The scope is {self.scope!r}; give one of {', '.join(get_args(Scope))}."
            raise CaseLibraryError(msg)
        for name in ("patient", "exclude_patient", "exclude_study"):
            if getattr(self, name) is not None:
                checked_hash(getattr(self, name), name)
        if self.scope != "all" and self.patient is None:
            msg = f"A {self.scope} search needs the patient's hash; give patient."
            raise CaseLibraryError(msg)
        if self.exclude_case is not None:
            checked_case_id(self.exclude_case)
        for name in ("label", "organ"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                msg = f"{name} is a {type(value).__name__}; give text, or None for all."
                raise CaseLibraryError(msg)
        object.__setattr__(self, "attributes", _checked_attributes(self.attributes))

    def without(self) -> list[tuple[str, str]]:
        """(column, value) pairs whose cases are left out; of a hash every form that it may have in a library."""
        patients = dict.fromkeys((self.exclude_patient, self.patient if self.scope == "cross-patient" else None))
        pairs = [("patient_hash", patient) for patient in patients]
        pairs += [("study_hash", self.exclude_study), ("case_id", self.exclude_case)]
        return [(column, form) for column, value in pairs if value is not None for form in forms_of(value)]

    def only(self) -> list[tuple[str, tuple[str, ...]]]:
        """(column, values) to one of which cases are kept."""
        pairs = [("label", self.label), ("organ", self.organ)]
        pairs += [("patient_hash", self.patient if self.scope == "same-patient" else None)]
        return [(column, forms_of(value)) for column, value in pairs if value is not None]


def _checked_attributes(attributes: object) -> dict[str, Scalar | Range]:
    if not isinstance(attributes, Mapping) or not all(isinstance(name, str) for name in attributes):
        msg = (
            f"attributes is a {type(attributes).__name__}; give a mapping from name to a value or a (low, high) range."
        )
        raise CaseLibraryError(msg)
    for name, wanted in attributes.items():
        scalars = wanted if isinstance(wanted, tuple) else (wanted,)
        is_range = len(scalars) == 2 and all(s is None or _is_number(s) for s in scalars)
        if isinstance(wanted, tuple) and not is_range:
            msg = f"The range of attribute {name!r} is {wanted!r}; give (low, high) numbers, None for an open end."
            raise CaseLibraryError(msg)
        if not isinstance(wanted, tuple) and not (wanted is None or isinstance(wanted, str | int | float)):
            msg = f"Attribute {name!r} cannot be compared with a {type(wanted).__name__}; give a value or (low, high)."
            raise CaseLibraryError(msg)
    return dict(attributes)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)


@dataclass(frozen=True, eq=False)
class AttributeColumn:
    """One attribute of all cases: a column each, so that a filter by them costs no more than one by label.

    ``by_value`` maps (is a bool, value) to the numbers of the cases that have it, (n,): True == 1 in Python, but a yes is no
    number here. ``numbers`` has shape (cases,), NaN where the case has no number.
    """

    by_value: dict[tuple[bool, Scalar], np.ndarray]
    numbers: np.ndarray

    def meets(self, wanted: Scalar | Range) -> np.ndarray:
        """Bool, shape (cases,): which cases have the value, or lie in the range (both ends in, None for an open one)."""
        if not isinstance(wanted, tuple):
            found = np.zeros(len(self.numbers), bool)
            found[self.by_value.get(_key(wanted), [])] = True
            return found
        low, high = (end if end is not None else sign * np.inf for end, sign in zip(wanted, (-1, 1), strict=True))
        return (self.numbers >= low) & (self.numbers <= high)


def attribute_columns(cases: Sequence[Mapping[str, Scalar]]) -> dict[str, AttributeColumn]:
    """Attribute name -> its column."""
    by_value: dict[str, dict] = defaultdict(lambda: defaultdict(list))
    numbers: dict[str, np.ndarray] = defaultdict(lambda: np.full(len(cases), np.nan))
    for position, attributes in enumerate(cases):
        for name, value in attributes.items():
            by_value[name][_key(value)].append(position)
            if isinstance(value, int | float) and not isinstance(value, bool):
                numbers[name][position] = value
    return {
        name: AttributeColumn({key: np.array(found) for key, found in values.items()}, numbers[name])
        for name, values in by_value.items()
    }


def _key(value: Scalar) -> tuple[bool, Scalar]:
    return isinstance(value, bool), value


class Filtering(ABC):
    """Which rows of an index a filter leaves; a subclass says which have a value in a column, and what attributes there are."""

    @abstractmethod
    def __len__(self) -> int:
        """How many cases."""

    def allowed(self, wanted: SearchFilter) -> np.ndarray:
        """Return the numbers of the rows that the filter leaves, ascending."""
        without, only = wanted.without(), wanted.only()
        if not (without or only or wanted.attributes):
            return self._all_rows
        keep = np.ones(len(self), bool)
        for column, value in without:
            keep[self._rows_with(column, value)] = False
        for column, values in only:
            inside = np.zeros(len(self), bool)
            for value in values:
                inside[self._rows_with(column, value)] = True
            keep &= inside
        for name, value in wanted.attributes.items():
            column = self._columns.get(name)
            keep &= False if column is None else column.meets(value)
        return np.flatnonzero(keep)

    @cached_property
    def _all_rows(self) -> np.ndarray:
        return np.arange(len(self))

    @cached_property
    def _columns(self) -> dict[str, AttributeColumn]:
        return attribute_columns(self._attributes())

    @abstractmethod
    def _rows_with(self, column: str, value: str) -> np.ndarray:
        """The numbers of the rows that have the value in the column, (n,)."""

    @abstractmethod
    def _attributes(self) -> list[Mapping[str, Scalar]]:
        """Those of every case, in the order of the rows."""


@dataclass(frozen=True)
class SearchPlan:
    """What a search leaves out and keeps, and how that is said.

    ``label`` and ``organ``: "" for any. ``leave_out_patient``: no other lesions of the same patient, where it is known.
    """

    scope: Scope = "all"
    label: str = ""
    organ: str = ""
    attributes: Mapping[str, Scalar | Range] = field(default_factory=dict, hash=False)
    leave_out_patient: bool = True

    def filters(self, patient: str | None) -> dict[str, Any]:
        """For `CaseLibrary.search`; ``patient``: the hash of whose lesion it is, None where not known. `CaseLibraryError`."""
        if self.scope != "all" and patient is None:
            msg = (
                f"A search for {'cases of the same patient' if self.scope == 'same-patient' else 'other patients'} needs to "
                "know whose CT this is, and the key that the library was made with."
            )
            raise CaseLibraryError(msg)
        leaves_out = self.leave_out_patient and self.scope == "all"
        return {
            "scope": self.scope,
            "patient": patient if self.scope != "all" else None,
            "exclude_patient": patient if leaves_out else None,
            "label": self.label or None,
            "organ": self.organ or None,
            "attributes": dict(self.attributes),
        }

    def text(self, patient: str | None, *, has_key: bool, has_foreign_key: bool = False) -> str:
        """Whether cases of the same patient are left out, in plain words. ``has_foreign_key``: not that of the library."""
        if self.scope == "same-patient":
            return "Only other lesions of the same patient are searched."
        if self.scope == "all" and not self.leave_out_patient:
            return "Cases of the same patient are not left out."
        if patient is not None:
            return "Cases of the same patient are left out."
        if has_foreign_key:
            reason = "The key on this computer is not the one that this library was made with"
        elif has_key:
            reason = "It is not known whose CT this is"
        else:
            reason = "There is no key to recognise patients by on this computer"
        return f"{reason}: cases of the same patient could not be left out and may be among those found."
