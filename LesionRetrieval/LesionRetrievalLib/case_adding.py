"""One more lesion for a library, without whose it is."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

from LesionLib.geometry import CTVolume, LesionBox
from LesionLib.runner_types import Embedding

from .case_pictures import case_pictures
from .library import CaseLibrary
from .library_identifiers import require_anonymous
from .library_patch import lesion_patch
from .library_schema import Case, Scalar


@dataclass(frozen=True)
class NewCase:
    """What a person says of a lesion. ``label_source``: how the label was established, as "histology"."""

    label: str
    label_source: str
    organ: str = "not stated"
    attributes: Mapping[str, Scalar] = field(default_factory=dict, hash=False)
    note: str = ""
    with_pictures: bool = False
    with_patch: bool = False
    case_id: str = ""


@dataclass(frozen=True)
class Owner:
    """Whose lesion it is, as hashes by the owner's key, and the identifiers that must not stand in its texts."""

    patient_hash: str
    study_hash: str
    identifiers: tuple[str, ...] = field(default=(), repr=False)


def checked_case(new: NewCase, owner: Owner) -> Case:
    """The case as it would be stored; `CaseLibraryError` for texts that are missing, too long, or name the patient."""
    case = Case(
        # Never from the name of a box or segment: that may hold anything.
        case_id=new.case_id or f"case-{secrets.token_hex(4)}",
        label=new.label,
        label_source=new.label_source,
        organ=new.organ,
        patient_hash=owner.patient_hash,
        study_hash=owner.study_hash,
        attributes=new.attributes,
        note=new.note,
    )
    return require_anonymous(case, owner.identifiers)


def add_case(
    library: CaseLibrary, volume: CTVolume, box: LesionBox, embedding: Embedding, *, new: NewCase, owner: Owner
) -> str:
    """Store the lesion with its vector, and pictures and HU patch where asked for; returns the case's id. `LesionLensError`."""
    case = checked_case(new, owner)
    library.add(
        case,
        embedding.vector,
        model_sha256=embedding.info.model_sha256,
        pictures=case_pictures(volume, box) if new.with_pictures else None,
        patch=lesion_patch(volume, box) if new.with_patch else None,
    )
    return case.case_id
