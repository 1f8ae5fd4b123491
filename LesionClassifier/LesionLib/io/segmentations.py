"""Segmentations and masks from files: label maps (NRRD, NIfTI, MetaImage), Slicer's ``.seg.nrrd``, DICOM segmentations (SEG).

A mask always lies where its own header says, whatever the CT it belongs to: it is never laid over a CT by array index.
highdicom, which reads DICOM segmentations, comes with Slicer 5.12.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from LesionLib.errors import BoxError, InputWarning, VolumeError, WarningName
from LesionLib.geometry import LPS_TO_RAS, CTVolume, label_mask, lattice_corners, transformed_points
from LesionLib.io.image_files import (
    MAX_VOXELS,
    ImageFile,
    looks_like_dicom,
    read_header,
    read_voxels,
)
from LesionLib.io.image_headers import readable_name

MAX_LABEL = 65_535
SMALLEST_PART_MM3 = 14.0  # a ball of 3 mm
_SEG_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_TAKEN_FROM = 0.5  # of a fractional segment
_SEGMENT_KEY = re.compile(r"Segment(\d+)_(?:LabelValue|ID)")


@dataclass(frozen=True, eq=False)
class SegmentationFile:
    """The segments of a file that hold a voxel: 0 and 1 (uint8), each on the smallest part of its lattice, named as there.

    ``values``: the label value, or the number, of each in the file. ``frame_of_reference``: the UID that a DICOM
    segmentation names, "" for other files.
    """

    masks: tuple[CTVolume, ...]
    values: tuple[int, ...]
    warnings: tuple[InputWarning, ...] = ()
    frame_of_reference: str = ""


@dataclass(frozen=True, eq=False)
class LabelMap:
    """Labels on the whole lattice of a file: ``array`` (k, j, i), ``ijkToRAS`` 4x4 to RAS mm."""

    array: np.ndarray
    ijkToRAS: np.ndarray
    name: str
    warnings: tuple[InputWarning, ...] = ()


def read_segments(path: Path, *, nifti_transform: str = "sform") -> SegmentationFile:
    """Every segment of a file that holds a voxel. Raises `BoxError` where there is none, `VolumeError` for what cannot be read.

    ``path``: a label map, a Slicer ``.seg.nrrd``, a DICOM segmentation, or a folder with one DICOM segmentation in it.
    """
    path = _dicom_in(path)
    found = _dicom_segments(path) if looks_like_dicom(path) else _label_segments(path, nifti_transform)
    if not found.masks:
        msg = f"{readable_name(path)} holds no segment with a voxel in it; give a segmentation of the lesions."
        raise BoxError(msg)
    return found


def read_label_map(path: Path, *, value: int | None = None, nifti_transform: str = "sform") -> LabelMap:
    """A mask file's labels on its own lattice; of a DICOM segmentation the segments' numbers.

    ``value``: the only label that is wanted, which matters where segments overlap. Raises `BoxError` for what is no mask,
    `VolumeError` for what cannot be read.
    """
    path = _dicom_in(path)
    if not looks_like_dicom(path):
        image = _labels(path, nifti_transform)
        if image.array.ndim != 3:
            msg = f"{readable_name(path)} is no mask: a 3-D label map with one value a voxel is needed."
            raise BoxError(msg)
        return LabelMap(image.array, image.header.ijkToRAS, readable_name(path), image.header.warnings)
    segmentation = _opened(path)
    labels, matrix, warnings = None, None, _fraction_warnings(path, segmentation)
    for number, _name, mask, to_ras in _each_segment(path, segmentation):
        if value not in (None, number):
            continue
        labels = np.zeros(mask.shape, np.uint16) if labels is None else labels
        labels[mask] = number
        matrix = to_ras
    if labels is None:
        held = ", ".join(str(number) for number in segmentation.segment_numbers)
        msg = f"{readable_name(path)} has no segment {value} (it holds {held}); check mask and mask_value."
        raise BoxError(msg)
    return LabelMap(labels, matrix, readable_name(path), warnings)


# --- parts, and where a mask lies on a CT


def parts_of(mask: CTVolume, *, smallest_mm3: float = SMALLEST_PART_MM3) -> list[CTVolume]:
    """The connected parts (26 neighbours) of at least ``smallest_mm3``, largest first, each on its own crop of the lattice.

    A mask all of whose parts are smaller gives its largest one.
    """
    return _parts(mask, smallest_mm3)[0]


def _parts(mask: CTVolume, smallest_mm3: float) -> tuple[list[CTVolume], int]:
    """The parts that are large enough, and how many are not."""
    from scipy import ndimage

    labels, count = ndimage.label(mask.array > 0, np.ones((3, 3, 3)))
    if count <= 1:
        return [mask], 0
    sizes = np.bincount(labels.ravel())[1:]
    voxel_mm3 = abs(float(np.linalg.det(mask.ijkToRAS[:3, :3])))
    order = np.argsort(-sizes, kind="stable")
    kept = [int(n) for n in order if sizes[n] * voxel_mm3 >= smallest_mm3] or [int(order[0])]
    slices = ndimage.find_objects(labels)
    return [label_mask(labels, n + 1, slices[n], mask.ijkToRAS, mask.name) for n in kept], count - len(kept)


def split_parts(
    masks: Iterable[CTVolume], *, smallest_mm3: float = SMALLEST_PART_MM3
) -> tuple[list[CTVolume], tuple[InputWarning, ...]]:
    """Every part of every mask as a mask of its own: ``tumour`` in three parts becomes ``tumour 1`` to ``tumour 3``.

    Returns them, and a warning for each mask with parts below ``smallest_mm3``, which are left out.
    """
    found: list[CTVolume] = []
    warnings = []
    for mask in masks:
        parts, dropped = _parts(mask, smallest_mm3)
        if dropped:
            text = f"{dropped} part(s) of {mask.name} are smaller than {smallest_mm3:g} mm³ and were left out."
            warnings.append(InputWarning(WarningName.SEVERAL_PARTS, text))
        if len(parts) == 1:
            found.append(parts[0])
        else:
            found += [replace(part, name=f"{mask.name} {n}") for n, part in enumerate(parts, start=1)]
    return found, tuple(warnings)


def parts_warning(name: str, mask: CTVolume) -> InputWarning | None:
    """What to say of a mask that is several lesions in one box; None for one in one piece."""
    count = len(parts_of(mask))
    if count < 2:
        return None
    text = (
        f"The segment of {name} is in {count} separate parts, and one box holds them all: the answer is for everything in it. "
        "Split it into one segment a lesion (in the panel the tick below Add segments, on the command line --split-parts)."
    )
    return InputWarning(WarningName.SEVERAL_PARTS, text)


def mask_on_lattice(array: np.ndarray, ijkToRAS: np.ndarray, volume: CTVolume) -> np.ndarray:
    """A mask (k, j, i) on its own lattice, as bool on the voxels of ``volume``, by the nearest voxel."""
    if array.shape == volume.array.shape and same_lattice(ijkToRAS, volume):
        return array > 0
    between = np.linalg.inv(ijkToRAS) @ volume.ijkToRAS
    found = np.zeros(volume.array.shape, bool)
    size = np.array(array.shape[::-1])
    j, i = np.mgrid[: volume.sizeIJK[1], : volume.sizeIJK[0]]
    for k in range(volume.sizeIJK[2]):
        index = np.stack([i, j, np.full_like(i, k)], axis=-1)
        at = np.floor(transformed_points(between, index) + 0.5).astype(int)
        inside = ((at >= 0) & (at < size)).all(axis=-1)
        x, y, z = at[inside].T
        found[k][inside] = array[z, y, x] > 0
    return found


def same_lattice(ijkToRAS: np.ndarray, volume: CTVolume) -> bool:
    """Whether a lattice of the volume's size lies on the volume's voxels, to a tenth of a voxel."""
    return _farthest(ijkToRAS, volume.ijkToRAS, volume.sizeIJK) < 0.1 * volume.spacingMm.min()


def lattice_problem(array: np.ndarray, ijkToRAS: np.ndarray, volume: CTVolume) -> str | None:
    """Why a mask cannot belong to the volume, with both geometries; None where it can.

    Another lattice over the same tissue is fine (flipped, cropped, finer). Two headers that contradict each other are not: a
    mask of the volume's own size that lies elsewhere, or labels outside the volume.
    """
    if array.shape == volume.array.shape and same_lattice(ijkToRAS, volume):
        return None
    size = tuple(array.shape[::-1])
    both = f"the mask is {_described(size, ijkToRAS)}, the image {_described(volume.sizeIJK, volume.ijkToRAS)}"
    covered, whole = _corner_set(size, ijkToRAS), _corner_set(volume.sizeIJK, volume.ijkToRAS)
    tolerance = 0.5 * volume.spacingMm.max()
    same_block = all(np.linalg.norm(whole - corner, axis=1).min() < tolerance for corner in covered)
    if array.shape == volume.array.shape and not same_block:
        return f"the mask has the image's size and lies elsewhere: {both}; one of the headers is wrong"
    inside = np.argwhere(array > 0)[:, ::-1]
    if len(inside):
        index = transformed_points(volume.rasToIJK, transformed_points(ijkToRAS, inside))
        outside = ((index < -1.5) | (index > np.array(volume.sizeIJK) + 0.5)).any(axis=1)
        if outside.any():
            return f"{outside.mean():.0%} of the mask lie outside the image: {both}"
    return None


def _farthest(one: np.ndarray, other: np.ndarray, size: Sequence[int]) -> float:
    corners = lattice_corners(size)
    return float(np.linalg.norm(transformed_points(one, corners) - transformed_points(other, corners), axis=1).max())


def _corner_set(size: Sequence[int], matrix: np.ndarray) -> np.ndarray:
    return transformed_points(matrix, lattice_corners(size, beyond=0.5))


def _described(size: Sequence[int], matrix: np.ndarray) -> str:
    corners = _corner_set(size, matrix)
    voxels = " x ".join(map(str, size))
    low, high = corners.min(axis=0), corners.max(axis=0)
    box = ", ".join(f"{a} {lo:.1f} to {hi:.1f}" for a, lo, hi in zip("RAS", low, high, strict=True))
    return f"{voxels} voxels at {box} mm"


# --- label maps


def _labels(path: Path, nifti_transform: str) -> ImageFile:
    header = read_header(path, nifti_transform=nifti_transform)
    if header.ijkToRAS is None:
        raise _no_segmentation(path)
    return read_voxels(header)


def _no_segmentation(path: Path) -> BoxError:
    return BoxError(
        f"{readable_name(path)} is not a segmentation (whole-numbered labels up to {MAX_LABEL} in 3-D); "
        "give a label map or a .seg.nrrd."
    )


def _label_segments(path: Path, nifti_transform: str) -> SegmentationFile:
    image = _labels(path, nifti_transform)
    array, keys = image.array, image.header.keys
    is_whole = array.dtype.kind in "iu" or (array.dtype.kind == "f" and not (array % 1 != 0).any())
    if not is_whole or array.max() > MAX_LABEL:
        raise _no_segmentation(path)
    layers = np.moveaxis(array, -1, 0) if array.ndim == 4 else array[None]
    is_slicers = any(_SEGMENT_KEY.fullmatch(key) for key in keys)
    if not is_slicers and len(layers) > 1 and all(np.array_equal(layers[0], layer) for layer in layers[1:]):
        msg = f"{readable_name(path)} is a grey picture in {len(layers)} colours, not a segmentation; give a label map."
        raise BoxError(msg)
    masks: list[CTVolume] = []
    values: list[int] = []
    unnamed: list[int] = []
    for layer, labels in enumerate(layers):
        there = [int(value) for value in np.unique(labels) if value > 0]
        if is_slicers:
            names = _segment_names(keys, layer, readable_name(path))
            unnamed += [value for value in there if value not in names]
        else:
            names = {value: f"label {value}" for value in there}
        for value, mask in _cropped(labels.astype(np.int32), image.header.ijkToRAS, names):
            masks.append(mask)
            values.append(value)
    warnings = image.header.warnings
    if unnamed:
        listed = ", ".join(map(str, unnamed[:5]))
        text = f"{readable_name(path)}: the label value(s) {listed} belong to no segment of it and were left out."
        warnings = (*warnings, InputWarning(WarningName.SEGMENTATION, text))
    return SegmentationFile(tuple(masks), tuple(values), warnings)


def _segment_names(keys: Mapping[str, str], layer: int, file_name: str) -> dict[int, str]:
    """Label value -> segment name in a layer, from the keys that Slicer writes; empty where none says it.

    Before Slicer 4.11 every segment had a layer of its own, and no key said so.
    """
    numbers = dict.fromkeys(match.group(1) for key in keys if (match := _SEGMENT_KEY.fullmatch(key)))
    is_old = not any(key.endswith("_LabelValue") for key in keys)
    names = {}
    for number in numbers:
        prefix = f"Segment{number}_"
        if not is_old and prefix + "LabelValue" not in keys:
            continue
        value = 1 if is_old else _whole_number(keys, prefix + "LabelValue", file_name)
        default = int(number) if is_old else 0
        in_layer = _whole_number(keys, prefix + "Layer", file_name) if prefix + "Layer" in keys else default
        if in_layer == layer:
            names[value] = keys.get(prefix + "Name", f"segment {number}")
    return names


def _whole_number(keys: Mapping[str, str], key: str, file_name: str) -> int:
    try:
        return int(keys[key])
    except ValueError as error:
        msg = f"{file_name}: {key} is {keys[key]!r}; a whole number is needed. Save the segmentation again."
        raise BoxError(msg) from error


def _cropped(labels: np.ndarray, ijkToRAS: np.ndarray, names: Mapping[int, str]) -> Iterator[tuple[int, CTVolume]]:
    from scipy import ndimage

    highest = min(
        max(names, default=0), int(labels.max(initial=0))
    )  # a name may stand for any number, and take its memory
    for value, slices in enumerate(ndimage.find_objects(labels, max_label=highest), start=1):
        if slices is not None and value in names:
            yield value, label_mask(labels, value, slices, ijkToRAS, names[value])


# --- DICOM segmentations


def _dicom_in(path: Path) -> Path:
    """Of a folder the one DICOM segmentation in it."""
    if not os.path.isdir(path):
        return path
    found = [
        p for p in sorted(path.rglob("*")) if os.path.isfile(p) and looks_like_dicom(p) and _class_of(p) in _SEG_CLASSES
    ]
    if len(found) != 1:
        msg = f"{readable_name(path)} is a folder with {len(found)} DICOM segmentations (SEG) in it; give one file."
        raise BoxError(msg)
    return found[0]


def _class_of(path: Path) -> str:
    from pydicom import dcmread

    try:
        return str(dcmread(path, force=True, specific_tags=["SOPClassUID"]).get("SOPClassUID") or "")
    except Exception:  # whatever a damaged file makes of the parser
        return ""


def _opened(path: Path) -> Any:
    """The file as highdicom's segmentation. Raises `BoxError` for another kind of DICOM file, `VolumeError` for a damaged one."""
    name = readable_name(path)
    kind = _class_of(path)
    if kind not in _SEG_CLASSES:
        what = "RT structure set" if kind.endswith(".481.3") else "DICOM file of another kind"
        msg = (
            f"{name} is not a segmentation but an {what}; give a DICOM segmentation (SEG), a label map or a .seg.nrrd "
            "(in 3D Slicer: load it, convert it to a segmentation, save that)."
        )
        raise BoxError(msg.replace("an DICOM", "a DICOM"))
    try:
        import highdicom
    except ImportError as error:
        msg = f"{name} is a DICOM segmentation, for which highdicom is needed: pip install highdicom."
        raise VolumeError(msg) from error
    try:
        segmentation = highdicom.seg.segread(path)
        geometry = segmentation.get_volume_geometry()
    except Exception as error:  # a damaged file, or one that breaks the standard in its own way
        raise _damaged(path, error) from error
    voxels = 0 if geometry is None else int(np.prod(geometry.spatial_shape, dtype=float))
    if not 0 < voxels <= MAX_VOXELS:
        msg = f"{name}: the frames of this DICOM segmentation are no stack of even slices; save it as a .seg.nrrd."
        raise VolumeError(msg)
    return segmentation


