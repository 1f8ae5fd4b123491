"""``@parameterNodeWrapper``: a class of annotated names becomes typed access to a parameter node, and to its widgets."""

from __future__ import annotations

import logging
import typing
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import qt
import slicer
import vtk

from .annotations import Default, Validator, first, split
from .connectors import GuiConnector, createGuiConnector
from .serializers import Serializer, serializerFor

SlicerParameterNamePropertyName = "SlicerParameterName"


class _Parameter:
    """One parameter of one node, read once and kept where nothing can change it unseen."""

    def __init__(
        self, node: slicer.vtkMRMLScriptedModuleNode, name: str, serializer: Serializer, default: Default
    ) -> None:
        self._node, self._name, self.serializer, self.default = node, name, serializer, default
        if not serializer.isIn(node, name):
            serializer.write(node, name, default.value)
        self.isCached = serializer.supportsCaching
        self._isWriting = False
        if self.isCached:
            self._value = serializer.read(node, name)
            self._observe()

    def read(self) -> Any:
        if self.isCached:
            return self._value
        return self._fromNode()

    def write(self, value: object) -> None:
        # The kept value is renewed before any observer is told.
        self._isWriting = True
        try:
            with slicer.util.NodeModify(self._node):
                self.serializer.write(self._node, self._name, value)
                if self.isCached:
                    self._value = self._fromNode()
        finally:
            self._isWriting = False

    def _fromNode(self) -> Any:
        if not self.serializer.isIn(self._node, self._name):
            self.serializer.write(self._node, self._name, self.default.value)
        return self.serializer.read(self._node, self._name)

    def _observe(self) -> None:
        # Only weakly: the wrapper goes when its owner lets it go, and takes the observer along.
        me = weakref.ref(self)

        def onModified(_caller: object, _event: str) -> None:
            parameter = me()
            if parameter is not None and not parameter._isWriting:
                parameter._value = parameter._fromNode()

        tag = self._node.AddObserver(vtk.vtkCommand.ModifiedEvent, onModified)
        weakref.finalize(self, self._node.RemoveObserver, tag)


class _Wrapper:
    """What the decorator gives to a class."""

    def __init__(self, parameterNode: slicer.vtkMRMLScriptedModuleNode, prefix: str | None = None) -> None:
        self.parameterNode = parameterNode
        self._connectors: dict[int, dict[str, GuiConnector]] = {}
        self._guiObservers: dict[int, int] = {}
        self._nextTag, self._isUpdatingGui = 0, False
        self._parameters = {
            name: _Parameter(parameterNode, f"{prefix or ''}{name}", serializer, default)
            for name, (_kind, serializer, default) in self.allParameters.items()
        }

    def getValue(self, name: str) -> Any:
        """The value of a parameter, by name."""
        self._check(name)
        return self._parameters[name].read()

    def setValue(self, name: str, value: object) -> None:
        """Set a parameter, by name."""
        self._check(name)
        self._parameters[name].write(value)

    def default(self, name: str) -> Default:
        """The default of a parameter."""
        self._check(name)
        return self._parameters[name].default

    def isCached(self, name: str) -> bool:
        """Whether reading the parameter does without the node."""
        self._check(name)
        return self._parameters[name].isCached

    @classmethod
    def dataType(cls, name: str) -> object:
        """The type of a parameter, as it is annotated."""
        cls._check(name)
        return cls.allParameters[name][0]

    def connectGui(self, gui: object) -> int:
        """Connect every widget with a ``SlicerParameterName``: of a widget's children, or of an object's attributes."""
        isWidget = getattr(gui, "isWidgetType", lambda: False)()
        widgets = gui.findChildren(qt.QWidget) if isWidget else vars(gui).values()
        named = [(widget.property(SlicerParameterNamePropertyName), widget) for widget in widgets]
        return self.connectParametersToGui({name: widget for name, widget in named if name})

    def connectParametersToGui(self, mapping: Mapping[str, object]) -> int:
        """Connect parameters to widgets, both ways; the widget takes the parameter's value first. Returns a tag."""
        for name in mapping:
            self._check(name)
        connectors = {
            name: widget if isinstance(widget, GuiConnector) else createGuiConnector(widget, self.dataType(name))
            for name, widget in mapping.items()
        }
        tag = self._nextTag
        self._nextTag += 1
        self._connectors[tag] = connectors
        for name, connector in connectors.items():
            connector.write(self.getValue(name))
            connector.onChanged(self._readFrom(name, connector))
        self._guiObservers[tag] = self.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self._updateGui())
        return tag

    def disconnectGui(self, tag: int | None) -> None:
        """Take back a connection; a tag that isn't known is let pass."""
        for connector in self._connectors.pop(tag, {}).values():
            connector.onChanged(None)
        if tag in self._guiObservers:
            self.RemoveObserver(self._guiObservers.pop(tag))

    def StartModify(self) -> int:
        return self.parameterNode.StartModify()

    def EndModify(self, wasModifying: int) -> int:
        return self.parameterNode.EndModify(wasModifying)

    def AddObserver(self, event: object, callback: Callable, priority: float = 0.0) -> int:
        return self.parameterNode.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag: int) -> None:
        self.parameterNode.RemoveObserver(tag)

    def Modified(self) -> None:
        self.parameterNode.Modified()

    def _readFrom(self, name: str, connector: GuiConnector) -> Callable[[], None]:
        def onChanged() -> None:
            with slicer.util.NodeModify(self):
                if not self._isUpdatingGui:
                    self.setValue(name, connector.read())

        return onChanged

    def _updateGui(self) -> None:
        if self._isUpdatingGui:
            return
        self._isUpdatingGui = True
        try:
            with slicer.util.NodeModify(self):
                for connectors in list(self._connectors.values()):
                    for name, connector in connectors.items():
                        connector.write(self.getValue(name))
        finally:
            self._isUpdatingGui = False

    @classmethod
    def _check(cls, name: str) -> None:
        if name not in cls.allParameters:
            known = "".join(f"\n    {each}," for each in cls.allParameters)
            msg = f"Cannot find a param with the given name: {name}\n  Found parameters [{known}\n  ]"
            raise ValueError(msg)


