"""A model as a folder of data: manifest, safetensors, card, licence. Verified when loaded, never executed.

The manifest is ``configs/metadata.json``: MONAI's bundle keys and our ``lesionlens`` section, by the JSON schema below.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors

from LesionLib.errors import BundleError
from LesionLib.metric import COSINE, METRICS, metric_of
from LesionLib.model.codes import CODE_SCHEMA, DicomCode, code_from_json
from LesionLib.model.explanation import EXPLANATION_SCHEMA, Explanation, explanation_of
from LesionLib.model.folder import (
    CARD,
    LICENSE,
    MANIFEST,
    MAX_MARGIN_MM,
    MAX_SAME_EMBEDDINGS,
    WEIGHTS,
    find_bundle,
    golden_case,
    manifest_bytes,
    segment_margin_of,
)
from LesionLib.model.scores import SCORES_SCHEMA, ScoreSpec, scores_from_json
from LesionLib.networks import LesionNet, Unfilled, build_network
from LesionLib.networks.base import device_of, parted_output
from LesionLib.sampling.batches import crop_lesion, in_channels_last, network_in_channels_last
from LesionLib.sampling.content_hash import CONTENT_SCHEMA, TrainingContent
from LesionLib.sampling.inputs import Spec, spec_from_section
from LesionLib.uncertainty.conformal import ConformalQuantile
from LesionLib.uncertainty.out_of_distribution import OutOfDistribution

SCHEMA_VERSION = 1
# \Z, not $: that would let a line break stand at the end.
CLASS_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9 _-]{0,63}\Z"
_SHA256 = {"type": "string", "pattern": r"^[0-9a-f]{64}\Z"}
# Prose: line breaks and tabs, but nothing that moves a terminal's cursor.
_TEXT = {"type": "string", "maxLength": 20_000, "pattern": r"^[^\x00-\x08\x0b-\x1f\x7f-\x9f]*\Z"}
_MILLIMETRES = {"type": "number", "minimum": 0, "maximum": 10_000}
_HU_PAIR = {
    "type": "array",
    "items": {"type": "number", "minimum": -100_000, "maximum": 100_000},
    "minItems": 2,
    "maxItems": 2,
}
_MM_PAIR = {"type": "array", "items": _MILLIMETRES, "minItems": 2, "maxItems": 2}
_LOGIT = {"type": "number", "minimum": -1e6, "maximum": 1e6}
_PROBABILITY = {"type": "number", "minimum": 0, "maximum": 1}
_ARGUMENT = {
    "type": ["number", "integer", "string", "boolean", "null"],
    "minimum": -100_000,
    "maximum": 100_000,
    "maxLength": 64,
}

# What else belongs to it depends on the kind: `sampling.inputs.KIND_SCHEMAS`.
_INPUT = {"type": "object", "required": ["kind"], "properties": {"kind": {"type": "string"}}}

_CLASS = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name", "description", "colorRGB"],
    "properties": {
        "name": {"type": "string", "pattern": CLASS_NAME_PATTERN},
        "description": _TEXT,
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
        "architecture": {"type": "string", "pattern": r"^[a-z0-9_]{1,64}\Z"},
        "arguments": {"type": "object", "additionalProperties": _ARGUMENT, "maxProperties": 32},
        "input": _INPUT,
        "classes": {
            "type": "array", "items": _CLASS, "maxItems": 200, "not": {"minItems": 1, "maxItems": 1},
            "description": "none for a model that only compares lesions",
        },
        "scores": SCORES_SCHEMA,
        "finding_site": {
            **CODE_SCHEMA,
            "description": "the DICOM code of where in the body its lesions lie; models made before it was stored have none",
        },
        "explanation": EXPLANATION_SCHEMA,
        "aggregation": {"const": "mean_slice_probability"},
        "box_size_mm": {**_MM_PAIR, "description": "smallest and largest box edge seen in training"},
        "slice_distance_mm": {**_MM_PAIR, "description": "thinnest and thickest slices seen in training"},
        "golden_logits": {
            "type": "array", "minItems": 1, "maxItems": 1024,
            "items": {"type": "array", "items": _LOGIT, "maxItems": 20_000},
        },
        "golden_probabilities": {
            "type": "array", "items": _PROBABILITY, "minItems": 2, "maxItems": 200,
            "description": "of the golden case's classes, after the temperature; models made before it was stored have none",
        },
        "segment_margin_mm": {
            "type": "number", "minimum": 0, "maximum": MAX_MARGIN_MM,
            "description": "how far the boxes of training reach beyond a segment, on every side; left out: 0",
        },
        "class_prior": {
            "type": "array", "items": _PROBABILITY, "maxItems": 200,
            "description": "the share of each class that the probabilities assume",
        },
        "training_content": CONTENT_SCHEMA,
        "phantom": {
            "type": "object",
            "additionalProperties": False,
            "required": ["mean_hu"],
            "properties": {"mean_hu": {**_HU_PAIR, "description": "lowest and highest mean of a box that it learned from"}},
            "description": "learned from computed lesions alone, for teaching; every answer is warned of. Left out: from patients",
        },
        "metric": {"enum": list(METRICS), "description": "how two embeddings are compared; left out: cosine"},
        "same_embedding_as": {
            "type": "array", "items": _SHA256, "maxItems": MAX_SAME_EMBEDDINGS, "uniqueItems": True,
            "description": "earlier models of which only what is said or how it is calibrated differs, not the embedding",
        },
        "training": {"type": "object"},
        "files": {"type": "object", "additionalProperties": _SHA256, "minProperties": 1, "maxProperties": 16},
        "not_for_clinical_use": {"const": True},
    },
}  # fmt: skip

MANIFEST_SCHEMA = {
    "type": "object",
    "required": ["name", "version", "description", "intended_use", "network_data_format", "lesionlens", "sha256"],
    "properties": {
        "name": {"type": "string", "pattern": r"^[a-z0-9][a-z0-9._-]{0,63}\Z"},
        "version": {"type": "string", "pattern": r"^[0-9]{1,9}\.[0-9]{1,9}\.[0-9]{1,9}\Z"},
        "description": _TEXT,
        "intended_use": _TEXT,
        "network_data_format": {"type": "object"},
        "lesionlens": _LESIONLENS,
        "sha256": _SHA256,
    },
}
_MANIFEST_VALIDATOR = jsonschema.validators.validator_for(MANIFEST_SCHEMA)(MANIFEST_SCHEMA)

TEMPERATURE = "calibration.temperature"
_NETWORK_PREFIX = "network."
_MAX_FILE_BYTES = {WEIGHTS: 2 * 1024**3}
_MAX_OTHER_FILE_BYTES = 16 * 1024**2
_GOLDEN_TOLERANCE, _PROBABILITY_TOLERANCE = 5e-3, 1e-2
_TEMPERATURES = (0.01, 100.0)


@dataclass(frozen=True, eq=False)
class Bundle:
    """A verified model, ready to answer. ``sha256`` names it: the hash of its manifest, which names every file's hash.

    ``class_names`` is empty for a model that only compares lesions. ``conformal`` makes prediction sets, ``ood`` tells
    unusual lesions; None where the model brings neither. ``segment_margin_mm``: how far the box of a segment reaches beyond it.
    ``training_content`` recognises lesions that the model learned from; None where the model does not say. ``scores``: what the
    network's last columns are, none for most models. ``explanation``: how its answers are explained unasked. ``finding_site``:
    where in the body its lesions lie; None where the model does not say. ``phantom_hu``: lowest and highest mean HU of the boxes of a
    model that learned from computed lesions alone, for teaching; None for all others. ``metric``: how its embeddings are compared.
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
    scores: tuple[ScoreSpec, ...] = ()
    explanation: Explanation = field(default_factory=Explanation)
    finding_site: DicomCode | None = None
    phantom_hu: tuple[float, float] | None = None
    metric: str = COSINE


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
    if network.metric != metric_of(manifest):
        msg = f"model {folder.name}: its manifest compares by {metric_of(manifest)}, its network by {network.metric}. Get it again."
        raise BundleError(msg)
    with _naming(folder):
        temperature = _temperature(tensors)
        likeness_size = _checked_golden(network, spec, temperature, ours)
        conformal = ConformalQuantile.from_tensors(tensors, classes=len(ours["classes"]))
        ood = OutOfDistribution.from_tensors(tensors, size=likeness_size)
        training_content = TrainingContent.from_manifest(ours.get("training_content"))
    return Bundle(
        name=manifest["name"],
        version=manifest["version"],
        sha256=manifest["sha256"],
        network=network,
        spec=spec,
        class_names=tuple(c["name"] for c in ours["classes"]),
        class_colors=tuple(tuple(c["colorRGB"]) for c in ours["classes"]),
        temperature=temperature,
        conformal=conformal,
        ood=ood,
        box_size_mm=tuple(ours["box_size_mm"]),
        slice_distance_mm=tuple(ours["slice_distance_mm"]),
        segment_margin_mm=segment_margin_of(manifest),
        training_content=training_content,
        manifest=manifest,
        folder=folder,
        scores=scores_from_json(ours.get("scores", ())),
        explanation=_explanation(ours),
        finding_site=code_from_json(ours.get("finding_site")),
        phantom_hu=tuple(ours["phantom"]["mean_hu"]) if "phantom" in ours else None,
        metric=metric_of(manifest),
    )


