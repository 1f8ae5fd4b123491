"""Where models lie, what is in their folders, and the one lesion that all are checked on.

Needs no torch: an interface can list the models before it is there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from LesionLib.errors import BundleError
from LesionLib.geometry import CTVolume, LesionBox, transformed_points
from LesionLib.sampling.resample import lattice_points

DEFAULT_MODEL = "lung-nodule-kind"
MANIFEST, WEIGHTS, CARD, LICENSE = "configs/metadata.json", "models/model.safetensors", "docs/README.md", "LICENSE"
MAX_MANIFEST_BYTES = 16 * 1024**2
MAX_SAME_EMBEDDINGS = 32
MAX_MARGIN_MM = 50.0  # around a segment; no model is made for more


def user_data_folder() -> Path:
    """Where LesionLens keeps what it was given or has made for its user."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "lesionlens"


def user_model_root() -> Path:
    """Where models are installed: the first folder of ``LESIONLENS_MODELS``, else one in the user's data folder."""
    named = [Path(p) for p in os.environ.get("LESIONLENS_MODELS", "").split(os.pathsep) if p]
    return named[0] if named else user_data_folder() / "models"


def model_roots() -> list[Path]:
    """Where models are looked for by name: ``LESIONLENS_MODELS``, the user's, the source tree, the installed extension."""
    roots = [Path(p) for p in os.environ.get("LESIONLENS_MODELS", "").split(os.pathsep) if p]
    return [*roots, user_model_root(), *_shipped_roots()]


def _shipped_roots() -> list[Path]:
    here = Path(__file__).resolve().parents[1]
    return [here.parents[1] / "Resources" / "Models", here.parent / "Resources" / "Models", here / "Models"]


def shipped_bundles() -> dict[str, Path]:
    """Folder of every model that comes along with LesionLens, by name."""
    return _bundles_in(_shipped_roots())


def installed_bundles() -> dict[str, Path]:
    """Folder of every model there is, by name; of two with the same name, the one found first.

    A model that comes along is not replaced by another one of its name, only by the very same one.
    """
    shipped = shipped_bundles()
    found = {
        name: folder
        for name, folder in _bundles_in(model_roots()).items()
        if name not in shipped or same_manifest(folder, shipped[name])
    }
    return shipped | found


def _bundles_in(roots: list[Path]) -> dict[str, Path]:
    paths = (path for root in reversed(roots) for path in sorted(root.glob(f"[!.]*/{MANIFEST}")))
    return {path.parents[1].name: path.parents[1] for path in paths}


def same_manifest(folder: Path, other: Path) -> bool:
    """Whether two folders hold the same model: the manifest names the hash of every file."""
    try:
        return folder.samefile(other) or manifest_bytes(folder) == manifest_bytes(other)
    except (OSError, BundleError):
        return False


def is_model_path(model: str | Path) -> bool:
    """Whether ``model`` names a place on the disk: a `Path`, or a text with a separator (``./x``). All else is a name."""
    separators = [separator for separator in (os.sep, os.altsep) if separator]
    return isinstance(model, Path) or any(separator in model for separator in separators)


def find_bundle(model: str | Path) -> Path:
    """The folder of a model given by name or by path. Raises `BundleError` naming the models there are.

    A text without a separator is a name, even where a folder of that name lies in the working folder.
    """
    if is_model_path(model) and os.path.isfile(Path(model, MANIFEST)):
        return Path(model)
    found = installed_bundles()
    if str(model) not in found:
        here = f" (for the folder of that name here, {os.curdir}{os.sep}{model})" if os.path.isdir(model) else ""
        msg = (
            f"unknown model {str(model)!r}; known are {', '.join(sorted(found)) or 'none'}, or give the path of a model "
            f"folder{here}."
        )
        raise BundleError(msg)
    return found[str(model)]


def manifest_bytes(folder: Path) -> bytes:
    """The manifest as it lies there. Raises `OSError`, and `BundleError` where it is larger than a manifest is."""
    with (folder / MANIFEST).open("rb") as handle:
        content = handle.read(MAX_MANIFEST_BYTES + 1)
    if len(content) > MAX_MANIFEST_BYTES:
        msg = (
            f"model {folder.name}: {MANIFEST} is larger than {MAX_MANIFEST_BYTES // 1024**2} MiB; "
            "this is not a model of ours."
        )
        raise BundleError(msg)
    return content


