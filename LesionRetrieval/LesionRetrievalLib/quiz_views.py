"""The slice views while a quiz is on: a case in all of them, and afterwards everything as it was."""

from __future__ import annotations

import numpy as np
import vtk
from LesionClassifierLib.volume_nodes import nodesOfClass
from LesionLib.geometry import CTVolume, transformed_points
from slicer import vtkMRMLScene, vtkMRMLSliceNode

from .held_views import QUIZ, release

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
    sides = np.array(volume.sizeIJK)
    corners = transformed_points(volume.ijkToRAS, np.array(np.meshgrid(*[(0, n - 1) for n in sides])).reshape(3, 8).T)
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
