"""Lists and dicts read from a parameter node: a change to them is written back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping, MutableSequence
from typing import NoReturn


class ObservedList(MutableSequence):
    """What reading a list parameter gives. ``+`` and ``*`` make lists that nobody watches, so they are refused."""

    def __init__(self, values: list, save: Callable[[list], list]) -> None:
        self._values, self._save = values, save

    def __repr__(self) -> str:
        return f"ObservedList({self._values})"

    def __eq__(self, other: object) -> bool:
        return self._values == (other._values if isinstance(other, ObservedList) else other)

    __hash__ = None

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, place):
        return self._values[place]

    def __setitem__(self, place, value) -> None:
        changed = list(self._values)
        changed[place] = value
        self._replace(changed)

    def __delitem__(self, place) -> None:
        changed = list(self._values)
        del changed[place]
        self._replace(changed)

    def insert(self, index: int, value: object) -> None:
        """Insert one value."""
        changed = list(self._values)
        changed.insert(index, value)
        self._replace(changed)

    def extend(self, values) -> None:
        """Append several values in one change."""
        self._replace([*self._values, *values])

    def clear(self) -> None:
        """Remove all values in one change."""
        self._replace([])

    def reverse(self) -> None:
        """Turn the order round in one change."""
        self._replace(self._values[::-1])

    def sort(self, *, key=None, reverse: bool = False) -> None:
        """Sort in one change."""
        self._replace(sorted(self._values, key=key, reverse=reverse))

    def __iadd__(self, values):
        self.extend(values)
        return self

    def __imul__(self, count: int):
        self._replace(self._values * count)
        return self

    def _refuse(self, _other: object) -> NoReturn:
        msg = "An ObservedList is changed in place: use += or *=, or list(...) for a copy."
        raise NotImplementedError(msg)

    __add__ = __radd__ = __mul__ = __rmul__ = _refuse

    def _replace(self, values: list) -> None:
        # Read back: a list inside a list is watched too.
        self._values = self._save(values)


class ObservedDict(MutableMapping):
    """What reading a dict parameter gives."""

    def __init__(self, values: dict, save: Callable[[dict], dict]) -> None:
        self._values, self._save = values, save

    def __repr__(self) -> str:
        return f"ObservedDict({self._values})"

    def __eq__(self, other: object) -> bool:
        return self._values == (other._values if isinstance(other, ObservedDict) else other)

    __hash__ = None

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator:
        return iter(self._values)

    def __getitem__(self, key):
        return self._values[key]

    def __setitem__(self, key, value) -> None:
        self._replace({**self._values, key: value})

    def __delitem__(self, key) -> None:
        changed = dict(self._values)
        del changed[key]
        self._replace(changed)

    def clear(self) -> None:
        """Remove all values in one change."""
        self._replace({})

    def popitem(self) -> tuple:
        """Remove the pair that came last, as a dict does, and return it."""
        changed = dict(self._values)
        pair = changed.popitem()
        self._replace(changed)
        return pair

    def _replace(self, values: dict) -> None:
        # Read back: a list inside a list is watched too.
        self._values = self._save(values)
