"""The teaching room as a class meets it: start, look, answer, see what the model says, pause, and be scored."""

from __future__ import annotations

import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import slicer.util
from LesionClassifierLib.scene.lesions import addRoiNode
from LesionClassifierLib.scene.tree import saveScene
from LesionClassifierLib.scene.volumes import addVolumeNode, nodesOfClass
from LesionLib.model.folder import golden_case
from LesionLib.model.scores import scores_from_json
from LesionRetrievalLib.quiz.attempt import Step
from LesionRetrievalLib.quiz.file import load_quiz, save_quiz
from LesionRetrievalLib.quiz.session import QuizSession
from LesionRetrievalLib.quiz_logic import QuizLogic
from LesionRetrievalLib.scene.quiz_cases import QUIZ_ATTRIBUTE
from quiz_cases import Clock, phantom_quiz, write_phantom_quiz
from repository import ROOT, SLICER_STANDINS, WIDGET_STANDINS
from scored_model import SCORES


@pytest.fixture
def quiz_path(tmp_path):
    def make(boxes: str = "given") -> Path:
        return write_phantom_quiz(tmp_path / f"{boxes}.json", boxes=boxes)

    return make


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def room(quiz_room, scene, clock):
    """The teaching room in a window, as the module makes it."""
    return quiz_room(QuizLogic(scene, clock=clock))


@pytest.fixture
def begin(room, quiz_path, tmp_path):
    def start(learner: str = "L1", boxes: str = "given"):
        ui = room.ui
        ui.quizPathEdit.text, ui.answersPathEdit.text = str(quiz_path(boxes)), str(tmp_path / "answers")
        ui.learnerEdit.text = learner
        ui.startButton.click()
        return room

    return start


def press(room, keys: str) -> None:
    """A key, as Qt would tell it: only where it is enabled."""
    import qt

    (shortcut,) = [s for s in room.ui.takeTab.findChildren(qt.QShortcut) if s.key.toString() == keys]
    if shortcut.enabled:
        shortcut.activated.emit()


def answer(room, label: str, confidence: float) -> None:
    room.learner.answers.choose(label, confidence)
    room.ui.goOnButton.click()


def quizNodes(scene) -> list:
    """All nodes that belong to a quiz case."""
    return [node for node in nodesOfClass(scene, "vtkMRMLNode") if node.GetAttribute(QUIZ_ATTRIBUTE)]


def nodesOfModel(scene) -> list[str]:
    """Names of everything in the scene that tells what the model says."""
    return [
        node.GetName()
        for node in nodesOfClass(scene, "vtkMRMLNode")
        if "Grad-CAM" in (node.GetName() or "")
        or node.GetAttribute("LesionLens.HeatMap")
        or node.IsA("vtkMRMLTableNode")
    ]


def test_nothing_can_be_started_before_quiz_folder_and_code_are_there(room, quiz_path, tmp_path, screenshot):
    ui = room.ui
    assert "not for diagnosis" in ui.quizNoticeLabel.text
    assert (ui.startButton.enabled, ui.startButton.toolTip) == (False, "Choose a quiz file.")
    ui.quizPathEdit.text = str(quiz_path())
    assert "folder" in ui.startButton.toolTip
    ui.answersPathEdit.text = str(tmp_path)
    assert ui.startButton.toolTip == "Type your code."
    ui.learnerEdit.text = "Jane Doe"
    assert "beginning with a letter" in ui.startButton.toolTip
    ui.learnerEdit.text = "L1"
    assert ui.startButton.enabled
    screenshot(room.widget, "quiz-start")


