"""A quiz taken in a real browser with the network off: its file is scored with one taken through `QuizSession`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from LesionLensApp.web.quiz_page import POLICY, fitted, write_quiz_page
from LesionLensApp.web.viewer import ViewerMissingError, niivue_path
from LesionLib.geometry import CTVolume
from LesionRetrievalLib.library.patches import case_thumbnails
from LesionRetrievalLib.quiz.attempt import Step, order_for, read_attempts
from LesionRetrievalLib.quiz.file import load_quiz, quiz_sha256
from LesionRetrievalLib.quiz.model import Quiz, QuizError, box_overlap
from LesionRetrievalLib.quiz.questions import Question, Teaching
from LesionRetrievalLib.quiz.report import png_data_uri, score_of, write_score
from LesionRetrievalLib.quiz.session import QuizSession
from quiz_cases import phantom_quiz
from repository import ROOT

QUESTIONS = (
    Question("rads", "Which Lung-RADS?", "rating", ("2", "3", "4A", "4B")),
    Question("likely", "What may it be?", "differential", ("hamartoma", "carcinoma", "granuloma")),
    Question("report", "Describe its margin.", "text", cases=("case-02",), optional=True),
)


def taught_quiz(boxes: str) -> Quiz:
    """The phantoms with a teacher's own questions, and in case-02 a picture, a link, and a text that looks like markup."""
    import base64

    quiz = phantom_quiz(boxes=boxes, title="Nodules </script><b>& more</b>")
    png = base64.b64decode(
        png_data_uri(case_thumbnails(quiz.cases[1].volume, quiz.cases[1].box)["axial"]).split(",")[1]
    )
    teaching = Teaching("https://radiopaedia.org/articles/lung", png, "The nodule in the middle")
    known = replace(
        quiz.cases[1].known, teaching=teaching, answers={"rads": "4B", "likely": ["carcinoma", "hamartoma"]}
    )
    cases = (quiz.cases[0], replace(quiz.cases[1], known=known), quiz.cases[2])
    return replace(quiz, cases=cases, questions=QUESTIONS, repeat=True)


@pytest.fixture(scope="module")
def placed() -> Quiz:
    return taught_quiz("placed")


@pytest.fixture(autouse=True)
def viewer_is_there() -> None:
    """A page holds NiiVue."""
    try:
        niivue_path()
    except ViewerMissingError as error:
        pytest.skip(f"No page can be made here: {error}")


@pytest.fixture
def quiz_page(open_page, tmp_path):
    def open_(quiz: Quiz, *, truth: bool = True, context: Any = None, **size: int) -> Any:
        path = tmp_path / "quiz.html"
        write_quiz_page(quiz, path, truth=truth, overwrite=True)
        page = open_page(path, context=context, **size)
        page.wait_for_selector("html[data-ready]")
        return page

    return open_


def at_step(page: Any, step: str, position: int) -> None:
    page.wait_for_function(
        "([step, position]) => quizPage.session?.step === step && quizPage.session.position === position && !quizPage.busy",
        arg=[step, position],
    )


def begin(page: Any, learner: str) -> None:
    page.fill("#learner", learner)
    page.keyboard.press("Enter")
    page.wait_for_function("() => quizPage.session && !document.getElementById('work').hidden && quizPage.shown")


def drag_box(page: Any, box: dict[str, list[float]]) -> None:
    """Two drags by mouse: the rectangle on the axial slice through its middle, its depth in the coronal plane."""
    center, half = np.array(box["centerRAS"]), np.array(box["sizeMm"]) / 2
    page.evaluate("ras => quizPage.viewer.goTo(ras)", center.tolist())
    stage = page.locator(".stage")
    for plane, low, high in (
        ("axial", center - half * [1, 1, 0], center + half * [1, 1, 0]),
        ("coronal", center + [half[0] + 6, 0, -half[2]], center + [half[0] + 6, 0, half[2]]),
    ):
        page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        place = stage.bounding_box()
        for ras, act in ((low, page.mouse.down), (high, page.mouse.up)):
            x, y = page.evaluate("([plane, ras]) => quizPage.viewer.pixelOf(plane, ras)", [plane, ras.tolist()])
            page.mouse.move(place["x"] + x, place["y"] + y, steps=3)
            act()


