"""A library knows which key its patients were hashed by; one patient stays one, however the identifier is typed."""

from __future__ import annotations

import shutil
import sqlite3
import unicodedata
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from LesionLib.errors import CaseLibraryError
from LesionRetrievalLib.library.cases import Case, ModelIdentity
from LesionRetrievalLib.library.intake import write_library
from LesionRetrievalLib.library.ownership import (
    KEY_PROPERTY,
    KeyState,
    key_for_adding,
    key_for_search,
    key_of,
    key_state,
    own_cases_note,
    properties_to_note,
    require_key,
    set_key,
    stored_form,
)
from LesionRetrievalLib.library.pseudonyms import Pseudonymiser, forms_of
from LesionRetrievalLib.library.search.filters import SearchPlan
from LesionRetrievalLib.library.store import CaseLibrary
from repository import FILES_OF_0_1

MODEL = ModelIdentity("tested", "1.0.0", "a" * 64)
OWN, FOREIGN = Pseudonymiser(bytes(range(32))), Pseudonymiser(bytes(range(1, 33)))
V0_1 = FILES_OF_0_1 / "cases.lesionlib"


def a_case(case_id: str, patient: str) -> Case:
    return Case(case_id, "cyst", "histology", "liver", str(patient), "1" * 32)


@pytest.fixture
def library(tmp_path):
    with CaseLibrary.create(tmp_path / "cases.lesionlib", model=MODEL, dimension=3) as library:
        yield library


def add(library, case_id, patient, vector=(1, 0, 0)):
    library.add(a_case(case_id, patient), np.array(vector, float), model_sha256=MODEL.sha256)


# --- identifiers


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("AB-4711", "ab-4711"),
        ("AB 4711", "AB\u00a04711"),
        ("AB 4711", "AB  4711 "),
        ("AB4711", "\tAB\u30004711\r\n"),
        ("Müller 7", unicodedata.normalize("NFD", "MÜLLER 7")),
        ("Straße 5", "STRASSE5"),
        ("4711", "4711\0"),
        ("4711", "\ufeff47\u200b11"),
    ],
)
def test_an_identifier_is_the_same_whatever_its_capitals_white_space_and_accents(one, other):
    assert OWN.hash(one) == OWN.hash(other)
    assert OWN.hash(one, domain="study") == OWN.hash(other, domain="study")
    assert OWN.hash(one) != OWN.hash("4712")


@pytest.mark.parametrize("nothing", ["", " \0", "\u200b", "\u00a0\t", None])
def test_what_cannot_be_seen_is_no_identifier(nothing):
    with pytest.raises(CaseLibraryError, match="cannot be hashed"):
        OWN.hash(nothing)


def test_the_hash_of_version_0_1_is_still_known():
    import hashlib
    import hmac

    def then(identifier: str) -> str:
        bare = identifier.strip(" \0")
        return hmac.new(OWN.salt, f"lesionlens\0patient\0{bare}".encode(), hashlib.sha256).hexdigest()[:32]

    assert then("HOSPITAL-4711") in forms_of(OWN.hash("HOSPITAL-4711"))
    assert OWN.hash("HOSPITAL-4711") != then("HOSPITAL-4711")
    assert forms_of(OWN.hash("4711")) == (then("4711"),)


def test_a_patient_of_an_old_library_is_left_out_and_found_under_the_old_hash(library):
    patient = OWN.hash("HOSPITAL-4711")
    old = forms_of(patient)[1]
    add(library, "old", old)
    add(library, "other", FOREIGN.hash("x"), (0, 1, 0))

    def ids(**filters):
        return [n.case_id for n in library.search([1, 0.1, 0], model_sha256=MODEL.sha256, **filters)]

    assert ids(**SearchPlan().filters(patient)) == ["other"]
    assert ids(scope="cross-patient", patient=patient) == ["other"]
    assert ids(scope="same-patient", patient=patient) == ["old"]
    # One who is there under the old hash stays one: a new case of hers gets that one, too.
    assert stored_form(library, patient) == old
    add(library, "new", stored_form(library, patient), (0.9, 0.2, 0))
    assert ids(**SearchPlan().filters(patient)) == ["other"]
    assert ids(scope="same-patient", patient=patient) == ["old", "new"]
    assert stored_form(library, OWN.hash("somebody else")) == OWN.hash("somebody else")


# --- the key


def test_a_fingerprint_tells_keys_apart_and_is_no_hash_of_anybody():
    assert OWN.fingerprint == Pseudonymiser(bytes(range(32))).fingerprint != FOREIGN.fingerprint
    assert len(OWN.fingerprint) == 32
    assert OWN.salt.hex() not in OWN.fingerprint
    assert OWN.fingerprint not in {OWN.hash(text) for text in ("key", "lesionlens", "patient")}


