"""Answers shown in the scene: class colours, heat maps, a table, all in one folder of the subject hierarchy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from LesionLib.geometry import CTVolume
from LesionLib.results import LesionResult, RunInfo
from slicer import vtkMRMLMarkupsROINode, vtkMRMLNode, vtkMRMLScalarVolumeNode, vtkMRMLScene, vtkMRMLTableNode

from .heatmap_display import addHeatMapNode, setLayers
from .lesion_nodes import markAsLesion, segmentOfLesion
from .result_nodes import HEAT_MAP_ROLE, RGB, fingerprint, forgetResult, storeResult, writeProvenance
from .roi_nodes import showAsOutline
from .scene_tree import addResultsTableNode, placeResults
from .volume_nodes import nodesOfClass

FOLDER_NAME = "LesionLens (research use only, not for diagnosis)"
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

    What an earlier run left on the same lesions is replaced. ``volume``: the CT that was answered. The slice views
    stay as they are: see `layFirstMap`.
    """
    scene.SaveStateForUndo()
    heatMapNodes = []
    for roiNode, result in zip(roiNodes, results, strict=True):
        removeResult(roiNode)
        markAsLesion(roiNode)
        color = classColors[result.label]
        showAsOutline(roiNode, colorRGB=color, interactive=bool(roiNode.GetDisplayNode().GetHandlesInteractive()))
        if colorSegments:
            _colorSegment(roiNode, color)
        heatMapNodes.append(_addHeatMap(scene, volumeNode, roiNode, result, run))
        storeResult(
            roiNode, volumeNode, result,
            run=run, classColors=dict(classColors), fingerprint=fingerprint(volume, result.box),
        )  # fmt: skip
    tableNode = _replacedTable(scene, results)
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
    name = f"{result.name} Grad-CAM {heatMap.class_name}"
    node = addHeatMapNode(scene, heatMap.array, heatMap.ijkToRAS, name=name, referenceVolumeNode=volumeNode)
    node.SetAttribute("LesionLens.Peak", f"{heatMap.peak:.6g}")
    roiNode.SetNodeReferenceID(HEAT_MAP_ROLE, node.GetID())
    writeProvenance(node, result, run)
    return node


def _replacedTable(scene: vtkMRMLScene, results: Sequence[LesionResult]) -> vtkMRMLTableNode:
    earlier: vtkMRMLNode | None = resultsTable(scene)
    if earlier is not None:
        scene.RemoveNode(earlier)
    node = addResultsTableNode(scene, _columns(results), name="LesionLens results")
    node.SetAttribute(_TABLE_ATTRIBUTE, "1")
    return node


def _columns(results: Sequence[LesionResult]) -> dict[str, list]:
    columns: dict[str, list] = {"name": [r.name for r in results], "label": [r.label for r in results]}
    for className in results[0].probabilities if results else ():
        columns[f"p_{className}"] = [r.probabilities[className] for r in results]
    columns["cannot_be_ruled_out"] = [" | ".join(r.reliability.prediction_set or ()) for r in results]
    known = [r.statistics for r in results]
    columns["volume_ml"] = [None if s is None else round(s.volume_ml, 4) for s in known]
    columns["longest_edge_mm"] = [None if s is None else round(s.edges_mm[0], 2) for s in known]
    columns["hu_mean"] = [None if s is None else round(s.hu_mean, 1) for s in known]
    columns["hu_sd"] = [None if s is None else round(s.hu_sd, 1) for s in known]
    columns["warnings"] = [" | ".join(r.warnings) for r in results]
    return columns
