"""The README's five steps on the phantom, as a reader would follow them; its pictures are made by this very test."""

from __future__ import annotations

import slicer
from LesionClassifierLib.scene.lesions import lesionNodes
from LesionClassifierLib.scene.results import storedResult

LONG = 120


def test_the_five_steps_of_the_readme(module_widget, scene, spin, screenshot, phantom_once, monkeypatch, tmp_path):
    import qt
    from LesionClassifierLib.sample_data import addPhantom

    panel = module_widget("LesionClassifier", size=(560, 1190))
    ui = panel.ui

    addPhantom()  # 1. Sample Data > LesionLens > Chest phantom with five nodules
    panel.initializeParameterNode()
    spin(until=lambda: ui.lesionTable.rowCount == 5, seconds=10)  # 2. its boxes are there
    assert not ui.setupFrame.visible
    assert ui.volumeSelector.currentNode().GetName() == "chest phantom"

    ui.classifyButton.click()  # 3. Classify all
    spin(until=lambda: not panel.panel.run.isRunning, seconds=LONG)
    assert "5 answered" in ui.statusLabel.text

    ui.lesionTable.selectRow(1)  # 4. read the answer; the third, unlike real nodules, has none
    spin(0.3)
    roi = lesionNodes(scene)[1]
    stored = storedResult(roi)
    assert roi.GetName() in ui.answerLabel.text
    assert stored.result.label in ui.answerLabel.text
    assert ui.probabilityTable.item(0, 1).text() == f"{next(iter(stored.result.probabilities.values())):.3f}"

    ui.heatOpacitySlider.value = 0.6  # 5. ask why, and export
    ui.showSeenCheckBox.checked = True
    spin(0.5)
    assert any("looked at" in n.GetName() for n in slicer.util.getNodesByClass("vtkMRMLMarkupsROINode"))
    monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", lambda *_: str(tmp_path / "lesions.csv"))
    ui.exportCsvButton.click()
    assert len((tmp_path / "lesions.csv").read_text().splitlines()) == 6
    ui.statusLabel.text = "5 answered."
    screenshot(panel, "panel")
