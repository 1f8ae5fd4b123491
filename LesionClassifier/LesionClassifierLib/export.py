"""Answers of a scene as files: CSV with stable columns, DICOM structured report (TID 1500, Comprehensive 3D SR).

A report lies beside the series of the CT, whose DICOM files are in Slicer's database, or in a folder; what it takes over from
their headers is in `dicom_headers`. Where the lesions are written as a segmentation, or their heat maps as parametric maps
(`dicom_images`), it refers to them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from LesionLib.errors import InputWarning, OutputError, WarningName
from LesionLib.geometry import LesionBox
from LesionLib.inference.results import LesionResult, RunInfo, as_csv
from LesionLib.io.private_files import write_private
from LesionLib.sampling.statistics import LesionStatistics
from slicer import vtkMRMLMarkupsROINode, vtkMRMLScalarVolumeNode

from LesionClassifierLib.dicom_headers import SCHEME as _SCHEME
from LesionClassifierLib.dicom_headers import (
    LesionObjects,
    SourceSeries,
    StructuredReportError,
    asEvidence,
    markAsOurs,
    readDatasets,
    refusingThisHeader,
    saveDataset,
    softwareOf,
    sourceSeries,
)
from LesionClassifierLib.dicom_headers import codes as _codes
from LesionClassifierLib.dicom_headers import highdicom as _highdicom
from LesionClassifierLib.scene.results import VOLUME_ROLE, storedResult

if TYPE_CHECKING:
    from pydicom import Dataset


_INSTANCES = "DICOM.instanceUIDs"


class DicomFiles(Protocol):
    """Finds the file of an instance."""

    def fileForInstance(self, instanceUID: str) -> str:
        """Path of the file; empty where it is not known."""


def sourceDatasets(volumeNode: vtkMRMLScalarVolumeNode, files: DicomFiles | None) -> list[Dataset]:
    """The datasets that a volume was loaded from, without pixels. Raises `StructuredReportError` for a volume without."""
    return readDatasets(sourceFiles(volumeNode, files))


def sourceFiles(volumeNode: vtkMRMLScalarVolumeNode, files: DicomFiles | None) -> list[Path]:
    """The DICOM files that a volume was loaded from. Raises `StructuredReportError` for a volume without."""
    instances = (volumeNode.GetAttribute(_INSTANCES) or "").split()
    if not instances:
        msg = (
            f"{volumeNode.GetName()} was not loaded from DICOM, so there is no study that DICOM results could belong "
            "to; load the CT through Slicer's DICOM module, or export CSV."
        )
        raise StructuredReportError(msg)
    if files is None:
        msg = "Slicer's DICOM database is not open; open the DICOM module once, then export again."
        raise StructuredReportError(msg)
    paths = [files.fileForInstance(instance) for instance in instances]
    missing = sum(not path or not os.path.isfile(path) for path in paths)
    if missing:
        msg = f"{missing} of the {len(paths)} DICOM files of {volumeNode.GetName()} are gone; import the series again."
        raise StructuredReportError(msg)
    return [Path(path) for path in paths]


def volumeOfLesions(roiNodes: Sequence[vtkMRMLMarkupsROINode]) -> vtkMRMLScalarVolumeNode:
    """The CT that the lesions' answers are of. Raises `OutputError` where it is gone, or where there are several."""
    volumeNodes = {
        node.GetID(): node for node in (roi.GetNodeReference(VOLUME_ROLE) for roi in roiNodes) if node is not None
    }
    if len(volumeNodes) != 1:
        msg = "the CT of these answers is no longer in the scene; load it and classify again."
        raise OutputError(msg)
    (volumeNode,) = volumeNodes.values()
    return volumeNode


def resultsOfLesions(
    roiNodes: Sequence[vtkMRMLMarkupsROINode], *, answerAnyway: bool = False
) -> tuple[RunInfo, list[LesionResult]]:
    """The answers on the lesions' nodes, heat maps left out. Raises `OutputError` without any, or with two models' answers.

    Without a label where the model abstains, unless ``answerAnyway``.
    """
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
    results = [found.result for found in stored]
    return stored[0].run, [one.answered_anyway if answerAnyway else one.without_abstained for one in results]


