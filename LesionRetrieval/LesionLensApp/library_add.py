"""``lesionlens library add``: the lesions of a CT into a library, without whose they are."""

from __future__ import annotations

import argparse
import secrets
from collections.abc import Iterator

from LesionLib.errors import CaseLibraryError
from LesionLib.geometry import CTVolume, LesionBox
from LesionRetrievalLib.attribute_lines import attributes_from
from LesionRetrievalLib.case_pictures import case_pictures
from LesionRetrievalLib.library import Case, CaseEntry, CaseLibrary
from LesionRetrievalLib.library_identifiers import require_anonymous
from LesionRetrievalLib.library_patch import lesion_patch
from LesionRetrievalLib.owner_key import owner_key

from .asked_model import AskedModel
from .console import Steps
from .library_lesions import read_identity, read_lesions


def add_lesions(options: argparse.Namespace, model: AskedModel, steps: Steps) -> list[str]:
    """Add every lesion that ``options`` names, all or none; returns their case ids. Raises `LesionLensError`."""
    with CaseLibrary.open(options.library, read_only=False) as library:
        library.require_model(model.described.sha256)
        steps.begin(f"Reading {options.volume.name}")
        volume, boxes = read_lesions(options)
        cases = _cases(options, len(boxes))
        lesions = steps.each(list(zip(cases, boxes, strict=True)), f"Embedding {len(boxes)} lesions")
        library.add_many(list(_entries(lesions, volume, model, options)), model_sha256=model.described.sha256)
    return [case.case_id for case in cases]


def _cases(options: argparse.Namespace, count: int) -> list[Case]:
    identity = read_identity(options)
    if not identity.patient:
        msg = (
            "The file does not say which patient it is of; give --patient with any identifier that is the same for "
            "all CTs of the patient. Only its hash is stored."
        )
        raise CaseLibraryError(msg)
    patient, study = identity.hashes(owner_key(options.key))
    attributes = attributes_from(options.attribute)
    return [
        require_anonymous(
            Case(
                case_id=case_id,
                label=options.label,
                label_source=options.label_source,
                organ=options.organ,
                patient_hash=patient,
                study_hash=study,
                attributes=attributes,
                note=options.note,
            ),
            identity.identifiers,
        )
        for case_id in _case_ids(options.case_id, count)
    ]


def _case_ids(given: str | None, count: int) -> list[str]:
    """Never from the names of boxes and segments: those may hold anything."""
    if given is None:
        return [f"case-{secrets.token_hex(4)}" for _ in range(count)]
    return [given] if count == 1 else [f"{given}-{place}" for place in range(1, count + 1)]


def _entries(
    lesions: Iterator[tuple[Case, LesionBox]], volume: CTVolume, model: AskedModel, options: argparse.Namespace
) -> Iterator[CaseEntry]:
    for case, box in lesions:
        pictures = case_pictures(volume, box) if options.pictures else None
        patch = lesion_patch(volume, box) if options.patches else None
        yield CaseEntry(case, model.embed(volume, box), pictures, patch)
