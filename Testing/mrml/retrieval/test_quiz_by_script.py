"""A class at a quiz by script, on a real scene: the documented way word for word, a learner of every kind, and the summary."""

from __future__ import annotations

import csv
import textwrap
from dataclasses import replace

import numpy as np
import pytest
import slicer.util
from LesionClassifierLib.scene.lesions import addRoiNode
from LesionClassifierLib.scene.tree import saveScene
from LesionClassifierLib.scene.volumes import addVolumeNode, nodesOfClass
from LesionLib.errors import BoxError, CaseLibraryError
from LesionLib.model.folder import golden_case
from LesionRetrievalLib import quiz_logic
from LesionRetrievalLib.quiz.attempt import Step
from LesionRetrievalLib.quiz.file import load_quiz, save_quiz
from LesionRetrievalLib.quiz.making import QuizPlan
from LesionRetrievalLib.quiz.model import QuizError
from LesionRetrievalLib.quiz.requests import QuizRequest
from LesionRetrievalLib.quiz_logic import QuizLogic
from LesionRetrievalLib.scene.quiz_cases import QUIZ_ATTRIBUTE
from quiz_cases import MODEL, CannedRunner, Clock, phantom_quiz, write_library


def quizNodes(scene) -> list:
    """All nodes that belong to a quiz case."""
    return [node for node in nodesOfClass(scene, "vtkMRMLNode") if node.GetAttribute(QUIZ_ATTRIBUTE)]


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def logic(scene, clock, tmp_path):
    made = QuizLogic(scene, makeRunner=CannedRunner, keyPath=tmp_path / "key", clock=clock)
    yield made
    made.stop()


@pytest.fixture
def quiz_file(tmp_path):
    def write(boxes: str = "given"):
        save_quiz(phantom_quiz(boxes=boxes), tmp_path / "quiz.json", overwrite=True)
        return tmp_path / "quiz.json"

    return write


def test_the_script_in_the_documentation_runs_as_it_stands(scene, quiz_file, tmp_path, monkeypatch, capsys):
    quiz_file()
    monkeypatch.chdir(tmp_path)
    example = textwrap.dedent(quiz_logic.__doc__.split("::\n", 1)[1])
    exec(example, {"scene": scene, "QuizLogic": QuizLogic, "Step": Step})
    assert capsys.readouterr().out.count("malignant") == 3  # what the model says of each case
    rows = list(csv.DictReader((tmp_path / "score" / "score.csv").read_text().splitlines()))
    assert [(row["learner"], row["first_answer"], row["second_answer"]) for row in rows] == [
        ("L07", "benign", "malignant")
    ] * 3
    assert (tmp_path / "score" / "summary.html").stat().st_size > 10_000
    assert quizNodes(scene) == []


class Learner:
    """Looks 5 s, answers in 3 s, looks at the model's answer for 7 s, and believes it or not."""

    def __init__(self, logic: QuizLogic, clock: Clock, *, knows: bool, believes: bool) -> None:
        self.logic, self.clock, self.knows, self.believes = logic, clock, knows, believes

    def take(self, path, folder, code: str) -> None:
        session = self.logic.start(path, folder, code)
        while session.step is not Step.DONE:
            truth = session.quiz.case(session.attempt.record.case_id).known.label  # the script knows; a learner may not
            own = truth if self.knows else next(name for name in session.quiz.class_names if name != truth)
            self.clock.now += 5
            self.logic.finishLooking()
            self.clock.now += 3
            self.logic.answer(own, 0.9 if self.knows else 0.6)
            self.clock.now += 7
            said = session.model_prediction.label
            self.logic.finishReveal()
            self.logic.answer(said if self.believes else own, 0.8)
            assert self.logic.feedback.first_is_right is self.knows
            self.logic.nextCase()
        self.logic.stop()


