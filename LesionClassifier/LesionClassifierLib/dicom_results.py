"""Answers as DICOM beside a DICOM CT: lesions as a SEG, heat maps as parametric maps, a report, each referring to the others.

What ``lesionlens classify`` writes beside its results, and what the panel writes of a scene. Each file on its own: what cannot
be written is a warning, and takes nothing else along.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from LesionLib.errors import InputWarning, LesionLensError, OutputError, WarningName
from LesionLib.explain.heat_map import HeatMap
from LesionLib.geometry import CTVolume
from LesionLib.inference.results import LesionResult, RunInfo, heat_map_file
from slicer import vtkMRMLMarkupsROINode

from LesionClassifierLib.dicom_headers import (
    LesionObjects,
    StructuredReportError,
    highdicom,
    readDatasets,
    sourceSeries,
)
from LesionClassifierLib.dicom_images import sourceImages, writeHeatMap, writeSegmentation
from LesionClassifierLib.export import (
    DicomFiles,
    resultsOfLesions,
    sourceFiles,
    volumeOfLesions,
    writeStructuredReport,
)
from LesionClassifierLib.scene.lesions import lesionsFromNodes
from LesionClassifierLib.scene.results import HEAT_MAP_ROLE, StoredResult, staleReason, storedResult
from LesionClassifierLib.scene.volumes import volumeFromNode

if TYPE_CHECKING:
    from pydicom import Dataset

REPORT_FILE, SEGMENTATION_FILE = "results.dcm", "lesions.seg.dcm"
_Written = TypeVar("_Written")


@dataclass(frozen=True)
class _Part:
    """Something that may not be written: the warning's name, what it is, and its file."""

    name: WarningName
    what: str
    file: str

    def warning(self, why: str) -> InputWarning:
        """That it is not there, and why."""
        text = f"There is no {self.what} ({self.file}): {why} All other results were written."
        return InputWarning(self.name, text)


_REPORT = _Part(WarningName.REPORT_NOT_WRITTEN, "structured report", REPORT_FILE)


@dataclass(frozen=True)
class DicomOutput:
    """Which DICOM results are wanted; ``files``: those of the CT's series, read where any is."""

    files: Sequence[Path] = ()
    report: bool = False
    segmentation: bool = False
    maps: bool = False

    @property
    def isWanted(self) -> bool:
        """Whether anything is to be written."""
        return self.report or self.segmentation or self.maps


def write_dicom(
    wanted: DicomOutput, run: RunInfo, results: list[LesionResult], volume: CTVolume, folder: Path
) -> list[LesionResult]:
    """Write what is wanted into ``folder``; what a result lacks, or why it is not there, becomes a warning on the results."""
    if not wanted.isWanted:
        return results
    writer = _Writer(wanted, run, results, volume, folder)
    writer.write()
    warnings = tuple(dict.fromkeys(writer.warnings))
    return [replace(result, warnings=(*result.warnings, *warnings)) for result in results]


def exportDicom(
    folder: Path,
    roiNodes: Sequence[vtkMRMLMarkupsROINode],
    files: DicomFiles | None,
    *,
    answerAnyway: bool = False,
    warn: Callable[[InputWarning], None] | None = None,
) -> int:
    """Write segmentation, heat maps and report of all lesions that were asked about into ``folder``, and return how many they are.

    ``files``: where the DICOM files of the CT are. ``warn`` is told what could not be written, or had to be left empty. Raises
    `OutputError`, also for an answer that no longer holds or a folder that has such files already; `StructuredReportError` for a
    CT without DICOM.
    """
    run, results = resultsOfLesions(roiNodes, answerAnyway=answerAnyway)
    volumeNode = volumeOfLesions(roiNodes)
    wanted = DicomOutput(sourceFiles(volumeNode, files), report=True, segmentation=True, maps=True)
    if (transform := volumeNode.GetParentTransformNode()) is not None:
        msg = (
            f"{volumeNode.GetName()} is moved by the transform {transform.GetName()}, so its voxels are not where its DICOM files "
            "say; take it out of the transform and classify again."
        )
        raise StructuredReportError(msg)
    answered = [node for node in roiNodes if storedResult(node) is not None]
    whole = [_wholeResult(node, result) for node, result in zip(answered, results, strict=True)]
    names = [REPORT_FILE, SEGMENTATION_FILE, *(heat_map_file(n, "dcm") for n in range(1, len(whole) + 1))]
    there = [name for name in names if (folder / name).exists()]
    if there:
        msg = f"{folder} has a {there[0]} already; choose another folder."
        raise OutputError(msg)
    writer = _Writer(wanted, run, whole, volumeFromNode(volumeNode), folder)
    writer.write()
    warnings = list(dict.fromkeys(writer.warnings))
    if not any((folder / name).exists() for name in names):
        raise OutputError(" ".join(warnings))
    for warning in warnings if warn is not None else ():
        warn(warning)
    return len(whole)


