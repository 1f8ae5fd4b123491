"""A teacher's own questions and teaching in Slicer's panel, and a quiz for learners, whose answers are sealed."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest
from LesionRetrievalLib.quiz.attempt import Step, read_attempts
from LesionRetrievalLib.quiz.file import save_learner_quiz
from LesionRetrievalLib.quiz.questions import Question, Teaching
from LesionRetrievalLib.quiz.report import png_data_uri
from LesionRetrievalLib.quiz_logic import QuizLogic
from quiz_cases import Clock, phantom_quiz

QUESTIONS = (
    Question("rads", "Which Lung-RADS?", "rating", ("2", "3", "4A", "4B")),
    Question("likely", "What may it be?", "differential", ("hamartoma", "carcinoma", "cyst")),
    Question("report", "Describe it.", "text", optional=True),
)


def taught_quiz():
    quiz = replace(phantom_quiz(), questions=QUESTIONS)
    picture = base64.b64decode(png_data_uri(quiz.cases[0].volume.array[10:11, :, 0].astype("uint8")).split(",")[1])
    teaching = Teaching("https://example.org/a&b", picture, "its <margin>")
    cases = (replace(c, known=replace(c.known, teaching=teaching, answers={"rads": "4B"})) for c in quiz.cases)
    return replace(quiz, cases=tuple(cases))


@pytest.fixture
def begun(quiz_room, scene, tmp_path):
    """The panel with a sealed quiz begun, at the first answer."""
    save_learner_quiz(taught_quiz(), tmp_path / "learners.json")
    room = quiz_room(QuizLogic(scene, clock=Clock()))
    ui = room.ui
    ui.quizPathEdit.text, ui.answersPathEdit.text = str(tmp_path / "learners.json"), str(tmp_path / "answers")
    ui.learnerEdit.text = "L1"
    ui.startButton.click()
    ui.goOnButton.click()
    return room


def test_the_questions_are_asked_with_the_first_answer_and_must_be_answered(begun, screenshot):
    ui, form = begun.ui, begun.learner.questions
    begun.learner.answers.choose("benign", 0.8)
    assert ui.goOnButton.toolTip == "Answer: Which Lung-RADS?"
    form.choose("rads", "4A")
    assert not ui.goOnButton.enabled
    form.choose("likely", ["carcinoma", "cyst"])
    form.choose("report", "round")
    screenshot(begun.widget, "quiz-questions")
    assert ui.goOnButton.enabled
    ui.goOnButton.click()
    assert begun.logic.session.step is Step.REVEAL
    assert begun.logic.session.attempt.record.answers == {
        "rads": "4A",
        "likely": ["carcinoma", "cyst"],
        "report": "round",
    }
    ui.goOnButton.click()
    assert form.answers == {}
    begun.learner.answers.choose("benign", 0.8)
    assert ui.goOnButton.enabled  # they are asked once


def test_at_the_feedback_the_teacher_s_answer_picture_and_link_are_shown(begun, tmp_path, screenshot):
    ui = begun.ui
    begun.learner.answers.choose("benign", 0.8)
    begun.learner.questions.choose("rads", "4A")
    begun.learner.questions.choose("likely", ["cyst"])
    ui.goOnButton.click()
    ui.goOnButton.click()
    begun.learner.answers.choose("benign", 0.8)
    ui.goOnButton.click()
    screenshot(begun.widget, "quiz-taught")
    text = ui.feedbackLabel.text
    assert "Which Lung-RADS? You: 4A. Teacher: 4B. <b style='color:#b0433f'>wrong</b>" in text
    assert "What may it be? (" not in text
    assert "You: cyst." in text
    assert "<a href='https://example.org/a&amp;b'>" in text
    assert "data:image/png;base64," in text
    assert "its &lt;margin&gt;" in text
    (attempt,) = read_attempts(taught_quiz(), tmp_path / "answers")
    assert attempt.step is Step.FEEDBACK


def test_the_next_case_asks_anew(begun):
    ui = begun.ui
    for _step in range(5):
        if begun.logic.session.step in (Step.FIRST_ANSWER, Step.SECOND_ANSWER):
            begun.learner.answers.choose("benign", 0.8)
        if begun.logic.session.step is Step.FIRST_ANSWER:
            begun.learner.questions.choose("rads", "2")
            begun.learner.questions.choose("likely", ["cyst"])
        ui.goOnButton.click()
    assert (begun.logic.session.position, begun.logic.session.step) == (2, Step.FIRST_ANSWER)
    assert begun.learner.questions.answers == {}