def golden_logits(network: LesionNet, spec: Spec) -> np.ndarray:
    """What this network says of `golden_case`, (patch, n), through the whole way from the CT; the scores are its last columns."""
    return _golden_output(network, spec).reference


def golden_probabilities(network: LesionNet, spec: Spec, temperature: float, *, scores: int = 0) -> np.ndarray | None:
    """What this network answers to `golden_case`, (class,), after the temperature: as a user sees it.

    ``scores``: how many of its last columns are scores, no classes. None where an answer is no figure to compare: a step of
    it lies within the tolerance.
    """
    answer = _golden_output(network, spec, temperature, scores=scores)
    has_steps = type(network).reference_values is not LesionNet.reference_values
    if has_steps and np.abs(answer.reference).min() <= 2 * _GOLDEN_TOLERANCE:
        return None
    return answer.probabilities


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
        text = manifest_bytes(folder).decode("utf-8")
        manifest = json.loads(text)
        # NaN and Infinity are no numbers to the schema, for it sees lists; in the facts that nobody computes with they may stand.
        _require_schema(json.loads(text, parse_constant=lambda name: [name]))
        _require_different(manifest["lesionlens"]["classes"])
        _require_classes_beside(scores_from_json(manifest["lesionlens"].get("scores", ())), manifest["lesionlens"])
        _explanation(manifest["lesionlens"])
    except BundleError:
        raise
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