def exportCsv(path: Path, roiNodes: Sequence[vtkMRMLMarkupsROINode], *, answerAnyway: bool = False) -> int:
    """Write one row a lesion that was asked about, and return how many. Raises `OutputError`."""
    run, results = resultsOfLesions(roiNodes, answerAnyway=answerAnyway)
    try:
        write_private(path, as_csv(run, results))
    except OSError as error:
        msg = f"{path} cannot be written ({error.strerror}); choose another place."
        raise OutputError(msg) from error
    return len(results)


def exportReport(
    path: Path,
    roiNodes: Sequence[vtkMRMLMarkupsROINode],
    files: DicomFiles | None,
    *,
    answerAnyway: bool = False,
    warn: Callable[[InputWarning], None] | None = None,
) -> int:
    """Write a DICOM structured report of all lesions that were asked about, and return how many.

    ``files``: where the DICOM files of the CT are. ``warn`` is told what the report had to leave empty. Raises `OutputError`, or
    `StructuredReportError` for a CT without DICOM.
    """

    run, results = resultsOfLesions(roiNodes, answerAnyway=answerAnyway)
    sources = sourceDatasets(volumeOfLesions(roiNodes), files)
    for gap in writeStructuredReport(path, results, run, sources, overwrite=True):
        if warn is not None:
            warn(gap)
    return len(results)


_SERIES_DESCRIPTION = "LesionLens answers: research use only, not for diagnosis"
_SERIES_NUMBER = 9500
_REASON_MEANINGS = {
    WarningName.BOX_SIZE: "Size outside the model's training",
    WarningName.OUT_OF_DISTRIBUTION: "Unlike the model's training lesions",
}
_RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])


def writeStructuredReport(
    path: Path,
    results: Sequence[LesionResult],
    run: RunInfo,
    sources: Sequence[Dataset],
    *,
    overwrite: bool = False,
    objects: Sequence[LesionObjects] = (),
) -> tuple[InputWarning, ...]:
    """Write one report of all lesions. ``sources``: the datasets of the CT's series, without pixels.

    ``objects``: what else is written of each lesion, one entry a result; none where there is only the report. Returns what had to
    be left empty because the CT's own header is not valid there.

    Raises `StructuredReportError`: nothing to report, unusable sources, highdicom missing, or a file that is there.
    """
    if os.path.exists(path) and not overwrite:
        msg = f"{path} is there already; choose another name or allow overwriting."
        raise StructuredReportError(msg)
    source = sourceSeries(sources)
    saveDataset(structuredReport(results, run, source, objects), path)
    return source.gaps


def structuredReport(
    results: Sequence[LesionResult], run: RunInfo, source: SourceSeries, objects: Sequence[LesionObjects] = ()
) -> Dataset:
    """The report as a dataset: of each lesion its box, class, probabilities, scores, prediction set, warnings and algorithm.

    Where ``objects`` has a segment of a lesion it is the lesion's region, and the box stands beside it; else the box is.
    """
    hd = _highdicom()
    if not results:
        msg = "there is no answer to report; classify first."
        raise StructuredReportError(msg)
    objects = objects or [LesionObjects(hd.UID()) for _ in results]
    groups = [_lesionGroup(hd, result, run, source, of) for result, of in zip(results, objects, strict=True)]
    observer = hd.sr.ObserverContext(
        observer_type=_codes().DCM.Device,
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
            uid=hd.UID(), name="LesionLens", manufacturer_name="LesionLens", model_name=softwareOf(run)
        ),
    )
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=observer),
        procedure_reported=hd.sr.CodedConcept("25045-6", "LN", "CT unspecified body region"),
        imaging_measurements=groups,
        title=_codes().DCM.ImagingMeasurementReport,
    )
    with refusingThisHeader():
        report = hd.sr.Comprehensive3DSR(
            evidence=[*source.evidence, *(asEvidence(image) for image in _imagesOf(objects))],
            content=content[0],
            series_instance_uid=hd.UID(),
            series_number=_SERIES_NUMBER,
            sop_instance_uid=hd.UID(),
            instance_number=1,
            manufacturer="LesionLens",
            is_complete=True,
            is_final=False,
            is_verified=False,
        )
    markAsOurs(report, run, seriesDescription=_SERIES_DESCRIPTION)
    return report


def _imagesOf(objects: Sequence[LesionObjects]) -> list[Dataset]:
    """The segmentation and the maps, each once."""
    segmentations = [of.segmentation[0] for of in objects if of.segmentation is not None]
    return [*segmentations[:1], *(of.heatMap for of in objects if of.heatMap is not None)]


