"""From a box to single planes as channels: a slice with its neighbours, three orthogonal planes, the key slice."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal
from weakref import WeakKeyDictionary

import numpy as np

from LesionLib.errors import BoxError
from LesionLib.geometry import CTVolume, LesionBox, require_overlap, transformed_points
from LesionLib.sampling.resample import resample, slice_offsets_mm
from LesionLib.sampling.volumes import mask_on_lattice

# Box axes along columns, rows and the normal of each orthogonal plane: axial, coronal, sagittal for an upright box.
_ORTHOGONAL = ((0, 1, 2), (0, 2, 1), (1, 2, 0))
_THIN_MM = 0.1
_SECTION_PIXELS = 128
_MAX_SLICES = 1_000_000
FRANGI_MODES = ("blob", "vesselness", "contour", "released")  # of `LesionLib.sampling.frangi`


@dataclass(frozen=True)
class SliceWithNeighboursSpec:
    """How a slice and its two neighbours become the channels (below, itself, above) of one patch (DADRN, papers 1.2).

    ``view``: "slice" shows the whole slice of the CT, whatever the size of the box; "box" shows the box and ``margin_mm``
    around it at ``spacing_mm``, or coarser where it would not fit. ``slices``: "middle" is the slice through the middle of
    the box, "every" each slice of the box, at most ``max_slices``. What is not shown of the square is ``fill_hu``.
    """

    size: int = 224
    view: Literal["slice", "box"] = "slice"
    slices: Literal["middle", "every"] = "middle"
    max_slices: int = 16
    spacing_mm: float = 0.625
    margin_mm: float = 10.0
    fill_hu: float = -1000.0
    windows_hu: tuple[tuple[float, float], ...] = ((-60.0, 240.0),)


@dataclass(frozen=True)
class OrthogonalPlanesSpec:
    """How three orthogonal planes through a lesion become the channels of one patch (papers 1.3).

    The paper pads to "252x210" and its network has maps of 2048x6x5 there (channels, rows, columns): 252 rows, 210
    columns. It names no spacing; planes across thick slices need one, so ``spacing_mm`` holds in all three. Around the
    box and ``margin_mm``, each plane is padded with the mean of what it shows. A lesion too large is shown smaller.

    ``normalise``: "patch" is the paper's mean and deviation of each padded plane; "box" takes the deviation of the box
    alone, so that a small lesion does not get more contrast than a large one; "windows" keeps absolute HU.
    """

    rows: int = 252
    columns: int = 210
    spacing_mm: float = 0.75
    margin_mm: float = 0.0
    normalise: Literal["patch", "box", "windows"] = "patch"
    windows_hu: tuple[tuple[float, float], ...] = ((-160.0, 240.0),)


@dataclass(frozen=True)
class KeySliceSpec:
    """How the one slice through the middle of a box is cropped, with its surroundings (Lesion Search, papers 1.4).

    ``spacing_mm`` is ours; None takes the CT's own pixels, as the paper does. A box larger than the patch is shown
    smaller. Nothing is padded. ``air_windows_hu``: taken instead of ``windows_hu`` for a patch that is mostly air, as around a
    lesion of the lung, of which a window on soft tissue leaves nothing; as many windows. ``frangi``: the mode of
    `LesionLib.sampling.frangi` that every windowed patch goes through, None for none.
    """

    size: int = 64
    spacing_mm: float | None = 0.8
    windows_hu: tuple[tuple[float, float], ...] = ((-160.0, 240.0),)
    frangi: str | None = None
    air_windows_hu: tuple[tuple[float, float], ...] | None = None


@dataclass(frozen=True, eq=False)
class PlaneSample:
    """The patches of one box; their channels are planes of the CT.

    ``hu``: float32, shape (patch, channel, row, column), HU. ``sampleToRAS``: shape (patch, channel, 4, 4), from
    (column, row, plane) to RAS mm; the plane itself is 0, and one step is the thickness it stands for. ``region``: bool,
    shape (channel, row, column), where a patch shows the CT (the rest is padding). ``outside_share``: share of the
    region that lies outside the CT, where its edge is repeated. ``pixel_mm``: pixel size, the same in all planes.
    ``mapped_channels``: the channels whose place a map of the patch has. ``in_common``: what
    is shown, where boxes can have it in common: samples of one CT for which it is the same are the same to the last bit.
    """

    hu: np.ndarray
    sampleToRAS: np.ndarray
    region: np.ndarray
    outside_share: float
    pixel_mm: float
    mapped_channels: tuple[int, ...]
    in_common: bytes | None = None

    @property
    def padded_share(self) -> float:
        """Share of the patches that is padding."""
        return 1.0 - float(self.region.mean())


def slice_with_neighbours(volume: CTVolume, box: LesionBox, spec: SliceWithNeighboursSpec) -> PlaneSample:
    """Cut a slice of ``box``, or every one, with the slices below and above it. Raises `BoxError` for a box outside.

    Patches stand in the axes of the box; whole slices in the CT's own, columns towards R and rows towards A, however
    the CT is stored. A neighbour beyond the first or last slice is that slice again, and counts as outside.
    """
    require_overlap(volume, box)
    if spec.view == "slice":
        shown = _whole_slices(volume, box, single=spec.slices == "middle")
        pixel_mm = float(shown.sizeMm[:2].max()) / spec.size
    else:
        shown = replace(box, sizeMm=box.sizeMm + 2 * spec.margin_mm * np.array([1.0, 1.0, 0.0]))
        pixel_mm = max(spec.spacing_mm, float(shown.sizeMm[:2].max()) / spec.size)
    if spec.slices == "middle":
        offsets_mm = np.array([_middle_slice_mm(volume, shown)])
    else:
        offsets_mm = slice_offsets_mm(volume, shown, spec.max_slices)
    step_mm = offsets_mm[1] - offsets_mm[0] if len(offsets_mm) > 1 else _thickness_mm(volume, shown.axesRAS[:, 2])
    shape = (spec.size, spec.size)
    where = _shown_pixels(shape, pixel_mm, shown.sizeMm[[1, 0]] / 2)
    hu = np.full((len(offsets_mm), 3, *shape), spec.fill_hu, dtype=np.float32)
    planes, outside = np.empty((len(offsets_mm), 3, 4, 4)), []
    for patch, offset in enumerate(offsets_mm):
        for channel, neighbour in enumerate((-1, 0, 1)):
            depth_mm = offset + neighbour * volume.sliceDistanceMm
            to_ras = _plane_to_ras(shown.boxToRAS, shape, pixel_mm, step_mm, depth_mm)
            cut = _resampled_plane
            if spec.view == "slice":
                to_ras, cut = _without_rounding(to_ras), _shared_plane
            hu[patch, channel][where], inside = cut(volume, to_ras, where)
            planes[patch, channel] = to_ras
            outside.append(1.0 - inside.mean())
    in_common = planes[..., [0, 1, 3]].tobytes() if spec.view == "slice" else None
    return PlaneSample(hu, planes, _region(3, shape, where), float(np.mean(outside)), pixel_mm, (1,), in_common)


def orthogonal_planes(
    volume: CTVolume, box: LesionBox, spec: OrthogonalPlanesSpec, *, mask: CTVolume | None = None
) -> PlaneSample:
    """Cut the slice of the lesion's largest section, and the two planes at right angles to it through its centroid.

    Channels: the plane of the box's x and y axes, of x and z, of y and z, with the box in the middle of each. ``mask``:
    the lesion's segment, 0 and 1 on any lattice; without it the planes cross in the middle of the box. Raises `BoxError`
    for a box outside the CT, or a mask with nothing in the box.
    """
    require_overlap(volume, box)
    middle = np.array([0.0, 0.0, _middle_slice_mm(volume, box)])
    crossing_mm = middle if mask is None else _largest_section_mm(volume, box, mask)
    edges = box.sizeMm + 2 * spec.margin_mm
    shape = (spec.rows, spec.columns)
    needed = [max(edges[x] / spec.columns, edges[y] / spec.rows) for x, y, _ in _ORTHOGONAL]
    pixel_mm = max(spec.spacing_mm, *map(float, needed))
    hu = np.empty((1, 3, *shape), dtype=np.float32)
    region, planes, outside = np.zeros((3, *shape), dtype=bool), np.empty((1, 3, 4, 4)), []
    for channel, axes in enumerate(_ORTHOGONAL):
        frame = box.boxToRAS[:, [*axes, 3]]
        thickness_mm = _thickness_mm(volume, frame[:3, 2])
        to_ras = _plane_to_ras(frame, shape, pixel_mm, thickness_mm, crossing_mm[axes[2]])
        where = _shown_pixels(shape, pixel_mm, edges[[axes[1], axes[0]]] / 2)
        values, inside = _resampled_plane(volume, to_ras, where)
        # What is only the CT's edge repeated was not measured: it has no say in the mean.
        hu[0, channel] = values[inside].mean() if inside.any() else values.mean()
        hu[0, channel][where] = values
        planes[0, channel] = to_ras
        region[channel][where] = True
        outside.append(~inside.ravel())
    return PlaneSample(hu, planes, region, float(np.concatenate(outside).mean()), pixel_mm, (0, 1, 2))


def key_slice(volume: CTVolume, box: LesionBox, spec: KeySliceSpec) -> PlaneSample:
    """Cut the slice through the middle of ``box``, in the axes of the box. Raises `BoxError` for a box outside."""
    require_overlap(volume, box)
    spacing_mm = float(volume.spacingMm[:2].max()) if spec.spacing_mm is None else spec.spacing_mm
    pixel_mm = max(spacing_mm, float(box.sizeMm[:2].max()) / spec.size)
    thickness_mm = _thickness_mm(volume, box.axesRAS[:, 2])
    shape = (spec.size, spec.size)
    to_ras = _plane_to_ras(box.boxToRAS, shape, pixel_mm, thickness_mm, _middle_slice_mm(volume, box))
    hu, inside = resample(volume, to_ras, (spec.size, spec.size, 1))
    region = np.ones((1, *shape), dtype=bool)
    return PlaneSample(hu[None], to_ras[None, None], region, 1.0 - float(inside.mean()), pixel_mm, (0,))


def _middle_slice_mm(volume: CTVolume, box: LesionBox) -> float:
    """Where the slice through the middle of a box lies along its z axis: the CT's own nearest one, or 0 if tilted."""
    thin = replace(box, sizeMm=[*box.sizeMm[:2], _THIN_MM])
    return float(slice_offsets_mm(volume, thin, 1)[0])


