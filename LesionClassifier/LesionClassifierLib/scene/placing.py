"""One click in a slice view says where a lesion is: Slicer's own place mode, for a single point."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np
import slicer
from slicer import vtkMRMLInteractionNode, vtkMRMLMarkupsFiducialNode, vtkMRMLScene
from slicer.util import VTKObservationMixin

from LesionClassifierLib.scene.volumes import nodesOfClass

_CLASS = "vtkMRMLMarkupsFiducialNode"
_ATTRIBUTE = "LesionLens.Placing"


class BoxPlacing(VTKObservationMixin):
    """Waits for one click at a time in a whole application: whoever starts ends what was waited for before.

    Slicer's two clicks of an ROI are opposite corners, which few people hit around a lesion; one click at its middle is
    easier, and the handles do the rest. The point that is clicked is kept in a hidden node that is never saved: it cannot be
    removed in the middle of the event that it sends.
    """

    _active: ClassVar[BoxPlacing | None] = None

    def __init__(self) -> None:
        VTKObservationMixin.__init__(self)
        self._onPlaced: Callable[[np.ndarray], None] | None = None
        self._onGivenUp: Callable[[], None] | None = None
        self._pointNode: vtkMRMLMarkupsFiducialNode | None = None

    @property
    def isWaiting(self) -> bool:
        """Whether the next click is for this one."""
        return self._onPlaced is not None

    def start(
        self,
        scene: vtkMRMLScene,
        onPlaced: Callable[[np.ndarray], None],
        *,
        onGivenUp: Callable[[], None] | None = None,
    ) -> None:
        """Switch Slicer to its place mode; ``onPlaced`` gets the clicked point in world RAS mm, shape (3,).

        ``onGivenUp``: called where the place mode ends without a click (Esc, another tool).
        """
        if BoxPlacing._active is not None:
            BoxPlacing._active.stop()
        BoxPlacing._active = self
        self._onPlaced, self._onGivenUp = onPlaced, onGivenUp
        self._pointNode = _pointNode(scene)
        self.addObserver(self._pointNode, slicer.vtkMRMLMarkupsNode.PointPositionDefinedEvent, self._placed)
        selection = scene.GetNodeByID("vtkMRMLSelectionNodeSingleton")
        interaction = scene.GetNodeByID("vtkMRMLInteractionNodeSingleton")
        if selection is not None and interaction is not None:
            selection.SetReferenceActivePlaceNodeClassName(_CLASS)
            selection.SetReferenceActivePlaceNodeID(self._pointNode.GetID())
            interaction.SetPlaceModePersistence(0)
            interaction.SetCurrentInteractionMode(vtkMRMLInteractionNode.Place)
            self.addObserver(interaction, vtkMRMLInteractionNode.InteractionModeChangedEvent, self._modeChanged)

    def stop(self) -> None:
        """Wait no longer; Slicer's place mode ends, if it is still on for this point. Safe to call twice."""
        if self._onPlaced is None:
            return
        pointNode = self._forget()
        scene = pointNode.GetScene()
        if scene is None:
            return
        selection = scene.GetNodeByID("vtkMRMLSelectionNodeSingleton")
        interaction = scene.GetNodeByID("vtkMRMLInteractionNodeSingleton")
        isOurs = selection is not None and selection.GetActivePlaceNodeID() == pointNode.GetID()
        if isOurs and interaction is not None:
            interaction.SetCurrentInteractionMode(vtkMRMLInteractionNode.ViewTransform)

    def _forget(self) -> vtkMRMLMarkupsFiducialNode:
        self.removeObservers()
        pointNode, self._pointNode = self._pointNode, None
        self._onPlaced = self._onGivenUp = None
        pointNode.GetDisplayNode().SetVisibility(False)
        if BoxPlacing._active is self:
            BoxPlacing._active = None
        return pointNode

    def _placed(self, _caller=None, _event=None) -> None:
        onPlaced = self._onPlaced
        last = self._pointNode.GetNumberOfControlPoints() - 1
        point = np.zeros(3)
        self._pointNode.GetNthControlPointPositionWorld(last, point)
        self._forget()
        onPlaced(point)

    def _modeChanged(self, caller: vtkMRMLInteractionNode, _event=None) -> None:
        if caller.GetCurrentInteractionMode() == vtkMRMLInteractionNode.Place:
            return
        onGivenUp = self._onGivenUp
        self._forget()
        if onGivenUp is not None:
            onGivenUp()


def _pointNode(scene: vtkMRMLScene) -> vtkMRMLMarkupsFiducialNode:
    """The scene's hidden point node, empty and ready to be placed."""
    found = [node for node in nodesOfClass(scene, _CLASS) if node.GetAttribute(_ATTRIBUTE)]
    node = found[0] if found else _newPointNode(scene)
    node.RemoveAllControlPoints()
    node.GetDisplayNode().SetVisibility(True)
    return node


def _newPointNode(scene: vtkMRMLScene) -> vtkMRMLMarkupsFiducialNode:
    made = scene.CreateNodeByClass(_CLASS)
    made.UnRegister(None)
    made.SetName("Middle of the lesion")
    made.SetAttribute(_ATTRIBUTE, "1")
    made.SetHideFromEditors(True)  # before it is added: Slicer's tree lists what is not hidden then
    node = scene.AddNode(made)
    node.CreateDefaultDisplayNodes()
    for each in (node, node.GetDisplayNode()):
        each.SetSaveWithScene(False)
        each.SetUndoEnabled(False)
    node.GetDisplayNode().SetPointLabelsVisibility(False)
    return node
