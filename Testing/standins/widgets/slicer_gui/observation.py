"""Observers that end with the widget that asked for them."""

from __future__ import annotations

import weakref
from collections.abc import Iterable

import qt
import vtk
from shiboken6 import isValid


class Observation:
    """Calls a method of ``widget`` on events of VTK objects, as long as the widget is there."""

    def __init__(self, widget: qt.QWidget, method: str) -> None:
        self._widget, self._method = weakref.ref(widget), method
        self._tags: list[tuple[vtk.vtkObject, int]] = []

    def watch(self, subject: vtk.vtkObject | None, events: Iterable[object]) -> None:
        """Watch one more object."""
        if subject is not None:
            self._tags += [(subject, subject.AddObserver(event, self._onEvent)) for event in events]

    def stop(self) -> None:
        """Watch none any more."""
        for subject, tag in self._tags:
            subject.RemoveObserver(tag)
        self._tags = []

    def _onEvent(self, _caller: vtk.vtkObject, _event: str) -> None:
        widget = self._widget()
        if widget is None or not isValid(widget):
            self.stop()
        else:
            getattr(widget, self._method)()
