"""The teaching room as a teacher meets it: pick cases, say what is told of them, let the model answer, check the quiz."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from LesionClassifierLib.scene.lesions import addRoiNode
from LesionClassifierLib.scene.volumes import addVolumeNode, nodesOfClass
from LesionLib.inference.runner import WorkerRunner
from LesionLib.model.folder import golden_case
from LesionRetrievalLib.quiz.file import load_quiz, save_quiz
from LesionRetrievalLib.quiz.model import Quiz
from LesionRetrievalLib.quiz_logic import QuizLogic
from quiz_cases import MODEL, CannedRunner, phantom_quiz, write_library

LONG = 60


@pytest.fixture
def room(quiz_room, scene):
    """The teaching room in a window, as the module makes it; the teacher has chosen the model of malignancy."""
    teaching = quiz_room(QuizLogic(scene))
    teaching.ui.quizModelSelector.setCurrentText(MODEL.name)
    return teaching


@pytest.fixture
def canned(room):
    """Runners that were made, the last one at the end."""
    made = [CannedRunner()]
    room.logic._makeRunner = lambda: made[-1]
    return made


@pytest.fixture
def library_path(tmp_path):
    return write_library(tmp_path / "cases.lesionlib")


@pytest.fixture
def teaching(room, canned, library_path):
    """The teacher's tab with a library."""
    ui = room.ui
    ui.quizTabs.currentIndex = 1
    ui.titleEdit.text = "Tuesday"
    ui.caseLibraryEdit.text = str(library_path)
    room.teacher.cases.readLibrary()
    return room


def chosen(room) -> list[str]:
    return [one.caseId for one in room.teacher.cases.chosen]


def made(room, spin, path: Path) -> Quiz:
    room.teacher.make(path)
    assert spin(until=lambda: not room.teacher.isMaking, seconds=LONG)
    return load_quiz(path)


def test_cases_are_listed_filtered_chosen_and_removed(teaching, screenshot):
    ui = teaching.ui
    assert ui.libraryTable.rowCount == 8  # one has no CT
    assert "8 cases can be asked" in ui.caseLibraryLabel.text
    ui.quizLabelSelector.setCurrentText("malignant")
    assert ui.libraryTable.rowCount == 4
    assert not ui.addCasesButton.enabled
    ui.libraryTable.selectAll()
    ui.addCasesButton.click()
    ui.addCasesButton.click()
    assert chosen(teaching) == ["case-1", "case-3", "case-5", "case-7"]
    assert "malignant 4" in ui.chosenLabel.text
    ui.chosenTable.selectRow(0)
    ui.removeCaseFromQuizButton.click()
    assert chosen(teaching) == ["case-3", "case-5", "case-7"]
    screenshot(teaching.widget, "quiz-make")


def test_drawing_takes_so_many_of_each_label_the_same_for_the_same_seed(teaching, told):
    ui = teaching.ui
    ui.perLabelSpinBox.value = 2
    ui.drawButton.click()
    first = chosen(teaching)
    assert sorted(int(name[-1]) % 2 for name in first) == [0, 0, 1, 1]
    ui.chosenTable.selectAll()
    ui.removeCaseFromQuizButton.click()
    ui.drawButton.click()
    assert chosen(teaching) == first
    ui.perLabelSpinBox.value = 5
    ui.drawButton.click()
    assert "5 cases of 'benign' are wanted and there are 4" in told


def test_a_quiz_of_library_cases_is_made_in_the_background_with_words_for_each_case(
    teaching, canned, spin, tmp_path, screenshot
):
    ui = teaching.ui
    ui.perLabelSpinBox.value = 2
    ui.drawButton.click()
    ui.chosenTable.item(0, 2).setText("Note the margin.")
    ui.instructionsEdit.plainText, ui.boxesSelector.currentIndex, ui.seedSpinBox.value = "Look.", 1, 9
    quiz = made(teaching, spin, tmp_path / "q.json")
    assert (quiz.title, quiz.instructions, quiz.boxes, quiz.seed) == ("Tuesday", "Look.", "placed", 9)
    assert [case.known.feedback for case in quiz.cases] == ["Note the margin.", "", "", ""]
    assert canned[-1].asked == ["case-01", "case-02", "case-03", "case-04"]  # once each, and under no other name
    assert canned[-1].is_closed
    assert all(case.prediction.similar for case in quiz.cases)
    assert "every check passed" in ui.makeLabel.text
    assert "the model lung-nodule-malignancy 1.0.0 is right in 2" in ui.makeLabel.text
    assert "a note of the owner" not in (tmp_path / "q.json").read_text()
    assert ui.quizPathEdit.text == str(tmp_path / "q.json")  # ready to be taken
    assert quiz.classes[1].description != ""
    spin(0.2)
    screenshot(teaching.widget, "quiz-made")