def _wholeResult(roiNode: vtkMRMLMarkupsROINode, result: LesionResult) -> LesionResult:
    """A stored answer with what its node cannot hold: the mask of its segment, and its heat map."""
    stored, reason = storedResult(roiNode), staleReason(roiNode)
    if reason or stored is None:
        msg = f"{roiNode.GetName()}: {reason}"
        raise OutputError(msg)
    (box,) = lesionsFromNodes([roiNode])
    box = replace(result.box, segment=box.segment)
    return replace(result, box=box, heat_map=_heatMapOf(roiNode, stored) if result.label else None)


def _heatMapOf(roiNode: vtkMRMLMarkupsROINode, stored: StoredResult) -> HeatMap | None:
    node = roiNode.GetNodeReference(HEAT_MAP_ROLE)
    if node is None or not stored.explained:
        return None
    volume = volumeFromNode(node)
    try:
        peak = float(node.GetAttribute("LesionLens.Peak") or "nan")
    except ValueError:
        peak = float("nan")
    return HeatMap(volume.array, volume.ijkToRAS, peak, stored.explained, stored.mapMethod)


class _Writer:
    """One run's DICOM results, in the order in which they refer to each other; ``warnings``: what became of them."""

    def __init__(
        self, wanted: DicomOutput, run: RunInfo, results: Sequence[LesionResult], volume: CTVolume, folder: Path
    ) -> None:
        self._wanted, self._run, self._results, self._volume, self._folder = wanted, run, results, volume, folder
        self.warnings: list[InputWarning] = []

    def write(self) -> None:
        """Write what is wanted and can be written."""
        datasets = self._tried(lambda: readDatasets(self._wanted.files), *self._all_parts())
        tracking = self._tried(lambda: [highdicom().UID() for _ in self._results], *self._all_parts())
        if datasets is None or tracking is None:
            return
        objects = [LesionObjects(uid) for uid in tracking]
        if self._wanted.segmentation or self._wanted.maps:
            source = self._tried(lambda: sourceSeries(datasets), self._image_part())
            images = source and self._tried(lambda: sourceImages(source, self._volume), self._image_part())
            if source is not None and images is not None:
                self.warnings += source.gaps
                objects = self._with_images(objects, images)
        if self._wanted.report:
            path = self._folder / REPORT_FILE
            gaps = self._tried(
                lambda: writeStructuredReport(path, self._results, self._run, datasets, objects=objects), _REPORT
            )
            self.warnings += gaps or ()

    def _with_images(self, objects: list[LesionObjects], images: Sequence[Dataset]) -> list[LesionObjects]:
        if self._wanted.segmentation and (image := self._segmentation(objects, images)) is not None:
            objects = [replace(of, segmentation=(image, number)) for number, of in enumerate(objects, start=1)]
        if self._wanted.maps:
            maps = self._maps(images)
            objects = [replace(of, heatMap=image) for of, image in zip(objects, maps, strict=True)]
        return objects

    def _segmentation(self, objects: Sequence[LesionObjects], images: Sequence[Dataset]) -> Dataset | None:
        path, uids = self._folder / SEGMENTATION_FILE, [of.trackingUID for of in objects]
        return self._tried(
            lambda: writeSegmentation(path, self._results, self._run, images, self._volume, trackingUIDs=uids),
            _Part(WarningName.DICOM_NOT_WRITTEN, "DICOM segmentation", SEGMENTATION_FILE),
        )

    def _maps(self, images: Sequence[Dataset]) -> list[Dataset | None]:
        series = highdicom().UID()

        def write(number: int, result: LesionResult) -> Dataset | None:
            name = heat_map_file(number, "dcm")
            return self._tried(
                lambda: writeHeatMap(self._folder / name, result, self._run, images, number=number, seriesUID=series),
                _Part(WarningName.DICOM_NOT_WRITTEN, "parametric map", name),
            )

        return [
            None if result.heat_map is None else write(number, result)
            for number, result in enumerate(self._results, start=1)
        ]

    def _tried(self, write: Callable[[], _Written], *parts: _Part) -> _Written | None:
        """What ``write`` returns; None, and a warning for each of ``parts``, where it cannot."""
        try:
            return write()
        except LesionLensError as error:
            why = str(error)
        except MemoryError:
            why = "the memory does not suffice."
        self.warnings += [part.warning(why) for part in parts]
        return None

    def _image_part(self) -> _Part:
        maps = f"{heat_map_file(1, 'dcm')}, …"
        files = [SEGMENTATION_FILE] * self._wanted.segmentation + [maps] * self._wanted.maps
        return _Part(WarningName.DICOM_NOT_WRITTEN, "DICOM image", ", ".join(files))

    def _all_parts(self) -> list[_Part]:
        images = [self._image_part()] if self._wanted.segmentation or self._wanted.maps else []
        return [*images, *([_REPORT] if self._wanted.report else [])]
