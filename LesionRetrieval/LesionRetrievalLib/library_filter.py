"""Which cases of a library may answer a query: by patient, study, label, organ and attributes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from LesionLib.errors import CaseLibraryError

from .library_schema import Scalar, checked_case_id, checked_hash

Scope = Literal["all", "same-patient", "cross-patient"]
Range = tuple[float | None, float | None]


@dataclass(frozen=True)
class SearchFilter:
    """The filters of a search; all must be met. Malformed ones: `CaseLibraryError`.

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
        """(column, value) pairs whose cases are left out."""
        patients = {self.exclude_patient, self.patient if self.scope == "cross-patient" else None}
        pairs = [("patient_hash", patient) for patient in patients]
        pairs += [("study_hash", self.exclude_study), ("case_id", self.exclude_case)]
        return [(column, value) for column, value in pairs if value is not None]

    def only(self) -> list[tuple[str, str]]:
        """(column, value) pairs to which cases are kept."""
        pairs = [("label", self.label), ("organ", self.organ)]
        pairs += [("patient_hash", self.patient if self.scope == "same-patient" else None)]
        return [(column, value) for column, value in pairs if value is not None]


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
