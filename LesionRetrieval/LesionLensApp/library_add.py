"""``lesionlens library add``: the lesions of a CT into a library, without whose they are."""

from __future__ import annotations

import argparse

from LesionLib.dicom import DicomSeries, series_at
from LesionLib.errors import CaseLibraryError
from LesionRetrievalLib.attribute_lines import attributes_from
from LesionRetrievalLib.case_adding import NewCase, Owner, case_entry, checked_case, new_case_id
from LesionRetrievalLib.library import CaseLibrary
from LesionRetrievalLib.owner_key import owner_key

from .asked_model import AskedModel
from .console import Steps
from .library_lesions import read_identity, read_lesions


def add_lesions(options: argparse.Namespace, model: AskedModel, steps: Steps) -> list[str]:
    """Add every lesion that ``options`` names, all or none; returns their case ids. Raises `LesionLensError`."""
    with CaseLibrary.open(options.library, read_only=False) as library:
        library.require_model(model.described.sha256)
        steps.begin(f"Reading {options.volume.name}")
        series = series_at(options.volume, options.series)
        volume, boxes = read_lesions(options, series)
        owner, cases = _owner(options, series), _cases(options, len(boxes))
        for new in cases:
            checked_case(new, owner)  # before the first is embedded
        lesions = steps.each(list(zip(cases, boxes, strict=True)), f"Embedding {len(boxes)} lesions")
        entries = [case_entry(volume, box, model.embed(volume, box), new=new, owner=owner) for new, box in lesions]
        library.add_many(entries, model_sha256=model.described.sha256)
    return [new.case_id for new in cases]


def _owner(options: argparse.Namespace, series: DicomSeries | None) -> Owner:
    identity = read_identity(options, series)
    if not identity.is_known:
        msg = (
            "The file does not say which patient it is of; give --patient with any identifier that is the same for "
            "all CTs of the patient. Only its hash is stored."
        )
        raise CaseLibraryError(msg)
    return Owner(*identity.hashes(owner_key(options.key)), identifiers=identity.texts)


def _cases(options: argparse.Namespace, count: int) -> list[NewCase]:
    attributes = attributes_from(options.attribute)
    return [
        NewCase(
            case_id=case_id,
            label=options.label,
            label_source=options.label_source,
            organ=options.organ,
            attributes=attributes,
            note=options.note,
            with_pictures=options.pictures,
            with_patch=options.patches,
        )
        for case_id in _case_ids(options.case_id, count)
    ]


def _case_ids(given: str | None, count: int) -> list[str]:
    if given is None:
        return [new_case_id() for _ in range(count)]
    return [given] if count == 1 else [f"{given}-{place}" for place in range(1, count + 1)]
