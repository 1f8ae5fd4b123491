"""What ``lesionlens classify`` writes as DICOM beside a DICOM CT: lesions as a SEG, heat maps as parametric maps, a report.

Each on its own: what cannot be written is a warning on the results, and takes nothing else along.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from LesionClassifierLib.dicom_headers import (
    LesionObjects,
    SourceSeries,
    StructuredReportError,
    highdicom,
    readDatasets,
    sourceSeries,
)
from LesionClassifierLib.dicom_images import writeHeatMap, writeSegmentation
from LesionClassifierLib.export import writeStructuredReport
from LesionLib.errors import InputWarning, WarningName
from LesionLib.geometry import CTVolume
from LesionLib.inference.results import LesionResult, RunInfo, heat_map_file
from LesionLib.io.volumes import DicomSeries

REPORT_FILE, SEGMENTATION_FILE = "results.dcm", "lesions.seg.dcm"
_OPTIONS = {"dicom_sr": "--dicom-sr", "dicom_seg": "--dicom-seg", "dicom_map": "--dicom-map"}
_Written = TypeVar("_Written")


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
        self._datasets = []

    def write(self) -> None:
        try:
            self._datasets = readDatasets(self._wanted.files)
            hd = highdicom()
            objects = [LesionObjects(hd.UID()) for _ in self._results]
            if self._wanted.segmentation or self._wanted.maps:
                objects = self._with_images(objects)
        except StructuredReportError as error:  # nothing can be read or made
            self._failed_all(error)
            return
        if self._wanted.report:
            self._tried(WarningName.REPORT_NOT_WRITTEN, "structured report", REPORT_FILE, lambda: self._report(objects))

    def _with_images(self, objects: list[LesionObjects]) -> list[LesionObjects]:
        what = (WarningName.DICOM_NOT_WRITTEN, "DICOM image", self._image_files())
        source = self._tried(*what, lambda: sourceSeries(self._datasets))
        if source is None:
            return objects
        self.warnings += source.gaps
        if self._wanted.segmentation:
            objects = self._with_segments(objects, source)
        return self._with_maps(objects, source) if self._wanted.maps else objects

    def _with_segments(self, objects: list[LesionObjects], source: SourceSeries) -> list[LesionObjects]:
        def write():
            tracking = [of.trackingUID for of in objects]
            path = self._folder / SEGMENTATION_FILE
            return writeSegmentation(path, self._results, self._run, source, self._volume, trackingUIDs=tracking)

        image = self._tried(WarningName.DICOM_NOT_WRITTEN, "DICOM segmentation", SEGMENTATION_FILE, write)
        if image is None:
            return objects
        return [replace(of, segmentation=(image, number)) for number, of in enumerate(objects, start=1)]

    def _with_maps(self, objects: list[LesionObjects], source: SourceSeries) -> list[LesionObjects]:
        series = highdicom().UID()
        with_maps = []
        for number, (result, of) in enumerate(zip(self._results, objects, strict=True), start=1):
            name = heat_map_file(number, "dcm")

            def write(result=result, number=number, name=name):
                path = self._folder / name
                return writeHeatMap(path, result, self._run, source, self._volume, number=number, seriesUID=series)

            image = None
            if result.heat_map is not None:
                image = self._tried(WarningName.DICOM_NOT_WRITTEN, "parametric map", name, write)
            with_maps.append(replace(of, heatMap=image))
        return with_maps

    def _report(self, objects: Sequence[LesionObjects]) -> None:
        path = self._folder / REPORT_FILE
        self.warnings += writeStructuredReport(path, self._results, self._run, self._datasets, objects=objects)

    def _tried(self, name: WarningName, what: str, file: str, write: Callable[[], _Written]) -> _Written | None:
        try:
            return write()
        except StructuredReportError as error:
            self._failed(name, what, file, error)
            return None

    def _failed(self, name: WarningName, what: str, file: str, error: StructuredReportError) -> None:
        text = f"There is no {what} ({file}): {error} All other results were written."
        self.warnings.append(InputWarning(name, text))

    def _failed_all(self, error: StructuredReportError) -> None:
        if self._wanted.segmentation or self._wanted.maps:
            self._failed(WarningName.DICOM_NOT_WRITTEN, "DICOM image", self._image_files(), error)
        if self._wanted.report:
            self._failed(WarningName.REPORT_NOT_WRITTEN, "structured report", REPORT_FILE, error)

    def _image_files(self) -> str:
        maps = heat_map_file(1, "dcm") + ", …"
        files = [SEGMENTATION_FILE] * self._wanted.segmentation + [maps] * self._wanted.maps
        return ", ".join(files)
