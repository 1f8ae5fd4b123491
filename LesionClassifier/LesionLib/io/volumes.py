"""Image files and DICOM folders as CT volumes: the one place where LPS becomes RAS.

Of a folder of DICOM files the series is chosen, its slices are sorted, and the geometry is taken from their positions.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from LesionLib.errors import InputWarning, VolumeError, WarningName
from LesionLib.geometry import LPS_TO_RAS, CTVolume
from LesionLib.io.image_files import (
    MAX_VOXELS,
    looks_like_dicom,
    read_header,
    read_image_file,
    require_3d,
    smallest_integers,
)
from LesionLib.io.image_headers import readable_name, require_volume

if TYPE_CHECKING:
    import pydicom

# pydicom, and what reads pixels by it, are imported where a DICOM file is read: half a second that an image file needs not.


def ijk_to_ras(image: sitk.Image) -> np.ndarray:
    """4x4 affine from voxel index to RAS mm of a 3-D SimpleITK image (whose frame is LPS)."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    matrix[:3, 3] = image.GetOrigin()
    return LPS_TO_RAS @ matrix


def read_ct(path: Path, *, series: str | DicomSeries | None = None, nifti_transform: str = "sform") -> CTVolume:
    """As `read_volume`, with unevenly spaced slices mapped to even ones at their real positions: what commands read by."""
    return even_slices(read_volume(path, series=series, nifti_transform=nifti_transform))


def read_volume(path: Path, *, series: str | DicomSeries | None = None, nifti_transform: str = "sform") -> CTVolume:
    """A CT from a DICOM folder or one image file. Raises `VolumeError` with what was found and what to do.

    ``series`` chooses one of several series in a folder, by its place in the list or its UID; or is the one that
    `series_at` found there already, whose headers are not read again. ``nifti_transform``: see `read_header`.
    """
    require_volume(path)
    if os.path.isdir(path):
        found = series if isinstance(series, DicomSeries) else choose_series(path, series)
        return read_series(found, name=readable_name(path.resolve()))
    if series is not None:
        msg = f"{path.name} is one file; --series is for a DICOM folder. Leave it out."
        raise VolumeError(msg)
    return read_image(path, nifti_transform=nifti_transform)


def read_image(path: Path, *, nifti_transform: str = "sform") -> CTVolume:
    """One NRRD, NIfTI, MetaImage or DICOM file as a CT. Raises `VolumeError` for what is not a 3-D grey image."""
    if looks_like_dicom(path):
        return _one_dicom_file(path)
    image = read_image_file(path, nifti_transform=nifti_transform)
    name = readable_name(path)
    if image.array.ndim != 3:
        msg = (
            f"{name}: every voxel has {image.array.shape[3]} values (a colour or vector image); "
            "a CT has one. Give the CT itself."
        )
        raise VolumeError(msg)
    array = smallest_integers(image.array)
    return CTVolume(array, image.header.ijkToRAS, name=name, warnings=image.header.warnings)


def volume_without_voxels(path: Path, *, series: str | None = None) -> CTVolume:
    """Where a CT lies, from its header alone: nothing of its voxels is read.

    A CT of the right size and place whose voxels are all 0 and take no memory. Raises `VolumeError`.
    """
    warnings: tuple[InputWarning, ...] = ()
    if os.path.isdir(path):
        found = choose_series(path, series)
        slices, positions = _sorted_slices(found, readable_name(path))
        size = (int(slices[0].header.Columns), int(slices[0].header.Rows), len(slices))
        to_ras = _ijk_to_ras(slices, positions)
        warnings = _series_warnings(found, slices, positions)
    elif looks_like_dicom(path):
        volume = _one_dicom_file(path)
        size, to_ras, warnings = volume.sizeIJK, volume.ijkToRAS, volume.warnings
    else:
        header = read_header(path)
        require_3d(header)
        if header.components != 1:
            msg = f"{readable_name(path)} has {header.components} values a voxel; a CT has 1"
            raise VolumeError(msg)
        size, to_ras, warnings = header.size, header.ijkToRAS, header.warnings
    return CTVolume(np.broadcast_to(np.int16(0), size[::-1]), to_ras, name=path.name, warnings=warnings)


# --- slices that are not evenly spaced

_MISSING = 1.5  # times the distance around it: a gap where slices are missing
_MAX_MORE_SLICES = 8


