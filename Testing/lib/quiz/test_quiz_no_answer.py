"""A case of a quiz that the model has no answer for: nothing is revealed, nothing is counted against anybody."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import numpy as np
import pytest
from LesionLib.errors import InputWarning, WarningName
from LesionLib.inference.results import LesionResult
from LesionRetrievalLib.quiz.file import load_quiz, save_quiz
from LesionRetrievalLib.quiz.making import LabelledLesion, QuizPlan, make_quiz
from LesionRetrievalLib.quiz.model import Quiz
from LesionRetrievalLib.quiz.scoring import ScoreRow, group, score_csv
from quiz_cases import CLASSES, MODEL, phantom_quiz


@pytest.fixture
def quiz() -> Quiz:
    """The first case has no answer."""
    whole = phantom_quiz()
    first = whole.cases[0]
    silent = replace(first.prediction, label="", heat_map=None, warnings=("The box is far too large.",))
    return replace(whole, cases=(replace(first, prediction=silent), *whole.cases[1:]))


def a_row(model: str, *, first: str = "benign", second: str = "benign") -> ScoreRow:
    return ScoreRow(
        learner="L1", position=1, case_id="case-01", truth="benign", first=first, first_confidence=0.8, second=second,
        second_confidence=0.8, model=model, model_probability=0.7 if model else None, box_overlap=None, seconds={},
        interruptions=0,
    )  # fmt: skip


def test_a_quiz_made_with_a_model_that_abstains_has_no_label_and_keeps_the_reason():
    case = phantom_quiz().cases[0]

    def answer(volume, box) -> LesionResult:
        warning = InputWarning(WarningName.BOX_SIZE, "The box is far too large.")
        probabilities = {"benign": 0.2, "malignant": 0.8}
        return LesionResult(box.name, box, "", probabilities, np.ones(4, np.float32) / 2, None, (warning,))

    lesion = LabelledLesion(case.volume, case.box, "benign", "histology")
    made = make_quiz([lesion], plan=QuizPlan("Quiz"), model=MODEL, classes=CLASSES, answer=answer)
    assert made.cases[0].prediction.label == ""
    assert made.cases[0].prediction.warnings == ("The box is far too large.",)


def test_it_is_saved_and_read_back(quiz, tmp_path):
    save_quiz(quiz, tmp_path / "quiz.json")
    again = load_quiz(tmp_path / "quiz.json")
    assert [case.prediction.label for case in again.cases] == [case.prediction.label for case in quiz.cases]
    assert again.cases[0].prediction.label == ""
    assert dict(again.cases[0].prediction.probabilities) == dict(quiz.cases[0].prediction.probabilities)


def test_the_model_is_scored_on_the_cases_that_it_answers():
    rows = [a_row("benign"), a_row("malignant"), a_row("", first="malignant")]
    found = group("all", rows)
    assert (found.ai.hits, found.ai.n) == (1, 2)
    assert (found.before.agreed_with_ai.hits, found.before.agreed_with_ai.n) == (1, 2)
    assert (found.before.right.hits, found.before.right.n) == (2, 3)
    assert (found.followed_wrong.hits, found.followed_wrong.n) == (0, 1)  # differing from no answer is no difference


def test_a_model_without_any_answer_has_none_right():
    found = group("all", [a_row(""), a_row("")])
    assert (found.ai.hits, found.ai.n) == (0, 2)
    assert found.followed_right is found.followed_wrong is None


def test_the_sheet_leaves_the_model_s_columns_empty(quiz):
    answered, silent = csv.DictReader(io.StringIO(score_csv(quiz, [a_row("benign"), a_row("")])))
    names = ("ai_answer", "ai_probability", "ai_right", "agreed_before", "agreed_after")
    assert [silent[name] for name in names] == [""] * 5
    assert [answered[name] for name in names] == ["benign", "0.7000", "1", "1", "1"]
