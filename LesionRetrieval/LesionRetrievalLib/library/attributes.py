"""Attributes as people type them: ``name=value``, one a line or set apart by commas; and conditions on them.

What a model said of a case when it was added are attributes, too, told apart by their names: ``predicted_lobulation=3.2`` and
``prediction_of=lung-nodule-description 1.0.0``. No person's attribute has such a name, and all can be searched by.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from LesionLib.errors import CaseLibraryError
from LesionLib.inference.results import abstention_codes

from LesionRetrievalLib.library.cases import Scalar
from LesionRetrievalLib.library.search.filters import Range

PREDICTED, PREDICTION_OF = "predicted_", "prediction_of"
_RANGE = ".."


def predicted_attributes(scores: Mapping[str, float], *, model: str, warnings: Sequence[str]) -> dict[str, Scalar]:
    """What a case keeps of the ``scores`` that ``model`` (name and version) gave it, to two digits; by which model, too.

    Empty for a model without scores, and where one of the ``warnings`` says that it has no answer.
    """
    if not scores or abstention_codes(warnings):
        return {}
    return {**{PREDICTED + name: round(float(value), 2) for name, value in scores.items()}, PREDICTION_OF: model}


def is_predicted(name: str) -> bool:
    """Whether an attribute of this name is what a model said, not a person."""
    return name.startswith(PREDICTED) or name == PREDICTION_OF


def require_not_predicted(names: Iterable[str]) -> None:
    """Refuse attributes that people give under the names of a model's (`CaseLibraryError`)."""
    taken = next(filter(is_predicted, names), None)
    if taken is not None:
        msg = f"The attribute {taken!r} has a name that is kept for what a model says of a case; give it another name."
        raise CaseLibraryError(msg)


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
    """``size 12.5 · contrast yes``, to be read on a card; what a model said comes last: ``lobulation (predicted) 3.2``."""
    return " · ".join(
        f"{shown_name(name)} {_shown(value)}" for name, value in _given_first(attributes) if value not in (None, "")
    )


def attribute_pairs(attributes: Mapping[str, Scalar]) -> list[tuple[str, str]]:
    """Name and value as a page shows them, what a model said last; attributes without a value are left out."""
    return [
        (shown_name(name).replace("_", " "), f"{value:g}" if isinstance(value, float) else str(value))
        for name, value in _given_first(attributes)
        if value is not None
    ]


def _given_first(attributes: Mapping[str, Scalar]) -> list[tuple[str, Scalar]]:
    return sorted(attributes.items(), key=lambda pair: is_predicted(pair[0]))


def shown_name(name: str) -> str:
    """The name as people read it: of an attribute that a model gave, that it did."""
    if name == PREDICTION_OF:
        return "predicted by"
    return f"{name.removeprefix(PREDICTED)} (predicted)" if name.startswith(PREDICTED) else name


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
