"""Answers of a scene as files: CSV with stable columns, DICOM structured report (TID 1500, Comprehensive 3D SR).

A report lies beside the series of the CT, whose DICOM files are in Slicer's database, or in a folder. Patient and study are
taken over from the series, as a report must belong to its patient; nothing of them is written to a log or an error.
highdicom comes with Slicer 5.12; elsewhere: ``pip install highdicom``.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from LesionLib import __version__
from LesionLib.errors import InputWarning, LesionLensError, OutputError, WarningName
from LesionLib.geometry import LesionBox
from LesionLib.inference.results import LesionResult, RunInfo, as_csv
from LesionLib.io.private_files import write_private
from LesionLib.sampling.statistics import LesionStatistics
from slicer import vtkMRMLMarkupsROINode, vtkMRMLScalarVolumeNode

from LesionClassifierLib.scene.results import VOLUME_ROLE, storedResult

if TYPE_CHECKING:
    from pydicom import Dataset


_INSTANCES = "DICOM.instanceUIDs"


class StructuredReportError(LesionLensError):
    """A structured report cannot be made: no DICOM origin, files that are gone, or a place that cannot be written."""


class DicomFiles(Protocol):
    """Finds the file of an instance."""

    def fileForInstance(self, instanceUID: str) -> str:
        """Path of the file; empty where it is not known."""


def sourceDatasets(volumeNode: vtkMRMLScalarVolumeNode, files: DicomFiles | None) -> list[Dataset]:
    """The datasets that a volume was loaded from, without pixels. Raises `StructuredReportError` for a volume without."""
    instances = (volumeNode.GetAttribute(_INSTANCES) or "").split()
    if not instances:
        msg = (
            f"{volumeNode.GetName()} was not loaded from DICOM, so there is no study that a structured report could belong "
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
    return readDatasets(paths)


def readDatasets(paths: Iterable[str | Path]) -> list[Dataset]:
    """The files' datasets without pixels. Raises `StructuredReportError`."""
    import pydicom

    try:
        return [pydicom.dcmread(path, stop_before_pixels=True, force=not _isMarked(path)) for path in paths]
    except Exception as error:  # what a damaged file makes of the parser can be anything
        msg = f"a DICOM file of the CT cannot be read ({type(error).__name__}); import the series again."
        raise StructuredReportError(msg) from error


def _isMarked(path: str | Path) -> bool:
    """Whether the file has the 128 bytes and the mark that files of old archives lack."""
    with open(path, "rb") as handle:
        return handle.read(132)[128:] == b"DICM"


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
    volumeNodes = {
        node.GetID(): node for node in (roi.GetNodeReference(VOLUME_ROLE) for roi in roiNodes) if node is not None
    }
    if len(volumeNodes) != 1:
        msg = "the CT of these answers is no longer in the scene; load it and classify again."
        raise OutputError(msg)
    (volumeNode,) = volumeNodes.values()
    for gap in writeStructuredReport(path, results, run, sourceDatasets(volumeNode, files), overwrite=True):
        if warn is not None:
            warn(gap)
    return len(results)


_SCHEME = "99LESIONLENS"
_SERIES_DESCRIPTION = "LesionLens answers: research use only, not for diagnosis"
_SERIES_NUMBER = 9500
_REASON_MEANINGS = {
    WarningName.BOX_SIZE: "Size outside the model's training",
    WarningName.OUT_OF_DISTRIBUTION: "Unlike the model's training lesions",
}
_EVERY_LETTER = "ISO_IR 192"  # UTF-8, whatever the CT's own character set lacks
_RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])


def writeStructuredReport(
    path: Path, results: Sequence[LesionResult], run: RunInfo, sources: Sequence[Dataset], *, overwrite: bool = False
) -> tuple[InputWarning, ...]:
    """Write one report of all lesions. ``sources``: the datasets of the CT's series, without pixels.

    Returns what had to be left empty because the CT's own header is not valid there.

    Raises `StructuredReportError`: nothing to report, unusable sources, highdicom missing, or a file that is there.
    """
    if os.path.exists(path) and not overwrite:
        msg = f"{path} is there already; choose another name or allow overwriting."
        raise StructuredReportError(msg)
    sources, gaps = _completed(sources)
    report = structuredReport(results, run, sources)
    try:
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=".lesionlens-", suffix=".dcm", delete=False
        ) as partial:
            report.save_as(partial, enforce_file_format=True)
        os.replace(partial.name, path)
    except OSError as error:
        msg = f"{path} cannot be written ({error.strerror}); choose a folder that exists and is writable."
        raise StructuredReportError(msg) from error
    except (ValueError, TypeError, AttributeError, LookupError) as error:  # a value that its element cannot hold
        os.unlink(partial.name)
        raise _notFromThisHeader(error) from error
    return gaps


