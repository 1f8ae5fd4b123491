"""Whose CT it is, from DICOM elements, and a guard against a patient's name, number or dates in the texts of a case."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from LesionLib.errors import CaseLibraryError

from .library_schema import Case
from .pseudonyms import Pseudonymiser

_FEWEST_LETTERS, _FEWEST_DIGITS = 2, 4
_DATE = re.compile(r"(\d{4})(\d{2})(\d{2})")

_PATIENT, _STUDY = "PatientID", "StudyInstanceUID"
# Keyword -> group,element of everything that tells whose a CT is. UIDs are refused in every text without being asked for.
IDENTIFYING_ELEMENTS = {
    "PatientName": "0010,0010",
    _PATIENT: "0010,0020",
    "OtherPatientIDs": "0010,1000",
    "OtherPatientNames": "0010,1001",
    "PatientBirthDate": "0010,0030",
    "PatientBirthName": "0010,1005",
    "PatientMotherBirthName": "0010,1060",
    "PatientAddress": "0010,1040",
    "PatientTelephoneNumbers": "0010,2154",
    "AccessionNumber": "0008,0050",
    "StudyID": "0020,0010",
    "StudyDate": "0008,0020",
    "SeriesDate": "0008,0021",
    "AcquisitionDate": "0008,0022",
    "ContentDate": "0008,0023",
    "InstitutionName": "0008,0080",
    "ReferringPhysicianName": "0008,0090",
    "OperatorsName": "0008,1070",
    _STUDY: "0020,000d",
}


@dataclass(frozen=True)
class PatientIdentity:
    """Whose a CT is. It lives in memory only, and is left out of ``repr``: a library gets hashes, a scene nothing.

    ``patient`` and ``study``: the identifiers, "" where not known. ``texts``: what must not be in a case's texts.
    """

    patient: str = field(default="", repr=False)
    study: str = field(default="", repr=False)
    texts: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def of_elements(cls, elements: Mapping[str, Iterable[str]]) -> PatientIdentity:
        """From the values of `IDENTIFYING_ELEMENTS` by keyword; some may be missing, one may have several values."""
        values = {
            name: [bare for value in several if (bare := value.strip(" \0"))] for name, several in elements.items()
        }
        texts = tuple(value for name, several in values.items() if name != _STUDY for value in several)
        return cls(*("".join(values.get(name, ())[:1]) for name in (_PATIENT, _STUDY)), texts)

    @property
    def is_known(self) -> bool:
        """Whether cases of the same patient can be told."""
        return bool(self.patient)

    def require(self) -> None:
        """Refuse a CT of nobody (`CaseLibraryError`)."""
        if not self.is_known:
            msg = (
                "The CT does not say which patient it is of; type any identifier that is the same for all CTs of the "
                "patient. Only its hash is stored."
            )
            raise CaseLibraryError(msg)

    def hashes(self, key: Pseudonymiser) -> tuple[str, str]:
        """Patient and study hash, see `Pseudonymiser.hashes`. Raises `CaseLibraryError` where the patient is not known."""
        self.require()
        return key.hashes(self.patient, self.study)


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
