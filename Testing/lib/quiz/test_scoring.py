"""The score: figures that can be checked by hand."""

from __future__ import annotations

import csv
import io
from types import SimpleNamespace

import pytest
from LesionLib.geometry import LesionBox
from LesionRetrievalLib.quiz.attempt import Attempt, Step
from LesionRetrievalLib.quiz.scoring import Change, ScoreRow, calibration, group, score_csv, score_rows, summarise

COLUMNS = (
    "quiz,learner,position,case,truth,first_answer,first_confidence,first_right,second_answer,second_confidence,"
    "second_right,change,ai_answer,ai_probability,ai_right,agreed_before,agreed_after,box,box_iou,seconds_look,"
    "seconds_box,seconds_first_answer,seconds_reveal,seconds_second_answer,seconds_feedback,seconds_total,interruptions"
)


def a_row(answers: str, *, learner="L1", case_id="case-1", confidence=(0.9, 0.6), **changes) -> ScoreRow:
    """``answers``: truth, first, second, model; one letter each."""
    truth, first, second, model = answers
    usual = {
        "learner": learner,
        "position": 1,
        "case_id": case_id,
        "truth": truth,
        "first": first,
        "first_confidence": confidence[0],
        "second": second,
        "second_confidence": confidence[1],
        "model": model,
        "model_probability": 0.75,
        "box_overlap": None,
        "seconds": {Step.LOOK: 4.0, Step.FIRST_ANSWER: 2.0},
        "interruptions": 0,
    }
    return ScoreRow(**{**usual, **changes})


def test_every_change_has_its_name():
    named = {answers: a_row(answers).change for answers in ("aaaa", "aaba", "abaa", "abba", "abca")}
    assert list(named.values()) == [
        Change.STAYED_RIGHT,
        Change.RIGHT_TO_WRONG,
        Change.WRONG_TO_RIGHT,
        Change.STAYED_WRONG,
        Change.WRONG_TO_WRONG,
    ]


def test_the_figures_of_a_group_are_those_counted_by_hand():
    rows = [a_row("aaaa"), a_row("abaa"), a_row("abba"), a_row("aabb"), a_row("bbbb"), a_row("baab")]
    found = group("all", rows)
    assert (found.before.right.hits, found.after.right.hits, found.ai.hits, found.n) == (3, 3, 5, 6)
    assert found.before.confusion == {("a", "a"): 2, ("a", "b"): 2, ("b", "b"): 1, ("b", "a"): 1}
    assert found.after.confusion == {("a", "a"): 2, ("a", "b"): 2, ("b", "b"): 1, ("b", "a"): 1}
    assert (found.before.agreed_with_ai.hits, found.after.agreed_with_ai.hits) == (2, 4)
    # Differing from a right model: rows 2, 3, 6, of which row 2 took it over; from a wrong one: row 4, which did.
    assert (found.followed_right.hits, found.followed_right.n) == (1, 3)
    assert (found.followed_wrong.hits, found.followed_wrong.n) == (1, 1)
    assert found.changes == {
        Change.STAYED_RIGHT: 2,
        Change.STAYED_WRONG: 2,
        Change.WRONG_TO_RIGHT: 1,
        Change.RIGHT_TO_WRONG: 1,
        Change.WRONG_TO_WRONG: 0,
    }
    assert (found.median_seconds, found.median_total) == ({Step.LOOK: 4.0, Step.FIRST_ANSWER: 2.0}, 6.0)


def test_an_interval_is_wilson_s():
    share = group("all", [a_row("aaaa")] * 8 + [a_row("abba")] * 2).before.right
    assert (share.low, share.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)


def test_calibration_is_that_counted_by_hand():
    found = calibration([0.9, 0.9, 0.6, 0.6], [True, False, True, True])
    assert [(b.low, b.n, b.share_right) for b in found.bins] == [(0.6, 2, 1.0), (0.9, 2, 0.5)]
    assert found.ece == pytest.approx(0.5 * 0.4 + 0.5 * 0.4)
    assert found.brier == pytest.approx((0.01 + 0.81 + 0.16 + 0.16) / 4)
    assert found.overconfidence == pytest.approx(0)