def unchecked_manifest(folder: Path) -> dict[str, Any]:
    """What a model says of itself, for a list or its card; nothing of it is verified. Raises `BundleError`."""
    try:
        manifest = json.loads(manifest_bytes(folder).decode("utf-8"))
    except BundleError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        msg = f"model {folder.name}: {MANIFEST} cannot be read ({type(error).__name__}). Get the model again."
        raise BundleError(msg) from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("lesionlens"), dict):
        msg = f"model {folder.name}: {MANIFEST} is not a manifest of LesionLens. Get the model again."
        raise BundleError(msg)
    return manifest


def segment_margin_of(manifest: Mapping[str, Any]) -> float:
    """How far the box around a segment reaches beyond it, mm on every side: as in the model's training.

    0 for a manifest that does not say it: all models before the field was there learned from the tight boxes of masks.
    """
    margin = manifest["lesionlens"].get("segment_margin_mm", 0.0)
    return float(margin) if isinstance(margin, int | float) and 0 <= margin <= MAX_MARGIN_MM else 0.0


def same_embedding_as(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """The SHA-256 of earlier models that embed every lesion as this one does: libraries of theirs need no reindex."""
    return tuple(manifest["lesionlens"].get("same_embedding_as", ()))


def segment_margin_mm(model: str | Path) -> float:
    """The same by a model's name or folder, unverified. Raises `BundleError` for an unknown model."""
    return segment_margin_of(unchecked_manifest(find_bundle(model)))


def map_method(model: str | Path) -> str:
    """How the maps of a model are made, by its name or folder, unverified. Raises `BundleError` for an unknown model."""
    section = unchecked_manifest(find_bundle(model))["lesionlens"].get("explanation")
    method = section.get("method") if isinstance(section, dict) else None
    return method if isinstance(method, str) else "grad_cam"


def class_names(folder: Path) -> list[str]:
    """The classes a model names, unverified; none where its manifest cannot be read so."""
    try:
        return [str(entry["name"]) for entry in unchecked_manifest(folder)["lesionlens"]["classes"]]
    except (BundleError, KeyError, TypeError):
        return []


_SIZE_IJK = (48, 44, 24)


def golden_case() -> tuple[CTVolume, LesionBox]:
    """One lesion computed from a formula, on an oblique lattice: what a model must answer the same everywhere.

    A soft sphere of 12 mm with a denser core in lung, 0.8 x 0.8 x 2 mm voxels, turned lattice, turned box; its segment.
    Every bundle stores what its network says of this case. They match only if sampling, windows, weights and network code
    agree.
    """
    ijk_to_ras = np.eye(4)
    ijk_to_ras[:3, :3] = _turn(0, 0.2) @ _turn(2, 0.3) @ np.diag([-0.8, -0.8, 2.0])
    ijk_to_ras[:3, 3] = [10.0, -20.0, 30.0]
    points = transformed_points(ijk_to_ras, lattice_points(_SIZE_IJK))
    center = transformed_points(ijk_to_ras, (np.array(_SIZE_IJK) - 1) / 2)
    radius = np.linalg.norm(points - center, axis=-1)
    wave = 25.0 * np.sin(points @ [0.9, 0.5, 0.3])
    hu = -850.0 + wave + 880.0 / (1.0 + np.exp((radius - 6.0) / 0.6)) + 150.0 * np.exp(-((radius / 2.5) ** 2))
    volume = CTVolume(np.round(hu).astype(np.int16), ijk_to_ras, name="golden case")
    segment = CTVolume((radius < 6.0).astype(np.uint8), ijk_to_ras, name="golden segment")
    off_center = np.array([0.5, -0.7, 0.3])
    box = LesionBox(center + off_center, [13.0, 12.0, 14.0], _turn(2, 0.25), name="golden lesion", segment=segment)
    return volume, box


def _turn(axis: int, angle: float) -> np.ndarray:
    first, second = [a for a in range(3) if a != axis]
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = np.cos(angle)
    matrix[first, second], matrix[second, first] = -np.sin(angle), np.sin(angle)
    return matrix
