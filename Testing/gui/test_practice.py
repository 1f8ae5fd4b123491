"""The first day without any data: a practice library and a practice quiz at a click, to be cancelled, kept and used."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from kind_runner import KindRunner
from LesionLib.errors import CaseLibraryError
from LesionRetrievalLib.practice import LIBRARY_CASES, QUIZ_CASES, make_practice_library, practice_files
from LesionRetrievalLib.quiz.attempt import Step
from LesionRetrievalLib.quiz_logic import QuizLogic

LONG = 200


@pytest.fixture(autouse=True)
def own_data(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


@pytest.fixture(scope="session")
def practised(tmp_path_factory):
    """A practice library, made once for all tests."""
    folder = tmp_path_factory.mktemp("practised")
    return make_practice_library(practice_files(folder), KindRunner(), key_path=folder / "key")


@pytest.fixture
def with_library(practised):
    """The practice library was made on another day."""
    path = practice_files().library
    path.parent.mkdir(parents=True)
    return Path(shutil.copy(practised, path))


@pytest.fixture
def panel(module_widget):
    def make(**options):
        return module_widget("LesionRetrieval", size=(600, 1800), runner=KindRunner(**options))

    return make


@pytest.fixture
def room(quiz_room, scene):
    def make(**options):
        return quiz_room(QuizLogic(scene, makeRunner=lambda: KindRunner(**options)))

    return make


def test_where_no_library_is_open_a_click_makes_one_and_opens_it(panel, spin, screenshot, told):
    shown = panel()
    ui = shown.ui
    assert ui.practiceLibraryButton.visible
    assert ui.practiceLibraryButton.enabled
    assert str(practice_files().library.parent) in ui.practiceLibraryButton.toolTip
    screenshot(shown, "practice-offered")
    ui.practiceLibraryButton.click()
    assert not ui.practiceLibraryButton.enabled
    assert ui.cancelButton.enabled
    assert ui.progressBar.maximum == LIBRARY_CASES
    assert spin(until=lambda: not shown.panel.practice.isRunning, seconds=LONG)
    assert "24 cases: calcified 8, solid 8, subsolid 8" in ui.libraryLabel.text
    assert "no patient" in ui.statusLabel.text
    assert not ui.practiceLibraryButton.visible
    assert not ui.progressBar.visible
    assert ui.modelSelector.currentText == "lung-nodule-kind"
    assert Path(shown._parameterNode.libraryPath) == practice_files().library
    assert not told.of("error")
    screenshot(shown, "practice-library")


def test_a_practice_library_that_is_there_is_opened_and_searched_like_any_other(panel, spin, a_case, with_library):
    written = with_library.stat().st_mtime_ns
    shown = panel()
    shown.initializeParameterNode()
    shown.ui.practiceLibraryButton.click()
    spin(until=lambda: not shown.panel.practice.isRunning, seconds=LONG)
    assert with_library.stat().st_mtime_ns == written
    shown.ui.findButton.click()
    assert spin(until=lambda: not shown.panel.run.isRunning, seconds=LONG)
    found = [card.neighbour.label for card in shown.panel.found.gallery.cards[:9] if card.neighbour is not None]
    assert len(found) == 9
    assert set(found[:5]) <= {"calcified", "solid", "subsolid"}


def test_making_it_can_be_cancelled_and_leaves_nothing(panel, spin, told):
    shown = panel(waits_after=3)
    shown.ui.practiceLibraryButton.click()
    spin(until=lambda: shown.ui.progressBar.value >= 2, seconds=LONG)
    shown.ui.cancelButton.click()
    assert spin(until=lambda: not shown.panel.practice.isRunning, seconds=LONG)
    assert shown.ui.statusLabel.text == "Cancelled."
    assert shown.ui.libraryLabel.text == "No library is open."
    assert shown.ui.practiceLibraryButton.enabled
    assert not practice_files().library.exists()
    assert not told.of("error")


def test_while_it_is_made_nothing_else_is_asked(panel, spin, a_case):
    shown = panel(waits_after=2)
    shown.initializeParameterNode()
    shown.ui.practiceLibraryButton.click()
    spin(0.1)
    assert shown.ui.findButton.toolTip == "The practice library is being made."
    shown.panel.practice.cancel()
    spin(until=lambda: not shown.panel.practice.isRunning, seconds=LONG)


def test_what_goes_wrong_is_told_once_and_the_panel_goes_on(panel, spin, told, monkeypatch):
    def fails(*_arguments, **_options):
        msg = "the disk is full."
        raise CaseLibraryError(msg)

    monkeypatch.setattr("LesionRetrievalLib.practice.make_practice_library", fails)
    shown = panel()
    shown.ui.practiceLibraryButton.click()
    spin(until=lambda: not shown.panel.practice.isRunning, seconds=LONG)
    assert told.of("error") == ["the disk is full."]
    assert shown.ui.practiceLibraryButton.enabled


def test_without_torch_practice_says_what_is_missing(panel, monkeypatch):
    shown = panel()
    package = type("Package", (), {"name": "torch", "requirement": "torch"})()
    monkeypatch.setattr(shown.panel, "_missing", lambda: [package])
    shown.panel.update()
    assert not shown.ui.practiceLibraryButton.enabled
    assert "torch is missing" in shown.ui.practiceLibraryButton.toolTip


def test_a_practice_quiz_is_made_and_only_a_code_is_left_to_type(room, spin, screenshot, told, with_library):
    teaching = room()
    ui = teaching.ui
    screenshot(teaching.widget, "practice-quiz-offered")
    ui.practiceQuizButton.click()
    assert ui.practiceProgress.maximum == QUIZ_CASES
    assert (ui.practiceQuizButton.enabled, ui.cancelPracticeButton.enabled) == (False, True)
    assert spin(until=lambda: not teaching.practice.run.isRunning, seconds=LONG)
    assert ui.quizPathEdit.text == str(practice_files().quiz)
    assert ui.startButton.toolTip == "Type your code."
    assert "type a code" in ui.practiceLabel.text
    ui.learnerEdit.text = "L1"
    ui.startButton.click()
    assert f"Case 1 of {QUIZ_CASES}" in ui.caseLabel.text
    assert teaching.logic.session.step is Step.LOOK
    assert not told.of("error")
    screenshot(teaching.widget, "practice-quiz")
    # Another day: the quiz that is there is taken at once.
    written = practice_files().quiz.stat().st_mtime_ns
    teaching.logic.stop()
    ui.quizPathEdit.text = ""
    teaching.practice.make()
    assert spin(until=lambda: not teaching.practice.run.isRunning, seconds=LONG)
    assert ui.quizPathEdit.text == str(practice_files().quiz)
    assert practice_files().quiz.stat().st_mtime_ns == written


def test_making_the_practice_quiz_can_be_cancelled(room, spin, told, with_library):
    teaching = room(waits_after=2)
    teaching.ui.practiceQuizButton.click()
    assert teaching.ui.practiceProgress.maximum == QUIZ_CASES
    spin(until=lambda: teaching.ui.practiceProgress.value >= 1, seconds=LONG)
    teaching.ui.cancelPracticeButton.click()
    assert spin(until=lambda: not teaching.practice.run.isRunning, seconds=LONG)
    assert not practice_files().quiz.exists()
    assert teaching.ui.practiceQuizButton.enabled
    assert not told.of("error")
