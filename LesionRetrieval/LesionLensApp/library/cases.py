"""Lesions into a case library: those of one CT, or a folder of lesions with known answers."""

from __future__ import annotations

import argparse
import json
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import pydicom
from LesionLib import __version__
from LesionLib.errors import BoxError, CaseLibraryError, InputWarning, OutputError, WarningName
from LesionLib.geometry import CTVolume, LesionBox, require_overlap
from LesionLib.inference.messages import Embedding, ModelDescription
from LesionLib.io.boxes import CaseRow, CaseTableError, FrameSource, read_case_table
from LesionLib.io.volumes import DicomSeries, read_ct, series_at
from LesionLib.model.folder import segment_margin_of
from LesionRetrievalLib.libraries import open_store
from LesionRetrievalLib.library.attributes import attributes_from
from LesionRetrievalLib.library.cases import CREDIT_PROPERTY, CaseEntry, CaseStore, ModelIdentity, indexed_as
from LesionRetrievalLib.library.duplicates import require_new
from LesionRetrievalLib.library.intake import (
    IDENTIFYING_ELEMENTS,
    KIND_COLUMN,
    PATIENT_COLUMN,
    READERS_SOURCE,
    NewCase,
    Owner,
    PatientIdentity,
    attributes_of,
    case_entry,
    checked_case,
    columns_left_out,
    identifiers_of,
    label_column,
    label_of,
    library_margin_mm,
    new_case_id,
    predicted_by,
    rated_rows,
    require_clear_labels,
    require_columns,
    require_margin,
    require_no_burned_in_text,
)
from LesionRetrievalLib.library.ownership import (
    KEY_PROPERTY,
    UNKNOWN_KEY,
    key_for_adding,
    key_of,
    properties_to_note,
    stored_form,
)
from LesionRetrievalLib.library.patches import LUNG_WINDOW_HU
from LesionRetrievalLib.library.pseudonyms import Pseudonymiser, pseudonymisation_key
from LesionRetrievalLib.library.store import CaseLibrary

from LesionLensApp.library.building import digest_of_files, started_build
from LesionLensApp.loaded_model import ModelSession
from LesionLensApp.output import Steps
from LesionLensApp.reading import frame_source, read_masks, warnings_of_box


@dataclass(frozen=True)
class LibraryPlan:
    """What goes into a library besides the vectors. ``label_column`` None: ``label`` or ``malignant``.

    ``keep``: columns of the table that are kept with the cases; ``credit``: whom to name, kept in the library. ``readers``: the
    folder with what readers of LIDC-IDRI said; then the answers are the kind that most of them saw. ``without_unlabelled``: leave
    out rows without an answer, where the table is refused otherwise. ``window_hu``: black and white of the thumbnails.
    """

    label_column: str | None = None
    label_source: str | None = None
    organ: str = "not stated"
    with_thumbnails: bool = False
    with_patches: bool = False
    keep: tuple[str, ...] = ()
    credit: str = ""
    readers: Path | None = None
    without_unlabelled: bool = False
    window_hu: tuple[float, float] = LUNG_WINDOW_HU


def require_free(out: Path, *, overwrite: bool) -> None:
    """Refuse to write a library over what is there. Raises `OutputError`, or `CaseLibraryError` for what is no library."""
    if out.exists() and not overwrite:
        msg = f"{out} exists; give another name, or --overwrite to replace the library."
        raise OutputError(msg)
    if out.exists():
        CaseLibrary.open(out).close()  # only a library is ever overwritten


@dataclass(frozen=True)
class Built:
    """``cases``: how many the library holds. ``left_out``: columns of the table. ``repeats``: (case, the earlier same one).

    ``unlabelled``: how many rows were left out for want of an answer.
    """

    cases: int
    left_out: tuple[str, ...]
    repeats: tuple[tuple[str, str], ...]
    unlabelled: int = 0


