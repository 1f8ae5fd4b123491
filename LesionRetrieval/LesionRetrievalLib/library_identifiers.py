"""A guard against what people type: a patient's name, number or dates in the free text of a case."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from LesionLib.errors import CaseLibraryError

from .library_schema import Case

_FEWEST_LETTERS, _FEWEST_DIGITS = 2, 4
_DATE = re.compile(r"(\d{4})(\d{2})(\d{2})")


def require_anonymous(case: Case, identifiers: Iterable[str]) -> Case:
    """Return the case; `CaseLibraryError` if one of ``identifiers`` stands in a text of it, without repeating which.

    ``identifiers`` are values of DICOM elements of the same patient: names (``Doe^Jane``: each part counts), numbers,
    dates (``19700102``: as usually written, too). Whole words only, in capitals or not.
    """
    wanted = {_plain(form) for value in identifiers for form in _forms(value) if _tells(form)}
    if not wanted:
        return case
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, sorted(wanted, key=len, reverse=True)))})(?!\w)")
    for name, text in _texts(case):
        if pattern.search(_plain(text)):
            msg = f"The {name} holds a name, number or date of the patient; write it without, nothing was added."
            raise CaseLibraryError(msg)
    return case


def _plain(text: str) -> str:
    # To a pattern of whole words an underscore is a letter; to people it is a space.
    return text.casefold().replace("_", " ")


def _tells(form: str) -> bool:
    """Whether it tells somebody from others: "7" may be a patient's number, and is many other things."""
    return len(form) >= (_FEWEST_DIGITS if form.isdigit() else _FEWEST_LETTERS)


def _texts(case: Case) -> Iterator[tuple[str, str]]:
    for name in ("case_id", "label", "label_source", "organ", "note"):
        yield name, getattr(case, name)
    for key, value in case.attributes.items():
        yield "name or value of an attribute", f"{key} {value if isinstance(value, str) else ''}"
        # A number may be an identifier, too: 4711.0 is what became of 4711.
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield "value of an attribute", f"{value:.0f}"


def _forms(value: str) -> Iterator[str]:
    bare = value.strip(" \0")
    yield bare
    if "^" in bare or "=" in bare:
        yield from (part.strip() for part in re.split(r"[\^=\s]+", bare))
    date = _DATE.fullmatch(bare)
    if date:
        year, month, day = date.groups()
        for parts in ((year, month, day), (day, month, year), (month, day, year)):
            yield from (sign.join(parts) for sign in "-./")
            yield from (sign.join(part.lstrip("0") for part in parts) for sign in "-./")
