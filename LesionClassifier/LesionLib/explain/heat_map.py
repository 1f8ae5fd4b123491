"""Maps of where a network looked on voxels of the CT itself, and how those of a network's patches are laid back over it.

They are laid back whatever kind of input they belong to. Knows no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from LesionLib.errors import BoxError
from LesionLib.geometry import CTVolume, LesionBox, transformed_points
from LesionLib.sampling.inputs import Sample
from LesionLib.sampling.resample import AxialStack, interpolated_along, lattice_points
from LesionLib.sampling.volumes import CubeSample


@dataclass(frozen=True, eq=False)
class HeatMap:
    """A map of where a network looked, on voxels of the CT itself: a part of its lattice, around the box.

    ``array``: float32, shape (k, j, i), 0 … 1 (1 = strongest in this box). ``ijkToRAS``: 4x4, from (i, j, k) of this
    part to RAS mm. ``peak``: the strongest value before it was set to 1; maps of two boxes or classes compare only through
    it. ``method``: how it was made, as `model.explanation` names it.
    """

    array: np.ndarray
    ijkToRAS: np.ndarray
    peak: float
    class_name: str
    method: str = "grad_cam"

    @property
    def is_empty(self) -> bool:
        """True where nothing in the box speaks for the class."""
        return not self.array.max() > 0

    @property
    def peakRAS(self) -> np.ndarray:
        """RAS mm of the centre of the hottest voxels (their mean, where several are equally hot)."""
        hottest = np.argwhere(self.array >= self.array.max() * 0.999)[:, ::-1]
        return transformed_points(self.ijkToRAS, hottest).mean(axis=0)


def resample_to_ct(
    cam: np.ndarray,
    sample: Sample,
    box: LesionBox,
    volume: CTVolume,
    class_name: str,
    *,
    cell_centres: tuple[float, float] | None = None,
) -> HeatMap:
    """Lay the maps of a sample over the CT's own voxels; 0 where the model did not look (or saw padding).

    ``cam``: (patch, h, w), or (1, d, h, w) for a cube; ``cell_centres``: where its cells look, `LesionNet.cell_centres`. A plane
    is painted one slice step thick. Slices: the map belongs to the slice itself, not to its neighbours. Orthogonal planes: the
    three are channels of one patch, so a cell of its one map speaks for the same pixel of all three, and is painted in each;
    which of the planes it came from cannot be told. Where painted planes meet, the strongest counts. Raises `BoxError` for
    maps that are not of this sample.
    """
    panes = _panes(cam, sample, box, cell_centres)
    ranges = [_touched_voxels(volume, pane) for pane in panes]
    low = np.min([first for first, _ in ranges], axis=0)
    high = np.max([last for _, last in ranges], axis=0)
    ijk_to_ras = _moved(volume.ijkToRAS, low)
    array = np.zeros(tuple(high - low)[::-1], dtype=np.float32)
    for pane, (first, last) in zip(panes, ranges, strict=True):
        i, j, k = (slice(a, b) for a, b in zip(first - low, last - low, strict=True))
        touched = array[k, j, i]
        for depth in range(0, len(touched), _SLICES_AT_ONCE):  # a whole block of points may not fit in memory
            part = touched[depth : depth + _SLICES_AT_ONCE]
            found = _resampled(pane, _moved(volume.ijkToRAS, first + [0, 0, depth]), part.shape)
            np.maximum(part, found, out=part)
    peak = float(array.max(initial=0.0))
    return HeatMap(array / peak if peak > 0 else array, ijk_to_ras, peak, class_name)


@dataclass(frozen=True, eq=False)
class _Pane:
    """A map and the part of space it belongs to; a plane is a pane of one slice.

    ``map``: (d, h, w). ``toRAS``: 4x4 from the sample's (column, row, slice). ``region``: bool, (slice, row, column). ``cells``: of
    each axis of the map, the sample that its first cell is centred on and how many samples on the next one is.
    """

    map: np.ndarray
    toRAS: np.ndarray
    region: np.ndarray
    cells: tuple[tuple[float, float], ...]


def _panes(cam: np.ndarray, sample: Sample, box: LesionBox, cell_centres: tuple[float, float] | None) -> list[_Pane]:
    cam = np.asarray(cam, dtype=np.float32)
    expected = "(1, d, h, w)" if isinstance(sample, CubeSample) else f"({len(sample.hu)}, h, w)"
    if len(cam) != len(sample.hu) or cam.ndim != (4 if isinstance(sample, CubeSample) else 3):
        msg = f"box {box.name!r}: its maps have shape {cam.shape}, its input needs {expected}; paint the maps of this box."
        raise BoxError(msg)

    def pane(of: np.ndarray, to_ras: np.ndarray, region: np.ndarray, *, is_cube: bool = False) -> _Pane:
        cells = [cells_along(*counts, cell_centres) for counts in zip(of.shape, region.shape, strict=True)]
        if not is_cube:  # a network looks at one slice at a time
            cells[0] = cells_along(of.shape[0], region.shape[0])
        return _Pane(of, to_ras, region, tuple(cells))

    if isinstance(sample, AxialStack):  # between its slices the maps are interpolated
        return [pane(cam, sample.sampleToRAS, np.broadcast_to(sample.region, sample.hu.shape))]
    if isinstance(sample, CubeSample):
        return [pane(cam[0], sample.sampleToRAS, sample.region, is_cube=True)]
    return [
        pane(patch_map[None], sample.sampleToRAS[patch, channel], sample.region[channel][None])
        for patch, patch_map in enumerate(cam)
        for channel in sample.mapped_channels
    ]


def cells_along(cells: int, samples: int, cell_centres: tuple[float, float] | None = None) -> tuple[float, float]:
    """Along an axis of a patch: the sample that a map's first cell is centred on, and how many samples on the next one is."""
    if cell_centres is not None and cells > 1:
        return cell_centres
    width = samples / cells
    return (width - 1) / 2, width


