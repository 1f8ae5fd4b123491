"""How several values, or one of several types, are kept in a parameter node, in Slicer's own format."""

from __future__ import annotations

from collections.abc import Sequence

import slicer

from .annotations import NotNone
from .observed import ObservedDict, ObservedList
from .values import NoneSerializer, Serializer


class ListSerializer(Serializer):
    """``name.len`` and one value a place: ``name.0``, ``name.1``, …"""

    kinds = (list, ObservedList)

    def __init__(self, item: Serializer) -> None:
        super().__init__([NotNone()])
        self._item = item
        self.supportsCaching = item.supportsCaching

    def default(self) -> list:
        return []

    def isIn(self, node, name):
        return bool(node.HasParameter(f"{name}.len"))

    def read(self, node, name):
        def save(values: list) -> list:
            self.write(node, name, values)
            return self._values(node, name)

        return ObservedList(self._values(node, name), save)

    def remove(self, node, name):
        with slicer.util.NodeModify(node):
            for place in range(self._length(node, name)):
                self._item.remove(node, f"{name}.{place}")
            node.UnsetParameter(f"{name}.len")

    def _write(self, node, name, value):
        values = list(value)
        for each in values:
            self._item.validate(each)
        with slicer.util.NodeModify(node):
            for place in range(len(values), self._length(node, name)):
                self._item.remove(node, f"{name}.{place}")
            node.SetParameter(f"{name}.len", str(len(values)))
            for place, each in enumerate(values):
                self._item.write(node, f"{name}.{place}", each)

    def _values(self, node, name) -> list:
        return [self._item.read(node, f"{name}.{place}") for place in range(self._length(node, name))]

    def _length(self, node, name) -> int:
        return int(node.GetParameter(f"{name}.len") or 0)


class TupleSerializer(Serializer):
    """One value a place, each of its own type: ``name.0``, ``name.1``, …"""

    kinds = (tuple,)

    def __init__(self, items: Sequence[Serializer]) -> None:
        super().__init__([NotNone()])
        self._items = list(items)
        self.supportsCaching = all(item.supportsCaching for item in items)

    def default(self) -> tuple:
        return tuple(item.default() for item in self._items)

    def validate(self, value):
        super().validate(value)
        if len(value) != len(self._items):
            msg = f"Value must have {len(self._items)} parts, has {len(value)}: {value!r}"
            raise ValueError(msg)
        for item, each in zip(self._items, value, strict=True):
            item.validate(each)

    def isIn(self, node, name):
        return all(item.isIn(node, f"{name}.{place}") for place, item in enumerate(self._items))

    def read(self, node, name):
        return tuple(item.read(node, f"{name}.{place}") for place, item in enumerate(self._items))

    def remove(self, node, name):
        with slicer.util.NodeModify(node):
            for place, item in enumerate(self._items):
                item.remove(node, f"{name}.{place}")

    def _write(self, node, name, value):
        with slicer.util.NodeModify(node):
            for place, (item, each) in enumerate(zip(self._items, value, strict=True)):
                item.write(node, f"{name}.{place}", each)


class DictSerializer(Serializer):
    """A list of pairs, which keeps the order."""

    kinds = (dict, ObservedDict)

    def __init__(self, key: Serializer, value: Serializer) -> None:
        super().__init__([NotNone()])
        self._pairs = ListSerializer(TupleSerializer([key, value]))
        self.supportsCaching = self._pairs.supportsCaching

    def default(self) -> dict:
        return {}

    def isIn(self, node, name):
        return self._pairs.isIn(node, name)

    def read(self, node, name):
        def save(values: dict) -> dict:
            self.write(node, name, values)
            return dict(self._pairs._values(node, name))

        return ObservedDict(dict(self._pairs._values(node, name)), save)

    def remove(self, node, name):
        self._pairs.remove(node, name)

    def _write(self, node, name, value):
        self._pairs.write(node, name, list(value.items()))


class UnionSerializer(Serializer):
    """One of several types, as ``name.<place of the type>``."""

    def __init__(self, items: Sequence[Serializer]) -> None:
        super().__init__()
        self._items = list(items)
        self.supportsCaching = all(item.supportsCaching for item in items)

    def default(self) -> object:
        # X | None begins as None, as in Slicer.
        isOptional = len(self._items) == 2 and isinstance(self._items[1], NoneSerializer)
        return None if isOptional else self._items[0].default()

    def validate(self, value):
        super().validate(value)
        self._place(value)

    def isIn(self, node, name):
        return any(item.isIn(node, f"{name}.{place}") for place, item in enumerate(self._items))

    def read(self, node, name):
        for place, item in enumerate(self._items):
            if item.isIn(node, f"{name}.{place}"):
                return item.read(node, f"{name}.{place}")
        raise KeyError(name)

    def remove(self, node, name):
        with slicer.util.NodeModify(node):
            for place, item in enumerate(self._items):
                item.remove(node, f"{name}.{place}")

    def _write(self, node, name, value):
        place = self._place(value)
        with slicer.util.NodeModify(node):
            self.remove(node, name)
            self._items[place].write(node, f"{name}.{place}", value)

    def _place(self, value: object) -> int:
        """The first type that takes the value; a bool is no int here."""
        refusals = []
        for place, item in enumerate(self._items):
            if not item.isFor(type(value)):
                continue
            try:
                item.validate(value)
            except (ValueError, TypeError) as error:
                refusals.append(error)
                continue
            return place
        if refusals:
            raise refusals[-1]
        msg = f"Unable to write {value!r} of type {type(value)}: none of the types of this parameter takes it"
        raise TypeError(msg)
