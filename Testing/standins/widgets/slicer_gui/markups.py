"""``qSlicerMarkupsPlaceWidget`` and ``qMRMLMarkupsROIWidget``: to place a markup, and to type a box's place and size."""

from __future__ import annotations

import qt
import slicer
import vtk
from PySide6.QtCore import Property, Signal

from .observation import Observation
from .widgets import qMRMLWidget


@qt.customWidget
class qSlicerMarkupsPlaceWidget(qMRMLWidget):
    """A button that puts the scene's interaction node into place mode, for points of `currentNode`."""

    (
        ShowPlaceMultipleMarkupsOption,
        HidePlaceMultipleMarkupsOption,
        ForcePlaceSingleMarkup,
        ForcePlaceMultipleMarkups,
    ) = range(4)
    activeMarkupsPlaceModeChanged = Signal(bool)
    activeMarkupsFiducialPlaceModeChanged = Signal(bool)

    def __init__(self, parent: qt.QWidget | None = None) -> None:
        super().__init__(parent)
        self._node: slicer.vtkMRMLMarkupsNode | None = None
        self._multiple, self._lastSaid = self.ShowPlaceMultipleMarkupsOption, False
        self._nodeEvents, self._modeEvents = Observation(self, "_update"), Observation(self, "_update")
        self._button = qt.QToolButton()
        self._button.setText("Place")
        self._button.setCheckable(True)
        self._button.setObjectName("PlaceButton")
        layout = qt.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._button)
        self._button.toggled.connect(self.setPlaceModeEnabled)
        self._update()

    def setMRMLScene(self, scene: slicer.vtkMRMLScene | None) -> None:
        """Set the scene, whose interaction node is used."""
        super().setMRMLScene(scene)
        self._modeEvents.stop()
        if scene is not None:
            modified = [vtk.vtkCommand.ModifiedEvent]
            self._modeEvents.watch(self.interactionNode(), modified)
            self._modeEvents.watch(self.selectionNode(), modified)
        self._update()

    def interactionNode(self) -> slicer.vtkMRMLInteractionNode:
        """The node that knows the mode of the mouse."""
        return slicer.app.applicationLogic().GetInteractionNode()

    def selectionNode(self) -> slicer.vtkMRMLSelectionNode:
        """The node that knows what is placed."""
        return slicer.app.applicationLogic().GetSelectionNode()

    def currentNode(self) -> slicer.vtkMRMLMarkupsNode | None:
        """The markup that gets the points."""
        return self._node

    def setCurrentNode(self, node: slicer.vtkMRMLNode | None) -> None:
        """Set it; what is not a markup is as good as None."""
        node = node if node is not None and node.IsA("vtkMRMLMarkupsNode") else None
        if node is self._node:
            return
        self._nodeEvents.stop()
        self._node = node
        if node is not None:
            events = [vtk.vtkCommand.ModifiedEvent, node.PointAddedEvent, node.PointPositionDefinedEvent]
            self._nodeEvents.watch(node, events)
        self._update()

    def _isActive(self) -> bool:
        if self._node is None or self.mrmlScene() is None:
            return False
        logic, selection = slicer.modules.markups.logic(), self.selectionNode()
        isSameClass = selection.GetActivePlaceNodeClassName() == self._node.GetClassName()
        return isSameClass and logic.GetActiveListID() == self._node.GetID()

    def _isPlacing(self) -> bool:
        mode = self.interactionNode().GetCurrentInteractionMode()
        return self._isActive() and mode == slicer.vtkMRMLInteractionNode.Place

    def setPlaceModeEnabled(self, enabled: bool) -> None:
        """Start placing points, or stop."""
        if self.mrmlScene() is None or self._node is None:
            return
        interaction = self.interactionNode()
        if not enabled:
            interaction.SetCurrentInteractionMode(slicer.vtkMRMLInteractionNode.ViewTransform)
            return
        if not self._isActive():
            slicer.modules.markups.logic().SetActiveList(self._node)
        if self._multiple in (self.ForcePlaceSingleMarkup, self.ForcePlaceMultipleMarkups):
            interaction.SetPlaceModePersistence(self._multiple == self.ForcePlaceMultipleMarkups)
        interaction.SetCurrentInteractionMode(slicer.vtkMRMLInteractionNode.Place)

    def placeButton(self) -> qt.QToolButton:
        """The button."""
        return self._button

    def _update(self) -> None:
        canPlace = self._node is not None and self.mrmlScene() is not None
        isPlacing = canPlace and self._isPlacing()
        self._button.setEnabled(canPlace and not self._node.GetControlPointPlacementComplete())
        self._button.blockSignals(True)
        self._button.setChecked(isPlacing)
        self._button.blockSignals(False)
        if isPlacing != self._lastSaid:
            self._lastSaid = isPlacing
            self.activeMarkupsPlaceModeChanged.emit(isPlacing)
            self.activeMarkupsFiducialPlaceModeChanged.emit(isPlacing)

    placeModeEnabled = Property(bool, _isPlacing, setPlaceModeEnabled)


@qt.customWidget
class qMRMLMarkupsROIWidget(qMRMLWidget):
    """Six boxes: centre (R, A, S) and size of a markups ROI in mm, kept in step both ways."""

    def __init__(self, parent: qt.QWidget | None = None) -> None:
        super().__init__(parent)
        self._node: slicer.vtkMRMLMarkupsROINode | None = None
        self._events = Observation(self, "_show")
        self._boxes = [qt.QDoubleSpinBox() for _ in range(6)]
        layout = qt.QFormLayout(self)
        for name, box in zip(("R", "A", "S", "Size R", "Size A", "Size S"), self._boxes, strict=True):
            box.setRange(-1e4, 1e4)
            box.setObjectName(name.replace(" ", ""))
            box.valueChanged.connect(self._write)
            layout.addRow(name, box)

    def setMRMLMarkupsNode(self, node: slicer.vtkMRMLMarkupsROINode | None) -> None:
        """Show another box."""
        self._events.stop()
        self._node = node
        self._events.watch(node, [vtk.vtkCommand.ModifiedEvent])
        self._show()

    def _show(self) -> None:
        if self._node is None:
            return
        for box, value in zip(self._boxes, [*self._node.GetCenter(), *self._node.GetSize()], strict=True):
            box.blockSignals(True)
            box.setValue(value)
            box.blockSignals(False)

    def _write(self) -> None:
        if self._node is not None:
            values = [box.value for box in self._boxes]
            wasModifying = self._node.StartModify()
            self._node.SetCenter(*values[:3])
            self._node.SetSize(*values[3:])
            self._node.EndModify(wasModifying)