def test_a_lesion_of_the_scene_becomes_a_case_with_its_typed_truth(teaching, scene, spin, tmp_path):
    volume, box = golden_case()
    addVolumeNode(scene, replace(volume, name="Doe^Jane"))
    addRoiNode(scene, replace(box, name="L1 of Doe"))
    spin(0.1)
    ui = teaching.ui
    ui.sceneVolumeSelector.setCurrentNode(nodesOfClass(scene, "vtkMRMLScalarVolumeNode")[0])
    ui.sceneLesionSelector.setCurrentNode(nodesOfClass(scene, "vtkMRMLMarkupsROINode")[0])
    ui.sceneLabelSelector.setCurrentText("malignant")
    ui.sceneSourceEdit.text = "histology"
    ui.addSceneButton.click()
    ui.chosenTable.item(0, 2).setText("A sphere.")
    quiz = made(teaching, spin, tmp_path / "q.json")
    (case,) = quiz.cases
    assert (case.known.label, case.known.label_source, case.known.feedback) == ("malignant", "histology", "A sphere.")
    text = (tmp_path / "q.json").read_text()
    assert not any(name in text for name in ("Doe^Jane", "L1 of Doe"))
    assert case.box.sizeMm == pytest.approx(box.sizeMm, abs=1e-3)


def test_a_lesion_without_words_how_it_is_known_is_refused(teaching, scene, spin, told):
    volume, box = golden_case()
    ct, roi = addVolumeNode(scene, volume), addRoiNode(scene, box)
    spin(0.1)
    teaching.ui.sceneVolumeSelector.setCurrentNode(ct)
    teaching.ui.sceneLesionSelector.setCurrentNode(roi)
    teaching.ui.addSceneButton.click()
    assert "label_source" in told
    assert chosen(teaching) == []


def test_cancel_writes_nothing_and_the_next_try_works(teaching, canned, spin, tmp_path):
    canned.append(CannedRunner(waits=True))
    teaching.ui.perLabelSpinBox.value = 1
    teaching.ui.drawButton.click()
    teaching.teacher.make(tmp_path / "q.json")
    spin(0.1)
    assert teaching.ui.cancelMakeButton.enabled
    assert not teaching.ui.makeQuizButton.enabled
    teaching.ui.cancelMakeButton.click()
    assert spin(until=lambda: not teaching.teacher.isMaking, seconds=10)
    assert "Cancelled" in teaching.ui.makeLabel.text
    assert not (tmp_path / "q.json").exists()
    canned.append(CannedRunner())
    assert len(made(teaching, spin, tmp_path / "q.json").cases) == 2


def test_a_library_of_another_model_is_told_and_without_similar_cases_it_works(teaching, canned, spin, tmp_path, told):
    canned.append(CannedRunner("b" * 64))
    teaching.ui.perLabelSpinBox.value = 1
    teaching.ui.drawButton.click()
    teaching.teacher.make(tmp_path / "q.json")
    spin(until=lambda: not teaching.teacher.isMaking, seconds=10)
    assert "was made with" in told
    assert not (tmp_path / "q.json").exists()
    teaching.ui.similarSpinBox.value = 0
    canned.append(CannedRunner("b" * 64))
    assert all(case.prediction.similar == () for case in made(teaching, spin, tmp_path / "q.json").cases)


def test_the_make_button_says_what_is_missing(room, canned):
    ui = room.ui
    assert ui.makeQuizButton.toolTip == "Give the quiz a title."
    ui.titleEdit.text = "T"
    assert ui.makeQuizButton.toolTip == "Choose some cases."
    room.teacher._missing = lambda: [type("Missing", (), {"name": "torch"})]
    room.teacher._update()
    assert "torch is missing" in ui.makeQuizButton.toolTip


def test_a_quiz_is_checked_by_a_dialog(room, monkeypatch, told, tmp_path):
    import qt

    path = tmp_path / "quiz.json"
    save_quiz(phantom_quiz(), path)
    monkeypatch.setattr(qt.QFileDialog, "getOpenFileName", lambda *_: str(path))
    room.ui.checkQuizButton.click()
    assert "benign 1, malignant 2" in room.ui.makeLabel.text
    assert "2 with words" not in room.ui.makeLabel.text
    assert "1 with words" in room.ui.makeLabel.text
    (tmp_path / "broken.json").write_text(path.read_text()[:-50])
    monkeypatch.setattr(qt.QFileDialog, "getOpenFileName", lambda *_: str(tmp_path / "broken.json"))
    room.ui.checkQuizButton.click()
    assert "cannot be read as JSON" in told


def test_the_model_itself_makes_a_quiz_in_its_worker(room, spin, tmp_path, scene):
    from LesionRetrievalLib.quiz_panel.teacher import ChosenCase

    room.logic._makeRunner = WorkerRunner
    volume, box = golden_case()
    addVolumeNode(scene, volume), addRoiNode(scene, box)
    lesion = room.logic.lesionFromScene(
        nodesOfClass(scene, "vtkMRMLScalarVolumeNode")[0], nodesOfClass(scene, "vtkMRMLMarkupsROINode")[0],
        "benign", labelSource="a formula",
    )  # fmt: skip
    room.teacher.cases.chosen = [ChosenCase("L1", "benign", lesion=lesion)]
    room.ui.titleEdit.text = "One"
    quiz = made(room, spin, tmp_path / "q.json")
    assert quiz.model[0] == MODEL.name
    assert quiz.cases[0].prediction.heat_map is not None
    assert quiz.cases[0].prediction.reliability.prediction_set
