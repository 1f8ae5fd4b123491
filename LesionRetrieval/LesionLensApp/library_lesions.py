"""The lesions of a CT for a case library: volume, boxes, and whose they are, as hashes."""

from __future__ import annotations

import argparse
from pathlib import Path

import pydicom
from LesionLib.dicom import DicomSeries
from LesionLib.errors import BoxError, CaseLibraryError
from LesionLib.geometry import CTVolume, LesionBox
from LesionLib.readers import read_volume
from LesionRetrievalLib.library_identifiers import IDENTIFYING_ELEMENTS, PatientIdentity


def read_lesions(options: argparse.Namespace, series: DicomSeries | None) -> tuple[CTVolume, list[LesionBox]]:
    """The volume and the boxes that the options name. ``series``: that of `options.volume`, None for an image file.

    Raises `LesionLensError` for bad input.
    """
    if not 0 <= options.margin_mm <= 100:
        msg = f"--margin-mm is {options.margin_mm:g}; give 0 to 100 mm."
        raise BoxError(msg)
    volume = read_volume(options.volume, series=series or options.series)
    if options.segmentation:
        from LesionLib.segments import read_segment_boxes

        return volume, read_segment_boxes(options.segmentation, margin_mm=options.margin_mm)
    return volume, _boxes(options.boxes)


def read_identity(options: argparse.Namespace, series: DicomSeries | None) -> PatientIdentity:
    """From the DICOM header, or from --patient and --study where there is none. `CaseLibraryError` where both differ."""
    known = PatientIdentity.of_elements(_header_values(series.files[0])) if series is not None else PatientIdentity()
    patient = _one(known.patient, options.patient, "--patient")
    study = _one(known.study, options.study, "--study")
    typed = [value for value in (options.patient, options.study) if value]
    return PatientIdentity(patient, study, (*known.texts, *typed))


def _boxes(path: Path) -> list[LesionBox]:
    if path.suffix.lower() == ".csv":
        from LesionLib.box_files import read_boxes_csv

        return read_boxes_csv(path)
    from LesionClassifierLib.headless import startHeadlessSlicer
    from LesionClassifierLib.nodes import boxFromRoi

    from .inputs import addBoxes

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
