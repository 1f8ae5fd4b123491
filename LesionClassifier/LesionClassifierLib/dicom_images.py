"""Lesions and their heat maps as DICOM images on the lattice of their CT: one DICOM SEG, and one parametric map a lesion."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from LesionLib import __version__
from LesionLib.geometry import CTVolume, LesionBox, lattice_corners, transformed_points
from LesionLib.inference.results import LesionResult, RunInfo
from LesionLib.io.segmentations import mask_on_lattice
from LesionLib.model.explanation import METHOD_NAMES

from LesionClassifierLib.dicom_headers import (
    SCHEME,
    SourceSeries,
    StructuredReportError,
    codes,
    highdicom,
    inOneLine,
    markAsOurs,
    refusingThisHeader,
    saveDataset,
)

if TYPE_CHECKING:
    from pydicom import Dataset

_SEGMENTATION_SERIES = "LesionLens lesions: research use only, not for diagnosis"
_MAP_SERIES = "LesionLens heat maps: research use only, not for diagnosis"
_SEGMENTATION_NUMBER, _MAP_NUMBER = 9501, 9502
_NO_SERIAL_NUMBER = "none"  # of a program; the element must not be empty
_MAX_BYTES = 1024**3  # of overlapping segments in memory
_RIGHT_ANGLE = 1e-3
_RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class _Lattice:
    """Where voxels lie, as DICOM says it: steps and directions in LPS mm. ``size``: (i, j, k)."""

    ijkToRAS: np.ndarray
    size: tuple[int, int, int]

    @property
    def orientation(self) -> list[float]:
        """Directions of a row and of a column. Raises `StructuredReportError` where they are not at right angles."""
        steps = self.ijkToRAS[:3, :2].T * _RAS_TO_LPS
        row, column = steps / np.linalg.norm(steps, axis=1, keepdims=True)
        if abs(row @ column) > _RIGHT_ANGLE:
            angle = np.degrees(np.arccos(row @ column))
            msg = f"rows and columns of the CT meet at {angle:.1f} degrees; DICOM images need a right angle."
            raise StructuredReportError(msg)
        return [*row, *column]

    @property
    def spacing(self) -> tuple[float, float]:
        """Between rows, between columns, mm."""
        between_columns, between_rows = np.linalg.norm(self.ijkToRAS[:3, :2], axis=0)
        return float(between_rows), float(between_columns)

    @property
    def sliceDistance(self) -> float:
        """Between slices along their normal, mm."""
        normal = np.cross(self.ijkToRAS[:3, 0], self.ijkToRAS[:3, 1])
        return abs(float(normal @ self.ijkToRAS[:3, 2])) / float(np.linalg.norm(normal))

    def position(self, k: int) -> list[float]:
        """LPS mm of the first voxel of slice ``k``."""
        return list(transformed_points(self.ijkToRAS, [0, 0, k]) * _RAS_TO_LPS)

    @classmethod
    def of(cls, array: np.ndarray, ijkToRAS: np.ndarray) -> _Lattice:
        """Of an array (k, j, i)."""
        return cls(ijkToRAS, tuple(int(n) for n in array.shape[::-1]))


def sourceImages(source: SourceSeries, volume: CTVolume) -> list[Dataset]:
    """The CT's images as what is derived from them refers to them: where they lie, and of their headers what may be taken over.

    ``volume``: the CT that they are; of an image with many frames its header says where each lies. Raises `StructuredReportError`.
    """
    hd = highdicom()
    lattice = _Lattice.of(volume.array, volume.ijkToRAS)
    measures = hd.PixelMeasuresSequence(lattice.spacing, lattice.sliceDistance, lattice.sliceDistance)
    orientation = hd.PlaneOrientationSequence(hd.CoordinateSystemNames.PATIENT, lattice.orientation)
    images = source.evidence
    for header, image in zip(source.headers, images, strict=True):
        image.Rows, image.Columns = lattice.size[1], lattice.size[0]
        with refusingThisHeader():
            if "PerFrameFunctionalGroupsSequence" in header:
                _asFrames(image, header, measures, orientation)
            else:
                image.update(measures[0])
                image.update(orientation[0])
                image.ImagePositionPatient = list(map(float, header.ImagePositionPatient))
    return images


def _asFrames(image: Dataset, header: Dataset, measures: Any, orientation: Any) -> None:
    """Where the frames of one image lie."""
    from pydicom import Dataset

    shared = Dataset()
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = measures, orientation
    frames = []
    for group in header.PerFrameFunctionalGroupsSequence:
        frame = Dataset()
        frame.PlanePositionSequence = group.PlanePositionSequence
        frames.append(frame)
    image.NumberOfFrames = len(frames)
    image.SharedFunctionalGroupsSequence, image.PerFrameFunctionalGroupsSequence = [shared], frames


# --- the lesions as one segmentation


@dataclass(frozen=True, eq=False)
class LesionVoxels:
    """Voxels of the CT that are a lesion.

    ``array``: bool, (k, j, i), from the CT's voxel ``first`` (i, j, k) on. ``isSegment``: the user's own, not a filled box.
    """

    array: np.ndarray
    first: np.ndarray
    isSegment: bool

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """Their place in the CT's array."""
        return tuple(slice(a, a + n) for a, n in zip(self.first[::-1], self.array.shape, strict=True))

    def planes(self) -> Iterator[tuple[int, np.ndarray]]:
        """The k of each slice that holds a voxel, and its voxels (j, i)."""
        return ((k, plane) for k, plane in enumerate(self.array, start=int(self.first[2])) if plane.any())


