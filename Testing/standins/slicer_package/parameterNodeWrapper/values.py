"""How a single value is kept in a parameter node, in Slicer's own format."""

from __future__ import annotations

import abc
import enum
from collections.abc import Sequence

import slicer

from .annotations import IsInstance, NotNone, Validator


class Serializer(abc.ABC):
    """Reads and writes values of one type. The values of cached ones can't be changed behind the node's back."""

    supportsCaching = True
    kinds: tuple[type, ...] = ()

    def __init__(self, validators: Sequence[Validator] = ()) -> None:
        self.validators = list(validators)

    def validate(self, value: object) -> None:
        """Raise if the value can't be written."""
        for each in self.validators:
            each.validate(value)

    def write(self, node: slicer.vtkMRMLScriptedModuleNode, name: str, value: object) -> None:
        """Check and write."""
        self.validate(value)
        self._write(node, name, value)

    def isIn(self, node: slicer.vtkMRMLScriptedModuleNode, name: str) -> bool:
        """Whether the node has such a value."""
        return bool(node.HasParameter(name))

    def remove(self, node: slicer.vtkMRMLScriptedModuleNode, name: str) -> None:
        """Take the value out of the node."""
        node.UnsetParameter(name)

    def isFor(self, kind: type) -> bool:
        """Whether values of this type are kept in this way; asked where a parameter may be of several types."""
        return issubclass(kind, self.kinds)

    @abc.abstractmethod
    def default(self) -> object:
        """The value where no other default is given."""

    @abc.abstractmethod
    def read(self, node: slicer.vtkMRMLScriptedModuleNode, name: str) -> object:
        """Read it."""

    @abc.abstractmethod
    def _write(self, node: slicer.vtkMRMLScriptedModuleNode, name: str, value: object) -> None: ...


class TextSerializer(Serializer):
    """One parameter with ``str(value)``: int, float, str, paths."""

    def __init__(self, kind: type) -> None:
        super().__init__([NotNone(), IsInstance((int, float) if kind is float else kind)])
        self._kind = kind
        self.kinds = (int, float) if kind in (int, float) else (kind,)

    def isFor(self, kind):
        return kind is not bool and super().isFor(kind)

    def default(self) -> object:
        # Slicer's default of a float is the int 0, read back as a float.
        return 0 if self._kind in (int, float) else self._kind()

    def read(self, node, name):
        return self._kind(node.GetParameter(name))

    def _write(self, node, name, value):
        node.SetParameter(name, str(value))


class BoolSerializer(Serializer):
    """``True`` or ``False``."""

    kinds = (bool,)

    def __init__(self) -> None:
        super().__init__([NotNone(), IsInstance(bool)])

    def default(self) -> bool:
        return False

    def read(self, node, name):
        return node.GetParameter(name) == "True"

    def _write(self, node, name, value):
        node.SetParameter(name, "True" if value else "False")


class EnumSerializer(Serializer):
    """The member's name."""

    kinds = (enum.Enum,)

    def __init__(self, kind: type[enum.Enum]) -> None:
        super().__init__([IsInstance(kind)])
        self._kind = kind

    def default(self) -> enum.Enum:
        return next(iter(self._kind))

    def read(self, node, name):
        key = node.GetParameter(name)
        if key not in self._kind.__members__:
            msg = f"Found {key!r} in the parameter node, but it is not a name in {self._kind!r}"
            raise ValueError(msg)
        return self._kind[key]

    def _write(self, node, name, value):
        node.SetParameter(name, value.name)


class NodeSerializer(Serializer):
    """A node reference of this role; an empty parameter says that there is one, if only to None."""

    kinds = (slicer.vtkMRMLNode,)

    def __init__(self, kind: type) -> None:
        super().__init__([IsInstance(kind)])

    def default(self) -> None:
        return None

    def read(self, node, name):
        return node.GetNodeReference(name)

    def remove(self, node, name):
        node.UnsetParameter(name)
        node.RemoveNodeReferenceIDs(name)

    def _write(self, node, name, value):
        node.SetParameter(name, "")
        node.SetNodeReferenceID(name, None if value is None else value.GetID())


class NoneSerializer(Serializer):
    """Only None, for a type or nothing."""

    kinds = (type(None),)

    def __init__(self) -> None:
        super().__init__([IsInstance(type(None))])

    def default(self) -> None:
        return None

    def read(self, node, name):
        return None

    def _write(self, node, name, value):
        node.SetParameter(name, "True")
