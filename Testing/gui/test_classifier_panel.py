"""The panel as a radiologist meets it: place, classify, read, ask why, export; and nothing it meets breaks it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import slicer
import slicer.util
from LesionClassifierLib.scene.lesions import addRoiNode, boxFromRoi, lesionNodes, markAsLesion
from LesionClassifierLib.scene.results import HEAT_MAP_ROLE, storedResult
from LesionClassifierLib.scene.tree import saveScene
from LesionClassifierLib.scene.volumes import addVolumeNode
from LesionLib.errors import InputWarning, OutputError, WarningName
from LesionLib.model.folder import golden_case

LONG = 60


@pytest.fixture
def panel(module_widget, scene):
    return module_widget("LesionClassifier", size=(560, 1500))


@pytest.fixture
def answered(panel, a_case, spin):
    """The panel after Classify all."""
    panel.initializeParameterNode()
    spin(until=lambda: panel.ui.lesionTable.rowCount == 1, seconds=5)
    panel.ui.classifyButton.click()
    spin(until=lambda: not panel.panel.run.isRunning, seconds=LONG)
    return panel


def cell(panel, row: int, column: int) -> str:
    return panel.ui.lesionTable.item(row, column).text()


def test_an_empty_scene_says_what_to_do_first(panel):
    assert not panel.ui.classifyButton.enabled
    assert panel.ui.classifyButton.toolTip == "Choose a CT."
    assert panel.ui.statusLabel.text == "Choose a CT."
    assert "not for diagnosis" in panel.ui.noticeLabel.text
    assert not panel.ui.setupFrame.visible


def test_the_only_ct_there_is_is_chosen_and_a_box_is_asked_for(panel, scene, spin):
    volume, _ = golden_case()
    ct = addVolumeNode(scene, volume)
    panel.initializeParameterNode()
    spin(0.3)
    assert panel.ui.volumeSelector.currentNode() is ct
    assert panel.ui.classifyButton.toolTip.startswith("Place a box around a lesion")


def test_the_models_there_are_are_listed_with_their_card(panel):
    assert panel.ui.modelSelector.currentText == "lung-nodule-kind"
    assert "calcified, solid or subsolid" in panel.ui.modelSelector.toolTip
    panel.ui.modelCardButton.click()
    assert panel.panel.models.cardDialog.isVisible()
    panel.panel.models.cardDialog.close()


def test_classify_all_answers_without_blocking_and_shows_everything(answered, a_case, screenshot):
    roi = a_case[1]
    stored = storedResult(roi)
    ui = answered.ui
    assert [cell(answered, 0, c) for c in range(4)] == [
        "L1", stored.result.label, f"{max(stored.result.probabilities.values()):.2f}", "answered",
    ]  # fmt: skip
    assert stored.result.label in ui.answerLabel.text
    assert ui.probabilityTable.rowCount == len(stored.result.probabilities) == 3
    assert "sets made like this" in ui.reliabilityLabel.text
    assert "answered in" in ui.statusLabel.text
    assert "cpu" in ui.deviceLabel.text
    assert ui.explainedClassSelector.currentText == stored.result.label
    assert "inside the segment" in ui.heatLabel.text or "inside the box" in ui.heatLabel.text
    assert roi.GetNodeReference(HEAT_MAP_ROLE) is not None
    assert ui.exportCsvButton.enabled
    assert Path(screenshot(answered, "panel-answered")).stat().st_size > 10_000


def test_the_chart_has_a_bar_a_class_in_its_colour_from_0_to_1(answered, a_case):
    (chart,) = slicer.util.getNodesByClass("vtkMRMLPlotChartNode")
    stored = storedResult(a_case[1])
    series = [chart.GetNthPlotSeriesNode(n) for n in range(chart.GetNumberOfPlotSeriesNodes())]
    assert [s.GetYColumnName() for s in series] == list(stored.result.probabilities)
    for node, (name, p) in zip(series, stored.result.probabilities.items(), strict=True):
        assert node.GetColor() == pytest.approx(stored.classColors[name])
        column = node.GetTableNode().GetTable().GetColumnByName(name)
        assert max(column.GetValue(i) for i in range(column.GetNumberOfTuples())) == pytest.approx(p)
    assert chart.GetYAxisRange() == (0.0, 1.0)


def test_ctrl_return_classifies(panel, a_case, spin):
    import qt

    panel.initializeParameterNode()
    spin(0.3)
    (shortcut,) = [s for s in panel.parent.findChildren(qt.QShortcut) if s.key.toString() == "Ctrl+Return"]
    shortcut.activated.emit()
    assert panel.panel.run.isRunning
    spin(until=lambda: not panel.panel.run.isRunning, seconds=LONG)
    assert storedResult(a_case[1]) is not None


def test_another_class_is_explained_when_it_is_chosen(answered, a_case, spin):
    roi = a_case[1]
    other = next(name for name in storedResult(roi).result.probabilities if name != storedResult(roi).explained)
    answered.ui.explainedClassSelector.setCurrentText(other)
    spin(until=lambda: storedResult(roi).explained == other and not answered.panel.run.isRunning, seconds=LONG)
    assert roi.GetNodeReference(HEAT_MAP_ROLE).GetName() == f"L1 Grad-CAM {other}"
    assert answered.ui.explainedClassSelector.currentText == other


def test_opacity_and_threshold_reach_the_slice_views(answered, a_case, spin):
    answered.ui.heatOpacitySlider.value = 0.8
    answered.ui.heatThresholdSlider.value = 0.4
    spin(0.2)
    composite = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSliceCompositeNode")
    heat = a_case[1].GetNodeReference(HEAT_MAP_ROLE)
    assert composite.GetForegroundOpacity() == pytest.approx(0.8)
    assert composite.GetForegroundVolumeID() == heat.GetID()
    assert heat.GetDisplayNode().GetLowerThreshold() == pytest.approx(0.4)
    answered.ui.showHeatCheckBox.checked = False
    spin(0.2)
    assert composite.GetForegroundVolumeID() is None


def test_what_the_model_looked_at_is_drawn_once_and_taken_away(answered, spin):
    def grey():
        nodes = slicer.util.getNodesByClass("vtkMRMLMarkupsROINode")
        return [node for node in nodes if "looked at" in node.GetName()]

    answered.ui.showSeenCheckBox.checked = True
    spin(0.8)
    (seen,) = grey()
    spin(0.8)
    assert grey() == [seen]
    assert seen.GetLocked()
    assert answered.ui.lesionTable.rowCount == 1
    answered.ui.showSeenCheckBox.checked = False
    spin(0.3)
    assert grey() == []


def test_moving_the_box_makes_the_answer_out_of_date(answered, a_case, spin):
    roi = a_case[1]
    roi.SetSize(*(np.array(roi.GetSize()) + 2))
    spin(until=lambda: cell(answered, 0, 3) == "out of date", seconds=5)
    assert "classify again" in answered.ui.warningsLabel.text
    assert "&" not in answered.ui.warningsLabel.text


def click_in_view(scene, point) -> None:
    """What a click in a slice view does to the node that Slicer's place mode is on for."""
    selection = scene.GetNodeByID("vtkMRMLSelectionNodeSingleton")
    scene.GetNodeByID(selection.GetActivePlaceNodeID()).AddControlPoint(*point)
    interaction = scene.GetNodeByID("vtkMRMLInteractionNodeSingleton")
    interaction.SetCurrentInteractionMode(interaction.ViewTransform)


