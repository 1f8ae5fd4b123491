"""Difficulty, discrimination, over-reliance and benefit, and the sheets beside the score."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import pytest
from LesionLib.inference.results import TRAINING_LESION_TEXT
from LesionRetrievalLib.quiz.attempt import Attempt
from LesionRetrievalLib.quiz.items import items, learned_cases, moodle_csv, questions_csv, reliance
from LesionRetrievalLib.quiz.questions import Question
from LesionRetrievalLib.quiz.report import score_of, summary_page, write_score
from quiz_cases import phantom_quiz

QUESTION = Question("rads", "Which Lung-RADS?", "rating", ("2", "3", "4A"))


def quiz_with_question():
    quiz = phantom_quiz(title="=Nodules")
    known = replace(quiz.cases[1].known, answers={"rads": "4A"})
    return replace(
        quiz, questions=(QUESTION,), cases=(quiz.cases[0], replace(quiz.cases[1], known=known), quiz.cases[2])
    )


def attempt(learner: str, *answers: tuple[str, str], rads: str = "4A") -> Attempt:
    """Cases 1 to 3 (benign, malignant, malignant; the model is wrong about the third), with the first and second answer."""
    made = Attempt(learner, [f"case-{n:02d}" for n in (1, 2, 3)])
    for number, (first, second) in enumerate(answers, start=1):
        case = {"case": f"case-{number:02d}", "seconds": 1}
        for step, more in (
            ("look", {}), ("box", {"box": None}), ("first answer", {"label": first, "confidence": 0.7, "answers": {"rads": rads}}),
            ("reveal", {}), ("second answer", {"label": second, "confidence": 0.7}), ("feedback", {}),
        ):  # fmt: skip
            made.apply({**case, "step": step, **more})
    return made


B, M = "benign", "malignant"
CLASS = (
    attempt("L1", (B, B), (M, M), (M, B)),  # right everywhere, then misled in the third
    attempt("L2", (B, B), (B, M), (M, M)),  # helped in the second
    attempt("L3", (M, M), (B, B), (B, B), rads="2"),  # wrong everywhere; not helped in the first
)


@pytest.fixture(scope="module")
def score():
    return score_of(quiz_with_question(), CLASS)


def test_difficulty_is_the_share_right_and_discrimination_the_correlation_with_the_other_cases(score):
    found = items(score.rows)
    assert [found[f"case-{n:02d}"].difficulty.hits for n in (1, 2, 3)] == [2, 1, 2]
    assert found["case-01"].discrimination == pytest.approx(0.866, abs=1e-3)  # (1, 1, 0) with (1, 0.5, 0)
    assert found["case-02"].discrimination == pytest.approx(0.5, abs=1e-3)  # (1, 0, 0) with (1, 1, 0)


def test_too_few_learners_or_all_alike_have_no_discrimination():
    two = score_of(quiz_with_question(), CLASS[:2])
    assert all(item.discrimination is None for item in items(two.rows).values())
    same = [attempt(f"L{n}", (B, B), (M, M), (M, M)) for n in range(4)]
    assert all(item.discrimination is None for item in items(score_of(quiz_with_question(), same).rows).values())


def test_over_reliance_counts_those_misled_and_benefit_those_helped(score):
    found = reliance(score.rows)
    assert (found.over.hits, found.over.n) == (1, 2)
    assert (found.benefit.hits, found.benefit.n) == (1, 3)
    assert found.over.low < 0.5 < found.over.high
    assert reliance([row for row in score.rows if row.case_id == "case-01"]).over is None


def test_cases_that_the_model_learned_from_are_named_on_the_page(score):
    quiz = quiz_with_question()
    prediction = replace(quiz.cases[1].prediction, warnings=(TRAINING_LESION_TEXT,))
    quiz = replace(quiz, cases=(quiz.cases[0], replace(quiz.cases[1], prediction=prediction), quiz.cases[2]))
    assert learned_cases(quiz) == ["case-02"]
    page = summary_page(quiz, score.summary)
    assert "learned from 1 of the 3 lesions here (case-02)" in page
    assert "learned from" not in summary_page(quiz_with_question(), score.summary)


def test_the_page_says_difficulty_reliance_and_the_teacher_s_questions(score):
    page = summary_page(quiz_with_question(), score.summary)
    for told in (
        "discrimination",
        "+0.87",
        "Over-reliance",
        "50% (1 of 2; ",
        "33% (1 of 3; ",
        "Which Lung-RADS?",
        "67% (2 of 3; ",
    ):
        assert told in page


def test_the_sheet_of_questions_has_a_row_an_answer_and_says_right_only_where_it_is_known(score):
    rows = list(csv.DictReader(io.StringIO(questions_csv(quiz_with_question(), score.rows))))
    assert len(rows) == 9
    assert [(row["learner"], row["right"]) for row in rows if row["case"] == "case-02"] == [
        ("L1", "1"),
        ("L2", "1"),
        ("L3", "0"),
    ]
    assert {row["right"] for row in rows if row["case"] == "case-01"} == {""}


def test_the_sheet_for_moodle_grades_everyone_who_began_and_no_cell_is_a_formula(score):
    text = moodle_csv(quiz_with_question(), score.rows, (*score.learners, "L9"))
    rows = list(csv.reader(io.StringIO(text)))
    assert rows[0][0] == "ID number"
    assert not rows[0][1].startswith("=")
    assert rows[1:] == [
        ["L1", "100.00", "66.67"],
        ["L2", "66.67", "100.00"],
        ["L3", "0.00", "0.00"],
        ["L9", "0.00", "0.00"],
    ]


def test_the_further_sheets_are_written_and_go_where_a_new_score_has_none(score, tmp_path):
    write_score(tmp_path, quiz_with_question(), score.rows, score.summary, moodle_learners=score.learners)
    assert {path.name for path in tmp_path.iterdir()} == {"score.csv", "summary.html", "questions.csv", "moodle.csv"}
    write_score(tmp_path, phantom_quiz(), score.rows, score.summary)
    assert {path.name for path in tmp_path.iterdir()} == {"score.csv", "summary.html"}
