"""``NAME=VALUE`` on the command line: attributes of a case, and conditions on them."""

from __future__ import annotations

from collections.abc import Sequence

from LesionLib.errors import CaseLibraryError
from LesionRetrievalLib.library_filter import Range
from LesionRetrievalLib.library_schema import Scalar

_RANGE = ".."


def attributes_from(texts: Sequence[str]) -> dict[str, Scalar]:
    """``size=12.5`` is a number, ``contrast=true`` yes or no, anything else text. Raises `CaseLibraryError`."""
    pairs = [_pair(text) for text in texts]
    if len(dict(pairs)) < len(pairs):
        msg = "An attribute is given twice; give every name once."
        raise CaseLibraryError(msg)
    return {name: _scalar(value) for name, value in pairs}


def conditions_from(texts: Sequence[str]) -> dict[str, Scalar | Range]:
    """As `attributes_from`; ``size=5..20``, ``size=5..`` and ``size=..20`` are ranges with both ends in."""
    found: dict[str, Scalar | Range] = {}
    for name, value in attributes_from(texts).items():
        found[name] = _range(name, value) if isinstance(value, str) and _RANGE in value else value
    return found


def _pair(text: str) -> tuple[str, str]:
    name, sign, value = (part.strip() for part in text.partition("="))
    if not (name and sign):
        msg = f"--attribute is {text!r}; write NAME=VALUE."
        raise CaseLibraryError(msg)
    return name, value


def _scalar(value: str) -> Scalar:
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    try:
        return float(value)
    except ValueError:
        return value


def _range(name: str, value: str) -> Range:
    ends = [_scalar(end) if end else None for end in value.split(_RANGE, 1)]
    if ends == [None, None] or any(isinstance(end, str | bool) for end in ends):
        msg = (
            f"--attribute {name}={value} is no range; write {name}=LOW..HIGH with numbers, one of them may be left out."
        )
        raise CaseLibraryError(msg)
    return (ends[0], ends[1])
