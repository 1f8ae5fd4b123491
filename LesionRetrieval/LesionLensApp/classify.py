"""``lesionlens classify``: files in, a folder of results out.

The whole way once: a CT and its boxes in a scene, answers, similar cases, and everything that is left on disk. The boxes
become ROI nodes of the scene, from whichever file they come.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from LesionClassifierLib.classification import requestFromNodes
from LesionClassifierLib.dicom_headers import StructuredReportError
from LesionClassifierLib.dicom_results import DicomOutput, write_dicom
from LesionClassifierLib.headless import HeadlessSlicer, startHeadlessSlicer
from LesionClassifierLib.scene.lesions import (
    addLesionsFromSegmentation,
    addRoiNode,
    addSegmentationNode,
    boxColor,
    lesionsFromNodes,
    loadRoiNodes,
)
from LesionClassifierLib.scene.results import ShownResults, layFirstMap, showResults
from LesionClassifierLib.scene.tree import saveScene
from LesionClassifierLib.scene.volumes import addVolumeNode, requireRightAngles, volumeFromNode, writeVolumeFile
from LesionLib.errors import BoxError, InputWarning, VolumeError
from LesionLib.geometry import CTVolume, require_overlap
from LesionLib.inference.messages import MapChoice, RunOptions
from LesionLib.inference.results import LesionResult, RunInfo, as_csv, as_json, color_by_class, heat_map_file
from LesionLib.io.boxes import read_boxes_csv
from LesionLib.io.image_headers import readable_name
from LesionLib.io.private_files import write_private
from LesionLib.io.series_details import SeriesDetails, series_details
from LesionLib.io.volumes import DicomSeries, read_ct, series_at
from LesionLib.model.folder import segment_margin_of
from LesionRetrievalLib.libraries import open_store
from LesionRetrievalLib.library.cases import CaseStore, ModelIdentity, Neighbour, indexed_as
from LesionRetrievalLib.library.intake import require_margin
from LesionRetrievalLib.library.neighbours import find_similar
from LesionRetrievalLib.library.ownership import key_for_search, own_cases_note
from slicer import vtkMRMLMarkupsROINode, vtkMRMLScalarVolumeNode, vtkMRMLScene

from LesionLensApp.display_windows import DisplayWindow, parsed_window, window_around
from LesionLensApp.loaded_model import ModelSession
from LesionLensApp.output import Steps, staged_output
from LesionLensApp.reading import (
    frame_source,
    read_masks,
    require_boxes,
    require_numbers,
    warnings_of_box,
    with_reader_warnings,
)
from LesionLensApp.report import LesionImages, OtherAnswer, Taken, field_of_view_mm, lesion_images, write_report
from LesionLensApp.similar_cases import (
    SIMILAR_CSV,
    SimilarCases,
    addSimilarTable,
    similar_cases,
    similar_columns,
    similar_csv,
)
from LesionLensApp.slice_nodes import placeSlices

# Of many lesions the pictures are smaller, or the page grows too large; the smallest are still finer than the pixels of a CT.
_PICTURE_PX, _FEWER_PX = 480, {12: 320, 50: 240}
_MOST_THREADS = 8

Answered = Callable[[Sequence[LesionResult]], None]


def addBoxes(scene: vtkMRMLScene, path: Path, *, ijkToRAS: np.ndarray | None = None) -> list[vtkMRMLMarkupsROINode]:
    """ROI nodes from a Slicer markups file (``.mrk.json``) or a CSV of boxes. Raises `BoxError`.

    ``ijkToRAS``: of the CT, 4x4, for a CSV of boxes in voxels.
    """
    require_boxes(path)
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return [addRoiNode(scene, box) for box in read_boxes_csv(path, ijkToRAS=ijkToRAS)]
    if suffix == ".json":
        return loadRoiNodes(scene, path)
    if suffix in (".acsv", ".fcsv"):
        msg = f"{path.name} is a markups file of Slicer 4; load it in Slicer 5, make an ROI of it and save that as .mrk.json."
        raise BoxError(msg)
    msg = f"{path.name}: boxes come as .csv or as a Slicer markups file (.mrk.json), not as {suffix or 'a file without ending'}."
    raise BoxError(msg)


def addSegments(
    scene: vtkMRMLScene, masks: Sequence[CTVolume], *, name: str, marginMm: float
) -> list[vtkMRMLMarkupsROINode]:
    """The segments of a file (`read_masks`) as a segmentation node, and one ROI node around each. Raises `BoxError`."""
    node = addSegmentationNode(scene, masks, name=name)
    return addLesionsFromSegmentation(scene, node, marginMm=marginMm)


@dataclass(frozen=True, eq=False)
class Job:
    """What to answer: nodes of a running scene, a model, and perhaps a library to compare with.

    ``box_jitter``: boxes drawn a little differently that are asked too, for the spread of the answer. ``excludePatient`` is
    the pseudonym of the patient on the CT, whose own cases are not shown as similar; ``searchNote`` what has to be said where
    they could not be told from others. ``boxWarnings``: what is odd about where each box lies, one entry a box.
    ``answerAnyway``: name the likeliest class also where the model has no answer. ``mapMethod``: how maps are made (None: as the
    model chose), ``heatMapFormat``:
    in which they are written, of `HEAT_MAP_FORMATS`. ``dicom``: what is written as DICOM. ``window``: for the pictures; None is
    one that fits each lesion. ``also``: other models that are asked about the same boxes; what they say stands beside the answer.
    ``details``: of the DICOM series of the CT; ``withSeries``: of these also what may tell whose CT it is.
    """

    running: HeadlessSlicer
    volumeNode: vtkMRMLScalarVolumeNode
    roiNodes: Sequence[vtkMRMLMarkupsROINode]
    model: ModelSession
    library: CaseStore | None = None
    k: int = 9
    excludePatient: str | None = None
    searchNote: str = ""
    extraWarnings: tuple[InputWarning, ...] = ()
    boxWarnings: Sequence[tuple[InputWarning, ...]] = ()
    box_jitter: int = 0
    answerAnyway: bool = False
    mapMethod: MapChoice | None = None
    heatMapFormat: str = "nrrd"
    dicom: DicomOutput = field(default_factory=DicomOutput)
    window: DisplayWindow | None = None
    also: Sequence[ModelSession] = ()
    details: SeriesDetails | None = None
    withSeries: bool = False


def run_job(
    job: Job, out: Path, steps: Steps, *, overwrite: bool, answered: Answered = lambda _results: None
) -> list[LesionResult]:
    """Answer every box and leave report, scene, tables and heat maps in ``out``; nothing is left where it fails.

    ``answered`` is told the answers before the scene is saved and the report is drawn.
    """
    return run_jobs([job], out, steps, overwrite=overwrite, answered=answered)


def run_jobs(
    jobs: Sequence[Job],
    out: Path,
    steps: Steps,
    *,
    overwrite: bool,
    name: str | None = None,
    answered: Answered = lambda _results: None,
) -> list[LesionResult]:
    """The same for several CTs of one scene by one model, as one report; ``name``: what to call them together."""
    model, library = jobs[0].model.described, jobs[0].library
    if library is not None:
        indexed = indexed_as(library, ModelIdentity.of_model(model))
    with staged_output(out, overwrite=overwrite) as folder:
        count = sum(len(job.roiNodes) for job in jobs)
        for session in (jobs[0].model, *jobs[0].also):
            who = session.described
            steps.begin(f"Classifying {count} lesions with {who.name} {who.version} on {who.device}")
        classified = [_classified(job) for job in jobs]
        run = classified[0][0] if name is None else replace(classified[0][0], volume=name)
        others = [beside for job in jobs for beside in _asked_beside(job)]
        found: list[list[LesionResult]] = [results for _, results in classified]
        neighbours: list[list[Neighbour]] = [[] for results in found for _ in results]
        if library is not None:
            steps.begin(f"Searching {len(library)} cases")
            searched = [
                find_similar(results, library, model_sha256=indexed, k=job.k, exclude_patient=job.excludePatient)
                for job, results in zip(jobs, found, strict=True)
            ]
            found = [results for results, _ in searched]
            neighbours = [cases for _, of_job in searched for cases in of_job]
        results, lesions = [], []
        for job, of_job in zip(jobs, found, strict=True):
            shown, reported = _shown(job, run, of_job, folder, steps)
            results += reported
            nodes = zip(job.roiNodes, shown.heatMapNodes, reported, strict=True)
            lesions += [_Lesion(job, roiNode, heatMapNode, result) for roiNode, heatMapNode, result in nodes]
        form = jobs[0].heatMapFormat
        write_tables(
            folder, run, results, of_lesions=[lesion.job.details for lesion in lesions], others=others,
            withSeries=jobs[0].withSeries, heatMapFormat=form,
        )  # fmt: skip
        first, note = jobs[0], jobs[0].searchNote
        if note:
            steps.note(note)
        answered(results)
        if library is not None:
            columns = similar_columns(results, neighbours, run)
            write_private(folder / SIMILAR_CSV, similar_csv(columns))
            addSimilarTable(jobs[0].volumeNode, columns)
        _write_heat_maps(folder, [lesion.heatMapNode for lesion in lesions], form)
        shown = _drawn(lesions, neighbours, library, folder, steps)
        taken = None
        if len(jobs) == 1:
            taken = Taken(volumeFromNode(first.volumeNode), first.details, first.withSeries)
        write_report(
            folder / "report.html", run, results, [images for images, _ in shown], [similar for _, similar in shown], library,
            model, taken=taken, note=note, others=others, heat_map_format=form,
        )  # fmt: skip
    return results


@dataclass(frozen=True, eq=False)
class _Lesion:
    """A lesion that was answered, and its nodes."""

    job: Job
    roiNode: vtkMRMLMarkupsROINode
    heatMapNode: vtkMRMLScalarVolumeNode | None
    result: LesionResult


def _side_px(lesions: int) -> int:
    """Of the pictures of a page with so many lesions."""
    return min([_PICTURE_PX, *(px for most, px in _FEWER_PX.items() if lesions > most)])


def _drawn(
    lesions: Sequence[_Lesion],
    neighbours: Sequence[Sequence[Neighbour]],
    library: CaseStore | None,
    folder: Path,
    steps: Steps,
) -> list[tuple[LesionImages, SimilarCases]]:
    """The pictures of each lesion for the page. The scene is saved with its slice views on the first lesion that has an answer."""
    running = lesions[0].job.running
    first = next((lesion for lesion in lesions if lesion.result.label), lesions[0])
    placeSlices(running, centerRAS=first.result.box.centerRAS, fieldOfViewMm=field_of_view_mm(first.result))
    steps.begin("Saving the scene")
    saveScene(running.scene, folder / "scene.mrb")
    volumes = {id(lesion.job): volumeFromNode(lesion.job.volumeNode) for lesion in lesions}
    side = _side_px(len(lesions))
    drawn = []
    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
        coming = [
            pool.submit(
                lesion_images, lesion.result, volume=volumes[id(lesion.job)], color=boxColor(lesion.roiNode), side=side,
                window=lesion.job.window, details=lesion.job.details,
            )
            for lesion in lesions
        ]  # fmt: skip
        rows = list(zip(lesions, neighbours, coming, strict=True))
        for lesion, found, future in steps.each(rows, "Drawing the report's pictures"):
            images, similar = future.result(), SimilarCases()
            if library is not None and found:  # in this thread: a library is read by the one that opened it
                volume = volumes[id(lesion.job)]
                similar = similar_cases(lesion.result, found, library, volume, window=images.window)
            drawn.append((images, similar))
    return drawn


def _shown(
    job: Job, run: RunInfo, results: list[LesionResult], folder: Path, steps: Steps
) -> tuple[ShownResults, list[LesionResult]]:
    """The answers of one CT in the scene; and as results with what DICOM results lack, where they are asked for."""
    volume = volumeFromNode(job.volumeNode)
    _show_first(job, volume, results)
    colors = color_by_class(job.model.described)
    shown = showResults(
        job.running.scene, job.volumeNode, job.roiNodes, results, volume=volume, run=run, classColors=colors
    )
    layFirstMap(job.volumeNode, shown)
    if not job.dicom.isWanted:
        return shown, results
    steps.begin("Writing the DICOM results")
    return shown, write_dicom(job.dicom, run, results, volume, folder)


def _asked_beside(job: Job) -> list[list[OtherAnswer]]:
    """For each box what the other models say of it."""
    options = RunOptions(answer_anyway=job.answerAnyway)
    answers = []
    for session in job.also:
        request = requestFromNodes(job.volumeNode, job.roiNodes, session.described.folder, options)
        answers.append([OtherAnswer(session.described, result) for result in session.run(request).results])
    return [list(of_box) for of_box in zip(*answers, strict=True)] if answers else [[] for _ in job.roiNodes]


def _show_first(job: Job, volume: CTVolume, results: Sequence[LesionResult]) -> None:
    """The scene opens with a window that the first lesion can be seen with."""
    window = job.window or (window_around(volume, results[0].box) if results else None)
    if window is not None:
        job.volumeNode.GetDisplayNode().SetWindowLevel(window.width, window.level)


def _classified(job: Job) -> tuple[RunInfo, list[LesionResult]]:
    options = RunOptions(box_jitter=job.box_jitter, answer_anyway=job.answerAnyway, map_method=job.mapMethod)
    response = job.model.run(requestFromNodes(job.volumeNode, job.roiNodes, job.model.described.folder, options))
    ofBoxes = job.boxWarnings or [()] * len(response.results)
    return response.info, with_reader_warnings(response.results, job.extraWarnings, ofBoxes)


def write_tables(
    folder: Path,
    run: RunInfo,
    results: Sequence[LesionResult],
    *,
    of_lesions: Sequence[SeriesDetails | None],
    others: Sequence[Sequence[OtherAnswer]] = (),
    withSeries: bool = False,
    heatMapFormat: str = "nrrd",
) -> None:
    """``results.json`` and ``results.csv``. ``of_lesions``: for each result the details of its CT's series; ``others``: for each
    what other models say of it. ``withSeries``: see `Job`.
    """
    content = as_json(run, results, heat_map_format=heatMapFormat)
    for written, result, details, beside in zip(
        content["results"], results, of_lesions, others or [()] * len(results), strict=True
    ):
        if beside:
            written["otherModels"] = [answer.to_json() for answer in beside]
        instance = None if details is None else details.instance_at(result.box.centerRAS)
        if instance is not None:
            written["instanceNumber"] = instance
    if (details := of_lesions[0]) is not None:
        content["series"] = details.to_json(identifying=withSeries)
    text = json.dumps(content, indent=2, ensure_ascii=False)
    write_private(folder / "results.json", text + "\n")
    write_private(folder / "results.csv", as_csv(run, results, heat_map_format=heatMapFormat))


def _write_heat_maps(folder: Path, heatMapNodes: Sequence[vtkMRMLScalarVolumeNode | None], heatMapFormat: str) -> None:
    for number, node in enumerate(heatMapNodes, start=1):
        if node is not None:
            writeVolumeFile(node, folder / heat_map_file(number, heatMapFormat))


def classify_files(
    options: argparse.Namespace, model: ModelSession, steps: Steps, *, answered: Answered = lambda _results: None
) -> list[LesionResult]:
    """Answer the boxes of ``options.boxes`` or ``options.segmentation`` on ``options.volume``; writes ``options.out``.

    ``answered`` is told the answers as soon as there are some. Raises a `LesionLensError` for bad input; then nothing is written.
    """
    require_numbers(options)
    window = parsed_window(options.window)
    margin_mm = segment_margin_of(model.described.manifest) if options.margin_mm is None else options.margin_mm
    with ExitStack() as stack:
        library = stack.enter_context(open_store(options.library)) if options.library else None
        if library is not None:
            indexed_as(library, ModelIdentity.of_model(model.described))
            if options.segmentation:
                require_margin(library, model.described, margin_mm)
        steps.begin(f"Reading {options.volume.name}")
        series = series_at(options.volume, options.series)
        dicom = wanted_output(options, series)
        if options.with_series and series is None:
            msg = f"--with-series: {options.volume.name} is not a folder of DICOM files, which alone say it; leave the option out."
            raise VolumeError(msg)
        volume = read_ct(options.volume, series=series or options.series, nifti_transform=options.nifti_transform)
        heat_map_format = options.heat_map_format or "nrrd"
        if heat_map_format == "nii.gz":
            requireRightAngles(volume.ijkToRAS, volume.name)
        masks, warnings = [], ()
        if options.segmentation:
            masks, warnings = read_masks(
                options.segmentation, series, split=options.split_parts, nifti_transform=options.nifti_transform
            )
        if series is not None and not options.name:
            steps.note(
                f"The results carry the name of the folder, {volume.name}; where that tells whose CT it is, give another by "
                "--name."
            )
        running = startHeadlessSlicer()
        running.scene.Clear(False)  # one process may run several commands
        volumeNode = addVolumeNode(running.scene, volume, isShared=True)
        volumeNode.SetName(options.name or volume.name)
        if options.boxes:
            roiNodes = addBoxes(running.scene, options.boxes, ijkToRAS=volume.ijkToRAS)
        else:
            name = readable_name(options.segmentation).split(".")[0]
            roiNodes = addSegments(running.scene, masks, name=name, marginMm=margin_mm)
        boxes = lesionsFromNodes(roiNodes)
        for box in boxes:
            require_overlap(volume, box)
        frame = frame_source(options.boxes)
        patient, note = patient_hash(options.key, series, library) if library is not None else (None, "")
        job = Job(
            running,
            volumeNode,
            roiNodes,
            model,
            library=library,
            k=options.similar,
            excludePatient=patient,
            searchNote=note,
            extraWarnings=(*volume.warnings, *warnings),
            boxWarnings=[warnings_of_box(volume, box, frame=frame) for box in boxes],
            box_jitter=options.box_jitter,
            answerAnyway=options.answer_anyway,
            mapMethod=options.map_method,
            heatMapFormat=heat_map_format,
            dicom=dicom,
            window=window,
            details=None if series is None else series_details(series),
            withSeries=options.with_series,
        )
        return run_job(job, options.out, steps, overwrite=options.overwrite, answered=answered)


_DICOM_OPTIONS = {"dicom_sr": "--dicom-sr", "dicom_seg": "--dicom-seg", "dicom_map": "--dicom-map"}


def wanted_output(options: argparse.Namespace, series: DicomSeries | None) -> DicomOutput:
    """What the command's options ask for. Raises `StructuredReportError` where the CT is no DICOM series."""
    given = [name for attribute, name in _DICOM_OPTIONS.items() if getattr(options, attribute)]
    if not given:
        return DicomOutput()
    if series is None:
        what = "a report" if given == ["--dicom-sr"] else "DICOM results"
        msg = (
            f"{', '.join(given)}: {options.volume.name} is not a folder of DICOM files, so there is no study that {what} could "
            f"belong to; leave the option{'s' if len(given) > 1 else ''} out."
        )
        raise StructuredReportError(msg)
    return DicomOutput(series.files, options.dicom_sr, options.dicom_seg, options.dicom_map)


def patient_hash(key_path: Path | None, series: DicomSeries | None, library: CaseStore) -> tuple[str | None, str]:
    """The pseudonym of the patient on a DICOM CT, where the library's key is at hand; and what is to be said without."""
    key, state = key_for_search(library, key_path)
    patient = key.hash(series.patient_id) if key is not None and series is not None and series.patient_id else None
    return patient, own_cases_note(library, state, patient)
