"""Answers in a scene: kept on the lesions' nodes, shown as colours, heat maps and a table, and called stale when they are.

They are kept on the lesions themselves, so that a saved scene is whole again when it is opened; what shows them lies in one
folder of the subject hierarchy. An answer is stale when the box, the CT, or a transform has changed since.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from LesionLib.errors import LesionLensError
from LesionLib.geometry import CTVolume, LesionBox
from LesionLib.inference.messages import box_from_json, box_to_json, result_from_json, result_to_json
from LesionLib.inference.results import RGB, LesionResult, RunInfo
from LesionLib.model.explanation import METHOD_NAMES
from slicer import vtkMRMLMarkupsROINode, vtkMRMLNode, vtkMRMLScalarVolumeNode, vtkMRMLScene, vtkMRMLTableNode

from LesionClassifierLib.scene.heatmaps import addHeatMapNode, setLayers
from LesionClassifierLib.scene.lesions import (
    boxFromRoi,
    markAsLesion,
    segmentOfLesion,
    showAsOutline,
)
from LesionClassifierLib.scene.tree import addResultsTableNode, placeResults
from LesionClassifierLib.scene.volumes import (
    nodesOfClass,
    volumeFromNode,
)
from LesionClassifierLib.translation import tr as _

HEAT_MAP_ROLE, VOLUME_ROLE = "LesionLens.HeatMap", "LesionLens.Volume"
_PREFIX = "LesionLens."
_RESULT = _PREFIX + "Result"
_SAMPLED_VOXELS = 200_000


@dataclass(frozen=True, eq=False)
class StoredResult:
    """What a lesion's node says of its answer; ``fingerprint`` is of the box, the CT and their transforms at that time.

    ``result``: without heat map, which is a node of its own, and without the mask of its segment. ``explained``: the class
    that the heat map speaks for, ``mapMethod`` how it was made. ``classColors``: by class name, 0 ... 1.
    """

    result: LesionResult
    explained: str
    run: RunInfo
    classColors: dict[str, RGB]
    fingerprint: str
    mapMethod: str = "grad_cam"


def _otherMethod(result: LesionResult) -> dict[str, str]:
    """How the heat map was made, where it is no Grad-CAM."""
    method = "grad_cam" if result.heat_map is None else result.heat_map.method
    return {} if method == "grad_cam" else {"mapMethod": method}


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
        **_otherMethod(result),
        "run": run.to_json(),
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
            mapMethod=content.get("mapMethod", "grad_cam"),
            run=RunInfo.from_json(content["run"]),
            classColors={name: tuple(color) for name, color in content["classColors"].items()},
            fingerprint=content["fingerprint"],
        )
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, StopIteration, RecursionError):
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
        f"{result.probabilities[result.label]:.6f}" if result.label else "",
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
    geometry = [np.round(values, 3) + 0.0 for values in (volume.ijkToRAS, np.sort(box.cornersRAS, axis=0), box.sizeMm)]
    content = b"".join(values.astype("<f8").tobytes() for values in geometry) + str(volume.array.shape).encode()
    return f"{zlib.crc32(content):08x}{known:08x}"


_PROVENANCE = tuple(
    _PREFIX + name
    for name in (
        "Lesion", "Label", "Probability", "ExplainedClass", "Box", "SourceVolume", "Model", "ModelVersion", "ModelSha256",
        "Device", "Software",
    )
)  # fmt: skip

FOLDER_NAME = "LesionLens (research use only, not for diagnosis)"
NO_ANSWER_COLOR = (0.6, 0.6, 0.6)  # of boxes and segments for which the model has no answer: no class has it
_TABLE_ATTRIBUTE = "LesionLens.ResultsTable"
_COLOR_BEFORE = "LesionLens.ColorBefore"


@dataclass(frozen=True)
class ShownResults:
    """The nodes that show the answers: one heat map a lesion (None where there is none) and one table."""

    heatMapNodes: tuple[vtkMRMLScalarVolumeNode | None, ...]
    tableNode: vtkMRMLTableNode


def showResults(
    scene: vtkMRMLScene,
    volumeNode: vtkMRMLScalarVolumeNode,
    roiNodes: Sequence[vtkMRMLMarkupsROINode],
    results: Sequence[LesionResult],
    *,
    volume: CTVolume,
    run: RunInfo,
    classColors: Mapping[str, RGB],
    colorSegments: bool = True,
) -> ShownResults:
    """Colour boxes (and segments) by class, add heat maps and a table, and put all of it into a folder beside the CT.

    Where the model has no answer they are grey.

    What an earlier run left on the same lesions is replaced. ``volume``: the CT that was answered. The slice views
    stay as they are: see `layFirstMap`.
    """
    scene.SaveStateForUndo()
    heatMapNodes = []
    for roiNode, result in zip(roiNodes, results, strict=True):
        removeResult(roiNode)
        markAsLesion(roiNode)
        color = classColors[result.label] if result.label and result.usable else NO_ANSWER_COLOR
        showAsOutline(roiNode, colorRGB=color, interactive=bool(roiNode.GetDisplayNode().GetHandlesInteractive()))
        if colorSegments:
            _colorSegment(roiNode, color)
        heatMapNodes.append(_addHeatMap(scene, volumeNode, roiNode, result, run))
        storeResult(
            roiNode, volumeNode, result,
            run=run, classColors=dict(classColors), fingerprint=fingerprint(volume, result.box),
        )  # fmt: skip
    tableNode = _replacedTable(scene, results, run)
    shown = [node for node in heatMapNodes if node is not None]
    placeResults(scene, volumeNode, [*roiNodes, *shown, tableNode], folderName=FOLDER_NAME)
    return ShownResults(tuple(heatMapNodes), tableNode)


def layFirstMap(volumeNode: vtkMRMLScalarVolumeNode, shown: ShownResults) -> None:
    """Show the CT with the first heat map there is over it in all slice views."""
    first = next((node for node in shown.heatMapNodes if node is not None), None)
    setLayers(volumeNode.GetScene(), background=volumeNode, foreground=first)


def removeResult(roiNode: vtkMRMLMarkupsROINode) -> None:
    """Take a lesion's answer out of the scene: its heat map, its attributes, and the colour of its segment."""
    removeHeatMap(roiNode)
    forgetResult(roiNode)
    restoreSegmentColor(roiNode)


