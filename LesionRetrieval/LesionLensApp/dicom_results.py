"""What ``lesionlens classify`` writes as DICOM beside a DICOM CT: lesions as a SEG, heat maps as parametric maps, a report.

Each on its own: what cannot be written is a warning on the results, and takes nothing else along.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from LesionClassifierLib.dicom_headers import (
    LesionObjects,
    StructuredReportError,
    highdicom,
    readDatasets,
    sourceSeries,
)
from LesionClassifierLib.dicom_images import sourceImages, writeHeatMap, writeSegmentation
from LesionClassifierLib.export import writeStructuredReport
from LesionLib.errors import InputWarning, LesionLensError, WarningName
from LesionLib.geometry import CTVolume
from LesionLib.inference.results import LesionResult, RunInfo, heat_map_file
from LesionLib.io.volumes import DicomSeries

if TYPE_CHECKING:
    from pydicom import Dataset

REPORT_FILE, SEGMENTATION_FILE = "results.dcm", "lesions.seg.dcm"
_OPTIONS = {"dicom_sr": "--dicom-sr", "dicom_seg": "--dicom-seg", "dicom_map": "--dicom-map"}
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


def wanted_output(options: argparse.Namespace, series: DicomSeries | None) -> DicomOutput:
    """What the command's options ask for. Raises `StructuredReportError` where the CT is no DICOM series."""
    given = [name for attribute, name in _OPTIONS.items() if getattr(options, attribute)]
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
