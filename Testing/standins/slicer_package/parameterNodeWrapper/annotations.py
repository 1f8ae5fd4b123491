"""What may stand in ``Annotated[type, …]``: defaults, checks of the value, hints for widgets."""

from __future__ import annotations

import abc
import typing
from collections.abc import Callable, Collection
from dataclasses import dataclass


class Default:
    """The value where nothing has been set yet; ``generator`` makes it anew each time."""

    def __init__(self, value: object = None, *, generator: Callable[[], object] | None = None) -> None:
        self._value, self._generator = value, generator

    @property
    def value(self) -> object:
        return self._value if self._generator is None else self._generator()

    def __eq__(self, other: object) -> bool:
        isSame = isinstance(other, Default) and self._generator == other._generator
        return isSame and self._value == other._value

    __hash__ = None


@dataclass
class Decimals:
    """How many decimals a widget shows."""

    value: int


@dataclass
class SingleStep:
    """What one press of an arrow changes."""

    value: float


class Validator(abc.ABC):
    """A check of every value before it is written."""

    @abc.abstractmethod
    def validate(self, value: object) -> None:
        """Raise if the value can't be."""


class NotNone(Validator):
    def validate(self, value: object) -> None:
        if value is None:
            msg = "Value must not be None"
            raise ValueError(msg)


@dataclass(eq=False)
class IsInstance(Validator):
    classtype: type | tuple[type, ...]

    def validate(self, value: object) -> None:
        if value is not None and not isinstance(value, self.classtype):
            msg = f"Value must be of type '{self.classtype}', is type '{type(value)}' value '{value}'"
            raise TypeError(msg)


@dataclass(eq=False)
class WithinRange(Validator):
    """Both limits are allowed."""

    minimum: float
    maximum: float

    def validate(self, value: float) -> None:
        if not self.minimum <= value <= self.maximum:
            msg = f"Value must be within range [{self.minimum}, {self.maximum}], is {value}"
            raise ValueError(msg)


@dataclass(eq=False)
class Minimum(Validator):
    minimum: float

    def validate(self, value: float) -> None:
        if value < self.minimum:
            msg = f"Value must be greater than {self.minimum}, is {value}"
            raise ValueError(msg)


@dataclass(eq=False)
class Maximum(Validator):
    maximum: float

    def validate(self, value: float) -> None:
        if value > self.maximum:
            msg = f"Value must be greater than {self.maximum}, is {value}"
            raise ValueError(msg)


@dataclass(eq=False)
class Choice(Validator):
    choices: Collection[object]

    def validate(self, value: object) -> None:
        if value not in self.choices:
            msg = f"Value is {value}, but must be in one of the following: {self.choices}"
            raise ValueError(msg)


@dataclass(eq=False)
class Exclude(Validator):
    excludedValues: Collection[object]

    def validate(self, value: object) -> None:
        if value in self.excludedValues:
            msg = f"Value is {value}, but must not be an excluded value: excluded values {self.excludedValues}"
            raise ValueError(msg)


@dataclass(eq=False)
class RangeBounds(Validator):
    minimum: float
    maximum: float

    def validate(self, value: object) -> None:
        if not (self.minimum <= value.minimum and value.maximum <= self.maximum):
            msg = (
                f"Range must be within the bound of [{self.minimum}, {self.maximum}], "
                f"is [{value.minimum}, {value.maximum}]"
            )
            raise ValueError(msg)


def split(annotated: object) -> tuple[object, list[object]]:
    """The type itself, and what was annotated; a checker given as a class is made one."""
    if typing.get_origin(annotated) is not typing.Annotated:
        return annotated, []
    plain, *notes = typing.get_args(annotated)
    return plain, [note() if isinstance(note, type) and issubclass(note, Validator) else note for note in notes]


def first(notes: list[object], kind: type) -> object | None:
    """The first annotation of a kind."""
    return next((note for note in notes if isinstance(note, kind)), None)