def even_slices(volume: CTVolume) -> CTVolume:
    """The CT on even slices at their real positions, with what lies between two slices interpolated.

    The distance is the commonest one. A volume whose slices are even is returned as it is. Raises `VolumeError` where the
    slices lie so far apart that most of the CT would be invented.
    """
    at = volume.slicesAtK
    if at is None:
        return volume
    gaps = np.diff(at)
    step = float(np.median(gaps))
    count = round((at[-1] - at[0]) / step) + 1
    if count > _MAX_MORE_SLICES * len(at) or count * volume.array[0].size > MAX_VOXELS:
        msg = (
            f"{volume.name}: its slices are {gaps.min() * volume.sliceDistanceMm:.2f} to "
            f"{gaps.max() * volume.sliceDistanceMm:.2f} mm apart; these are several stacks. Export each as a series of its own."
        )
        raise VolumeError(msg)
    wanted = np.linspace(at[0], at[-1], count)
    after = np.clip(np.searchsorted(at, wanted, side="right"), 1, len(at) - 1)
    share = ((wanted - at[after - 1]) / gaps[after - 1]).astype(np.float32)
    array = np.empty((count, *volume.array.shape[1:]), volume.array.dtype)
    for k, (upper, weight) in enumerate(zip(after, share, strict=True)):
        mixed = volume.array[upper - 1] * (1 - weight) + volume.array[upper] * weight
        array[k] = np.round(mixed) if array.dtype.kind in "iu" else mixed
    matrix = volume.ijkToRAS.copy()
    new_step = (at[-1] - at[0]) / (count - 1)
    matrix[:3, 2] *= new_step
    missing = tuple((float(at[n] / new_step), float(at[n + 1] / new_step)) for n in _missing_after(gaps))
    return replace(volume, array=array, ijkToRAS=matrix, slicesAtK=None, missingSlices=missing)


def _missing_after(gaps: np.ndarray) -> list[int]:
    """The slices behind which others are missing: the gap is larger than the second largest of the two on either side."""
    found = []
    for n, gap in enumerate(gaps):
        around = np.sort(np.r_[gaps[max(0, n - 2) : n], gaps[n + 1 : n + 3]])
        if len(around) and gap > _MISSING * around[max(0, len(around) - 2)]:
            found.append(n)
    return found


# --- DICOM

_NOT_IMAGES = {
    "SEG": "a segmentation: give it with --segmentation, and the CT itself here",
    "RTSTRUCT": "a structure set: make it a segmentation in 3D Slicer (SlicerRT), and give the CT itself here",
    "SR": "a report: give the CT itself",
    "PR": "a presentation state: give the CT itself",
    "KO": "a note on key images: give the CT itself",
    "REG": "a registration: give the CT itself",
    "RTDOSE": "a dose: give the CT itself",
    "RTPLAN": "a plan: give the CT itself",
}
_DIRECTORY = "1.2.840.10008.1.3.10"
_SIBLINGS = 5000


def _one_dicom_file(path: Path) -> CTVolume:
    """One image of a series, or one file of many frames."""
    name = readable_name(path)
    header = _header(path)
    if path.name.upper() == "DICOMDIR" or (header is not None and _media(header) == _DIRECTORY):
        msg = f"{name} is the index of a disc, not an image; give the folder of the CT series beside it."
        raise VolumeError(msg)
    if header is None:
        msg = f"{name} is a damaged DICOM file; copy it again, or give the folder of its series."
        raise VolumeError(msg)
    series = _series(str(header.get("SeriesInstanceUID") or ""), [_Slice(path, header)], ())
    volume = read_series(series, name=name)
    if _count(header, "NumberOfFrames", name) > 1:
        return volume
    others = [p for p in sorted(path.parent.iterdir())[:_SIBLINGS] if p != path and os.path.isfile(p)]
    found = [_header(p) for p in others if looks_like_dicom(p)]
    same = sum(h is not None and str(h.get("SeriesInstanceUID") or "") == series.uid for h in found)
    if not same:
        return volume
    text = (
        f"{name} is one of {same + 1} images of its series: the lesion is seen in one slice only. "
        "Give the folder to use them all."
    )
    return replace(volume, warnings=(*volume.warnings, InputWarning(WarningName.SINGLE_FILE, text)))


def _media(header: pydicom.Dataset) -> str:
    return str(getattr(getattr(header, "file_meta", None), "MediaStorageSOPClassUID", ""))