def test_a_case_goes_from_looking_to_feedback(begin, scene, screenshot):
    room = begin()
    ui, session = room.ui, room.logic.session
    assert "Case 1 of 3" in ui.caseLabel.text
    assert "Nodules of 12 mm." in ui.stepLabel.text
    assert len(quizNodes(scene)) == 1  # the patch and nothing else
    screenshot(room.widget, "quiz-look")
    ui.goOnButton.click()
    assert session.step is Step.FIRST_ANSWER
    (box,) = nodesOfClass(scene, "vtkMRMLMarkupsROINode")
    assert box.GetLocked()
    screenshot(room.widget, "quiz-answer")
    answer(room, "benign", 0.8)
    assert session.step is Step.REVEAL
    screenshot(room.widget, "quiz-reveal")
    ui.goOnButton.click()
    answer(room, "malignant", 0.6)
    assert session.step is Step.FEEDBACK
    screenshot(room.widget, "quiz-feedback")
    assert "It is <b>" in ui.feedbackLabel.text
    ui.goOnButton.click()
    assert "Case 2 of 3" in ui.caseLabel.text
    assert session.attempt.records[0].first.confidence == pytest.approx(0.8)


def test_nothing_of_the_model_is_anywhere_before_the_first_answer(begin, scene):
    room = begin()
    room.ui.goOnButton.click()
    assert nodesOfModel(scene) == []
    assert room.ui.modelLabel.text == ""
    assert not room.ui.revealFrame.visible
    assert room.learner.reveal._bars == []
    assert all(card.neighbour is None for card in room.learner.reveal.cards)
    assert not room.ui.quizTabs.isTabEnabled(1)  # there a quiz is checked, and its answers counted
    answer(room, "benign", 0.8)
    assert [name for name in nodesOfModel(scene) if "Grad-CAM" in name]
    room.ui.goOnButton.click()
    answer(room, "benign", 0.8)
    room.ui.goOnButton.click()
    assert room.logic.session.step is Step.LOOK
    assert nodesOfModel(scene) == []  # of the case before neither
    assert room.ui.modelLabel.text == ""
    labels = room.widget.findChildren(type(room.ui.modelLabel))
    texts = " ".join(label.text for label in labels if label.isVisible())
    assert not any(said in texts for said in ("0.93", "turned out to be", "The model says"))


def test_keys_choose_and_return_answers_but_only_when_all_is_said(begin):
    room = begin()
    ui, form = room.ui, room.learner.answers
    press(room, "2")
    assert form.label == ""  # not while looking
    press(room, "Return")
    assert not ui.goOnButton.enabled
    assert ui.goOnButton.toolTip.startswith("Choose what it is")
    press(room, "2")
    assert form.label == "malignant"
    press(room, "Return")
    assert room.logic.session.step is Step.FIRST_ANSWER
    assert "how sure" in ui.goOnButton.toolTip
    press(room, "9")  # there are two answers
    press(room, "-")
    assert form.confidence == 1.0
    for _ in range(9):
        press(room, "-")
    assert form.confidence == 0.5
    press(room, "+")
    press(room, "Enter")
    record = room.logic.session.attempt.record
    assert (record.first.label, record.first.confidence) == ("malignant", 0.6)
    press(room, "Return")
    assert (form.label, form.confidence) == ("", None)  # the second answer begins empty too


def test_a_learner_who_has_to_place_the_box_draws_it_and_is_shown_the_teacher_s_at_the_reveal(begin, scene):
    room = begin(boxes="placed")
    ui, session = room.ui, room.logic.session
    press(room, "Return")
    assert session.step is Step.BOX
    assert nodesOfClass(scene, "vtkMRMLMarkupsROINode") == []
    assert not ui.takeBoxButton.visible
    ui.placeBoxButton.click()
    interaction = scene.GetNodeByID("vtkMRMLInteractionNodeSingleton")
    assert interaction.GetCurrentInteractionMode() == interaction.Place
    (drawn,) = nodesOfClass(scene, "vtkMRMLMarkupsROINode")
    truth = session.quiz.case(session.attempt.record.case_id).box
    drawn.SetCenter(*(truth.centerRAS + [1, 0, 0]))
    drawn.SetSize(*truth.sizeMm)
    ui.goOnButton.click()
    assert session.step is Step.FIRST_ANSWER
    assert interaction.GetCurrentInteractionMode() != interaction.Place
    assert session.attempt.record.box.centerRAS == pytest.approx(truth.centerRAS + [1, 0, 0], abs=1e-3)
    assert len(nodesOfClass(scene, "vtkMRMLMarkupsROINode")) == 1
    answer(room, "benign", 1.0)
    assert sorted(n.GetName() for n in nodesOfClass(scene, "vtkMRMLMarkupsROINode")) == ["the lesion", "your box"]
    ui.goOnButton.click()
    answer(room, "benign", 1.0)
    assert "Your box shares" in ui.feedbackLabel.text