def removeHeatMap(roiNode: vtkMRMLMarkupsROINode) -> None:
    """Remove the lesion's heat map and its display from the scene."""
    node = roiNode.GetNodeReference(HEAT_MAP_ROLE)
    roiNode.RemoveNodeReferenceIDs(HEAT_MAP_ROLE)
    if node is not None:
        display = node.GetDisplayNode()
        roiNode.GetScene().RemoveNode(node)
        if display is not None:
            roiNode.GetScene().RemoveNode(display)


def restoreSegmentColor(roiNode: vtkMRMLMarkupsROINode) -> None:
    """Give the lesion's segment the colour it had before it took that of its class."""
    before = roiNode.GetAttribute(_COLOR_BEFORE)
    segmentationNode, segmentId = segmentOfLesion(roiNode)
    if before and segmentationNode is not None:
        segmentationNode.GetSegmentation().GetSegment(segmentId).SetColor(*map(float, before.split()))
    roiNode.RemoveAttribute(_COLOR_BEFORE)


def resultsTable(scene: vtkMRMLScene) -> vtkMRMLTableNode | None:
    """The table of the last run; None before there was one."""
    tables = (node for node in nodesOfClass(scene, "vtkMRMLTableNode") if node.GetAttribute(_TABLE_ATTRIBUTE))
    return next(tables, None)


def _colorSegment(roiNode: vtkMRMLMarkupsROINode, color: RGB) -> None:
    segmentationNode, segmentId = segmentOfLesion(roiNode)
    if segmentationNode is not None:
        segment = segmentationNode.GetSegmentation().GetSegment(segmentId)
        roiNode.SetAttribute(_COLOR_BEFORE, " ".join(f"{value:.6f}" for value in segment.GetColor()))
        segment.SetColor(*color)