def answer(page: Any, key: str, sure: str = "+") -> None:
    page.keyboard.press(key)
    page.keyboard.press(sure)


def case_at(page: Any) -> str:
    return page.evaluate("quizPage.session.record.id")


def fill_questions(page: Any) -> None:
    page.get_by_label("4B", exact=True).check()
    page.get_by_label("What may it be?: number 1").select_option("carcinoma")
    if page.locator("textarea").count():
        page.locator("textarea").fill("spiculated, \u201clong\u201d spikes")


def saved(page: Any, folder: Path, button: str = "#download") -> Path:
    with page.expect_download() as download:
        page.click(button)
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def through_session(quiz: Quiz, folder: Path, learner: str) -> None:
    session = QuizSession.open(quiz, folder, learner=learner)
    while session.step is not Step.DONE:
        session.finish_looking()
        session.place_box(quiz.case(session.attempt.record.case_id).box)
        answers = {"rads": "3", "likely": ["hamartoma"]}
        session.answer("benign", 0.7, answers)
        session.finish_reveal()
        session.answer("benign", 0.9)
        session.next_case()


def test_a_quiz_taken_in_the_page_is_scored_with_one_taken_in_a_session(quiz_page, placed, tmp_path, accessibility):
    page = quiz_page(placed)
    begin(page, "web-1")
    problems = []
    for position in range(1, 4):
        at_step(page, "look", position)
        page.click("#go-on")
        at_step(page, "box", position)
        box = placed.case(case_at(page)).box
        drag_box(page, {"centerRAS": box.centerRAS.tolist(), "sizeMm": box.sizeMm.tolist()})
        page.click("#go-on")
        at_step(page, "first answer", position)
        assert page.locator("#go-on").is_disabled()
        answer(page, "2")
        fill_questions(page)
        problems += accessibility(page) if position == 1 else []
        page.click("#go-on")
        at_step(page, "reveal", position)
        assert page.locator(".gallery li").count() == 5
        assert "The model says" in page.locator("#body").inner_text()
        problems += accessibility(page) if position == 1 else []
        page.click("#go-on")
        at_step(page, "second answer", position)
        answer(page, "2")
        page.click("#go-on")
        at_step(page, "feedback", position)
        told = page.locator("#body").inner_text()
        assert placed.case(case_at(page)).known.label in told
        if case_at(page) == "case-02":
            assert "it is <spiculated>." in told
            assert page.locator("img.taught").get_attribute("alt") == "The nodule in the middle"
            assert page.evaluate("document.querySelector('img.taught').naturalWidth") > 20
            assert "Teacher: 4B" in told
        problems += accessibility(page) if position == 1 else []
        page.click("#go-on")
    page.wait_for_selector("#download")
    assert "2 of 3" in page.locator("#end").inner_text()
    problems += accessibility(page)
    assert problems == []
    folder = tmp_path / "answers"
    path = saved(page, folder)
    assert path.name == "attempt-web-1.jsonl"
    through_session(placed, folder, "L1")
    attempts = {one.learner: one for one in read_attempts(placed, folder)}
    assert attempts["web-1"].order == order_for(placed, "web-1")
    for attempt in attempts.values():  # one log, whoever writes it
        assert (attempt.chain.is_kept, attempt.chain.broken) == (True, ())
    assert [record.answers["likely"] for record in attempts["web-1"].records] == [["carcinoma"]] * 3
    assert {r.case_id: r.answers.get("report") for r in attempts["web-1"].records}["case-02"].startswith("spiculated")
    for record in attempts["web-1"].records:
        assert box_overlap(record.box, placed.case(record.case_id).box) > 0.8
    score = score_of(placed, attempts.values())
    assert {one.name: one.before.right.hits for one in score.summary.learners} == {"L1": 1, "web-1": 2}
    # A step of L1, who is no person, may take less than the millisecond that is counted.
    assert all((row.learner != "L1") <= sum(row.seconds.values()) * 1000 < 600_000 for row in score.rows)