def writeSegmentation(
    path: Path,
    results: Sequence[LesionResult],
    run: RunInfo,
    images: Sequence[Dataset],
    volume: CTVolume,
    *,
    trackingUIDs: Sequence[str],
) -> Dataset:
    """Write all lesions as one DICOM SEG, segment n being result n, and return it.

    Each is its segment on the voxels of ``volume``, the CT; of a lesion without one its box, filled, named "box of NAME".
    ``images``: the CT's, see `sourceImages`. ``trackingUIDs``: one a result. Raises `StructuredReportError`.
    """
    hd = highdicom()
    voxels = [lesionVoxels(volume, result.box) for result in results]
    lattice = _Lattice.of(volume.array, volume.ijkToRAS)
    described = [
        _segmentDescription(hd, number, result, run, of, trackingUID)
        for number, (result, of, trackingUID) in enumerate(zip(results, voxels, trackingUIDs, strict=True), start=1)
    ]
    frames = _frames(voxels, volume)
    with refusingThisHeader():
        image = hd.seg.Segmentation(
            source_images=images,
            pixel_array=frames.array,
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=described,
            content_label="LESIONS",
            content_description="Lesions that a model was asked about; not for diagnosis",
            **_made(hd, _SEGMENTATION_NUMBER),
            **_placed(hd, replace(lattice, ijkToRAS=_moved(volume.ijkToRAS, frames.first)), frames.ks),
        )
    markAsOurs(image, run, seriesDescription=_SEGMENTATION_SERIES)
    saveDataset(image, path)
    return image


def lesionVoxels(volume: CTVolume, box: LesionBox) -> LesionVoxels:
    """The voxels of the CT that are the lesion: its segment by the nearest voxel, else those whose centres lie in its box.

    A box that holds no centre is the nearest voxel. Of a segment that has no voxel on the CT the box counts.
    """
    if box.segment is not None:
        mask = box.segment
        corners = transformed_points(mask.ijkToRAS, lattice_corners(mask.sizeIJK, beyond=0.5))
        part, first = _partAround(volume, corners)
        found = mask_on_lattice(mask.array, mask.ijkToRAS, part)
        if not found.any():  # finer than the CT: where its own voxels lie
            centers = transformed_points(mask.ijkToRAS, np.argwhere(mask.array > 0)[:, ::-1])
            nearest = np.floor(transformed_points(part.rasToIJK, centers) + 0.5).astype(int)
            i, j, k = nearest[((nearest >= 0) & (nearest < part.sizeIJK)).all(axis=1)].T
            found[k, j, i] = True
        if found.any():
            return LesionVoxels(found, first, isSegment=True)
    part, first = _partAround(volume, box.cornersRAS)
    index = np.stack(np.meshgrid(*map(np.arange, part.sizeIJK), indexing="ij"), axis=-1).T
    inBox = transformed_points(np.linalg.inv(box.boxToRAS) @ part.ijkToRAS, np.moveaxis(index, 0, -1))
    found = (np.abs(inBox) <= box.sizeMm / 2 + 1e-6).all(axis=-1)
    if not found.any():
        nearest = np.floor(transformed_points(part.rasToIJK, box.centerRAS) + 0.5).astype(int)
        found[tuple(np.clip(nearest, 0, np.array(part.sizeIJK) - 1)[::-1])] = True
    return LesionVoxels(found, first, isSegment=False)