def build_library(
    folder: Path,
    model: ModelSession,
    out: Path,
    *,
    plan: LibraryPlan,
    key_path: Path,
    steps: Steps,
    overwrite: bool = False,
    by: str = "",
) -> Built:
    """``lesionlens library build``: a case library from a folder of lesions with known answers.

    Embed every case of ``folder`` and write the library to ``out``. The file appears when it is whole; a lesion that comes a
    second time is left out. Broken off, it goes on with the next call: see `building`. ``by``: the code of who builds it. Raises
    `CaseTableError`, `CaseLibraryError` or `OutputError`.
    """
    require_free(out, overwrite=overwrite)
    if not plan.window_hu[0] < plan.window_hu[1]:
        msg = f"--window runs from {plan.window_hu[0]:g} to {plan.window_hu[1]:g} HU; give the lower value first."
        raise CaseLibraryError(msg)
    rows = read_case_table(folder, columns=[PATIENT_COLUMN])
    there = len(rows)
    if plan.readers is not None:
        rows, column = rated_rows(rows, plan.readers), KIND_COLUMN
    else:
        column = label_column(rows[0], plan.label_column)
        rows = [row for row in rows if row.values[column]] if plan.without_unlabelled else rows
    unlabelled = there - len(rows)
    if not rows:
        msg = (
            f"no row of {folder} has an answer in the column {column}; name the one with the answers by --label-column."
        )
        raise CaseTableError(msg)
    require_clear_labels(rows, column, model.described.class_names)
    nobody = next((row for row in rows if not row.values[PATIENT_COLUMN]), None)
    if nobody is not None:
        msg = f"{nobody.where}: {PATIENT_COLUMN} is empty; give any identifier that is the same for all CTs of the patient."
        raise CaseTableError(msg)
    require_columns(rows[0], plan.keep)
    key = pseudonymisation_key(key_path)
    who = model.described
    shared = [__version__, who.sha256, who.device, key.fingerprint, column, bool(plan.readers)]
    shared.append(repr(replace(plan, readers=None, credit="", without_unlabelled=False)))
    numbered = [(f"case-{number:05d}", row) for number, row in enumerate(rows, start=1)]
    digests = {case_id: _row_digest(shared, case_id, row) for case_id, row in numbered}
    identity = ModelIdentity.of_model(who)
    with started_build(out, identity, overwrite=overwrite, total=len(rows)) as build:
        remaining = sum(not build.is_done(*pair) for pair in digests.items())
        if remaining < len(rows):
            done = f"{len(rows) - remaining} of {len(rows)} cases are embedded already, by a build that was broken off"
            steps.note(f"{done}; it goes on with the others.")
        entries = (
            _entry(row, case_id, column, model, plan, key, steps)
            for case_id, row in numbered
            if not build.confirms(case_id, digests[case_id])
        )
        for entry in steps.each(entries, f"Embedding {remaining} cases with {who.name} {who.version}", total=remaining):
            build.take(entry, digests[entry.case.case_id])
        properties = {KEY_PROPERTY: key.fingerprint} | ({CREDIT_PROPERTY: plan.credit} if plan.credit else {})
        count = build.finish(properties, by=by)
    return Built(count, columns_left_out(rows[0], column, plan.keep), build.repeats, unlabelled)


def _row_digest(shared: list[object], case_id: str, row: CaseRow) -> str:
    """Of all that the case of a row depends on: model, plan, the row, and its files."""
    described = [*shared, case_id, sorted(row.values.items()), digest_of_files([row.image_path, row.mask_path])]
    return sha256(json.dumps(described).encode("utf-8", "surrogatepass")).hexdigest()


def _entry(
    row: CaseRow, case_id: str, column: str, model: ModelSession, plan: LibraryPlan, key: Pseudonymiser, steps: Steps
) -> CaseEntry:
    volume, box, _ = row.load(margin_mm=segment_margin_of(model.described.manifest))
    odd = (*volume.warnings, *warnings_of_box(volume, box, frame=FrameSource.SAVED))
    steps.warn(f"{row.where}: {warning}" for warning in odd)
    patient = row.values[PATIENT_COLUMN]
    new = NewCase(
        case_id=case_id,
        label=label_of(row, column, model.described.class_names),
        label_source=plan.label_source
        or (READERS_SOURCE if plan.readers else f"table of the collection, column {column}"),
        organ=plan.organ,
        attributes=attributes_of(row, plan.keep),
        with_thumbnails=plan.with_thumbnails,
        with_patch=plan.with_patches,
        window_hu=plan.window_hu,
    )
    owner = Owner(*key.hashes(patient, row.values.get("study_id")), identifiers=identifiers_of(row))
    try:
        checked_case(new, owner)  # before it is embedded
    except CaseLibraryError as error:
        msg = f"{row.where}: {error}"
        raise CaseLibraryError(msg) from error
    embedding = _embedded(model, volume, box, steps, where=f"{row.where}: ")
    return case_entry(
        volume, box, embedding.vector,
        new=new, owner=owner, predicted=predicted_by(embedding), without_patch_if_too_large=True,
    )  # fmt: skip