def test_what_was_answered_is_there_when_the_page_is_closed_in_the_middle(quiz_page, browser, tmp_path):
    quiz = taught_quiz("given")
    context = browser.new_context(viewport={"width": 1100, "height": 800}, offline=True)
    page = quiz_page(quiz, context=context)
    begin(page, "L07")
    page.click("#go-on")
    at_step(page, "first answer", 1)
    answer(page, "1")
    fill_questions(page)
    page.click("#go-on")
    at_step(page, "reveal", 1)
    page.close()  # as a crash would
    page = quiz_page(quiz, context=context)
    page.get_by_role("button", name="Go on as L07").click()
    at_step(page, "reveal", 1)
    page.wait_for_function("() => quizPage.viewer.overlay !== null")
    assert "Welcome back" in page.locator("#welcome").inner_text()
    assert "The model says" in page.locator("#body").inner_text()
    page.click("#pause")
    page.wait_for_function("() => quizPage.session.isPaused && !quizPage.viewer.hasVolume")
    assert page.locator(".gallery").count() == 0
    page.click("#go-on")
    page.wait_for_function("() => !quizPage.session.isPaused && quizPage.viewer.hasVolume && !quizPage.busy")
    path = saved(page, tmp_path / "answers", "#save")
    (attempt,) = read_attempts(quiz, path.parent)
    assert (attempt.step, attempt.records[0].interruptions) == (Step.REVEAL, 2)
    context.close()


def test_the_whole_of_a_case_goes_by_keys_alone_at_400_pixels(quiz_page, placed, accessibility):
    page = quiz_page(placed, width=400, height=800)
    begin(page, "K1")
    page.keyboard.press("Enter")
    at_step(page, "box", 1)
    page.locator(".stage").focus()
    page.keyboard.press("b")
    page.keyboard.press("Enter")
    at_step(page, "first answer", 1)
    for key in ("2", "+", "+"):
        page.keyboard.press(key)
    page.get_by_label("2", exact=True).focus()
    page.keyboard.press("Space")
    page.get_by_label("What may it be?: number 1").focus()
    page.keyboard.press("ArrowDown")
    page.locator("#step").focus()
    page.keyboard.press("Enter")
    at_step(page, "reveal", 1)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert accessibility(page) == []
    page.keyboard.press("Enter")
    at_step(page, "second answer", 1)
    page.keyboard.press("1")
    page.keyboard.press("-")
    page.keyboard.press("Enter")
    at_step(page, "feedback", 1)
    events = [json.loads(line) for line in page.evaluate("quizPage.session.lines").splitlines()[1:]]
    assert [event["label"] for event in events if "label" in event] == ["malignant", "benign"]
    assert [event["confidence"] for event in events if "label" in event] == [0.6, 1]


def through_page(page: Any) -> None:
    for step in ("look", "first answer", "reveal", "second answer", "feedback"):
        at_step(page, step, 1)
        if "answer" in step:
            answer(page, "1")
        page.click("#go-on")
    page.wait_for_selector("#download")


def test_a_quiz_taken_once_more_has_a_log_of_its_own_and_the_first_stays(quiz_page, tmp_path):
    quiz = phantom_quiz()
    quiz = replace(quiz, cases=quiz.cases[:1], repeat=True)
    page = quiz_page(quiz)
    begin(page, "L1")
    through_page(page)
    first = saved(page, tmp_path / "answers").read_bytes()
    for again in ("L1.2", "L1.3"):
        page.get_by_role("button", name="Take it once more").click()
        at_step(page, "look", 1)
        assert page.evaluate("quizPage.session.learner") == again
        assert "The model says" not in page.locator("#body").inner_text()
        through_page(page)
        saved(page, tmp_path / "answers")
    attempts = read_attempts(quiz, tmp_path / "answers")
    assert [attempt.learner for attempt in attempts] == ["L1", "L1.2", "L1.3"]
    assert all(attempt.records[0].is_answered and not attempt.chain.broken for attempt in attempts)
    assert page.evaluate("localStorage.getItem(quizPage.store.prefix + 'L1')").encode() == first


def test_a_quiz_that_may_not_be_repeated_has_no_button_for_it(quiz_page):
    quiz = phantom_quiz()
    page = quiz_page(replace(quiz, cases=quiz.cases[:1]))
    begin(page, "L1")
    through_page(page)
    assert page.get_by_role("button", name="Next learner").is_visible()
    assert page.get_by_role("button", name="Take it once more").count() == 0


