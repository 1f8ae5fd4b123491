"""A quiz case in the scene: patch, box, and after the reveal the heat map. Hidden in lists, never saved, gone with its case."""

from __future__ import annotations

import numpy as np
from LesionClassifierLib.scene.heatmaps import addHeatMapNode, setLayers
from LesionClassifierLib.scene.lesions import DEFAULT_BOX_MM, addRoiNode, boxFromRoi, showAsOutline
from LesionClassifierLib.scene.placing import BoxPlacing
from LesionClassifierLib.scene.volumes import addVolumeNode, nodesOfClass
from LesionLib.errors import BoxError
from LesionLib.explain.heat_map import HeatMap
from LesionLib.geometry import CTVolume, LesionBox
from slicer import vtkMRMLMarkupsROINode, vtkMRMLNode, vtkMRMLScalarVolumeNode, vtkMRMLScene

from LesionRetrievalLib.scene.views import QUIZ, KeptViews, fitViews, hold

QUIZ_ATTRIBUTE = "LesionLens.Quiz"
GIVEN_COLOR, OWN_COLOR = (0.98, 0.78, 0.2), (0.35, 0.75, 1.0)
_ROI_CLASS, _RAMP_CLASS = "vtkMRMLMarkupsROINode", "vtkMRMLProceduralColorNode"


