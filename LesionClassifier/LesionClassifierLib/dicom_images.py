"""Lesions and their heat maps as DICOM images on the lattice of their CT: one DICOM SEG, and one parametric map a lesion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
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


# --- the lesions as one segmentation


@dataclass(frozen=True, eq=False)
class _LesionVoxels:
    """Voxels of the CT that are a lesion: bool, (k, j, i), from the voxel ``first`` (i, j, k) on; ``isSegment``: the user's own."""

    array: np.ndarray
    first: np.ndarray
    isSegment: bool

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """Their place in the CT's array."""
        return tuple(slice(a, a + n) for a, n in zip(self.first[::-1], self.array.shape, strict=True))


def writeSegmentation(
    path: Path,
    results: Sequence[LesionResult],
    run: RunInfo,
    source: SourceSeries,
    volume: CTVolume,
    *,
    trackingUIDs: Sequence[str],
) -> Dataset:
    """Write all lesions as one DICOM SEG, segment n being result n, and return it.

    Each is its segment on the voxels of ``volume``, the CT; of a lesion without one its box, filled, named "box of NAME".
    ``trackingUIDs``: one a result. Raises `StructuredReportError`.
    """
    hd = highdicom()
    voxels = [lesionVoxels(volume, result.box) for result in results]
    lattice = _Lattice.of(volume.array, volume.ijkToRAS)
    described = [
        _segmentDescription(hd, number, result, run, of, trackingUID)
        for number, (result, of, trackingUID) in enumerate(zip(results, voxels, trackingUIDs, strict=True), start=1)
    ]
    array, first, ks = _stacked(voxels, volume)
    part = replace(lattice, ijkToRAS=_moved(volume.ijkToRAS, first), size=(*array.shape[2:0:-1], lattice.size[2]))
    with refusingThisHeader():
        image = hd.seg.Segmentation(
            source_images=_asSources(source, lattice),
            pixel_array=array,
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=described,
            content_label="LESIONS",
            content_description="Lesions that a model was asked about; not for diagnosis",
            **_made(hd, _SEGMENTATION_NUMBER),
            **_placed(hd, part, ks),
        )
    markAsOurs(image, run, seriesDescription=_SEGMENTATION_SERIES)
    saveDataset(image, path)
    return image


def lesionVoxels(volume: CTVolume, box: LesionBox) -> _LesionVoxels:
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
            return _LesionVoxels(found, first, isSegment=True)
    part, first = _partAround(volume, box.cornersRAS)
    index = np.stack(np.meshgrid(*map(np.arange, part.sizeIJK), indexing="ij"), axis=-1).T
    inBox = transformed_points(np.linalg.inv(box.boxToRAS) @ part.ijkToRAS, np.moveaxis(index, 0, -1))
    found = (np.abs(inBox) <= box.sizeMm / 2 + 1e-6).all(axis=-1)
    if not found.any():
        nearest = np.floor(transformed_points(part.rasToIJK, box.centerRAS) + 0.5).astype(int)
        found[tuple(np.clip(nearest, 0, np.array(part.sizeIJK) - 1)[::-1])] = True
    return _LesionVoxels(found, first, isSegment=False)


def _partAround(volume: CTVolume, pointsRAS: np.ndarray) -> tuple[CTVolume, np.ndarray]:
    """The part of the CT around some points, at least one voxel, and its first voxel (i, j, k)."""
    ijk = transformed_points(volume.rasToIJK, pointsRAS)
    last = np.array(volume.sizeIJK) - 1
    first = np.clip(np.floor(ijk.min(axis=0)), 0, last).astype(int)
    i, j, k = np.clip(np.ceil(ijk.max(axis=0)), first, last).astype(int) + 1
    array = volume.array[first[2] : k, first[1] : j, first[0] : i]
    return CTVolume(array, _moved(volume.ijkToRAS, first), volume.name), first