def test_without_the_truth_the_page_gives_no_feedback_and_the_teacher_scores(quiz_page, tmp_path):
    quiz = replace(phantom_quiz(), order="fixed")
    page = quiz_page(quiz, truth=False)
    begin(page, "E1")
    for position, case in enumerate(quiz.cases, start=1):
        at_step(page, "look", position)
        assert case_at(page) == case.case_id
        page.click("#go-on")
        for step in ("first answer", "reveal", "second answer", "feedback"):
            at_step(page, step, position)
            if "answer" in step:
                answer(page, "1")
            if step == "feedback":
                assert "It is" not in page.locator("#body").inner_text()
            page.click("#go-on")
    page.wait_for_selector("#download")
    assert "your teacher has the truth" in page.locator("#end").inner_text()
    saved(page, tmp_path / "answers")
    assert score_of(quiz, read_attempts(quiz, tmp_path / "answers")).summary.everyone.before.right.hits == 1


def test_the_file_holds_no_answer_in_the_open_and_forbids_every_connection(placed, tmp_path):
    write_quiz_page(placed, tmp_path / "quiz.html")
    text = (tmp_path / "quiz.html").read_text(encoding="utf-8")
    own = text[: text.index("/*! NiiVue")]
    for told in (
        "histology",
        "it is <spic",
        "radiopaedia",
        "probabilities",
        '"similar"',
        "lib-1",
        "The nodule in the middle",
    ):
        assert told not in own
    assert "connect-src 'none'" in POLICY
    assert "eval" not in POLICY.replace("unsafe-inline", "")
    assert own.count("</script") == 2  # what the title says ends nothing
    assert len(text.encode()) < 8e6


def noisy_quiz(cases: int) -> Quiz:
    """Cases as thin slices of a real CT make them: noise that hardly packs, 12 mm lesions with 30 mm around."""
    chance = np.random.default_rng(0)
    quiz = phantom_quiz()
    noise = chance.normal(-700, 30, (56, 112, 112)).astype(np.int16)
    to_ras = np.diag([-0.7, -0.7, 1.25, 1.0])
    to_ras[:3, 3] = quiz.cases[0].box.centerRAS - to_ras[:3, :3] @ (56, 56, 28)
    one = quiz.cases[0]
    made = (
        replace(one, case_id=f"case-{n:02d}", volume=CTVolume(noise + np.int16(n), to_ras, name=f"case-{n:02d}"))
        for n in range(cases)
    )
    return replace(quiz, cases=tuple(made))


def test_twelve_cases_of_thin_slices_stay_below_eight_megabytes_and_keep_ten_slices(tmp_path):
    quiz = noisy_quiz(12)
    margin = write_quiz_page(quiz, tmp_path / "quiz.html")
    assert 10 <= margin < 25
    assert 5e6 < (tmp_path / "quiz.html").stat().st_size < 8e6
    shown, _ = fitted(quiz)
    assert all(min(case.volume.array.shape) >= 10 for case in shown.cases)
    text = (tmp_path / "quiz.html").read_text(encoding="utf-8")
    assert f'"quiz":"{quiz_sha256(quiz)}"' in text  # answers belong to the teacher's quiz


def test_only_a_quiz_page_is_ever_overwritten(placed, tmp_path):
    write_quiz_page(placed, tmp_path / "quiz.html")
    write_quiz_page(placed, tmp_path / "quiz.html", overwrite=True)
    (tmp_path / "quiz.html").write_text("<!doctype html><title>My thesis</title>")
    with pytest.raises(QuizError, match="not a quiz page"):
        write_quiz_page(placed, tmp_path / "quiz.html", overwrite=True)


def test_a_quiz_of_an_earlier_version_becomes_a_page(tmp_path):
    quiz = load_quiz(ROOT / "Testing" / "fixtures" / "v0_1" / "quiz.json")
    assert write_quiz_page(quiz, tmp_path / "quiz.html") is None
    assert quiz_sha256(quiz) in (tmp_path / "quiz.html").read_text(encoding="utf-8")


def test_the_score_page_is_usable_at_400_pixels_and_printed_without_what_scrolls(
    placed, open_page, accessibility, tmp_path
):
    through_session(placed, tmp_path / "answers", "L1")
    score = score_of(placed, read_attempts(placed, tmp_path / "answers"))
    write_score(tmp_path / "score", placed, score.rows, score.summary)
    page = open_page(tmp_path / "score" / "summary.html", width=400)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert accessibility(page) == []
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.querySelector('section')).overflowX") == "visible"
