"""Where a CT lies, from its header alone: nothing of its voxels is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from LesionLib.dicom import choose_series
from LesionLib.errors import VolumeError
from LesionLib.geometry import CTVolume
from LesionLib.readers import LPS_TO_RAS, ijk_to_ras


def volume_without_voxels(path: Path, *, series: str | None = None) -> CTVolume:
    """A CT of the right size and place whose voxels are all 0 and take no memory. Raises `VolumeError`."""
    if path.is_dir():
        size, to_ras = _dicom_lattice(path, series)
    else:
        size, to_ras = _file_lattice(path)
    return CTVolume(np.broadcast_to(np.int16(0), size[::-1]), to_ras, name=path.name)


def _file_lattice(path: Path) -> tuple[tuple[int, ...], np.ndarray]:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        msg = f"{path} cannot be read as an image"
        raise VolumeError(msg) from error
    if reader.GetDimension() != 3 or reader.GetNumberOfComponents() != 1:
        what = f"{reader.GetDimension()} dimensions and {reader.GetNumberOfComponents()} values a voxel"
        msg = f"{path.name} has {what}; a CT has 3 and 1"
        raise VolumeError(msg)
    direction = np.array(reader.GetDirection()).reshape(3, 3)
    empty = sitk.Image(1, 1, 1, sitk.sitkUInt8)
    empty.SetSpacing(reader.GetSpacing())
    empty.SetOrigin(reader.GetOrigin())
    empty.SetDirection(direction.ravel().tolist())
    return reader.GetSize(), ijk_to_ras(empty)


def _dicom_lattice(folder: Path, series: str | None) -> tuple[tuple[int, ...], np.ndarray]:
    headers = [one.header for one in choose_series(folder, series).slices]
    try:
        row, column = np.array(headers[0].ImageOrientationPatient, dtype=float).reshape(2, 3)
        positions = np.array([header.ImagePositionPatient for header in headers], dtype=float).reshape(-1, 3)
        between_rows, between_columns = (float(value) for value in headers[0].PixelSpacing)
        size = (int(headers[0].Columns), int(headers[0].Rows), len(headers))
        thickness = float(headers[0].get("SliceThickness") or 1.0)
    except (AttributeError, TypeError, ValueError) as error:
        msg = f"{folder.name}: images without position, orientation or pixel size; give a CT series"
        raise VolumeError(msg) from error
    normal = np.cross(row, column)
    positions = positions[np.argsort(positions @ normal, kind="stable")]
    step = (positions[-1] - positions[0]) / (len(headers) - 1) if len(headers) > 1 else normal * thickness
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack([row * between_columns, column * between_rows, step], axis=1)
    matrix[:3, 3] = positions[0]
    return size, LPS_TO_RAS @ matrix