def _addHeatMap(
    scene: vtkMRMLScene,
    volumeNode: vtkMRMLScalarVolumeNode,
    roiNode: vtkMRMLMarkupsROINode,
    result: LesionResult,
    run: RunInfo,
) -> vtkMRMLScalarVolumeNode | None:
    heatMap = result.heat_map
    if heatMap is None:
        return None
    name = f"{result.name} {METHOD_NAMES[heatMap.method]} {heatMap.class_name}"
    node = addHeatMapNode(scene, heatMap.array, heatMap.ijkToRAS, name=name, referenceVolumeNode=volumeNode)
    node.SetAttribute("LesionLens.Peak", f"{heatMap.peak:.6g}")
    roiNode.SetNodeReferenceID(HEAT_MAP_ROLE, node.GetID())
    writeProvenance(node, result, run)
    return node


def _replacedTable(scene: vtkMRMLScene, results: Sequence[LesionResult], run: RunInfo) -> vtkMRMLTableNode:
    earlier: vtkMRMLNode | None = resultsTable(scene)
    if earlier is not None:
        scene.RemoveNode(earlier)
    node = addResultsTableNode(scene, _columns(results, run), name="LesionLens results")
    node.SetAttribute(_TABLE_ATTRIBUTE, "1")
    return node


def _columns(results: Sequence[LesionResult], run: RunInfo) -> dict[str, list]:
    columns: dict[str, list] = {"name": [r.name for r in results], "label": [r.label for r in results]}
    for className in results[0].probabilities if results else ():
        columns[f"p_{className}"] = [r.shown_probabilities.get(className) for r in results]
    for spec in run.scores:
        columns[f"score_{spec.name}"] = [r.shown_scores.get(spec.name) for r in results]
    if run.scores:
        columns["sentence"] = [r.sentence(run.scores) for r in results]
    columns["cannot_be_ruled_out"] = [
        " | ".join(r.reliability.prediction_set or ()) if r.label else "" for r in results
    ]
    known = [r.statistics for r in results]
    columns["volume_ml"] = [None if s is None else round(s.volume_ml, 4) for s in known]
    columns["longest_edge_mm"] = [None if s is None else round(s.edges_mm[0], 2) for s in known]
    diameters = [None if s is None else s.diameters for s in known]
    columns["longest_axial_diameter_mm"] = [None if d is None else round(d.longest_mm, 2) for d in diameters]
    columns["perpendicular_diameter_mm"] = [None if d is None else round(d.perpendicular_mm, 2) for d in diameters]
    columns["hu_mean"] = [None if s is None else round(s.hu_mean, 1) for s in known]
    columns["hu_sd"] = [None if s is None else round(s.hu_sd, 1) for s in known]
    columns["warnings"] = [" | ".join(r.warnings) for r in results]
    columns["usable"] = ["yes" if r.usable else "no" for r in results]
    return columns


_MAX_KEPT = 50
_checksums: dict[int, int] = {}  # when an image was modified (VTK counts for all objects together) -> its checksum


def staleReason(roiNode: vtkMRMLMarkupsROINode) -> str:
    """Why the answer on a lesion's node no longer holds, in plain words; empty where it does, or where there is none."""
    stored = storedResult(roiNode)
    if stored is None:
        return ""
    volumeNode = roiNode.GetNodeReference(VOLUME_ROLE)
    if volumeNode is None:
        return _("The CT of this answer is no longer in the scene.")
    try:
        volume = volumeFromNode(volumeNode)
        now = fingerprint(volume, boxFromRoi(roiNode), voxels=_voxels(volumeNode, volume))
    except LesionLensError as error:
        return _("This answer cannot be checked any more: {0}").format(error)
    if now == stored.fingerprint:
        return ""
    return _("The box, the CT or a transform has changed since this answer: classify again.")


def _voxels(volumeNode: vtkMRMLScalarVolumeNode, volume: CTVolume) -> int:
    """The checksum is taken once for each state of an image: fifty lesions on one CT are checked at every change."""
    image = volumeNode.GetImageData()
    changed = max(image.GetMTime(), image.GetPointData().GetScalars().GetMTime())
    if changed not in _checksums:
        if len(_checksums) >= _MAX_KEPT:
            _checksums.clear()
        _checksums[changed] = voxelChecksum(volume)
    return _checksums[changed]
