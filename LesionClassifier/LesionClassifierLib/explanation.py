"""The heat map of a lesion over its CT, and the part of the CT that the model looked at."""

from __future__ import annotations

from slicer import vtkMRMLMarkupsROINode, vtkMRMLScalarVolumeNode, vtkMRMLScene

from .heatmap_display import setLayers
from .result_nodes import HEAT_MAP_ROLE, VOLUME_ROLE, storedResult
from .roi_nodes import addRoiNode
from .volume_nodes import nodesOfClass

_SEEN = "LesionLens.Seen"
_SEEN_COLOR = (0.75, 0.75, 0.75)


def heatMapNode(roiNode: vtkMRMLMarkupsROINode) -> vtkMRMLScalarVolumeNode | None:
    """The lesion's heat map; None where there is none."""
    return roiNode.GetNodeReference(HEAT_MAP_ROLE)


def showHeatMap(roiNode: vtkMRMLMarkupsROINode, *, opacity: float, threshold: float, isShown: bool = True) -> None:
    """Lay the lesion's heat map over its CT in all slice views, transparent below ``threshold``; or take it off."""
    volumeNode, heatNode = roiNode.GetNodeReference(VOLUME_ROLE), heatMapNode(roiNode)
    if volumeNode is None:
        return
    if heatNode is not None:
        display = heatNode.GetDisplayNode()
        display.SetThreshold(threshold, 1.0)
        display.ApplyThresholdOn()
    foreground = heatNode if isShown else None
    setLayers(roiNode.GetScene(), background=volumeNode, foreground=foreground, opacity=opacity)


def showSeen(roiNode: vtkMRMLMarkupsROINode) -> list[vtkMRMLMarkupsROINode]:
    """Draw what the model looked at as grey, locked boxes; those of another lesion go away. Empty without an answer."""
    scene, stored = roiNode.GetScene(), storedResult(roiNode)
    tag = f"{roiNode.GetID()} {'' if stored is None else stored.fingerprint}"
    there = _seenNodes(scene)
    if there and all(node.GetAttribute(_SEEN) == tag for node in there):
        return there  # drawing them anew would be one more change of the scene to react to
    hideSeen(scene)
    nodes = []
    for box in () if stored is None else stored.result.seen:
        node = addRoiNode(scene, box, colorRGB=_SEEN_COLOR)
        node.SetName(f"{roiNode.GetName()}: what the model looked at")
        node.SetAttribute(_SEEN, tag)
        node.SetLocked(True)
        node.SetSaveWithScene(False)
        node.GetDisplayNode().SetPropertiesLabelVisibility(False)
        nodes.append(node)
    return nodes


def hideSeen(scene: vtkMRMLScene) -> None:
    """Take the grey boxes away."""
    for node in _seenNodes(scene):
        scene.RemoveNode(node)


def _seenNodes(scene: vtkMRMLScene) -> list[vtkMRMLMarkupsROINode]:
    return [node for node in nodesOfClass(scene, "vtkMRMLMarkupsROINode") if node.GetAttribute(_SEEN)]
