"""What a model scored of a case that the retrieval panel adds: kept with it, and a filter of the next search."""

from __future__ import annotations

from dataclasses import replace

import pytest
from LesionClassifierLib.scene.lesions import addRoiNode
from LesionClassifierLib.scene.volumes import addVolumeNode
from LesionLib.inference.runner import InProcessRunner
from LesionLib.model.folder import golden_case
from LesionRetrievalLib.library.attributes import conditions_from_text
from LesionRetrievalLib.library.intake import NewCase
from LesionRetrievalLib.library.search.filters import SearchPlan
from LesionRetrievalLib.logic import RetrievalLogic
from scored_model import NAME, SCORES, write_scored_model

CASE = NewCase("solid", "a formula", organ="lung", attributes={"lobe": "left"})


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return str(write_scored_model(tmp_path_factory.mktemp("model") / NAME))


@pytest.fixture
def logic(scene, tmp_path, model):
    made = RetrievalLogic(runner=InProcessRunner(), keyPath=tmp_path / "pseudonym.key")
    made.createLibrary(tmp_path / "cases.lesionlib", model=model)
    yield made
    made.close()


@pytest.fixture
def nodes(scene):
    volume, box = golden_case()
    return addVolumeNode(scene, volume), addRoiNode(scene, replace(box, name="L1", segment=None))


def test_a_case_keeps_its_scores_and_is_found_by_them(logic, nodes, model):
    logic.addCase(*nodes, replace(CASE, case_id="it"), model=model, patient="P1")
    kept = logic.library.case("it").attributes
    assert kept["lobe"] == "left"
    assert kept["prediction_of"] == f"{NAME} 1.0.0"
    assert {name for name in kept if name.startswith("predicted_")} == {f"predicted_{s['name']}" for s in SCORES}
    value = kept["predicted_lobulation"]
    for text, found in (
        (f"predicted_lobulation={value - 0.1}..", ["it"]),
        (f"predicted_lobulation=..{value - 0.1}", []),
    ):
        plan = SearchPlan(attributes=conditions_from_text(text))
        assert [case.case_id for case in logic.findSimilar(*nodes, model=model, plan=plan)] == found


def test_a_case_that_the_model_has_no_answer_for_keeps_no_score(logic, nodes, model):
    nodes[1].SetSize(60.0, 12.0, 14.0)
    logic.addCase(*nodes, replace(CASE, case_id="large"), model=model, patient="P1")
    assert dict(logic.library.case("large").attributes) == {"lobe": "left"}
