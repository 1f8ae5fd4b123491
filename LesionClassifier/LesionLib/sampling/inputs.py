"""The kinds of network input: what a manifest says of each, how each is cropped and fed to a network, and what it shows."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

from LesionLib.errors import BundleError
from LesionLib.geometry import CTVolume, LesionBox, transformed_points
from LesionLib.sampling.planes import (
    FRANGI_MODES,
    KeySliceSpec,
    OrthogonalPlanesSpec,
    PlaneSample,
    SliceWithNeighboursSpec,
    key_slice,
    orthogonal_planes,
    slice_with_neighbours,
)
from LesionLib.sampling.resample import AxialStack, AxialStackSpec, axial_stack, windowed
from LesionLib.sampling.volumes import CubeSample, IsotropicCubeSpec, ShapeMaskSpec, isotropic_cube, shape_mask

Spec = (
    AxialStackSpec | SliceWithNeighboursSpec | OrthogonalPlanesSpec | KeySliceSpec | IsotropicCubeSpec | ShapeMaskSpec
)
Sample = AxialStack | PlaneSample | CubeSample

_PIXELS = {"type": "integer", "minimum": 8, "maximum": 1024}
_VOXELS = {"type": "integer", "minimum": 4, "maximum": 256}
_SLICES = {"type": "integer", "minimum": 1, "maximum": 256}
_SPACING_MM = {"type": "number", "exclusiveMinimum": 0, "maximum": 10}
_MARGIN_MM = {"type": "number", "minimum": 0, "maximum": 200}
_MARGINS_MM = {"type": "array", "items": _MARGIN_MM, "minItems": 3, "maxItems": 3}
_EDGE_MM = {"type": "number", "exclusiveMinimum": 0, "maximum": 1000}
_HU = {"type": "number", "minimum": -100_000, "maximum": 100_000}
_WINDOW_HU = {"type": "array", "items": _HU, "minItems": 2, "maxItems": 2}
_WINDOWS_HU = {"type": "array", "items": _WINDOW_HU, "minItems": 1, "maxItems": 16}
_AIR_HU = -500.0  # below it is lung and air, above it are all tissues
_MOSTLY = 0.5
_FLATTEST_HU = 1.0  # deviation below which a patch has no texture worth stretching


@dataclass(frozen=True)
class Kind:
    """One kind of input. ``properties``: the JSON schema of each field of ``spec_class``.

    ``optional``: the fields that a manifest leaves out where they have their default; older manifests do not know them.
    """

    spec_class: type[Spec]
    crop: Callable[..., Sample]
    network_input: Callable[[Any, Any], np.ndarray]
    properties: Mapping[str, Mapping[str, Any]]
    takes_mask: bool = False
    optional: frozenset[str] = frozenset()


def spec_from_section(section: Mapping[str, Any]) -> Spec:
    """The ``input`` section of a manifest as the spec of its kind. Raises `BundleError` for what its schema refuses."""
    import jsonschema

    name = section.get("kind")
    if not isinstance(name, str) or name not in KINDS:
        msg = f"unknown kind of input {name!r}; known are {', '.join(KINDS)}. Update LesionLens or get the model again."
        raise BundleError(msg)
    # A caller's tuples are JSON's arrays; NaN and Infinity are no numbers to the schema, for it sees lists.
    values = json.loads(json.dumps(dict(section)), parse_constant=lambda name: [name])
    error = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(KIND_SCHEMAS[name]).iter_errors(values))
    if error is not None:
        msg = f"the input section of kind {name!r} is not as it should be at {error.json_path}: {error.message[:200]}."
        raise BundleError(msg)
    spec = KINDS[name].spec_class(**{key: _frozen(value) for key, value in values.items() if key != "kind"})
    if isinstance(spec, KeySliceSpec) and spec.air_windows_hu and len(spec.air_windows_hu) != len(spec.windows_hu):
        msg = f"air_windows_hu has {len(spec.air_windows_hu)} windows and windows_hu {len(spec.windows_hu)}; give as many."
        raise BundleError(msg)
    return spec


def section_from_spec(spec: Spec) -> dict[str, Any]:
    """The ``input`` section of a manifest that says what ``spec`` says: plain JSON, the inverse of `spec_from_section`."""
    optional = KINDS[kind_name(spec)].optional
    defaults = {field.name: field.default for field in fields(spec) if field.name in optional}
    said = {key: value for key, value in asdict(spec).items() if key not in defaults or value != defaults[key]}
    return {"kind": kind_name(spec), **json.loads(json.dumps(said))}


def kind_name(spec: Spec) -> str:
    """The name of a spec's kind in a manifest."""
    return _NAMES[type(spec)]