class CaseDisplay:
    """One case at a time. The user's own nodes are left alone; `clear` gives the views back as they were."""

    def __init__(self, scene: vtkMRMLScene) -> None:
        self.scene = scene
        self.caseId = ""
        self._ids: list[str] = []
        self._views: KeptViews | None = None
        self._volumeId = self._heatId = self._placedId = ""
        self._boxIds: list[str] = []
        self._placing = BoxPlacing()

    @property
    def volumeNode(self) -> vtkMRMLScalarVolumeNode | None:
        """The patch of the case that is shown."""
        return self._node(self._volumeId)

    @property
    def heatMapNode(self) -> vtkMRMLScalarVolumeNode | None:
        """The heat map, None before the reveal."""
        return self._node(self._heatId)

    @property
    def placedNode(self) -> vtkMRMLMarkupsROINode | None:
        """The box that the learner draws."""
        return self._node(self._placedId)

    def showCase(self, caseId: str, volume: CTVolume, *, windowHU: tuple[float, float]) -> None:
        """The patch in all slice views; what an earlier case left is removed."""
        if self.caseId == caseId and self.volumeNode is not None:
            return
        self._removeNodes()
        self._views = self._views or KeptViews(self.scene)
        low, high = windowHU
        node = addVolumeNode(self.scene, volume, windowHU=high - low, levelHU=(low + high) / 2)
        node.SetName(f"Quiz {caseId}")
        self.caseId, self._volumeId = caseId, self._keep(node)
        setLayers(self.scene, background=node, holder=QUIZ)
        hold(nodesOfClass(self.scene, "vtkMRMLSliceCompositeNode"), QUIZ)
        fitViews(self.scene, volume)

    def showBox(self, box: LesionBox, *, isOwn: bool = False) -> vtkMRMLMarkupsROINode:
        """A box that cannot be moved: the teacher's, or the learner's own beside it."""
        node = addRoiNode(self.scene, box, colorRGB=OWN_COLOR if isOwn else GIVEN_COLOR)
        node.SetName("your box" if isOwn else "the lesion")
        _withoutText(node)
        node.SetLocked(True)
        self._boxIds.append(self._keep(node))
        return node

    def hideBoxes(self) -> None:
        """Take all boxes out, also one that is being drawn."""
        self._placing.stop()
        for nodeId in (*self._boxIds, self._placedId):
            self._remove(nodeId)
        self._boxIds, self._placedId = [], ""

    def startPlacing(self) -> vtkMRMLMarkupsROINode:
        """A new box, which the next click in a slice view puts around the point; one that was drawn before goes."""
        self._remove(self._placedId)
        node = self.scene.AddNewNodeByClass(_ROI_CLASS, "your box")
        node.CreateDefaultDisplayNodes()
        showAsOutline(node, colorRGB=OWN_COLOR, interactive=True)
        _withoutText(node)
        self._placedId = self._keep(node)
        self._placing.start(self.scene, self._placed)
        return node

    def _placed(self, centerRAS: np.ndarray) -> None:
        node = self.placedNode
        if node is not None:
            node.SetCenter(*centerRAS)
            node.SetSize(*[DEFAULT_BOX_MM] * 3)

    def placedBox(self) -> LesionBox:
        """What the learner has drawn. Raises `BoxError` where nothing is drawn yet."""
        node = self.placedNode
        if node is None:
            msg = "No box is drawn yet; press Place box, then click the middle of the lesion in a slice view."
            raise BoxError(msg)
        return boxFromRoi(node)

    def showHeat(self, heatMap: HeatMap | None, *, opacity: float = 0.5) -> None:
        """The Grad-CAM over the patch; None: there is none."""
        if heatMap is None or self.heatMapNode is not None or self.volumeNode is None:
            return
        ramps = {node.GetID() for node in nodesOfClass(self.scene, _RAMP_CLASS)}
        node = addHeatMapNode(
            self.scene, heatMap.array, heatMap.ijkToRAS,
            name=f"Quiz {self.caseId} Grad-CAM", referenceVolumeNode=self.volumeNode,
        )  # fmt: skip
        self._heatId = self._keep(node)
        for ramp in nodesOfClass(self.scene, _RAMP_CLASS):
            if ramp.GetID() not in ramps:  # it was made for this map
                self._keep(ramp)
        setLayers(self.scene, background=self.volumeNode, foreground=node, opacity=opacity, holder=QUIZ)

    def setHeat(self, *, isShown: bool, opacity: float) -> None:
        """How strong the heat map is; without one nothing happens."""
        if self.heatMapNode is not None and self.volumeNode is not None:
            foreground = self.heatMapNode if isShown else None
            setLayers(self.scene, background=self.volumeNode, foreground=foreground, opacity=opacity, holder=QUIZ)

    def clear(self) -> None:
        """Nothing of the quiz is left in the scene, and the views are as before it. Twice is once."""
        self._removeNodes()
        views, self._views = self._views, None
        if views is not None:
            views.restore()

    def _removeNodes(self) -> None:
        self._placing.stop()
        for nodeId in reversed(self._ids):
            self._remove(nodeId)
        self._ids, self._boxIds = [], []
        self.caseId = self._volumeId = self._heatId = self._placedId = ""

    def _keep(self, node: vtkMRMLNode) -> str:
        """Remember a node and its display; neither is listed, saved, or brought back by Undo."""
        display = node.GetDisplayNode() if hasattr(node, "GetDisplayNode") else None
        node.SetHideFromEditors(True)
        node.SetAttribute(QUIZ_ATTRIBUTE, "1")
        for each in (node, display):
            if each is not None:
                each.SetSaveWithScene(False)
                each.SetUndoEnabled(False)
                self._ids.append(each.GetID())
        return node.GetID()

    def _node(self, nodeId: str) -> vtkMRMLNode | None:
        return self.scene.GetNodeByID(nodeId) if nodeId else None

    def _remove(self, nodeId: str) -> None:
        node = self._node(nodeId)
        if node is None:
            return
        display = node.GetDisplayNode() if hasattr(node, "GetDisplayNode") else None
        for tree in nodesOfClass(self.scene, "vtkMRMLSubjectHierarchyNode"):
            if item := tree.GetItemByDataNode(node):
                tree.RemoveItem(item, False, False)
        for each in (node, display):
            if each is not None and self.scene.IsNodePresent(each):
                self.scene.RemoveNode(each)


def _withoutText(node: vtkMRMLMarkupsROINode) -> None:
    """A name or a size would be written over the lesion."""
    node.GetDisplayNode().SetPropertiesLabelVisibility(False)
    node.GetDisplayNode().SetPointLabelsVisibility(False)
