"""The vote of similar cases: weights, order, agreement with the model, and the nearest case that is something else."""

from __future__ import annotations

import numpy as np
import pytest
from case_libraries import MODEL, a_case, a_library_at
from LesionRetrievalLib.library.cases import Neighbour
from LesionRetrievalLib.library.neighbours import agreement_text, nearest_other_class, neighbour_vote


def a_neighbour(label: str, similarity: float) -> Neighbour:
    return Neighbour("c", label, similarity, "histology", "liver", "0" * 32, "0" * 32, {}, "")


def test_a_case_votes_with_its_similarity():
    vote = neighbour_vote([a_neighbour("cyst", 0.9), a_neighbour("metastasis", 0.3), a_neighbour("cyst", 0.3)])
    assert vote.shares == pytest.approx({"cyst": 0.8, "metastasis": 0.2})
    assert vote.counts == {"cyst": 2, "metastasis": 1}
    assert (vote.top, vote.total) == ("cyst", 3)


def test_one_very_similar_case_outweighs_two_that_are_hardly_similar():
    vote = neighbour_vote([a_neighbour("cyst", 0.9), a_neighbour("metastasis", 0.2), a_neighbour("metastasis", 0.2)])
    assert vote.top == "cyst"


def test_a_case_that_points_the_other_way_has_no_weight():
    vote = neighbour_vote([a_neighbour("cyst", 0.5), a_neighbour("metastasis", -0.9)])
    assert vote.shares == {"cyst": 1.0, "metastasis": 0.0}


def test_where_nothing_is_similar_each_case_counts_alike():
    vote = neighbour_vote([a_neighbour("cyst", -0.1), a_neighbour("cyst", -0.5), a_neighbour("abscess", -0.2)])
    assert vote.shares == pytest.approx({"cyst": 2 / 3, "abscess": 1 / 3})


def test_of_equal_shares_the_more_similar_case_s_label_comes_first():
    assert neighbour_vote([a_neighbour("b", 0.4), a_neighbour("a", 0.4)]).top == "b"


def test_without_cases_there_is_no_vote():
    vote = neighbour_vote([])
    assert (vote.shares, vote.top, vote.total) == ({}, "", 0)
    assert agreement_text(vote, {"cyst": 1.0}) == "No case was found, so there is no vote."


@pytest.mark.parametrize(
    ("probabilities", "said"),
    [
        ({"cyst": 0.8, "metastasis": 0.2}, "Cases and model agree: 2 of the 3 cases are cyst"),
        ({"cyst": 0.2, "metastasis": 0.8}, "Cases and model disagree: 2 of the 3 cases are cyst, but the model says metastasis"),
        ({"benign": 0.9, "malignant": 0.1}, "use different names"),
        ({}, "only compares lesions"),
    ],
)  # fmt: skip
def test_agreement_is_said_in_plain_words(probabilities, said):
    vote = neighbour_vote([a_neighbour("cyst", 0.9), a_neighbour("metastasis", 0.3), a_neighbour("cyst", 0.3)])
    assert said in agreement_text(vote, probabilities)


@pytest.fixture
def library(path):
    """Three labels on a quarter circle, each further from (1, 0) than the last."""
    with a_library_at(path, dimension=2) as library:
        for number, (label, organ) in enumerate(
            [("cyst", "liver"), ("cyst", "liver"), ("abscess", "liver"), ("metastasis", "lung")]
        ):
            angle = 0.2 * number
            case = a_case(f"c{number}", label=label, organ=organ, patient_hash=f"{number:032x}")
            library.add(case, np.array([np.cos(angle), np.sin(angle)]), model_sha256=MODEL.sha256)
        yield library


def test_the_nearest_other_class_is_the_most_similar_case_that_is_not_it(library):
    found = nearest_other_class(library, [1.0, 0.0], "cyst", model_sha256=MODEL.sha256)
    assert (found.case_id, found.label) == ("c2", "abscess")
    assert found.similarity == pytest.approx(np.cos(0.4))


def test_the_search_s_filters_hold_for_the_other_class_too_but_not_that_by_label(library):
    filters = {"organ": "lung", "label": "cyst"}
    found = nearest_other_class(library, [1.0, 0.0], "cyst", model_sha256=MODEL.sha256, filters=filters)
    assert found.case_id == "c3"
    filters = {"exclude_patient": f"{2:032x}"}
    found = nearest_other_class(library, [1.0, 0.0], "cyst", model_sha256=MODEL.sha256, filters=filters)
    assert found.case_id == "c3"


def test_without_another_class_there_is_none(library):
    for case_id in ("c2", "c3"):
        library.remove(case_id)
    assert nearest_other_class(library, [1.0, 0.0], "cyst", model_sha256=MODEL.sha256) is None