# What a report must have and may leave empty (type 2): anonymised and old headers lack some of it.
_MAY_BE_EMPTY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber", "StudyID",
    "ReferringPhysicianName",
)  # fmt: skip


def _completed(sources: Sequence[Dataset]) -> tuple[list[Dataset], tuple[InputWarning, ...]]:
    """The sources, the first with every element that a report may leave empty; values that are not valid DICOM go.

    Raises `StructuredReportError` for headers that do not say to which study the images belong.
    """
    from copy import deepcopy

    if not sources:
        return [], ()
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"):
        missing = sum(not source.get(keyword) for source in sources)
        if missing:
            msg = (
                f"{missing} of the CT's {len(sources)} DICOM files have no {keyword}, without which a report cannot say what "
                "it belongs to."
            )
            raise StructuredReportError(msg)
    first = deepcopy(sources[0])  # a shallow copy shares its elements with the source
    dropped = []
    for keyword in _MAY_BE_EMPTY:
        if keyword not in first:
            setattr(first, keyword, None)
        elif not _isValid(first, keyword):
            del first[keyword]
            setattr(first, keyword, None)
            dropped.append(keyword)
    for keyword in ("PatientName", "ReferringPhysicianName"):  # decoded by the CT's own character set
        setattr(first, keyword, str(first.get(keyword) or ""))
    first.SpecificCharacterSet = _EVERY_LETTER
    if not dropped:
        return [first, *sources[1:]], ()
    text = (
        f"The structured report leaves {', '.join(dropped)} empty: what the CT's header holds there is not valid DICOM."
    )
    return [first, *sources[1:]], (InputWarning(WarningName.REPORT_GAPS, text),)


def _isValid(source: Dataset, keyword: str) -> bool:
    from pydicom.config import RAISE
    from pydicom.valuerep import validate_value

    try:
        element = source[keyword]
        if element.value:
            validate_value(element.VR, str(element.value), RAISE)
    except Exception:  # a damaged element fails in its own way
        return False
    return True


def _notFromThisHeader(error: Exception) -> StructuredReportError:
    """Of the error only its kind is said: its text may repeat what stands in the header."""
    return StructuredReportError(
        f"the report cannot be written from the headers of this CT ({type(error).__name__}); export the CT again."
    )


def structuredReport(results: Sequence[LesionResult], run: RunInfo, sources: Sequence[Dataset]) -> Dataset:
    """The report as a dataset: of each lesion its box, class, probabilities, scores, prediction set, warnings and algorithm."""
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
    try:
        report = hd.sr.Comprehensive3DSR(
            evidence=[_asEvidence(source) for source in sources],
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
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        raise _notFromThisHeader(error) from error
    report.SpecificCharacterSet = _EVERY_LETTER
    report.SeriesDescription = _SERIES_DESCRIPTION
    report.ManufacturerModelName, report.SoftwareVersions = "LesionLens", run.software[:64] or __version__
    return report


# What a report takes over of whom it is about: enough to be filed with the study. Allergies, alerts, occupation, history,
# comments and the like stay where they are.
_TAKEN_OVER = (
    "PatientName", "PatientID", "IssuerOfPatientID", "TypeOfPatientID", "PatientBirthDate", "PatientSex",
    "PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence",
    "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "StudyDescription", "AccessionNumber",
    "IssuerOfAccessionNumberSequence", "ReferringPhysicianName",
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality",
)  # fmt: skip


def _asEvidence(source: Dataset) -> Dataset:
    """Of an image only what the report may hold: highdicom copies everything that it finds of patient and study."""
    from pydicom import Dataset

    evidence = Dataset()
    for name in _TAKEN_OVER:
        if name in source:
            evidence.add(source[name])
    return evidence


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
        for number, (name, p) in enumerate(result.shown_probabilities.items(), start=1)
    ]
    measurements += _scoreMeasurements(hd, result, run)
    statistics = result.statistics
    if statistics is not None:
        measurements += _measured(hd, statistics)
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
    _addComments(hd, group[0], result, run)
    return group


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
