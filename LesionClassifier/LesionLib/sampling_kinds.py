"""The kinds of network input: what a manifest says of each, how each is cut, fed to a network, and painted back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from scipy import ndimage

from .errors import BoxError, BundleError
from .geometry import CTVolume, LesionBox, transformed_points
from .heat_map import HeatMap
from .sampling import AxialStack, AxialStackSpec, axial_stack, lattice_points, windowed
from .sampling_planes import (
    KeySliceSpec,
    OrthogonalPlanesSpec,
    PlaneSample,
    SliceWithNeighboursSpec,
    key_slice,
    orthogonal_planes,
    slice_with_neighbours,
)
from .sampling_volumes import CubeSample, IsotropicCubeSpec, ShapeMaskSpec, isotropic_cube, shape_mask

Spec = (
    AxialStackSpec | SliceWithNeighboursSpec | OrthogonalPlanesSpec | KeySliceSpec | IsotropicCubeSpec | ShapeMaskSpec
)
Sample = AxialStack | PlaneSample | CubeSample

_PIXELS = {"type": "integer", "minimum": 8, "maximum": 1024}
_VOXELS = {"type": "integer", "minimum": 4, "maximum": 256}
_SLICES = {"type": "integer", "minimum": 1, "maximum": 256}
_SPACING_MM = {"type": "number", "exclusiveMinimum": 0, "maximum": 10}
_MARGIN_MM = {"type": "number", "minimum": 0, "maximum": 200}
_EDGE_MM = {"type": "number", "exclusiveMinimum": 0, "maximum": 1000}
_WINDOW_HU = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
_WINDOWS_HU = {"type": "array", "items": _WINDOW_HU, "minItems": 1, "maxItems": 16}
_FLATTEST_HU = 1.0  # deviation below which a patch has no texture worth stretching


@dataclass(frozen=True)
class Kind:
    """One kind of input. ``properties``: the JSON schema of each field of ``spec_class``."""

    spec_class: type[Spec]
    cut: Callable[..., Sample]
    network_input: Callable[[Any, Any], np.ndarray]
    properties: Mapping[str, Mapping[str, Any]]
    takes_mask: bool = False


def spec_from_section(section: Mapping[str, Any]) -> Spec:
    """The ``input`` section of a manifest as the spec of its kind. Raises `BundleError` for what its schema refuses."""
    import jsonschema

    name = section.get("kind")
    if not isinstance(name, str) or name not in KINDS:
        msg = f"unknown kind of input {name!r}; known are {', '.join(KINDS)}. Update LesionLens or get the model again."
        raise BundleError(msg)
    values = json.loads(json.dumps(dict(section)))  # a caller's tuples are JSON's arrays
    error = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(KIND_SCHEMAS[name]).iter_errors(values))
    if error is not None:
        msg = f"the input section of kind {name!r} is not as it should be at {error.json_path}: {error.message[:200]}."
        raise BundleError(msg)
    return KINDS[name].spec_class(**{key: _frozen(value) for key, value in values.items() if key != "kind"})


def section_from_spec(spec: Spec) -> dict[str, Any]:
    """The ``input`` section of a manifest that says what ``spec`` says: plain JSON, the inverse of `spec_from_section`."""
    return {"kind": kind_name(spec), **json.loads(json.dumps(asdict(spec)))}


def kind_name(spec: Spec) -> str:
    """The name of a spec's kind in a manifest."""
    return _NAMES[type(spec)]


def cut(volume: CTVolume, box: LesionBox, spec: Spec, mask: CTVolume | None = None) -> Sample:
    """Cut ``box`` out of ``volume`` as ``spec`` says. Raises `BoxError` for a box outside.

    ``mask``: the lesion's segment, 0 and 1 on any lattice; "shape_mask" needs it, "orthogonal_planes" goes by it where
    there is one, the other kinds do not look at it.
    """
    kind = KINDS[kind_name(spec)]
    return kind.cut(volume, box, spec, mask=mask) if kind.takes_mask else kind.cut(volume, box, spec)


