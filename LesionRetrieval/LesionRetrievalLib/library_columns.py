"""The attributes of all cases, one column each, so that a filter by them costs no more than one by label."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .library_filter import Range
from .library_schema import Scalar


@dataclass(frozen=True, eq=False)
class AttributeColumn:
    """One attribute of all cases.

    ``places`` maps (is a bool, value) to the numbers of the cases that have it: True == 1 in Python, but a yes is no
    number here. ``numbers`` has shape (cases,), NaN where the case has no number.
    """

    places: dict[tuple[bool, Scalar], np.ndarray]
    numbers: np.ndarray

    def meets(self, wanted: Scalar | Range) -> np.ndarray:
        """Bool, shape (cases,): which cases have the value, or lie in the range (both ends in, None for an open one)."""
        if not isinstance(wanted, tuple):
            found = np.zeros(len(self.numbers), bool)
            found[self.places.get(_key(wanted), [])] = True
            return found
        low, high = (end if end is not None else sign * np.inf for end, sign in zip(wanted, (-1, 1), strict=True))
        return (self.numbers >= low) & (self.numbers <= high)


def attribute_columns(cases: Sequence[Mapping[str, Scalar]]) -> dict[str, AttributeColumn]:
    """Attribute name -> its column."""
    places: dict[str, dict] = defaultdict(lambda: defaultdict(list))
    numbers: dict[str, np.ndarray] = defaultdict(lambda: np.full(len(cases), np.nan))
    for place, attributes in enumerate(cases):
        for name, value in attributes.items():
            places[name][_key(value)].append(place)
            if isinstance(value, int | float) and not isinstance(value, bool):
                numbers[name][place] = value
    return {
        name: AttributeColumn({key: np.array(found) for key, found in values.items()}, numbers[name])
        for name, values in places.items()
    }


def _key(value: Scalar) -> tuple[bool, Scalar]:
    return isinstance(value, bool), value