def test_one_click_at_the_middle_of_a_lesion_makes_a_box_around_it(panel, scene, spin):
    volume, box = golden_case()
    addVolumeNode(scene, volume)
    panel.initializeParameterNode()
    panel.ui.boxSizeSpinBox.value = 30.0
    panel.ui.placeButton.click()
    assert lesionNodes(scene) == []
    assert panel.ui.statusLabel.text == "Click the middle of the lesion in a slice view: a box of 30 mm appears."
    assert scene.GetNodeByID("vtkMRMLInteractionNodeSingleton").GetCurrentInteractionMode() == 1
    click_in_view(scene, box.centerRAS)
    (placed,) = lesionNodes(scene)
    assert placed.GetName() == "L1"
    np.testing.assert_allclose(boxFromRoi(placed).centerRAS, box.centerRAS, atol=1e-4)
    np.testing.assert_allclose(boxFromRoi(placed).sizeMm, [30.0] * 3)
    assert placed.GetDisplayNode().GetHandlesInteractive()
    assert panel.panel.lesions.current is placed
    assert panel.ui.classifyButton.enabled


def test_a_box_given_up_leaves_nothing_behind_and_classify_all_goes_on(panel, a_case, scene, spin):
    panel.initializeParameterNode()
    spin(0.3)
    panel.ui.placeButton.click()
    interaction = scene.GetNodeByID("vtkMRMLInteractionNodeSingleton")
    interaction.SetCurrentInteractionMode(interaction.ViewTransform)
    assert panel.ui.statusLabel.text == "No box was placed."
    assert [node.GetName() for node in lesionNodes(scene)] == ["L1"]
    panel.ui.classifyButton.click()
    spin(until=lambda: not panel.panel.run.isRunning, seconds=LONG)
    assert storedResult(a_case[1]) is not None


