"""The whole way once: a CT and its boxes in a scene, answers, similar cases, and everything that is left on disk."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from LesionClassifierLib.classification import requestFromNodes
from LesionClassifierLib.headless import HeadlessSlicer
from LesionClassifierLib.nodes import saveScene, volumeFromNode, writeVolumeFile
from LesionClassifierLib.showing import ShownResults, layFirstMap, showResults
from LesionClassifierLib.structured_report import writeStructuredReport
from LesionClassifierLib.structured_report_sources import readDatasets
from LesionLib.input_warning import InputWarning
from LesionLib.results import LesionResult, RunInfo, as_csv, as_json, heat_map_file
from LesionLib.runner_types import RunOptions
from LesionRetrievalLib.library import CaseLibrary, Neighbour
from LesionRetrievalLib.similar import find_similar
from slicer import vtkMRMLMarkupsROINode, vtkMRMLScalarVolumeNode

from .asked_model import AskedModel
from .console import Steps
from .output_folder import staged_output
from .report import write_report
from .report_pictures import lesion_pictures
from .sliceviews import SliceRenderer

REPORT_FILE = "results.dcm"


@dataclass(frozen=True, eq=False)
class Job:
    """What to answer: nodes of a running scene, a model, and perhaps a library to compare with.

    ``redrawn``: boxes drawn a little differently that are asked too, for the spread of the answer. ``excludePatient`` is
    the pseudonym of the patient on the CT, whose own cases are not shown as similar. ``dicomFiles``: those of the CT's
    series, where a structured report is wanted.
    """

    running: HeadlessSlicer
    volumeNode: vtkMRMLScalarVolumeNode
    roiNodes: Sequence[vtkMRMLMarkupsROINode]
    model: AskedModel
    library: CaseLibrary | None = None
    k: int = 9
    excludePatient: str | None = None
    extraWarnings: tuple[InputWarning, ...] = ()
    redrawn: int = 0
    dicomFiles: Sequence[Path] = ()


def run_job(job: Job, out: Path, steps: Steps, *, overwrite: bool) -> list[LesionResult]:
    """Answer every box and leave report, scene, tables and heat maps in ``out``; nothing is left where it fails."""
    model = job.model.described
    if job.library is not None:
        job.library.require_model(model.sha256)
    with staged_output(out, overwrite=overwrite) as folder:
        steps.begin(f"Classifying {len(job.roiNodes)} lesions with {model.name} {model.version} on {model.device}")
        run, results = _classified(job)
        neighbours: list[list[Neighbour]] = [[] for _ in results]
        if job.library is not None:
            steps.begin(f"Searching {len(job.library)} cases")
            results, neighbours = find_similar(
                results, job.library, model_sha256=model.sha256, k=job.k, exclude_patient=job.excludePatient
            )
        scene = job.running.scene
        shown = showResults(
            scene,
            job.volumeNode,
            job.roiNodes,
            results,
            volume=volumeFromNode(job.volumeNode),
            run=run,
            classColors=dict(zip(model.class_names, model.class_colors, strict=True)),
        )
        layFirstMap(job.volumeNode, shown)
        _write_tables(folder, run, results)
        _write_heat_maps(folder, shown)
        if job.dicomFiles:
            steps.begin("Writing the structured report")
            writeStructuredReport(folder / REPORT_FILE, results, run, readDatasets(job.dicomFiles))
        steps.begin("Saving the scene")
        saveScene(scene, folder / "scene.mrb")
        lesions = list(zip(job.roiNodes, shown.heatMapNodes, results, strict=True))
        with SliceRenderer(job.running) as renderer:
            pictures = [
                lesion_pictures(renderer, job.volumeNode, roiNode, heatMapNode, result)
                for roiNode, heatMapNode, result in steps.each(lesions, "Drawing the report's pictures")
            ]
        write_report(folder / "report.html", run, results, pictures, neighbours, job.library, model)
    return results


def _classified(job: Job) -> tuple[RunInfo, list[LesionResult]]:
    options = RunOptions(redrawn=job.redrawn)
    answer = job.model.run(requestFromNodes(job.volumeNode, job.roiNodes, job.model.described.folder, options))
    warned = [replace(result, warnings=(*job.extraWarnings, *result.warnings)) for result in answer.results]
    return answer.info, warned


def _write_tables(folder: Path, run: RunInfo, results: list[LesionResult]) -> None:
    text = json.dumps(as_json(run, results), indent=2, ensure_ascii=False)
    (folder / "results.json").write_text(text + "\n", encoding="utf-8")
    (folder / "results.csv").write_text(as_csv(run, results), encoding="utf-8")


def _write_heat_maps(folder: Path, shown: ShownResults) -> None:
    for number, node in enumerate(shown.heatMapNodes, start=1):
        if node is not None:
            writeVolumeFile(node, folder / heat_map_file(number))