def _partAround(volume: CTVolume, pointsRAS: np.ndarray) -> tuple[CTVolume, np.ndarray]:
    """The part of the CT around some points, at least one voxel, and its first voxel (i, j, k)."""
    ijk = transformed_points(volume.rasToIJK, pointsRAS)
    last = np.array(volume.sizeIJK) - 1
    first = np.clip(np.floor(ijk.min(axis=0)), 0, last).astype(int)
    i, j, k = np.clip(np.ceil(ijk.max(axis=0)), first, last).astype(int) + 1
    array = volume.array[first[2] : k, first[1] : j, first[0] : i]
    return CTVolume(array, _moved(volume.ijkToRAS, first), volume.name), first


@dataclass(frozen=True, eq=False)
class _Frames:
    """Slices of the CT that hold a lesion: labels (slice, j, i), or one channel a lesion (slice, j, i, lesion) where they overlap.

    ``ks``: which slices of the CT; ``first``: where they begin on it, (i, j, 0).
    """

    array: np.ndarray
    ks: list[int]
    first: np.ndarray


def _frames(voxels: Sequence[LesionVoxels], volume: CTVolume) -> _Frames:
    """Of whole slices, as not every viewer lays parts of them over a CT; of parts only where whole ones need too much memory."""
    held = np.zeros(volume.sizeIJK[2], bool)
    for of in voxels:
        held[of.slices[0]] |= of.array.any(axis=(1, 2))
    ks = np.flatnonzero(held).tolist()
    row = {k: n for n, k in enumerate(ks)}
    labels = np.zeros((len(ks), *volume.array.shape[1:]), np.uint8 if len(voxels) < 256 else np.uint16)
    for number, of in enumerate(voxels, start=1):
        for k, plane in of.planes():
            into = labels[row[k]][of.slices[1:]]
            if into[plane].any():
                return _overlapping(voxels, volume, ks)
            into[plane] = number
    return _Frames(labels, ks, np.zeros(3, int))


def _overlapping(voxels: Sequence[LesionVoxels], volume: CTVolume, ks: list[int]) -> _Frames:
    low, high = np.zeros(2, int), np.array(volume.sizeIJK[:2])
    if len(ks) * int(high.prod()) * len(voxels) > _MAX_BYTES:
        low = np.min([of.first[:2] for of in voxels], axis=0)
        high = np.max([of.first[:2] + of.array.shape[:0:-1] for of in voxels], axis=0)
    needed = len(ks) * int((high - low).prod()) * len(voxels)
    if needed > _MAX_BYTES:
        msg = (
            f"{len(voxels)} lesions, some of which overlap, on {len(ks)} slices need {needed / 1024**3:.1f} GiB as a segmentation; "
            "classify fewer of them at a time."
        )
        raise StructuredReportError(msg)
    row = {k: n for n, k in enumerate(ks)}
    array = np.zeros((len(ks), *(high - low)[::-1], len(voxels)), np.uint8)
    for number, of in enumerate(voxels):
        inSlice = tuple(slice(s.start - a, s.stop - a) for s, a in zip(of.slices[1:], low[::-1], strict=True))
        for k, plane in of.planes():
            array[row[k]][(*inSlice, number)][plane] = 1
    return _Frames(array, ks, np.array([*low, 0]))


def _segmentDescription(
    hd: Any, number: int, result: LesionResult, run: RunInfo, of: LesionVoxels, trackingUID: str
) -> Dataset:
    """What a segment is: the user's own, or a box that was filled."""
    kinds = hd.seg.SegmentAlgorithmTypeValues
    if of.isSegment:
        label, said, made = result.name, "The segment that the user gave", {"algorithm_type": kinds.MANUAL}
    else:
        label, said = f"box of {result.name}", "The box that the user gave, filled; not the outline of the lesion"
        filled = hd.AlgorithmIdentificationSequence(
            "Box filled with voxels", codes().cid7162.ManualProcessing, __version__, source="LesionLens"
        )
        made = {"algorithm_type": kinds.SEMIAUTOMATIC, "algorithm_identification": filled}
    site = run.finding_site
    description = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=inOneLine(label) or f"lesion {number}",
        segmented_property_category=codes().SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes().SCT.Lesion,
        tracking_uid=trackingUID,
        tracking_id=result.name[:64],
        anatomic_regions=None if site is None else [hd.sr.CodedConcept(site.value, site.scheme, site.meaning)],
        **made,
    )
    description.SegmentDescription = said
    return description


