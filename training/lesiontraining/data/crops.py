"""One lesion as the network sees it, with what is measured of it.

What an image of a lesion is: LesionLib's kinds of input for CT, and two that exist in training only, photographs (with
Graham's preparation of images of the retina, papers 1.5) and stored cubes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
from LesionLib.errors import BundleError, VolumeError
from LesionLib.geometry import CTVolume, LesionBox, transformed_points
from LesionLib.sampling.inputs import (
    KINDS,
    Sample,
    Spec,
    crop_sample,
    network_input,
    section_from_spec,
    spec_from_section,
)
from LesionLib.sampling.planes import KeySliceSpec, OrthogonalPlanesSpec, PlaneSample, key_slice
from LesionLib.sampling.resample import AxialStack
from LesionLib.sampling.statistics import lesion_statistics
from LesionLib.sampling.volumes import ShapeMaskSpec
from PIL import Image
from scipy.ndimage import gaussian_filter

from lesiontraining.data.lesions import LesionRow
from lesiontraining.data.sources import Photograph, SlicesSource, Source, StoredCube, VolumeSource

CENTRAL_SHARE = 0.9  # of the radius that is kept: the rim differs between cameras
_BLUR = 1 / 30  # of the radius: what counts as the local average colour
_GAIN = 4.0
_RIM = 0.03  # of the kept radius: the very edge of the disc is half dark
_LIT = 0.1  # of the middle row's mean brightness: what is brighter belongs to the eye


@dataclass(frozen=True)
class PhotographSpec:
    """How a 2-D image becomes network input, (1, 3, size, size), RGB in -1 ... 1.

    ``preparation``: "plain" shows the whole image, its long side ``size``, the rest -1; "graham" brings the eye's disc to
    one radius, takes the local average colour away and keeps the central 90 %, the rest 0 (Graham 2015; papers 1.5).
    """

    size: int = 224
    preparation: Literal["plain", "graham"] = "plain"


def photograph_input(rgb: np.ndarray, spec: PhotographSpec) -> np.ndarray:
    """RGB (row, column, 3), uint8 -> float32 (1, 3, size, size). Raises `VolumeError` for an image without an eye."""
    shown = _plain(rgb, spec.size) if spec.preparation == "plain" else _graham(rgb, spec.size)
    return np.ascontiguousarray(np.moveaxis(shown, -1, 0)[None], dtype=np.float32)


def _plain(rgb: np.ndarray, size: int) -> np.ndarray:
    rows, columns = rgb.shape[:2]
    scale = size / max(rows, columns)
    height, width = max(1, round(rows * scale)), max(1, round(columns * scale))
    resized = np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.BILINEAR), dtype=np.float32)
    shown = np.full((size, size, 3), -1.0, dtype=np.float32)
    top, left = (size - height) // 2, (size - width) // 2
    shown[top : top + height, left : left + width] = resized / 127.5 - 1.0
    return shown


def _graham(rgb: np.ndarray, size: int) -> np.ndarray:
    center, radius = eye_disc(rgb)
    half = CENTRAL_SHARE * radius
    middle = (rgb.shape[0] - 1) / 2
    # More than is kept is cut out, so that the average colour at the rim is one of the eye, too.
    reach = half + 2 * _BLUR * radius
    margin = round(size / 2 * (reach / half - 1))
    edge = size + 2 * margin
    window = tuple(np.array([center - reach, middle - reach, center + reach, middle + reach]) + 0.5)
    whole = Image.fromarray(rgb)
    reduced = whole.transform((edge, edge), Image.Transform.EXTENT, window, Image.Resampling.BILINEAR)
    factor = int(2 * reach / edge)
    if factor > 1:  # transform() does not smooth before it shrinks
        scaled = whole.reduce(factor)
        small = tuple(value / factor for value in window)
        reduced = scaled.transform((edge, edge), Image.Transform.EXTENT, small, Image.Resampling.BILINEAR)
    image = np.asarray(reduced, dtype=np.float32)
    across = (np.arange(edge) - (edge - 1) / 2) / (size / 2)  # in kept radii
    away = np.hypot(across[:, None], across[None, :])
    in_image = np.abs(across) * half < (rgb.shape[0] - 1) / 2
    # Many cameras cut the eye off above and below: the average is that of the eye's pixels alone.
    eye = ((away < 1 / CENTRAL_SHARE - _RIM) & in_image[:, None]).astype(np.float32)[..., None]
    sigma = _BLUR * (size / 2) / CENTRAL_SHARE
    average = gaussian_filter(image * eye, (sigma, sigma, 0)) / np.maximum(
        gaussian_filter(eye, (sigma, sigma, 0)), 1e-6
    )
    shown = np.clip(_GAIN * (image - average) / 127.5, -1.0, 1.0) * eye
    shown[away > 1.0] = 0.0
    return shown[margin : margin + size, margin : margin + size]


def eye_disc(rgb: np.ndarray) -> tuple[float, float]:
    """Middle column and radius of the eye's disc in pixels, from the lit part of the image's middle row."""
    row = rgb[rgb.shape[0] // 2].astype(np.float64).sum(axis=1)
    lit = np.flatnonzero(row > row.mean() * _LIT)
    if len(lit) < 8 or row.max() == 0:
        msg = "the middle row of the image is dark; Graham's preparation is for photographs of the retina."
        raise VolumeError(msg)
    return float(lit[0] + lit[-1]) / 2, len(lit) / 2


@dataclass(frozen=True)
class StoredCubeSpec:
    """A grey cube of MedMNIST-3D as it is stored, (1, 1, voxels, voxels, voxels), 0 ... 255 scaled to -1 ... 1."""

    voxels: int = 28


InputSpec = Spec | PhotographSpec | StoredCubeSpec
_TRAINING_KINDS: dict[str, type] = {"photograph": PhotographSpec, "stored_cube": StoredCubeSpec}
_LIMITS = {"size": (8, 1024), "voxels": (4, 256)}


def input_spec(section: Mapping[str, Any]) -> InputSpec:
    """The ``input`` section of a recipe. Fields left out of a CT kind take their default. Raises `BundleError`."""
    kind = section.get("kind")
    if kind in _TRAINING_KINDS:
        return _training_spec(kind, {key: value for key, value in section.items() if key != "kind"})
    if kind not in KINDS:
        known = ", ".join([*KINDS, *_TRAINING_KINDS])
        msg = f"the input's kind is {kind!r}; known are {known}."
        raise BundleError(msg)
    return spec_from_section({**section_from_spec(KINDS[kind].spec_class()), **section})


def input_section(spec: InputSpec) -> dict[str, Any]:
    """The inverse of `input_spec`: plain JSON, all fields."""
    for name, kind in _TRAINING_KINDS.items():
        if isinstance(spec, kind):
            return {"kind": name, **asdict(spec)}
    return section_from_spec(spec)


def value_range(spec: InputSpec) -> tuple[float, float] | None:
    """What the values of the network's input lie between; None where they were divided by their deviation."""
    if isinstance(spec, ShapeMaskSpec):
        return 0.0, 1.0
    if isinstance(spec, OrthogonalPlanesSpec) and spec.normalise != "windows":
        return None
    return -1.0, 1.0


