"""Where the DICOM files of a CT are: in Slicer's database, or in a folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from LesionLib.errors import LesionLensError
from slicer import vtkMRMLScalarVolumeNode

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
    missing = sum(not path or not Path(path).is_file() for path in paths)
    if missing:
        msg = f"{missing} of the {len(paths)} DICOM files of {volumeNode.GetName()} are gone; import the series again."
        raise StructuredReportError(msg)
    return readDatasets(paths)


def readDatasets(paths: Iterable[str | Path]) -> list[Dataset]:
    """The files' datasets without pixels. Raises `StructuredReportError`."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        return [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]
    except (InvalidDicomError, OSError) as error:
        msg = f"a DICOM file of the CT cannot be read ({type(error).__name__}); import the series again."
        raise StructuredReportError(msg) from error