def _thickness_mm(volume: CTVolume, normal: np.ndarray) -> float:
    """The CT's largest voxel step along ``normal``: a slab this thick has a voxel wherever a plane crosses the CT."""
    return float(np.abs(normal @ volume.ijkToRAS[:3, :3]).max())


def _whole_slices(volume: CTVolume, box: LesionBox, *, single: bool) -> LesionBox:
    """The CT's whole slices that ``box`` passes through, as a box; with ``single``, that of its middle alone."""
    axes = _upright_axes(volume)
    height = _THIN_MM if single else float(np.ptp(box.cornersRAS @ axes[:, 2]))
    k_middle = transformed_points(volume.rasToIJK, box.centerRAS)[2]
    k_half = height / 2 / volume.sliceDistanceMm
    i_edge, j_edge = np.array(volume.sizeIJK[:2]) - 0.5
    corners = [
        [i, j, k] for i in (-0.5, i_edge) for j in (-0.5, j_edge) for k in (k_middle - k_half, k_middle + k_half)
    ]
    # On a sheared lattice the slices are shifted against each other: all of them are to be in the patch.
    along = transformed_points(volume.ijkToRAS, corners) @ axes
    near, far = along.min(axis=0), along.max(axis=0)
    size = np.array([*(far - near)[:2], max(height, _THIN_MM)])
    return LesionBox(axes @ ((near + far) / 2), size, axes, box.name)


