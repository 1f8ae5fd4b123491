"""The lesions of a CT for a case library: volume, boxes, and whose they are, as hashes."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import pydicom
from LesionLib.dicom import choose_series
from LesionLib.errors import BoxError, CaseLibraryError
from LesionLib.geometry import CTVolume, LesionBox
from LesionLib.readers import read_volume
from LesionRetrievalLib.pseudonyms import Pseudonymiser

_TAGS = (
    "PatientName", "PatientID", "OtherPatientIDs", "OtherPatientNames", "PatientBirthDate", "PatientBirthName",
    "PatientMotherBirthName", "AccessionNumber", "StudyID", "StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate",
    "InstitutionName", "ReferringPhysicianName", "OperatorsName", "PatientAddress", "PatientTelephoneNumbers",
    "StudyInstanceUID",
)  # fmt: skip


@dataclass(frozen=True)
class Identity:
    """What tells whose a CT is. It lives in memory only: a library gets the hashes of ``patient`` and ``study``.

    ``identifiers``: every value in the file's header that must not enter a library. Left out of ``repr``.
    """

    patient: str | None
    study: str | None
    identifiers: tuple[str, ...]

    def __repr__(self) -> str:
        return "Identity(…)"

    def hashes(self, key: Pseudonymiser) -> tuple[str, str]:
        """Patient and study hash; the patient's identifier stands in for the study's where that is not known."""
        return key.hash(self.patient), key.hash(self.study or self.patient, domain="study")


def read_lesions(options: argparse.Namespace) -> tuple[CTVolume, list[LesionBox]]:
    """The volume and the boxes that the options name. Raises `LesionLensError` for bad input."""
    if not 0 <= options.margin_mm <= 100:
        msg = f"--margin-mm is {options.margin_mm:g}; give 0 to 100 mm."
        raise BoxError(msg)
    volume = read_volume(options.volume, series=options.series)
    if options.segmentation:
        from LesionLib.segments import read_segment_boxes

        return volume, read_segment_boxes(options.segmentation, margin_mm=options.margin_mm)
    return volume, _boxes(options.boxes)


def read_identity(options: argparse.Namespace) -> Identity:
    """From the DICOM header, or from --patient and --study where there is none. `CaseLibraryError` where both differ."""
    header = {}
    if options.volume.is_dir():
        path = choose_series(options.volume, options.series).slices[0].path
        header = _header_values(path)
    patient = _one(header.get("PatientID"), options.patient, "--patient")
    study = _one(header.get("StudyInstanceUID"), options.study, "--study")
    typed = [value for value in (options.patient, options.study) if value]
    known = [value for tag, values in header.items() if tag != "StudyInstanceUID" for value in values]
    return Identity(patient, study, (*known, *typed))


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
    data = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS))
    found = {}
    for tag in _TAGS:
        value = data.get(tag)
        several = value if isinstance(value, pydicom.multival.MultiValue) else [value]
        texts = [str(one).strip(" \0") for one in several if one is not None]
        found[tag] = [text for text in texts if text]
    return found


def _one(in_header: list[str] | None, given: str | None, option: str) -> str | None:
    if in_header and given and given.strip() != in_header[0]:
        msg = f"{option} is another than the file's own; leave the option out, or check that this is the right CT."
        raise CaseLibraryError(msg)
    return in_header[0] if in_header else given