def parameterNodeWrapper(classtype: type | None = None) -> Any:
    """Class decorator, with or without brackets."""
    return _wrapped if classtype is None else _wrapped(classtype)


def _wrapped(classtype: type) -> type:
    parameters = {}
    for name, annotated in typing.get_type_hints(classtype, include_extras=True).items():
        _kind, notes = split(annotated)
        try:
            serializer = serializerFor(annotated)
        except Exception as error:
            msg = f"Unable to create serializer for {classtype} member {name}"
            raise Exception(msg) from error
        default = Default(getattr(classtype, name)) if hasattr(classtype, name) else first(notes, Default)
        parameters[name] = (annotated, serializer, default or Default(serializer.default()))
        unused = [note for note in notes if not isinstance(note, Validator | Default)]
        if unused:
            logging.warning("Unused annotations: %s", unused)
    own = {
        name: value for name, value in vars(_Wrapper).items() if name not in ("__module__", "__dict__", "__weakref__")
    }
    taken = {*own, "allParameters", "_is_parameter_node_wrapper"} & (set(parameters) | set(vars(classtype)))
    reserved = sorted(name for name in taken if not name.startswith("__"))
    if reserved:
        msg = f"Cannot use reserved name '{reserved[0]}' in a parameterNodeWrapper"
        raise ValueError(msg)
    for name in parameters:
        setattr(classtype, name, _attribute(name))
    for name, value in own.items():
        if not name.startswith("__") or name == "__init__":
            setattr(classtype, name, value)
    classtype.allParameters = parameters
    classtype._is_parameter_node_wrapper = True
    return classtype


def _attribute(name: str) -> property:
    return property(lambda self: self.getValue(name), lambda self, value: self.setValue(name, value))


def isParameterNodeWrapper(classOrObject: object) -> bool:
    """Whether a class, or an object's class, was made by the decorator."""
    return bool(getattr(classOrObject, "_is_parameter_node_wrapper", False))


def findChildWidgetForParameter(widget: Any, parameter: str) -> Any | None:
    """The child widget that is to be connected to a parameter."""
    children = widget.findChildren(qt.QWidget)
    return next((each for each in children if each.property(SlicerParameterNamePropertyName) == parameter), None)