def test_a_box_that_is_not_drawn_is_told_and_the_step_stays(begin, told):
    room = begin(boxes="free")
    room.ui.goOnButton.click()
    room.ui.goOnButton.click()
    assert "No box is drawn yet" in told
    room.ui.placeBoxButton.click()
    room.ui.goOnButton.click()
    assert "has not been drawn yet" in told
    assert room.logic.session.step is Step.BOX
    room.ui.takeBoxButton.click()
    assert room.logic.session.step is Step.FIRST_ANSWER
    assert room.logic.session.attempt.record.box is None


def test_the_user_s_own_scene_is_left_alone_and_the_views_come_back(begin, scene):
    volume, box = golden_case()
    ct, roi = addVolumeNode(scene, volume), addRoiNode(scene, box)
    composite = scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    composite.SetLayoutName("Red")
    composite.SetBackgroundVolumeID(ct.GetID())
    composite.SetForegroundOpacity(0.3)
    slices = scene.CreateNodeByClass("vtkMRMLSliceNode")
    slices.UnRegister(None)
    slices.SetLayoutName("Red")
    slices = scene.AddNode(slices)
    slices.SetFieldOfView(123, 45, 1)
    before = {node.GetID() for node in nodesOfClass(scene, "vtkMRMLNode")}
    room = begin()
    assert composite.GetBackgroundVolumeID() == room.logic.display.volumeNode.GetID()
    assert slices.GetFieldOfView()[0] != 123
    for _ in range(2):
        room.ui.goOnButton.click()
        answer(room, "benign", 0.8)
        room.ui.goOnButton.click()
        answer(room, "benign", 0.8)
        room.ui.goOnButton.click()
    assert len([n for n in nodesOfClass(scene, "vtkMRMLScalarVolumeNode") if n is not ct]) == 1
    room.ui.leaveButton.click()
    assert {node.GetID() for node in nodesOfClass(scene, "vtkMRMLNode")} == before
    assert quizNodes(scene) == []
    assert (composite.GetBackgroundVolumeID(), composite.GetForegroundOpacity()) == (ct.GetID(), pytest.approx(0.3))
    assert slices.GetFieldOfView()[0] == pytest.approx(123)
    assert roi.GetCenter() == pytest.approx(box.centerRAS, abs=1e-3)


def test_heat_can_be_made_fainter_and_taken_away(begin, scene):
    room = begin()
    room.ui.goOnButton.click()
    answer(room, "benign", 0.8)
    composite = scene.GetFirstNodeByClass("vtkMRMLSliceCompositeNode")
    assert composite.GetForegroundVolumeID() == room.logic.display.heatMapNode.GetID()
    room.ui.quizHeatSlider.value = 80
    assert composite.GetForegroundOpacity() == pytest.approx(0.8)
    room.ui.quizHeatCheckBox.checked = False
    assert composite.GetForegroundVolumeID() is None


def test_pause_stops_the_clock_and_hides_the_case(begin, scene, clock):
    room = begin()
    ui, session = room.ui, room.logic.session
    clock.now += 4
    ui.pauseButton.click()
    assert quizNodes(scene) == []
    assert "clock stands" in ui.stepLabel.text
    clock.now += 1000
    assert ui.goOnButton.text == "Go on"
    press(room, "Return")
    assert len(quizNodes(scene)) == 1
    assert not ui.pauseButton.checked
    clock.now += 3
    ui.goOnButton.click()
    record = session.attempt.record
    assert record.seconds[Step.LOOK] == 7
    assert record.interruptions == 1


def test_closing_the_scene_in_the_middle_pauses_with_a_plain_message_and_nothing_is_lost(begin, scene, told):
    room = begin()
    room.ui.goOnButton.click()
    answer(room, "benign", 0.8)
    scene.Clear(0)
    assert room.logic.session.is_paused
    assert "nothing is lost" in room.ui.learnerStateLabel.text
    assert told.of("error") == []
    assert quizNodes(scene) == []
    room.ui.goOnButton.click()
    assert room.logic.session.step is Step.REVEAL
    assert room.logic.display.heatMapNode is not None
    assert room.ui.revealFrame.visible


