"""``lesionlens library edit``: the texts and attributes of a case, changed as they would be taken of a new one."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace

from LesionLib.errors import CaseLibraryError
from LesionRetrievalLib.libraries import open_store
from LesionRetrievalLib.library.attributes import attributes_from, require_not_predicted
from LesionRetrievalLib.library.cases import Case, CaseStore, Scalar
from LesionRetrievalLib.library.intake import require_anonymous, require_not_the_patient
from LesionRetrievalLib.library.ownership import key_for_search
from LesionRetrievalLib.library.pseudonyms import forms_of

_FIELDS = ("label", "label_source", "organ", "note")


def edit_case(options: argparse.Namespace, *, by: str) -> str:
    """Change what ``options`` name of a case; which fields are another now, "" where none is. Raises `CaseLibraryError`.

    ``by``: the code of who does it. What is typed is guarded as at an addition: no identifier of the patient, as far as it can be
    known here, from the CT's header where the CT is given, and by the library's key.
    """
    fields = {name: getattr(options, name) for name in _FIELDS if getattr(options, name) is not None}
    attributes = attributes_from(options.set)
    if not fields and not attributes and not options.unset:
        msg = (
            "nothing is to be changed; give --label, --label-source, --organ, --note, --set NAME=VALUE or --unset NAME."
        )
        raise CaseLibraryError(msg)
    require_not_predicted((*attributes, *options.unset))
    with open_store(options.library, writable=True) as library:
        before = library.case(options.case)
        after = replace(before, **fields, attributes=_changed(before, attributes, options.unset))
        _guard(library, options, after, [*fields.values(), *_texts(attributes)])
        return library.update(after, by=by)


def _changed(case: Case, attributes: dict[str, Scalar], unset: list[str]) -> dict[str, Scalar]:
    for name in unset:
        if name not in case.attributes:
            there = ", ".join(case.attributes) or "none"
            msg = f"Case {case.case_id!r} has no attribute {name!r} to take out; it has {there}."
            raise CaseLibraryError(msg)
        if name in attributes:
            msg = f"The attribute {name!r} is to be set and taken out; give one of --set and --unset."
            raise CaseLibraryError(msg)
    return {name: value for name, value in {**case.attributes, **attributes}.items() if name not in unset}


def _texts(attributes: dict[str, Scalar]) -> Iterator[str]:
    for name, value in attributes.items():
        yield name
        if not isinstance(value, bool):
            yield f"{value:.0f}" if isinstance(value, float) else str(value)


def _guard(library: CaseStore, options: argparse.Namespace, case: Case, typed: list[str]) -> None:
    key, _ = key_for_search(library, options.key)
    if key is not None:
        require_not_the_patient(case, typed, key)
    if options.volume is None:
        return
    from LesionLib.io.volumes import series_at

    from LesionLensApp.library.cases import read_identity

    identity = read_identity(options, series_at(options.volume, options.series))
    if key is not None and identity.is_known and case.patient_hash not in forms_of(identity.hashes(key)[0]):
        msg = (
            f"{options.volume.name} is the CT of another patient than the case's; give its own, or leave --volume out."
        )
        raise CaseLibraryError(msg)
    require_anonymous(case, identity.texts)