def _upright_axes(volume: CTVolume) -> np.ndarray:
    """Axes of the CT's slices, shape (3, 3), columns x, y, normal: exchanged and flipped to run towards R, A and S."""
    normal = volume.sliceNormalRAS
    first = volume.ijkToRAS[:3, 0] / volume.spacingMm[0]
    second = np.cross(normal, first)
    if _order(second) < _order(first):
        first, second = second, first
    return np.stack([_positive(first), _positive(second), _positive(normal)], axis=1)


def _order(axis: np.ndarray) -> tuple[int, float]:
    """Which of R, A, S an axis is nearest to; of two nearest to the same, the one closer to R comes first."""
    return int(np.abs(axis).argmax()), -abs(float(axis[0]))


def _positive(axis: np.ndarray) -> np.ndarray:
    return axis * np.sign(axis[np.abs(axis).argmax()])


def _largest_section_mm(volume: CTVolume, box: LesionBox, mask: CTVolume) -> np.ndarray:
    """Centroid (x, y, z) of the lesion's largest section among the slices of the box, in box mm."""
    offsets_mm = slice_offsets_mm(volume, box, _MAX_SLICES)
    step_mm = offsets_mm[1] - offsets_mm[0] if len(offsets_mm) > 1 else volume.sliceDistanceMm
    pixel_mm = max(float(mask.spacingMm.min()), float(box.sizeMm[:2].max()) / _SECTION_PIXELS)
    columns, rows = (max(1, int(n)) for n in np.ceil(box.sizeMm[:2] / pixel_mm))
    to_ras = _plane_to_ras(box.boxToRAS, (rows, columns), pixel_mm, step_mm, offsets_mm[0])
    sections = mask_on_lattice(mask, to_ras, (columns, rows, len(offsets_mm)), interpolation="linear")
    areas = sections.sum(axis=(1, 2))
    if not areas.any():
        msg = f"box {box.name!r}: no slice of it shows the segment {mask.name!r}; give the segment of this lesion."
        raise BoxError(msg)
    largest = np.flatnonzero(areas == areas.max())
    k = largest[len(largest) // 2]
    row, column = np.argwhere(sections[k]).mean(axis=0)
    in_plane = (np.array([column, row]) - (np.array([columns, rows]) - 1) / 2) * pixel_mm
    return np.array([*in_plane, offsets_mm[k]])


def _plane_to_ras(
    frame: np.ndarray, shape: tuple[int, int], pixel_mm: float, thickness_mm: float, depth_mm: float
) -> np.ndarray:
    """4x4 from (column, row, plane) to RAS of a patch in the middle of ``frame``, ``depth_mm`` along its z axis."""
    to_frame = np.diag([pixel_mm, pixel_mm, thickness_mm, 1.0])
    to_frame[:3, 3] = [-(shape[1] - 1) / 2 * pixel_mm, -(shape[0] - 1) / 2 * pixel_mm, depth_mm]
    return frame @ to_frame


def _shown_pixels(shape: tuple[int, int], pixel_mm: float, half_mm: np.ndarray) -> tuple[slice, slice]:
    """The rows and columns whose pixels' centres lie within ``half_mm`` (rows, columns) of the middle; never none."""
    found = []
    for count, half in zip(shape, half_mm, strict=True):
        from_middle = np.abs(np.arange(count) - (count - 1) / 2) * pixel_mm
        # A centre on the very edge is out: whether it still lies in the CT would be decided by rounding.
        index = np.flatnonzero(from_middle < max(half - 1e-6, pixel_mm / 2 + 1e-6))
        found.append(slice(int(index[0]), int(index[-1]) + 1))
    return found[0], found[1]


def _resampled_plane(volume: CTVolume, to_ras: np.ndarray, where: tuple[slice, slice]) -> tuple[np.ndarray, np.ndarray]:
    """HU and whether inside the CT, shape (row, column), of the shown part of a patch: the padding is never cut."""
    rows, columns = where
    part = to_ras.copy()
    part[:3, 3] = transformed_points(to_ras, [columns.start, rows.start, 0])
    hu, inside = resample(volume, part, (columns.stop - columns.start, rows.stop - rows.start, 1))
    return hu[0], inside[0]


_KEPT_PLANES = 128
_shared: WeakKeyDictionary[CTVolume, OrderedDict[tuple, tuple[np.ndarray, np.ndarray]]] = WeakKeyDictionary()


@contextmanager
def shared_slices(volume: CTVolume) -> Iterator[None]:
    """Meanwhile a whole slice of ``volume`` is resampled once for all boxes that it shows; its voxels must not change."""
    _shared[volume] = OrderedDict()
    try:
        yield
    finally:
        _shared.pop(volume, None)


def _shared_plane(volume: CTVolume, to_ras: np.ndarray, where: tuple[slice, slice]) -> tuple[np.ndarray, np.ndarray]:
    """As `_resampled_plane`; what was resampled before, where that is remembered."""
    known = _shared.get(volume)
    if known is None:
        return _resampled_plane(volume, to_ras, where)
    key = (to_ras[:, [0, 1, 3]].tobytes(), *((of.start, of.stop) for of in where))
    if key not in known:
        known[key] = _resampled_plane(volume, to_ras, where)
        while len(known) > _KEPT_PLANES:
            known.popitem(last=False)
    return known[key]


def _without_rounding(to_ras: np.ndarray) -> np.ndarray:
    """The same place whichever box it was computed from: those of two boxes differ by 1e-13 mm."""
    exact = np.round(to_ras, 12)
    exact[:, 3] = np.round(to_ras[:, 3], 9)
    return exact + 0.0  # no -0.0, which is another number by its bits


def _region(channels: int, shape: tuple[int, int], where: tuple[slice, slice]) -> np.ndarray:
    region = np.zeros((channels, *shape), dtype=bool)
    region[:, *where] = True
    return region
