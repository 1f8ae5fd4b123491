"""What a search leaves out and keeps, and how that is said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from LesionLib.errors import CaseLibraryError

from .library_filter import Range, Scope
from .library_schema import Scalar


@dataclass(frozen=True)
class SearchPlan:
    """``label`` and ``organ``: "" for any. ``leave_out_patient``: no other lesions of the same patient, where it is known."""

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

    def words(self, patient: str | None, *, has_key: bool) -> str:
        """Whether cases of the same patient are left out, in plain words."""
        if self.scope == "same-patient":
            return "Only other lesions of the same patient are searched."
        if self.scope == "all" and not self.leave_out_patient:
            return "Cases of the same patient are not left out."
        if patient is not None:
            return "Cases of the same patient are left out."
        if has_key:
            return "It is not known whose CT this is: cases of the same patient could not be left out."
        return "There is no key to recognise patients by on this computer: cases of the same patient could not be left out."
