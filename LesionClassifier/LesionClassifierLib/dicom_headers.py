"""What the headers of a CT give to what is written beside it as DICOM: reports, segmentations, parametric maps.

Patient and study are taken over from the series, as a result must belong to its patient; nothing else of them is, and nothing
of them is written to a log or an error. highdicom comes with Slicer 5.12; elsewhere: ``pip install highdicom``.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from LesionLib import __version__
from LesionLib.errors import InputWarning, LesionLensError, WarningName
from LesionLib.inference.results import RunInfo

if TYPE_CHECKING:
    from pydicom import Dataset

SCHEME = "99LESIONLENS"
EVERY_LETTER = "ISO_IR 192"  # UTF-8, whatever the CT's own character set lacks
_LO = 64  # letters that a long string holds


class StructuredReportError(LesionLensError):
    """A report, or an image beside it, cannot be made: no DICOM origin, files that are gone, a place that cannot be written."""


@dataclass(frozen=True, eq=False)
class SourceSeries:
    """The series that results belong to. ``headers``: of its images, without pixels, the first one completed.

    ``gaps``: what results have to leave empty because the CT's own header is not valid there.
    """

    headers: tuple[Dataset, ...]
    frameOfReference: str
    uid: str
    gaps: tuple[InputWarning, ...] = ()

    @property
    def evidence(self) -> list[Dataset]:
        """Of each image what a result may hold."""
        return [asEvidence(header) for header in self.headers]


@dataclass(frozen=True, eq=False)
class LesionObjects:
    """What is written of one lesion besides its report, for the report to refer to.

    ``trackingUID``: the same wherever the lesion is named. ``segmentation``: the DICOM SEG and the number of its segment there.
    ``heatMap``: the parametric map.
    """

    trackingUID: str
    segmentation: tuple[Dataset, int] | None = None
    heatMap: Dataset | None = None


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


def sourceSeries(datasets: Sequence[Dataset]) -> SourceSeries:
    """The series of these images. Raises `StructuredReportError` where they do not say to which study they belong."""
    headers, gaps = _completed(datasets)
    frame, uid = _commonFrame(headers)
    return SourceSeries(tuple(headers), frame, uid, gaps)


# What a result must have and may leave empty (type 2): anonymised and old headers lack some of it.
_MAY_BE_EMPTY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber", "StudyID",
    "ReferringPhysicianName",
)  # fmt: skip


def _completed(sources: Sequence[Dataset]) -> tuple[list[Dataset], tuple[InputWarning, ...]]:
    """The sources, the first with every element that a result may leave empty; values that are not valid DICOM go."""
    if not sources:
        return [], ()
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"):
        missing = sum(not source.get(keyword) for source in sources)
        if missing:
            msg = (
                f"{missing} of the CT's {len(sources)} DICOM files have no {keyword}, without which a result cannot say what "
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
    first.SpecificCharacterSet = EVERY_LETTER
    if not dropped:
        return [first, *sources[1:]], ()
    text = f"What is written as DICOM leaves {', '.join(dropped)} empty: what the CT's header holds there is not valid DICOM."
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


def _commonFrame(sources: Sequence[Dataset]) -> tuple[str, str]:
    """Frame of reference and series of all sources; they must share both."""
    frames = {str(source.get("FrameOfReferenceUID", "")) for source in sources}
    series = {str(source.get("SeriesInstanceUID", "")) for source in sources}
    if len(frames) != 1 or len(series) != 1 or "" in frames | series:
        msg = (
            f"the CT's {len(sources)} DICOM files name {len(series)} series and {len(frames - {''})} frames of reference; "
            "a result needs one of each. Load the series again from its DICOM files."
        )
        raise StructuredReportError(msg)
    return frames.pop(), series.pop()


# What a result takes over of whom it is about: enough to be filed with the study. Allergies, alerts, occupation, history,
# comments and the like stay where they are.
_TAKEN_OVER = (
    "PatientName", "PatientID", "IssuerOfPatientID", "TypeOfPatientID", "PatientBirthDate", "PatientSex",
    "PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence",
    "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "StudyDescription", "AccessionNumber",
    "IssuerOfAccessionNumberSequence", "ReferringPhysicianName",
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality",
)  # fmt: skip


def asEvidence(source: Dataset) -> Dataset:
    """Of an image only what a result may hold: highdicom copies everything that it finds of patient and study."""
    from pydicom import Dataset

    evidence = Dataset()
    for name in _TAKEN_OVER:
        if name in source:
            evidence.add(source[name])
    return evidence


@contextmanager
def refusingThisHeader() -> Iterator[None]:
    """What a header makes of highdicom and pydicom, as `StructuredReportError`: only its kind is said.

    The text of such an error may repeat what stands in the header.
    """
    try:
        yield
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        if isinstance(error, LesionLensError):
            raise
        msg = f"it cannot be written from the headers of this CT ({type(error).__name__}); export the CT again."
        raise StructuredReportError(msg) from error


def markAsOurs(dataset: Dataset, run: RunInfo, *, seriesDescription: str) -> None:
    """Who made a result, in which characters it is written, and what its series says of itself."""
    dataset.SpecificCharacterSet = EVERY_LETTER
    dataset.SeriesDescription = seriesDescription
    dataset.ManufacturerModelName, dataset.SoftwareVersions = "LesionLens", softwareOf(run)


def softwareOf(run: RunInfo) -> str:
    """What computed a run, as long as an element holds."""
    return inOneLine(run.software) or __version__


def inOneLine(text: str, most: int = _LO) -> str:
    """``text`` as a value of one line holds it: no backslash, which would part it in two, and nothing that cannot be printed."""
    return "".join(letter if letter.isprintable() else " " for letter in text.replace("\\", "/"))[:most].strip()


def saveDataset(dataset: Dataset, path: Path) -> None:
    """Write a DICOM file for its owner only, whole or not at all. Raises `StructuredReportError`."""
    try:
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=".lesionlens-", suffix=".dcm", delete=False
        ) as partial:
            dataset.save_as(partial, enforce_file_format=True)
        os.replace(partial.name, path)
    except OSError as error:
        msg = f"{path} cannot be written ({error.strerror}); choose a folder that exists and is writable."
        raise StructuredReportError(msg) from error
    except (ValueError, TypeError, AttributeError, LookupError):  # a value that its element cannot hold
        os.unlink(partial.name)
        with refusingThisHeader():
            raise


def codes() -> Any:
    """pydicom's table of codes."""
    from pydicom.sr.codedict import codes

    return codes


def highdicom() -> Any:
    """highdicom with its reports, segmentations and maps. Raises `StructuredReportError` where it is not installed."""
    try:
        import highdicom
        import highdicom.pm
        import highdicom.seg
        import highdicom.sr
    except ImportError as error:
        msg = "DICOM results need highdicom, which Slicer 5.12 brings; elsewhere: pip install highdicom."
        raise StructuredReportError(msg) from error
    return highdicom
