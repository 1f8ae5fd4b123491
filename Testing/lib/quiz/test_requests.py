"""A quiz out of a case library: which of its cases can be asked, how they are drawn, and a request answered by a runner."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from LesionClassifierLib.background import BackgroundRun
from LesionLib.errors import CaseLibraryError, LesionLensError
from LesionLib.geometry import CTVolume, LesionBox
from LesionLib.inference.messages import RunnerCancelled
from LesionLib.model.folder import find_bundle, unchecked_manifest
from LesionRetrievalLib.library.store import CaseLibrary
from LesionRetrievalLib.quiz.file import load_quiz
from LesionRetrievalLib.quiz.making import LabelledLesion, QuizPlan, choose_per_label, quiz_classes
from LesionRetrievalLib.quiz.model import QuizError
from LesionRetrievalLib.quiz.requests import LibraryCases, QuizRequest, quiz_of_request
from LesionRetrievalLib.quiz_logic import makeInBackground
from quiz_cases import MODEL, CannedRunner, write_library

A_CYST = LabelledLesion(
    CTVolume(np.zeros((9, 9, 9)), np.eye(4)), LesionBox([4, 4, 4], [3, 3, 3], name="L1"), "cyst", "x"
)
PLAN = QuizPlan(title="Quiz", margin_mm=5.0, similar=3)


@pytest.fixture
def path(tmp_path):
    return write_library(tmp_path / "cases.lesionlib")


@pytest.fixture
def library(path):
    with CaseLibrary.open(path) as opened:
        yield opened


@pytest.fixture
def request_for(path, tmp_path):
    usual = {
        "out": tmp_path / "q.json",
        "plan": PLAN,
        "model": MODEL.name,
        "library": path,
        "cases": ("case-0", "case-3"),
    }
    return lambda **changes: QuizRequest(**{**usual, **changes})


# --- the source


def test_only_cases_with_their_ct_and_a_known_answer_can_be_asked(library):
    assert [case.case_id for case in LibraryCases(library).cases] == [f"case-{n}" for n in range(8)]
    source = LibraryCases(library, class_names=["malignant", "cyst"])
    assert set(source.labels()) == {"malignant"}
    with pytest.raises(QuizError, match="holds no case with its CT"):
        LibraryCases(library, class_names=["cyst"])


def test_a_case_comes_with_its_patch_its_patient_s_hash_and_without_the_owner_s_note(library):
    source = LibraryCases(library, only=["case-3", "case-0"], feedback={"case-0": "Round."})
    first, second = source.load(0), source.load(1)
    patch = library.patch("case-3")
    assert np.array_equal(first.volume.array, patch.volume.array)
    assert np.array_equal(first.box.cornersRAS, patch.box.cornersRAS)
    assert (first.label, first.label_source, first.organ) == ("malignant", "histology", "lung")
    assert first.patient_hash == library.case("case-3").patient_hash
    assert (first.feedback, second.feedback) == ("", "Round.")


def test_a_case_that_cannot_be_asked_is_refused_by_its_id(library):
    with pytest.raises(QuizError, match="case-8"):
        LibraryCases(library, only=["case-8"])


def test_a_case_whose_patch_ends_where_the_model_still_looks_is_refused(library):
    source = LibraryCases(library, sees_beyond=lambda patch: True)
    with pytest.raises(QuizError, match="looks further than the CT that the library keeps of case case-0"):
        source.load(0)


def test_so_many_of_each_label_are_drawn_from_as_many_patients_as_there_are(library):
    source = LibraryCases(library)
    places = choose_per_label(source, 3, seed=4)
    assert Counter(source.labels()[place] for place in places) == {"benign": 3, "malignant": 3}
    assert len({source.patients()[place] for place in places}) == 6
    assert places == choose_per_label(source, 3, seed=4)
    assert places != choose_per_label(source, 3, seed=5)
    only = choose_per_label(source, 4, seed=0, labels=["malignant"])
    assert [source.labels()[place] for place in only] == ["malignant"] * 4


@pytest.mark.parametrize(("count", "labels"), [(5, None), (0, None), (1, ["cyst"])])
def test_more_than_there_are_of_a_label_is_refused_with_its_name(library, count, labels):
    with pytest.raises(QuizError, match=r"of '(benign|cyst)' are wanted and there are"):
        choose_per_label(LibraryCases(library), count, seed=0, labels=labels)


# --- the request


def test_the_model_is_asked_once_a_case_and_the_quiz_is_on_the_disk(request_for, tmp_path):
    runner, told = CannedRunner(), []
    quiz = quiz_of_request(
        request_for(feedback={"case-3": "Look."}), runner, progress=lambda done, of: told.append((done, of))
    )
    assert runner.asked == ["case-01", "case-02"]
    assert told == [(0, 2), (1, 2), (2, 2)]
    assert [case.known.feedback for case in load_quiz(tmp_path / "q.json").cases] == ["", "Look."]
    assert quiz.model == (MODEL.name, MODEL.version, MODEL.sha256)
    assert quiz.classes == tuple(quiz_classes(unchecked_manifest(find_bundle(MODEL.name))))


def test_similar_cases_leave_out_the_case_s_own_patient(request_for, library):
    quiz = quiz_of_request(request_for(plan=replace(PLAN, similar=9)), CannedRunner())
    for case, case_id, others in zip(quiz.cases, ("case-0", "case-3"), (7, 8), strict=True):
        patients = [library.case(one.case_id).patient_hash for one in case.prediction.similar]
        assert library.case(case_id).patient_hash not in patients
        assert len(patients) == others


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"cases": ()}, "No case is chosen"),
        ({"cases": ("case-8",)}, "case-8"),
        ({"library": None}, "no library is given"),
        ({"model": "no-such-model"}, "no-such-model"),
        ({"plan": replace(PLAN, title="")}, "title"),
        ({"plan": replace(PLAN, instructions="x" * 2001)}, "instructions"),
        ({"plan": replace(PLAN, window_hu=(100.0, -100.0))}, "lower value first"),
        ({"lesions": (A_CYST,)}, "L1 is 'cyst', and the model knows benign, malignant"),
    ],
)
def test_what_cannot_be_made_is_refused_and_leaves_nothing(request_for, tmp_path, changes, reason):
    runner = CannedRunner()
    with pytest.raises(LesionLensError, match=reason):
        quiz_of_request(request_for(**changes), runner)
    assert runner.asked == []  # nobody waits for answers that would be thrown away
    assert not (tmp_path / "q.json").exists()


def test_a_library_of_another_model_is_refused_unless_no_similar_cases_are_wanted(request_for):
    with pytest.raises(CaseLibraryError, match="was made with"):
        quiz_of_request(request_for(), CannedRunner("b" * 64))
    quiz = quiz_of_request(request_for(plan=replace(PLAN, similar=0)), CannedRunner("b" * 64))
    assert all(case.prediction.similar == () for case in quiz.cases)


def test_a_cancelled_request_leaves_nothing(request_for, tmp_path):
    runner = CannedRunner()
    runner.cancel()
    with pytest.raises(RunnerCancelled):
        quiz_of_request(request_for(), runner)
    assert not (tmp_path / "q.json").exists()


def ended(run: BackgroundRun):
    while (made := run.poll()) is None:
        pass
    return made


def test_in_the_background_it_ends_with_the_quiz_an_error_or_cancelled(request_for, tmp_path):
    runner = CannedRunner()
    made = ended(makeInBackground(request_for(), runner))
    assert (len(made.value.cases), made.error, runner.is_closed) == (2, None, True)
    made = ended(makeInBackground(request_for(cases=("case-8",), overwrite=True), CannedRunner()))
    assert made.value is None
    assert "case-8" in str(made.error)
    run = makeInBackground(request_for(overwrite=True), CannedRunner(waits=True))
    run.cancel()
    made = ended(run)
    assert (made.value, made.error) == (None, None)


def test_a_fault_of_the_program_ends_the_run_with_a_sentence(request_for):
    runner = CannedRunner()
    runner.run = lambda request: 1 / 0
    assert "ZeroDivisionError" in str(ended(makeInBackground(request_for(), runner)).error)