def test_a_lesion_that_is_not_drawn_is_left_out_and_named_while_the_others_are_answered(
    panel, a_case, scene, spin, told
):
    markAsLesion(scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "L2"))
    panel.initializeParameterNode()
    spin(0.3)
    panel.ui.classifyButton.click()
    spin(until=lambda: not panel.panel.run.isRunning, seconds=LONG)
    assert storedResult(a_case[1]) is not None
    assert "1 answered" in panel.ui.statusLabel.text
    assert "Left out, because not drawn yet: L2." in panel.ui.statusLabel.text
    assert told.of("error") == []


def test_a_box_that_is_not_drawn_yet_is_refused_in_plain_words(panel, scene, spin, told):
    volume, _ = golden_case()
    addVolumeNode(scene, volume)
    markAsLesion(scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "L1"))
    panel.initializeParameterNode()
    spin(0.3)
    panel.ui.classifyButton.click()
    assert panel.ui.statusLabel.text == "L1: not drawn yet; place a box around the lesion."
    assert not panel.panel.run.isRunning


def test_renaming_and_hiding_in_the_list_reach_the_node(answered, a_case, spin):
    import qt

    roi, item = a_case[1], answered.ui.lesionTable.item(0, 0)
    item.setText("nodule")
    item.setCheckState(qt.Qt.Unchecked)
    spin(0.3)
    assert roi.GetName() == "nodule"
    assert not roi.GetDisplayNode().GetVisibility()
    assert cell(answered, 0, 0) == "nodule"


