"""Widgets that know the scene and little else: the top of a .ui file, sliders and boxes with units."""

from __future__ import annotations

import ctk
import qt
import slicer
from PySide6.QtCore import Property, Signal


@qt.customWidget
class qMRMLWidget(qt.QWidget):
    """Says which scene it has; the .ui file's connections hand it on to the widgets inside."""

    mrmlSceneChanged = Signal(object)

    def __init__(self, parent: qt.QWidget | None = None) -> None:
        super().__init__(parent)
        self._scene: slicer.vtkMRMLScene | None = None

    def mrmlScene(self) -> slicer.vtkMRMLScene | None:
        """The scene."""
        return self._scene

    def setMRMLScene(self, scene: slicer.vtkMRMLScene | None) -> None:
        """Set it, and say so."""
        if scene is not self._scene:
            self._scene = scene
            self.mrmlSceneChanged.emit(scene)


@qt.customWidget
class qSlicerWidget(qMRMLWidget):
    """As `qMRMLWidget`."""


def _text(name: str) -> Property:
    key = f"_{name}"
    return Property(
        str, lambda self: self.__dict__.get(key, ""), lambda self, value: self.__dict__.update({key: value})
    )


class _WithUnits:
    """The scene's units are not stood in for: numbers are shown as they are."""

    def setMRMLScene(self, scene: slicer.vtkMRMLScene | None) -> None:
        """Set the scene."""
        self.__dict__["_scene"] = scene

    def mrmlScene(self) -> slicer.vtkMRMLScene | None:
        """The scene."""
        return self.__dict__.get("_scene")


@qt.customWidget
class qMRMLSliderWidget(ctk.ctkSliderWidget, _WithUnits):
    """A slider with a box."""

    quantity = _text("quantity")


@qt.customWidget
class qMRMLRangeWidget(ctk.ctkRangeWidget, _WithUnits):
    """Two numbers with boxes."""

    quantity = _text("quantity")


@qt.customWidget
class qMRMLSpinBox(ctk.ctkDoubleSpinBox, _WithUnits):
    """A box."""

    quantity = _text("quantity")
