"""A model as a folder of data: manifest, safetensors, card, licence. Verified when loaded, never executed.

The manifest is ``configs/metadata.json``: MONAI's bundle keys and our ``lesionlens`` section, by the JSON schema below.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors

from LesionLib.errors import BundleError
from LesionLib.model.folder import CARD, LICENSE, MANIFEST, WEIGHTS, find_bundle, golden_case, segment_margin_of
from LesionLib.networks import LesionNet, build_network
from LesionLib.networks.base import device_of
from LesionLib.sampling.batches import cut_lesion, in_channels_last, network_in_channels_last
from LesionLib.sampling.content_hash import CONTENT_SCHEMA, TrainingContent
from LesionLib.sampling.inputs import Spec, spec_from_section
from LesionLib.uncertainty.conformal import ConformalQuantile
from LesionLib.uncertainty.out_of_distribution import OutOfDistribution

SCHEMA_VERSION = 1
CLASS_NAME_PATTERN = "^[A-Za-z0-9][A-Za-z0-9 _-]{0,63}$"
_SHA256 = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_NUMBER_PAIR = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}

# What else belongs to it depends on the kind: `sampling.inputs.KIND_SCHEMAS`.
_INPUT = {"type": "object", "required": ["kind"], "properties": {"kind": {"type": "string"}}}

_CLASS = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name", "description", "colorRGB"],
    "properties": {
        "name": {"type": "string", "pattern": CLASS_NAME_PATTERN},
        "description": {"type": "string"},
        "colorRGB": {
            "type": "array",
            "items": {"type": "number", "minimum": 0, "maximum": 1},
            "minItems": 3,
            "maxItems": 3,
        },
    },
}

_LESIONLENS = {
    "type": "object",
    "additionalProperties": False,
    "required": [
        "schema", "architecture", "arguments", "input", "classes", "aggregation", "box_size_mm", "slice_distance_mm",
        "golden_logits", "files", "not_for_clinical_use",
    ],
    "properties": {
        "schema": {"const": SCHEMA_VERSION},
        "architecture": {"type": "string", "pattern": "^[a-z0-9_]{1,64}$"},
        "arguments": {"type": "object", "additionalProperties": {"type": ["number", "integer", "string", "boolean", "null"]}},
        "input": _INPUT,
        "classes": {
            "type": "array", "items": _CLASS, "maxItems": 200, "not": {"minItems": 1, "maxItems": 1},
            "description": "none for a model that only compares lesions",
        },
        "aggregation": {"const": "mean_slice_probability"},
        "box_size_mm": {**_NUMBER_PAIR, "description": "smallest and largest box edge seen in training"},
        "slice_distance_mm": {**_NUMBER_PAIR, "description": "thinnest and thickest slices seen in training"},
        "golden_logits": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}, "minItems": 1},
        "segment_margin_mm": {
            "type": "number", "minimum": 0, "maximum": 50,
            "description": "how far the boxes of training reach beyond a segment, on every side; left out: 0",
        },
        "class_prior": {
            "type": "array", "items": {"type": "number", "minimum": 0, "maximum": 1},
            "description": "the share of each class that the probabilities assume",
        },
        "training_content": CONTENT_SCHEMA,
        "training": {"type": "object"},
        "files": {"type": "object", "additionalProperties": _SHA256, "minProperties": 1},
        "not_for_clinical_use": {"const": True},
    },
}  # fmt: skip

MANIFEST_SCHEMA = {
    "type": "object",
    "required": ["name", "version", "description", "intended_use", "network_data_format", "lesionlens", "sha256"],
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z0-9][a-z0-9._-]{0,63}$"},
        "version": {"type": "string", "pattern": "^[0-9]+\\.[0-9]+\\.[0-9]+$"},
        "description": {"type": "string"},
        "intended_use": {"type": "string"},
        "network_data_format": {"type": "object"},
        "lesionlens": _LESIONLENS,
        "sha256": _SHA256,
    },
}

TEMPERATURE = "calibration.temperature"
_NETWORK_PREFIX = "network."
_LARGEST_FILE = 2 * 1024**3
_GOLDEN_TOLERANCE = 5e-3


@dataclass(frozen=True, eq=False)
class Bundle:
    """A verified model, ready to answer. ``sha256`` names it: the hash of its manifest, which names every file's hash.

    ``class_names`` is empty for a model that only compares lesions. ``conformal`` makes prediction sets, ``ood`` tells
    unusual lesions; None where the model brings neither. ``segment_margin_mm``: how far the box of a segment reaches beyond it.
    ``training_content`` recognises lesions that the model learned from; None where the model does not say.
    """

    name: str
    version: str
    sha256: str
    network: LesionNet
    spec: Spec
    class_names: tuple[str, ...]
    class_colors: tuple[tuple[float, float, float], ...]
    temperature: float
    conformal: ConformalQuantile | None
    ood: OutOfDistribution | None
    box_size_mm: tuple[float, float]
    slice_distance_mm: tuple[float, float]
    segment_margin_mm: float
    training_content: TrainingContent | None
    manifest: Mapping[str, Any]
    folder: Path


def load_bundle(model: str | Path, *, device: torch.device | str = "cpu") -> Bundle:
    """Load and verify a model. Raises `BundleError`: unknown, incomplete, tampered with, or answering differently here."""
    folder = find_bundle(model)
    manifest = read_manifest(folder)
    ours = manifest["lesionlens"]
    for required in (WEIGHTS, CARD, LICENSE):
        if required not in ours["files"]:
            msg = f"model {folder.name}: its manifest does not list {required}; get the model again."
            raise BundleError(msg)
    contents = {name: _checked_bytes(folder, name, digest) for name, digest in ours["files"].items()}
    tensors = _tensors(folder, contents[WEIGHTS])
    network, spec = _network(folder, ours, tensors).to(device), spec_from_section(ours["input"])
    descriptor_size = _checked_golden(folder, network, spec, np.array(ours["golden_logits"]))
    with _naming(folder):
        conformal = ConformalQuantile.from_tensors(tensors, classes=len(ours["classes"]))
        ood = OutOfDistribution.from_tensors(tensors, size=descriptor_size)
        training_content = TrainingContent.from_manifest(ours.get("training_content"))
    return Bundle(
        name=manifest["name"],
        version=manifest["version"],
        sha256=manifest["sha256"],
        network=network,
        spec=spec,
        class_names=tuple(c["name"] for c in ours["classes"]),
        class_colors=tuple(tuple(c["colorRGB"]) for c in ours["classes"]),
        temperature=float(tensors.get(TEMPERATURE, torch.ones(1))[0]),
        conformal=conformal,
        ood=ood,
        box_size_mm=tuple(ours["box_size_mm"]),
        slice_distance_mm=tuple(ours["slice_distance_mm"]),
        segment_margin_mm=segment_margin_of(manifest),
        training_content=training_content,
        manifest=manifest,
        folder=folder,
    )


def golden_logits(network: LesionNet, spec: Spec) -> np.ndarray:
    """What this network says of `golden_case`, (picture, n), through the whole way from the CT."""
    return _golden_answer(network, spec)[0]


def manifest_sha256(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of the manifest without its own ``sha256``, as compact JSON with sorted keys."""
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def network_tensors(network: LesionNet) -> dict[str, torch.Tensor]:
    """The network's weights under the names they have in a bundle."""
    return {_NETWORK_PREFIX + name: tensor.contiguous() for name, tensor in network.state_dict().items()}


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a model folder, checked against its schema and its own hash. Raises `BundleError`."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        jsonschema.validate(manifest, MANIFEST_SCHEMA)
    except (OSError, ValueError, RecursionError) as error:
        msg = f"model {folder.name}: {MANIFEST} cannot be read: {_first_line(error)}. Get the model again."
        raise BundleError(msg) from error
    except jsonschema.ValidationError as error:
        msg = f"model {folder.name}: {MANIFEST} is not as it should be at {error.json_path}: {_first_line(error.message)}."
        raise BundleError(msg) from error
    if manifest_sha256(manifest) != manifest["sha256"]:
        msg = (
            f"model {folder.name}: {MANIFEST} was changed after it was made (its SHA-256 differs). Get the model again."
        )
        raise BundleError(msg)
    with _naming(folder):
        spec_from_section(manifest["lesionlens"]["input"])
    return manifest


