"""A quiz by a model that scores lesions: the scores travel in the file, on the scales that it holds, and bad ones are refused."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from LesionLib.errors import InputWarning, WarningName
from LesionLib.inference.results import LesionResult
from LesionLib.model.scores import scores_from_json
from LesionLib.uncertainty.reliability import Reliability
from LesionRetrievalLib.quiz.file import load_quiz, save_quiz
from LesionRetrievalLib.quiz.making import LabelledLesion, QuizPlan, make_quiz
from LesionRetrievalLib.quiz.model import Quiz, QuizError
from quiz_cases import CLASSES, MODEL, phantom_quiz
from scored_model import SCORES

SPECS = scores_from_json(SCORES)
VALUES = {"spiculation": 1.2, "lobulation": 3.4, "subtlety": 5.0, "calcification": 5.8}


@pytest.fixture(scope="module")
def made() -> Quiz:
    """Two phantoms; the model has no answer for the second."""
    cases = phantom_quiz().cases[:2]
    lesions = [LabelledLesion(case.volume, case.box, case.known.label, "histology") for case in cases]

    def answer(volume, box) -> LesionResult:
        small = (InputWarning(WarningName.BOX_SIZE, "The box is small."),) if box.name == "case-02" else ()
        result = LesionResult(
            name=box.name, box=box, label="benign", probabilities={"benign": 0.9, "malignant": 0.1}, embedding=None,
            heat_map=None, warnings=small, reliability=Reliability(), scores=dict(VALUES), longest_mm=12.0,
        )  # fmt: skip
        return result.without_abstained

    return make_quiz(lesions, plan=QuizPlan("Quiz"), model=MODEL, classes=CLASSES, answer=answer, scores=SPECS)


def test_scores_and_sentence_come_back_from_the_file(made, tmp_path):
    save_quiz(made, tmp_path / "quiz.json")
    again = load_quiz(tmp_path / "quiz.json")
    assert again.scores == SPECS
    first, second = (case.prediction for case in again.cases)
    assert first.scores == VALUES
    assert first.sentence == "benign, box of 12 mm, lobulated 3 of 5, not calcified"
    assert (second.label, second.sentence) == ("", "")


def test_a_quiz_without_scores_has_no_word_of_them(tmp_path):
    save_quiz(phantom_quiz(), tmp_path / "quiz.json")
    text = (tmp_path / "quiz.json").read_text()
    assert '"scores"' not in text
    assert '"sentence"' not in text
    assert load_quiz(tmp_path / "quiz.json").scores == ()


def test_a_score_that_is_not_among_the_quizs_scales_is_refused(made):
    with pytest.raises(QuizError, match="'calcification' is not both in the case and among the quiz's"):
        replace(made, scores=SPECS[:3])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["scores"][0].update(low=9), "'spiculation' runs from 9 to 5; low must be below high"),
        (lambda d: d["scores"][0].update(levels=["a"]), r"scores\[0\]\.levels"),
        (lambda d: d["cases"][0]["answer"]["scores"].update(lobulation="high"), "lobulation"),
        (lambda d: d["cases"][0]["answer"].update(sentence=7), "sentence"),
    ],
)
def test_damaged_scores_in_a_quiz_file_are_refused_by_name(made, tmp_path, change, message):
    path = tmp_path / "quiz.json"
    save_quiz(made, path)
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(QuizError, match=message):
        load_quiz(path)