# --- heat maps


def writeHeatMap(
    path: Path, result: LesionResult, run: RunInfo, images: Sequence[Dataset], *, number: int, seriesUID: str
) -> Dataset:
    """Write the heat map of result ``number`` (from 1) as a DICOM parametric map, its values as they are, and return it.

    On the map's own lattice, a part of the CT's. ``images``: the CT's, see `sourceImages`. ``seriesUID``: of all maps of a run.
    Raises `StructuredReportError`, also for a lesion without a map.
    """
    hd = highdicom()
    heatMap = result.heat_map
    if heatMap is None:
        msg = f"{result.name} has no heat map."
        raise StructuredReportError(msg)
    method = METHOD_NAMES[heatMap.method]
    quantity = hd.sr.CodedConcept(
        f"{heatMap.method}-{1 + list(result.probabilities).index(heatMap.class_name)}",
        SCHEME,
        f"{method} heat for {heatMap.class_name}"[:64],
    )
    mapping = hd.pm.RealWorldValueMapping(
        lut_label="HEAT",
        lut_explanation="Share of the strongest place in the box",
        unit=codes().UCUM.NoUnits,
        value_range=(0.0, 1.0),
        slope=1.0,
        intercept=0.0,
        quantity_definition=quantity,
    )
    lattice = _Lattice.of(heatMap.array, heatMap.ijkToRAS)
    with refusingThisHeader():
        image = hd.pm.ParametricMap(
            source_images=images,
            pixel_array=np.ascontiguousarray(heatMap.array, dtype=np.float32),
            contains_recognizable_visual_features=False,
            real_world_value_mappings=[mapping],
            **_shownFrom(hd, 0.0, 1.0),
            content_label="HEATMAP",
            content_description=inOneLine(f"{method} heat for {heatMap.class_name} of {result.name}"),
            **_made(hd, _MAP_NUMBER) | {"series_instance_uid": seriesUID, "instance_number": number},
            **_placed(hd, lattice, range(lattice.size[2])),
        )
    markAsOurs(image, run, seriesDescription=_MAP_SERIES)
    image.Laterality = ""  # of paired organs; a part of the body is not named here
    image.DerivationDescription = inOneLine(
        f"{method} for {heatMap.class_name}, {result.name}, by {run.model_name} {run.model_version}, sha256 {run.model_sha256}; "
        f"1 stands for {heatMap.peak:.6g}. Research use only, not for diagnosis.",
        1024,
    )
    saveDataset(image, path)
    return image


# --- what both share


def _shownFrom(hd: Any, low: float, high: float) -> dict[str, Any]:
    """The window of a map, as the installed highdicom takes it: until 0.27, which Slicer 5.12 brings, as two numbers."""
    center, width = (low + high) / 2, high - low
    if "voi_lut_transformations" in signature(hd.pm.ParametricMap).parameters:
        return {"voi_lut_transformations": [hd.VOILUTTransformation(window_center=center, window_width=width)]}
    return {"window_center": center, "window_width": width}


def _made(hd: Any, seriesNumber: int) -> dict[str, Any]:
    return {
        "series_instance_uid": hd.UID(),
        "series_number": seriesNumber,
        "sop_instance_uid": hd.UID(),
        "instance_number": 1,
        "manufacturer": "LesionLens",
        "manufacturer_model_name": "LesionLens",
        "software_versions": __version__,
        "device_serial_number": _NO_SERIAL_NUMBER,
    }


def _placed(hd: Any, lattice: _Lattice, ks: Sequence[int]) -> dict[str, Any]:
    """Where the slices ``ks`` of a lattice lie: each at its own position, so that a gantry's tilt is kept."""
    patient = hd.CoordinateSystemNames.PATIENT
    return {
        "pixel_measures": hd.PixelMeasuresSequence(lattice.spacing, lattice.sliceDistance, lattice.sliceDistance),
        "plane_orientation": hd.PlaneOrientationSequence(patient, lattice.orientation),
        "plane_positions": [hd.PlanePositionSequence(patient, lattice.position(k)) for k in ks],
    }


def _moved(ijkToRAS: np.ndarray, first: np.ndarray) -> np.ndarray:
    moved = np.array(ijkToRAS, dtype=float)
    moved[:3, 3] = transformed_points(ijkToRAS, first)
    return moved
