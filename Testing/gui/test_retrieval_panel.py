"""The retrieval panel as a radiologist meets it: library, search, cards, vote, comparison, feedback; and nothing breaks it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import slicer
import slicer.util
from LesionClassifierLib.scene.lesions import addRoiNode, lesionNodes, markAsLesion
from LesionClassifierLib.scene.tree import saveScene
from LesionClassifierLib.scene.volumes import addVolumeNode
from LesionLib.model.folder import golden_case
from LesionRetrievalLib.library.cases import Case, ModelIdentity
from LesionRetrievalLib.library.patches import case_thumbnails, lesion_patch
from LesionRetrievalLib.library.pseudonyms import pseudonymisation_key
from LesionRetrievalLib.library.store import CaseLibrary
from repository import ROOT, SLICER_STANDINS, WIDGET_STANDINS

LONG = 60
MODEL = "lung-nodule-malignancy"
PATIENT = "patient 4711"


@pytest.fixture
def library_path(twelve_cases, tmp_path, own_settings):
    """`twelve_cases`, a copy of the test's own, and the key that it was written with."""
    for path in twelve_cases.rglob("*"):
        if path.is_file():
            own = tmp_path / path.relative_to(twelve_cases)
            own.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, own)
    return tmp_path / "nodules.lesionlib"


@pytest.fixture(scope="module")
def twelve_cases(embedding, tmp_path_factory):
    """Twelve cases around the golden lesion: the nearer, the smaller the number. Odd ones are malignant, 1 has a CT."""
    folder = tmp_path_factory.mktemp("twelve")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_CONFIG_HOME", str(folder / "config"))
        key = pseudonymisation_key()
    path = folder / "nodules.lesionlib"
    rng, (volume, box) = np.random.default_rng(3), golden_case()
    thumbnails = case_thumbnails(volume, box)
    with CaseLibrary.create(path, model=ModelIdentity.of(embedding.info), dimension=len(embedding.vector)) as library:
        for number in range(1, 13):
            # At right angles to the lesion's own and of a length that grows: the order is the numbers', whatever the model.
            noise = rng.standard_normal(len(embedding.vector))
            noise -= (noise @ embedding.vector) * embedding.vector
            vector = embedding.vector + 0.14 * number * noise / np.linalg.norm(noise)
            case = Case(
                f"case-{number:02d}", "malignant" if number % 3 == 0 else "benign",
                "histology" if number % 2 else "follow-up 24 months", "lung" if number != 5 else "liver",
                key.hash(f"patient {4710 + number}"), key.hash(f"study {number}", domain="study"),
                {"diameter_mm": 5.0 + number, "contrast": number % 2 == 0}, "" if number > 1 else "a note",
            )  # fmt: skip
            patch = lesion_patch(volume, box) if number == 1 else None
            shown = thumbnails if number not in (2, 11) else None
            library.add(case, vector, model_sha256=embedding.info.model_sha256, thumbnails=shown, patch=patch)
    return folder


@pytest.fixture
def panel(module_widget, scene):
    return module_widget("LesionRetrieval", size=(600, 1800))


@pytest.fixture
def opened(panel, a_case, library_path, spin):
    """The panel with CT, lesion and library."""
    panel.initializeParameterNode()
    assert panel.panel.library.open(library_path)
    spin(0.3)
    return panel


@pytest.fixture
def searched(opened, spin):
    """The panel after Find similar cases."""
    opened.ui.findButton.click()
    spin(until=lambda: not opened.panel.run.isRunning, seconds=LONG)
    return opened


def cards(panel):
    return [card.neighbour for card in panel.panel.found.gallery.cards if card.neighbour is not None]


def ids(panel):
    nine = panel.panel.found.gallery.cards[:9]
    return [card.neighbour.case_id for card in nine if card.neighbour is not None]


def choose(panel, caseId):
    next(c for c in panel.panel.found.gallery.cards if c.neighbour and c.neighbour.case_id == caseId).button.click()