_TAGS = [
    "SeriesInstanceUID", "Modality", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns",
    "SeriesNumber", "PatientID", "SliceThickness", "SamplesPerPixel", "NumberOfFrames", "SOPInstanceUID",
    "FrameOfReferenceUID",
    "BitsAllocated", "BitsStored", "PixelRepresentation", "PhotometricInterpretation", "RescaleSlope", "RescaleIntercept",
]  # fmt: skip
_FOR_PEOPLE = ["InstanceNumber", "StudyDate", "SeriesDescription", "ConvolutionKernel"]  # see `series_details`
_UNEVEN_SHARE = 0.05


@dataclass(frozen=True)
class _Slice:
    path: Path
    header: pydicom.Dataset


@dataclass(frozen=True, eq=False)
class DicomSeries:
    """The slices of one series, as found. ``patient_id`` is for excluding the same patient; it is never written.

    ``left_out``: names of files of the folder that are damaged, and may have belonged to it.
    """

    uid: str
    modality: str
    number: str
    patient_id: str
    slices: tuple[_Slice, ...]
    left_out: tuple[str, ...] = ()

    @property
    def frame_of_reference(self) -> str:
        """UID of the frame that positions refer to, "" where the header has none."""
        return str(self.slices[0].header.get("FrameOfReferenceUID") or "")

    @property
    def files(self) -> list[Path]:
        """Where the images are."""
        return [one.path for one in self.slices]

    @property
    def summary(self) -> str:
        """One line for a list to choose from; names nobody."""
        header = self.slices[0].header
        size = f"{header.get('Columns', '?')} x {header.get('Rows', '?')}"
        return (
            f"{self.modality or 'no modality'}, series number {self.number or '?'}, {len(self.slices)} images of {size}"
        )


def find_series(folder: Path) -> list[DicomSeries]:
    """Every series of images under ``folder``, in the order of their UIDs. Raises `VolumeError` where there is none."""
    by_uid: dict[str, list[_Slice]] = {}
    damaged = []
    for path in sorted(p for p in folder.rglob("*") if os.path.isfile(p)):
        if path.name.upper() == "DICOMDIR" or not looks_like_dicom(path):
            continue
        header = _header(path)
        if header is None:
            damaged.append(readable_name(path))
        elif "Rows" in header:
            by_uid.setdefault(str(header.get("SeriesInstanceUID") or ""), []).append(_Slice(path, header))
    if not by_uid:
        also = f" ({len(damaged)} damaged: {', '.join(damaged[:3])})" if damaged else ""
        msg = f"{folder} holds no DICOM images{also}; give the folder of a CT series, or an NRRD or NIfTI file."
        raise VolumeError(msg)
    return [_series(uid, slices, tuple(damaged)) for uid, slices in sorted(by_uid.items())]


def choose_series(folder: Path, wanted: str | None) -> DicomSeries:
    """The only series, or the one ``wanted`` by its place in the list (1, 2, …) or its UID. Raises `VolumeError`."""
    series = find_series(folder)
    images = [one for one in series if one.modality not in _NOT_IMAGES] or series
    if wanted is None and len(images) == 1:
        return images[0]
    for position, candidate in enumerate(series, start=1):
        if wanted is not None and wanted in (str(position), candidate.uid):
            return candidate
    listed = "; ".join(f"{position}: {candidate.summary}" for position, candidate in enumerate(series, start=1))
    what = f"has no series {wanted!r}" if wanted else f"holds {len(series)} series"
    msg = f"{folder} {what}; choose one with --series NUMBER: {listed}."
    raise VolumeError(msg)


def series_at(path: Path, wanted: str | None) -> DicomSeries | None:
    """As `choose_series`; None for what is no folder. The headers are read here, once: hand it to whatever needs the series."""
    return choose_series(path, wanted) if os.path.isdir(path) else None


def read_series(series: DicomSeries, *, name: str) -> CTVolume:
    """The series as a CT in HU, gantry tilt kept as a shear in ``ijkToRAS``, slices at ``slicesAtK`` where they are uneven."""
    if series.modality in _NOT_IMAGES:
        msg = f"{name} is not a CT but {_NOT_IMAGES[series.modality]}."
        raise VolumeError(msg)
    if len(series.slices) == 1 and _count(series.slices[0].header, "NumberOfFrames", name) > 1:
        return _multiframe(series, name)
    from LesionLib.io.dicom_pixels import read_series_pixels

    slices, positions = _sorted_slices(series, name)
    try:
        array = read_series_pixels([s.path for s in slices], [s.header for s in slices], name=name)
    except RuntimeError as error:
        msg = f"{name}: the images of the series cannot be read together; export the series again."
        raise VolumeError(msg) from error
    if array.ndim != 3:
        msg = f"{name}: the series holds {array.ndim}-D or colour images; a CT volume is 3-D and grey."
        raise VolumeError(msg)
    matrix = _ijk_to_ras(slices, positions)
    return CTVolume(
        smallest_integers(array),
        matrix,
        name=name,
        warnings=_series_warnings(series, slices, positions),
        slicesAtK=_uneven(positions),
    )


