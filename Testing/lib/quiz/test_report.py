"""The summary page: nothing fetched, nothing run, everything escaped, every figure that of the rows."""

from __future__ import annotations

import base64
import io
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from LesionLib.errors import OutputError
from LesionRetrievalLib.quiz.attempt import Step, read_attempts
from LesionRetrievalLib.quiz.report import png_data_uri, score_of, summary_page, write_score
from LesionRetrievalLib.quiz.session import QuizSession
from PIL import Image
from quiz_cases import phantom_quiz

HOSTILE = "Q<script>alert('&')</script>"


@pytest.fixture(scope="module")
def quiz():
    return phantom_quiz(title=HOSTILE, boxes="free")


def learn(quiz, folder, learner, *, cases=99, places=False):
    """Always malignant, then as the model says."""
    session = QuizSession.open(quiz, folder, learner=learner, clock=iter(range(10_000)).__next__)
    while session.step is not Step.DONE and session.position <= cases:
        session.finish_looking()
        if places:
            box = quiz.case(session.attempt.record.case_id).box
            session.place_box(replace(box, sizeMm=box.sizeMm * 2))
        else:
            session.take_box()
        session.answer("malignant", 0.8)
        session.finish_reveal()
        session.answer(session.model_prediction.label, 0.9)
        session.next_case()


@pytest.fixture
def score(quiz, tmp_path):
    def make(*learners: str):
        for place, learner in enumerate(learners):
            learn(quiz, tmp_path / "a", learner, cases=99 if place == 0 else 2, places=place == 1)
        return score_of(quiz, read_attempts(quiz, tmp_path / "a"))

    return make


def test_a_picture_is_read_back_as_it_was():
    grey = np.random.default_rng(0).integers(0, 256, (7, 11)).astype(np.uint8)
    kind, data = png_data_uri(grey).split(",")
    assert kind == "data:image/png;base64"
    assert np.array_equal(np.array(Image.open(io.BytesIO(base64.b64decode(data)))), grey)


class Tags(HTMLParser):
    """Whether every tag is closed where it should be."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "br", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_nothing_in_it_is_fetched_or_run(quiz, score):
    page = summary_page(quiz, score("L1", "L2").summary)
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    for chart in re.findall(r"<svg.*?</svg>", page, flags=re.S):
        ElementTree.fromstring(chart)
    assert "<script" not in page
    assert "Q&lt;script&gt;alert(&#39;&amp;&#39;)&lt;/script&gt;" in page
    assert not re.search(r"https?:|@import|url\(", page)
    assert all(where.startswith("data:image/png") for where in re.findall(r'(?:src|href)="([^"]*)', page))
    assert page.count("Research use only, not for diagnosis.") == 2
    assert page.count("<img") == 3


def test_the_figures_are_those_of_the_rows(quiz, score):
    counted = score("L1", "L2")
    page = summary_page(quiz, counted.summary)
    assert len(counted.rows) == 5
    for share in (counted.summary.everyone.before.right, counted.summary.everyone.after.right):
        assert f"<span>{share.hits} of 5; 95% interval" in page
    assert "3 cases" not in page
    assert "L2 (1 left)" in page
    assert "What the class made of it" in page
    assert "box overlap" in page
    assert "<td>0.12</td>" in page  # one box in another of eight times its volume


def test_one_learner_has_a_page_of_their_own_without_everyone(quiz, score):
    page = summary_page(quiz, score("L1").summary)
    assert "What L1 made of it" in page
    assert ">everyone<" not in page
    assert "box overlap" not in page


def test_a_new_score_replaces_the_sheet_and_a_page_that_would_contradict_it(quiz, score, tmp_path):
    out = tmp_path / "score"
    counted = score("L1")
    write_score(out, quiz, counted.rows, counted.summary)
    (out / "notes.txt").write_text("mine")
    write_score(out, quiz, (), None)
    assert {p.name for p in out.iterdir()} == {"score.csv", "notes.txt"}


def test_without_jinja2_there_is_the_sheet_and_no_page_that_would_contradict_it(quiz, score, tmp_path, monkeypatch):
    out, counted = tmp_path / "score", score("L1")
    write_score(out, quiz, counted.rows, counted.summary)
    monkeypatch.setitem(sys.modules, "jinja2", None)  # as where it is not installed: looking for it fails
    write_score(out, quiz, counted.rows, counted.summary)
    assert {p.name for p in out.iterdir()} == {"score.csv"}
    assert len((out / "score.csv").read_text().splitlines()) == 1 + 3


def test_a_name_in_a_chart_is_text_and_shortened(quiz, score):
    summary = score("L1", "L2").summary
    named = replace(summary.learners[0], name="<b>a name that is far too long")
    page = summary_page(quiz, replace(summary, learners=(named, summary.learners[1])))
    assert "<b>a" not in page
    assert ">&lt;b&gt;a name that is f…</text>" in page
    assert "<title>&lt;b&gt;a name that is far too long: " in page


def test_a_place_that_cannot_be_written_is_told(quiz, score, tmp_path):
    (tmp_path / "file").write_text("")
    counted = score("L1")
    with pytest.raises(OutputError, match="cannot be written"):
        write_score(tmp_path / "file", quiz, counted.rows, counted.summary)