def test_a_patch_of_a_quiz_is_not_taken_for_the_ct(panel, scene, a_case):
    a_case[0].SetHideFromEditors(True)
    panel.initializeParameterNode()
    assert panel._parameterNode.volume is None
    a_case[0].SetHideFromEditors(False)
    panel.initializeParameterNode()
    assert panel._parameterNode.volume is a_case[0]


def test_an_empty_scene_says_what_to_do_first(panel):
    assert not panel.ui.findButton.enabled
    assert panel.ui.findButton.toolTip == "Choose a CT."
    assert "not for diagnosis" in panel.ui.noticeLabel.text
    assert panel.ui.libraryLabel.text == "No library is open."
    assert not panel.ui.addCaseButton.enabled
    assert panel.ui.addCaseButton.toolTip == "Open a case library, or make a new one."
    assert not panel.ui.setupFrame.visible


def test_step_by_step_the_button_says_what_is_missing(panel, scene, library_path, spin):
    volume, box = golden_case()
    addVolumeNode(scene, volume)
    panel.initializeParameterNode()
    spin(0.3)
    assert panel.ui.findButton.toolTip.startswith("Choose a lesion")
    markAsLesion(addRoiNode(scene, box))
    panel.initializeParameterNode()
    spin(0.3)
    assert panel.ui.findButton.toolTip.startswith("Open a case library")
    panel.panel.library.open(library_path)
    assert panel.ui.findButton.enabled
    assert "Ctrl+Return" in panel.ui.findButton.toolTip


def test_the_library_is_opened_by_a_dialog_and_says_what_it_holds(panel, library_path, monkeypatch):
    import qt

    monkeypatch.setattr(qt.QFileDialog, "getOpenFileName", lambda *_: str(library_path))
    panel.ui.openLibraryButton.click()
    assert "12 cases: benign 8, malignant 4" in panel.ui.libraryLabel.text
    assert MODEL in panel.ui.libraryLabel.text
    assert "to read only" in panel.ui.libraryLabel.text
    assert panel.ui.librarySelector.currentText == "nodules.lesionlib"
    assert [panel.ui.labelSelector.itemText(i) for i in range(3)] == ["any", "benign", "malignant"]


def test_a_file_that_is_no_library_is_refused_and_the_open_one_stays(opened, tmp_path, told):
    (tmp_path / "notes.txt").write_text("no library")
    assert not opened.panel.library.open(tmp_path / "notes.txt")
    assert told.of("error")
    assert "12 cases" in opened.ui.libraryLabel.text


def test_while_a_library_opens_the_user_sees_that_it_takes_time(panel, library_path, monkeypatch):
    import qt

    shapes, openLibrary = [], panel.logic.openLibrary

    def opening(*given, **options):
        cursor = qt.QApplication.overrideCursor()
        shapes.append(None if cursor is None else cursor.shape())
        return openLibrary(*given, **options)

    monkeypatch.setattr(panel.logic, "openLibrary", opening)
    assert panel.panel.library.open(library_path)
    assert shapes == [qt.Qt.WaitCursor]
    assert qt.QApplication.overrideCursor() is None


def test_nine_cards_a_tenth_for_another_class_and_a_vote(searched, screenshot):
    ui = searched.ui
    assert ids(searched) == [f"case-{n:02d}" for n in range(1, 10)]
    other = cards(searched)[9]
    assert (other.label, other.case_id) == ("malignant", "case-03")
    assert "not benign" in searched.panel.found.gallery._other.text
    assert "6 of the 9 cases are benign" in ui.voteLabel.text
    assert ui.caseLabel.text.startswith("<b>case-01</b>: benign")
    assert "9 similar cases for L1" in ui.statusLabel.text
    assert "not known whose CT" in ui.foundLabel.text
    searched.ui.addButton.collapsed = False
    assert Path(screenshot(searched, "retrieval-panel")).stat().st_size > 10_000