def _multiframe(series: DicomSeries, name: str) -> CTVolume:
    from LesionLib.io.dicom_pixels import read_multiframe

    header = series.slices[0].header
    _require_sensible(header, name)
    array, to_lps = read_multiframe(series.slices[0].path, name=name)
    if array.ndim != 3:
        msg = f"{name}: the file holds {array.ndim}-D or colour images; a CT volume is 3-D and grey."
        raise VolumeError(msg)
    return CTVolume(
        smallest_integers(array),
        LPS_TO_RAS @ to_lps,
        name=name,
        warnings=(*_modality_warnings(series), *_left_out(series)),
    )


def _series_warnings(series: DicomSeries, slices: Sequence[_Slice], positions: np.ndarray) -> tuple[InputWarning, ...]:
    return (*_modality_warnings(series), *_spacing_warnings(slices[0].header, positions), *_left_out(series))


def _left_out(series: DicomSeries) -> tuple[InputWarning, ...]:
    found = []
    if series.left_out:
        names = ", ".join(series.left_out[:3]) + (" and others" if len(series.left_out) > 3 else "")
        text = f"{len(series.left_out)} damaged DICOM file(s) of the folder were left out: {names}. Copy them again."
        found.append(InputWarning(WarningName.FILES_LEFT_OUT, text))
    if not series.uid:
        text = "The images do not say to which series they belong; all without were taken as one."
        found.append(InputWarning(WarningName.FILES_LEFT_OUT, text))
    return tuple(found)