def misfit(source: Source, spec: InputSpec) -> str | None:
    """Why a source cannot be shown in this way, None where it can."""
    if isinstance(source, Photograph):
        fits, wanted = isinstance(spec, PhotographSpec), "kind: photograph"
    elif isinstance(source, StoredCube):
        wanted_kind = ShapeMaskSpec if source.is_mask else StoredCubeSpec
        fits, wanted = isinstance(spec, wanted_kind), "kind: shape_mask" if source.is_mask else "kind: stored_cube"
    else:
        fits = not isinstance(spec, PhotographSpec | StoredCubeSpec)
        wanted = "one of " + ", ".join(KINDS)
    if not fits:
        return f"lesions of this table need input of {wanted}, not {input_section(spec)['kind']}"
    has_mask = isinstance(source, VolumeSource) and source.mask is not None
    if isinstance(spec, ShapeMaskSpec) and isinstance(source, VolumeSource | SlicesSource) and not has_mask:
        return "input of kind shape_mask needs the mask of every lesion; give the column 'mask'"
    return None


def _training_spec(kind: str, values: dict[str, Any]) -> InputSpec:
    spec_class = _TRAINING_KINDS[kind]
    unknown = sorted(set(values) - {field.name for field in fields(spec_class)})
    if unknown:
        msg = f"the input of kind {kind!r} has no {', '.join(unknown)}."
        raise BundleError(msg)
    spec = spec_class(**values)
    for name, (low, high) in _LIMITS.items():
        value = getattr(spec, name, low)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            msg = f"the input's {name} is {value!r}; give a whole number from {low} to {high}."
            raise BundleError(msg)
    if getattr(spec, "preparation", "plain") not in ("plain", "graham"):
        msg = f"the input's preparation is {spec.preparation!r}; it is plain or graham."
        raise BundleError(msg)
    return spec


# By the network's own input lesions could not be told apart: masks of 4 mm, or soft tissue alone, are all alike.
_PREVIEW = KeySliceSpec(size=64, spacing_mm=0.8, windows_hu=((-1000.0, 400.0),))
_PLAIN = PhotographSpec(size=64)
_NOT_KNOWN = np.full(3, np.nan)


