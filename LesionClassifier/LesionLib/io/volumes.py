"""Image files and DICOM folders as CT volumes: the one place where LPS becomes RAS.

Of a folder of DICOM files the series is chosen, its slices are sorted, and the geometry is taken from their positions.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.errors import InvalidDicomError

from LesionLib.errors import InputWarning, VolumeError, WarningName
from LesionLib.geometry import CTVolume

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_NIFTI_FLOATS = {16: "f4", 64: "f8"}  # the header's datatype codes
IMAGE_SUFFIXES = (".nrrd", ".nhdr", ".nii", ".nii.gz", ".mha", ".mhd")


def ijk_to_ras(image: sitk.Image) -> np.ndarray:
    """4x4 affine from voxel index to RAS mm of a 3-D SimpleITK image (whose frame is LPS)."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    matrix[:3, 3] = image.GetOrigin()
    return LPS_TO_RAS @ matrix


def read_volume(path: Path, *, series: str | DicomSeries | None = None) -> CTVolume:
    """A CT from a DICOM folder or one image file. Raises `VolumeError` with what was found and what to do.

    ``series`` chooses one of several series in a folder, by its place in the list or its UID; or is the one that
    `series_at` found there already, whose headers are not read again.
    """
    if not path.exists():
        msg = f"{path} does not exist; give a DICOM folder or one of {', '.join(IMAGE_SUFFIXES)}."
        raise VolumeError(msg)
    if path.is_dir():
        found = series if isinstance(series, DicomSeries) else choose_series(path, series)
        return read_series(found, name=path.resolve().name)
    if series is not None:
        msg = f"{path.name} is one file; --series is for a DICOM folder. Leave it out."
        raise VolumeError(msg)
    return read_image(path)


def read_image(path: Path) -> CTVolume:
    """One NRRD, NIfTI or MetaImage file as a CT. Raises `VolumeError` for what is not a 3-D grey image."""
    return volume_from_image(read_sitk(path), name=path.name)


def read_sitk(path: Path) -> sitk.Image:
    """The file as SimpleITK reads it, with a readable error (`VolumeError`)."""
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        msg = f"{path} cannot be read as an image; give a DICOM folder or one of {', '.join(IMAGE_SUFFIXES)}."
        raise VolumeError(msg) from error
    if path.name.lower().endswith((".nii", ".nii.gz")):
        _require_sound_nifti(path, image)
    return image


def _require_sound_nifti(path: Path, image: sitk.Image) -> None:
    """Look at the file's own bytes: the NIfTI reader fills up missing voxels, and turns NaN into 0, without a word."""
    bits, offset, kind = (int(float(image.GetMetaData(key))) for key in ("bitpix", "vox_offset", "datatype"))
    needed = offset + image.GetNumberOfPixels() * bits // 8
    if kind not in _NIFTI_FLOATS:
        held, not_finite = _nifti_size(path), 0
    else:
        held, not_finite = _nifti_floats(path, offset, np.dtype(_NIFTI_FLOATS[kind]))
    if held < needed:
        msg = f"{path} is cut short or damaged; copy it again."
        raise VolumeError(msg)
    if not_finite:
        msg = f"{path.name}: {not_finite} voxels are NaN or infinite; replace them (for example by -1000 HU) first."
        raise VolumeError(msg)


def _nifti_chunks(path: Path) -> Iterator[bytes]:
    """The unpacked bytes of a .nii or .nii.gz, as far as they can be read."""
    with path.open("rb") as handle:
        is_packed = handle.read(2) == b"\x1f\x8b"
    with gzip.open(path) if is_packed else path.open("rb") as handle:
        try:
            while chunk := handle.read(2**20):
                yield chunk
        except (OSError, EOFError, zlib.error):
            return


def _nifti_size(path: Path) -> int:
    return sum(len(chunk) for chunk in _nifti_chunks(path))


def _nifti_floats(path: Path, offset: int, dtype: np.dtype) -> tuple[int, int]:
    """Bytes in the file, and how many of its numbers are not finite."""
    held = not_finite = 0
    left = b""
    for number, chunk in enumerate(_nifti_chunks(path)):
        held += len(chunk)
        if number == 0:
            is_little = int.from_bytes(chunk[:4], "little") in (348, 540)
            dtype = dtype.newbyteorder("<" if is_little else ">")
        whole = left + (chunk[offset:] if number == 0 else chunk)
        usable = len(whole) // dtype.itemsize * dtype.itemsize
        not_finite += int((~np.isfinite(np.frombuffer(whole[:usable], dtype))).sum())
        left = whole[usable:]
    return held, not_finite


def volume_from_image(image: sitk.Image, *, name: str, warnings: tuple[InputWarning, ...] = ()) -> CTVolume:
    """Check what only the image knows (dimensions, colour) and hand over array and geometry."""
    if image.GetNumberOfComponentsPerPixel() != 1:
        msg = (
            f"{name}: every voxel has {image.GetNumberOfComponentsPerPixel()} values (a colour or vector image); "
            "a CT has one. Give the CT itself."
        )
        raise VolumeError(msg)
    if image.GetDimension() != 3:
        msg = f"{name}: the image has {image.GetDimension()} dimensions; a CT volume has 3. Give one 3-D volume."
        raise VolumeError(msg)
    return CTVolume(sitk.GetArrayFromImage(image), ijk_to_ras(image), name=name, warnings=warnings)


