"""What people type and read around a search: attributes, filters, whose lesion it is, where the key lies."""

from __future__ import annotations

import pytest
from LesionLib.errors import CaseLibraryError, InputWarning, WarningName
from LesionRetrievalLib.library.attributes import (
    attribute_pairs,
    attributes_from_text,
    attributes_text,
    conditions_from_text,
    predicted_attributes,
)
from LesionRetrievalLib.library.intake import NewCase, Owner, checked_case
from LesionRetrievalLib.library.pseudonyms import default_key_path, key_if_there, pseudonymisation_key
from LesionRetrievalLib.library.search.filters import SearchPlan

PATIENT = "0" * 32


def test_attributes_are_one_a_line():
    found = attributes_from_text("size=12.5\n\ncontrast = true\nlobe=left, upper\n")
    assert found == {"size": 12.5, "contrast": True, "lobe": "left, upper"}


def test_conditions_are_set_apart_by_commas_and_may_be_ranges():
    found = conditions_from_text("size=5..20, contrast=true; depth=..3")
    assert found == {"size": (5.0, 20.0), "contrast": True, "depth": (None, 3.0)}
    assert conditions_from_text("  ") == {}


@pytest.mark.parametrize("text", ["size", "=5", "size=1\nsize=2"])
def test_what_is_no_attribute_is_refused(text):
    with pytest.raises(CaseLibraryError):
        attributes_from_text(text)


@pytest.mark.parametrize("text", ["size=..", "size=a..b", "size=1..true"])
def test_what_is_no_range_is_refused(text):
    with pytest.raises(CaseLibraryError, match="is no range"):
        conditions_from_text(text)


def test_attributes_read_well_on_a_card():
    assert (
        attributes_text({"size": 12.0, "contrast": False, "lobe": "left", "stage": None})
        == "size 12 · contrast no · lobe left"
    )


def test_what_a_model_said_is_told_apart_from_what_people_gave():
    predicted = predicted_attributes({"lobulation": 3.2149, "texture": 5.0}, model="description 1.0.0", warnings=())
    assert predicted == {
        "predicted_lobulation": 3.21,
        "predicted_texture": 5.0,
        "prediction_of": "description 1.0.0",
    }
    kept = {**predicted, "size": 12.0}
    assert attributes_text(kept) == (
        "size 12 · lobulation (predicted) 3.21 · texture (predicted) 5 · predicted by description 1.0.0"
    )
    assert attribute_pairs(kept)[:2] == [("size", "12"), ("lobulation (predicted)", "3.21")]
    assert conditions_from_text("predicted_lobulation=3..5") == {"predicted_lobulation": (3.0, 5.0)}


@pytest.mark.parametrize("code", [WarningName.BOX_SIZE, WarningName.OUT_OF_DISTRIBUTION])
def test_of_a_lesion_that_the_model_has_no_answer_for_no_score_is_kept(code):
    assert predicted_attributes({"lobulation": 3.2}, model="m 1", warnings=[InputWarning(code, "no answer")]) == {}
    noted = [InputWarning(WarningName.PHANTOM, "computed")]
    assert predicted_attributes({"lobulation": 3.2}, model="m 1", warnings=noted)["predicted_lobulation"] == 3.2
    assert predicted_attributes({}, model="m 1", warnings=()) == {}


@pytest.mark.parametrize("name", ["predicted_lobulation", "prediction_of"])
def test_nobody_gives_a_case_an_attribute_under_a_models_name(name):
    new = NewCase("solid", "histology", attributes={name: 3.0})
    with pytest.raises(CaseLibraryError, match=f"'{name}' has a name that is kept for what a model says"):
        checked_case(new, Owner("0" * 32, "1" * 32))


def test_the_same_patient_is_left_out_by_default_where_it_is_known():
    assert SearchPlan().filters(PATIENT)["exclude_patient"] == PATIENT
    assert SearchPlan().filters(None)["exclude_patient"] is None
    assert SearchPlan(leave_out_patient=False).filters(PATIENT)["exclude_patient"] is None


def test_the_same_patient_is_not_left_out_of_a_search_for_it():
    filters = SearchPlan(scope="same-patient").filters(PATIENT)
    assert (filters["patient"], filters["exclude_patient"]) == (PATIENT, None)


@pytest.mark.parametrize("scope", ["same-patient", "cross-patient"])
def test_scopes_by_patient_need_to_know_it(scope):
    with pytest.raises(CaseLibraryError, match="needs to know whose CT"):
        SearchPlan(scope=scope).filters(None)


@pytest.mark.parametrize(
    ("plan", "patient", "has_key", "said"),
    [
        (SearchPlan(), PATIENT, True, "are left out."),
        (SearchPlan(), None, True, "not known whose CT"),
        (SearchPlan(), None, False, "no key"),
        (SearchPlan(leave_out_patient=False), PATIENT, True, "are not left out"),
        (SearchPlan(scope="same-patient"), PATIENT, True, "Only other lesions of the same patient"),
    ],
)
def test_whether_the_patient_is_left_out_is_said(plan, patient, has_key, said):
    assert said in plan.text(patient, has_key=has_key)


def test_a_search_makes_no_key(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert default_key_path() == tmp_path / "lesionlens" / "pseudonym.key"
    assert key_if_there() is None
    made = pseudonymisation_key()
    assert key_if_there() == made == pseudonymisation_key()