def crop_sample(volume: CTVolume, box: LesionBox, spec: Spec) -> Sample:
    """Cut ``box`` out of ``volume`` as ``spec`` says. Raises `BoxError` for a box outside.

    "shape_mask" needs the box's ``segment``, "orthogonal_planes" goes by it where there is one, the other kinds do not
    look at it.
    """
    kind = KINDS[kind_name(spec)]
    return kind.crop(volume, box, spec, mask=box.segment) if kind.takes_mask else kind.crop(volume, box, spec)


@dataclass(frozen=True)
class Reach:
    """How far a model looks: never beyond a cube around the middle of the box, however it is turned, whose edge is ``edge_mm``,
    or the box's longest edge with ``margin_mm`` on either side.
    """

    edge_mm: float
    margin_mm: float


def reach_of(spec: Spec) -> Reach | None:
    """How far a model with this input looks; None for one that looks at whole slices, or whose pixels are the CT's own."""
    if isinstance(spec, SliceWithNeighboursSpec) and spec.view == "slice":
        return None
    if isinstance(spec, KeySliceSpec):
        return None if spec.spacing_mm is None else Reach(spec.size * spec.spacing_mm, 0.0)
    if isinstance(spec, IsotropicCubeSpec):
        return Reach(spec.edge_mm, max(spec.margin_mm or (0.0,)))
    if isinstance(spec, ShapeMaskSpec):
        return Reach(spec.edge_mm, 0.0)
    return Reach(
        0.0, 0.0 if isinstance(spec, AxialStackSpec) and spec.fit_box else spec.margin_mm
    )  # the rest is padding


def network_input(sample: Sample, spec: Spec) -> np.ndarray:
    """What the network gets: float32, (patch, channel, row, column), or (1, channel, slice, row, column) for a cube.

    Windows are scaled to -1 … 1; where a patch has several planes and windows, the windows of a plane stand together.
    """
    return KINDS[kind_name(spec)].network_input(sample, spec)


def box_channels(spec: Spec) -> int:
    """How many of the input's last channels say where the box is, and hold no HU."""
    return int(isinstance(spec, IsotropicCubeSpec) and spec.box_channel)


def _windowed_stack(sample: AxialStack, spec: AxialStackSpec) -> np.ndarray:
    return windowed(sample.hu, spec.windows_hu)


def _windowed_channels(sample: PlaneSample | CubeSample, spec: Any) -> np.ndarray:
    patches, _, *rest = sample.hu.shape
    return windowed(sample.hu.reshape(-1, *rest), spec.windows_hu).reshape(patches, -1, *rest)


def _cube_input(sample: CubeSample, spec: IsotropicCubeSpec) -> np.ndarray:
    windows = _windowed_channels(sample, spec)
    if sample.box_share is None:
        return windows
    return np.concatenate([windows, sample.box_share[None, None]], axis=1)


def _key_slice_input(sample: PlaneSample, spec: KeySliceSpec) -> np.ndarray:
    patches = _windowed_channels(sample, spec)
    if spec.air_windows_hu is not None and float((sample.hu < _AIR_HU).mean()) > _MOSTLY:
        patches = _windowed_channels(sample, replace(spec, windows_hu=spec.air_windows_hu))
    if spec.frangi is None:
        return patches
    from LesionLib.sampling.frangi import frangi_input  # needs torch, sampling does not

    return frangi_input(patches, mode=spec.frangi).numpy()


def _orthogonal_input(sample: PlaneSample, spec: OrthogonalPlanesSpec) -> np.ndarray:
    if spec.normalise == "windows":
        return _windowed_channels(sample, spec)
    counted = sample.region if spec.normalise == "box" else np.ones_like(sample.region)
    x = np.empty_like(sample.hu)
    for patch, hu in zip(x, sample.hu, strict=True):
        for channel, (plane, pixels) in enumerate(zip(hu, counted, strict=True)):
            measured = plane[pixels].astype(np.float64)
            patch[channel] = (plane - measured.mean()) / max(float(measured.std()), _FLATTEST_HU)
    return x


def _as_it_is(sample: CubeSample, _spec: ShapeMaskSpec) -> np.ndarray:
    return sample.hu


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


