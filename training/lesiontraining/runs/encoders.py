"""Encoders of others beside ours: what a lesion's embedding comes from when it is measured.

Ours are model folders (architecture, safetensors, manifest). A stranger's network comes as a JSON file beside an ONNX file:

    {"name": "my-encoder", "version": "1.0", "file": "encoder.onnx", "sha256": "...64 hex digits...",
     "input": {"kind": "axial_stack", "size": 64, ...as "input" of a model's manifest...}}

The network takes one float32 tensor (patch, channel, ...) as our sampling makes it and gives (patch, d) or (patch, d, ...);
places and patches are averaged. ONNX is a graph of operators: nothing in the file is run as code of this process.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from LesionLib.errors import LesionLensError
from LesionLib.geometry import CTVolume, LesionBox
from LesionLib.inference.classifier import Classifier
from LesionLib.inference.devices import best_device
from LesionLib.model.bundle import load_bundle
from LesionLib.sampling.batches import crop_lesion
from LesionLib.sampling.inputs import spec_from_section

MAX_ENCODER_BYTES = 2 * 1024**3
_MAX_DESCRIPTION_BYTES = 1024**2
_KEYS = {"name", "version", "file", "sha256", "input"}


class EncoderError(LesionLensError):
    """An encoder's file that cannot be used; the text says why."""


@dataclass(frozen=True, eq=False)
class Encoder:
    """``embed``: a CT and a box to an L2-normalised vector, float32, (d,). ``margin_mm``: around a segment.

    ``learned_from``: whether the network's training held this lesion; None where nobody knows.
    """

    name: str
    version: str
    sha256: str
    embed: Callable[[CTVolume, LesionBox], np.ndarray]
    margin_mm: float = 0.0
    learned_from: Callable[[CTVolume, LesionBox], bool | None] = lambda _volume, _box: None


def open_encoder(model: str) -> Encoder:
    """A model by name or folder, or the JSON file of an ONNX network. Raises `EncoderError`, or `BundleError`."""
    if model.lower().endswith(".json"):
        return _of_onnx(Path(model))
    bundle = load_bundle(model, device=best_device())
    return Encoder(
        bundle.name,
        bundle.version,
        bundle.sha256,
        lambda volume, box: Classifier(bundle, volume).embed(box),
        bundle.segment_margin_mm,
        lambda volume, box: None if bundle.training_content is None else bundle.training_content.holds(volume, box),
    )


def _of_onnx(path: Path) -> Encoder:
    values = _description(path)
    file = path.parent / values["file"]
    content = _checked_bytes(file, values["sha256"])
    try:
        import onnxruntime
    except ImportError as error:
        msg = f"{path.name} needs onnxruntime; install it by: pip install 'lesionlens[bench]'."
        raise EncoderError(msg) from error
    spec = spec_from_section(values["input"])
    try:
        session = onnxruntime.InferenceSession(content, providers=onnxruntime.get_available_providers())
    except Exception as error:  # onnxruntime's own errors have no common class that is public
        msg = f"{file.name} is no ONNX network that onnxruntime {onnxruntime.__version__} can open."
        raise EncoderError(msg) from error
    inputs = session.get_inputs()
    if len(inputs) != 1:
        msg = f"{file.name} takes {len(inputs)} inputs; an encoder takes one, the patches."
        raise EncoderError(msg)

    def embed(volume: CTVolume, box: LesionBox) -> np.ndarray:
        patches = np.ascontiguousarray(crop_lesion(volume, box, spec).patches, dtype=np.float32)
        try:
            given = np.asarray(session.run(None, {inputs[0].name: patches})[0], dtype=np.float64)
        except Exception as error:
            msg = f"{file.name} does not take patches of shape {patches.shape}; compare its input with that of {path.name}."
            raise EncoderError(msg) from error
        if given.ndim < 2 or len(given) != len(patches) or not np.isfinite(given).all():
            msg = f"{file.name} gives shape {given.shape} for {len(patches)} patches, or no numbers; (patch, d) is expected."
            raise EncoderError(msg)
        vector = given.reshape(*given.shape[:2], -1).mean(axis=(0, 2))
        return (vector / max(float(np.linalg.norm(vector)), 1e-12)).astype(np.float32)

    return Encoder(values["name"], values["version"], values["sha256"], embed)


def _description(path: Path) -> dict:
    try:
        with path.open("rb") as handle:
            raw = handle.read(_MAX_DESCRIPTION_BYTES + 1)
        values = json.loads(raw) if len(raw) <= _MAX_DESCRIPTION_BYTES else None
    except (OSError, ValueError, RecursionError) as error:
        msg = f"{path} cannot be read as JSON; give a model, or an encoder's file as training/README.md describes it."
        raise EncoderError(msg) from error
    texts = ("name", "version", "file", "sha256")
    if not isinstance(values, dict) or set(values) != _KEYS or not all(isinstance(values[key], str) for key in texts):
        msg = f"{path} must hold exactly {', '.join(sorted(_KEYS))}, all but input as texts."
        raise EncoderError(msg)
    if Path(values["file"]).name != values["file"] or not re.fullmatch(r"[0-9a-f]{64}", values["sha256"]):
        msg = f"{path}: file is the name of a file beside it, sha256 its hash in 64 hexadecimal digits."
        raise EncoderError(msg)
    return values


def _checked_bytes(file: Path, expected: str) -> bytes:
    """The network as it was described; a graph that is opened from memory reads no other file."""
    try:
        if file.stat().st_size > MAX_ENCODER_BYTES:
            msg = f"{file.name} is larger than {MAX_ENCODER_BYTES // 1024**3} GiB."
            raise EncoderError(msg)
        content = file.read_bytes()
    except OSError as error:
        msg = f"{file} cannot be read ({error.strerror}); it belongs beside its JSON file."
        raise EncoderError(msg) from error
    found = sha256(content).hexdigest()
    if found != expected:
        msg = f"{file.name} is not the file that was described: its SHA-256 is {found}."
        raise EncoderError(msg)
    return content