def test_return_goes_on_only_where_the_quiz_has_the_keyboard_and_never_from_a_line_edit(begin):
    import qt

    room = begin()
    for keys in ("Return", "Enter"):
        (shortcut,) = [s for s in room.ui.takeTab.findChildren(qt.QShortcut) if s.key.toString() == keys]
        assert shortcut.context == qt.Qt.WidgetWithChildrenShortcut
        assert shortcut.enabled
    # While a learner is at work no line edit is to be seen where these keys work.
    edits = room.ui.takeTab.findChildren(qt.QLineEdit)
    assert edits
    assert not any(edit.isVisible() for edit in edits)


def test_loading_a_scene_in_the_middle_pauses_and_takes_the_case_out_of_the_views(begin, scene, tmp_path):
    saveScene(scene, tmp_path / "scene.mrb")
    room = begin()
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    assert room.logic.session.is_paused
    assert "A scene was loaded" in room.ui.learnerStateLabel.text
    assert quizNodes(scene) == []


def test_after_a_crash_it_goes_on_at_the_step_that_was_reached(begin, quiz_path, tmp_path, room):
    begin()
    room.ui.goOnButton.click()
    answer(room, "malignant", 0.9)
    room.logic.session = None  # the process is gone; its file is there
    room.logic.display.clear()
    begin()
    assert room.logic.session.step is Step.REVEAL
    assert "Welcome back" in room.ui.learnerStateLabel.text
    assert room.logic.session.attempt.record.first.label == "malignant"
    assert room.logic.session.attempt.record.interruptions == 1


def sheet(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "score.csv").read_text().splitlines()))


def take_all(room, label: str) -> None:
    """The whole quiz, as a learner who says the same of every case and then believes the model."""
    while room.logic.session.step is not Step.DONE:
        room.ui.goOnButton.click()
        answer(room, label, 0.7)
        said = room.logic.session.model_prediction.label
        room.ui.goOnButton.click()
        answer(room, said, 0.9)
        room.ui.goOnButton.click()


def test_a_class_of_three_one_after_another_is_scored_from_the_panel(
    room, begin, tmp_path, monkeypatch, screenshot, spin
):
    import qt

    for learner, label in (("L1", "benign"), ("L2", "malignant"), ("L3", "benign")):
        begin(learner)
        take_all(room, label)
        assert room.ui.endFrame.visible
        assert f"{1 if label == 'benign' else 2} of 3" in room.ui.endLabel.text  # before the reveal
        if learner == "L1":
            spin(0.3)
            screenshot(room.widget, "quiz-end")
        room.ui.nextLearnerButton.click()
        assert room.ui.startFrame.visible
        assert room.ui.learnerEdit.text == ""
        assert f"answers of {learner} are kept" in room.ui.quizInfoLabel.text
    ui = room.ui
    ui.quizTabs.currentIndex = 2
    ui.scoreQuizEdit.text, ui.scoreAnswersEdit.text = ui.quizPathEdit.text, ui.answersPathEdit.text
    ui.refreshLearnersButton.click()
    assert [ui.learnersTable.item(row, 1).text() for row in range(ui.learnersTable.rowCount)] == ["3", "3", "3"]
    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path / "score"))
    ui.writeScoreButton.click()
    assert "9 answered cases" in ui.scoreLabel.text
    screenshot(room.widget, "quiz-score")
    rows = sheet(tmp_path / "score")
    assert len(rows) == 9
    assert sum(int(row["first_right"]) for row in rows) == 1 + 2 + 1
    assert all(row["agreed_after"] == "1" for row in rows)
    page = (tmp_path / "score" / "summary.html").read_text()
    assert all(learner in page for learner in ("L1", "L2", "L3"))
    opened = []
    monkeypatch.setattr(qt.QDesktopServices, "openUrl", lambda url: opened.append(url.toLocalFile()))
    ui.openSummaryButton.click()
    assert opened == [str(tmp_path / "score" / "summary.html")]
    ui.learnersTable.selectRow(1)
    ui.writeScoreButton.click()  # the question whether to replace is answered yes
    assert {row["learner"] for row in sheet(tmp_path / "score")} == {"L2"}
    assert "What L2 made of it" in (tmp_path / "score" / "summary.html").read_text()


