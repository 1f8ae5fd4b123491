"""Nobody in a library can be told from the file."""

import os
import stat
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from case_libraries import MODEL, a_case
from LesionLib.errors import CaseLibraryError
from LesionRetrievalLib.library.intake import IDENTIFYING_ELEMENTS, PatientIdentity, require_anonymous
from LesionRetrievalLib.library.pseudonyms import Pseudonymiser

IDENTIFIERS = ("Doe^Jane", "PAT_0815", "19700102", "471100", "7")


def test_the_file_holds_no_identifier_only_its_hash(library):
    case = a_case(patient="DOE^JANE 0012345678")
    library.add(case, np.ones(4), model_sha256=MODEL.sha256)
    with pytest.raises(CaseLibraryError, match="patient_hash is not a salted hash"):
        library.add(replace(case, case_id="c2", patient_hash="0012345678"), np.ones(4), model_sha256=MODEL.sha256)
    library.close()
    content = library.path.read_bytes()
    assert case.patient_hash.encode() in content
    assert b"DOE" not in content
    assert b"0012345678" not in content


def test_the_same_identifier_hashes_the_same_under_the_same_key_only(tmp_path):
    first = Pseudonymiser.create(tmp_path / "first.key")
    other = Pseudonymiser.create(tmp_path / "other.key")
    again = Pseudonymiser.load(tmp_path / "first.key")
    assert first.hash("0012345678") == again.hash("0012345678 ")  # DICOM pads to even length
    assert first.hash("0012345678") != other.hash("0012345678")
    assert first.hash("0012345678") != first.hash("0012345678", domain="study")
    assert first.salt.hex() not in repr(first)
    for nothing in ("", "  ", None, 12):
        with pytest.raises(CaseLibraryError, match="cannot be hashed"):
            first.hash(nothing)


def test_the_key_file_is_private_and_never_overwritten(tmp_path):
    key = tmp_path / "pseudonyms.key"
    Pseudonymiser.create(key)
    if os.name == "posix":
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
    with pytest.raises(CaseLibraryError, match="exists"):
        Pseudonymiser.create(key)
    if os.name == "posix":
        key.chmod(0o644)
        with pytest.raises(CaseLibraryError, match="chmod 600"):
            Pseudonymiser.load(key)
        key.chmod(0o600)
    key.write_text("something else")
    with pytest.raises(CaseLibraryError, match="not a pseudonym key"):
        Pseudonymiser.load(key)
    with pytest.raises(CaseLibraryError, match="cannot be read"):
        Pseudonymiser.load(tmp_path / "absent.key")


@pytest.mark.parametrize(
    "changes",
    [
        {"note": "DOE, seen twice"},
        {"note": "born 02.01.1970"},
        {"note": "born 2.1.1970"},
        {"note": "1970-01-02"},
        {"label": "cyst of jane"},
        {"organ": "PAT_0815"},
        {"label_source": "report pat 0815"},
        {"case_id": "doe-1"},
        {"attributes": {"accession": 471100}},
        {"attributes": {"Jane": True}},
    ],
)
def test_the_guard_finds_names_numbers_and_dates_as_people_write_them(changes):
    with pytest.raises(CaseLibraryError, match="of the patient") as caught:
        require_anonymous(a_case(**changes), IDENTIFIERS)
    assert not any(word in str(caught.value).lower() for word in ("doe", "jane", "0815", "1970", "471100"))


@pytest.mark.parametrize(
    "changes",
    [{"note": "does not grow; Janet's atlas"}, {"note": "7 mm"}, {"attributes": {"size": 7, "slices": 4711}}],
)
def test_the_guard_lets_pass_what_only_looks_alike(changes):
    case = a_case(**changes)
    assert require_anonymous(case, IDENTIFIERS) is case
    assert require_anonymous(case, []) is case


def test_the_list_of_identifying_elements_is_dicom_s():
    for keyword, tag in IDENTIFYING_ELEMENTS.items():
        group, element = (int(part, 16) for part in tag.split(","))
        assert pydicom.datadict.keyword_for_tag((group, element)) == keyword


def test_an_identity_holds_every_value_but_the_study_s_uid_and_shows_none():
    identity = PatientIdentity.of_elements(
        {"PatientID": [" 4711\0"], "OtherPatientIDs": ["A-1", "B-2"], "StudyInstanceUID": ["1.2.3"], "StudyDate": [""]}
    )
    assert (identity.patient, identity.study) == ("4711", "1.2.3")
    assert identity.texts == ("4711", "A-1", "B-2")
    assert repr(identity) == "PatientIdentity()"
    assert not PatientIdentity.of_elements({"PatientName": ["Doe^Jane"]}).is_known


def test_a_study_that_is_not_known_is_hashed_from_the_patient_in_its_own_domain(tmp_path):
    key = Pseudonymiser.create(tmp_path / "key")
    assert key.hashes("4711", "1.2.3") == (key.hash("4711"), key.hash("1.2.3", domain="study"))
    assert key.hashes("4711") == (key.hash("4711"), key.hash("4711", domain="study"))
    assert PatientIdentity("4711").hashes(key) == key.hashes("4711")
    with pytest.raises(CaseLibraryError, match="does not say which patient"):
        PatientIdentity().hashes(key)
