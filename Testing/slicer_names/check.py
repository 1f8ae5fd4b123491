"""Hold the names in sources and .ui files against Slicer's: what Slicer does not have is found, with file and line."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

from .index import Names
from .scopes import Project, Scope, Type, walk

_SIGNAL = re.compile(r"\w+\(.*\)$")
# A line in a form is a frame to Qt, and turns round as a property.
_DESIGNERS_OWN = {"Line": ("QFrame", {"orientation"})}


@cache
def _parsed(text: str) -> ast.Module:
    """A source's tree, which nobody changes: a checker reads every file twice and then checks it."""
    return ast.parse(text)


@dataclass(frozen=True)
class Wrong:
    """A name that Slicer does not have."""

    path: Path
    line: int
    name: str
    why: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.name}: {self.why}"


class Checker:
    """Checks files one by one; `readWidgets` and `readCode` first take in what they say about each other."""

    def __init__(self, names: Names | None = None) -> None:
        self.names = names or Names()
        self.project = Project(self.names)

    # .ui files

    def readWidgets(self, path: Path) -> None:
        """The widgets of a .ui file are attributes of ``ui``."""
        for widget in ElementTree.parse(path).getroot().iter("widget"):
            made = frozenset([self._madeInForms(widget.get("class"))])
            self.project.widgets[widget.get("name")] = self.project.widgets.get(widget.get("name"), frozenset()) | made

    def _madeInForms(self, name: str) -> str:
        return _DESIGNERS_OWN.get(name, (name, set()))[0]

    def checkUi(self, path: Path) -> list[Wrong]:
        """Classes without Designer plug-in, properties, signals and slots that there are not."""
        text, root = path.read_text(encoding="utf-8"), ElementTree.parse(path).getroot()
        classes = {each.get("name"): self._madeInForms(each.get("class")) for each in root.iter("widget")}
        found: list[Wrong] = []

        def add(near: str, name: str, why: str) -> None:
            found.append(Wrong(path, text[: max(0, text.find(near))].count("\n") + 1, name, why))

        for widget in root.iter("widget"):
            name, made = widget.get("name"), classes[widget.get("name")]
            near = f'name="{name}"'
            if made.startswith("Q"):
                if not self.names.isQt(made):
                    add(near, made, "Qt has no such widget")
            elif made not in self.names.withPlugin:
                add(near, made, "Slicer has no Designer plug-in for it: a plain widget is made in its place")
            also = _DESIGNERS_OWN.get(widget.get("class"), ("", set()))[1]
            for each in widget.findall("property"):
                isOwn = each.get("stdset") == "0" or each.get("name") in also
                if not isOwn and not self.names.isProperty(made, each.get("name")):
                    add(near, f"{made}.{each.get('name')}", "no such property")
        for each in root.iterfind("connections/connection"):
            sender, signal, receiver, slot = (each.findtext(one) for one in ("sender", "signal", "receiver", "slot"))
            near = f"<sender>{sender}</sender>"
            if signal not in self.names.signals(classes.get(sender, "QWidget")):
                add(near, f"{classes.get(sender, sender)}.{signal}", "no such signal")
            if not self.names.isMember(classes.get(receiver, ""), slot.partition("(")[0]):
                add(near, f"{classes.get(receiver, receiver)}.{slot}", "no such slot")
        return found

    # Sources

    def readCode(self, path: Path) -> None:
        """What a source says about its functions, fields and widgets."""
        self.project.read(_parsed(path.read_text(encoding="utf-8")))

    def checkCode(self, path: Path, *, isPythonQt: bool = True) -> list[Wrong]:
        """Names that Slicer lacks. ``isPythonQt``: Qt's objects have PythonQt's manners here, which the stand-ins themselves give."""
        tree = _parsed(path.read_text(encoding="utf-8"))
        calls = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        said: list[tuple[ast.AST, str, str]] = []
        for node, scope in walk(tree, Scope(self.project, tree)):
            if isinstance(node, ast.ImportFrom):
                said += [(node, *each) for each in self._imports(node)]
            elif isinstance(node, ast.Attribute):
                said += [(node, *each) for each in self._attribute(node, scope, id(node) in calls, isPythonQt)]
            elif isinstance(node, ast.Call):
                said += [(node, *each) for each in self._call(node, scope, isPythonQt)]
        return [Wrong(path, node.lineno, name, why) for node, name, why in said]

    def _imports(self, node: ast.ImportFrom) -> list[tuple[str, str]]:
        module = node.module or ""
        if node.level or module.split(".")[0] not in ("slicer", "qt", "ctk", "vtk", "vtkmodules", "SampleData"):
            return []
        return [
            (f"{module}.{each.name}", "no such name to import")
            for each in node.names
            if not self._isIn(module, each.name)
        ]

    def _isIn(self, module: str, name: str) -> bool:
        """Whether a module has a name."""
        names = self.names
        if module.split(".", maxsplit=1)[0] in ("vtk", "vtkmodules"):
            return _isInVtk(module, name)
        if f"{module}.{name}" in {*names.python, *names.members} or name in names.members.get(module, ()):
            return True
        if module == "qt":
            return names.has(name)
        if module in ("slicer", "ctk"):
            return (
                names.has(name)
                and not names.line(name)[0].startswith("Q")
                and name.startswith("ctk") == (module == "ctk")
            )
        return names.function(f"{module}.{name}") is not None

    def _attribute(self, node: ast.Attribute, scope: Scope, isCalled: bool, isPythonQt: bool) -> list[tuple[str, str]]:
        found, types = [], scope.typeOf(node.value)
        for each in types:
            kind, _colon, name = each.partition(":")
            if kind == "module" and not self._isIn(name, node.attr):
                found.append((f"{name}.{node.attr}", "no such name"))
            elif (
                kind == "function" and name in self.names.python and self.names.function(f"{name}.{node.attr}") is None
            ):
                found.append((f"{name}.{node.attr}", "no such function"))
            elif kind == "class" and not self.names.isMember(name, node.attr):
                found.append((f"{name}.{node.attr}", "the class has no such name"))
            elif each == "ui" and node.attr not in self.project.widgets and not isinstance(node.ctx, ast.Store):
                found.append((f"ui.{node.attr}", "no .ui file has such a widget"))
            elif self.names.has(each):
                found += self._member(each, node, isCalled, isPythonQt)
        if not types and isCalled and node.attr[:1].isupper() and not self.names.isAnywhere(node.attr):
            found.append((node.attr, "no class has such a method"))
        return found

    def _member(self, owner: str, node: ast.Attribute, isCalled: bool, isPythonQt: bool) -> list[tuple[str, str]]:
        name, names = f"{owner}.{node.attr}", self.names
        if node.attr.startswith("__"):
            return []
        if not names.isMember(owner, node.attr) and not names.isProperty(owner, node.attr):
            return [] if names.isOfASubclass(owner, node.attr) else [(name, "no such property or method")]
        if not isPythonQt or not names.isQt(owner):
            return []
        isProperty = names.isProperty(owner, node.attr)
        if isCalled and isProperty and node.attr not in ("size", "pos", "rect"):
            return [(name, "a property is an attribute in PythonQt, and can't be called")]
        if isinstance(node.ctx, ast.Store) and not isProperty:
            return [(name, "no property: PythonQt lets nothing else be set")]
        return []

    def _call(self, node: ast.Call, scope: Scope, isPythonQt: bool) -> list[tuple[str, str]]:
        found = self._arguments(node, scope.typeOf(node.func))
        if isPythonQt and isinstance(node.func, ast.Attribute) and node.func.attr in ("connect", "disconnect"):
            found += self._connection(node, node.func.value, scope)
        isGet = isinstance(node.func, ast.Name) and node.func.id == "getattr" and len(node.args) > 1
        if isGet and isinstance(node.args[1], ast.Constant):
            asked = ast.Attribute(node.args[0], node.args[1].value, ast.Load())
            found += self._attribute(asked, scope, False, isPythonQt)
        return found

    def _arguments(self, node: ast.Call, called: Type) -> list[tuple[str, str]]:
        found = []
        for each in called:
            kind, _colon, name = each.partition(":")
            takes = self.names.function(name) if kind == "function" else None
            if isinstance(takes, dict):
                takes = [one for one in takes.get("__init__", []) if one != "self"]
            if takes is None or self.names.takesAnything(name):
                continue
            given = [one.arg for one in node.keywords if one.arg is not None]
            found += [(f"{name}({one}=)", "no such argument") for one in given if one not in takes]
            if len(node.args) > len(takes):
                found.append((name, f"takes {len(takes)} arguments, not {len(node.args)}"))
        return found

    def _connection(self, node: ast.Call, sender: ast.expr, scope: Scope) -> list[tuple[str, str]]:
        if not node.args:
            return []
        said = node.args[0]
        if not (isinstance(said, ast.Constant) and isinstance(said.value, str)):
            return self._withoutSignature(sender, scope)
        if not _SIGNAL.match(said.value):
            return [(said.value, "a signal is connected by name and types: 'clicked(bool)'")]
        owners = [each for each in scope.typeOf(sender) if self.names.has(each)]
        if owners:
            wrong = [each for each in owners if not self._hasSignal(each, said.value)]
            return [(f"{each}.{said.value}", "no such signal") for each in wrong]
        isSomewhere = any(self._hasSignal(each, said.value) for each in self._everyWidget())
        return [] if isSomewhere else [(said.value, "no class has such a signal")]

    def _withoutSignature(self, sender: ast.expr, scope: Scope) -> list[tuple[str, str]]:
        if not isinstance(sender, ast.Attribute):
            return []
        found = []
        for owner in scope.typeOf(sender.value):
            if self.names.has(owner) and self.names.isQt(owner):
                kinds = {each for each in self.names.signals(owner) if each.partition("(")[0] == sender.attr}
                if len(kinds) > 1:
                    found.append((f"{owner}.{sender.attr}", f"say which: {' or '.join(sorted(kinds))}"))
        return found

    def _hasSignal(self, owner: str, signature: str) -> bool:
        return signature.replace(" ", "") in {each.replace(" ", "") for each in self.names.signals(owner)}

    def _everyWidget(self) -> list[str]:
        from PySide6 import QtCore, QtGui, QtWidgets

        return [
            *self.names.bases,
            *(each for one in (QtCore, QtGui, QtWidgets) for each in dir(one) if each[:1] == "Q"),
        ]

    # Stand-ins

    def checkOffered(self, path: Path, names: dict[str, str] | None = None) -> list[Wrong]:
        """Public members that a stand-in offers and the real class does not have. ``names``: the real ones of other names."""
        found = []
        for node in _parsed(path.read_text(encoding="utf-8")).body:
            real = (names or {}).get(getattr(node, "name", ""), getattr(node, "name", ""))
            if isinstance(node, ast.ClassDef) and real in self.names.bases:
                for line, member in _offered(node):
                    if not self.names.isMember(real, member):
                        found.append(Wrong(path, line, f"{real}.{member}", "the real class does not offer it"))
        return found


def _offered(node: ast.ClassDef) -> list[tuple[int, str]]:
    """The public names that a class defines, and attributes that its ``__init__`` gives to an object."""
    found: list[tuple[int, str]] = []
    for each in node.body:
        if isinstance(each, ast.FunctionDef):
            found.append((each.lineno, each.name))
        targets = (
            each.targets if isinstance(each, ast.Assign) else [each.target] if isinstance(each, ast.AnnAssign) else []
        )
        found += [(each.lineno, one.id) for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)]
    made = [each for each in ast.walk(node) if isinstance(each, ast.Attribute) and isinstance(each.ctx, ast.Store)]
    found += [(each.lineno, each.attr) for each in made if isinstance(each.value, ast.Name) and each.value.id == "self"]
    return [(line, name) for line, name in found if not name.startswith("_")]


def _isInVtk(module: str, name: str) -> bool:
    import importlib

    return hasattr(importlib.import_module(module), name)