def _embedded(model: ModelSession, volume: CTVolume, box: LesionBox, steps: Steps, *, where: str = "") -> Embedding:
    """The lesion's embedding; that it is several is said: there may be one more case than is entered."""
    embedding = model.embed_case(volume, box)
    parts = (w for w in embedding.warnings if getattr(w, "name", None) is WarningName.SEVERAL_PARTS)
    steps.warn(f"{where}{warning}" for warning in parts)
    return embedding


def read_lesions(
    options: argparse.Namespace, series: DicomSeries | None, library: CaseStore, model: ModelDescription
) -> tuple[CTVolume, list[LesionBox], list[tuple[InputWarning, ...]]]:
    """The lesions of a CT for a case library: the volume, the boxes that the options name, and what is odd about each.

    ``series``: that of `options.volume`, None for an image file. A segment's box reaches as far beyond it as those of
    ``library``. Whose they are: `read_identity`. Raises `LesionLensError` for bad input.
    """
    margin_mm = library_margin_mm(library, model) if options.margin_mm is None else options.margin_mm
    if not 0 <= margin_mm <= 100:
        msg = f"--margin-mm is {margin_mm:g}; give 0 to 100 mm."
        raise BoxError(msg)
    if options.segmentation:
        require_margin(library, model, margin_mm)
    volume = read_ct(options.volume, series=series or options.series, nifti_transform=options.nifti_transform)
    if options.segmentation:
        from LesionLib.io.boxes import segment_boxes

        masks, warnings = read_masks(
            options.segmentation, series, split=options.split_parts, nifti_transform=options.nifti_transform
        )
        boxes = segment_boxes(masks, margin_mm=margin_mm)
    else:
        boxes, warnings = _boxes(options.boxes, volume), ()
    frame = frame_source(options.boxes)
    for box in boxes:
        require_overlap(volume, box)
    shared = (*volume.warnings, *warnings)
    return volume, boxes, [(*shared, *warnings_of_box(volume, box, frame=frame)) for box in boxes]


def read_identity(options: argparse.Namespace, series: DicomSeries | None) -> PatientIdentity:
    """From the DICOM header, or from --patient and --study where there is none. `CaseLibraryError` where both differ."""
    known = PatientIdentity.of_elements(_header_values(series.files[0])) if series is not None else PatientIdentity()
    patient = _one(known.patient, options.patient, "--patient")
    study = _one(known.study, options.study, "--study")
    typed = [value for value in (options.patient, options.study) if value]
    return PatientIdentity(patient, study, (*known.texts, *typed))


def _boxes(path: Path, volume: CTVolume) -> list[LesionBox]:
    if path.suffix.lower() == ".csv":
        from LesionLib.io.boxes import read_boxes_csv

        return read_boxes_csv(path, ijkToRAS=volume.ijkToRAS)
    from LesionClassifierLib.headless import startHeadlessSlicer
    from LesionClassifierLib.scene.lesions import boxFromRoi

    from LesionLensApp.classify import addBoxes

    scene = startHeadlessSlicer().scene
    scene.Clear(False)
    return [boxFromRoi(node) for node in addBoxes(scene, path)]


def _header_values(path: Path) -> dict[str, list[str]]:
    """The identifying elements, and every name of a person inside a sequence, under a keyword of its own."""
    data = pydicom.dcmread(path, stop_before_pixels=True)
    found = {name: _values(data, name) for name in IDENTIFYING_ELEMENTS}
    nested: list[str] = []
    for tag in sorted(data.keys()):
        with suppress(*_UNREADABLE):
            if data[tag].VR == "SQ":
                for item in data[tag].value:
                    nested += [
                        text for element in item.iterall() if element.VR == "PN" for text in _texts(element.value)
                    ]
            elif data[tag].VR == "PN" and data[tag].keyword not in found:
                nested += _texts(data[tag].value)
    return {**found, "names of others": nested}


