"""What Slicer's classes and Python modules offer: from ``names.json`` and ``by_hand.txt``, down to Qt's and VTK's own classes."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import re
from pathlib import Path

_HERE = Path(__file__).parent
_HAND = re.compile(
    r"(?P<owner>[\w.]+?)(?:\.(?P<member>\w+))?(?P<arguments>\(.*\))?(?: (?P<relation><|->) (?P<other>\w+))?$"
)


class Names:
    """Answers questions about one class or function by its name; a class is Slicer's or CTK's, Qt's or VTK's."""

    def __init__(self) -> None:
        kept = json.loads((_HERE / "names.json").read_text(encoding="utf-8"))
        self.version: str = kept["version"]
        self.classes: dict[str, dict] = kept["classes"]
        self.python = {_moduleName(file): entry for file, entry in kept["python"].items()}
        self.members: dict[str, set[str]] = {}
        self.signatures: dict[str, set[str]] = {}
        self.returns: dict[tuple[str, str], str] = {}
        self.bases: dict[str, list[str]] = {name: entry["bases"] for name, entry in self.classes.items()}
        for line in (_HERE / "by_hand.txt").read_text(encoding="utf-8").splitlines():
            if line and not line.startswith("#"):
                self._readByHand(line)
        self.withPlugin = {
            line
            for line in (_HERE / "designer_widgets.txt").read_text(encoding="utf-8").splitlines()
            if line and not line.startswith("#")
        }

    def _readByHand(self, line: str) -> None:
        said, _tab, source = line.partition("\t")
        found = _HAND.match(said)
        if found is None or not source.strip():
            forms = "'Class < Base', 'Class.member', 'Class.method -> Class' nor 'Class.signal(type)'"
            msg = f"by_hand.txt: {line!r} is neither {forms} with a tab and the source file behind it."
            raise ValueError(msg)
        owner, member, relation, other = found["owner"], found["member"], found["relation"], found["other"]
        if relation == "<":
            self.bases.setdefault(owner, []).append(other)
            return
        self.members.setdefault(owner, set()).add(member)
        if found["arguments"] is not None:
            self.signatures.setdefault(owner, set()).add(member + found["arguments"])
        if relation == "->":
            self.returns[owner, member] = other

    def has(self, name: str) -> bool:
        """Whether there is such a class."""
        return name in self.bases or _qtClass(name) is not None or _vtkClass(name) is not None

    def line(self, name: str) -> list[str]:
        """The class and what it derives from, as far as it is Slicer's or CTK's, then Qt's or VTK's class."""
        found, waiting = [], [name]
        while waiting:
            each = waiting.pop(0)
            if each not in found:
                found.append(each)
                waiting += self.bases.get(each, [])
        return found

    def isQt(self, name: str) -> bool:
        """Whether PythonQt shows the class, so that its properties are attributes."""
        return any(_qtClass(each) is not None for each in self.line(name))

    def isProperty(self, name: str, member: str) -> bool:
        """Whether it is a Qt property."""
        return any(
            member in self.classes.get(each, {}).get("properties", ())
            or member in _QT_PROPERTIES.get(each, frozenset())
            for each in self.line(name)
        ) or (member == "name" and self.isQt(name))

    def isMember(self, name: str, member: str) -> bool:
        """Whether the class offers it: property, slot, signal, method, event or enum value."""
        # PythonQt takes exec_ for exec.
        plain = member.removesuffix("_")
        return any(self._isOwn(each, one) for each in self.line(name) for one in {member, plain})

    def _isOwn(self, name: str, member: str) -> bool:
        kinds = ("properties", "signals", "slots", "invokable", "methods", "events")
        if any(member in self.classes.get(name, {}).get(kind, ()) for kind in kinds):
            return True
        if member in self.members.get(name, frozenset()):
            return True
        made = _qtClass(name) or _vtkClass(name)
        # Enum values of Qt are found on the class, but not listed.
        return made is not None and (member in _dir(made) or hasattr(made, member))

    def isOfASubclass(self, name: str, member: str) -> bool:
        """Whether a class that derives from it offers it: what is declared as a node may be one of a more special class."""
        below = [each for each in self.bases if name in self.line(each)[1:]]
        if any(self._isOwn(each, member) for each in below):
            return True
        made = _vtkClass(name)
        return made is not None and any(member in _dir(each) for each in _allBelow(made))

    def signals(self, name: str) -> set[str]:
        """The full signatures of its signals."""
        return set().union(
            *(self.signatures.get(each, set()) | _QT_SIGNALS.get(each, frozenset()) for each in self.line(name))
        )

    def isAnywhere(self, method: str) -> bool:
        """Whether any class of Slicer or VTK, or an array, image or data set of a library has such a method."""
        kinds = ("methods", "slots", "invokable")
        if any(method in entry.get(kind, ()) for entry in self.classes.values() for kind in kinds):
            return True
        return any(method in each for each in self.members.values()) or method in _everyMethod()

    def function(self, name: str) -> list[str] | dict | None:
        """The arguments of a Python function, or the methods of a Python class; None where there is none."""
        module, _dot, rest = name.rpartition(".")
        if module in self.python:
            return self.python[module].get(rest)
        owner = self.function(module) if module else None
        return owner.get(rest) if isinstance(owner, dict) else None

    def takesAnything(self, name: str) -> bool:
        """Whether a Python function has ``**kwargs``."""
        owner, _dot, member = name.rpartition(".")
        return f"{member}(**)" in self.signatures.get(owner, ())


def _moduleName(file: str) -> str:
    stem = Path(file).stem
    return f"slicer.{stem}" if "/Python/slicer/" in f"/{file}" else stem


@functools.cache
def _qtClass(name: str) -> type | None:
    from PySide6 import QtCore, QtGui, QtWidgets

    found = next((getattr(each, name) for each in (QtCore, QtGui, QtWidgets) if hasattr(each, name)), None)
    return found if isinstance(found, type) else None


@functools.cache
def _vtkClass(name: str) -> type | None:
    import vtk

    found = getattr(vtk, name, None) if name.startswith("vtk") else None
    return found if isinstance(found, type) else None


@functools.cache
def _dir(found: type) -> frozenset[str]:
    return frozenset(dir(found))


def _readQt() -> tuple[dict[str, frozenset[str]], dict[str, frozenset[str]]]:
    """Properties and signals of all classes of Qt, by the class's name.

    Read once and at the start: PySide takes a class's meta object for gone once one of its widgets is deleted.
    """
    if importlib.util.find_spec("PySide6") is None:
        return {}, {}
    os.environ.setdefault("PYSIDE6_OPTION_PYTHON_ENUM", "2")  # as the stand-ins want it; PySide reads it once
    from PySide6 import QtCore, QtGui, QtWidgets

    properties, signals = {}, {}
    for module in (QtCore, QtGui, QtWidgets):
        for name in dir(module):  # PySide makes its classes when they are asked for: `vars` does not have them yet
            found = getattr(module, name)
            meta = getattr(found, "staticMetaObject", None) if isinstance(found, type) else None
            if meta is not None:
                methods = [meta.method(place) for place in range(meta.methodCount())]
                properties[name] = frozenset(meta.property(place).name() for place in range(meta.propertyCount()))
                signals[name] = frozenset(
                    bytes(each.methodSignature().data()).decode()
                    for each in methods
                    if each.methodType() == QtCore.QMetaMethod.MethodType.Signal
                )
    return properties, signals


_QT_PROPERTIES, _QT_SIGNALS = _readQt()


def _allBelow(made: type) -> list[type]:
    return [each for direct in made.__subclasses__() for each in (direct, *_allBelow(direct))]


@functools.cache
def _everyMethod() -> frozenset[str]:
    import highdicom
    import highdicom.pm
    import highdicom.seg
    import numpy as np
    import pydicom
    import SimpleITK
    import slicer
    import vtk

    found = (
        set(dir(np))
        | set(dir(np.ndarray))
        | set(dir(pydicom.Dataset))
        | set(dir(SimpleITK))
        | set(dir(SimpleITK.Image))
    )
    found |= {name for module in (highdicom, highdicom.pm, highdicom.seg, highdicom.sr) for name in dir(module)}
    for module in (vtk, slicer):
        found.update(*(dir(each) for each in vars(module).values() if isinstance(each, type)))
    return frozenset(found)