def _header(path: Path) -> pydicom.Dataset | None:
    """The header, every element of it readable that is needed for the voxels; None for a damaged file."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        with path.open("rb") as handle:
            is_marked = handle.read(132)[128:] == b"DICM"
        header = pydicom.dcmread(
            path, stop_before_pixels=True, specific_tags=[*_TAGS, *_FOR_PEOPLE], force=not is_marked
        )
        for keyword in _TAGS:
            header.get(keyword)
    except (InvalidDicomError, OSError):
        return None
    except Exception:  # what a damaged element makes of the parser can be anything
        return None
    return header if len(header) else None


def _series(uid: str, slices: list[_Slice], left_out: tuple[str, ...]) -> DicomSeries:
    header = slices[0].header
    number, patient = str(header.get("SeriesNumber") or ""), str(header.get("PatientID") or "")
    return DicomSeries(uid, str(header.get("Modality", "")), number, patient, tuple(slices), left_out)


def _sorted_slices(series: DicomSeries, name: str) -> tuple[list[_Slice], np.ndarray]:
    """Slices from the first to the last along their normal, and their positions (n, 3) in LPS mm."""
    for one in series.slices[:1]:
        _require_sensible(one.header, name)
    for key, count in (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6), ("PixelSpacing", 2)):
        if not all(_has_numbers(s.header.get(key), count) for s in series.slices):
            msg = f"{name}: images without {key}; give a CT series with geometry (not a report, a scout or a multi-frame file)."
            raise VolumeError(msg)
    _require_whole_files(series, name)
    first = series.slices[0].header
    if any(_count(s.header, "SamplesPerPixel", name) != 1 for s in series.slices):
        msg = f"{name}: the series holds colour images; give the CT itself."
        raise VolumeError(msg)
    same = all(
        np.allclose(s.header.ImageOrientationPatient, first.ImageOrientationPatient, atol=1e-3)
        and (s.header.Rows, s.header.Columns) == (first.Rows, first.Columns)
        and np.allclose(s.header.PixelSpacing, first.PixelSpacing, rtol=1e-3)
        for s in series.slices
    )
    if not same:
        msg = f"{name}: the images differ in size or direction (a scout among them?); give a folder with one stack of slices."
        raise VolumeError(msg)
    row, column = np.array(first.ImageOrientationPatient, dtype=float).reshape(2, 3)
    positions = np.array([s.header.ImagePositionPatient for s in series.slices], dtype=float)
    depths = positions @ np.cross(row, column)
    order = np.argsort(depths, kind="stable")
    if len(order) > 1 and np.diff(depths[order]).min() < 1e-3:
        instances = [str(s.header.get("SOPInstanceUID") or k) for k, s in enumerate(series.slices)]
        copies = len(instances) - len(set(instances))
        what = f"{copies} files are copies of others; leave the copies out" if copies else "give one phase"
        msg = f"{name}: several images lie at the same place (more than one phase or a 4-D series); {what}."
        raise VolumeError(msg)
    return [series.slices[i] for i in order], positions[order]


def _require_sensible(header: pydicom.Dataset, name: str) -> None:
    """Refuse sizes that no CT has before memory is asked for."""
    try:
        voxels = int(header.get("Rows") or 0) * int(header.get("Columns") or 0) * int(header.get("NumberOfFrames") or 1)
    except (TypeError, ValueError):
        voxels = 0
    if not 0 < voxels <= MAX_VOXELS:
        msg = f"{name}: its header says {header.get('Columns')} x {header.get('Rows')} pixels; the file is damaged."
        raise VolumeError(msg)


def _count(header: pydicom.Dataset, keyword: str, name: str) -> int:
    """A number of something, 1 where the header does not say it. Raises `VolumeError` for what is none."""
    try:
        return int(header.get(keyword) or 1)
    except (TypeError, ValueError) as error:
        msg = f"{name}: {keyword} in its header is {str(header.get(keyword))[:40]!r}; the file is damaged, export it again."
        raise VolumeError(msg) from error


def _has_numbers(value: object, count: int) -> bool:
    try:
        numbers = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        return False
    return numbers.shape == (count,) and bool(np.isfinite(numbers).all())


def _require_whole_files(series: DicomSeries, name: str) -> None:
    """The reader fills up what a file lacks without a word; a CT with invented rows is worse than none."""
    for one in series.slices:
        meta = getattr(one.header, "file_meta", None)
        syntax = getattr(meta, "TransferSyntaxUID", None)
        try:
            if syntax is None or syntax.is_compressed or syntax.is_deflated:
                continue
            needed = int(one.header.Rows) * int(one.header.Columns) * int(one.header.get("BitsAllocated") or 16) // 8
        except (ValueError, TypeError, AttributeError) as error:
            msg = f"{name}: the header of the file {one.path.name} is damaged ({error}); copy the series again."
            raise VolumeError(msg) from error
        if one.path.stat().st_size < needed:
            msg = f"{name}: an image of the series is cut short (file {one.path.name}); copy the series again."
            raise VolumeError(msg)


def _ijk_to_ras(slices: Sequence[_Slice], positions: np.ndarray) -> np.ndarray:
    header = slices[0].header
    row, column = np.array(header.ImageOrientationPatient, dtype=float).reshape(2, 3)
    between_rows, between_columns = (float(s) for s in header.PixelSpacing)
    if len(slices) > 1:
        step = (positions[-1] - positions[0]) / (len(slices) - 1)
    else:
        step = np.cross(row, column) * float(header.get("SliceThickness") or 1.0)
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack([row * between_columns, column * between_rows, step], axis=1)
    matrix[:3, 3] = positions[0]
    return LPS_TO_RAS @ matrix


def _modality_warnings(series: DicomSeries) -> tuple[InputWarning, ...]:
    if series.modality == "CT":
        return ()
    text = f"The series is marked {series.modality or 'without modality'}, not CT: probabilities mean little."
    return (InputWarning(WarningName.MODALITY, text),)


def _spacing_warnings(header: pydicom.Dataset, positions: np.ndarray) -> tuple[InputWarning, ...]:
    if len(positions) < 2:
        thickness = float(header.get("SliceThickness") or 1.0)
        text = f"The series is one slice; its thickness is taken as {thickness:g} mm."
        return (InputWarning(WarningName.SINGLE_SLICE, text),)
    if _uneven(positions) is None:
        return ()
    gaps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    range_mm = f"{gaps.min():.2f} to {gaps.max():.2f} mm"
    holes = [gaps[n] for n in _missing_after(gaps)]
    missing = f" slices are missing in {len(holes)} place(s), up to {max(holes):.1f} mm;" if holes else ""
    text = (
        f"The slices are unevenly spaced ({range_mm});{missing} they are taken at their real positions, and what lies "
        "between two slices is interpolated."
    )
    return (InputWarning(WarningName.UNEVEN_SLICES, text),)


def _uneven(positions: np.ndarray) -> np.ndarray | None:
    """Where the slices lie, in units of their mean distance, (k,); None where they are even."""
    if len(positions) < 3:
        return None
    gaps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    if np.ptp(gaps) <= _UNEVEN_SHARE * np.median(gaps):
        return None
    return np.r_[0.0, np.cumsum(gaps)] * (len(gaps) / gaps.sum())
