"""Qt properties as Python attributes, on the classes of PySide6 themselves."""

from __future__ import annotations

import inspect
from functools import lru_cache
from typing import Any

from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import Property, QObject, SignalInstance

# Virtual functions: C++ looks for an overriding function in Python and would find the property.
_VIRTUAL = {"sizeHint", "minimumSizeHint"}
# Where classes come from that are C++ in Slicer.
_FROM_QT = ("PySide6", "qt", "ctk", "slicer_gui")
_readProperty = QObject.property
_writeProperty = QObject.setProperty


def qtClasses() -> list[type]:
    """Every class of PySide6 that is a QObject, base classes first."""
    classes = {
        value
        for module in (QtCore, QtGui, QtWidgets)
        for value in (getattr(module, name) for name in dir(module))
        if isinstance(value, type) and issubclass(value, QObject)
    }
    return sorted(classes, key=lambda each: (len(each.__mro__), each.__name__))


def install() -> None:
    """Turn the Qt properties of every class into attributes."""
    for each in qtClasses():
        meta = each.staticMetaObject
        if meta.className() != each.__name__:
            continue
        for index in range(meta.propertyOffset(), meta.propertyCount()):
            name = meta.property(index).name()
            if name not in _VIRTUAL:
                setattr(each, name, _attribute(name, getattr(each, name, None)))
    QObject.name = _attribute("objectName")
    QObject.className = lambda self: self.metaObject().className()
    QObject.delete = QObject.deleteLater
    for each in qtClasses():
        if "__setattr__" in vars(each):
            each.__setattr__ = _setAttribute


class _Attribute(property):
    """A property of the objects; on the class it is what was there (``QTimer.singleShot`` is a function too)."""

    onClass: object = None

    def __get__(self, instance: QObject | None, owner: type | None = None) -> Any:
        if instance is None and self.onClass is not None:
            return self.onClass
        return super().__get__(instance, owner)


def _attribute(name: str, onClass: object = None) -> _Attribute:
    def read(self: QObject) -> Any:
        value = _readProperty(self, name)
        # PythonQt hands out a list of strings as a tuple.
        return tuple(value) if isinstance(value, list) else value

    def write(self: QObject, value: Any) -> None:
        if not _writeProperty(self, name, list(value) if isinstance(value, tuple) else value):
            msg = f"{type(self).__name__}.{name} can't be set to {value!r}: read-only, or of another type."
            raise AttributeError(msg)

    made = _Attribute(read, write)
    made.onClass = onClass
    return made


def _setAttribute(self: QObject, name: str, value: Any) -> None:
    """PythonQt lets only classes written in Python have attributes of their own; a mistyped property shows this way."""
    own = type(self)
    found = _onClass(own, name)
    if isinstance(found, Property):
        found.fset(self, value)
    elif hasattr(type(found), "__set__"):
        found.__set__(self, value)
    elif _isFromQt(own) and not name.startswith("_") and not _isPySidesOwn(name, value):
        msg = f"{own.__name__} has no property {name!r}; PythonQt neither adds attributes nor overwrites methods."
        raise AttributeError(msg)
    else:
        self.__dict__[name] = value


@lru_cache(maxsize=4096)
def _onClass(own: type, name: str) -> Any:
    """What stands on the class itself; a class does not change after `install`."""
    return inspect.getattr_static(own, name, None)


def _isFromQt(own: type) -> bool:
    return own.__module__.partition(".")[0] in _FROM_QT


def _isPySidesOwn(name: str, value: Any) -> bool:
    """PySide keeps bound signals here, and the children of a loaded .ui file (which PythonQt finds by name too)."""
    isChild = isinstance(value, QObject) and _readProperty(value, "objectName") == name
    return isChild or isinstance(value, SignalInstance)