def test_the_panel_fits_into_a_narrow_window(module_widget, a_case, library_path, spin, screenshot):
    panel = module_widget("LesionRetrieval", size=(500, 900))
    panel.panel.library.open(library_path)
    panel.ui.findButton.click()
    spin(until=lambda: not panel.panel.run.isRunning, seconds=LONG)
    screenshot(panel, "retrieval-narrow")
    right = [card.button.geometry.right() for card in panel.panel.found.gallery.cards[:9]]
    assert max(right) <= panel.ui.galleryPlace.width
    assert panel.parent.width <= 500


def test_cards_are_chosen_by_click_and_by_arrow_keys(searched, spin):
    import qt

    choose(searched, "case-04")
    assert "case-04" in searched.ui.caseLabel.text
    button = searched.panel.found.gallery.cards[3].button
    button.setFocus()
    event = qt.QKeyEvent(qt.QEvent.KeyPress, qt.Qt.Key_Right, qt.Qt.NoModifier)
    qt.QApplication.sendEvent(button, event)
    spin(0.1)
    assert "case-05" in searched.ui.caseLabel.text
    assert "liver" in searched.panel.found.gallery.cards[4]._more.text


def test_a_case_without_pictures_says_so_on_its_card(searched):
    card = searched.panel.found.gallery.cards[1]
    assert card._none.visible
    assert "no pictures" in card._none.text
    assert not searched.panel.found.gallery.cards[0]._none.visible


def test_ctrl_return_searches(opened, spin):
    import qt

    shortcuts = [s for s in opened.parent.findChildren(qt.QShortcut) if s.key.toString() == "Ctrl+Return"]
    shortcuts[0].activated.emit()
    assert opened.panel.run.isRunning
    assert opened.ui.cancelButton.enabled
    assert not opened.ui.findButton.enabled
    spin(until=lambda: not opened.panel.run.isRunning, seconds=LONG)
    assert len(ids(opened)) == 9


def test_the_interface_goes_on_while_the_model_looks(opened, spin):
    opened.logic.restartRunner()  # a cold one: it imports torch and loads the model first
    longest, started = 0.0, time.monotonic()
    last = started
    opened.ui.findButton.click()
    while opened.panel.run.isRunning and last - started < LONG:
        spin(0)
        time.sleep(0.001)
        now = time.monotonic()
        longest, last = max(longest, now - last), now
    assert len(ids(opened)) == 9
    assert longest < 0.5


def test_a_model_without_classes_is_set_beside_what_lesion_classifier_said(searched, a_case, in_process):
    from LesionClassifierLib.classification import classifyNodes
    from LesionRetrievalLib.panel.results import modelsWord

    found = searched.panel.found._found
    found = replace(found, embedding=replace(found.embedding, probabilities={}))
    assert modelsWord(found) == (MODEL, {})
    classifyNodes(in_process, a_case[0], [a_case[1]], MODEL)
    name, probabilities = modelsWord(found)
    assert name == MODEL
    assert probabilities == pytest.approx(searched.panel.found._found.embedding.probabilities, abs=1e-4)
    a_case[1].SetSize(20, 20, 20)
    assert modelsWord(found) == (MODEL, {})


def test_the_same_patient_is_left_out_when_it_is_known(opened, spin):
    opened.ui.patientEdit.text = PATIENT
    assert opened.ui.patientLabel.text == "Cases of the same patient are left out."
    opened.ui.findButton.click()
    spin(until=lambda: not opened.panel.run.isRunning, seconds=LONG)
    assert ids(opened)[0] == "case-02"
    assert "are left out" in opened.ui.foundLabel.text


