"""The panel and the slice views: laid once and when something changes, never over what others show there, and then at rest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import slicer
import slicer.util
from LesionClassifierLib.scene.heatmaps import HELD_ATTRIBUTE, setLayers
from LesionClassifierLib.scene.lesions import addRoiNode, markAsLesion
from LesionClassifierLib.scene.results import HEAT_MAP_ROLE, storedResult
from LesionClassifierLib.scene.tree import saveScene
from LesionClassifierLib.scene.volumes import addVolumeNode
from LesionLib.geometry import CTVolume
from LesionLib.model.folder import golden_case

LONG = 60
IDLE_S = 3.0


@pytest.fixture
def pet(scene):
    """Another volume, which the user looks at."""
    volume, _ = golden_case()
    return addVolumeNode(scene, CTVolume(np.zeros_like(volume.array), volume.ijkToRAS, name="PET"))


@pytest.fixture
def answered(module_widget, scene, spin):
    """The panel with one answered lesion, whose Grad-CAM lies over the CT."""
    volume, box = golden_case()
    addVolumeNode(scene, volume)
    markAsLesion(addRoiNode(scene, replace(box, name="L1")))
    panel = module_widget("LesionClassifier", size=(560, 1500))
    panel.initializeParameterNode()
    classify(panel, spin)
    return panel


def classify(panel, spin) -> None:
    panel.ui.classifyButton.click()
    spin(until=lambda: not panel.panel.run.isRunning, seconds=LONG)


def shown(scene) -> set[tuple[str, str]]:
    """Names of background and foreground of all slice views."""

    def name(nodeId):
        return scene.GetNodeByID(nodeId).GetName() if nodeId else ""

    composites = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    return {(name(c.GetBackgroundVolumeID()), name(c.GetForegroundVolumeID())) for c in composites}


def a_change_of_the_scene(scene) -> None:
    addRoiNode(scene, replace(golden_case()[1], name="crop"))


def test_the_answer_is_laid_over_the_ct_when_it_comes(answered, scene):
    ((background, foreground),) = shown(scene)
    assert background == "golden case"
    assert foreground.startswith("L1 Grad-CAM")


def test_what_the_user_shows_meanwhile_stays_when_the_scene_changes(answered, scene, spin, pet):
    setLayers(scene, background=pet)
    a_change_of_the_scene(scene)
    spin(1.0)
    assert shown(scene) == {("PET", "")}


def test_a_choice_of_the_user_lays_the_map_again(answered, scene, spin, pet):
    setLayers(scene, background=pet)
    answered.ui.heatOpacitySlider.value = 0.9
    spin(0.2)
    assert {background for background, _ in shown(scene)} == {"golden case"}


def test_nothing_is_laid_while_another_module_is_shown(answered, scene, spin, pet, leave, return_to):
    leave(answered)
    setLayers(scene, background=pet)
    answered._parameterNode.heatOpacity = 0.25
    a_change_of_the_scene(scene)
    spin(1.0)
    assert shown(scene) == {("PET", "")}
    return_to(answered)
    spin(0.3)
    assert {background for background, _ in shown(scene)} == {"golden case"}


def test_coming_back_lays_nothing_where_nothing_has_changed(answered, scene, spin, pet, leave, return_to):
    leave(answered)
    setLayers(scene, background=pet)
    return_to(answered)
    spin(1.0)
    assert shown(scene) == {("PET", "")}


def test_a_run_that_ends_while_another_module_is_shown_waits_with_its_map(answered, scene, spin, pet, leave, return_to):
    answered.ui.lesionTable.selectRow(0)
    answered.ui.classifyButton.click()
    leave(answered)
    setLayers(scene, background=pet)
    spin(until=lambda: not answered.panel.run.isRunning, seconds=LONG)
    assert shown(scene) == {("PET", "")}
    return_to(answered)
    assert {background for background, _ in shown(scene)} == {"golden case"}


def test_views_that_a_comparison_or_a_quiz_holds_are_left_alone(answered, scene, spin, pet):
    setLayers(scene, background=pet)
    held = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")[0]
    held.SetAttribute(HELD_ATTRIBUTE, "quiz")
    classify(answered, spin)
    assert held.GetBackgroundVolumeID() == pet.GetID()
    setLayers(scene, background=answered._parameterNode.volume, holder="quiz")
    assert held.GetBackgroundVolumeID() != pet.GetID()


def test_a_scene_that_is_opened_shows_what_it_showed_when_it_was_saved(answered, scene, spin, pet, tmp_path):
    setLayers(scene, background=pet)
    saveScene(scene, tmp_path / "scene.mrb")
    scene.Clear(0)
    spin(0.3)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    spin(until=lambda: answered.ui.lesionTable.rowCount == 1, seconds=10)
    spin(1.0)
    assert shown(scene) == {("PET", "")}


def test_the_panel_rests_when_nothing_is_touched(answered, scene, spin, monkeypatch):
    spin(1.0)
    changes, refreshes = [], []
    tags = [
        scene.AddObserver(event, lambda *_: changes.append(1))
        for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent)
    ]
    refresh = answered.panel.lesions.refresh
    monkeypatch.setattr(answered.panel.lesions, "refresh", lambda: (refreshes.append(1), refresh()))
    spin(IDLE_S)
    for tag in tags:
        scene.RemoveObserver(tag)
    assert (changes, refreshes) == ([], [])


def test_a_name_that_is_being_typed_and_an_open_list_stay_open(answered, scene, spin):
    import qt

    table = answered.ui.lesionTable
    table.editItem(table.item(0, 0))
    editor = table.findChildren(qt.QLineEdit)[0]
    editor.setText("half a na")
    a_change_of_the_scene(scene)
    spin(1.0)
    assert [edit.text for edit in table.findChildren(qt.QLineEdit)] == ["half a na"]


def test_the_chart_s_nodes_are_changed_in_place_hidden_and_not_saved(answered, scene, spin):
    def chart_nodes():
        kinds = ("vtkMRMLPlotSeriesNode", "vtkMRMLPlotChartNode", "vtkMRMLPlotViewNode")
        return {node.GetID(): node for kind in kinds for node in slicer.util.getNodesByClass(kind)}

    before = chart_nodes()
    classify(answered, spin)
    spin(0.5)
    assert chart_nodes().keys() == before.keys()
    tables = [n for n in slicer.util.getNodesByClass("vtkMRMLTableNode") if n.GetName() == "LesionLens probabilities"]
    for node in (*before.values(), *tables):
        assert node.GetHideFromEditors()
        assert not node.GetSaveWithScene()


def test_grad_cam_volumes_are_not_offered_as_a_ct(answered, scene, spin, pet):
    heat = next(n for n in slicer.util.getNodesByClass("vtkMRMLMarkupsROINode") if storedResult(n)).GetNodeReference(
        HEAT_MAP_ROLE
    )
    spin(0.5)
    selector = answered.ui.volumeSelector
    offered = [selector.nodeFromIndex(row).GetName() for row in range(selector.nodeCount())]
    assert heat.GetName() not in offered
    assert offered[-2:] == ["golden case", "PET"]