def _touched_voxels(volume: CTVolume, pane: _Pane) -> tuple[np.ndarray, np.ndarray]:
    """Half-open index range of the voxels in a pane's region; at least one voxel."""
    along = [np.flatnonzero(pane.region.any(axis=others)) for others in ((0, 1), (0, 2), (1, 2))]
    low, high = (np.array([index[end] for index in along]) for end in (0, -1))
    low, high = low - 0.5, high + 0.5
    corners = low + lattice_points((2, 2, 2)).reshape(-1, 3) * (high - low)
    ijk = transformed_points(volume.rasToIJK @ pane.toRAS, corners)
    last = np.array(volume.sizeIJK) - 1
    first = np.clip(np.ceil(ijk.min(axis=0) - 1e-6), 0, last).astype(int)
    return first, np.maximum(np.clip(np.floor(ijk.max(axis=0) + 1e-6), 0, last).astype(int), first) + 1


_SLICES_AT_ONCE = 8
_PARALLEL = 1e-9  # of a voxel: what rounding leaves of a direction that is none


def _resampled(pane: _Pane, ijk_to_ras: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """The pane's map on a lattice, ``shape`` = (k, j, i); 0 outside the pane's region."""
    to_sample = np.linalg.inv(pane.toRAS) @ ijk_to_ras
    along = np.abs(to_sample[:3, :3]) > _PARALLEL * np.abs(to_sample[:3, :3]).max()
    if (along.sum(axis=0) == 1).all() and (along.sum(axis=1) == 1).all():
        return _along_axes(pane, to_sample, along.argmax(axis=1), shape)
    index = np.moveaxis(transformed_points(to_sample, lattice_points(shape[::-1]))[..., ::-1], -1, 0)
    samples = pane.region.shape
    nearest, inside = zip(*map(_nearest, index, samples), strict=True)
    seen = np.logical_and.reduce(inside)
    seen[seen] = pane.region[tuple(part[seen] for part in nearest)]
    found = np.zeros(shape)
    at = [(places - first) / step for places, (first, step) in zip(index[:, seen], pane.cells, strict=True)]
    found[seen] = _interpolated(pane.map, np.stack(at))
    return found


def _nearest(index: np.ndarray, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Which sample an index lies in, and whether it lies in one at all."""
    nearest = np.clip(np.floor(index + 0.5 + 1e-6).astype(int), 0, samples - 1)
    return nearest, (index >= -0.5 - 1e-6) & (index <= samples - 0.5 + 1e-6)


def _along_axes(pane: _Pane, to_sample: np.ndarray, axes: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """The same where the sample's axes are those of the lattice: one after the other, which is many times faster.

    ``axes``: which of i, j, k runs along the sample's columns, rows and slices.
    """
    values, nearest, inside = pane.map, [], []
    for position, (samples, (first, step)) in enumerate(zip(pane.region.shape, pane.cells, strict=True)):
        row = 2 - position  # slice, row, column of the array are z, y, x of the matrix
        axis = int(axes[row])
        index = to_sample[row, axis] * np.arange(shape[2 - axis]) + to_sample[row, 3]
        values = interpolated_along(values, (index - first) / step, position)
        for found, part in zip((nearest, inside), _nearest(index, samples), strict=True):
            found.append(part)
    is_shown = pane.region[np.ix_(*nearest)] & inside[0][:, None, None] & inside[1][:, None] & inside[2]
    # From the sample's slices, rows and columns to k, j, i.
    order = [2 - int(np.flatnonzero(axes == axis)[0]) for axis in (2, 1, 0)]
    return np.where(is_shown, values, 0.0).transpose(order)


def _interpolated(values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """``values`` (k, j, i) at ``at`` (3, n), linear between them and constant beyond: `scipy.ndimage.map_coordinates`, whose
    import takes longer than all maps of a CT.
    """
    found = np.zeros(at.shape[1])
    for (i, of_i), (j, of_j), (k, of_k) in product(*map(_neighbours, at[::-1], values.shape[::-1])):
        found += of_k * of_j * of_i * values[k, j, i]
    return found


def _neighbours(at: np.ndarray, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The two cells of an axis on either side of each place, with their weights; one where the axis has one."""
    if count == 1:
        return [(np.zeros(len(at), dtype=int), np.ones(len(at)))]
    at = np.clip(at, 0, count - 1)
    low = np.minimum(at.astype(int), count - 2)
    share = at - low
    return [(low, 1 - share), (low + 1, share)]


def _moved(ijk_to_ras: np.ndarray, first: np.ndarray) -> np.ndarray:
    moved = ijk_to_ras.copy()
    moved[:3, 3] = transformed_points(ijk_to_ras, first)
    return moved