@dataclass(frozen=True, eq=False)
class LesionCrop:
    """One lesion as the network sees it, with what is measured of it.

    ``images``: float32 network input, (image, channel, [slice,] row, column). ``size_mm``: box edges, and ``spacing_mm``: of
    columns, rows and slices, (3,) each. ``target``: (row, column, rows, columns) in pixels, (4,). ``preview``: a plane by which the
    lesion would be recognised, uint8 (row, column), whatever the input is. NaN is what is not known, as in `LesionDataset`.
    """

    images: np.ndarray
    size_mm: np.ndarray
    volume_mm3: float
    mean_hu: float
    spacing_mm: np.ndarray
    target: np.ndarray
    preview: np.ndarray


def crop_row(row: LesionRow, read: Any, spec: InputSpec) -> LesionCrop:
    """The lesion of ``row``; ``read`` is what its source's ``read()`` gave. Raises `BoxError`, `VolumeError`."""
    source = row.source
    if isinstance(source, Photograph):
        shown = photograph_input(read, spec)
        unknown = (_NOT_KNOWN, np.nan, np.nan, _NOT_KNOWN, np.full(4, np.nan))
        return LesionCrop(shown, *unknown, _preview(photograph_input(read, _PLAIN)[0].mean(axis=0)))
    if isinstance(source, StoredCube):
        return _stored_cube(source, read[source.index], spec)
    return _ct_lesion(read, source.lesion(read, name=row.lesion_id), spec)


def target_in_image(sample: Sample, box: LesionBox) -> np.ndarray:
    """The box in its image: (row, column, rows, columns) in pixels, from the image's upper left edge.

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


def _ct_lesion(volume: CTVolume, box: LesionBox, spec: InputSpec) -> LesionCrop:
    sample = crop_sample(volume, box, spec)
    measured = lesion_statistics(volume, box)
    return LesionCrop(
        images=network_input(sample, spec),
        size_mm=np.array(box.sizeMm),
        volume_mm3=1000.0 * measured.volume_ml,
        mean_hu=measured.hu_mean,
        spacing_mm=np.array(volume.spacingMm),
        target=target_in_image(sample, box),
        preview=_preview(network_input(key_slice(volume, box, _PREVIEW), _PREVIEW)[0, 0]),
    )


def _stored_cube(source: StoredCube, cube: np.ndarray, spec: InputSpec) -> LesionCrop:
    if cube.shape != (spec.voxels,) * 3:
        msg = f"the cubes of {source.archive.name} have {cube.shape} voxels, the input wants {spec.voxels} a side."
        raise VolumeError(msg)
    if source.is_xyz:
        cube = np.ascontiguousarray(cube.transpose())
    voxel_mm = source.edge_mm / spec.voxels
    size_mm, volume_mm3 = _NOT_KNOWN, np.nan
    if source.is_mask:
        _require_same_edge(source, spec)
        inside = _centred(cube > 127) if source.centred else cube > 127
        shown = inside.astype(np.float32)
        volume_mm3 = float(inside.sum()) * voxel_mm**3
        if inside.any():
            size_mm = np.ptp(np.argwhere(inside), axis=0)[::-1] * voxel_mm + voxel_mm
    else:
        shown = cube.astype(np.float32) / 127.5 - 1.0
    return LesionCrop(
        images=shown[None, None],
        size_mm=size_mm,
        volume_mm3=volume_mm3,
        mean_hu=np.nan,
        spacing_mm=np.full(3, voxel_mm, dtype=float),
        target=np.full(4, np.nan),
        preview=cube[len(cube) // 2],
    )


def _centred(inside: np.ndarray) -> np.ndarray:
    """The shape with its box in the middle of the cube, to half a voxel, as `LesionLib.sampling` shows a segment."""
    found = np.argwhere(inside)
    if not len(found):
        return inside
    low, high = found.min(axis=0), found.max(axis=0) + 1
    start = (np.array(inside.shape) - (high - low)) // 2
    moved = np.zeros_like(inside)
    moved[tuple(map(slice, start, start + high - low))] = inside[tuple(map(slice, low, high))]
    return moved


def _preview(plane: np.ndarray) -> np.ndarray:
    """-1 ... 1 as 0 ... 255."""
    return np.round((plane + 1.0) * 127.5).astype(np.uint8)


def _require_same_edge(source: StoredCube, spec: InputSpec) -> None:
    if np.isfinite(source.edge_mm) and abs(source.edge_mm - spec.edge_mm) > 1e-6:
        msg = (
            f"the cubes of {source.archive.name} are {source.edge_mm:g} mm long, the input says edge_mm: {spec.edge_mm:g}; "
            "the model would see lesions of another size in use."
        )
        raise VolumeError(msg)