def _require_schema(manifest: Any) -> None:
    """As `jsonschema.validate` does, which checks the schema itself anew at every call: it takes longer than the manifest."""
    error = jsonschema.exceptions.best_match(_MANIFEST_VALIDATOR.iter_errors(manifest))
    if error is not None:
        raise error


def _require_different(classes: list[Mapping[str, Any]]) -> None:
    names = [entry["name"] for entry in classes]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        msg = f"two classes are named {twice!r}"
        raise ValueError(msg)


def _require_classes_beside(scores: tuple[ScoreSpec, ...], ours: Mapping[str, Any]) -> None:
    if scores and not ours["classes"]:
        msg = f"it names {len(scores)} scores and no classes; scores stand beside at least two classes"
        raise ValueError(msg)


def _explanation(ours: Mapping[str, Any]) -> Explanation:
    return explanation_of(ours.get("explanation", {}), [entry["name"] for entry in ours["classes"]])


def max_file_bytes(name: str) -> int:
    """How large a file of a model may be: 2 GiB of weights, 16 MiB of anything else."""
    return _MAX_FILE_BYTES.get(name, _MAX_OTHER_FILE_BYTES)


def _checked_bytes(folder: Path, name: str, digest: str) -> bytes:
    path = folder / name
    if not _is_file_of(folder, path):
        msg = f"model {folder.name}: {name} is missing or not a plain file of the model folder. Get the model again."
        raise BundleError(msg)
    most = max_file_bytes(name)
    # The bytes that were hashed are the bytes that are used: a file swapped in between has no effect.
    with path.open("rb") as handle:
        size = os.fstat(handle.fileno()).st_size
        content = handle.read(size + 1) if size <= most else b""  # one more: it may have grown meanwhile
    if max(size, len(content)) > most:
        msg = f"model {folder.name}: {name} is larger than {most // 1024**2} MiB; this is not a model of ours."
        raise BundleError(msg)
    if hashlib.sha256(content).hexdigest() != digest:
        msg = f"model {folder.name}: {name} was changed after the model was made (its SHA-256 differs). Get the model again."
        raise BundleError(msg)
    return content


def _is_file_of(folder: Path, path: Path) -> bool:
    try:
        return not path.is_symlink() and path.resolve().is_relative_to(folder.resolve()) and path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _tensors(folder: Path, content: bytes) -> dict[str, torch.Tensor]:
    try:
        return load_tensors(content)
    except (SafetensorError, ValueError) as error:
        msg = f"model {folder.name}: {WEIGHTS} is not a safetensors file: {_first_line(error)}."
        raise BundleError(msg) from error


