"""A scene that version 0.1 saved: its answers, its table and both panels' choices are there when it is opened."""

from __future__ import annotations

import importlib

import pytest
import slicer
import slicer.util
from LesionClassifierLib.scene.results import HEAT_MAP_ROLE, VOLUME_ROLE, staleReason, storedResult
from LesionClassifierLib.scene.volumes import volumeFromNode
from repository import FILES_OF_0_1, ROOT

SCENE = FILES_OF_0_1 / "scene.mrb"


@pytest.fixture
def opened(scene):
    slicer.util.loadScene(str(SCENE))
    yield scene
    for node in slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode"):
        scene.RemoveNode(node)


def lesion(scene, name):
    return scene.GetFirstNodeByName(name)


def test_lesions_have_their_answers_and_these_still_hold(opened):
    for name, bright in (("L1", 0.536519), ("L2", 0.537359)):
        roi = lesion(opened, name)
        stored = storedResult(roi)
        assert stored is not None
        assert staleReason(roi) == ""
        assert stored.result.label == "bright"
        assert stored.result.probabilities["bright"] == pytest.approx(bright, abs=1e-5)
        assert len(stored.result.embedding) == 32
        assert (stored.run.volume, stored.run.model_name, stored.run.model_version) == ("golden", "tiny", "0.1.0")
        assert set(stored.classColors) == {"bright", "hollow"}
        assert stored.explained == "bright"
        assert stored.result.reliability.spread.answered == 2


def test_the_heat_map_and_the_ct_are_found_from_the_lesion(opened):
    roi = lesion(opened, "L2")
    heat, ct = (roi.GetNodeReference(role) for role in (HEAT_MAP_ROLE, VOLUME_ROLE))
    assert ct.GetName() == "golden"
    assert volumeFromNode(ct).array.shape == (24, 44, 48)
    assert slicer.util.arrayFromVolume(heat).max() == pytest.approx(1.0, abs=1e-3)


def test_a_box_that_is_moved_makes_its_answer_stale(opened):
    roi = lesion(opened, "L1")
    center = roi.GetCenter()
    roi.SetCenter(center[0] + 5, center[1], center[2])
    assert "has changed since this answer" in staleReason(roi)


def test_the_table_of_results_is_there(opened):
    table = opened.GetFirstNodeByName("LesionLens results")
    assert table.GetNumberOfRows() == 2
    first = [table.GetCellText(0, column) for column in range(table.GetNumberOfColumns())]
    assert first[0] == "L1"
    assert "bright" in first


@pytest.fixture
def parameters(opened, slicers_python, monkeypatch):
    """The parameter node that a module reads in this scene."""
    for name in ("LesionClassifier", "LesionRetrieval"):
        monkeypatch.syspath_prepend(str(ROOT / name))
    return lambda module: getattr(importlib.import_module(module), f"{module}Logic")().getParameterNode()


def test_the_classifier_s_panel_finds_what_was_chosen(parameters):
    node = parameters("LesionClassifier")
    assert node.volume.GetName() == "golden"
    assert (node.marginMm, node.model, node.device, node.redrawnBoxes) == (3.5, "tiny", "cpu", 2)
    assert (node.heatOpacity, node.heatThreshold) == (0.25, 0.4)
    assert (node.showHeat, node.showSeen, node.colorSegments) == (False, True, False)


def test_the_retrieval_panel_finds_what_was_chosen(parameters):
    node = parameters("LesionRetrieval")
    assert (node.volume.GetName(), node.lesion.GetName(), node.segmentId) == ("golden", "L1", "Segment_1")
    assert (node.model, node.device, node.libraryPath) == ("tiny", "cpu", "cases.lesionlib")
    assert (node.scope, node.label, node.organ, node.attributes) == (
        "cross-patient", "hollow", "lung", "texture=solid",
    )  # fmt: skip
    assert (node.leaveOutPatient, node.withPictures, node.withPatch, node.heatOpacity) == (False, True, True, 0.75)


def test_the_stored_keys_of_both_panels_stay(opened):
    """Values are kept under these names; another name in the code needs the old one to be read as well."""
    stored = {
        node.GetAttribute("ModuleName") or node.GetModuleName(): set(node.GetParameterNames())
        for node in slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode")
    }
    assert {
        "marginMm",
        "model",
        "device",
        "redrawnBoxes",
        "heatOpacity",
        "heatThreshold",
        "showHeat",
        "showSeen",
    } <= stored["LesionClassifier"]
    assert {"segmentId", "libraryPath", "scope", "label", "organ", "attributes", "leaveOutPatient"} <= stored[
        "LesionRetrieval"
    ]
