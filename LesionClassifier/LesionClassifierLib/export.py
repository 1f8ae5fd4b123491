"""Answers as a DICOM structured report (TID 1500, Comprehensive 3D SR) beside the series of the CT.

Patient and study are taken over from the series, as a report must belong to its patient; nothing of them is written to a
log or an error. highdicom comes with Slicer 5.12; elsewhere: ``pip install highdicom``.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from LesionLib import __version__
from LesionLib.geometry import LesionBox
from LesionLib.results import LesionResult, RunInfo

from .structured_report_sources import StructuredReportError

if TYPE_CHECKING:
    from pydicom import Dataset

_SCHEME = "99LESIONLENS"
_SERIES_DESCRIPTION = "LesionLens answers: research use only, not for diagnosis"
_SERIES_NUMBER = 9500
_RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])


def writeStructuredReport(
    path: Path, results: Sequence[LesionResult], run: RunInfo, sources: Sequence[Dataset], *, overwrite: bool = False
) -> None:
    """Write one report of all lesions. ``sources``: the datasets of the CT's series, without pixels.

    Raises `StructuredReportError`: nothing to report, unusable sources, highdicom missing, or a file that is there.
    """
    if path.exists() and not overwrite:
        msg = f"{path} is there already; choose another name or allow overwriting."
        raise StructuredReportError(msg)
    report = structuredReport(results, run, sources)
    try:
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=".lesionlens-", suffix=".dcm", delete=False
        ) as partial:
            report.save_as(partial, enforce_file_format=True)
        os.chmod(partial.name, 0o644)  # temporary files are for their owner only
        os.replace(partial.name, path)
    except OSError as error:
        msg = f"{path} cannot be written ({error.strerror}); choose a folder that exists and is writable."
        raise StructuredReportError(msg) from error


def structuredReport(results: Sequence[LesionResult], run: RunInfo, sources: Sequence[Dataset]) -> Dataset:
    """The report as a dataset: of each lesion its box, class, probabilities, prediction set, warnings and algorithm."""
    hd = _highdicom()
    if not results:
        msg = "there is no answer to report; classify first."
        raise StructuredReportError(msg)
    frame, series = _commonFrame(sources)
    groups = [_lesionGroup(hd, result, run, frame, series) for result in results]
    observer = hd.sr.ObserverContext(
        observer_type=_codes().DCM.Device,
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
            uid=hd.UID(), name="LesionLens", manufacturer_name="LesionLens", model_name=run.software[:64] or __version__
        ),
    )
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=observer),
        procedure_reported=hd.sr.CodedConcept("25045-6", "LN", "CT unspecified body region"),
        imaging_measurements=groups,
        title=_codes().DCM.ImagingMeasurementReport,
    )
    report = hd.sr.Comprehensive3DSR(
        evidence=list(sources),
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
    report.SeriesDescription = _SERIES_DESCRIPTION
    report.ManufacturerModelName, report.SoftwareVersions = "LesionLens", run.software[:64] or __version__
    return report


def boxPolygonsLPS(box: LesionBox) -> list[np.ndarray]:
    """The two faces of a box across its z axis as closed polygons of five points in LPS mm: together its eight corners."""
    around = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]]) * box.sizeMm[:2] / 2
    faces = []
    for side in (-1, 1):
        inBox = np.column_stack([around, np.full(5, side * box.sizeMm[2] / 2)])
        faces.append((inBox @ box.axesRAS.T + box.centerRAS) * _RAS_TO_LPS)
    return faces


def _lesionGroup(hd: Any, result: LesionResult, run: RunInfo, frame: str, series: str) -> Any:
    codes = _codes()
    measurements = [
        hd.sr.Measurement(
            name=hd.sr.CodedConcept(f"p-{number}", _SCHEME, f"Probability of {name}"[:64]),
            value=round(p, 6),
            unit=codes.UCUM.NoUnits,
        )
        for number, (name, p) in enumerate(result.probabilities.items(), start=1)
    ]
    statistics = result.statistics
    if statistics is not None:
        volume = hd.sr.Measurement(
            codes.SCT.Volume, round(statistics.volume_ml, 4), hd.sr.CodedConcept("mL", "UCUM", "mL")
        )
        density = hd.sr.Measurement(
            hd.sr.CodedConcept("112031", "DCM", "Attenuation Coefficient"),
            round(statistics.hu_mean, 2),
            hd.sr.CodedConcept("[hnsf'U]", "UCUM", "Hounsfield unit"),
            derivation=codes.SCT.Mean,
        )
        measurements += [volume, density]
    group = hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid=hd.UID(), identifier=result.name[:64]),
        referenced_volume_surface=hd.sr.VolumeSurface(
            graphic_type=hd.sr.GraphicTypeValues3D.POLYGON,
            graphic_data=boxPolygonsLPS(result.box),
            frame_of_reference_uid=frame,
            source_series=hd.sr.SourceSeriesForSegmentation(series),
        ),
        finding_type=codes.SCT.Lesion,
        algorithm_id=hd.sr.AlgorithmIdentification(
            name=run.model_name[:64],
            version=run.model_version,
            parameters=[f"sha256={run.model_sha256}", f"device={run.device}"],
            family=codes.DCM.ArtificialIntelligence,
            manufacturer="LesionLens",
        ),
        measurements=measurements,
        qualitative_evaluations=_evaluations(hd, result),
    )
    _addComments(hd, group[0], result)
    return group


def _evaluations(hd: Any, result: LesionResult) -> list[Any]:
    places = {name: number for number, name in enumerate(result.probabilities, start=1)}

    def said(code: str, meaning: str, name: str) -> Any:
        value = hd.sr.CodedConcept(f"class-{places[name]}", _SCHEME, name[:64])
        return hd.sr.QualitativeEvaluation(hd.sr.CodedConcept(code, _SCHEME, meaning), value)

    answered = [said("answer", "Answered class", result.label)]
    kept = result.reliability.prediction_set or ()
    return answered + [said("not-ruled-out", "Class that cannot be ruled out", name) for name in kept]


def _addComments(hd: Any, group: Dataset, result: LesionResult) -> None:
    texts = ["Research use only, not for diagnosis.", *result.reliability.sentences(tuple(result.probabilities))]
    for text in [*texts, *result.warnings]:
        item = hd.sr.TextContentItem(
            name=_codes().DCM.Comment, value=str(text), relationship_type=hd.sr.RelationshipTypeValues.CONTAINS
        )
        group.ContentSequence.append(item)


def _commonFrame(sources: Sequence[Dataset]) -> tuple[str, str]:
    """Frame of reference and series of all sources; they must share both."""
    frames = {str(source.get("FrameOfReferenceUID", "")) for source in sources}
    series = {str(source.get("SeriesInstanceUID", "")) for source in sources}
    if len(frames) != 1 or len(series) != 1 or "" in frames | series:
        msg = (
            f"the CT's {len(sources)} DICOM files name {len(series)} series and {len(frames - {''})} frames of reference; "
            "a report needs one of each. Load the series again from its DICOM files."
        )
        raise StructuredReportError(msg)
    return frames.pop(), series.pop()


def _codes() -> Any:
    from pydicom.sr.codedict import codes

    return codes


def _highdicom() -> Any:
    try:
        import highdicom
        import highdicom.sr
    except ImportError as error:
        msg = "structured reports need highdicom, which Slicer 5.12 brings; elsewhere: pip install highdicom."
        raise StructuredReportError(msg) from error
    return highdicom