def _network(folder: Path, ours: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> LesionNet:
    weights = {k.removeprefix(_NETWORK_PREFIX): v for k, v in tensors.items() if k.startswith(_NETWORK_PREFIX)}
    architecture, arguments = ours["architecture"], ours["arguments"]
    # A manifest can ask for layers of any size. Those of its weights are what the file holds, so that a network which
    # has their shapes needs no more memory than they do; the shapes themselves cost nothing.
    with torch.device("meta"), Unfilled():
        shapes = {name: tensor.shape for name, tensor in build_network(architecture, arguments).state_dict().items()}
    if misfit := _first_misfit(shapes, {name: tensor.shape for name, tensor in weights.items()}):
        msg = f"model {folder.name}: {WEIGHTS} does not fit the architecture {architecture}: {misfit}."
        raise BundleError(msg)
    with Unfilled():  # every value is of the file: the names and shapes were compared
        network = build_network(architecture, arguments)
    try:
        network.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        msg = f"model {folder.name}: {WEIGHTS} does not fit the architecture {architecture}: {_first_line(error)}"
        raise BundleError(msg) from error
    return network_in_channels_last(network.eval())


def _first_misfit(taken: Mapping[str, torch.Size], given: Mapping[str, torch.Size]) -> str | None:
    for name, shape in taken.items():
        if name not in given:
            return f"{name} is missing"
        if given[name] != shape:
            return f"{name} has the shape {tuple(given[name])}, the network takes {tuple(shape)}"
    unknown = next((name for name in given if name not in taken), None)
    return None if unknown is None else f"{unknown} is not in the network"


def _temperature(tensors: Mapping[str, torch.Tensor]) -> float:
    """What divides the logits; 1 where a model brings none. Raises `BundleError`."""
    stored = tensors.get(TEMPERATURE, torch.ones(1))
    lowest, highest = _TEMPERATURES
    value = float(stored.flatten()[0]) if stored.numel() == 1 and not stored.is_complex() else float("nan")
    if not lowest <= value <= highest:
        given = f"{value:g}" if stored.numel() == 1 else f"a tensor of shape {tuple(stored.shape)}"
        msg = f"its temperature is {given}, expected one number from {lowest:g} to {highest:g}; get the model again."
        raise BundleError(msg)
    return value


@dataclass(frozen=True, eq=False)
class _GoldenAnswer:
    """``reference``: (patch, n). ``probabilities``: (class,) and ``scores``: (score,), means over the patches; None without
    classes.
    """

    reference: np.ndarray
    probabilities: np.ndarray | None
    scores: np.ndarray | None
    likeness_size: int


def _golden_output(
    network: LesionNet, spec: Spec, temperature: float | None = None, *, scores: int = 0
) -> _GoldenAnswer:
    """``temperature``: None for a model without classes, or where their probabilities are not asked for."""
    patches = in_channels_last(torch.from_numpy(crop_lesion(*golden_case(), spec).patches))
    with torch.inference_mode():
        features = network.features(patches.to(device_of(network)))
        reference, descriptor = network.reference_values(features), network.descriptor(features)
        likeness = network.training_likeness(features, descriptor)
        probabilities = values = None
        if temperature is not None:
            logits, values = parted_output(network.head(features), scores)
            probabilities = network.probabilities(logits, temperature).mean(dim=0).float().cpu().numpy()
            values = values.mean(dim=0).float().cpu().numpy()
    return _GoldenAnswer(reference.float().cpu().numpy(), probabilities, values, likeness.shape[1])


def _checked_golden(network: LesionNet, spec: Spec, temperature: float, ours: Mapping[str, Any]) -> int:
    """How many numbers tell likeness to the training, where the network answers its golden case as it should, before and after
    the temperature.
    """
    classes, scores = len(ours["classes"]), len(ours.get("scores", ()))
    try:
        here = _golden_output(network, spec, temperature if classes else None, scores=scores)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        msg = f"its network cannot take the input that its manifest names: {_first_line(error)}."
        raise BundleError(msg) from error
    if classes and (here.probabilities.shape != (classes,) or not np.isfinite(here.probabilities).all()):
        msg = f"it names {classes} classes, and its network answers {here.probabilities.tolist()[:8]}; get the model again."
        raise BundleError(msg)
    if scores and (here.scores.shape != (scores,) or not np.isfinite(here.scores).all()):
        msg = f"it names {scores} scores, and its network answers {here.scores.tolist()[:8]}; get the model again."
        raise BundleError(msg)
    pairs = [(here.reference, ours["golden_logits"], _GOLDEN_TOLERANCE)]
    if classes and "golden_probabilities" in ours:
        pairs.append((here.probabilities, ours["golden_probabilities"], _PROBABILITY_TOLERANCE))
    for found, listed, tolerance in pairs:
        stored = _array(listed)
        if found.shape != stored.shape or not np.allclose(found, stored, rtol=1e-5, atol=tolerance):
            difference = np.abs(found - stored).max() if found.shape == stored.shape else float("nan")
            msg = (
                f"it answers its own test case differently here (largest difference {difference:.2g}); "
                "update LesionLens or get the model again."
            )
            raise BundleError(msg)
    return here.likeness_size


def _array(listed: list) -> np.ndarray:
    try:
        return np.array(listed, dtype=np.float64)
    except ValueError:  # rows of different lengths
        return np.zeros(0)


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
