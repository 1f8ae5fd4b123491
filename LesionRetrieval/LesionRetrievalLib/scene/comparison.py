"""A lesion and a similar case, one above the other in linked slice views; and why they are alike, over the CT."""

from __future__ import annotations

import numpy as np
import slicer
import slicer.util
import vtk
from LesionClassifierLib.scene.heatmaps import HELD_ATTRIBUTE, addHeatMapNode, setLayers
from LesionClassifierLib.scene.lesions import addRoiNode, boxFromRoi
from LesionClassifierLib.scene.results import FOLDER_NAME
from LesionClassifierLib.scene.tree import placeResults
from LesionClassifierLib.scene.volumes import addVolumeNode, nodesOfClass
from LesionLib.errors import CaseLibraryError
from LesionLib.explain.heat_map import HeatMap
from LesionLib.geometry import LesionBox
from slicer import vtkMRMLMarkupsROINode, vtkMRMLNode, vtkMRMLScalarVolumeNode, vtkMRMLScene, vtkMRMLSliceNode
from slicer.util import VTKObservationMixin

from LesionRetrievalLib.library.cases import ModelIdentity
from LesionRetrievalLib.library.patches import HuPatch
from LesionRetrievalLib.scene.views import (
    CASE_VIEWS,
    COMPARISON,
    QUERY_VIEWS,
    QUIZ,
    ViewState,
    compositeOf,
    heldBy,
    hideFromCaseViews,
    holdViews,
    showLayout,
    sliceNodeOf,
)

COMPARISON_FOLDER = "LesionLens comparison"
_CASE_COLOR = (0.98, 0.78, 0.2)
_SMALLEST_FIELD_MM = 50.0
_FIELD_PER_BOX = 2.2


