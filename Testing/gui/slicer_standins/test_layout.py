"""The layout manager stands on Slicer's own layout logic."""

from __future__ import annotations

import logging

import pytest
import slicer

_XML = """<layout type="horizontal"><item><view class="vtkMRMLSliceNode" singletontag="One">
<property name="orientation" action="default">Axial</property></view></item></layout>"""


@pytest.fixture
def logic():
    return slicer.app.layoutManager().layoutLogic()


@pytest.fixture
def shown(logic):
    """The names of the views that are laid out."""

    def names():
        views = logic.GetViewNodes()
        return [views.GetItemAsObject(place).GetLayoutName() for place in range(views.GetNumberOfItems())]

    return names


def test_slicer_starts_with_a_conventional_arrangement_of_three_slices_and_a_3d_view(logic, shown):
    manager = slicer.app.layoutManager()
    manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalView)
    assert set(manager.sliceViewNames()) >= {"Red", "Green", "Yellow"}
    assert sorted(shown()) == ["1", "Green", "Red", "Yellow"]


def test_an_arrangement_of_one_s_own_makes_its_views_once_it_is_described(logic, shown):
    node = logic.GetLayoutNode()
    assert node.AddLayoutDescription(601, _XML)
    node.SetViewArrangement(601)
    assert shown() == ["One"]
    assert slicer.app.layoutManager().layout == 601
    assert "One" in slicer.app.layoutManager().sliceViewNames()


def test_an_unknown_arrangement_in_the_node_leaves_no_view_and_is_warned_of(logic, shown, caplog):
    with caplog.at_level(logging.WARNING):
        logic.GetLayoutNode().SetViewArrangement(62999)
    assert shown() == []
    assert "Can't find layout:62999" in caplog.text


def test_an_unknown_arrangement_asked_of_the_manager_becomes_the_conventional_one(shown):
    manager = slicer.app.layoutManager()
    manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutOneUpRedSliceView)
    assert shown() == ["Red"]
    manager.setLayout(62999)
    assert manager.layout == slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalView


def test_the_arrangement_comes_back_when_the_scene_is_closed(scene, logic, shown):
    slicer.app.layoutManager().setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutOneUpRedSliceView)
    scene.Clear(0)
    assert shown() == ["Red"]
