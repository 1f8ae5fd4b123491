"""The slice views of a comparison or a quiz: who holds them, their layout, and all that is changed, remembered and given back.

With it: what is mended in a scene that was saved meanwhile. While a quiz is on, a case is in all views, and afterwards
everything is as it was.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import slicer
import slicer.util
import vtk
from LesionClassifierLib.scene.heatmaps import HELD_ATTRIBUTE
from LesionClassifierLib.scene.volumes import nodesOfClass
from LesionLib.geometry import CTVolume, lattice_corners, transformed_points
from slicer import vtkMRMLDisplayNode, vtkMRMLScene, vtkMRMLSliceCompositeNode, vtkMRMLSliceNode

COMPARISON, QUIZ = "comparison", "quiz"
LAYOUT_ID = 62011  # of the comparison among Slicer's custom layouts
HIDDEN_ATTRIBUTE = "LesionLens.HiddenFromCaseViews"


def hold(composites: Iterable[vtkMRMLSliceCompositeNode], holder: str) -> None:
    """Keep others from laying volumes over these views until `release`."""
    for composite in composites:
        composite.SetAttribute(HELD_ATTRIBUTE, holder)


def heldBy(scene: vtkMRMLScene) -> str:
    """Who holds slice views now; "" where nobody does."""
    held = (node.GetAttribute(HELD_ATTRIBUTE) for node in nodesOfClass(scene, "vtkMRMLSliceCompositeNode"))
    return next((holder for holder in held if holder), "")


def release(scene: vtkMRMLScene, holder: str | None = None) -> None:
    """Give the views back that ``holder`` has; None: whoever has them."""
    for composite in nodesOfClass(scene, "vtkMRMLSliceCompositeNode"):
        held = composite.GetAttribute(HELD_ATTRIBUTE)
        if held is not None and holder in (None, held):
            composite.RemoveAttribute(HELD_ATTRIBUTE)


def displaysWithViews(scene: vtkMRMLScene) -> list[vtkMRMLDisplayNode]:
    """Displays of boxes, segmentations and models, which can be shown in some views only."""
    classes = ("vtkMRMLMarkupsDisplayNode", "vtkMRMLSegmentationDisplayNode", "vtkMRMLModelDisplayNode")
    return [display for name in classes for display in nodesOfClass(scene, name)]


def showInAllViews(scene: vtkMRMLScene) -> None:
    """Show again what a comparison kept out of the views of its case."""
    for display in displaysWithViews(scene):
        if display.GetAttribute(HIDDEN_ATTRIBUTE):
            display.RemoveAttribute(HIDDEN_ATTRIBUTE)
            display.RemoveAllViewNodeIDs()


def mendLoadedViews(scene: vtkMRMLScene) -> None:
    """Take out of a scene what is left of a comparison or a quiz that was on when it, or Slicer's settings, were saved.

    Call it only while neither is on. Without its case the layout of the comparison shows nothing worth seeing, and in a
    Slicer that has not shown one yet it is unknown and shows no view at all.
    """
    release(scene)
    showInAllViews(scene)
    layout = scene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    if layout is not None and layout.GetViewArrangement() == LAYOUT_ID:
        layout.SetViewArrangement(layout.SlicerLayoutConventionalView)


# Orientation to the name of the view; the upper row are Slicer's own three.
QUERY_VIEWS = {"Axial": "Red", "Coronal": "Green", "Sagittal": "Yellow"}
CASE_VIEWS = {"Axial": "LesionLensAxial", "Coronal": "LesionLensCoronal", "Sagittal": "LesionLensSagittal"}
_COLORS = {"Axial": "#F34A33", "Coronal": "#6EB04B", "Sagittal": "#EDD54C"}
_COMPOSITE_FIELDS = ("BackgroundVolumeID", "LinkedControl", "HotLinkedControl")


def layoutDescription() -> str:
    """Two rows of three slice views: the lesion above, the case below."""
    rows = "".join(_row(views, prefix) for views, prefix in ((QUERY_VIEWS, ""), (CASE_VIEWS, "Case ")))
    return f'<layout type="vertical" split="true">{rows}</layout>'


def showLayout(scene: vtkMRMLScene) -> None:
    """Arrange the views; where nothing lays them out, only their nodes are made.

    Which layout is on is not saved with the scene meanwhile: a Slicer that has not registered this one shows no view for it.
    """
    node = _layoutNode(scene)
    if node is not None:
        node.SetSaveWithScene(False)
        if not node.IsLayoutDescription(LAYOUT_ID):
            node.AddLayoutDescription(LAYOUT_ID, layoutDescription())
        node.SetViewArrangement(LAYOUT_ID)


def sliceNodeOf(scene: vtkMRMLScene, name: str) -> vtkMRMLSliceNode:
    """The slice node of a view, made where nobody has made it."""
    found = scene.GetSingletonNode(name, "vtkMRMLSliceNode")
    if found is None:
        node = scene.CreateNodeByClass("vtkMRMLSliceNode")  # with the scene's orientations
        node.UnRegister(None)
        node.SetLayoutName(name)
        node.SetSingletonTag(name)
        node.SetName(name)
        found = scene.AddNode(node)
    return found


def compositeOf(scene: vtkMRMLScene, name: str) -> vtkMRMLSliceCompositeNode:
    """The layers of a view, made where nobody has made them."""
    for node in nodesOfClass(scene, "vtkMRMLSliceCompositeNode"):
        if node.GetLayoutName() == name:
            return node
    node = vtkMRMLSliceCompositeNode()
    node.SetLayoutName(name)
    return scene.AddNode(node)


def holdViews(scene: vtkMRMLScene) -> None:
    """Both rows belong to the comparison until `ViewState.restore`; the views of the case are not saved with the scene."""
    composites = [compositeOf(scene, name) for name in (*QUERY_VIEWS.values(), *CASE_VIEWS.values())]
    hold(composites, COMPARISON)
    for name in CASE_VIEWS.values():
        for node in (sliceNodeOf(scene, name), compositeOf(scene, name)):
            node.SetSaveWithScene(False)


class ViewState:
    """How layout, slices, layers and displays are now; `restore` makes them so again."""

    def __init__(self, scene: vtkMRMLScene) -> None:
        self._scene = scene
        layout = _layoutNode(scene)
        self._arrangement = None if layout is None else layout.GetViewArrangement()
        self._isLayoutSaved = layout is None or bool(layout.GetSaveWithScene())
        there = {node.GetLayoutName() for node in nodesOfClass(scene, "vtkMRMLSliceNode")}
        self._slices = {
            name: _comparedSliceState(sliceNodeOf(scene, name)) for name in QUERY_VIEWS.values() if name in there
        }
        self._layers = {
            node.GetID(): {field: getattr(node, f"Get{field}")() for field in _COMPOSITE_FIELDS}
            for node in nodesOfClass(scene, "vtkMRMLSliceCompositeNode")
        }
        self._nodesThere = {n.GetID() for n in _viewNodes(scene)}

    def restore(self) -> None:
        """Give everything back that is still in the scene."""
        release(self._scene, COMPARISON)
        layout = _layoutNode(self._scene)
        if layout is not None:
            layout.SetSaveWithScene(self._isLayoutSaved)
        if layout is not None and self._arrangement is not None:
            layout.SetViewArrangement(self._arrangement)
            if not (self._scene.IsClosing() or self._scene.IsImporting()):
                slicer.app.processEvents()
        showInAllViews(self._scene)
        for nodeId, fields in self._layers.items():
            node = self._scene.GetNodeByID(nodeId)
            if node is not None:
                for field, value in fields.items():
                    if field != "BackgroundVolumeID" or not value or self._scene.GetNodeByID(value) is not None:
                        getattr(node, f"Set{field}")(value)
        for name, state in self._slices.items():
            _restoreSlice(sliceNodeOf(self._scene, name), state)
        if getattr(slicer.app, "layoutManager", lambda: None)() is None or layout is None:
            for node in _viewNodes(self._scene):  # made here; a layout manager keeps its own
                if node.GetID() not in self._nodesThere and node.GetLayoutName() in CASE_VIEWS.values():
                    self._scene.RemoveNode(node)


def hideFromCaseViews(scene: vtkMRMLScene) -> None:
    """Boxes and segments of the query do not belong into the views of the case, where they would lie by accident."""
    queryIds = [sliceNodeOf(scene, name).GetID() for name in QUERY_VIEWS.values()]
    for display in displaysWithViews(scene):
        if display.GetNumberOfViewNodeIDs() == 0 and display.GetSaveWithScene():
            display.SetAttribute(HIDDEN_ATTRIBUTE, "1")
            for nodeId in queryIds:
                display.AddViewNodeID(nodeId)


def _row(views: dict[str, str], prefix: str) -> str:
    items = "".join(
        f'<item><view class="vtkMRMLSliceNode" singletontag="{name}">'
        f'<property name="orientation" action="default">{orientation}</property>'
        f'<property name="viewlabel" action="default">{prefix}{orientation[0]}</property>'
        f'<property name="viewcolor" action="default">{_COLORS[orientation]}</property></view></item>'
        for orientation, name in views.items()
    )
    return f'<item><layout type="horizontal">{items}</layout></item>'


def _layoutNode(scene: vtkMRMLScene) -> slicer.vtkMRMLLayoutNode | None:
    return scene.GetFirstNodeByClass("vtkMRMLLayoutNode")


def _viewNodes(scene: vtkMRMLScene) -> list:
    return nodesOfClass(scene, "vtkMRMLSliceNode") + nodesOfClass(scene, "vtkMRMLSliceCompositeNode")


def _comparedSliceState(node: vtkMRMLSliceNode) -> tuple:
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(node.GetSliceToRAS())
    return matrix, node.GetXYZOrigin(), node.GetFieldOfView(), node.GetOrientation()


def _restoreSlice(node: vtkMRMLSliceNode, state: tuple) -> None:
    matrix, origin, field, _orientation = state
    node.GetSliceToRAS().DeepCopy(matrix)
    node.SetXYZOrigin(*origin)
    node.SetFieldOfView(*field)
    node.UpdateMatrices()


_LAYERS = ("BackgroundVolumeID", "ForegroundVolumeID", "LabelVolumeID")
_SETTINGS = ("ForegroundOpacity", "LinkedControl", "HotLinkedControl")


class KeptViews:
    """Layers and slices of all slice views as they are now; `restore` brings back what is still there."""

    def __init__(self, scene: vtkMRMLScene) -> None:
        self._scene = scene
        self._layers = {
            node.GetID(): {field: getattr(node, f"Get{field}")() for field in (*_LAYERS, *_SETTINGS)}
            for node in nodesOfClass(scene, "vtkMRMLSliceCompositeNode")
        }
        self._slices = {node.GetID(): _sliceState(node) for node in nodesOfClass(scene, "vtkMRMLSliceNode")}

    def restore(self) -> None:
        """Views that somebody has made meanwhile only lose their layers; those that were made for the quiz go."""
        release(self._scene, QUIZ)
        views = {node.GetLayoutName() for node in nodesOfClass(self._scene, "vtkMRMLSliceNode")}
        for node in nodesOfClass(self._scene, "vtkMRMLSliceCompositeNode"):
            before = self._layers.get(node.GetID())
            if before is None and node.GetLayoutName() not in views:
                self._scene.RemoveNode(node)
                continue
            if before is None:
                before = dict.fromkeys(_LAYERS)
            for field, value in before.items():
                isGone = field in _LAYERS and value and self._scene.GetNodeByID(value) is None
                getattr(node, f"Set{field}")(None if isGone else value)
        for nodeId, (matrix, origin, field) in self._slices.items():
            node = self._scene.GetNodeByID(nodeId)
            if node is not None:
                node.GetSliceToRAS().DeepCopy(matrix)
                node.SetXYZOrigin(*origin)
                node.SetFieldOfView(*field)
                node.UpdateMatrices()


def fitViews(scene: vtkMRMLScene, volume: CTVolume) -> None:
    """Every slice view shows the middle of the volume, all of it; which way it looks stays."""
    corners = transformed_points(volume.ijkToRAS, lattice_corners(volume.sizeIJK))
    field = float(np.ptp(corners, axis=0).max())
    for node in nodesOfClass(scene, "vtkMRMLSliceNode"):
        width, height = (max(1, side) for side in node.GetDimensions()[:2])
        perPixel = field / min(width, height)
        node.SetFieldOfView(width * perPixel, height * perPixel, node.GetFieldOfView()[2])
        node.SetXYZOrigin(0.0, 0.0, 0.0)
        node.JumpSliceByCentering(*(float(value) for value in corners.mean(axis=0)))
        node.UpdateMatrices()


def _sliceState(node: vtkMRMLSliceNode) -> tuple:
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(node.GetSliceToRAS())
    return matrix, node.GetXYZOrigin(), node.GetFieldOfView()
