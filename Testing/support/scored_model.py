"""A small model that scores lesions beside its classes: a real network with random weights, in a real model folder."""

from __future__ import annotations

import atexit
import hashlib
import json
import shutil
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from LesionLib.model.bundle import golden_logits, golden_probabilities, load_bundle, manifest_sha256, network_tensors
from LesionLib.model.folder import CARD, LICENSE, MANIFEST, WEIGHTS
from LesionLib.networks import build_network
from LesionLib.sampling.inputs import section_from_spec
from LesionLib.sampling.resample import AxialStackSpec
from safetensors.torch import save_file

NAME = "tiny-description"
CLASSES = ("calcified", "solid", "subsolid")
_COLORS = ([0.85, 0.75, 0.3], [0.2, 0.45, 0.75], [0.3, 0.65, 0.6])


def _levels(low: str, high: str) -> list[str]:
    return [f"no {low}", f"slight {low}", f"moderate {low}", f"clear {low}", high]


SCORES: tuple[dict[str, Any], ...] = (
    {
        "name": "spiculation", "description": "how spiculated the margin is", "low": 1, "high": 5,
        "levels": _levels("spiculation", "marked spiculation"), "say": "when_high", "word": "spiculated",
        "code": {"scheme": "NCIt", "value": "C28749", "meaning": "Spiculation"},
        "error": {"model": 0.48, "reader": 0.61, "n": 806},
    },
    {
        "name": "lobulation", "description": "how lobulated the margin is", "low": 1, "high": 5,
        "levels": _levels("lobulation", "marked lobulation"), "say": "when_high", "say_from": 3, "word": "lobulated",
        "code": {"scheme": "NCIt", "value": "C62175", "meaning": "Lobular Pattern"},
        "error": {"model": 0.82, "reader": 0.64, "n": 806},
    },
    {
        "name": "subtlety", "description": "how easily it is found", "low": 1, "high": 5,
        "levels": ["extremely subtle", "moderately subtle", "fairly subtle", "moderately obvious", "obvious"],
    },
    {
        "name": "calcification", "description": "kind of calcification", "low": 1, "high": 6,
        "levels": ["popcorn", "laminated", "solid", "non-central", "central", "absent"], "say": "always",
        "phrases": ["popcorn calcification", "laminated calcification", "calcified", "partly calcified",
                    "central calcification", "not calcified"],
        "code": {"scheme": "NCIt", "value": "C3672", "meaning": "Calcification"},
        "error": {"model": 0.3, "reader": 0.3, "n": 806},
    },
)  # fmt: skip
# What the network says of a lesion whose features are all zero; the lesion adds a little.
_USUAL = (0.2, 1.5, 0.1, 1.2, 3.2, 7.5, 5.9)


def scored_network(*, outputs: tuple[float, ...] = _USUAL) -> torch.nn.Module:
    """The network: ``outputs`` are its biases, first those of the classes."""
    torch.manual_seed(3)
    network = build_network(
        "mobilenet_v2", {"classes": len(outputs), "width": 0.1, "stem_stride": 1, "output_stride": 8}
    )
    with torch.no_grad():
        # Running means as of images like these: a network without any passes nothing on.
        for layer in network.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = 1.0
        network.train().features(torch.rand(8, 3, 32, 32) * 2 - 1)
        last = network.classifier[1]
        torch.nn.init.normal_(last.weight, std=0.02)
        last.bias.copy_(torch.tensor(outputs))
    return network.eval()


@cache
def small_model() -> str:
    """The folder of such a model, the same one for all tests of a process: loaded in moments, for it needs no MONAI."""
    folder = mkdtemp(prefix="lesionlens-small-model-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return str(write_scored_model(Path(folder) / NAME))


def write_scored_model(out: Path, *, name: str = NAME, outputs: tuple[float, ...] = _USUAL, **changes: Any) -> Path:
    """The model folder ``out`` of the model ``name``; ``changes``: of its ``lesionlens`` section, as other scores or none.

    Raises `BundleError` where a model with these changes is refused.
    """
    network, spec = (
        scored_network(outputs=outputs),
        AxialStackSpec(size=32, spacing_mm=1.0, margin_mm=3.0, max_slices=4),
    )
    files = {CARD: f"# {name}\n\nRandom weights, for tests only.\n", LICENSE: "Apache-2.0\n"}
    for path in (CARD, WEIGHTS, MANIFEST):
        (out / path).parent.mkdir(parents=True, exist_ok=True)
    for path, text in files.items():
        (out / path).write_text(text, encoding="utf-8")
    save_file(network_tensors(network), out / WEIGHTS)
    section = {
        "schema": 1,
        "architecture": "mobilenet_v2",
        "arguments": {"classes": len(outputs), "width": 0.1, "stem_stride": 1, "output_stride": 8},
        "input": section_from_spec(spec),
        "classes": [
            {"name": one, "description": f"{one} nodules", "colorRGB": color}
            for one, color in zip(CLASSES, _COLORS, strict=True)
        ],
        "scores": list(SCORES),
        "aggregation": "mean_slice_probability",
        "box_size_mm": [3.0, 40.0],
        "slice_distance_mm": [0.4, 3.0],
        "not_for_clinical_use": True,
        **changes,
    }
    scores = len(section["scores"])
    section["golden_logits"] = golden_logits(network, spec).round(5).tolist()
    section["golden_probabilities"] = golden_probabilities(network, spec, 1.0, scores=scores).round(5).tolist()
    section["files"] = {path: hashlib.sha256((out / path).read_bytes()).hexdigest() for path in (WEIGHTS, *files)}
    manifest = {
        "name": name,
        "version": "1.0.0",
        "description": "Kind and description of nodules; random weights, for tests only.",
        "intended_use": "Tests.",
        "network_data_format": {},
        "lesionlens": section,
    }
    manifest["sha256"] = manifest_sha256(manifest)
    (out / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    load_bundle(out)
    return out
