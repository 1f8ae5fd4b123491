"""A lesion that the model has no answer for, as the panel shows it; and the margin of segments' boxes, and segments in parts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from LesionClassifierLib.scene.lesions import addRoiNode, addSegmentationNode, markAsLesion
from LesionClassifierLib.scene.volumes import addVolumeNode
from LesionLib.geometry import CTVolume
from LesionLib.model.folder import golden_case

LONG = 120


@pytest.fixture
def panel(module_widget, scene):
    return module_widget("LesionClassifier", size=(560, 1500))


@pytest.fixture
def answered(panel, scene, spin):
    """The panel after Classify all on a box larger than any of training."""
    volume, box = golden_case()
    addVolumeNode(scene, volume)
    markAsLesion(addRoiNode(scene, replace(box, name="L1", sizeMm=[60.0, 12, 14], segment=None)))
    panel.initializeParameterNode()
    spin(until=lambda: panel.ui.lesionTable.rowCount == 1, seconds=5)
    panel.ui.classifyButton.click()
    spin(until=lambda: not panel.panel.run.isRunning, seconds=LONG)
    return panel


def test_the_panel_says_no_answer_and_shows_what_was_computed_only_when_asked(answered, spin, screenshot):
    ui = answered.ui
    assert [ui.lesionTable.item(0, column).text() for column in range(4)] == ["L1", "no answer", "", "answered"]
    assert "no answer" in ui.answerLabel.text
    named = ui.answerLabel.text + ui.reliabilityLabel.text.partition("Measured on")[0]
    assert not [name for name in ("calcified", "solid") if name in named]
    assert not ui.probabilityTable.visible
    assert not ui.probabilityPlotPlace.visible
    assert ui.answerAnywayCheckBox.visible
    assert "its size is outside" in ui.reliabilityLabel.text
    assert "nothing to explain" in ui.heatLabel.text
    assert ui.explainedClassSelector.currentText == "-"
    assert Path(screenshot(answered, "panel-no-answer")).stat().st_size > 10_000
    ui.answerAnywayCheckBox.click()
    spin(until=lambda: ui.probabilityTable.visible, seconds=5)
    assert ui.probabilityTable.rowCount == 3
    assert "Not an answer" in ui.answerLabel.text
    assert ui.lesionTable.item(0, 1).text() == "no answer"  # the list stays as it is
    ui.answerAnywayCheckBox.click()
    spin(until=lambda: not ui.probabilityTable.visible, seconds=5)


def test_the_figures_of_the_model_stand_beside_its_answer(answered):
    assert "AUC 0.990 (0.982-0.995)" in answered.ui.reliabilityLabel.text
    assert "size alone has 0.568" in answered.ui.reliabilityLabel.text
    assert "The probabilities assume" in answered.ui.reliabilityLabel.text


def test_segments_get_the_margin_of_the_model_and_another_one_is_said(panel, scene, spin):
    volume, box = golden_case()
    addVolumeNode(scene, volume)
    panel.initializeParameterNode()
    panel.panel.parameters.segmentation = addSegmentationNode(scene, [box.segment], name="S")
    spin(0.3)
    assert panel.panel.parameters.marginMm == 0.0
    panel.ui.addSegmentsButton.click()
    assert panel.ui.statusLabel.text == "1 segments are lesions now."
    panel.panel.parameters.marginMm = 2.0
    panel.ui.addSegmentsButton.click()
    assert "reach 2 mm beyond them; the model was made for 0 mm" in panel.ui.statusLabel.text


def test_a_segment_in_two_parts_becomes_two_lesions_where_that_is_ticked(panel, scene, spin):
    volume, box = golden_case()
    addVolumeNode(scene, volume)
    panel.initializeParameterNode()
    two = np.zeros((12, 12, 30), np.uint8)
    two[2:8, 2:8, 2:8] = two[2:8, 2:8, 15:25] = 1
    mask = CTVolume(two, box.segment.ijkToRAS, name="metastases")
    panel.panel.parameters.segmentation = addSegmentationNode(scene, [mask], name="S")
    spin(0.3)
    panel.ui.splitPartsCheckBox.click()
    spin(0.3)
    assert panel.panel.parameters.splitParts
    panel.ui.addSegmentsButton.click()
    assert panel.ui.statusLabel.text == "2 segments are lesions now."
    spin(until=lambda: panel.ui.lesionTable.rowCount == 2, seconds=5)
    assert [panel.ui.lesionTable.item(row, 0).text() for row in range(2)] == ["metastases 1", "metastases 2"]