def test_an_empty_library_takes_the_key_of_its_first_case_and_refuses_others(library):
    assert key_state(library, OWN) is KeyState.UNKNOWN
    assert properties_to_note(library, OWN, OWN.hash("P1")) == {KEY_PROPERTY: OWN.fingerprint}
    set_key(library, OWN)
    assert key_state(library, OWN) is KeyState.OWN
    assert key_state(library, FOREIGN) is KeyState.FOREIGN
    assert key_state(library, None) is KeyState.NONE
    assert properties_to_note(library, OWN, OWN.hash("P2")) == {}
    for refused in (lambda: require_key(library, FOREIGN), lambda: set_key(library, FOREIGN)):
        with pytest.raises(CaseLibraryError, match=r"hashed by another key \(.*Give the library's own key by --key"):
            refused()
    with pytest.raises(CaseLibraryError, match="another key"):
        properties_to_note(library, FOREIGN, FOREIGN.hash("P1"))
    assert key_of(library) == OWN.fingerprint


def test_a_library_of_unknown_key_learns_it_only_from_a_patient_who_is_there(library):
    add(library, "one", OWN.hash("P1"))
    assert properties_to_note(library, FOREIGN, FOREIGN.hash("P1")) == {}
    assert properties_to_note(library, OWN, OWN.hash("P2")) == {}
    assert properties_to_note(library, OWN, OWN.hash("p1 ")) == {KEY_PROPERTY: OWN.fingerprint}


def test_no_key_is_made_for_a_library_that_has_one(library, tmp_path):
    set_key(library, OWN)
    with pytest.raises(CaseLibraryError, match="is not there, and this library knows its patients by a key"):
        key_for_adding(library, tmp_path / "absent.key")
    assert not (tmp_path / "absent.key").exists()


def test_a_search_without_the_library_s_key_says_what_may_be_among_the_found(library, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    set_key(library, OWN)
    add(library, "one", OWN.hash("P1"))
    key, state = key_for_search(library, None)
    assert (key, state) == (None, KeyState.NONE)
    assert "there is no key here" in own_cases_note(library, state, None)
    own = Pseudonymiser.create(tmp_path / "mine.key")
    with pytest.raises(CaseLibraryError, match="another key"):  # named, so it has to be the right one
        key_for_search(library, tmp_path / "mine.key")
    (tmp_path / "config" / "lesionlens").mkdir(parents=True)
    shutil.copy(tmp_path / "mine.key", tmp_path / "config" / "lesionlens" / "pseudonym.key")
    key, state = key_for_search(library, None)  # the owner's usual one: the library may be somebody else's
    assert (key, state) == (None, KeyState.FOREIGN)
    assert "not the one that this library was made with" in own_cases_note(library, state, None)
    assert own.fingerprint != key_of(library)
    assert "not known whose CT" in own_cases_note(library, KeyState.OWN, None)
    assert own_cases_note(library, KeyState.OWN, OWN.hash("P9")) == ""


def test_a_library_of_unknown_key_is_believed_where_the_patient_is_found_in_it(library):
    add(library, "one", OWN.hash("P1"))
    assert own_cases_note(library, KeyState.UNKNOWN, OWN.hash("P1")) == ""
    assert "does not say which key" in own_cases_note(library, KeyState.UNKNOWN, OWN.hash("P2"))


def test_a_damaged_fingerprint_is_said(library):
    library.set_property(KEY_PROPERTY, "x")
    with pytest.raises(CaseLibraryError, match="says of its key is damaged"):
        key_of(library)


def test_a_copy_to_give_away_keeps_the_fingerprint_and_no_key(library, tmp_path):
    set_key(library, OWN)
    add(library, "one", OWN.hash("P1"))
    library.export(tmp_path / "copy.lesionlib")
    with CaseLibrary.open(tmp_path / "copy.lesionlib") as copy:
        assert key_state(copy, FOREIGN) is KeyState.FOREIGN
    content = (tmp_path / "copy.lesionlib").read_bytes()
    assert OWN.salt not in content
    assert OWN.salt.hex().encode() not in content


def test_a_new_library_holds_its_properties_from_the_first_moment(tmp_path):
    entries = iter([(a_case("a", OWN.hash("P1")), np.ones(3))])
    from LesionRetrievalLib.library.cases import CaseEntry

    write_library(tmp_path / "l", MODEL, (CaseEntry(*e) for e in entries), properties={KEY_PROPERTY: OWN.fingerprint})
    with CaseLibrary.open(tmp_path / "l") as library:
        assert key_state(library, OWN) is KeyState.OWN


# --- a library of version 0.1


def test_a_library_of_0_1_says_no_key_is_read_as_it_lies_and_learns_its_key_when_written(tmp_path):
    path = Path(shutil.copy(V0_1, tmp_path / "old.lesionlib"))
    before = path.read_bytes()
    with CaseLibrary.open(path) as library:
        assert key_of(library) is None
        assert key_state(library, OWN) is KeyState.UNKNOWN
        patient = library.cases()[0].patient_hash
        left = library.search(
            library.vector("case-00001", model_sha256=library.model.sha256),
            model_sha256=library.model.sha256, exclude_patient=patient,
        )  # fmt: skip
        assert patient not in {n.patient_hash for n in left}
    assert path.read_bytes() == before
    with CaseLibrary.open(path, read_only=False) as library:
        set_key(library, OWN)
        assert len(library) == 3
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT name, value FROM properties").fetchall() == [(KEY_PROPERTY, OWN.fingerprint)]
    with CaseLibrary.open(path) as library:
        assert key_state(library, FOREIGN) is KeyState.FOREIGN
        assert library.integrity_problems() == ()