def boxPolygonsLPS(box: LesionBox) -> list[np.ndarray]:
    """The two faces of a box across its z axis as closed polygons of five points in LPS mm: together its eight corners."""
    around = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]]) * box.sizeMm[:2] / 2
    faces = []
    for side in (-1, 1):
        inBox = np.column_stack([around, np.full(5, side * box.sizeMm[2] / 2)])
        faces.append((inBox @ box.axesRAS.T + box.centerRAS) * _RAS_TO_LPS)
    return faces


def _lesionGroup(hd: Any, result: LesionResult, run: RunInfo, source: SourceSeries, of: LesionObjects) -> Any:
    codes = _codes()
    measurements = [
        hd.sr.Measurement(
            name=hd.sr.CodedConcept(f"p-{number}", _SCHEME, f"Probability of {name}"[:64]),
            value=round(p, 6),
            unit=codes.UCUM.NoUnits,
        )
        for number, (name, p) in enumerate(result.shown_probabilities.items(), start=1)
    ]
    measurements += _scoreMeasurements(hd, result, run)
    statistics = result.statistics
    if statistics is not None:
        measurements += _measured(hd, statistics)
    group = hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid=of.trackingUID, identifier=result.name[:64]),
        **_region(hd, result, source, of),
        finding_type=codes.SCT.Lesion,
        finding_sites=_findingSites(hd, run),
        algorithm_id=_algorithm(hd, run),
        measurements=measurements,
        qualitative_evaluations=_evaluations(hd, result),
    )
    _addReferences(hd, group[0], result, source, of)
    _addComments(hd, group[0], result, run)
    return group


def _algorithm(hd: Any, run: RunInfo) -> Any:
    """The model. Maker and family are added here: highdicom takes them itself only since 0.28, and Slicer 5.12 brings 0.27."""
    of = hd.sr.RelationshipTypeValues.HAS_CONCEPT_MOD
    algorithm = hd.sr.AlgorithmIdentification(
        name=run.model_name[:64],
        version=run.model_version,
        parameters=[f"sha256={run.model_sha256}", f"device={run.device}"],
    )
    maker, family = (
        hd.sr.CodedConcept(value, "DCM", meaning)
        for value, meaning in (("122405", "Algorithm Manufacturer"), ("111000", "Algorithm Family"))
    )
    algorithm.append(hd.sr.TextContentItem(maker, "LesionLens", relationship_type=of))
    algorithm.append(hd.sr.CodeContentItem(family, _codes().DCM.ArtificialIntelligence, relationship_type=of))
    return algorithm


def _region(hd: Any, result: LesionResult, source: SourceSeries, of: LesionObjects) -> dict[str, Any]:
    """Where the lesion is: one of a segment and a surface, as the template wants."""
    series = hd.sr.SourceSeriesForSegmentation(source.uid)
    if of.segmentation is not None:
        image, number = of.segmentation
        segment = hd.sr.ReferencedSegment(image.SOPClassUID, image.SOPInstanceUID, number, source_series=series)
        return {"referenced_segment": segment}
    surface = hd.sr.VolumeSurface(
        graphic_type=hd.sr.GraphicTypeValues3D.POLYGON,
        graphic_data=boxPolygonsLPS(result.box),
        frame_of_reference_uid=source.frameOfReference,
        source_series=series,
    )
    return {"referenced_volume_surface": surface}


def _findingSites(hd: Any, run: RunInfo) -> list[Any] | None:
    site = run.finding_site
    if site is None:
        return None
    return [hd.sr.FindingSite(hd.sr.CodedConcept(site.value, site.scheme, site.meaning))]


def _addReferences(hd: Any, group: Dataset, result: LesionResult, source: SourceSeries, of: LesionObjects) -> None:
    """The heat map, and beside a segment the box: that is what the model was asked about."""
    contains = hd.sr.RelationshipTypeValues.CONTAINS
    items = []
    if of.segmentation is not None:
        items += [
            hd.sr.Scoord3DContentItem(
                name=hd.sr.CodedConcept("box", _SCHEME, "Face of the box that the model was asked about"),
                graphic_type=hd.sr.GraphicTypeValues3D.POLYGON,
                graphic_data=face,
                frame_of_reference_uid=source.frameOfReference,
                relationship_type=contains,
            )
            for face in boxPolygonsLPS(result.box)
        ]
    if of.heatMap is not None:
        illustration = hd.sr.CodedConcept("121200", "DCM", "Illustration of ROI")
        image = of.heatMap
        items.append(
            hd.sr.ImageContentItem(illustration, image.SOPClassUID, image.SOPInstanceUID, relationship_type=contains)
        )
    group.ContentSequence.extend(items)