def network_input(sample: Sample, spec: Spec) -> np.ndarray:
    """What the network gets: float32, (picture, channel, row, column), or (1, channel, slice, row, column) for a cube.

    Windows are scaled to -1 … 1; where a picture has several planes and windows, the windows of a plane stand together.
    """
    return KINDS[kind_name(spec)].network_input(sample, spec)


def paint_sample(cam: np.ndarray, sample: Sample, box: LesionBox, volume: CTVolume, class_name: str) -> HeatMap:
    """Lay the maps of a sample over the CT's own voxels; 0 where the model did not look (or saw padding).

    ``cam``: (picture, h, w), or (1, d, h, w) for a cube. A plane is painted one slice step thick. Slices: the map belongs
    to the slice itself, not to its neighbours. Orthogonal planes: the three are channels of one picture, so a cell of its
    one map speaks for the same pixel of all three, and is painted in each; which of the planes it came from cannot be
    told. Where painted planes meet, the strongest counts. Raises `BoxError` for maps that are not of this sample.
    """
    panes = _panes(cam, sample, box)
    ranges = [_touched_voxels(volume, pane) for pane in panes]
    low = np.min([first for first, _ in ranges], axis=0)
    high = np.max([last for _, last in ranges], axis=0)
    ijk_to_ras = _moved(volume.ijkToRAS, low)
    array = np.zeros(tuple(high - low)[::-1], dtype=np.float32)
    for pane, (first, last) in zip(panes, ranges, strict=True):
        i, j, k = (slice(a, b) for a, b in zip(first - low, last - low, strict=True))
        for depth, part in enumerate(array[k, j, i]):  # slice by slice: a whole block of points may not fit in memory
            np.maximum(part, _painted(pane, _moved(volume.ijkToRAS, first + [0, 0, depth]), part.shape), out=part)
    peak = float(array.max(initial=0.0))
    return HeatMap(array / peak if peak > 0 else array, ijk_to_ras, peak, class_name)


@dataclass(frozen=True, eq=False)
class _Pane:
    """A map and the part of space it belongs to; a plane is a pane of one slice.

    ``map``: (d, h, w). ``toRAS``: 4x4 from the sample's (column, row, slice). ``region``: bool, (slice, row, column).
    """

    map: np.ndarray
    toRAS: np.ndarray
    region: np.ndarray


def _panes(cam: np.ndarray, sample: Sample, box: LesionBox) -> list[_Pane]:
    cam = np.asarray(cam, dtype=np.float32)
    expected = "(1, d, h, w)" if isinstance(sample, CubeSample) else f"({len(sample.hu)}, h, w)"
    if len(cam) != len(sample.hu) or cam.ndim != (4 if isinstance(sample, CubeSample) else 3):
        msg = f"box {box.name!r}: its maps have shape {cam.shape}, its input needs {expected}; paint the maps of this box."
        raise BoxError(msg)
    if isinstance(sample, AxialStack):  # as `paint`: between its slices the maps are interpolated
        return [_Pane(cam, sample.sampleToRAS, np.broadcast_to(sample.region, sample.hu.shape))]
    if isinstance(sample, CubeSample):
        return [_Pane(cam[0], sample.sampleToRAS, np.broadcast_to(np.True_, sample.hu.shape[2:]))]
    return [
        _Pane(picture_map[None], sample.sampleToRAS[picture, channel], sample.region[channel][None])
        for picture, picture_map in enumerate(cam)
        for channel in sample.mapped_channels
    ]


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


