"""Answers of a scene as files: CSV with stable columns, DICOM structured report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from LesionLib.errors import OutputError
from LesionLib.results import LesionResult, RunInfo, as_csv
from slicer import vtkMRMLMarkupsROINode

from .result_nodes import VOLUME_ROLE, storedResult
from .structured_report_sources import DicomFiles, sourceDatasets


def resultsOfLesions(roiNodes: Sequence[vtkMRMLMarkupsROINode]) -> tuple[RunInfo, list[LesionResult]]:
    """The answers on the lesions' nodes, heat maps left out. Raises `OutputError` without any, or with two models' answers."""
    stored = [found for found in map(storedResult, roiNodes) if found is not None]
    if not stored:
        msg = "no lesion has an answer yet; classify first."
        raise OutputError(msg)
    runs = {found.run.model_sha256: found.run for found in stored}
    volumes = {found.run.volume for found in stored}
    if len(runs) > 1 or len(volumes) > 1:
        names = ", ".join(f"{run.model_name} {run.model_version}" for run in runs.values())
        msg = (
            f"the answers come from several models or CTs ({names}; {', '.join(sorted(volumes))}); classify all again."
        )
        raise OutputError(msg)
    return stored[0].run, [found.result for found in stored]


def exportCsv(path: Path, roiNodes: Sequence[vtkMRMLMarkupsROINode]) -> int:
    """Write one row a lesion that has an answer, and return how many. Raises `OutputError`."""
    run, results = resultsOfLesions(roiNodes)
    try:
        path.write_text(as_csv(run, results), encoding="utf-8")
    except OSError as error:
        msg = f"{path} cannot be written ({error.strerror}); choose another place."
        raise OutputError(msg) from error
    return len(results)


def exportReport(path: Path, roiNodes: Sequence[vtkMRMLMarkupsROINode], files: DicomFiles | None) -> int:
    """Write a DICOM structured report of all lesions that have an answer, and return how many.

    ``files``: where the DICOM files of the CT are. Raises `OutputError`, or `StructuredReportError` for a CT without DICOM.
    """
    from .structured_report import writeStructuredReport

    run, results = resultsOfLesions(roiNodes)
    volumeNodes = {
        node.GetID(): node for node in (roi.GetNodeReference(VOLUME_ROLE) for roi in roiNodes) if node is not None
    }
    if len(volumeNodes) != 1:
        msg = "the CT of these answers is no longer in the scene; load it and classify again."
        raise OutputError(msg)
    (volumeNode,) = volumeNodes.values()
    writeStructuredReport(path, results, run, sourceDatasets(volumeNode, files), overwrite=True)
    return len(results)
