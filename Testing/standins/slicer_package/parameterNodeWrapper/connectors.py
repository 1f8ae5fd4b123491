"""Which widget shows which type, and how: the pairs that Slicer knows, by the widget's very class."""

from __future__ import annotations

import enum
import pathlib
import types
import typing
from collections.abc import Callable
from typing import Any

import ctk
import qt
import slicer

from .annotations import Choice, Decimals, Maximum, Minimum, SingleStep, WithinRange, first, split


class GuiConnector:
    """Reads a widget, writes it, and says when its user changed it. ``signal`` is emitted by the widget then."""

    signal = ""

    def __init__(self, widget: Any, kind: object, notes: list[object]) -> None:
        self._widget, self._kind, self._notes = widget, kind, notes
        self._callback: Callable[[], None] | None = None

    def widget(self) -> Any:
        """The widget."""
        return self._widget

    def onChanged(self, callback: Callable[[], None] | None) -> None:
        """Call this when the widget changes; None ends it."""
        self._callback = callback
        signal = getattr(self._widget, self.signal)
        if callback is None:
            signal.disconnect(self.changed)
        else:
            signal.connect(self.changed)

    def changed(self) -> None:
        """What the signal calls."""
        if self._callback is not None:
            self._callback()

    def read(self) -> object:
        """The value shown."""
        raise NotImplementedError

    def write(self, value: object) -> None:
        """Show a value."""
        raise NotImplementedError


class _Attribute(GuiConnector):
    """A property of the widget, as it is."""

    attribute = ""

    def read(self):
        return getattr(self._widget, self.attribute)

    def write(self, value):
        setattr(self._widget, self.attribute, value)


class _Ticked(_Attribute):
    attribute = "checked"
    signal = "toggled"


class _TickBox(_Ticked):
    signal = "stateChanged"


class _PushButton(_Ticked):
    def __init__(self, widget, kind, notes):
        super().__init__(widget, kind, notes)
        widget.checkable = True


class _Line(_Attribute):
    attribute = "text"
    signal = "textChanged"


class _Text(_Attribute):
    attribute = "plainText"
    signal = "textChanged"


class _Number(_Attribute):
    """Takes limits, decimals and step from the annotations."""

    attribute = "value"
    signal = "valueChanged"
    needsLimits = (ctk.ctkSliderWidget, qt.QSlider)
    endless = (-(2**31), 2**31 - 1)

    def __init__(self, widget, kind, notes):
        super().__init__(widget, kind, notes)
        step = first(notes, SingleStep)
        if step is not None:
            widget.singleStep = step.value
        within, minimum, maximum = (first(notes, limit) for limit in (WithinRange, Minimum, Maximum))
        isBounded = within is not None or (minimum is not None and maximum is not None)
        if isinstance(widget, self.needsLimits) and not isBounded:
            kinds = (
                ("QSlider", "int type is") if isinstance(widget, qt.QSlider) else ("ctkSliderWidget", "float types is")
            )
            msg = f"Cannot have a connection to {kinds[0]} where the {kinds[1]} unbounded."
            raise RuntimeError(msg)
        low = within or minimum
        high = within or maximum
        widget.minimum = self.endless[0] if low is None else low.minimum
        widget.maximum = self.endless[1] if high is None else high.maximum


class _WholeNumber(_Number):
    pass


class _RealNumber(_Number):
    """A widget of real numbers, for whole ones too."""

    endless = (float("-inf"), float("inf"))

    def __init__(self, widget, kind, notes):
        decimals = Decimals(0) if kind is int else first(notes, Decimals)
        if decimals is not None and type(widget).__name__ != "ctkDoubleSlider":
            widget.decimals = decimals.value
        super().__init__(widget, kind, notes)

    def read(self):
        return self._kind(self._widget.value)


class _Choices(GuiConnector):
    """A combo box that lists what the parameter may be."""

    signal = "currentIndexChanged"

    def __init__(self, widget, kind, notes):
        super().__init__(widget, kind, notes)
        self._values, labels = self._listed()
        widget.clear()
        for label in labels:
            widget.addItem(label)

    def _listed(self) -> tuple[list[object], list[str]]:
        choice = first(self._notes, Choice)
        if choice is None:
            msg = "ComboBoxToStringableConnector requires the Choice annotation to be used."
            raise RuntimeError(msg)
        return list(choice.choices), [str(each) for each in choice.choices]

    def read(self):
        return self._values[self._widget.currentIndex]

    def write(self, value):
        if value not in self._values:
            msg = f"Unable to find value {value} in choices {self._values}"
            raise ValueError(msg)
        self._widget.currentIndex = self._values.index(value)


