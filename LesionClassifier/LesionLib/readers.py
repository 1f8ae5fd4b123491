"""Image files and DICOM folders as CT volumes: the one place where LPS becomes RAS."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .errors import VolumeError
from .geometry import CTVolume
from .input_warning import InputWarning

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
IMAGE_SUFFIXES = (".nrrd", ".nhdr", ".nii", ".nii.gz", ".mha", ".mhd")


def ijk_to_ras(image: sitk.Image) -> np.ndarray:
    """4x4 affine from voxel index to RAS mm of a 3-D SimpleITK image (whose frame is LPS)."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    matrix[:3, 3] = image.GetOrigin()
    return LPS_TO_RAS @ matrix


def read_volume(path: Path, *, series: str | None = None) -> CTVolume:
    """A CT from a DICOM folder or one image file. Raises `VolumeError` with what was found and what to do.

    ``series`` chooses one of several series in a folder, by its place in the list or its UID.
    """
    if not path.exists():
        msg = f"{path} does not exist; give a DICOM folder or one of {', '.join(IMAGE_SUFFIXES)}."
        raise VolumeError(msg)
    if path.is_dir():
        from .dicom import choose_series, read_series

        return read_series(choose_series(path, series), name=path.resolve().name)
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
    if path.name.lower().endswith((".nii", ".nii.gz")) and not _is_whole_nifti(path, image):
        msg = f"{path} is cut short or damaged; copy it again."
        raise VolumeError(msg)
    return image


def _is_whole_nifti(path: Path, image: sitk.Image) -> bool:
    """Whether the file holds all its voxels: the NIfTI reader fills up what is missing without a word."""
    bits, offset = (float(image.GetMetaData(k)) if image.HasMetaDataKey(k) else 0 for k in ("bitpix", "vox_offset"))
    needed = offset + image.GetNumberOfPixels() * bits / 8
    with path.open("rb") as handle:
        is_packed = handle.read(2) == b"\x1f\x8b"
    if not is_packed:
        return path.stat().st_size >= needed
    held = 0
    try:
        with gzip.open(path) as handle:
            while chunk := handle.read(2**20):
                held += len(chunk)
    except (OSError, EOFError, zlib.error):
        return False
    return held >= needed


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
