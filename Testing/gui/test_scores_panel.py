"""A model with scores in the classifier's panel: the sentence, a row a score on its scale, and where a reader is better."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from LesionClassifierLib.scene.lesions import addRoiNode, markAsLesion
from LesionClassifierLib.scene.results import HEAT_MAP_ROLE, resultsTable, storedResult
from LesionClassifierLib.scene.volumes import addVolumeNode
from LesionLib.explain import occlusion
from LesionLib.inference.runner import InProcessRunner
from LesionLib.model.folder import golden_case
from scored_model import NAME, SCORES, write_scored_model

LONG = 60


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    """A folder of models, with the one that scores in it."""
    root = tmp_path_factory.mktemp("models")
    write_scored_model(root / NAME)
    return root


@pytest.fixture
def a_lesion(scene):
    volume, box = golden_case()
    addVolumeNode(scene, volume)
    return markAsLesion(addRoiNode(scene, replace(box, name="L1", segment=None)))


@pytest.fixture
def panel(module_widget, models, monkeypatch, a_lesion, spin):
    monkeypatch.setenv("LESIONLENS_MODELS", str(models))
    panel = module_widget("LesionClassifier", size=(560, 1500), runner=InProcessRunner())
    panel.initializeParameterNode()
    spin(until=lambda: panel.ui.lesionTable.rowCount == 1, seconds=5)
    return panel


def classify(panel, spin, model: str) -> None:
    panel.ui.modelSelector.setCurrentText(model)
    panel.ui.classifyButton.click()
    assert spin(until=lambda: not panel.panel.run.isRunning, seconds=LONG)


def test_the_sentence_and_a_row_a_score_stand_below_the_answer(panel, a_lesion, spin, screenshot):
    classify(panel, spin, NAME)
    stored, table = storedResult(a_lesion), panel.ui.scoreTable
    sentence = stored.result.sentence(stored.run.scores)
    assert sentence.startswith("solid, box of 14 mm, lobulated 3 of 5")
    assert sentence in panel.ui.answerLabel.text
    assert table.visible
    rows = [[table.item(row, column).text() for column in range(3)] for row in range(table.rowCount)]
    assert [row[0] for row in rows] == [entry["name"] for entry in SCORES]
    assert rows[1] == ["lobulation", "●●●○○", f"moderate lobulation ({stored.result.scores['lobulation']:.1f}) \u26a0"]
    assert Path(screenshot(panel, "panel-scores")).stat().st_size > 10_000


def test_where_the_model_errs_more_than_a_reader_the_tool_tip_and_the_lines_below_say_so(panel, spin):
    classify(panel, spin, NAME)
    note = "For lobulation the model is off by 0.82 on average, more than one reader is from the others (0.64)."
    tips = [panel.ui.scoreTable.item(row, 1).toolTip() for row in range(len(SCORES))]
    assert [note in tip for tip in tips] == [False, True, False, False]
    assert "model off by 0.48, one reader by 0.61 (n = 806)" in tips[0]
    assert "Its error was not measured." in tips[2]
    assert note in panel.ui.reliabilityLabel.text


def test_the_table_of_the_scene_has_a_column_a_score_and_the_sentence(panel, a_lesion, spin):
    classify(panel, spin, NAME)
    table, stored = resultsTable(a_lesion.GetScene()).GetTable(), storedResult(a_lesion)
    for name, value in stored.result.scores.items():
        assert table.GetColumnByName(f"score_{name}").GetValue(0) == pytest.approx(value)
    assert table.GetColumnByName("sentence").GetValue(0) == stored.result.sentence(stored.run.scores)


def test_a_model_without_scores_shows_no_table_of_them(panel, a_lesion, spin):
    classify(panel, spin, NAME)
    assert panel.ui.scoreTable.visible
    classify(panel, spin, "lung-nodule-malignancy")
    assert storedResult(a_lesion).result.scores == {}
    assert not panel.ui.scoreTable.visible
    assert resultsTable(a_lesion.GetScene()).GetTable().GetColumnByName("sentence") is None


def test_a_lesion_without_an_answer_shows_its_scores_only_when_asked(panel, a_lesion, spin):
    a_lesion.SetSize(60.0, 12.0, 14.0)
    classify(panel, spin, NAME)
    assert "no answer" in panel.ui.answerLabel.text
    assert not panel.ui.scoreTable.visible
    assert "of 5" not in panel.ui.answerLabel.text
    panel.ui.answerAnywayCheckBox.click()
    assert spin(until=lambda: panel.ui.scoreTable.visible, seconds=5)
    assert "lobulated 3 of 5" in panel.ui.answerLabel.text


NOTE = "On its own lesions this map is no better than chance."


@pytest.fixture
def explained(models, monkeypatch):
    """A second model, whose maps are made by occlusion and are said to be no better than chance; few windows, to be quick."""
    monkeypatch.setattr(occlusion, "_CELLS", {2: (4, 2), 3: (4, 2)})
    name = "tiny-occluded"
    if not (models / name).exists():
        explanation = {"class": "calcified", "method": "occlusion", "note": NOTE}
        write_scored_model(models / name, name=name, explanation=explanation)
    return name


def test_a_slow_map_is_made_on_demand_and_what_the_model_says_of_it_stands_below(explained, panel, a_lesion, spin):
    classify(panel, spin, explained)
    assert a_lesion.GetNodeReference(HEAT_MAP_ROLE) is None
    assert "No map was made: this model's take up to a minute a lesion" in panel.ui.heatLabel.text
    assert panel.ui.explainedClassSelector.currentText == "-"
    panel.ui.explainedClassSelector.setCurrentText("calcified")
    assert spin(
        until=lambda: storedResult(a_lesion).explained == "calcified" and not panel.panel.run.isRunning, seconds=LONG
    )
    assert a_lesion.GetNodeReference(HEAT_MAP_ROLE).GetName() == "L1 occlusion map calcified"
    assert storedResult(a_lesion).mapMethod == "occlusion"
    assert NOTE in panel.ui.heatLabel.text


def test_another_way_of_making_the_map_is_asked_for_when_it_is_chosen(explained, panel, a_lesion, spin):
    classify(panel, spin, explained)
    texts = [panel.ui.mapMethodSelector.itemText(row) for row in range(panel.ui.mapMethodSelector.count)]
    assert texts == ["as the model's maps are made", "by Grad-CAM", "by occlusion map"]
    panel.ui.mapMethodSelector.setCurrentText("by Grad-CAM")
    classify(panel, spin, explained)
    assert storedResult(a_lesion).explained == "calcified"  # the class that the model chose, though the answer is solid
    assert a_lesion.GetNodeReference(HEAT_MAP_ROLE).GetName() == "L1 Grad-CAM calcified"
    assert NOTE not in panel.ui.heatLabel.text
    panel.ui.mapMethodSelector.setCurrentText("by occlusion map")
    assert spin(
        until=lambda: storedResult(a_lesion).mapMethod == "occlusion" and not panel.panel.run.isRunning, seconds=LONG
    )
    assert a_lesion.GetNodeReference(HEAT_MAP_ROLE).GetName() == "L1 occlusion map calcified"