def test_a_class_of_three_is_summarised_as_it_can_be_counted_by_hand(logic, clock, quiz_file, tmp_path):
    path, folder = quiz_file(), tmp_path / "answers"
    Learner(logic, clock, knows=True, believes=False).take(path, folder, "expert")
    Learner(logic, clock, knows=True, believes=True).take(path, folder, "follower")
    Learner(logic, clock, knows=False, believes=True).take(path, folder, "novice")
    assert logic.learners(path, folder) == {"expert": (3, 3), "follower": (3, 3), "novice": (3, 3)}
    score = logic.writeScore(path, folder, tmp_path / "score")
    everyone = score.summary.everyone
    assert (everyone.before.right.hits, everyone.before.right.n) == (6, 9)
    assert everyone.after.right.hits == 3 + 2 + 2  # the model is wrong about one of three cases
    assert everyone.ai.hits == 6
    # Right ones differed from a wrong model twice, and one followed; wrong ones differed from a right one twice.
    assert (everyone.followed_wrong.hits, everyone.followed_wrong.n) == (1, 2)
    assert (everyone.followed_right.hits, everyone.followed_right.n) == (2, 2)
    assert everyone.median_seconds[Step.LOOK] == 5
    assert everyone.median_seconds[Step.FIRST_ANSWER] == 3
    assert everyone.median_total == 15
    novice = next(group for group in score.summary.learners if group.name == "novice")
    assert novice.before.calibration.overconfidence == pytest.approx(0.6)
    page = (tmp_path / "score" / "summary.html").read_text()
    assert "67%" in page
    assert logic.writeScore(path, folder, tmp_path / "one", learners=["novice"]).learners == ("novice",)
    with pytest.raises(QuizError, match="no answers of 'nobody'"):
        logic.writeScore(path, folder, tmp_path / "none", learners=["nobody"])


def test_the_scene_holds_what_the_learner_may_see_at_each_step(logic, scene, quiz_file, tmp_path):
    def shown():
        rois = sorted(node.GetName() for node in nodesOfClass(scene, "vtkMRMLMarkupsROINode"))
        return len(nodesOfClass(scene, "vtkMRMLScalarVolumeNode")), rois

    session = logic.start(quiz_file("placed"), tmp_path / "a", "L1")
    assert shown() == (1, [])
    with pytest.raises(QuizError, match="No box is drawn now"):
        logic.startPlacing()
    logic.finishLooking()
    assert shown() == (1, [])
    with pytest.raises(BoxError, match="No box is drawn yet"):
        logic.useBox()
    case = session.quiz.case(session.attempt.record.case_id)
    mine = addRoiNode(scene, replace(case.box, centerRAS=case.box.centerRAS + 1, name="mine"))
    logic.useBox(mine)
    scene.RemoveNode(mine)
    assert shown() == (1, ["your box"])
    logic.answer("benign", 0.7)
    assert shown() == (2, ["the lesion", "your box"])  # the heat map is a volume too
    logic.finishReveal()
    logic.answer("benign", 0.7)
    assert 0 < logic.feedback.box_overlap < 1
    logic.nextCase()
    assert shown() == (1, [])


def test_the_patch_lies_where_the_ct_was_with_the_teacher_s_window(logic, scene, quiz_file, tmp_path):
    session = logic.start(quiz_file(), tmp_path / "a", "L1")
    node = logic.display.volumeNode
    assert np.array_equal(slicer.util.arrayFromVolume(node), session.volume.array)
    display = node.GetDisplayNode()
    assert (display.GetWindowLevelMin(), display.GetWindowLevelMax()) == (-1350, 150)
    composite = scene.GetFirstNodeByClass("vtkMRMLSliceCompositeNode")
    assert composite.GetBackgroundVolumeID() == node.GetID()