def test_delete_takes_the_lesion_and_its_heat_map(answered, scene, spin):
    answered.ui.lesionTable.selectRow(0)
    answered.ui.deleteButton.click()
    spin(0.3)
    assert lesionNodes(scene) == []
    assert [n.GetName() for n in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")] == ["golden case"]
    assert answered.ui.lesionTable.rowCount == 0


def test_closing_the_scene_in_the_middle_of_a_run_is_safe(panel, a_case, scene, spin, told):
    panel.initializeParameterNode()
    spin(0.3)
    panel.ui.classifyButton.click()
    scene.Clear(0)
    spin(until=lambda: not panel.panel.run.isRunning, seconds=LONG)
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 0
    assert told.of("error") == []


def test_deleting_a_lesion_in_the_middle_of_a_run_keeps_the_others(panel, a_case, scene, spin):
    _, box = golden_case()
    other = markAsLesion(addRoiNode(scene, replace(box.grown(1.0), name="L2")))
    panel.initializeParameterNode()
    spin(0.3)
    panel.ui.classifyButton.click()
    scene.RemoveNode(a_case[1])
    spin(until=lambda: not panel.panel.run.isRunning, seconds=LONG)
    assert storedResult(other).result.name == "L2"
    assert "1 were deleted meanwhile" in panel.ui.statusLabel.text


def test_cancel_leaves_the_scene_as_it_is(panel, a_case, scene, spin):
    panel.initializeParameterNode()
    spin(0.3)
    panel.ui.redrawnSpinBox.value = 32
    panel.ui.classifyButton.click()
    assert panel.ui.cancelButton.enabled
    panel.ui.cancelButton.click()
    spin(until=lambda: not panel.panel.run.isRunning, seconds=LONG)
    assert storedResult(a_case[1]) is None
    assert "Cancelled" in panel.ui.statusLabel.text
    assert panel.ui.classifyButton.enabled


def test_reloading_the_module_in_the_middle_of_a_run_ends_its_worker(last_share, panel, a_case, spin):
    panel.initializeParameterNode()
    spin(0.3)
    panel.ui.classifyButton.click()
    spin(until=lambda: panel.logic.runner.pid is not None, seconds=LONG)
    panel.cleanup()
    assert panel.logic.runner.pid is None


def test_a_saved_scene_shows_its_answers_when_it_is_opened_again(answered, a_case, scene, spin, tmp_path):
    answered.ui.heatOpacitySlider.value = 0.7
    label = storedResult(a_case[1]).result.label
    saveScene(scene, tmp_path / "scene.mrb")
    scene.Clear(0)
    spin(0.3)
    assert answered.ui.lesionTable.rowCount == 0
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    spin(until=lambda: answered.ui.lesionTable.rowCount == 1, seconds=10)
    assert [cell(answered, 0, c) for c in (0, 1, 3)] == ["L1", label, "answered"]
    assert label in answered.ui.answerLabel.text
    assert answered.ui.heatOpacitySlider.value == pytest.approx(0.7)


def test_the_table_is_exported_where_the_user_says(answered, monkeypatch, tmp_path):
    import qt

    monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", lambda *_: str(tmp_path / "out.csv"))
    answered.ui.exportCsvButton.click()
    assert (tmp_path / "out.csv").read_text().splitlines()[1].startswith("L1,")
    assert "1 lesions written" in answered.ui.statusLabel.text


def test_a_structured_report_of_a_ct_without_dicom_is_refused_in_plain_words(answered, monkeypatch, told, tmp_path):
    import qt

    monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", lambda *_: str(tmp_path / "out.dcm"))
    answered.ui.exportReportButton.click()
    assert "was not loaded from DICOM" in told
    assert list(tmp_path.iterdir()) == []


def test_lesions_and_maps_as_dicom_go_into_the_folder_that_was_chosen_or_are_refused_in_plain_words(
    panel, scene, monkeypatch, told, tmp_path
):
    import qt
    from LesionClassifierLib import dicom_results

    gap = InputWarning(WarningName.DICOM_NOT_WRITTEN, "There is no parametric map (gradcam_1.dcm): no room.")
    given = []

    def export(folder, roiNodes, files, *, answerAnyway, warn):
        given.append((folder, list(roiNodes), answerAnyway))
        if len(given) == 2:
            raise OutputError("the folder has a results.dcm already; choose another folder.")
        warn(gap)
        return 2

    panel.initializeParameterNode()
    assert not panel.ui.exportDicomButton.enabled  # no answer yet
    monkeypatch.setattr(dicom_results, "exportDicom", export)
    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", lambda *_: "")
    panel.ui.exportDicomButton.enabled = True
    panel.ui.exportDicomButton.click()
    assert given == []  # the dialog was closed
    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path))
    panel.ui.exportDicomButton.click()
    assert given == [(tmp_path, [], False)]
    assert panel.ui.statusLabel.text == f"2 lesions written. {gap}"
    panel.ui.exportDicomButton.click()
    assert "has a results.dcm already" in told
    assert panel.ui.statusLabel.text == ""


def test_what_a_structured_report_had_to_leave_empty_is_said_beside_how_many_were_written(
    answered, monkeypatch, tmp_path
):
    import qt
    from LesionClassifierLib import export

    gap = InputWarning(WarningName.REPORT_GAPS, "The structured report leaves PatientBirthDate empty.")
    monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", lambda *_: str(tmp_path / "out.dcm"))
    monkeypatch.setattr(export, "sourceDatasets", lambda *_: [])
    monkeypatch.setattr(export, "writeStructuredReport", lambda *_, **__: (gap,))
    answered.ui.exportReportButton.click()
    assert answered.ui.statusLabel.text == f"1 lesions written. {gap}"


def test_what_is_missing_is_said_and_nothing_can_be_started(panel, a_case, monkeypatch, spin, told):
    from LesionClassifierLib import setup as setup_step

    panel.panel._missing = lambda: setup_step.missingPackages(lambda name: name != "torch")
    panel.panel.checkSetup()
    panel.initializeParameterNode()
    spin(0.3)
    assert panel.ui.setupFrame.visible
    assert "torch" in panel.ui.setupLabel.text
    assert panel.ui.classifyButton.toolTip.startswith("Something is missing")
    panel.ui.setupButton.click()
    assert "PyTorch" in told
    assert "PyTorch" not in panel.ui.statusLabel.text


def test_a_model_that_is_gone_is_said(panel, a_case, spin, told, monkeypatch):
    panel.initializeParameterNode()
    spin(0.3)
    panel.ui.modelSelector.addItem("liver")
    panel.ui.modelSelector.setCurrentText("liver")
    panel.ui.classifyButton.click()
    spin(until=lambda: not panel.panel.run.isRunning, seconds=LONG)
    assert "unknown model 'liver'" in told or "unknown model 'liver'" in panel.ui.statusLabel.text
