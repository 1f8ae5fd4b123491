"""What the names in a source file stand for, as far as annotations, constructors and well-known calls say so.

A type is a set of marks: ``vtkMRMLScene`` an object of that class, ``class:vtkMRMLScene`` the class, ``list:…`` several of
them, ``module:slicer``, ``function:slicer.util.loadVolume``, ``own:Panel`` an object of a class of ours, ``ui`` the widgets
of a .ui file, ``other`` what has nothing to do with Slicer. An empty set is not known.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field

from .index import Names

Type = frozenset[str]
UNKNOWN: Type = frozenset()
_SLICERS = ("slicer", "vtk", "qt", "ctk", "SampleData")
_MADE_BY_NAME = {
    "AddNewNodeByClass": 0,
    "CreateNodeByClass": 0,
    "GetFirstNodeByClass": 0,
    "GetNthNodeByClass": 1,
    "GetSingletonNode": 1,
}
_SEVERAL = {"list", "Sequence", "Iterable", "Iterator", "tuple", "set", "Collection"}
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_CLOSED = (*_FUNCTIONS, ast.ClassDef)
_SCOPES = (*_CLOSED, ast.For)


@dataclass
class Project:
    """What all files together say: return types of functions by name, types of fields by class and name, widgets made in code."""

    names: Names
    returns: dict[str, Type] = field(default_factory=dict)
    fields: dict[tuple[str, str], Type] = field(default_factory=dict)
    own: set[str] = field(default_factory=set)
    widgets: dict[str, Type] = field(default_factory=dict)

    def read(self, tree: ast.Module) -> None:
        """Take in one file."""
        for node, scope in walk(tree, Scope(self, tree)):
            self._readNode(node, scope)

    def _readNode(self, node: ast.AST, scope: Scope) -> None:
        if isinstance(node, ast.ClassDef):
            self.own.add(node.name)
        elif isinstance(node, ast.FunctionDef):
            said = scope.annotated(node.returns)
            known = self.returns.setdefault(node.name, said)
            self.returns[node.name] = said if known == said else UNKNOWN
            if any(isinstance(each, ast.Name) and each.id == "property" for each in node.decorator_list):
                self.fields[scope.owner, node.name] = said
        elif isinstance(node, ast.AnnAssign | ast.Assign):
            targets = [node.target] if isinstance(node, ast.AnnAssign) else node.targets
            for target in targets:
                self._readTarget(target, node, scope)

    def _readTarget(self, target: ast.expr, node: ast.AnnAssign | ast.Assign, scope: Scope) -> None:
        said = scope.annotated(node.annotation) if isinstance(node, ast.AnnAssign) else UNKNOWN
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            for one, value in zip(target.elts, node.value.elts, strict=False):
                self._keep(one, scope.typeOf(value), scope)
        elif isinstance(target, ast.Name) and isinstance(scope.node, ast.ClassDef):
            self.fields[scope.node.name, target.id] = said
        else:
            self._keep(target, said or scope.typeOf(node.value), scope)

    def _keep(self, target: ast.expr, said: Type, scope: Scope) -> None:
        if not isinstance(target, ast.Attribute):
            return
        holder = scope.typeOf(target.value)
        if "ui" in holder:
            self.widgets[target.attr] = self.widgets.get(target.attr, UNKNOWN) | said
        elif f"own:{scope.owner}" in holder:
            known = self.fields.get((scope.owner, target.attr))
            self.fields[scope.owner, target.attr] = said if known is None or known == said else known | said


class Scope:
    """A file, class, function or loop, and what its names stand for. Two loops may use one name for different things."""

    def __init__(self, project: Project, node: ast.AST, outer: Scope | None = None) -> None:
        self.project, self.node, self.outer = project, node, outer
        self.owner: str = node.name if isinstance(node, ast.ClassDef) else outer.owner if outer else ""
        self._found: dict[str, list[Type | ast.expr | tuple[ast.expr, int | None]]] = {}
        self._asked: set[str] = set()
        self._known: dict[str, Type] = {}
        if isinstance(node, ast.For):
            self._readLoop(node.target, node.iter)
            return
        if isinstance(node, _FUNCTIONS):
            self._readArguments(node)
        body = node.body if isinstance(node.body, list) else [node.body]
        for each in (one for statement in body for one in _within(statement)):
            self._readBinding(each)

    # Which names there are

    def _add(self, name: str, said: Type | ast.expr | tuple[ast.expr, int | None]) -> None:
        self._found.setdefault(name, []).append(said)

    def _readArguments(self, node: ast.FunctionDef | ast.Lambda) -> None:
        arguments = node.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        for place, each in enumerate(every):
            isSelf = place == 0 and each.arg == "self" and isinstance(self.outer.node, ast.ClassDef)
            self._add(each.arg, frozenset([f"own:{self.owner}"]) if isSelf else self.annotated(each.annotation))
        for each in (arguments.vararg, arguments.kwarg):
            if each is not None:
                self._add(each.arg, UNKNOWN)

    def _readBinding(self, node: ast.AST) -> None:
        if isinstance(node, ast.Import | ast.ImportFrom):
            self._readImport(node)
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                self._readTarget(target, node.value)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            self._add(node.target.id, self.annotated(node.annotation) or node.value or UNKNOWN)
        elif isinstance(node, ast.NamedExpr):
            self._add(node.target.id, node.value)
        elif isinstance(node, ast.For | ast.comprehension):
            self._readLoop(node.target, node.iter)
        elif isinstance(node, ast.With):
            for name in (one for item in node.items if item.optional_vars for one in _namesIn(item.optional_vars)):
                self._add(name, UNKNOWN)
        elif isinstance(node, ast.ClassDef):
            self._add(node.name, frozenset([f"ownclass:{node.name}"]))
        elif isinstance(node, ast.FunctionDef):
            self._add(node.name, frozenset(["other"]))

    def _readImport(self, node: ast.Import | ast.ImportFrom) -> None:
        for alias in node.names:
            head = alias.name.split(".")[0]
            whole = alias.name if alias.asname else head
            if isinstance(node, ast.ImportFrom):
                self._add(alias.asname or alias.name, self._imported(node, alias.name))
            else:
                self._add(alias.asname or head, frozenset([f"module:{whole}" if head in _SLICERS else "other"]))

    def _readTarget(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Name):
            self._add(target.id, value)
        elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
            for one, said in zip(target.elts, value.elts, strict=True):
                self._readTarget(one, said)
        else:
            for name in _namesIn(target):
                self._add(name, UNKNOWN)

    def _readLoop(self, target: ast.expr, over: ast.expr) -> None:
        if isinstance(target, ast.Name):
            self._add(target.id, (over, None))
        elif isinstance(target, ast.Tuple) and all(isinstance(each, ast.Name) for each in target.elts):
            for place, each in enumerate(target.elts):
                self._add(each.id, (over, place))
        else:
            for name in _namesIn(target):
                self._add(name, UNKNOWN)

    def _imported(self, node: ast.ImportFrom, name: str) -> Type:
        module = node.module or ""
        if node.level or module.split(".")[0] not in (*_SLICERS, "vtkmodules"):
            isOwn = node.level or name in self.project.own
            return frozenset([f"ownclass:{name}"]) if isOwn and name in self.project.own else frozenset(["other"])
        if module.startswith("vtkmodules"):
            return frozenset([f"class:{name}"]) if name.startswith("vtk") else frozenset(["other"])
        return self._ofModule(module, name)

    # What they stand for

    def lookup(self, name: str) -> Type | None:
        """The type of a name; None where nothing binds it."""
        if name not in self._found:
            outer = self.outer
            while outer is not None and isinstance(outer.node, ast.ClassDef):
                outer = outer.outer
            return outer.lookup(name) if outer is not None else None
        if name in self._asked:
            return UNKNOWN
        if name in self._known:
            return self._known[name]
        self._asked.add(name)
        try:
            types = [self._resolved(each) for each in self._found[name] if not _isNone(each)]
        finally:
            self._asked.discard(name)
        said = frozenset().union(*types) if all(types) else UNKNOWN
        if said:
            self._known[name] = said
        return said

    def _resolved(self, said: Type | ast.expr | tuple[ast.expr, int | None]) -> Type:
        if isinstance(said, frozenset):
            return said
        return self._element(*said) if isinstance(said, tuple) else self.typeOf(said)

    def _element(self, over: ast.expr, place: int | None) -> Type:
        """What a loop gives, or a place of it."""
        items = over.func.value if _isItems(over) else over
        if isinstance(items, ast.Dict) and place in (0, 1):
            parts = items.keys if place == 0 else items.values
        elif isinstance(items, ast.Tuple | ast.List):
            parts = items.elts
            if place is not None:
                isEven = all(isinstance(each, ast.Tuple) and len(each.elts) > place for each in parts)
                parts = [each.elts[place] for each in parts] if isEven else []
        else:
            several = self.typeOf(over) if place is None else UNKNOWN
            return frozenset(each.removeprefix("list:") for each in several if each.startswith("list:"))
        types = [self.typeOf(each) for each in parts]
        return frozenset().union(*types) if types and all(types) else UNKNOWN

    def annotated(self, node: ast.expr | None) -> Type:
        """The type that an annotation says."""
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return self.annotated(ast.parse(node.value, mode="eval").body)
        if isinstance(node, ast.BinOp):
            sides = [self.annotated(each) for each in (node.left, node.right) if not _isNone(each)]
            return frozenset().union(*sides) if all(sides) else UNKNOWN
        if isinstance(node, ast.Subscript):
            outer = ast.unparse(node.value).rpartition(".")[2]
            inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            isEven = outer != "tuple" or (len(inner) == 2 and ast.unparse(inner[1]) == "...")
            return (
                frozenset(f"list:{each}" for each in self.annotated(inner[0]))
                if outer in _SEVERAL and isEven
                else UNKNOWN
            )
        if isinstance(node, ast.Name | ast.Attribute):
            return frozenset(
                each.replace("ownclass:", "own:").removeprefix("class:")
                for each in self.typeOf(node)
                if each.startswith(("class:", "ownclass:"))
            )
        return UNKNOWN

    def typeOf(self, node: ast.AST | None) -> Type:
        """The type of an expression."""
        if isinstance(node, ast.Name):
            found = self.lookup(node.id)
            return frozenset(["ui"]) if node.id == "ui" and not found else found or UNKNOWN
        if isinstance(node, ast.Attribute):
            return self._attribute(node)
        if isinstance(node, ast.Call):
            return self._call(node)
        if isinstance(node, ast.IfExp | ast.BoolOp):
            parts = (node.body, node.orelse) if isinstance(node, ast.IfExp) else node.values
            types = [self.typeOf(each) for each in parts if not _isNone(each)]
            return frozenset().union(*types) if all(types) else UNKNOWN
        if isinstance(node, ast.Subscript):
            several = self.typeOf(node.value)
            isOne = not isinstance(node.slice, ast.Slice)
            return frozenset(
                each.removeprefix("list:") if isOne else each for each in several if each.startswith("list:")
            )
        return UNKNOWN

    def _attribute(self, node: ast.Attribute) -> Type:
        if node.attr in ("ui", "_ui"):
            return frozenset(["ui"])
        found: set[str] = set()
        for each in self.typeOf(node.value):
            kind, _colon, name = each.partition(":")
            if each == "ui":
                found |= self.project.widgets.get(node.attr, UNKNOWN)
            elif kind == "module":
                found |= self._ofModule(name, node.attr)
            elif kind == "function":
                found.add(f"function:{name}.{node.attr}")
            elif kind == "own":
                found |= self.project.fields.get((name, node.attr), UNKNOWN)
            elif each == "other":
                found.add("other")
        return frozenset(found)

    def _ofModule(self, module: str, name: str) -> Type:
        names = self.project.names
        if module == "slicer" and ("slicer", name) in names.returns:
            return frozenset([names.returns["slicer", name]])
        if f"{module}.{name}" in names.python or f"{module}.{name}" in names.members:
            return frozenset([f"module:{module}.{name}"])
        if module in ("slicer", "vtk", "qt", "ctk") and names.has(name):
            return frozenset([f"class:{name}"])
        return frozenset([f"function:{module}.{name}"]) if module in names.python else UNKNOWN

    def _call(self, node: ast.Call) -> Type:
        names = self.project.names
        if isinstance(node.func, ast.Attribute) and node.func.attr in _MADE_BY_NAME:
            place = _MADE_BY_NAME[node.func.attr]
            said = node.args[place] if len(node.args) > place else None
            isKnown = isinstance(said, ast.Constant) and names.has(str(said.value))
            return frozenset([said.value]) if isKnown else UNKNOWN
        called = self.typeOf(node.func)
        made = {each.partition(":")[2] for each in called if each.startswith("class:")}
        made |= {each.replace("ownclass:", "own:") for each in called if each.startswith("ownclass:")}
        if made:
            return frozenset(made)
        if isinstance(node.func, ast.Attribute):
            for owner in self.typeOf(node.func.value):
                returned = [names.returns.get((each, node.func.attr)) for each in names.line(owner)]
                made |= {each for each in returned if each}
            if made:
                return frozenset(made)
        word = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        return self.project.returns.get(word, UNKNOWN)


def walk(node: ast.AST, scope: Scope) -> Iterator[tuple[ast.AST, Scope]]:
    """Every node below, with the scope it stands in."""
    # A stack: passed on through a generator for each level, a node costs as much as it lies deep.
    below = [(ast.iter_child_nodes(node), scope)]
    while below:
        children, scope = below[-1]
        child = next(children, None)
        if child is None:
            below.pop()
            continue
        yield child, scope
        isScope = isinstance(child, _SCOPES)
        below.append((ast.iter_child_nodes(child), Scope(scope.project, child, scope) if isScope else scope))


def _within(node: ast.AST) -> Iterator[ast.AST]:
    """A node and what is below it, without the inside of functions and classes."""
    below = [node]
    while below:
        one = below.pop()
        yield one
        if not isinstance(one, _CLOSED):
            below += reversed(list(ast.iter_child_nodes(one)))


def _namesIn(target: ast.expr) -> list[str]:
    return [each.id for each in ast.walk(target) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)]


def _isNone(node: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _isItems(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "items"