def _stacked(voxels: Sequence[_LesionVoxels], volume: CTVolume) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """The slices that hold a lesion, first voxel (i, j, k) and the slices' k: labels (slice, j, i), or with one channel a lesion
    where lesions overlap.

    Whole slices, as not every viewer lays parts of them over a CT; parts only where whole ones do not fit into memory.
    """
    held = np.zeros(volume.sizeIJK[2], bool)
    for of in voxels:
        held[of.slices[0]] |= of.array.any(axis=(1, 2))
    ks = np.flatnonzero(held)
    row = np.cumsum(held) - 1  # of a slice among those that are held
    labels = np.zeros((len(ks), *volume.array.shape[1:]), np.uint8 if len(voxels) < 256 else np.uint16)
    overlap = False
    for number, of in enumerate(voxels, start=1):
        for k, plane in zip(range(of.first[2], of.first[2] + len(of.array)), of.array, strict=True):
            if plane.any():
                into = labels[row[k]][of.slices[1:]]
                overlap = overlap or bool(into[plane].any())
                into[plane] = number
    first = np.zeros(3, int)
    if not overlap:
        return labels, first, ks.tolist()
    low, high = first[:2], np.array(volume.sizeIJK[:2])
    if labels.size * len(voxels) > _MAX_BYTES:
        low = np.min([of.first[:2] for of in voxels], axis=0)
        high = np.max([of.first[:2] + of.array.shape[:0:-1] for of in voxels], axis=0)
    needed = len(ks) * int(np.prod(high - low)) * len(voxels)
    if needed > _MAX_BYTES:
        msg = (
            f"{len(voxels)} lesions, some of which overlap, on {len(ks)} slices need {needed / 1024**3:.0f} GiB as a segmentation; "
            "classify fewer of them at a time."
        )
        raise StructuredReportError(msg)
    channels = np.zeros((len(ks), *(high - low)[::-1], len(voxels)), np.uint8)
    for number, of in enumerate(voxels):
        inSlice = tuple(slice(s.start - a, s.stop - a) for s, a in zip(of.slices[1:], low[::-1], strict=True))
        for k, plane in zip(range(of.first[2], of.first[2] + len(of.array)), of.array, strict=True):
            if plane.any():
                channels[row[k]][(*inSlice, number)][plane] = 1
    return channels, np.array([*low, 0]), ks.tolist()


def _segmentDescription(
    hd: Any, number: int, result: LesionResult, run: RunInfo, of: _LesionVoxels, trackingUID: str
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
    path: Path,
    result: LesionResult,
    run: RunInfo,
    source: SourceSeries,
    volume: CTVolume,
    *,
    number: int,
    seriesUID: str,
) -> Dataset:
    """Write the heat map of result ``number`` (from 1) as a DICOM parametric map, its values as they are, and return it.

    On the map's own lattice, a part of that of ``volume``, the CT. ``seriesUID``: of all maps of a run. Raises
    `StructuredReportError`, also for a lesion without a map.
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
            source_images=_asSources(source, _Lattice.of(volume.array, volume.ijkToRAS)),
            pixel_array=np.ascontiguousarray(heatMap.array, dtype=np.float32),
            contains_recognizable_visual_features=False,
            real_world_value_mappings=[mapping],
            voi_lut_transformations=[hd.VOILUTTransformation(window_center=0.5, window_width=1.0)],
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


def _asSources(source: SourceSeries, lattice: _Lattice) -> list[Dataset]:
    """The CT's images as what is derived from them refers to them: where they lie, and of their headers only what may be taken.

    ``lattice``: of the CT; an image with many frames says itself where each lies.
    """
    hd = highdicom()
    reduced = []
    for header, image in zip(source.headers, source.evidence, strict=True):
        image.Rows, image.Columns = lattice.size[1], lattice.size[0]
        measures = hd.PixelMeasuresSequence(lattice.spacing, lattice.sliceDistance, lattice.sliceDistance)
        orientation = hd.PlaneOrientationSequence(hd.CoordinateSystemNames.PATIENT, lattice.orientation)
        with refusingThisHeader():
            if "PerFrameFunctionalGroupsSequence" in header:
                _asFrames(image, header, measures, orientation)
            else:
                image.update(measures[0])
                image.update(orientation[0])
                image.ImagePositionPatient = list(map(float, header.ImagePositionPatient))
        reduced.append(image)
    return reduced


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


def _moved(ijkToRAS: np.ndarray, first: np.ndarray) -> np.ndarray:
    moved = np.array(ijkToRAS, dtype=float)
    moved[:3, 3] = transformed_points(ijkToRAS, first)
    return moved