def _damaged(path: Path, error: Exception) -> VolumeError:
    why = " ".join(str(error).split())[:120]
    return VolumeError(
        f"{readable_name(path)} cannot be read as a DICOM segmentation ({type(error).__name__}: {why}); "
        "save it as a .seg.nrrd from 3D Slicer."
    )


def _each_segment(path: Path, segmentation: Any) -> Iterator[tuple[int, str, np.ndarray, np.ndarray]]:
    """Number, name, mask (k, j, i) and its 4x4 from index to RAS, of one segment after the other."""
    for number in segmentation.segment_numbers:
        try:
            label = str(segmentation.get_segment_description(number).segment_label or "").strip()
            volume = segmentation.get_volume(segment_numbers=[number], combine_segments=False)
        except Exception as error:
            raise _damaged(path, error) from error
        array = volume.array[..., 0] if volume.array.ndim == 4 else volume.array
        matrix = np.eye(4)
        matrix[:3] = volume.affine[:3][:, [2, 1, 0, 3]]  # (slice, row, column) to (column, row, slice)
        yield (
            int(number),
            label or f"segment {number}",
            np.asarray(array) >= _TAKEN_FROM,
            LPS_TO_RAS @ matrix,
        )


def _fraction_warnings(path: Path, segmentation: Any) -> tuple[InputWarning, ...]:
    if str(segmentation.segmentation_type.value).upper() != "FRACTIONAL":
        return ()
    text = (
        f"{readable_name(path)} holds fractional segments; voxels of {_TAKEN_FROM:g} and more are taken as the lesion."
    )
    return (InputWarning(WarningName.SEGMENTATION, text),)


def _dicom_segments(path: Path) -> SegmentationFile:
    segmentation = _opened(path)
    masks, values = [], []
    for number, name, mask, to_ras in _each_segment(path, segmentation):
        for _, found in _cropped(mask.astype(np.int32), to_ras, {1: name}):
            masks.append(found)
            values.append(number)
    frame = str(segmentation.get("FrameOfReferenceUID") or "")
    return SegmentationFile(tuple(masks), tuple(values), _fraction_warnings(path, segmentation), frame)