def test_perfect_confidence_has_no_error_and_bins_hold_their_lower_edge():
    found = calibration([1.0, 0.0, 1.0], [True, False, True])
    assert (found.ece, found.brier) == (0, 0)
    edges = calibration([k / 10 for k in range(11)], [True] * 11)
    assert [b.n for b in edges.bins] == [1] * 9 + [2]


def test_the_summary_is_by_learner_and_case_and_names_who_has_not_finished():
    rows = [a_row("aaaa", learner="L1"), a_row("bbbb", learner="L1", case_id="case-2"), a_row("abba", learner="L2")]
    found = summarise(rows, cases_per_learner=2, learners=["L0", "L1", "L2"])
    assert [(one.name, one.n) for one in found.learners] == [("L1", 2), ("L2", 1)]
    assert [(one.name, one.before.right.hits) for one in found.cases] == [("case-1", 1), ("case-2", 1)]
    assert found.unfinished == {"L0": 2, "L2": 1}
    assert summarise([], cases_per_learner=2, learners=["L0"]) is None


# --- the sheet


def a_quiz_of(*case_ids: str) -> SimpleNamespace:
    box = LesionBox([0, 0, 0], [4, 4, 4])
    cases = [
        SimpleNamespace(
            case_id=case_id,
            box=box,
            known=SimpleNamespace(label="a"),
            prediction=SimpleNamespace(label="b", probabilities={"a": 0.2, "b": 0.8}),
        )
        for case_id in case_ids
    ]
    return SimpleNamespace(title="Tuesday, liver", cases=cases)


def an_attempt(*, events: int) -> Attempt:
    attempt = Attempt("L1", ["c2", "c1"])
    box = {"centerRAS": [2, 0, 0], "sizeMm": [4, 4, 4], "axesRAS": [[1, 0, 0], [0, 1, 0], [0, 0, 1]]}
    steps = [
        {"step": "look"},
        {"step": "box", "box": box},
        {"step": "first answer", "label": "a", "confidence": 0.5},
        {"step": "reveal"},
        {"interrupted": True},
        {"step": "second answer", "label": "b", "confidence": 0.25},
        {"step": "feedback"},
        {"step": "look"},
        {"step": "box", "box": None},
    ]
    for place, event in enumerate(steps[:events]):
        if "interrupted" not in event:
            event |= {"case": attempt.record.case_id, "seconds": place + 1}
        attempt.apply(event)
    return attempt


def test_the_columns_of_the_sheet_are_fixed():
    assert score_csv(a_quiz_of("c1"), []) == COLUMNS + "\n"


def test_a_case_is_on_the_sheet_when_both_answers_are_there():
    quiz = a_quiz_of("c1", "c2")
    assert score_rows(quiz, [an_attempt(events=5)]) == []
    assert len(score_rows(quiz, [an_attempt(events=6)])) == 1
    assert len(score_rows(quiz, [an_attempt(events=9)])) == 1


def test_a_row_holds_what_the_learner_did():
    quiz = a_quiz_of("c1", "c2")
    text = score_csv(quiz, score_rows(quiz, [an_attempt(events=7)]))
    (row,) = csv.DictReader(io.StringIO(text))
    assert (row["quiz"], row["learner"], row["position"], row["case"]) == ("Tuesday, liver", "L1", "1", "c2")
    assert (row["truth"], row["first_answer"], row["second_answer"], row["ai_answer"]) == ("a", "a", "b", "b")
    assert (row["first_right"], row["second_right"], row["ai_right"]) == ("1", "0", "0")
    assert (row["agreed_before"], row["agreed_after"], row["change"]) == ("0", "1", "right to wrong")
    assert (row["first_confidence"], row["second_confidence"], row["ai_probability"]) == ("0.5000", "0.2500", "0.8000")
    assert (row["box"], row["box_iou"]) == ("placed", "0.3333")
    assert (row["seconds_look"], row["seconds_second_answer"], row["seconds_feedback"]) == ("1.000", "6.000", "7.000")
    assert (row["seconds_total"], row["interruptions"]) == ("23.000", "1")


def test_a_case_whose_feedback_is_still_read_has_no_time_for_it():
    quiz = a_quiz_of("c1", "c2")
    (row,) = csv.DictReader(io.StringIO(score_csv(quiz, score_rows(quiz, [an_attempt(events=6)]))))
    assert (row["seconds_feedback"], row["seconds_total"]) == ("", "16.000")
