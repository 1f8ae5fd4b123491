"""One lesion as the network sees it, with what is measured of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from LesionLib.errors import VolumeError
from LesionLib.geometry import CTVolume, LesionBox, transformed_points
from LesionLib.lesion_statistics import lesion_statistics
from LesionLib.sampling import AxialStack
from LesionLib.sampling_kinds import Sample, cut, network_input
from LesionLib.sampling_planes import KeySliceSpec, PlaneSample, key_slice

from .lesion_row import LesionRow
from .photographs import PhotographSpec, photograph_input
from .picture_kinds import PictureSpec
from .sources import Photograph, StoredCube

# By the network's own input lesions could not be told apart: masks of 4 mm, or soft tissue alone, are all alike.
_LOOK = KeySliceSpec(size=64, spacing_mm=0.8, windows_hu=((-1000.0, 400.0),))
_PLAIN = PhotographSpec(size=64)
_NOT_KNOWN = np.full(3, np.nan)


@dataclass(frozen=True, eq=False)
class CutLesion:
    """``pictures``: float32 network input; ``look``: a plane by which the lesion would be recognised, uint8 (row, column),

    whatever the input is; the rest as in `PictureSet`, for one lesion.
    """

    pictures: np.ndarray
    size_mm: np.ndarray
    volume_mm3: float
    mean_hu: float
    spacing_mm: np.ndarray
    target: np.ndarray
    look: np.ndarray


def cut_row(row: LesionRow, read: Any, spec: PictureSpec) -> CutLesion:
    """The lesion of ``row``; ``read`` is what its source's ``read()`` gave. Raises `BoxError`, `VolumeError`."""
    source = row.source
    if isinstance(source, Photograph):
        shown = photograph_input(read, spec)
        unknown = (_NOT_KNOWN, np.nan, np.nan, _NOT_KNOWN, np.full(4, np.nan))
        return CutLesion(shown, *unknown, _look(photograph_input(read, _PLAIN)[0].mean(axis=0)))
    if isinstance(source, StoredCube):
        return _stored_cube(source, read[source.index], spec)
    return _ct_lesion(read, source.lesion(read, name=row.lesion_id), spec)


def target_in_picture(sample: Sample, box: LesionBox) -> np.ndarray:
    """The box in its picture: (row, column, rows, columns) in pixels, from the picture's upper left edge.

    A pixel r lies inside where row <= r + 0.5 < row + rows. NaN for cubes, and where channels are planes of their own.
    """
    if isinstance(sample, AxialStack):
        to_ras = sample.sampleToRAS
    elif isinstance(sample, PlaneSample) and len(sample.mapped_channels) == 1:
        to_ras = sample.sampleToRAS[0, sample.mapped_channels[0]]
    else:
        return np.full(4, np.nan)
    pixels = transformed_points(np.linalg.inv(to_ras), box.cornersRAS)[:, :2]
    (left, top), (right, bottom) = pixels.min(axis=0) + 0.5, pixels.max(axis=0) + 0.5
    return np.array([top, left, bottom - top, right - left])


def _ct_lesion(volume: CTVolume, box: LesionBox, spec: PictureSpec) -> CutLesion:
    sample = cut(volume, box, spec)
    measured = lesion_statistics(volume, box)
    return CutLesion(
        pictures=network_input(sample, spec),
        size_mm=np.array(box.sizeMm),
        volume_mm3=1000.0 * measured.volume_ml,
        mean_hu=measured.hu_mean,
        spacing_mm=np.array(volume.spacingMm),
        target=target_in_picture(sample, box),
        look=_look(network_input(key_slice(volume, box, _LOOK), _LOOK)[0, 0]),
    )


def _stored_cube(source: StoredCube, cube: np.ndarray, spec: PictureSpec) -> CutLesion:
    if cube.shape != (spec.voxels,) * 3:
        msg = f"the cubes of {source.archive.name} have {cube.shape} voxels, the input wants {spec.voxels} a side."
        raise VolumeError(msg)
    voxel_mm = source.edge_mm / spec.voxels
    size_mm, volume_mm3 = _NOT_KNOWN, np.nan
    if source.is_mask:
        _require_same_edge(source, spec)
        inside = cube > 127
        shown = inside.astype(np.float32)
        volume_mm3 = float(inside.sum()) * voxel_mm**3
        if inside.any():
            size_mm = np.ptp(np.argwhere(inside), axis=0)[::-1] * voxel_mm + voxel_mm
    else:
        shown = cube.astype(np.float32) / 127.5 - 1.0
    return CutLesion(
        pictures=shown[None, None],
        size_mm=size_mm,
        volume_mm3=volume_mm3,
        mean_hu=np.nan,
        spacing_mm=np.full(3, voxel_mm, dtype=float),
        target=np.full(4, np.nan),
        look=cube[len(cube) // 2],
    )


def _look(plane: np.ndarray) -> np.ndarray:
    """-1 ... 1 as 0 ... 255."""
    return np.round((plane + 1.0) * 127.5).astype(np.uint8)


def _require_same_edge(source: StoredCube, spec: PictureSpec) -> None:
    if np.isfinite(source.edge_mm) and abs(source.edge_mm - spec.edge_mm) > 1e-6:
        msg = (
            f"the cubes of {source.archive.name} are {source.edge_mm:g} mm long, the input says edge_mm: {spec.edge_mm:g}; "
            "the model would see lesions of another size in use."
        )
        raise VolumeError(msg)
