"""What a panel watches: the scene, and which volumes its selectors offer."""

from __future__ import annotations

from collections.abc import Callable

import qt
import slicer
import vtk
from slicer import vtkMRMLNode, vtkMRMLScene
from slicer.util import VTKObservationMixin

from LesionClassifierLib.scene.lesions import lesionNodes
from LesionClassifierLib.scene.results import VOLUME_ROLE
from LesionClassifierLib.scene.volumes import heatMapIds

_PAUSE_MS = 150
_WATCHED = ("vtkMRMLMarkupsROINode", "vtkMRMLVolumeNode", "vtkMRMLTransformNode", "vtkMRMLSegmentationNode")


def offerOnlyCts(volumeSelector, scene: vtkMRMLScene) -> None:
    """Keep maps of this extension (Grad-CAM, similarity) out of a selector of CTs; its own filter knows no "all but these"."""
    volumeSelector.sortFilterProxyModel().hiddenNodeIDs = heatMapIds(scene)


class SceneWatch(VTKObservationMixin):
    """Tells when lesions, the CT or what lies above them change; many changes in a row are told once.

    Watches one scene. ``onChanged`` is called on the main thread, a moment after the last change.
    """

    def __init__(self, onChanged: Callable[[], None]) -> None:
        VTKObservationMixin.__init__(self)
        self._onChanged = onChanged
        self._scene: vtkMRMLScene | None = None
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(_PAUSE_MS)
        self._timer.connect("timeout()", self._notify)

    def setScene(self, scene: vtkMRMLScene | None) -> None:
        """Watch another scene; None watches nothing."""
        self.removeObservers()
        self._timer.stop()
        self._scene = scene
        if scene is not None:
            for event in (vtkMRMLScene.NodeAddedEvent, vtkMRMLScene.NodeRemovedEvent):
                self.addObserver(scene, event, self._noteNode)
            self._watchNodes()

    def _watchNodes(self) -> None:
        for roiNode in lesionNodes(self._scene):
            self._watch(roiNode, slicer.vtkMRMLMarkupsNode.PointModifiedEvent)
            self._watch(roiNode, slicer.vtkMRMLTransformableNode.TransformModifiedEvent)
            self._watch(roiNode, vtk.vtkCommand.ModifiedEvent)
            volumeNode = roiNode.GetNodeReference(VOLUME_ROLE)
            if volumeNode is not None:
                self._watch(volumeNode, slicer.vtkMRMLTransformableNode.TransformModifiedEvent)
                self._watch(volumeNode, slicer.vtkMRMLVolumeNode.ImageDataModifiedEvent)

    def _watch(self, node: vtkMRMLNode, event: int) -> None:
        if not self.hasObserver(node, event, self._note):
            self.addObserver(node, event, self._note)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _noteNode(self, _caller, _event, node: vtkMRMLNode | None) -> None:
        """Charts, tables, displays and views come and go, also by a panel itself; they change no lesion."""
        if node is None or any(node.IsA(name) for name in _WATCHED):
            self._note()

    def _note(self, _caller=None, _event=None) -> None:
        self._timer.start()

    def _notify(self) -> None:
        if self._scene is not None:
            self._watchNodes()
            self._onChanged()
