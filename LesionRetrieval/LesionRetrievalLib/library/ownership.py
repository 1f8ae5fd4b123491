"""Which key a library knows its patients by, and what a search has to say where it cannot tell them.

A library notes the fingerprint of the key that made its hashes. A patient is the same one under the same key only: with
another, the own cases of a patient would be shown as somebody else's, and nobody would notice.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from LesionLib.errors import CaseLibraryError

from LesionRetrievalLib.library.cases import CaseStore
from LesionRetrievalLib.library.pseudonyms import (
    Pseudonym,
    Pseudonymiser,
    default_key_path,
    forms_of,
    is_pseudonym,
    key_if_there,
    pseudonymisation_key,
)

KEY_PROPERTY = "keyFingerprint"
_SHOWN = 8


class KeyState(StrEnum):
    """What a key is to a library."""

    OWN = "own"
    FOREIGN = "foreign"
    UNKNOWN = "unknown"  # a library of version 0.1 does not say which key it was made with
    NONE = "none"  # there is no key here


def key_of(library: CaseStore) -> str | None:
    """The fingerprint of the library's key; None where it does not say. Raises `CaseLibraryError` for a damaged one."""
    fingerprint = library.properties().get(KEY_PROPERTY)
    if fingerprint is not None and not is_pseudonym(fingerprint):
        msg = "What the library says of its key is damaged; restore the library from a copy."
        raise CaseLibraryError(msg)
    return fingerprint


def key_state(library: CaseStore, key: Pseudonymiser | None) -> KeyState:
    """Whether ``key`` made the library's hashes. Raises `CaseLibraryError`."""
    if key is None:
        return KeyState.NONE
    fingerprint = key_of(library)
    if fingerprint is None:
        return KeyState.UNKNOWN
    return KeyState.OWN if fingerprint == key.fingerprint else KeyState.FOREIGN


def require_key(library: CaseStore, key: Pseudonymiser) -> None:
    """Refuse a key that is not the library's (`CaseLibraryError`)."""
    if key_state(library, key) is KeyState.FOREIGN:
        msg = (
            f"The patients of this library were hashed by another key ({key_of(library)[:_SHOWN]}…) than this one "
            f"({key.fingerprint[:_SHOWN]}…), so that the same patient would not be recognised. Give the library's own key "
            "by --key (in Slicer: put its file in the place of yours), or use a library of your own."
        )
        raise CaseLibraryError(msg)


def key_for_adding(library: CaseStore, path: Path | None) -> Pseudonymiser:
    """The key by which a new case's patient is hashed: the library's own, made where nothing was hashed yet.

    ``path``: the key that was named (None: the owner's). Raises `CaseLibraryError` for another than the library's.
    """
    key = key_if_there(path)
    if key is None and key_of(library) is not None:
        msg = (
            f"{path or default_key_path()} is not there, and this library knows its patients by a key; give that key by "
            "--key, or use a library of your own."
        )
        raise CaseLibraryError(msg)
    key = key or pseudonymisation_key(path)
    require_key(library, key)
    return key


def properties_to_note(library: CaseStore, key: Pseudonymiser, patient: str) -> dict[str, str]:
    """What the library is to note once a case of ``patient`` (a hash by ``key``) is in it. Raises `CaseLibraryError`.

    Its key, where it holds no case yet, or holds that patient already: then the key is the right one.
    """
    require_key(library, key)
    if key_of(library) is not None:
        return {}
    is_sure = not len(library) or has_patient(library, patient)
    return {KEY_PROPERTY: key.fingerprint} if is_sure else {}


def has_patient(library: CaseStore, patient: str) -> bool:
    """Whether a case of the patient is in the library, under any form of the hash."""
    forms = forms_of(patient)
    return any(case.patient_hash in forms for case in library.cases())


def set_key(library: CaseStore, key: Pseudonymiser) -> None:
    """Note the key of a library that does not say it, on its owner's word. Raises `CaseLibraryError`."""
    require_key(library, key)
    library.set_property(KEY_PROPERTY, key.fingerprint)


def stored_form(library: CaseStore, patient: Pseudonym | str) -> str:
    """The hash of a patient as the library has it already, else today's: so that one patient stays one there."""
    forms = forms_of(patient)
    if len(forms) == 1:
        return forms[0]
    there = {case.patient_hash for case in library.cases()}
    return next((form for form in forms if form in there), forms[0])


def key_for_search(library: CaseStore, path: Path | None) -> tuple[Pseudonymiser | None, KeyState]:
    """The key to know a patient by, None where none can, and why. ``path``: the one that was named (None: the owner's).

    A named one has to be the library's. The owner's own may be another, for libraries are passed on: then it is as if there
    were none. Raises `CaseLibraryError`.
    """
    key = Pseudonymiser.load(path) if path is not None else key_if_there()
    if path is not None:
        require_key(library, key)
    state = key_state(library, key)
    return (None if state is KeyState.FOREIGN else key), state


UNKNOWN_KEY = (
    "This library does not say which key it was made with; where it was yours, note that by lesionlens library key "
    "LIBRARY --set, so that no other key is ever used with it."
)
_REASONS = {
    KeyState.NONE: "there is no key here by which the library knows patients; give the library's own by --key",
    KeyState.FOREIGN: "the key here is not the one that this library was made with; give that one by --key",
    KeyState.UNKNOWN: "this library does not say which key it was made with; if it was yours, note that by "
    "lesionlens library key LIBRARY --set",
}
OWN_CASES = "Cases of the same patient may be among those found"


def own_cases_note(library: CaseStore, state: KeyState, patient: str | None) -> str:
    """What a search has to say of the patient's own cases; empty where they are told from others. Raises `CaseLibraryError`.

    ``patient``: the hash that was searched with; None where it is not known whose CT it is, or no key is at hand.
    """
    if state in (KeyState.NONE, KeyState.FOREIGN):
        return f"{OWN_CASES}: {_REASONS[state]}."
    if patient is None:
        return f"{OWN_CASES}: it is not known whose CT this is."
    # Where the patient is found there by its hash, the key is the right one.
    if state is KeyState.OWN or has_patient(library, patient):
        return ""
    return f"{OWN_CASES}: {_REASONS[state]}."
