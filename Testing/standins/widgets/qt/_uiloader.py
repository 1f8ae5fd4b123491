"""``qt.QUiLoader``: Qt's own reader of .ui files, which also knows the stand-ins of CTK's and MRML's widgets.

As in Slicer, only a class with a Qt Designer plug-in is made; any other becomes a plain object of its ``<extends>`` class.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar
from xml.etree import ElementTree

from PySide6 import QtUiTools
from PySide6.QtCore import QFile, QMetaObject, QObject
from PySide6.QtWidgets import QWidget

from . import _messages, _signals

_PLUGINS = Path(__file__).resolve().parents[3] / "slicer_names" / "designer_widgets.txt"
_withPlugin = {line for line in _PLUGINS.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")}
_customWidgets: dict[str, type[QWidget]] = {}
_Widget = TypeVar("_Widget", bound=type[QWidget])


def customWidget(widgetClass: _Widget) -> _Widget:
    """Class decorator: .ui files may name this class. Raises ValueError where Slicer has no Designer plug-in for it."""
    if widgetClass.__name__ not in _withPlugin:
        msg = f"Slicer has no Designer plug-in for {widgetClass.__name__}: no .ui file may name it, make it in code."
        raise ValueError(msg)
    _customWidgets[widgetClass.__name__] = widgetClass
    return widgetClass


class QUiLoader(QtUiTools.QUiLoader):
    """Slicer's loader finds the custom widgets through Qt Designer plug-ins, this one in the stand-ins."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._made: list[QWidget] = []
        self._unknown: list[str] = []

    def createWidget(self, className: str, parent: QWidget | None = None, name: str = "") -> QWidget:
        """Called by Qt for each widget of the file."""
        made = _customWidgets.get(className)
        if made is None:
            if className in _withPlugin:
                self._unknown.append(className)
            return super().createWidget(className, parent, name)
        widget = made(parent)
        widget.setObjectName(name)
        self._made.append(widget)
        return widget

    def load(self, file: QFile, parent: QWidget | None = None) -> QWidget | None:
        """Read the file's widgets and connections; a class that Slicer makes and that is not stood in for is an error."""
        path = file.fileName()
        root = ElementTree.parse(path).getroot()
        widget = super().load(file, parent)
        if self._unknown:
            msg = f"{path} uses {', '.join(sorted(set(self._unknown)))}, for which there is no stand-in; write it."
            raise NotImplementedError(msg)
        if widget is not None:
            widget.__dict__["_uiLoader"] = self  # keeps the Python side of the custom widgets alive
            _connectAsWritten(root, widget)
        return widget


def _connectAsWritten(root: ElementTree.Element, widget: QWidget) -> None:
    """Make the connections that Qt could not: their signal or slot exists in Python only."""
    named = {child.objectName: child for child in [*widget.findChildren(QObject), widget]}
    for connection in root.iterfind("connections/connection"):
        sender, signal, receiver, slot = (
            connection.findtext(part) for part in ("sender", "signal", "receiver", "slot")
        )
        missing = [name for name in (sender, receiver) if name not in named]
        if missing:
            _messages.warn(f"QFormBuilder: no object {missing[0]!r} for the connection of {signal}")
        elif not _madeByQt(named[sender], signal, named[receiver], slot):
            named[sender].connect(signal, named[receiver], slot)


def _madeByQt(sender: QObject, signal: str, receiver: QObject, slot: str) -> bool:
    normal = [bytes(QMetaObject.normalizedSignature(each).data()).decode() for each in (signal, slot)]
    isThere = sender.metaObject().indexOfSignal(normal[0]) >= 0 and receiver.metaObject().indexOfMethod(normal[1]) >= 0
    return isThere and _signals.hasSignal(sender, signal)