class _Members(_Choices):
    """An enum: its members, by ``label()`` where the enum has that."""

    def _listed(self):
        label = getattr(self._kind, "label", lambda member: member.name)
        return list(self._kind), [label(member) for member in self._kind]


class _Path(GuiConnector):
    """A path as text."""

    def __init__(self, widget, kind, notes):
        super().__init__(widget, kind, notes)
        isLine = type(widget).__name__ == "ctkPathLineEdit"
        self.signal, self._attribute = (
            ("currentPathChanged", "currentPath") if isLine else ("directoryChanged", "directory")
        )

    def read(self):
        return self._kind(getattr(self._widget, self._attribute))

    def write(self, value):
        setattr(self._widget, self._attribute, str(value))


class _Node(GuiConnector):
    """A node selector, which lists nodes of the parameter's types."""

    signal = "currentNodeChanged"

    def __init__(self, widget, kind, notes):
        super().__init__(widget, kind, notes)
        widget.nodeTypes = [each().GetClassName() for each in _nodeClasses(kind)]

    def read(self):
        return self._widget.currentNode()

    def write(self, value):
        self._widget.setCurrentNode(value)


def _isEnum(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, enum.Enum)


def _isPath(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, pathlib.PurePath)


def _nodeClasses(kind: object) -> list[type]:
    """The node classes of a type: one, or several with or without None; [] for anything else."""
    isUnion = typing.get_origin(kind) in (typing.Union, types.UnionType)
    parts = [split(part)[0] for part in (typing.get_args(kind) if isUnion else (kind,))]
    parts = [part for part in parts if part is not type(None)]
    areNodes = all(isinstance(part, type) and issubclass(part, slicer.vtkMRMLNode) for part in parts)
    return parts if areNodes else []


_NUMBERS = (
    "QDoubleSpinBox",
    "ctkSliderWidget",
    "qMRMLSliderWidget",
    "ctkDoubleSlider",
    "ctkDoubleSpinBox",
    "qMRMLSpinBox",
)
_BY_CLASS: dict[str, list[tuple[Callable[[object], bool], type[GuiConnector]]]] = {
    "QCheckBox": [(lambda kind: kind is bool, _TickBox)],
    "ctkCheckBox": [(lambda kind: kind is bool, _TickBox)],
    "QPushButton": [(lambda kind: kind is bool, _PushButton)],
    "ctkCheckablePushButton": [(lambda kind: kind is bool, _PushButton)],
    "QSlider": [(lambda kind: kind is int, _WholeNumber)],
    "QSpinBox": [(lambda kind: kind is int, _WholeNumber)],
    "QComboBox": [(_isEnum, _Members), (lambda kind: kind in (int, float, str, bool), _Choices)],
    "ctkComboBox": [(_isEnum, _Members), (lambda kind: kind in (int, float, str, bool), _Choices)],
    "QLineEdit": [(lambda kind: kind is str, _Line)],
    "QTextEdit": [(lambda kind: kind is str, _Text)],
    "QPlainTextEdit": [(lambda kind: kind is str, _Text)],
    "ctkPathLineEdit": [(_isPath, _Path)],
    "ctkDirectoryButton": [(_isPath, _Path)],
    "qMRMLNodeComboBox": [(lambda kind: bool(_nodeClasses(kind)), _Node)],
    **{name: [(lambda kind: kind in (int, float), _RealNumber)] for name in _NUMBERS},
}


def createGuiConnector(widget: Any, datatype: object) -> GuiConnector:
    """The connector of a widget and a type. Raises RuntimeError for a pair that Slicer can't connect either."""
    kind, notes = split(datatype)
    # Slicer looks at the class itself: a class derived from QComboBox is not connected.
    for fits, connector in _BY_CLASS.get(type(widget).__name__, []):
        if fits(kind):
            return connector(widget, kind, notes)
    msg = f"Unable to create GUI connector from datatype '{datatype}' to widget type '{type(widget)}'."
    raise RuntimeError(msg)
