"""Answers of a scene as files: CSV with stable columns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from LesionLib.errors import OutputError
from LesionLib.results import LesionResult, RunInfo, as_csv
from slicer import vtkMRMLMarkupsROINode

from .result_nodes import storedResult


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