def test_a_quiz_that_is_none_is_told_and_nothing_starts(room, tmp_path, told):
    (tmp_path / "notes.json").write_text("{}")
    room.ui.quizPathEdit.text, room.ui.answersPathEdit.text = str(tmp_path / "notes.json"), str(tmp_path)
    room.ui.learnerEdit.text = "L1"
    room.ui.startButton.click()
    assert told.of("error")
    assert room.logic.session is None
    assert room.ui.startFrame.visible
    assert room.ui.quizTabs.isTabEnabled(1)


def test_leaving_the_module_takes_the_case_out_and_keeps_the_answers(begin, scene, room, quiz_path, tmp_path):
    begin()
    room.ui.goOnButton.click()
    answer(room, "benign", 0.8)
    room.cleanup()
    assert quizNodes(scene) == []
    again = QuizSession.open(load_quiz(quiz_path()), tmp_path / "answers", learner="L1")
    assert again.step is Step.REVEAL


# --- a learner's computer


def test_a_quiz_is_taken_and_scored_in_the_panel_where_there_is_no_torch(quiz_path, tmp_path):
    code = f"""
import sys
import importlib.util
class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "safetensors", "monai", "jinja2", "markupsafe", "PIL", "rich"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, NotInstalled())
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in ("torch", "safetensors", "monai") else find(name)
import slicer
sys.path[:0] = [{str(ROOT / "LesionClassifier")!r}, {str(ROOT / "LesionRetrieval")!r}]
sys.path.append({str(WIDGET_STANDINS)!r})
slicer.__path__.append({str(SLICER_STANDINS)!r})
from LesionClassifierLib.headless import startHeadlessSlicer
headless = startHeadlessSlicer()
import qt, slicer_gui
slicer_gui.install()
slicer.app = slicer_gui.GuiApplication(headless)
from LesionRetrievalLib.quiz_panel.quiz_panel import QuizPanel
container = qt.QWidget(); container.setLayout(qt.QVBoxLayout()); container.show()
panel = QuizPanel(container=container)
ui = panel.ui
ui.quizPathEdit.text, ui.answersPathEdit.text, ui.learnerEdit.text = {str(quiz_path())!r}, {str(tmp_path / "answers")!r}, "L1"
ui.startButton.click()
slicer.util.errorDisplay = sys.exit
while panel.logic.session.step != "done":
    if "answer" in panel.logic.session.step:
        panel.learner.answers.choose("benign", 0.8)
    ui.goOnButton.click()
ui.scoreQuizEdit.text, ui.scoreAnswersEdit.text = ui.quizPathEdit.text, ui.answersPathEdit.text
ui.refreshLearnersButton.click()
from pathlib import Path
panel.score.write(Path({str(tmp_path / "score")!r}))
said = ui.endLabel.text
panel.cleanup()
print("taken", "right before the reveal" in said and "1 of 3" in said, "torch" in ui.makeQuizButton.toolTip,
      "jinja2, which is missing" in ui.scoreLabel.text and not ui.openSummaryButton.enabled)
sys.stdout.flush()
import os; os._exit(0)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert ran.stdout.strip().endswith("taken True True True"), ran.stderr[-3000:]
    assert {p.name for p in (tmp_path / "score").iterdir()} == {"score.csv"}


@pytest.mark.parametrize("answer_is_yes", [True, False])
def test_where_jinja2_is_missing_it_is_installed_only_when_the_teacher_says_so(
    begin, room, tmp_path, told, monkeypatch, answer_is_yes
):
    import qt
    import slicer.util

    begin("L1")
    take_all(room, "benign")
    ui = room.ui
    ui.nextLearnerButton.click()
    ui.quizTabs.currentIndex = 2
    ui.scoreQuizEdit.text, ui.scoreAnswersEdit.text = ui.quizPathEdit.text, ui.answersPathEdit.text
    ui.refreshLearnersButton.click()
    monkeypatch.setitem(sys.modules, "jinja2", None)
    installed = []

    def install(requirement):
        installed.append(requirement)
        monkeypatch.delitem(sys.modules, "jinja2")

    monkeypatch.setattr(slicer.util, "pip_install", install, raising=False)
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda _question: answer_is_yes)
    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path / "score"))
    ui.writeScoreButton.click()
    assert installed == (["jinja2>=3.1.4"] if answer_is_yes else [])
    assert (tmp_path / "score" / "score.csv").is_file()
    assert (tmp_path / "score" / "summary.html").is_file() == answer_is_yes
    assert ui.openSummaryButton.enabled == answer_is_yes
    assert not told.of("error")


def test_whoever_comes_back_needs_only_the_code(begin, scene, gui):
    import qt
    from LesionRetrievalLib.quiz_panel.quiz_panel import QuizPanel

    room = begin()
    quiz, folder = room.ui.quizPathEdit.text, room.ui.answersPathEdit.text
    room.ui.leaveButton.click()
    container = qt.QWidget()
    container.setLayout(qt.QVBoxLayout())
    again = QuizPanel(container=container, logic=QuizLogic(scene))
    assert (again.ui.quizPathEdit.text, again.ui.answersPathEdit.text) == (quiz, folder)
    assert again.ui.learnerEdit.text == ""
    again.cleanup()
    container.deleteLater()
    qt.QApplication.sendPostedEvents(None, qt.QEvent.DeferredDelete)


def test_the_room_is_a_section_of_the_module_and_a_scene_may_close_there(
    module_widget, scene, quiz_path, tmp_path, screenshot
):
    module = module_widget("LesionRetrieval", size=(500, 900))
    module.ui.teachingRoomButton.collapsed = False
    room = module.quiz
    ui = room.ui
    ui.quizPathEdit.text, ui.answersPathEdit.text, ui.learnerEdit.text = str(quiz_path()), str(tmp_path / "a"), "L1"
    ui.startButton.click()
    ui.goOnButton.click()
    answer(room, "benign", 0.8)
    screenshot(module, "quiz-in-module")
    assert module.parent.width <= 500
    right = [card.button.geometry.right() for card in room.learner.reveal.cards[:5]]
    assert max(right) <= ui.neighboursPlace.width
    scene.Clear(0)
    assert room.logic.session.is_paused
    ui.goOnButton.click()
    assert len(nodesOfClass(scene, "vtkMRMLScalarVolumeNode")) == 2  # patch and heat map


def test_what_the_model_scored_is_shown_at_the_reveal_and_not_before(room, tmp_path, screenshot):
    quiz, specs = phantom_quiz(), scores_from_json(SCORES)
    values = {"spiculation": 1.2, "lobulation": 3.4, "subtlety": 5.0, "calcification": 5.8}
    cases = [
        replace(case, prediction=replace(case.prediction, scores=values, sentence="round, 12 mm, lobulated 3 of 5"))
        for case in quiz.cases
    ]
    save_quiz(replace(quiz, cases=tuple(cases), scores=specs), tmp_path / "scored.json")
    ui = room.ui
    ui.quizPathEdit.text, ui.answersPathEdit.text = str(tmp_path / "scored.json"), str(tmp_path / "answers")
    ui.learnerEdit.text = "L1"
    ui.startButton.click()
    ui.goOnButton.click()
    assert "lobulat" not in ui.modelLabel.text + ui.quizReliabilityLabel.text
    answer(room, "benign", 0.8)
    assert "round, 12 mm, lobulated 3 of 5" in ui.modelLabel.text
    for text in ("spiculation", "●●●○○", "moderate lobulation (3.4)"):
        assert text in ui.modelLabel.text
    assert "For lobulation the model is off by 0.82 on average" in ui.quizReliabilityLabel.text
    assert screenshot(room.ui.takeTab, "quiz-scores").stat().st_size > 5_000
