"""A lesion as a case of a library, without whose it is: every library is made of what `case_entry` gives."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field

import numpy as np
from LesionLib.errors import CaseLibraryError
from LesionLib.geometry import CTVolume, LesionBox
from LesionLib.runner_types import Embedding

from .case_pictures import case_pictures
from .library import CaseLibrary
from .library_identifiers import require_anonymous
from .library_patch import lesion_patch
from .library_schema import Case, CaseEntry, Scalar


@dataclass(frozen=True)
class NewCase:
    """What a person or a table says of a lesion, and what is kept of its CT.

    ``label_source``: how the label was established, as "histology". ``case_id`` "": one is made.
    """

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


def new_case_id() -> str:
    """Never from the name of a box or segment: that may hold anything."""
    return f"case-{secrets.token_hex(4)}"


def checked_case(new: NewCase, owner: Owner) -> Case:
    """The case as it would be stored; `CaseLibraryError` for texts that are missing, too long, or name the patient."""
    case = Case(
        case_id=new.case_id or new_case_id(),
        label=new.label,
        label_source=new.label_source,
        organ=new.organ,
        patient_hash=owner.patient_hash,
        study_hash=owner.study_hash,
        attributes=new.attributes,
        note=new.note,
    )
    return require_anonymous(case, owner.identifiers)


def case_entry(
    volume: CTVolume,
    box: LesionBox,
    vector: np.ndarray,
    *,
    new: NewCase,
    owner: Owner,
    without_patch_if_too_large: bool = False,
) -> CaseEntry:
    """All that a library keeps of a lesion; ``vector``: the model's embedding of it, of shape (dimension,).

    A segment of ``box`` goes into the HU patch. ``without_patch_if_too_large``: keep such a lesion all the same; a reindex
    will name it. Raises `CaseLibraryError`, also for a patch that is too large otherwise, or `BoxError`.
    """
    case = checked_case(new, owner)
    pictures = case_pictures(volume, box) if new.with_pictures else None
    patch = None
    if new.with_patch:
        with suppress(CaseLibraryError) if without_patch_if_too_large else nullcontext():
            patch = lesion_patch(volume, box)
    return CaseEntry(case, vector, pictures, patch)


def add_case(
    library: CaseLibrary, volume: CTVolume, box: LesionBox, embedding: Embedding, *, new: NewCase, owner: Owner
) -> str:
    """Store the lesion with its vector, and pictures and HU patch where asked for; returns the case's id. `LesionLensError`."""
    case, vector, pictures, patch = case_entry(volume, box, embedding.vector, new=new, owner=owner)
    library.add(case, vector, model_sha256=embedding.info.model_sha256, pictures=pictures, patch=patch)
    return case.case_id
