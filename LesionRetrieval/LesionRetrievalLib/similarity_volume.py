"""Why two lesions are alike, over the CT: a scalar volume with the colours of the Grad-CAM volumes."""

from __future__ import annotations

from LesionClassifierLib.heatmap_display import HELD_ATTRIBUTE, addHeatMapNode, setLayers
from LesionClassifierLib.scene_tree import placeResults
from LesionClassifierLib.showing import FOLDER_NAME
from LesionClassifierLib.volume_nodes import nodesOfClass
from LesionLib.heat_map import HeatMap
from slicer import vtkMRMLMarkupsROINode, vtkMRMLScalarVolumeNode, vtkMRMLScene

from .compared_views import CASE_VIEWS
from .held_views import COMPARISON
from .library_schema import ModelIdentity

SIMILARITY_ATTRIBUTE = "LesionLens.SimilarTo"


def showSimilarity(
    volumeNode: vtkMRMLScalarVolumeNode,
    roiNode: vtkMRMLMarkupsROINode,
    heatMap: HeatMap,
    *,
    caseId: str,
    model: ModelIdentity,
    opacity: float = 0.5,
) -> vtkMRMLScalarVolumeNode:
    """Lay the map over the CT in all slice views; an earlier one of the same lesion goes."""
    scene = volumeNode.GetScene()
    removeSimilarity(scene, roiNode)
    name = f"{roiNode.GetName()} similar to {caseId}"
    node = addHeatMapNode(scene, heatMap.array, heatMap.ijkToRAS, name=name, referenceVolumeNode=volumeNode)
    node.SetAttribute(SIMILARITY_ATTRIBUTE, caseId)
    node.SetAttribute("LesionLens.Lesion", roiNode.GetID())
    node.SetAttribute("LesionLens.Peak", f"{heatMap.peak:.6g}")
    node.SetAttribute("LesionLens.Model", model.name)
    node.SetAttribute("LesionLens.ModelSha256", model.sha256)
    placeResults(scene, volumeNode, [roiNode, node], folderName=FOLDER_NAME)
    _layOver(scene, volumeNode, node, opacity)
    return node


def setOpacity(node: vtkMRMLScalarVolumeNode, opacity: float) -> None:
    """Of a map, wherever it is shown."""
    for composite in nodesOfClass(node.GetScene(), "vtkMRMLSliceCompositeNode"):
        if composite.GetForegroundVolumeID() == node.GetID():
            composite.SetForegroundOpacity(opacity)


def similarityNodes(scene: vtkMRMLScene, roiNode: vtkMRMLMarkupsROINode | None = None) -> list[vtkMRMLScalarVolumeNode]:
    """The maps in the scene, of one lesion or of all."""
    nodes = [n for n in nodesOfClass(scene, "vtkMRMLScalarVolumeNode") if n.GetAttribute(SIMILARITY_ATTRIBUTE)]
    if roiNode is None:
        return nodes
    return [node for node in nodes if node.GetAttribute("LesionLens.Lesion") == roiNode.GetID()]


def removeSimilarity(scene: vtkMRMLScene, roiNode: vtkMRMLMarkupsROINode | None = None) -> int:
    """Take the maps away, with their displays; how many there were."""
    nodes = similarityNodes(scene, roiNode)
    for node in nodes:
        display = node.GetDisplayNode()
        scene.RemoveNode(node)
        if display is not None:
            scene.RemoveNode(display)
    return len(nodes)


def _layOver(
    scene: vtkMRMLScene, volumeNode: vtkMRMLScalarVolumeNode, node: vtkMRMLScalarVolumeNode, opacity: float
) -> None:
    """In all slice views but those of a comparison that show the other case, and those of a quiz."""
    composites = [
        each
        for each in nodesOfClass(scene, "vtkMRMLSliceCompositeNode")
        if each.GetLayoutName() not in CASE_VIEWS.values()
    ]
    if not composites:
        setLayers(scene, background=volumeNode, foreground=node, opacity=opacity, holder=COMPARISON)
    for composite in composites:
        if composite.GetAttribute(HELD_ATTRIBUTE) not in (None, "", COMPARISON):
            continue
        composite.SetBackgroundVolumeID(volumeNode.GetID())
        composite.SetForegroundVolumeID(node.GetID())
        composite.SetForegroundOpacity(opacity)
