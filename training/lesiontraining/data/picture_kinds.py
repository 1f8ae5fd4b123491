"""What a picture of a lesion is: LesionLib's kinds of input for CT, and two that exist in training only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from LesionLib.errors import BundleError
from LesionLib.sampling_kinds import KINDS, Spec, section_from_spec, spec_from_section
from LesionLib.sampling_volumes import ShapeMaskSpec

from .photographs import PhotographSpec
from .sources import Photograph, SlicesSource, Source, StoredCube, VolumeSource


@dataclass(frozen=True)
class StoredCubeSpec:
    """A grey cube of MedMNIST-3D as it is stored, (1, 1, voxels, voxels, voxels), 0 ... 255 scaled to -1 ... 1."""

    voxels: int = 28


PictureSpec = Spec | PhotographSpec | StoredCubeSpec
_TRAINING_KINDS: dict[str, type] = {"photograph": PhotographSpec, "stored_cube": StoredCubeSpec}
_LIMITS = {"size": (8, 1024), "voxels": (4, 256)}


def picture_spec(section: Mapping[str, Any]) -> PictureSpec:
    """The ``input`` section of a recipe. Fields left out of a CT kind take their default. Raises `BundleError`."""
    kind = section.get("kind")
    if kind in _TRAINING_KINDS:
        return _training_spec(kind, {key: value for key, value in section.items() if key != "kind"})
    if kind not in KINDS:
        known = ", ".join([*KINDS, *_TRAINING_KINDS])
        msg = f"the input's kind is {kind!r}; known are {known}."
        raise BundleError(msg)
    return spec_from_section({**section_from_spec(KINDS[kind].spec_class()), **section})


def picture_section(spec: PictureSpec) -> dict[str, Any]:
    """The inverse of `picture_spec`: plain JSON, all fields."""
    for name, kind in _TRAINING_KINDS.items():
        if isinstance(spec, kind):
            return {"kind": name, **asdict(spec)}
    return section_from_spec(spec)


def misfit(source: Source, spec: PictureSpec) -> str | None:
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
        return f"lesions of this table need input of {wanted}, not {picture_section(spec)['kind']}"
    has_mask = isinstance(source, VolumeSource) and source.mask is not None
    if isinstance(spec, ShapeMaskSpec) and isinstance(source, VolumeSource | SlicesSource) and not has_mask:
        return "input of kind shape_mask needs the mask of every lesion; give the column 'mask'"
    return None


def _training_spec(kind: str, values: dict[str, Any]) -> PictureSpec:
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
