"""Who added or changed which case when: kept in the file, said by nobody's name, and not given away."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from case_libraries import MODEL, a_case, a_library_at, search
from LesionLib.errors import CaseLibraryError
from LesionRetrievalLib.libraries import transfer
from LesionRetrievalLib.library.cases import Change, checked_code
from LesionRetrievalLib.library.file import SCHEMA_VERSION
from LesionRetrievalLib.library.store import CaseLibrary


def add(library, case_id="case-1", *, by="", **changes):
    library.add(a_case(case_id, **changes), np.ones(4), model_sha256=MODEL.sha256, by=by)


def history(library, case_id=None):
    return [(change.case_id, change.by, change.what) for change in library.changes(case_id)]


def test_what_is_done_to_a_case_is_kept_with_the_code_of_who_did_it_and_the_time(library):
    add(library, by="reader7")
    case = library.case("case-1")
    changed = replace(case, label="cyst", attributes={"size": 3.0})
    assert library.update(changed, by="reader8") == "label, attribute size"
    library.remove("case-1", by="reader7")
    assert history(library) == [
        ("case-1", "reader7", "added"),
        ("case-1", "reader8", "label, attribute size"),
        ("case-1", "reader7", "removed"),
    ]
    assert all(change.at.endswith("Z") for change in library.changes("case-1"))


def test_a_changed_case_keeps_its_vector_and_date_and_is_found_by_its_new_label(library):
    add(library)
    created = library.created()
    library.update(replace(library.case("case-1"), label="cyst", note="seen again"))
    assert [(n.label, n.note) for n in search(library, label="cyst")] == [("cyst", "seen again")]
    assert search(library, label="metastasis") == []
    assert library.created() == created


def test_what_stood_in_a_changed_text_is_gone_from_the_file_and_its_history(library):
    add(library, note="a remark to forget")
    library.update(replace(library.case("case-1"), note=""))
    library.close()
    assert b"a remark to forget" not in library.path.read_bytes()


def test_a_change_that_changes_nothing_is_not_kept(library):
    add(library)
    assert library.update(library.case("case-1"), by="reader7") == ""
    assert history(library) == [("case-1", "", "added")]


def test_one_and_yes_are_two_values_of_an_attribute(library):
    add(library, attributes={"contrast": True})
    assert library.update(a_case(attributes={"contrast": 1.0})) == "attribute contrast"


def test_a_case_cannot_become_another_patient_s(library):
    add(library)
    with pytest.raises(CaseLibraryError, match="its id, patient and study stay"):
        library.update(a_case(patient="P2"))
    with pytest.raises(CaseLibraryError, match="not in this library"):
        library.update(a_case("other"))


@pytest.mark.parametrize("code", ["reader7", "K-12", "7", "a.b_3"])
def test_a_code_has_a_digit_and_no_spaces(code):
    assert checked_code(code) == code


@pytest.mark.parametrize("code", ["Doe, Jane", "Jane Doe", "Jane", "jd", "reader 7", "r" * 16 + "7", "7\n", None])
def test_what_may_be_a_name_is_no_code(library, code):
    with pytest.raises(CaseLibraryError, match="with a digit among them.*a code, and nobody's name") as error:
        checked_code(code)
    assert str(code) not in str(error.value).replace("nobody's", "")
    add(library)
    with pytest.raises(CaseLibraryError):
        library.remove("case-1", by=code if code is not None else "Jane")
    assert len(library) == 1


def test_an_addition_that_fails_leaves_no_history(library):
    with pytest.raises(CaseLibraryError), library.transaction():
        add(library, by="reader7")
        add(library, by="reader7")
    assert library.changes() == []


def test_a_copy_to_give_away_says_neither_who_nor_at_what_hour(library, tmp_path):
    add(library, by="reader7")
    library.export(tmp_path / "copy")
    with CaseLibrary.open(tmp_path / "copy") as copy:
        assert copy.changes() == []
        assert copy.created() == library.created()
    assert b"reader7" not in (tmp_path / "copy").read_bytes()


def test_a_history_goes_along_from_one_library_to_another_once(library, tmp_path):
    add(library, by="reader7")
    library.update(replace(library.case("case-1"), label="cyst"), by="reader8")
    with a_library_at(tmp_path / "other") as other:
        transfer(library, other)
        transfer(library, other)
        other.note_changes(library.changes())
        assert other.changes() == library.changes()


def as_version_3(path):
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DROP TABLE changes")
        connection.execute("PRAGMA user_version = 3")


def test_a_library_without_a_history_is_read_as_it_lies_and_gets_one_when_it_is_changed(library):
    add(library)
    library.close()
    as_version_3(library.path)
    before = library.path.read_bytes()
    with CaseLibrary.open(library.path) as old:
        assert old.changes() == []
        assert old.integrity_problems() == ()
        assert len(search(old)) == 1
    assert library.path.read_bytes() == before
    with CaseLibrary.open(library.path, read_only=False) as old:
        old.remove("case-1", by="reader7")
        assert history(old) == [("case-1", "reader7", "removed")]
    with closing(sqlite3.connect(library.path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)


def test_a_damaged_history_is_named_by_verify(library):
    add(library)
    library._rows("UPDATE changes SET at = 'yesterday'")
    assert any("what was changed when: The time of a change is damaged" in p for p in library.integrity_problems())


def test_a_change_is_text_that_can_be_shown():
    with pytest.raises(CaseLibraryError, match="what was changed"):
        Change.now("case-1", "", "two\nlines")
