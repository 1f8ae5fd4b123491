"""A teacher's own questions, texts, links and pictures: in the file, in a session, and from one JSON file."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import pytest
from LesionRetrievalLib.quiz.attempt import open_log, order_for, read_attempts
from LesionRetrievalLib.quiz.editing import edited_quiz
from LesionRetrievalLib.quiz.file import load_quiz, quiz_sha256, save_quiz
from LesionRetrievalLib.quiz.model import QuizError
from LesionRetrievalLib.quiz.questions import Question, Teaching
from LesionRetrievalLib.quiz.session import QuizSession
from quiz_cases import Clock, phantom_quiz

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
TEACHING = {
    "order": "fixed",
    "repeat": True,
    "questions": [
        {"id": "site", "text": "Where is it?", "kind": "single", "options": ["upper lobe", "lower lobe"]},
        {"id": "rads", "text": "Which Lung-RADS?", "kind": "rating", "options": ["2", "3", "4A", "4B"]},
        {"id": "likely", "text": "What may it be?", "kind": "differential", "options": ["hamartoma", "carcinoma", "cyst"]},
        {"id": "report", "text": "Describe it.", "kind": "text", "cases": ["case-02"], "optional": True},
    ],
    "cases": {
        "case-02": {
            "feedback": "Spiculation.", "link": "https://example.org/lung", "picture": "case.png", "description": "its margin",
            "answers": {"rads": "4B", "likely": ["carcinoma"]},
        }
    },
}  # fmt: skip
ANSWERS = {"site": "upper lobe", "rads": "3", "likely": ["carcinoma", "cyst"]}


@pytest.fixture
def edited(tmp_path):
    (tmp_path / "case.png").write_bytes(PNG)
    (tmp_path / "teaching.json").write_text(json.dumps(TEACHING))
    return edited_quiz(phantom_quiz(), tmp_path / "teaching.json")


def test_what_the_teacher_gives_is_in_the_file_and_comes_back(edited, tmp_path):
    save_quiz(edited, tmp_path / "quiz.json")
    quiz = load_quiz(tmp_path / "quiz.json")
    assert quiz.questions == edited.questions
    assert (quiz.order, quiz.repeat) == ("fixed", True)
    known = quiz.case("case-02").known
    assert known.teaching == Teaching("https://example.org/lung", PNG, "its margin")
    assert (known.feedback, known.answers) == ("Spiculation.", {"rads": "4B", "likely": ["carcinoma"]})
    assert quiz_sha256(quiz) == quiz_sha256(edited)
    assert [one.question_id for one in quiz.questions_of("case-01")] == ["site", "rads", "likely"]


def test_a_quiz_without_any_of_it_keeps_its_fingerprint_and_its_file():
    quiz = phantom_quiz()
    assert quiz_sha256(replace(quiz, questions=(), order="random")) == quiz_sha256(quiz)


def test_the_first_answer_needs_those_to_the_questions_and_the_log_keeps_them(edited, tmp_path):
    session = QuizSession.open(edited, tmp_path / "answers", learner="L1", clock=Clock())
    session.finish_looking()
    session.take_box()
    for answers, problem in (
        (None, "'site' is not answered"),
        ({**ANSWERS, "rads": "5"}, "give one of 2, 3, 4A, 4B"),
        ({**ANSWERS, "likely": []}, "likeliest first"),
        ({**ANSWERS, "likely": ["cyst", "cyst"]}, "different"),
        ({**ANSWERS, "report": "round"}, "no question of this case"),
    ):
        with pytest.raises(QuizError, match=problem):
            session.answer("benign", 0.7, answers)
    session.answer("benign", 0.7, ANSWERS)
    session.finish_reveal()
    with pytest.raises(QuizError, match="no question of this case"):
        session.answer("benign", 0.8, ANSWERS)
    session.answer("benign", 0.8)
    (attempt,) = read_attempts(edited, tmp_path / "answers")
    assert attempt.records[0].answers == ANSWERS


def test_a_log_without_the_answers_is_refused_where_the_quiz_asks(edited, tmp_path):
    log = open_log(edited, tmp_path, "L1")
    log.append({"case": "case-01", "step": "look", "seconds": 1})
    log.append({"case": "case-01", "step": "box", "seconds": 1, "box": None})
    log.append({"case": "case-01", "step": "first answer", "seconds": 1, "label": "benign", "confidence": 0.5})
    log.append({"case": "case-01", "step": "reveal", "seconds": 1})
    with pytest.raises(QuizError, match="line 4: .*'site' is not answered"):
        read_attempts(edited, tmp_path)


def test_a_fixed_order_is_that_of_the_quiz_for_everyone(edited):
    assert order_for(edited, "L1") == order_for(edited, "L7") == ("case-01", "case-02", "case-03")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"cases": {"case-09": {}}}, "case-09"),
        ({"cases": {"case-01": {"link": "javascript:alert(1)"}}}, "link"),
        ({"cases": {"case-01": {"picture": "none.png", "description": "x"}}}, "none.png"),
        ({"cases": {"case-01": {"picture": "case.png"}}}, "no description"),
        ({"cases": {"case-01": {"picture": "teaching.json", "description": "x"}}}, "PNG or JPEG"),
        ({"cases": {"case-01": {"answers": {"rads": "9"}}}}, "give one of"),
        ({"cases": {"case-01": {"answers": {"other": "9"}}}}, "no such question"),
        ({"questions": [{"id": "a", "text": "?", "kind": "single"}]}, "options"),
        ({"questions": [{"id": "a", "text": "?", "kind": "text"}] * 2}, "twice"),
        ({"questions": [{"id": "a", "text": "?", "kind": "guess"}]}, "kind"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(tmp_path, change, problem):
    (tmp_path / "case.png").write_bytes(PNG)
    (tmp_path / "teaching.json").write_text(json.dumps({**TEACHING, **change}))
    with pytest.raises(QuizError, match=problem) as raised:
        edited_quiz(phantom_quiz(), tmp_path / "teaching.json")
    assert "\n" not in str(raised.value)


def test_an_answer_is_right_by_its_kind():
    rating, differential = Question("a", "?", "rating", ("1", "2")), Question("b", "?", "differential", ("x", "y"))
    assert rating.is_right("2", "2")
    assert not rating.is_right("1", "2")
    assert differential.is_right(["x", "y"], ["x"])
    assert not differential.is_right(["y", "x"], ["x"])