_TAGS = [
    "SeriesInstanceUID", "Modality", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns",
    "SeriesNumber", "PatientID", "SliceThickness", "SamplesPerPixel", "NumberOfFrames",
    "BitsAllocated",
]  # fmt: skip
_UNEVEN_SHARE = 0.05


@dataclass(frozen=True)
class _Slice:
    path: Path
    header: pydicom.Dataset


@dataclass(frozen=True, eq=False)
class DicomSeries:
    """The slices of one series, as found. ``patient_id`` is for excluding the same patient; it is never written."""

    uid: str
    modality: str
    number: str
    patient_id: str
    slices: tuple[_Slice, ...]

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
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        header = _header(path)
        if header is not None and "Rows" in header and header.get("SeriesInstanceUID"):
            by_uid.setdefault(str(header.SeriesInstanceUID), []).append(_Slice(path, header))
    if not by_uid:
        msg = f"{folder} holds no DICOM images; give the folder of a CT series, or an NRRD or NIfTI file."
        raise VolumeError(msg)
    return [_series(uid, slices) for uid, slices in sorted(by_uid.items())]


def choose_series(folder: Path, wanted: str | None) -> DicomSeries:
    """The only series, or the one ``wanted`` by its place in the list (1, 2, …) or its UID. Raises `VolumeError`."""
    series = find_series(folder)
    if wanted is None and len(series) == 1:
        return series[0]
    for place, candidate in enumerate(series, start=1):
        if wanted is not None and wanted in (str(place), candidate.uid):
            return candidate
    listed = "; ".join(f"{place}: {candidate.summary}" for place, candidate in enumerate(series, start=1))
    what = f"has no series {wanted!r}" if wanted else f"holds {len(series)} series"
    msg = f"{folder} {what}; choose one with --series NUMBER: {listed}."
    raise VolumeError(msg)


def series_at(path: Path, wanted: str | None) -> DicomSeries | None:
    """As `choose_series`; None for what is no folder. The headers are read here, once: hand it to whatever needs the series."""
    return choose_series(path, wanted) if path.is_dir() else None


def read_series(series: DicomSeries, *, name: str) -> CTVolume:
    """The series as a CT in HU (rescale applied by the reader), gantry tilt kept as a shear in ``ijkToRAS``."""
    slices, positions = _sorted_slices(series, name)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(s.path) for s in slices])
    try:
        array = sitk.GetArrayFromImage(reader.Execute())
    except RuntimeError as error:
        msg = f"{name}: the images of the series cannot be read together; export the series again."
        raise VolumeError(msg) from error
    if array.ndim != 3:
        msg = f"{name}: the series holds {array.ndim}-D or colour images; a CT volume is 3-D and grey."
        raise VolumeError(msg)
    warnings = (*_modality_warnings(series), *_spacing_warnings(slices[0].header, positions))
    return CTVolume(_smallest_integers(array), _ijk_to_ras(slices, positions), name=name, warnings=warnings)


def _header(path: Path) -> pydicom.Dataset | None:
    try:
        return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
    except (InvalidDicomError, OSError, ValueError, EOFError):
        return None


def _series(uid: str, slices: list[_Slice]) -> DicomSeries:
    header = slices[0].header
    number, patient = str(header.get("SeriesNumber") or ""), str(header.get("PatientID") or "")
    return DicomSeries(uid, str(header.get("Modality", "")), number, patient, tuple(slices))


def _sorted_slices(series: DicomSeries, name: str) -> tuple[list[_Slice], np.ndarray]:
    """Slices from the first to the last along their normal, and their positions (n, 3) in LPS mm."""
    for key, count in (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6), ("PixelSpacing", 2)):
        if not all(_has_numbers(s.header.get(key), count) for s in series.slices):
            msg = f"{name}: images without {key}; give a CT series with geometry (not a report, a scout or a multi-frame file)."
            raise VolumeError(msg)
    _require_whole_files(series, name)
    first = series.slices[0].header
    if any(int(s.header.get("SamplesPerPixel") or 1) != 1 for s in series.slices):
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
        msg = f"{name}: several images lie at the same place (more than one phase or a 4-D series); give one phase."
        raise VolumeError(msg)
    return [series.slices[i] for i in order], positions[order]


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
        if syntax is None or syntax.is_compressed:
            continue
        needed = int(one.header.Rows) * int(one.header.Columns) * int(one.header.get("BitsAllocated") or 16) // 8
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


def _smallest_integers(array: np.ndarray) -> np.ndarray:
    """int16 where that loses nothing: the reader gives 32 bits to rescaled values, twice the memory of a CT."""
    fits = array.dtype.kind in "iu" and array.min() >= -(2**15) and array.max() < 2**15
    return array.astype(np.int16) if fits else array


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
    gaps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    if np.ptp(gaps) <= _UNEVEN_SHARE * np.median(gaps):
        return ()
    range_mm = f"{gaps.min():.2f} to {gaps.max():.2f} mm"
    text = f"The slices are unevenly spaced ({range_mm}; slices missing?): places along the body axis can be off."
    return (InputWarning(WarningName.UNEVEN_SLICES, text),)
