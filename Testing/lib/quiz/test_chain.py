"""The hash chain of a learner's log: what was changed afterwards is said with the score, and nothing is lost by it."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
from LesionRetrievalLib.quiz.attempt import Step, read_attempts
from LesionRetrievalLib.quiz.file import load_quiz
from LesionRetrievalLib.quiz.report import page_can_be_made, score_of, write_score
from LesionRetrievalLib.quiz.session import QuizSession
from quiz_cases import phantom_quiz
from repository import ROOT

EARLIER = ROOT / "Testing" / "fixtures" / "v0_1"


@pytest.fixture(scope="module")
def quiz():
    return phantom_quiz()


@pytest.fixture
def log(quiz, tmp_path) -> Path:
    """Header, look, twice interrupted, box, first answer and so on up to the end of the last case."""
    session = QuizSession.open(quiz, tmp_path / "answers", learner="L1")
    session.finish_looking()
    for _ in range(2):
        session.pause()
        session.resume()
    while session.step is not Step.DONE:
        {
            Step.LOOK: session.finish_looking,
            Step.BOX: session.take_box,
            Step.FIRST_ANSWER: lambda: session.answer("benign", 0.8),
            Step.REVEAL: session.finish_reveal,
            Step.SECOND_ANSWER: lambda: session.answer("malignant", 0.6),
            Step.FEEDBACK: session.next_case,
        }[session.step]()
    assert session.attempt.chain.note("L1") == ""
    return tmp_path / "answers" / "attempt-L1.jsonl"


def test_each_line_ends_with_a_hash_of_the_line_before_and_of_itself(quiz, log):
    last = ""
    for line in log.read_text().splitlines():
        own = json.loads(line)["chain"]
        assert own == hashlib.sha256((last + line.removesuffix(f',"chain":"{own}"}}') + "}").encode()).hexdigest()
        last = own
    (attempt,) = read_attempts(quiz, log.parent)
    assert (attempt.chain.is_kept, attempt.chain.broken, attempt.chain.last) == (True, (), last)
    assert score_of(quiz, [attempt]).notes == ()


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        (lambda lines: [*lines[:5], lines[5].replace('"benign"', '"malignant"'), *lines[6:]], (6,)),
        (lambda lines: [lines[0], lines[1].replace('"seconds":', '"seconds":9'), *lines[2:]], (2,)),
        (lambda lines: [lines[0].replace('"started":"2', '"started":"1'), *lines[1:]], (1,)),
        (lambda lines: [*lines[:2], '{"interrupted":true}', *lines[2:]], (3,)),
        (lambda lines: [*lines[:3], lines[4], lines[3], *lines[5:]], (4, 5, 6)),
        (lambda lines: [*lines[:2], *lines[3:]], (3,)),
        (lambda lines: [lines[0], re.sub(',"chain":"[0-9a-f]+"', "", lines[1]), *lines[2:]], (2, 3)),
    ],
    ids=["an answer", "a time", "the header", "added", "moved", "taken out", "without its hash"],
)
def test_a_line_that_was_changed_afterwards_is_named_with_the_score_and_all_is_counted(quiz, log, change, lines):
    before = log.read_text().splitlines()
    log.write_text("\n".join(change(before)) + "\n")
    assert log.read_text().splitlines() != before
    (attempt,) = read_attempts(quiz, log.parent)
    assert attempt.chain.broken == lines
    score = score_of(quiz, [attempt])
    assert len(score.rows) == len(quiz.cases)
    (note,) = score.notes
    assert note.startswith("The answers of L1 were changed after they were given: line")
    assert ", ".join(map(str, lines)) in note


@pytest.mark.skipif(not page_can_be_made(), reason="the page needs jinja2")
def test_the_score_page_says_that_a_log_was_changed(quiz, log, tmp_path):
    log.write_text(log.read_text().replace('"benign"', '"malignant"', 1))
    score = score_of(quiz, read_attempts(quiz, log.parent))
    write_score(tmp_path / "score", quiz, score.rows, score.summary)
    assert "L1 were changed after they were given: line 6 " in (tmp_path / "score" / "summary.html").read_text("utf-8")


def test_a_changed_log_can_be_gone_on_with_and_the_change_stays_visible(quiz, tmp_path):
    session = QuizSession.open(quiz, tmp_path, learner="L1")
    session.finish_looking()
    path = tmp_path / "attempt-L1.jsonl"
    path.write_text(path.read_text().replace('"seconds":', '"seconds":7'))
    session = QuizSession.open(quiz, tmp_path, learner="L1")
    session.take_box()
    (attempt,) = read_attempts(quiz, tmp_path)
    assert attempt.chain.broken == (2,)
    assert attempt.step is Step.FIRST_ANSWER


def test_a_log_of_an_earlier_version_is_scored_gone_on_with_and_said_to_have_no_chain(tmp_path):
    shutil.copytree(EARLIER / "answers", tmp_path / "answers")
    quiz = load_quiz(EARLIER / "quiz.json")
    path = tmp_path / "answers" / "attempt-L2.jsonl"
    before = path.read_bytes()
    session = QuizSession.open(quiz, path.parent, learner="L2")
    assert path.read_bytes() == before + b'{"interrupted":true}\n'
    session.pause()
    score = score_of(quiz, read_attempts(quiz, path.parent))
    assert len(score.rows) > 0
    assert [note.partition(" by an earlier")[0] for note in score.notes] == [
        "The answers of L1 were written",
        "The answers of L2 were written",
    ]
    assert all("would not be seen" in note for note in score.notes)