# What pydicom raises for an element that is not what its header says: the others are read all the same.
_UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, OverflowError, NotImplementedError)


def _values(data: pydicom.Dataset, name: str) -> list[str]:
    with suppress(*_UNREADABLE):
        return _texts(data.get(name))
    return []


def _texts(value: object) -> list[str]:
    several = value if isinstance(value, pydicom.multival.MultiValue) else [value]
    return [str(one) for one in several if one is not None]


def is_burned_in(series: DicomSeries) -> bool:
    """Whether an image of the series says that text is burned into it."""
    for path in series.files:
        data = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["BurnedInAnnotation"])
        if str(data.get("BurnedInAnnotation") or "").strip().upper() == "YES":
            return True
    return False


def _one(in_header: str, given: str | None, option: str) -> str:
    if in_header and given and given.strip() != in_header:
        msg = f"{option} is another than the file's own; leave the option out, or check that this is the right CT."
        raise CaseLibraryError(msg)
    return in_header or given or ""


def add_lesions(options: argparse.Namespace, model: ModelSession, steps: Steps, *, by: str = "") -> list[str]:
    """``lesionlens library add``: the lesions of a CT into a library, without whose they are.

    Add every lesion that ``options`` names, all or none; returns their case ids. ``by``: the code of who adds them. Raises
    `LesionLensError`.
    """
    with open_store(options.library, writable=True) as library:
        indexed = indexed_as(library, ModelIdentity.of_model(model.described))
        steps.begin(f"Reading {options.volume.name}")
        series = series_at(options.volume, options.series)
        if series is not None and (options.pictures or options.patches) and not options.allow_burned_in:
            require_no_burned_in_text(is_burned_in(series))
        volume, boxes, odd = read_lesions(options, series, library, model.described)
        steps.warn(dict.fromkeys(warning for each in odd for warning in each))
        owner, properties = owner_of(options, series, library)
        cases = _cases(options, len(boxes))
        for new in cases:
            checked_case(new, owner)  # before the first is embedded
        lesions = steps.each(list(zip(cases, boxes, strict=True)), f"Embedding {len(boxes)} lesions")
        entries = [case_entry_of(volume, box, model, steps, new=new, owner=owner) for new, box in lesions]
        if not options.allow_duplicates:
            require_new(library, entries, model_sha256=indexed)
        library.add_many(entries, model_sha256=indexed, by=by)
        for name, value in properties.items():
            library.set_property(name, value)
        if key_of(library) is None:
            steps.note(UNKNOWN_KEY)
    return [new.case_id for new in cases]


def case_entry_of(
    volume: CTVolume, box: LesionBox, model: ModelSession, steps: Steps, *, new: NewCase, owner: Owner, where: str = ""
) -> CaseEntry:
    """A lesion of a CT as a case. ``where``: of the table, for what is odd about it. Raises `LesionLensError`."""
    embedding = _embedded(model, volume, box, steps, where=where)
    return case_entry(volume, box, embedding.vector, new=new, owner=owner, predicted=predicted_by(embedding))


def owner_of(
    options: argparse.Namespace, series: DicomSeries | None, library: CaseStore, *, without: str = "give --patient with"
) -> tuple[Owner, dict[str, str]]:
    """Whose the lesions are, and what the library is to note of its key once they are in it.

    ``without``: how the patient is told where the file does not say it. Raises `CaseLibraryError`.
    """
    identity = read_identity(options, series)
    if not identity.is_known:
        msg = (
            f"The file does not say which patient it is of; {without} any identifier that is the same for "
            "all CTs of the patient. Only its hash is stored."
        )
        raise CaseLibraryError(msg)
    key = key_for_adding(library, options.key)
    patient, study = identity.hashes(key)
    owner = Owner(stored_form(library, patient), str(study), identifiers=identity.texts)
    return owner, properties_to_note(library, key, patient)


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
            with_thumbnails=options.pictures,
            with_patch=options.patches,
        )
        for case_id in case_ids(options.case_id, count)
    ]


def case_ids(given: str | None, count: int) -> list[str]:
    """As many ids as there are lesions: random ones, or ``given``, with -1, -2, ... behind it for several."""
    if given is None:
        return [new_case_id() for _ in range(count)]
    return [given] if count == 1 else [f"{given}-{number}" for number in range(1, count + 1)]
