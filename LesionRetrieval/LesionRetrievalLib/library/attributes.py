"""Attributes as people type them: ``name=value``, one a line or set apart by commas; and conditions on them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from LesionLib.errors import CaseLibraryError

from LesionRetrievalLib.library.cases import Scalar
from LesionRetrievalLib.library.search import Range

_RANGE = ".."


def attributes_from_text(text: str) -> dict[str, Scalar]:
    """``size=12.5`` is a number, ``contrast=true`` yes or no, anything else text; one a line. `CaseLibraryError`."""
    return attributes_from(text.splitlines())


def attributes_from(lines: Sequence[str]) -> dict[str, Scalar]:
    """The same from one ``name=value`` each."""
    return _pairs(lines)


def conditions_from_text(text: str) -> dict[str, Scalar | Range]:
    """As `attributes_from_text`, with commas between; ``size=5..20``, ``size=5..`` and ``size=..20`` hold both ends."""
    return conditions_from(re.split(r"[,;\n]", text))


def conditions_from(lines: Sequence[str]) -> dict[str, Scalar | Range]:
    """The same from one condition each."""
    found: dict[str, Scalar | Range] = {}
    for name, value in _pairs(lines).items():
        found[name] = _range(name, value) if isinstance(value, str) and _RANGE in value else value
    return found


def attributes_text(attributes: Mapping[str, Scalar]) -> str:
    """``size 12.5 · contrast yes``, to be read on a card."""
    return " · ".join(f"{name} {_shown(value)}" for name, value in attributes.items() if value not in (None, ""))


def attribute_pairs(attributes: Mapping[str, Scalar]) -> list[tuple[str, str]]:
    """Name and value as a page shows them; attributes without a value are left out."""
    return [
        (name.replace("_", " "), f"{value:g}" if isinstance(value, float) else str(value))
        for name, value in attributes.items()
        if value is not None
    ]


def _pairs(lines: Sequence[str]) -> dict[str, Scalar]:
    found: dict[str, Scalar] = {}
    for line in filter(str.strip, lines):
        name, sign, value = (part.strip() for part in line.partition("="))
        if not (name and sign):
            msg = f"{line.strip()!r} is no attribute; write name=value, as in size=12.5."
            raise CaseLibraryError(msg)
        if name in found:
            msg = f"The attribute {name!r} is given twice; give every name once."
            raise CaseLibraryError(msg)
        found[name] = _scalar(value)
    return found


def _scalar(value: str) -> Scalar:
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    try:
        return float(value)
    except ValueError:
        return value


def _range(name: str, value: str) -> Range:
    ends = [_scalar(end.strip()) if end.strip() else None for end in value.split(_RANGE, 1)]
    if ends == [None, None] or any(isinstance(end, str | bool) for end in ends):
        msg = f"{name}={value} is no range; write {name}=5..20 with numbers, one of which may be left out."
        raise CaseLibraryError(msg)
    return (ends[0], ends[1])


def _shown(value: Scalar) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, int | float) else str(value)
