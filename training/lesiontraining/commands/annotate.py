"""``lesiontrain annotate``: what a model folder says of itself, completed later; weights, figures and golden case stay.

A new statement is another manifest, so another SHA-256: give it another version. The one before is listed in it as a model
with the same embedding, so that case libraries of it can be searched as they are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from LesionLib.errors import BundleError
from LesionLib.model.bundle import load_bundle, manifest_sha256, read_manifest
from LesionLib.model.codes import DicomCode
from LesionLib.model.folder import CARD, LICENSE, MANIFEST, MAX_SAME_EMBEDDINGS, same_embedding_as
from LesionLib.sampling.content_hash import TrainingContent


@dataclass(frozen=True)
class Annotation:
    """What is to be said; None and empty leave what is there.

    ``version`` with ``change``, a line for its change log. ``segment_margin_mm``: how far the boxes of training reached beyond a
    segment. ``class_prior``: the share of each class that the probabilities assume. ``training_content``: what it learned from.
    ``finding_site``: where in the body its lesions lie.
    """

    version: str | None = None
    change: str = ""
    segment_margin_mm: float | None = None
    class_prior: tuple[float, ...] = ()
    training_content: TrainingContent | None = field(default=None, compare=False)
    finding_site: DicomCode | None = None

    def of_section(self) -> dict[str, Any]:
        """What of it goes into the manifest's ``lesionlens`` section."""
        text: dict[str, Any] = {}
        if self.segment_margin_mm is not None:
            text["segment_margin_mm"] = self.segment_margin_mm
        if self.class_prior:
            text["class_prior"] = list(self.class_prior)
        if self.training_content is not None:
            text["training_content"] = self.training_content.to_manifest()
        if self.finding_site is not None:
            text["finding_site"] = self.finding_site.to_json()
        return text


def annotate(folder: Path, annotation: Annotation) -> str:
    """Complete the manifest of a model folder, take its card and licence as they lie, verify it; returns its SHA-256.

    Raises `BundleError`, and leaves the manifest as it was, where the model would not load.
    """
    path = folder / MANIFEST
    before = path.read_bytes() if path.is_file() else b""
    manifest = read_manifest(folder)
    classes = len(manifest["lesionlens"]["classes"])
    if annotation.class_prior and (
        len(annotation.class_prior) != classes or abs(sum(annotation.class_prior) - 1) > 1e-6
    ):
        msg = f"the prior is {annotation.class_prior}; give one share for each of the {classes} classes, 1 together."
        raise BundleError(msg)
    after = _completed(manifest, annotation, {name: _sha256(folder / name) for name in (CARD, LICENSE)})
    path.write_text(json.dumps(after, indent=2) + "\n", encoding="utf-8")
    try:
        load_bundle(folder)
    except BundleError:
        path.write_bytes(before)
        raise
    return after["sha256"]


def _completed(manifest: Mapping[str, Any], annotation: Annotation, texts: Mapping[str, str]) -> dict[str, Any]:
    section = {**manifest["lesionlens"], **annotation.of_section()}
    section["files"] = {**section["files"], **texts}
    section["same_embedding_as"] = [manifest["sha256"], *same_embedding_as(manifest)][:MAX_SAME_EMBEDDINGS]
    after = {**manifest, "lesionlens": section}
    if annotation.version is not None:
        after["version"] = annotation.version
        after["changelog"] = {**manifest.get("changelog", {}), annotation.version: annotation.change}
    after["sha256"] = manifest_sha256(after)
    return after


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