def _painted(pane: _Pane, ijk_to_ras: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The pane's map on the first slice of a lattice, ``shape`` = (j, i); 0 outside the pane's region."""
    points = lattice_points((shape[1], shape[0], 1))[0]
    index = transformed_points(np.linalg.inv(pane.toRAS) @ ijk_to_ras, points)[..., ::-1]
    samples = np.array(pane.region.shape)
    # Centres of cells that are several samples wide: (x + 0.5) * cells / samples - 0.5.
    cells = (index + 0.5) * (np.array(pane.map.shape) / samples) - 0.5
    values = ndimage.map_coordinates(pane.map, np.moveaxis(cells, -1, 0), order=1, mode="nearest")
    nearest = np.floor(index + 0.5 + 1e-6).astype(int)
    inside = ((index >= -0.5 - 1e-6) & (index <= samples - 0.5 + 1e-6)).all(axis=-1)
    slice_, row, column = np.moveaxis(np.clip(nearest, 0, samples - 1), -1, 0)
    return np.where(inside & pane.region[slice_, row, column], values, 0.0)


def _moved(ijk_to_ras: np.ndarray, first: np.ndarray) -> np.ndarray:
    moved = ijk_to_ras.copy()
    moved[:3, 3] = transformed_points(ijk_to_ras, first)
    return moved


def _windowed_stack(sample: AxialStack, spec: AxialStackSpec) -> np.ndarray:
    return windowed(sample.hu, spec.windows_hu)


def _windowed_channels(sample: PlaneSample | CubeSample, spec: Any) -> np.ndarray:
    pictures, _, *rest = sample.hu.shape
    return windowed(sample.hu.reshape(-1, *rest), spec.windows_hu).reshape(pictures, -1, *rest)


def _orthogonal_input(sample: PlaneSample, spec: OrthogonalPlanesSpec) -> np.ndarray:
    if spec.normalise == "windows":
        return _windowed_channels(sample, spec)
    counted = sample.region if spec.normalise == "box" else np.ones_like(sample.region)
    x = np.empty_like(sample.hu)
    for picture, hu in zip(x, sample.hu, strict=True):
        for channel, (plane, pixels) in enumerate(zip(hu, counted, strict=True)):
            measured = plane[pixels].astype(np.float64)
            picture[channel] = (plane - measured.mean()) / max(float(measured.std()), _FLATTEST_HU)
    return x


def _as_it_is(sample: CubeSample, _spec: ShapeMaskSpec) -> np.ndarray:
    return sample.hu


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


KINDS: dict[str, Kind] = {
    "axial_stack": Kind(
        AxialStackSpec, axial_stack, _windowed_stack,
        {"size": _PIXELS, "spacing_mm": _SPACING_MM, "margin_mm": _MARGIN_MM, "max_slices": _SLICES,
         "fill_hu": {"type": "number"}, "windows_hu": _WINDOWS_HU},
    ),
    "slice_with_neighbours": Kind(
        SliceWithNeighboursSpec, slice_with_neighbours, _windowed_channels,
        {"size": _PIXELS, "view": {"enum": ["slice", "box"]}, "slices": {"enum": ["middle", "every"]},
         "max_slices": _SLICES, "spacing_mm": _SPACING_MM, "margin_mm": _MARGIN_MM, "fill_hu": {"type": "number"},
         "windows_hu": _WINDOWS_HU},
    ),
    "orthogonal_planes": Kind(
        OrthogonalPlanesSpec, orthogonal_planes, _orthogonal_input,
        {"rows": _PIXELS, "columns": _PIXELS, "spacing_mm": _SPACING_MM, "margin_mm": _MARGIN_MM,
         "normalise": {"enum": ["patch", "box", "windows"]}, "windows_hu": _WINDOWS_HU},
        takes_mask=True,
    ),
    "key_slice": Kind(
        KeySliceSpec, key_slice, _windowed_channels,
        {"size": _PIXELS, "spacing_mm": {"anyOf": [_SPACING_MM, {"type": "null"}]}, "windows_hu": _WINDOWS_HU},
    ),
    "isotropic_cube": Kind(
        IsotropicCubeSpec, isotropic_cube, _windowed_channels,
        {"edge_mm": _EDGE_MM, "voxels": _VOXELS, "windows_hu": _WINDOWS_HU},
    ),
    "shape_mask": Kind(
        ShapeMaskSpec, shape_mask, _as_it_is,
        {"edge_mm": _EDGE_MM, "voxels": _VOXELS, "interpolation": {"enum": ["nearest", "linear"]}},
        takes_mask=True,
    ),
}  # fmt: skip

_NAMES = {kind.spec_class: name for name, kind in KINDS.items()}
KIND_SCHEMAS: dict[str, dict[str, Any]] = {
    name: {
        "type": "object",
        "additionalProperties": False,
        "required": ["kind", *(field.name for field in fields(kind.spec_class))],
        "properties": {"kind": {"const": name}, **kind.properties},
    }
    for name, kind in KINDS.items()
}
