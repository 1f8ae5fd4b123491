"""Image files and DICOM folders as CT volumes: the one place where LPS becomes RAS."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from .errors import VolumeError
from .geometry import CTVolume
from .input_warning import InputWarning

if TYPE_CHECKING:
    from .dicom import DicomSeries

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
    `dicom.series_at` found there already, whose headers are not read again.
    """
    if not path.exists():
        msg = f"{path} does not exist; give a DICOM folder or one of {', '.join(IMAGE_SUFFIXES)}."
        raise VolumeError(msg)
    if path.is_dir():
        from .dicom import DicomSeries, choose_series, read_series

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