def test_only_the_same_patient_s_cases_when_asked_and_not_without_knowing_it(opened, spin):
    opened.ui.scopeSelector.setCurrentText("the same patient")
    assert not opened.ui.findButton.enabled
    assert "needs to know whose CT this is" in opened.ui.findButton.toolTip
    opened.ui.patientEdit.text = PATIENT
    assert opened.ui.findButton.enabled
    opened.ui.findButton.click()
    spin(until=lambda: not opened.panel.run.isRunning, seconds=LONG)
    assert ids(opened) == ["case-01"]


def test_filters_by_answer_organ_and_attributes(opened, spin):
    ui = opened.ui
    ui.labelSelector.setCurrentText("benign")
    ui.organSelector.setCurrentText("lung")
    ui.attributesEdit.text = "diameter_mm=5..13, contrast=false"
    ui.findButton.click()
    spin(until=lambda: not opened.panel.run.isRunning, seconds=LONG)
    assert ids(opened) == ["case-01", "case-07"]
    assert "Only cases labelled benign were searched" in ui.voteLabel.text
    assert not ui.votePlace.visible
    ui.attributesEdit.text = "no sense"
    assert "is no attribute" in ui.findButton.toolTip


def test_filters_that_no_case_meets_say_so(opened, spin):
    opened.ui.attributesEdit.text = "diameter_mm=100.."
    opened.ui.findButton.click()
    spin(until=lambda: not opened.panel.run.isRunning, seconds=LONG)
    assert "No case meets the filters" in opened.ui.foundLabel.text
    assert cards(opened) == []
    assert not opened.ui.sideBySideButton.enabled


def test_a_read_only_library_disables_adding_and_removing_and_says_why(searched):
    for button in (searched.ui.addCaseButton, searched.ui.removeCaseButton):
        assert not button.enabled
        assert "read only" in button.toolTip


def test_a_lesion_is_added_with_what_the_form_says_and_nothing_else(searched, library_path, spin):
    ui = searched.ui
    ui.writableCheckBox.checked = True
    assert "to be changed" in ui.libraryLabel.text
    assert ui.addCaseButton.toolTip == "Say what the lesion is."
    ui.newLabelEdit.setCurrentText("hamartoma")
    ui.newSourceEdit.setCurrentText("histology")
    ui.newOrganEdit.setCurrentText("lung")
    ui.newAttributesEdit.plainText = "diameter_mm=12\nlobe=left upper"
    ui.newNoteEdit.plainText = "popcorn calcification"
    ui.patientEdit.text = "patient 9"
    assert ui.addCaseButton.enabled
    ui.addCaseButton.click()
    spin(until=lambda: not searched.panel.run.isRunning, seconds=LONG)
    assert "13 cases" in ui.libraryLabel.text
    assert "is in the library as case-" in ui.statusLabel.text
    with CaseLibrary.open(library_path) as library:
        (added,) = [case for case in library.cases() if case.label == "hamartoma"]
        assert added.attributes == {"diameter_mm": 12.0, "lobe": "left upper"}
        assert added.patient_hash == pseudonymisation_key().hash("patient 9")
        assert library.thumbnails(added.case_id) == {}
        assert library.patch(added.case_id) is None
    assert ui.newNoteEdit.plainText == ""


def test_pictures_and_ct_are_stored_when_ticked(opened, library_path, spin):
    ui = opened.ui
    assert not ui.picturesCheckBox.checked
    assert not ui.patchCheckBox.checked
    ui.writableCheckBox.checked = ui.picturesCheckBox.checked = ui.patchCheckBox.checked = True
    ui.newLabelEdit.setCurrentText("hamartoma")
    ui.newSourceEdit.setCurrentText("histology")
    ui.patientEdit.text = "patient 9"
    ui.addCaseButton.click()
    spin(until=lambda: not opened.panel.run.isRunning, seconds=LONG)
    with CaseLibrary.open(library_path) as library:
        (added,) = [case for case in library.cases() if case.label == "hamartoma"]
        assert set(library.thumbnails(added.case_id)) == {"axial", "coronal", "sagittal"}
        assert library.patch(added.case_id) is not None


