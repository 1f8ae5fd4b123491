"""From a trained model to a bundle: manifest, safetensors, card, licence."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from LesionLib.bundle import golden_logits, load_bundle, manifest_sha256, network_tensors
from LesionLib.bundle_folder import CARD, LICENSE, MANIFEST, WEIGHTS
from LesionLib.manifest_schema import SCHEMA_VERSION
from LesionLib.networks import LesionNet
from LesionLib.sampling_kinds import Spec, section_from_spec
from safetensors.torch import save_file


def write_bundle(
    out: Path,
    *,
    head: Mapping[str, Any],
    lesionlens: Mapping[str, Any],
    network: LesionNet,
    spec: Spec,
    calibration: Mapping[str, torch.Tensor],
    card: str,
    license_text: str,
) -> str:
    """Write the model folder ``out`` (replacing one that is there), load it once to verify it, return its SHA-256.

    ``head``: name, version, description and MONAI's other keys; ``lesionlens``: our section without input, files, golden;
    ``calibration``: what the bundle's tensors hold besides weights: temperature, conformal quantile and the like.
    """
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as staging:
        folder = Path(staging) / out.name
        for name, text in ((CARD, card), (LICENSE, license_text)):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
        (folder / WEIGHTS).parent.mkdir()
        save_file({**network_tensors(network), **calibration}, folder / WEIGHTS)
        (folder / WEIGHTS).chmod(0o644)  # safetensors writes for the owner only
        section = {
            "schema": SCHEMA_VERSION,
            **lesionlens,
            "input": section_from_spec(spec),
            "golden_logits": golden_logits(network, spec).round(5).tolist(),
            "files": {name: _sha256(folder / name) for name in (WEIGHTS, CARD, LICENSE)},
        }
        manifest = {**head, "lesionlens": section}
        manifest["sha256"] = manifest_sha256(manifest)
        (folder / MANIFEST).parent.mkdir()
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        load_bundle(folder)
        if out.exists():
            shutil.rmtree(out)
        shutil.move(folder, out)
    return manifest["sha256"]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