KINDS: dict[str, Kind] = {
    "axial_stack": Kind(
        AxialStackSpec, axial_stack, _windowed_stack,
        {"size": _PIXELS, "spacing_mm": _SPACING_MM, "margin_mm": _MARGIN_MM, "max_slices": _SLICES,
         "fill_hu": _HU, "windows_hu": _WINDOWS_HU, "fit_box": {"type": "boolean"}},
        optional=frozenset({"fit_box"}),
    ),
    "slice_with_neighbours": Kind(
        SliceWithNeighboursSpec, slice_with_neighbours, _windowed_channels,
        {"size": _PIXELS, "view": {"enum": ["slice", "box"]}, "slices": {"enum": ["middle", "every"]},
         "max_slices": _SLICES, "spacing_mm": _SPACING_MM, "margin_mm": _MARGIN_MM, "fill_hu": _HU,
         "windows_hu": _WINDOWS_HU},
    ),
    "orthogonal_planes": Kind(
        OrthogonalPlanesSpec, orthogonal_planes, _orthogonal_input,
        {"rows": _PIXELS, "columns": _PIXELS, "spacing_mm": _SPACING_MM, "margin_mm": _MARGIN_MM,
         "normalise": {"enum": ["patch", "box", "windows"]}, "windows_hu": _WINDOWS_HU},
        takes_mask=True,
    ),
    "key_slice": Kind(
        KeySliceSpec, key_slice, _key_slice_input,
        {"size": _PIXELS, "spacing_mm": {"anyOf": [_SPACING_MM, {"type": "null"}]}, "windows_hu": _WINDOWS_HU,
         "frangi": {"enum": [*FRANGI_MODES, None]},
         "air_windows_hu": {"anyOf": [_WINDOWS_HU, {"type": "null"}]}},
        optional=frozenset({"air_windows_hu"}),
    ),
    "isotropic_cube": Kind(
        IsotropicCubeSpec, isotropic_cube, _cube_input,
        {"edge_mm": _EDGE_MM, "voxels": _VOXELS, "windows_hu": _WINDOWS_HU,
         "margin_mm": {"anyOf": [_MARGINS_MM, {"type": "null"}]}, "fill_hu": _HU, "box_channel": {"type": "boolean"}},
        optional=frozenset({"margin_mm", "fill_hu", "box_channel"}),
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
        "required": ["kind", *(field.name for field in fields(kind.spec_class) if field.name not in kind.optional)],
        "properties": {"kind": {"const": name}, **kind.properties},
    }
    for name, kind in KINDS.items()
}

_THINNEST_MM = 0.1


def model_input_boxes(sample: Sample, name: str) -> tuple[LesionBox, ...]:
    """What a model really looked at, as boxes: of a sample's patches, the part that shows the CT and no padding.

    One box for a stack or a cube; for planes one thin box each, where planes of one orientation are one box together.
    """
    if isinstance(sample, AxialStack):
        return (_box(sample.sampleToRAS, _extent(sample.region, len(sample.hu)), name),)
    if isinstance(sample, CubeSample):
        region = sample.region
        low, high = _extent(region.any(axis=0), len(region))
        slices = np.flatnonzero(region.any(axis=(1, 2)))
        low[2], high[2] = slices[0] - 0.5, slices[-1] + 0.5
        return (_box(sample.sampleToRAS, (low, high), name),)
    planes = [
        _box(matrix, _extent(region, 1), name)
        for patch in sample.sampleToRAS
        for matrix, region in zip(patch, sample.region, strict=True)
    ]
    return tuple(_joined(planes))


def _extent(region: np.ndarray, slices: int) -> tuple[np.ndarray, np.ndarray]:
    """First and last edge of a region (row, column) in sample indices, as (column, row, slice)."""
    rows, columns = (np.flatnonzero(region.any(axis=axis)) for axis in (1, 0))
    low = np.array([columns[0], rows[0], 0]) - 0.5
    return low, np.array([columns[-1], rows[-1], slices - 1]) + 0.5


def _box(sample_to_ras: np.ndarray, extent: tuple[np.ndarray, np.ndarray], name: str) -> LesionBox:
    low, high = extent
    step_mm = np.linalg.norm(sample_to_ras[:3, :3], axis=0)
    axes = sample_to_ras[:3, :3] / step_mm
    size = np.maximum((high - low) * step_mm, _THINNEST_MM)
    return LesionBox(transformed_points(sample_to_ras, (low + high) / 2), size, axes, name)


def _joined(planes: list[LesionBox]) -> list[LesionBox]:
    """Planes of the same orientation become the box around them."""
    boxes: list[LesionBox] = []
    for plane in planes:
        for index, box in enumerate(boxes):
            if np.allclose(np.abs(box.axesRAS.T @ plane.axesRAS), np.eye(3), atol=1e-6):
                boxes[index] = _around(box, plane)
                break
        else:
            boxes.append(plane)
    return boxes


def _around(a: LesionBox, b: LesionBox) -> LesionBox:
    corners = np.concatenate([a.cornersRAS, b.cornersRAS]) @ a.axesRAS
    low, high = corners.min(axis=0), corners.max(axis=0)
    return LesionBox(a.axesRAS @ ((low + high) / 2), high - low, a.axesRAS, a.name)