def test_a_lesion_of_nobody_and_a_note_that_names_the_patient_are_refused(opened, library_path, spin, told):
    ui = opened.ui
    ui.writableCheckBox.checked = True
    ui.newLabelEdit.setCurrentText("hamartoma")
    ui.newSourceEdit.setCurrentText("histology")
    ui.addCaseButton.click()
    assert "does not say which patient" in told
    assert "does not say which patient" not in ui.statusLabel.text
    ui.patientEdit.text = "Jane Doe"
    ui.newNoteEdit.plainText = "seen with jane doe in March"
    ui.addCaseButton.click()
    spin(until=lambda: not opened.panel.run.isRunning, seconds=LONG)
    assert "holds a name, number or date of the patient" in told
    assert "holds a name, number or date of the patient" not in ui.statusLabel.text
    assert ui.statusLabel.text == "Nothing was added."
    with CaseLibrary.open(library_path) as library:
        assert len(library) == 12


def test_a_case_is_removed_after_a_question_and_not_without(searched, told):
    searched.ui.writableCheckBox.checked = True
    assert ids(searched)[0] == "case-01"
    told.answers = [False, True]
    searched.ui.removeCaseButton.click()
    assert "Remove case-01 (benign)" in told
    assert "12 cases" in searched.ui.libraryLabel.text
    searched.ui.removeCaseButton.click()
    assert "11 cases" in searched.ui.libraryLabel.text
    assert ids(searched) == [f"case-{n:02d}" for n in range(2, 11)]


