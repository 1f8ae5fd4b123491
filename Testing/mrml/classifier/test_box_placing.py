"""One click says where a lesion is: Slicer's place mode for one point, and nothing left behind."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
from LesionClassifierLib.scene.placing import BoxPlacing
from LesionClassifierLib.scene.tree import saveScene


@pytest.fixture
def nodes(scene):
    return scene.GetNodeByID("vtkMRMLSelectionNodeSingleton"), scene.GetNodeByID("vtkMRMLInteractionNodeSingleton")


def pointNode(scene, nodes):
    return scene.GetNodeByID(nodes[0].GetActivePlaceNodeID())


def test_slicer_s_two_clicks_of_an_roi_are_opposite_corners_and_not_middle_and_corner(scene):
    """The reason for placing by one point."""
    roi = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode")
    roi.AddControlPoint(10.0, 20.0, 30.0)
    roi.AddControlPoint(16.0, 28.0, 30.0)
    assert roi.GetCenter() == pytest.approx((13.0, 24.0, 30.0))
    assert roi.GetSize() == pytest.approx((6.0, 8.0, 6.0))


def test_the_clicked_point_is_given_in_world_mm_and_the_observers_go(scene, nodes):
    places = []
    placing = BoxPlacing()
    placing.start(scene, places.append)
    assert nodes[1].GetCurrentInteractionMode() == nodes[1].Place
    assert nodes[1].GetPlaceModePersistence() == 0
    point = pointNode(scene, nodes)
    point.AddControlPoint(1.0, -2.0, 3.5)
    point.AddControlPoint(9.0, 9.0, 9.0)
    np.testing.assert_allclose(places, [[1.0, -2.0, 3.5]])
    assert not placing.isWaiting
    assert not point.GetDisplayNode().GetVisibility()


def test_the_place_mode_that_ends_without_a_click_is_told_once(scene, nodes):
    places, ends = [], []
    placing = BoxPlacing()
    placing.start(scene, places.append, onGivenUp=lambda: ends.append(1))
    nodes[1].SetCurrentInteractionMode(nodes[1].ViewTransform)
    nodes[1].SetCurrentInteractionMode(nodes[1].Place)
    nodes[1].SetCurrentInteractionMode(nodes[1].ViewTransform)
    assert (places, ends) == ([], [1])


def test_who_starts_ends_what_was_waited_for_before(scene, nodes):
    first, second = [], []
    one, other = BoxPlacing(), BoxPlacing()
    one.start(scene, first.append)
    other.start(scene, second.append)
    assert not one.isWaiting
    pointNode(scene, nodes).AddControlPoint(1.0, 2.0, 3.0)
    assert (len(first), len(second)) == (0, 1)


def test_stopping_leaves_the_place_mode_and_the_point_is_hidden_and_never_saved(scene, nodes, tmp_path):
    placing = BoxPlacing()
    placing.start(scene, print)
    point = pointNode(scene, nodes)
    placing.stop()
    placing.stop()
    assert nodes[1].GetCurrentInteractionMode() != nodes[1].Place
    assert point.GetHideFromEditors()
    saveScene(scene, tmp_path / "scene.mrb")
    scene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    assert scene.GetNumberOfNodesByClass("vtkMRMLMarkupsFiducialNode") == 0


def test_a_scene_that_is_closed_while_a_click_is_awaited_is_no_error(scene, nodes):
    placing = BoxPlacing()
    placing.start(scene, print)
    scene.Clear(0)
    placing.stop()
    placing.start(scene, print)
    assert placing.isWaiting
    placing.stop()
