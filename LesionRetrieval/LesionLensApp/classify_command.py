"""``lesionlens classify``: files in, a folder of results out."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path

from LesionClassifierLib.headless import startHeadlessSlicer
from LesionClassifierLib.nodes import addVolumeNode
from LesionClassifierLib.structured_report_sources import StructuredReportError
from LesionLib.dicom import DicomSeries, series_at
from LesionLib.errors import LesionLensError
from LesionLib.readers import read_volume
from LesionLib.results import LesionResult
from LesionRetrievalLib.library_places import open_store
from LesionRetrievalLib.owner_key import default_key_path
from LesionRetrievalLib.pseudonyms import Pseudonymiser

from .asked_model import AskedModel
from .console import Steps
from .inputs import addBoxes, addSegments
from .pipeline import Job, run_job


def classify_files(options: argparse.Namespace, model: AskedModel, steps: Steps) -> list[LesionResult]:
    """Answer the boxes of ``options.boxes`` or ``options.segmentation`` on ``options.volume``; writes ``options.out``.

    Raises a `LesionLensError` for bad input; then nothing is written.
    """
    if not (0 <= options.margin_mm <= 100 and 1 <= options.similar <= 1000 and 0 <= options.redrawn <= 100):
        msg = (
            f"--margin-mm is {options.margin_mm:g} (0 to 100 mm), --similar is {options.similar} (1 to 1000) and "
            f"--redrawn is {options.redrawn} (0 to 100)."
        )
        raise LesionLensError(msg)
    with ExitStack() as stack:
        library = stack.enter_context(open_store(options.library)) if options.library else None
        if library is not None:
            library.require_model(model.described.sha256)
        steps.begin(f"Reading {options.volume.name}")
        series = series_at(options.volume, options.series)
        volume = read_volume(options.volume, series=series or options.series)
        running = startHeadlessSlicer()
        running.scene.Clear(False)  # one process may run several commands
        volumeNode = addVolumeNode(running.scene, volume)
        volumeNode.SetName(options.name or volume.name)
        if options.boxes:
            roiNodes = addBoxes(running.scene, options.boxes)
        else:
            roiNodes = addSegments(running.scene, options.segmentation, marginMm=options.margin_mm)
        job = Job(
            running,
            volumeNode,
            roiNodes,
            model,
            library=library,
            k=options.similar,
            excludePatient=_patient_hash(options, series) if library is not None else None,
            extraWarnings=volume.warnings,
            redrawn=options.redrawn,
            dicomFiles=_dicom_files(options, series),
        )
        return run_job(job, options.out, steps, overwrite=options.overwrite)


def _dicom_files(options: argparse.Namespace, series: DicomSeries | None) -> list[Path]:
    """The files of the CT's series, where a structured report is asked for. Raises `StructuredReportError`."""
    if not options.dicom_sr:
        return []
    if series is None:
        msg = (
            f"--dicom-sr: {options.volume.name} is not a folder of DICOM files, so there is no study that a report could "
            "belong to; leave the option out."
        )
        raise StructuredReportError(msg)
    return series.files


def _patient_hash(options: argparse.Namespace, series: DicomSeries | None) -> str | None:
    """The pseudonym of the patient on a DICOM CT, where the owner's key is at hand."""
    key = options.key or default_key_path()
    if series is None or not (options.key or key.exists()):
        return None
    return Pseudonymiser.load(key).hash(series.patient_id) if series.patient_id else None