def test_a_saved_scene_and_undo_know_nothing_of_a_quiz(logic, scene, quiz_file, tmp_path):
    logic.start(quiz_file(), tmp_path / "a", "L1")
    logic.finishLooking()
    logic.answer("benign", 0.8)
    assert quizNodes(scene)
    for node in quizNodes(scene):
        assert (node.GetSaveWithScene(), node.GetUndoEnabled(), node.GetHideFromEditors()) == (False, False, True)
    saveScene(scene, tmp_path / "scene.mrb")
    logic.stop()
    scene.Clear(False)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    assert nodesOfClass(scene, "vtkMRMLScalarVolumeNode") == []
    assert nodesOfClass(scene, "vtkMRMLMarkupsROINode") == []


def test_another_start_ends_the_first_learner_s_session_and_keeps_it(logic, quiz_file, tmp_path):
    path, folder = quiz_file(), tmp_path / "a"
    logic.start(path, folder, "L1")
    logic.finishLooking()
    logic.start(path, folder, "L2")
    assert logic.session.learner == "L2"
    assert logic.start(path, folder, "L1").step is Step.FIRST_ANSWER
    with pytest.raises(QuizError, match="another quiz"):
        save_quiz(phantom_quiz(title="Other"), tmp_path / "other.json")
        logic.start(tmp_path / "other.json", folder, "L1")
    assert logic.session.learner == "L1"  # a start that is refused changes nothing


def test_without_a_quiz_every_button_says_so(scene):
    logic = QuizLogic(scene)
    for call in (logic.finishLooking, logic.takeBox, logic.startPlacing, logic.nextCase, logic.ownScore):
        with pytest.raises(QuizError, match="start one"):
            call()
    logic.pause()
    logic.resume()
    logic.stop()


def test_a_teacher_by_script_makes_a_quiz_of_a_library_and_of_the_scene(logic, scene, tmp_path):
    volume, box = golden_case()
    lesion = logic.lesionFromScene(
        addVolumeNode(scene, volume), addRoiNode(scene, box), "benign", labelSource="a formula", feedback="A sphere."
    )
    library = write_library(tmp_path / "cases.lesionlib")
    drawn = logic.drawCases(library, perLabel=2, seed=1)
    plan = QuizPlan(title="By script", boxes="placed")
    request = QuizRequest(
        tmp_path / "q.json",
        plan,
        MODEL.name,
        library,
        cases=tuple(drawn),
        lesions=(lesion,),
        feedback={drawn[0]: "First."},
    )
    logic.makeQuiz(request)
    quiz = logic.checkQuiz(tmp_path / "q.json")
    assert [case.known.feedback for case in quiz.cases] == ["First.", "", "", "", "A sphere."]
    assert quiz.cases[4].known.label_source == "a formula"
    assert load_quiz(tmp_path / "q.json").boxes == "placed"


def test_a_text_that_names_the_patient_is_refused(logic, scene):
    volume, box = golden_case()
    ct, roi = addVolumeNode(scene, volume), addRoiNode(scene, box)
    tree = scene.GetSubjectHierarchyNode()
    patient = tree.CreateSubjectItem(tree.GetSceneItemID(), "Doe")
    tree.SetItemAttribute(patient, "DICOM.PatientID", "HOSPITAL-4711")
    tree.SetItemAttribute(patient, "DICOM.PatientName", "Doe^Jane")
    tree.CreateItem(patient, ct)
    with pytest.raises(CaseLibraryError):
        logic.lesionFromScene(ct, roi, "benign", labelSource="histology", feedback="Ms Doe Jane was operated")
    assert logic.lesionFromScene(ct, roi, "benign", labelSource="histology").feedback == ""


def test_a_box_beside_the_ct_is_refused_when_it_is_chosen(logic, scene):
    volume, box = golden_case()
    roi = addRoiNode(scene, replace(box, centerRAS=box.centerRAS + 500))
    with pytest.raises(BoxError, match="outside"):
        logic.lesionFromScene(addVolumeNode(scene, volume), roi, "benign", labelSource="x")