def _measured(hd: Any, known: LesionStatistics) -> list[Any]:
    """Volume, density and diameters of a segment; of a box its contents, under codes that say so: no size of a lesion."""
    codes, hounsfield = _codes(), hd.sr.CodedConcept("[hnsf'U]", "UCUM", "Hounsfield unit")
    volume, density = codes.SCT.Volume, hd.sr.CodedConcept("112031", "DCM", "Attenuation Coefficient")
    if known.measured_in == "box":
        volume = hd.sr.CodedConcept("box-volume", _SCHEME, "Volume of the box, not of the lesion")
        density = hd.sr.CodedConcept("box-attenuation", _SCHEME, "Attenuation of the contents of the box")
    found = [
        hd.sr.Measurement(volume, round(known.volume_ml, 4), hd.sr.CodedConcept("mL", "UCUM", "mL")),
        hd.sr.Measurement(density, round(known.hu_mean, 2), hounsfield, derivation=codes.SCT.Mean),
    ]
    if known.diameters is not None:
        lengths = {
            codes.SCT.LongAxis: known.diameters.longest_mm,
            codes.SCT.ShortAxis: known.diameters.perpendicular_mm,
        }
        found += [hd.sr.Measurement(name, round(mm, 2), codes.UCUM.Millimeter) for name, mm in lengths.items()]
        mean = round(known.diameters.mean_mm, 2)
        found.append(hd.sr.Measurement(codes.SCT.Diameter, mean, codes.UCUM.Millimeter, derivation=codes.SCT.Mean))
    return found


def _scoreMeasurements(hd: Any, result: LesionResult, run: RunInfo) -> list[Any]:
    """Each score as a number on its scale, under the code that its model names for it, else under one of ours."""
    measurements = []
    for number, spec in enumerate(run.scores, start=1):
        if spec.name not in result.shown_scores:
            continue
        if spec.code is None:
            name = hd.sr.CodedConcept(f"score-{number}", _SCHEME, f"Score of {spec.name}"[:64])
        else:
            name = hd.sr.CodedConcept(spec.code.value, spec.code.scheme, spec.code.meaning)
        unit = hd.sr.CodedConcept(f"{{{spec.low}:{spec.high}}}", "UCUM", f"range: {spec.low}:{spec.high}")
        measurements.append(hd.sr.Measurement(name, round(result.shown_scores[spec.name], 4), unit))
    return measurements


def _evaluations(hd: Any, result: LesionResult) -> list[Any]:
    numbers = {name: number for number, name in enumerate(result.probabilities, start=1)}

    def classItem(code: str, meaning: str, name: str) -> Any:
        value = hd.sr.CodedConcept(f"class-{numbers[name]}", _SCHEME, name[:64])
        return hd.sr.QualitativeEvaluation(hd.sr.CodedConcept(code, _SCHEME, meaning), value)

    reasons = [
        hd.sr.QualitativeEvaluation(
            hd.sr.CodedConcept("no-answer-reason", _SCHEME, "Reason why the model has no answer"),
            hd.sr.CodedConcept(str(code), _SCHEME, _REASON_MEANINGS[code]),
        )
        for code in result.abstention
    ]
    if not result.label:
        value = hd.sr.CodedConcept("no-answer", _SCHEME, "No answer")
        answer = hd.sr.QualitativeEvaluation(hd.sr.CodedConcept("answer", _SCHEME, "Answered class"), value)
        return [answer, *reasons]
    answered = [classItem("answer", "Answered class", result.label), *reasons]
    kept = result.reliability.prediction_set or ()
    return answered + [classItem("not-ruled-out", "Class that cannot be ruled out", name) for name in kept]


def _addComments(hd: Any, group: Dataset, result: LesionResult, run: RunInfo) -> None:
    described = [sentence] if (sentence := result.sentence(run.scores)) else []
    texts = ["Research use only, not for diagnosis.", *described, *result.messages, *result.score_notes(run.scores)]
    for text in [*texts, *result.warnings]:
        item = hd.sr.TextContentItem(
            name=_codes().DCM.Comment, value=str(text), relationship_type=hd.sr.RelationshipTypeValues.CONTAINS
        )
        group.ContentSequence.append(item)