def _checked_bytes(folder: Path, name: str, digest: str) -> bytes:
    path = folder / name
    if path.is_symlink() or not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
        msg = f"model {folder.name}: {name} is missing or not a plain file of the model folder. Get the model again."
        raise BundleError(msg)
    if path.stat().st_size > _LARGEST_FILE:
        msg = f"model {folder.name}: {name} is larger than {_LARGEST_FILE // 1024**3} GiB; this is not a model of ours."
        raise BundleError(msg)
    # The bytes that were hashed are the bytes that are used: a file swapped in between has no effect.
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        msg = f"model {folder.name}: {name} was changed after the model was made (its SHA-256 differs). Get the model again."
        raise BundleError(msg)
    return content


def _tensors(folder: Path, content: bytes) -> dict[str, torch.Tensor]:
    try:
        return load_tensors(content)
    except (SafetensorError, ValueError) as error:
        msg = f"model {folder.name}: {WEIGHTS} is not a safetensors file: {_first_line(error)}."
        raise BundleError(msg) from error


def _network(folder: Path, ours: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> LesionNet:
    network = build_network(ours["architecture"], ours["arguments"])
    weights = {k.removeprefix(_NETWORK_PREFIX): v for k, v in tensors.items() if k.startswith(_NETWORK_PREFIX)}
    try:
        network.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        msg = (
            f"model {folder.name}: {WEIGHTS} does not fit the architecture {ours['architecture']}: {_first_line(error)}"
        )
        raise BundleError(msg) from error
    return network_in_channels_last(network.eval())


def _golden_answer(network: LesionNet, spec: Spec) -> tuple[np.ndarray, int]:
    """The reference values (picture, n) of the golden case, and the size of a descriptor."""
    pictures = in_channels_last(torch.from_numpy(cut_lesion(*golden_case(), spec).pictures))
    with torch.inference_mode():
        features = network.features(pictures.to(device_of(network)))
        values, descriptor = network.reference_values(features), network.descriptor(features)
    return values.float().cpu().numpy(), descriptor.shape[1]


def _checked_golden(folder: Path, network: LesionNet, spec: Spec, stored: np.ndarray) -> int:
    """The size of a descriptor, where the network answers its golden case as it should."""
    try:
        here, descriptor_size = _golden_answer(network, spec)
    except (RuntimeError, ValueError, IndexError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        msg = f"model {folder.name}: its network cannot take the input that its manifest names: {_first_line(error)}."
        raise BundleError(msg) from error
    if here.shape != stored.shape or not np.allclose(here, stored, atol=_GOLDEN_TOLERANCE):
        difference = np.abs(here - stored).max() if here.shape == stored.shape else float("nan")
        msg = (
            f"model {folder.name} answers its own test case differently here (largest difference {difference:.2g}); "
            "update LesionLens or get the model again."
        )
        raise BundleError(msg)
    return descriptor_size


@contextmanager
def _naming(folder: Path) -> Iterator[None]:
    """Put the model's name before what is wrong with it."""
    try:
        yield
    except BundleError as error:
        msg = f"model {folder.name}: {error}"
        raise BundleError(msg) from error


def _first_line(error: object) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
