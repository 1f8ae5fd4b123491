"""Answers kept on the lesions themselves, so that a saved scene is whole again when it is opened."""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import asdict, dataclass, replace

import numpy as np
from LesionLib.errors import LesionLensError
from LesionLib.geometry import CTVolume, LesionBox
from LesionLib.results import LesionResult, RunInfo
from LesionLib.runner_codec import box_from_json, box_to_json, result_from_json, result_to_json
from slicer import vtkMRMLMarkupsROINode, vtkMRMLNode, vtkMRMLScalarVolumeNode

HEAT_MAP_ROLE, VOLUME_ROLE = "LesionLens.HeatMap", "LesionLens.Volume"
_PREFIX = "LesionLens."
_RESULT = _PREFIX + "Result"
_SAMPLED_VOXELS = 200_000

RGB = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class StoredResult:
    """What a lesion's node says of its answer; ``fingerprint`` is of the box, the CT and their transforms at that time.

    ``result``: without heat map, which is a node of its own, and without the mask of its segment. ``explained``: the class
    that the heat map speaks for. ``classColors``: by class name, 0 ... 1.
    """

    result: LesionResult
    explained: str
    run: RunInfo
    classColors: dict[str, RGB]
    fingerprint: str


def storeResult(
    roiNode: vtkMRMLMarkupsROINode,
    volumeNode: vtkMRMLScalarVolumeNode,
    result: LesionResult,
    *,
    run: RunInfo,
    classColors: dict[str, RGB],
    fingerprint: str,
) -> None:
    """Write the answer on the lesion's node: one attribute to read it back, and plain ones for people and scripts."""
    content = {
        "result": result_to_json(replace(result, heat_map=None)),
        "box": box_to_json(replace(result.box, segment=None)),
        "embedding": base64.b64encode(result.embedding.astype("<f4").tobytes()).decode(),
        "explained": result.heat_map.class_name if result.heat_map is not None else "",
        "run": asdict(run),
        "classColors": classColors,
        "fingerprint": fingerprint,
    }
    roiNode.SetAttribute(_RESULT, json.dumps(content))
    roiNode.SetNodeReferenceID(VOLUME_ROLE, volumeNode.GetID())
    writeProvenance(roiNode, result, run)


def storedResult(roiNode: vtkMRMLMarkupsROINode) -> StoredResult | None:
    """The answer on a lesion's node; None where there is none, or one that this version cannot read."""
    text = roiNode.GetAttribute(_RESULT)
    if not text:
        return None
    try:
        content = json.loads(text)
        embedding = np.frombuffer(base64.b64decode(content["embedding"]), dtype="<f4")
        return StoredResult(
            result=result_from_json(content["result"], box_from_json(content["box"], iter(())), iter([embedding])),
            explained=content["explained"],
            run=RunInfo(**content["run"]),
            classColors={name: tuple(color) for name, color in content["classColors"].items()},
            fingerprint=content["fingerprint"],
        )
    except (ValueError, KeyError, TypeError, LesionLensError):
        return None


def forgetResult(roiNode: vtkMRMLMarkupsROINode) -> None:
    """Take the answer off a lesion's node; its heat map is the caller's to remove."""
    for name in [n for n in roiNode.GetAttributeNames() if n in _PROVENANCE or n == _RESULT]:
        roiNode.RemoveAttribute(name)
    roiNode.RemoveNodeReferenceIDs(VOLUME_ROLE)


def writeProvenance(node: vtkMRMLNode, result: LesionResult, run: RunInfo) -> None:
    """Where an answer came from travels with every node that shows it."""
    center, size, axes = (
        np.round(v, 4).tolist() for v in (result.box.centerRAS, result.box.sizeMm, result.box.axesRAS)
    )
    values = (
        result.name,
        result.label,
        f"{result.probabilities[result.label]:.6f}",
        result.heat_map.class_name if result.heat_map is not None else "",
        json.dumps({"centerRAS": center, "sizeMm": size, "axesRAS": axes}),
        run.volume,
        run.model_name,
        run.model_version,
        run.model_sha256,
        run.device,
        run.software,
    )
    for name, value in zip(_PROVENANCE, values, strict=True):
        node.SetAttribute(name, value)


def voxelChecksum(volume: CTVolume) -> int:
    """Of a sample of the voxels; the same after a reload."""
    stride = max(1, volume.array.size // _SAMPLED_VOXELS)
    return zlib.crc32(np.ascontiguousarray(volume.array.ravel()[::stride]).tobytes())


def fingerprint(volume: CTVolume, box: LesionBox, *, voxels: int | None = None) -> str:
    """Changes when the box, the CT's voxels or its place in world RAS mm change. ``voxels``: `voxelChecksum`, where known."""
    known = voxelChecksum(volume) if voxels is None else voxels
    place = [np.round(values, 3) + 0.0 for values in (volume.ijkToRAS, np.sort(box.cornersRAS, axis=0), box.sizeMm)]
    content = b"".join(values.astype("<f8").tobytes() for values in place) + str(volume.array.shape).encode()
    return f"{zlib.crc32(content):08x}{known:08x}"


_PROVENANCE = tuple(
    _PREFIX + name
    for name in (
        "Lesion", "Label", "Probability", "ExplainedClass", "Box", "SourceVolume", "Model", "ModelVersion", "ModelSha256",
        "Device", "Software",
    )
)  # fmt: skip
