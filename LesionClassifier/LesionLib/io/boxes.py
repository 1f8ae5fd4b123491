"""Segments as boxes: every label of a label map becomes a box in the label map's own axes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from .errors import BoxError
from .geometry import CTVolume, LesionBox, transformed_points
from .readers import ijk_to_ras, read_sitk

_SEGMENT_KEY = re.compile(r"Segment(\d+)_LabelValue")
_LARGEST_LABEL = 65_535


def read_segment_boxes(path: Path, *, margin_mm: float) -> list[LesionBox]:
    """Each segment of a label map (NRRD, NIfTI) or a Slicer ``.seg.nrrd`` as a box grown by ``margin_mm`` a side.

    Raises `BoxError` where the file holds no segment, `VolumeError` where it cannot be read.
    """
    image = read_sitk(path)
    labels = sitk.GetArrayFromImage(image)
    is_layered = image.GetNumberOfComponentsPerPixel() > 1
    is_whole = labels.dtype.kind in "iu" or (labels.dtype.kind == "f" and not (labels % 1 != 0).any())
    if image.GetDimension() != 3 or not is_whole or labels.max() > _LARGEST_LABEL:
        msg = (
            f"{path.name} is not a segmentation (whole-numbered labels up to {_LARGEST_LABEL} in 3-D); "
            "give a label map or a .seg.nrrd."
        )
        raise BoxError(msg)
    layers = np.moveaxis(labels, -1, 0) if is_layered else labels[None]
    boxes = []
    for layer, array in enumerate(layers):
        names = _segment_names(image, layer, path.name) or {
            int(v): f"label {int(v)}" for v in np.unique(array) if v > 0
        }
        found = boxes_from_label_array(array.astype(np.int32), ijk_to_ras(image), names, margin_mm=margin_mm)
        boxes.extend(found)
    if not boxes:
        msg = f"{path.name} holds no segment with a voxel in it; give a segmentation of the lesions."
        raise BoxError(msg)
    return boxes


def _segment_names(image: sitk.Image, layer: int, file_name: str) -> dict[int, str]:
    """Label value -> segment name, from the keys that Slicer writes into a ``.seg.nrrd``; empty for other files."""
    names = {}
    for key in image.GetMetaDataKeys():
        match = _SEGMENT_KEY.fullmatch(key)
        if match is None:
            continue
        prefix = f"Segment{match.group(1)}_"
        in_layer = _whole_number(image, prefix + "Layer", file_name) if image.HasMetaDataKey(prefix + "Layer") else 0
        if in_layer == layer:
            named = image.HasMetaDataKey(prefix + "Name")
            names[_whole_number(image, key, file_name)] = (
                image.GetMetaData(prefix + "Name") if named else f"segment {match.group(1)}"
            )
    return names


def _whole_number(image: sitk.Image, key: str, file_name: str) -> int:
    try:
        return int(image.GetMetaData(key))
    except ValueError as error:
        msg = (
            f"{file_name}: {key} is {image.GetMetaData(key)!r}; a whole number is needed. Save the segmentation again."
        )
        raise BoxError(msg) from error


def boxes_from_label_array(
    labels: np.ndarray, ijkToRAS: np.ndarray, names: Mapping[int, str], *, margin_mm: float = 0.0
) -> list[LesionBox]:
    """The tight box of each label in ``names`` that occurs, grown by ``margin_mm`` a side.

    ``labels``: integers, shape (k, j, i). The box is parallel to the lattice; it holds whole voxels. On a sheared lattice
    it is parallel to the slices and holds the segment's voxels and their surroundings. Each box has its label's voxels
    as ``segment``, 0 and 1 on the smallest part of the lattice that holds them.
    """
    boxes = []
    highest = max(names, default=0)
    for label, slices in enumerate(ndimage.find_objects(labels, max_label=highest), start=1):
        if slices is None or label not in names:
            continue
        low = np.array([s.start for s in reversed(slices)]) - 0.5
        high = np.array([s.stop for s in reversed(slices)]) - 0.5
        box = _box(low, high, ijkToRAS, names[label]).grown(margin_mm)
        boxes.append(replace(box, segment=_mask(labels, label, slices, ijkToRAS, names[label])))
    return boxes


def _mask(labels: np.ndarray, label: int, slices: tuple[slice, ...], ijkToRAS: np.ndarray, name: str) -> CTVolume:
    cropToRAS = np.array(ijkToRAS, dtype=float)
    cropToRAS[:3, 3] = transformed_points(cropToRAS, [s.start for s in reversed(slices)])
    return CTVolume((labels[slices] == label).astype(np.uint8), cropToRAS, name)


def _box(low: np.ndarray, high: np.ndarray, ijkToRAS: np.ndarray, name: str) -> LesionBox:
    axes = _right_angled_axes(ijkToRAS)
    corners = np.array(np.meshgrid(*zip(low, high, strict=True), indexing="ij")).reshape(3, 8).T
    in_box_axes = transformed_points(ijkToRAS, corners) @ axes
    near, far = in_box_axes.min(axis=0), in_box_axes.max(axis=0)
    return LesionBox(centerRAS=axes @ ((near + far) / 2), sizeMm=far - near, axesRAS=axes, name=name)


def _right_angled_axes(ijkToRAS: np.ndarray) -> np.ndarray:
    """Unit axes of the lattice; the third is made normal to the slices where the lattice is sheared."""
    first = ijkToRAS[:3, 0] / np.linalg.norm(ijkToRAS[:3, 0])
    third = np.cross(first, ijkToRAS[:3, 1])
    third /= np.linalg.norm(third)
    second = np.cross(third, first)
    return np.stack([first, second, third if third @ ijkToRAS[:3, 2] > 0 else -third], axis=1)