class SideBySide(VTKObservationMixin):
    """A lesion and a similar case, one above the other in linked slice views; and back to how everything was.

    Shows at once; `close` takes the case out of the scene and gives layout, views and layers back.

    The case keeps its own coordinates: a translation puts the middle of its lesion on the middle of the query's, so that
    linked views scroll and zoom through both at once. None of the nodes is saved with the scene, nor is the layout. A scene
    that is loaded brings its own views along and ends the comparison.
    """

    def __init__(
        self,
        volumeNode: vtkMRMLScalarVolumeNode,
        roiNode: vtkMRMLMarkupsROINode,
        patch: HuPatch | None,
        *,
        caseId: str,
        label: str,
    ) -> None:
        VTKObservationMixin.__init__(self)
        box = boxFromRoi(roiNode)
        if patch is None:
            msg = f"The library holds no CT of case {caseId}, only its vector: there is nothing to show beside the lesion."
            raise CaseLibraryError(msg)
        if heldBy(volumeNode.GetScene()) == QUIZ:
            msg = "The slice views show a case of a quiz; pause the quiz or leave it, then compare."
            raise CaseLibraryError(msg)
        self._scene, self.caseId = volumeNode.GetScene(), caseId
        self._before = ViewState(self._scene)
        self._nodeIds: list[str] = []
        title = f"{caseId} ({label})"
        shift = box.centerRAS - patch.box.centerRAS
        self.transformNode = self._keep(_translation(self._scene, shift, f"{title} laid over {roiNode.GetName()}"))
        self.volumeNode = self._keep(addVolumeNode(self._scene, patch.volume))
        self.volumeNode.SetName(title)
        self.roiNode = self._keep(addRoiNode(self._scene, patch.box, colorRGB=_CASE_COLOR))
        self.roiNode.SetName(label)
        self.roiNode.SetLocked(True)
        self.roiNode.GetDisplayNode().SetPropertiesLabelVisibility(False)  # it would be written over the lesion
        self.roiNode.GetDisplayNode().SetPointLabelsVisibility(False)
        for node in (self.volumeNode, self.roiNode):
            node.SetAndObserveTransformNodeID(self.transformNode.GetID())
        self._folder = _folder(self._scene, [self.transformNode, self.volumeNode, self.roiNode])
        self._arrange(volumeNode, box, patch.box)
        self._shareWindow(volumeNode)
        self.addObserver(self._scene, self._scene.StartImportEvent, lambda *_: self.close())

    def close(self) -> None:
        """Everything as it was before; safe to call twice, and while the scene is being closed."""
        self.removeObservers()
        scene, self._scene = self._scene, None
        if scene is None:
            return
        self._before.restore()
        tree = scene.GetSubjectHierarchyNode()
        for nodeId in reversed(self._nodeIds):
            node = scene.GetNodeByID(nodeId)
            if node is not None:
                item = tree.GetItemByDataNode(node) if tree is not None else 0
                if item:
                    tree.RemoveItem(item, False, False)
                scene.RemoveNode(node)
        if tree is not None and self._folder and tree.GetItemName(self._folder) == COMPARISON_FOLDER:
            tree.RemoveItem(self._folder, False, False)

    @property
    def isShown(self) -> bool:
        """Whether it is still there."""
        return self._scene is not None

    def _arrange(self, volumeNode: vtkMRMLScalarVolumeNode, box: LesionBox, caseBox: LesionBox) -> None:
        showLayout(self._scene)
        holdViews(self._scene)
        slicer.app.processEvents()  # the views of a new layout have their sizes only now
        hideFromCaseViews(self._scene)
        caseIds = [sliceNodeOf(self._scene, name).GetID() for name in CASE_VIEWS.values()]
        display = self.roiNode.GetDisplayNode()
        for caseId in caseIds:
            display.AddViewNodeID(caseId)
        fieldMm = max(
            _SMALLEST_FIELD_MM, _FIELD_PER_BOX * max(np.ptp(b.cornersRAS, axis=0).max() for b in (box, caseBox))
        )
        for views, shown in ((QUERY_VIEWS, volumeNode), (CASE_VIEWS, self.volumeNode)):
            for orientation, name in views.items():
                composite = compositeOf(self._scene, name)
                composite.SetLinkedControl(False)  # else the layers of one row would go into the other
                composite.SetBackgroundVolumeID(shown.GetID())
                if shown is self.volumeNode:
                    composite.SetForegroundVolumeID(None)
                    composite.SetLabelVolumeID(None)
                _place(sliceNodeOf(self._scene, name), orientation, box.centerRAS, fieldMm)
        for name in (*QUERY_VIEWS.values(), *CASE_VIEWS.values()):
            compositeOf(self._scene, name).SetLinkedControl(True)
            compositeOf(self._scene, name).SetHotLinkedControl(True)

    def _shareWindow(self, volumeNode: vtkMRMLScalarVolumeNode) -> None:
        """The same grey in both rows, whichever of the two is changed."""
        mine, other = volumeNode.GetDisplayNode(), self.volumeNode.GetDisplayNode()
        if mine is None:
            return
        self._copyWindow(mine, other)
        self.addObserver(mine, vtk.vtkCommand.ModifiedEvent, lambda *_: self._copyWindow(mine, other))
        self.addObserver(other, vtk.vtkCommand.ModifiedEvent, lambda *_: self._copyWindow(other, mine))

    @staticmethod
    def _copyWindow(source, target) -> None:
        wanted = (source.GetWindow(), source.GetLevel())
        if (target.GetWindow(), target.GetLevel()) != wanted:
            target.AutoWindowLevelOff()
            target.SetWindowLevel(*wanted)

    def _keep(self, node: vtkMRMLNode) -> vtkMRMLNode:
        """Remember a node and its display, so that they go together and are not saved."""
        display = node.GetDisplayNode() if hasattr(node, "GetDisplayNode") else None
        for each in (node, display):
            if each is not None:
                each.SetSaveWithScene(False)
                self._nodeIds.append(each.GetID())
        return node


def _translation(scene, shift: np.ndarray, name: str) -> vtkMRMLNode:
    matrix = np.eye(4)
    matrix[:3, 3] = shift
    node = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", name)
    node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    return node


def _folder(scene, nodes: list[vtkMRMLNode]) -> int:
    tree = scene.GetSubjectHierarchyNode()
    folder = tree.CreateFolderItem(tree.GetSceneItemID(), COMPARISON_FOLDER)
    if not tree.GetItemOwnerPluginName(folder):
        tree.SetItemOwnerPluginName(folder, "Folder")
    for node in nodes:
        item = tree.GetItemByDataNode(node)
        if item:
            tree.SetItemParent(item, folder)
        else:  # inside Slicer the item is there already; without the application nobody has made it
            tree.CreateItem(folder, node)
    return folder


def _place(node: vtkMRMLSliceNode, orientation: str, centerRAS: np.ndarray, fieldMm: float) -> None:
    node.SetOrientation(orientation)
    width, height = (max(1, side) for side in node.GetDimensions()[:2])
    perPixel = fieldMm / min(width, height)
    node.SetFieldOfView(width * perPixel, height * perPixel, node.GetFieldOfView()[2])
    node.SetXYZOrigin(0.0, 0.0, 0.0)
    node.JumpSliceByCentering(*(float(value) for value in centerRAS))
    node.UpdateMatrices()


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
    """Why two lesions are alike, over the CT: a scalar volume with the colours of the Grad-CAM volumes.

    Lay the map over the CT in all slice views; an earlier one of the same lesion goes.
    """
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