def test_why_similar_is_painted_over_the_ct_and_goes_with_the_next_one(searched, a_case, spin):
    choose(searched, "case-03")
    searched.ui.whyButton.click()
    spin(until=lambda: not searched.panel.run.isRunning, seconds=LONG)
    (node,) = [
        n for n in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") if n.GetAttribute("LesionLens.SimilarTo")
    ]
    assert node.GetName() == "L1 similar to case-03"
    composite = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSliceCompositeNode")
    assert composite.GetForegroundVolumeID() == node.GetID()
    searched.ui.heatOpacitySlider.value = 0.8
    assert composite.GetForegroundOpacity() == pytest.approx(0.8)
    choose(searched, "case-04")
    searched.ui.whyButton.click()
    spin(until=lambda: not searched.panel.run.isRunning, seconds=LONG)
    names = [n.GetName() for n in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")]
    assert names == ["golden case", "L1 similar to case-04"]
    assert searched.ui.whyButton.checked
    searched.ui.whyButton.click()
    assert [n.GetName() for n in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")] == ["golden case"]
    assert not searched.ui.whyButton.checked


def test_side_by_side_and_back(searched, scene, screenshot):
    volumes = scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")
    searched.ui.sideBySideButton.click()
    assert "Above the lesion, below case-01" in searched.ui.comparisonLabel.text
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == volumes + 1
    assert searched.ui.backButton.enabled
    searched.ui.backButton.click()
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == volumes
    assert not searched.ui.backButton.enabled


def test_a_case_without_ct_shows_its_pictures_larger_and_says_why(searched, screenshot):
    choose(searched, "case-03")
    searched.ui.sideBySideButton.click()
    assert "holds no CT of case-03" in searched.ui.comparisonLabel.text
    assert searched.ui.picturesPlace.visible
    assert searched.panel.found.comparison._large[0].pixmap.width() > 150
    screenshot(searched, "retrieval-without-ct")
    choose(searched, "case-02")
    assert not searched.ui.picturesPlace.visible
    searched.ui.sideBySideButton.click()
    assert "holds no pictures either" in searched.ui.comparisonLabel.text


def test_not_similar_is_kept_marked_found_again_and_taken_back(searched, library_path, spin):
    choose(searched, "case-02")
    searched.ui.notSimilarButton.click()
    log = library_path.with_name(library_path.name + ".feedback.jsonl")
    entry = json.loads(log.read_text().splitlines()[0])
    assert (entry["case"], entry["verdict"], entry["library"]) == ("case-02", "not similar", "nodules.lesionlib")
    assert "marked as not similar" in searched.panel.found.gallery.cards[1]._more.text
    searched.ui.findButton.click()
    spin(until=lambda: not searched.panel.run.isRunning, seconds=LONG)
    choose(searched, "case-02")
    assert searched.ui.notSimilarButton.checked
    searched.ui.notSimilarButton.click()
    assert "Taken back" in searched.ui.comparisonLabel.text
    assert "marked as not similar" not in searched.panel.found.gallery.cards[1]._more.text
    assert not searched.ui.notSimilarButton.checked


def test_moving_the_box_makes_the_cases_out_of_date(searched, a_case, spin):
    a_case[1].SetSize(*(np.array(a_case[1].GetSize()) + 2))
    spin(until=lambda: "search again" in searched.ui.foundLabel.text, seconds=5)
    assert not searched.ui.whyButton.enabled
    assert "search again" in searched.ui.whyButton.toolTip
    assert searched.ui.findButton.enabled


def test_closing_the_scene_in_the_middle_of_a_search_is_safe(opened, scene, spin, told):
    opened.ui.findButton.click()
    scene.Clear(0)
    spin(until=lambda: not opened.panel.run.isRunning, seconds=LONG)
    assert told.of("error") == []
    assert cards(opened) == []


def test_closing_the_scene_in_the_middle_of_a_comparison_leaves_nothing(searched, scene, spin):
    searched.ui.sideBySideButton.click()
    scene.Clear(0)
    spin(0.3)
    assert searched.logic.comparison is None
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 0
    assert not searched.ui.backButton.enabled


def test_deleting_the_lesion_in_the_middle_of_a_search_is_said(opened, a_case, scene, spin):
    opened.ui.findButton.click()
    scene.RemoveNode(a_case[1])
    spin(until=lambda: not opened.panel.run.isRunning, seconds=LONG)
    assert cards(opened) == []


def test_cancel_ends_the_worker_s_work_and_the_next_search_starts_anew(opened, spin):
    opened.ui.findButton.click()
    opened.ui.cancelButton.click()
    spin(until=lambda: not opened.panel.run.isRunning, seconds=LONG)
    assert "Cancelled" in opened.ui.statusLabel.text
    assert cards(opened) == []
    opened.ui.findButton.click()
    spin(until=lambda: not opened.panel.run.isRunning, seconds=LONG)
    assert len(ids(opened)) == 9


def test_reloading_the_module_ends_its_worker(last_share, opened, spin):
    opened.ui.findButton.click()
    spin(until=lambda: opened.logic.runner.pid is not None, seconds=LONG)
    opened.cleanup()
    assert opened.logic.runner.pid is None


def test_a_new_library_knows_its_model_and_can_be_filled(panel, a_case, spin, monkeypatch, tmp_path, embedding):
    import qt

    panel.initializeParameterNode()
    panel.ui.modelSelector.setCurrentText(MODEL)
    monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", lambda *_: str(tmp_path / "mine"))
    panel.ui.newLibraryButton.click()
    spin(until=lambda: not panel.panel.run.isRunning, seconds=LONG)
    assert "mine.lesionlib is made" in panel.ui.statusLabel.text
    assert panel.logic.library.model == ModelIdentity.of(embedding.info)
    assert panel.logic.library.dimension == len(embedding.vector)
    assert "to be changed" in panel.ui.libraryLabel.text
    assert panel.ui.findButton.toolTip.startswith("The library is empty")


def test_a_saved_scene_opens_with_its_library_and_filters_but_without_the_patient(opened, scene, spin, tmp_path):
    opened.ui.labelSelector.setCurrentText("malignant")
    opened.ui.attributesEdit.text = "contrast=true"
    opened.ui.patientEdit.text = PATIENT
    saveScene(scene, tmp_path / "scene.mrb")
    scene.Clear(0)
    spin(0.3)
    assert opened.ui.patientEdit.text == ""
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    spin(0.5)
    assert opened.ui.labelSelector.currentText == "malignant"
    assert opened.ui.attributesEdit.text == "contrast=true"
    assert opened.ui.lesionSelector.currentNode().GetName() == "L1"
    assert "12 cases" in opened.ui.libraryLabel.text
    assert opened.ui.patientEdit.text == ""


def test_a_scene_from_another_computer_leaves_the_open_library_and_says_so(opened, scene, spin, tmp_path, told):
    opened._parameterNode.libraryPath = "/elsewhere/liver.lesionlib"
    saveScene(scene, tmp_path / "scene.mrb")
    scene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    spin(0.3)
    assert "liver.lesionlib, is not on this computer" in opened.ui.statusLabel.text
    assert "12 cases" in opened.ui.libraryLabel.text
    assert told.of("error") == []


def test_a_case_that_somebody_else_has_removed_meanwhile_is_told(searched, library_path, told):
    with CaseLibrary.open(library_path, read_only=False) as library:
        library.remove("case-03")
    choose(searched, "case-03")
    searched.ui.sideBySideButton.click()
    assert "'case-03' is not in this library" in told
    assert not searched.ui.backButton.enabled


def test_a_scene_saved_in_the_middle_of_a_comparison_opens_without_it(searched, scene, spin, tmp_path):
    searched.ui.sideBySideButton.click()
    saveScene(scene, tmp_path / "scene.mrb")
    scene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    spin(0.3)
    (roi,) = lesionNodes(scene)
    assert roi.GetDisplayNode().GetNumberOfViewNodeIDs() == 0
    assert [n.GetName() for n in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")] == ["golden case"]


def test_a_segment_becomes_the_lesion(panel, scene, spin):
    from LesionClassifierLib.scene.lesions import addSegmentationNode

    volume, box = golden_case()
    addVolumeNode(scene, volume)
    node = addSegmentationNode(scene, [box.segment], name="S")
    panel.initializeParameterNode()
    panel.ui.segmentationSelector.setCurrentNode(node)
    assert panel.ui.segmentSelector.currentText == "golden segment"
    panel.ui.takeSegmentButton.click()
    panel.ui.takeSegmentButton.click()
    (roi,) = lesionNodes(scene)
    assert panel.ui.lesionSelector.currentNode() is roi
    assert roi.GetSize()[0] == pytest.approx(12, abs=2)  # tight, as the model was made for


def test_what_is_missing_is_said_and_nothing_can_be_started(opened, spin):
    from LesionClassifierLib import setup as setup_step

    opened.panel._missing = lambda: setup_step.missingPackages(lambda name: name != "torch")
    opened.panel.checkSetup()
    opened.panel.update()
    assert opened.ui.setupFrame.visible
    assert "torch" in opened.ui.setupLabel.text
    assert opened.ui.findButton.toolTip.startswith("Something is missing")


def test_a_library_of_another_model_says_which(opened, spin):
    opened.ui.modelSelector.addItem("liver")
    opened.ui.modelSelector.setCurrentText("liver")
    assert f"made with {MODEL}" in opened.ui.findButton.toolTip


def test_the_panel_loads_where_there_is_no_torch():
    code = f"""
import sys
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "safetensors", "jsonschema", "monai"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, NoTorch())
import slicer
sys.path[:0] = [{str(ROOT / "LesionClassifier")!r}, {str(ROOT / "LesionRetrieval")!r}]
sys.path.append({str(WIDGET_STANDINS)!r})
slicer.__path__.append({str(SLICER_STANDINS)!r})
import LesionRetrievalLib.panel.retrieval_panel
print("loaded", "torch" in sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert ran.stdout.strip().endswith("loaded False"), ran.stderr
