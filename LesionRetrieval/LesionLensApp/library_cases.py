"""Lesions into a case library: those of one CT, or a folder of lesions with known answers."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import pydicom
from LesionLib.errors import BoxError, CaseLibraryError, OutputError
from LesionLib.geometry import CTVolume, LesionBox, require_overlap
from LesionLib.io.boxes import CaseRow, CaseTableError, read_case_table
from LesionLib.io.volumes import DicomSeries, read_ct, series_at
from LesionRetrievalLib.library.attributes import attributes_from
from LesionRetrievalLib.library.cases import CaseEntry, ModelIdentity
from LesionRetrievalLib.library.intake import (
    IDENTIFYING_ELEMENTS,
    PATIENT_COLUMN,
    NewCase,
    Owner,
    PatientIdentity,
    attributes_of,
    case_entry,
    checked_case,
    label_column,
    label_of,
    new_case_id,
    require_clear_labels,
)
from LesionRetrievalLib.library.pseudonyms import Pseudonymiser, owner_key
from LesionRetrievalLib.library.store import CaseLibrary, write_library

from LesionLensApp.loaded_model import AskedModel
from LesionLensApp.output import Steps
from LesionLensApp.reading import is_table, read_masks, warnings_of_box


@dataclass(frozen=True)
class LibraryPlan:
    """What goes into a library besides the vectors. ``label_column`` None: ``label`` or ``malignant``."""

    label_column: str | None = None
    label_source: str | None = None
    organ: str = "not stated"
    with_pictures: bool = False
    with_patches: bool = False


def build_library(
    folder: Path,
    model: AskedModel,
    out: Path,
    *,
    plan: LibraryPlan,
    key_path: Path,
    steps: Steps,
    overwrite: bool = False,
) -> int:
    """``lesionlens library build``: a case library from a folder of lesions with known answers.

    Embed every case of ``folder`` and write the library to ``out``; returns how many cases it holds. The file appears when it
    is whole. Raises `CaseTableError`, `CaseLibraryError` or `OutputError`.
    """
    if out.exists() and not overwrite:
        msg = f"{out} exists; give another name, or --overwrite to replace the library."
        raise OutputError(msg)
    if out.exists():
        CaseLibrary.open(out).close()  # only a library is ever overwritten
    rows = read_case_table(folder, columns=[PATIENT_COLUMN])
    column = label_column(rows[0], plan.label_column)
    require_clear_labels(rows, column, model.described.class_names)
    nobody = next((row for row in rows if not row.values[PATIENT_COLUMN]), None)
    if nobody is not None:
        msg = f"{nobody.where}: {PATIENT_COLUMN} is empty; give any identifier that is the same for all CTs of the patient."
        raise CaseTableError(msg)
    key = owner_key(key_path)
    entries = (_entry(row, place, column, model, plan, key, steps) for place, row in enumerate(rows, start=1))
    who = model.described
    shown = steps.each(entries, f"Embedding {len(rows)} cases with {who.name} {who.version}", total=len(rows))
    return write_library(out, ModelIdentity.of_model(who), shown)


def _entry(
    row: CaseRow, place: int, column: str, model: AskedModel, plan: LibraryPlan, key: Pseudonymiser, steps: Steps
) -> CaseEntry:
    volume, box, _ = row.load()
    odd = (*volume.warnings, *warnings_of_box(volume, box, from_table=False))
    steps.warn(f"{row.where}: {warning}" for warning in odd)
    patient = row.values[PATIENT_COLUMN]
    new = NewCase(
        case_id=f"case-{place:05d}",
        label=label_of(row, column, model.described.class_names),
        label_source=plan.label_source or f"table of the collection, column {column}",
        organ=plan.organ,
        attributes=attributes_of(row, column),
        with_pictures=plan.with_pictures,
        with_patch=plan.with_patches,
    )
    owner = Owner(*key.hashes(patient, row.values.get("study_id")))
    return case_entry(volume, box, model.embed(volume, box), new=new, owner=owner, without_patch_if_too_large=True)


def read_lesions(
    options: argparse.Namespace, series: DicomSeries | None, steps: Steps
) -> tuple[CTVolume, list[LesionBox]]:
    """The lesions of a CT for a case library: the volume and the boxes that the options name; whose they are: `read_identity`.

    ``series``: that of `options.volume`, None for an image file. Raises `LesionLensError` for bad input.
    """
    if not 0 <= options.margin_mm <= 100:
        msg = f"--margin-mm is {options.margin_mm:g}; give 0 to 100 mm."
        raise BoxError(msg)
    volume = read_ct(options.volume, series=series or options.series, nifti_transform=options.nifti_transform)
    if options.segmentation:
        from LesionLib.io.boxes import segment_boxes

        masks, warnings = read_masks(options, series)
        steps.warn((*volume.warnings, *warnings))
        boxes = segment_boxes(masks, margin_mm=options.margin_mm)
    else:
        boxes = _boxes(options.boxes)
        steps.warn(volume.warnings)
    for box in boxes:
        require_overlap(volume, box)
        steps.warn(warnings_of_box(volume, box, from_table=is_table(options.boxes)))
    return volume, boxes


def read_identity(options: argparse.Namespace, series: DicomSeries | None) -> PatientIdentity:
    """From the DICOM header, or from --patient and --study where there is none. `CaseLibraryError` where both differ."""
    known = PatientIdentity.of_elements(_header_values(series.files[0])) if series is not None else PatientIdentity()
    patient = _one(known.patient, options.patient, "--patient")
    study = _one(known.study, options.study, "--study")
    typed = [value for value in (options.patient, options.study) if value]
    return PatientIdentity(patient, study, (*known.texts, *typed))


def _boxes(path: Path) -> list[LesionBox]:
    if path.suffix.lower() == ".csv":
        from LesionLib.io.boxes import read_boxes_csv

        return read_boxes_csv(path)
    from LesionClassifierLib.headless import startHeadlessSlicer
    from LesionClassifierLib.scene.lesions import boxFromRoi

    from LesionLensApp.classify import addBoxes

    scene = startHeadlessSlicer().scene
    scene.Clear(False)
    return [boxFromRoi(node) for node in addBoxes(scene, path)]


def _header_values(path: Path) -> dict[str, list[str]]:
    data = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(IDENTIFYING_ELEMENTS))
    found = {}
    for name in IDENTIFYING_ELEMENTS:
        value = data.get(name)
        several = value if isinstance(value, pydicom.multival.MultiValue) else [value]
        found[name] = [str(one) for one in several if one is not None]
    return found


def _one(in_header: str, given: str | None, option: str) -> str:
    if in_header and given and given.strip() != in_header:
        msg = f"{option} is another than the file's own; leave the option out, or check that this is the right CT."
        raise CaseLibraryError(msg)
    return in_header or given or ""


def add_lesions(options: argparse.Namespace, model: AskedModel, steps: Steps) -> list[str]:
    """``lesionlens library add``: the lesions of a CT into a library, without whose they are.

    Add every lesion that ``options`` names, all or none; returns their case ids. Raises `LesionLensError`.
    """
    with CaseLibrary.open(options.library, read_only=False) as library:
        library.require_model(model.described.sha256)
        steps.begin(f"Reading {options.volume.name}")
        series = series_at(options.volume, options.series)
        volume, boxes = read_lesions(options, series, steps)
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
