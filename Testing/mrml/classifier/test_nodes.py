"""Volumes, heat maps, tables and whole scenes: nothing moves, nothing is lost, what cannot be right is refused."""

from __future__ import annotations

import gc
import os

import numpy as np
import pytest
import slicer
import slicer.util
import vtk
from LesionClassifierLib.scene.heatmaps import (
    HELD_ATTRIBUTE,
    REFERENCE_VOLUME_ROLE,
    addHeatMapNode,
    heatColorNode,
    setLayers,
)
from LesionClassifierLib.scene.lesions import addRoiNode, boxFromRoi
from LesionClassifierLib.scene.tree import addResultsTableNode, placeResults, saveScene
from LesionClassifierLib.scene.volumes import HEAT_MAP_ATTRIBUTE, addVolumeNode, nodesOfClass, volumeFromNode
from LesionLib.errors import OutputError, VolumeError
from LesionLib.geometry import CTVolume, transformed_points
from LesionRetrievalLib.scene.identity import identityOfVolume


def test_a_shared_volume_takes_no_memory_of_its_own_and_outlives_the_array_s_name(scene, an_oblique_ct):
    ct = an_oblique_ct()
    expected, address = ct.array.copy(), ct.array.__array_interface__["data"][0]
    node = addVolumeNode(scene, ct, isShared=True)
    del ct
    gc.collect()
    shown = volumeFromNode(node).array
    assert shown.__array_interface__["data"][0] == address
    assert np.array_equal(shown, expected)


@pytest.mark.parametrize("leftHanded", [False, True])
def test_an_oblique_volume_makes_the_round_trip_exactly(scene, an_oblique_ct, leftHanded):
    ct = an_oblique_ct(leftHanded=leftHanded)
    again = volumeFromNode(addVolumeNode(scene, ct))
    assert again.array.dtype == np.int16
    assert np.array_equal(again.array, ct.array)
    assert np.allclose(again.ijkToRAS, ct.ijkToRAS, atol=1e-9)


def test_the_array_is_the_nodes_own_memory(scene, an_oblique_ct):
    node = addVolumeNode(scene, an_oblique_ct())
    assert np.shares_memory(volumeFromNode(node).array, slicer.util.arrayFromVolume(node))


@pytest.mark.parametrize("dtype", [np.float16, ">i2", np.uint8, np.int32, np.float64])
def test_every_voxel_type_keeps_its_values(scene, dtype):
    array = np.array([0, 1, 1, 0], dtype=dtype).reshape(1, 2, 2)
    node = addVolumeNode(scene, CTVolume(array, np.eye(4)))
    assert np.array_equal(volumeFromNode(node).array, array)


def test_a_volume_is_shown_in_the_lung_window(scene, an_oblique_ct):
    display = addVolumeNode(scene, an_oblique_ct()).GetDisplayNode()
    assert (display.GetWindow(), display.GetLevel(), display.GetAutoWindowLevel()) == (1500, -600, 0)


def test_linear_transforms_above_a_volume_are_part_of_its_geometry(scene, an_oblique_ct, turned, a_linear_transform):
    ct = an_oblique_ct()
    node = addVolumeNode(scene, ct)
    outer = a_linear_transform(turned(0, 0, 90))
    node.SetAndObserveTransformNodeID(a_linear_transform(np.diag([2, 2, 2]), above=outer).GetID())
    expected = transformed_points(ct.ijkToRAS, [3, 4, 5]) @ (turned(0, 0, 90) * 2).T
    assert np.allclose(transformed_points(volumeFromNode(node).ijkToRAS, [3, 4, 5]), expected)


def test_a_volume_under_a_non_linear_transform_is_refused(scene, an_oblique_ct, a_bending_transform):
    node = addVolumeNode(scene, an_oblique_ct())
    node.SetAndObserveTransformNodeID(a_bending_transform().GetID())
    with pytest.raises(VolumeError, match="harden the transform first"):
        volumeFromNode(node)


def test_a_volume_without_an_image_is_refused(scene):
    with pytest.raises(VolumeError, match="holds no image"):
        volumeFromNode(scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty"))


def test_a_colour_volume_is_refused(scene):
    node = slicer.util.addVolumeFromArray(np.zeros((2, 2, 2, 3), np.uint8), nodeClassName="vtkMRMLVectorVolumeNode")
    with pytest.raises(VolumeError, match="3 values per voxel"):
        volumeFromNode(node)


def test_all_heat_maps_of_a_scene_share_one_colour_ramp(scene):
    first, second = (addHeatMapNode(scene, np.ones((2, 2, 2)), np.eye(4), name=name) for name in "AB")
    assert first.GetDisplayNode().GetColorNode() is second.GetDisplayNode().GetColorNode()
    assert volumeFromNode(first).array.dtype == np.float32


@pytest.mark.parametrize("array", [np.full((2, 2, 2), 1.5), np.full((2, 2, 2), np.nan), np.zeros((2, 2))])
def test_a_heat_map_that_is_none_is_refused(scene, array):
    with pytest.raises(VolumeError):
        addHeatMapNode(scene, array, np.eye(4), name="A")


def test_layers_are_set_for_the_three_slice_views_even_where_there_are_none(scene):
    ct = addVolumeNode(scene, CTVolume(np.zeros((2, 2, 2), np.int16), np.eye(4)))
    heatMap = addHeatMapNode(scene, np.ones((2, 2, 2)), np.eye(4), name="A")
    setLayers(scene, background=ct, foreground=heatMap, opacity=0.4)
    composites = nodesOfClass(scene, "vtkMRMLSliceCompositeNode")
    assert {composite.GetLayoutName() for composite in composites} >= {"Red", "Green", "Yellow"}
    assert {composite.GetForegroundVolumeID() for composite in composites} == {heatMap.GetID()}
    setLayers(scene, background=ct)
    assert {composite.GetForegroundVolumeID() for composite in composites} == {None}


def test_a_table_with_unequal_columns_is_refused(scene):
    with pytest.raises(ValueError, match="a: 1, b: 2"):
        addResultsTableNode(scene, {"a": [1], "b": [1, 2]}, name="T")


def _children(scene, studyName):
    tree = scene.GetSubjectHierarchyNode()
    study = tree.GetItemChildWithName(tree.GetSceneItemID(), studyName)
    children = vtk.vtkIdList()
    tree.GetItemChildren(study, children)
    items = [children.GetId(n) for n in range(children.GetNumberOfIds())]
    return [(tree.GetItemName(item), tree.GetItemOwnerPluginName(item)) for item in items]


def test_nodes_placed_twice_stand_in_the_folder_once(scene, an_oblique_ct):
    ct = addVolumeNode(scene, an_oblique_ct())
    table = addResultsTableNode(scene, {"a": [1]}, name="T")
    first = placeResults(scene, ct, [table], folderName="S")
    assert placeResults(scene, ct, [table], folderName="S") == first
    assert _children(scene, "S") == [("T", "Tables")]


@pytest.fixture
def a_dicom_ct(scene, an_oblique_ct):
    """A CT below its study and patient, as Slicer's DICOM import makes it."""
    node, tree = addVolumeNode(scene, an_oblique_ct()), scene.GetSubjectHierarchyNode()
    patient = tree.CreateSubjectItem(tree.GetSceneItemID(), "Doe^Jane")
    tree.SetItemAttribute(patient, "DICOM.PatientID", "PAT-1")
    study = tree.CreateStudyItem(patient, "CT thorax 2024")
    tree.SetItemAttribute(study, "DICOM.StudyInstanceUID", "1.2.3")
    tree.CreateItem(study, node)
    return node


def _above(node):
    """Names from the node's item up to the top of the tree."""
    tree, names = node.GetScene().GetSubjectHierarchyNode(), []
    item = tree.GetItemByDataNode(node)
    while item and item != tree.GetSceneItemID():
        names.append(tree.GetItemName(item))
        item = tree.GetItemParent(item)
    return names


def test_results_stand_below_the_study_of_the_ct_which_stays_where_it_is(scene, a_dicom_ct):
    table = addResultsTableNode(scene, {"a": [1]}, name="T")
    first = placeResults(scene, a_dicom_ct, [a_dicom_ct, table], folderName="Results")
    assert placeResults(scene, a_dicom_ct, [table], folderName="Results") == first
    assert _above(a_dicom_ct) == ["CT", "CT thorax 2024", "Doe^Jane"]
    assert _above(table) == ["T", "Results", "CT thorax 2024", "Doe^Jane"]
    assert scene.GetSubjectHierarchyNode().GetItemLevel(first) == "Folder"
    assert scene.GetSubjectHierarchyNode().GetItemOwnerPluginName(first) == "Folder"


def test_the_patient_of_a_ct_is_known_after_its_results_were_placed(scene, a_dicom_ct):
    placeResults(scene, a_dicom_ct, [addResultsTableNode(scene, {"a": [1]}, name="T")], folderName="Results")
    assert identityOfVolume(a_dicom_ct).is_known
    assert identityOfVolume(a_dicom_ct).study == "1.2.3"


def test_what_somebody_has_put_somewhere_in_the_tree_stays_there(scene, a_dicom_ct, a_box):
    tree = scene.GetSubjectHierarchyNode()
    mine = tree.CreateFolderItem(tree.GetSceneItemID(), "my boxes")
    kept, loose = (addRoiNode(scene, a_box(name=name)) for name in ("L1", "L2"))
    tree.CreateItem(mine, kept)
    tree.CreateItem(tree.GetSceneItemID(), loose)
    placeResults(scene, a_dicom_ct, [kept, loose], folderName="Results")
    assert _above(kept) == ["L1", "my boxes"]
    assert _above(loose) == ["L2", "Results", "CT thorax 2024", "Doe^Jane"]


def test_results_of_a_ct_without_a_study_stand_in_a_folder_at_the_top(scene, an_oblique_ct):
    ct = addVolumeNode(scene, an_oblique_ct())
    table = addResultsTableNode(scene, {"a": [1]}, name="CT")
    placeResults(scene, ct, [table], folderName="CT")  # named as the volume: its item is no folder
    assert _above(ct) == ["CT"]
    assert _above(table) == ["CT", "CT"]


def test_views_that_are_held_keep_their_layers_unless_their_holder_asks(scene):
    ct = addVolumeNode(scene, CTVolume(np.zeros((2, 2, 2), np.int16), np.eye(4)))
    other = addVolumeNode(scene, CTVolume(np.zeros((2, 2, 2), np.int16), np.eye(4)))
    setLayers(scene, background=other)
    red, *others = nodesOfClass(scene, "vtkMRMLSliceCompositeNode")
    red.SetAttribute(HELD_ATTRIBUTE, "comparison")
    setLayers(scene, background=ct)
    setLayers(scene, background=ct, holder="quiz")
    assert red.GetBackgroundVolumeID() == other.GetID()
    assert {each.GetBackgroundVolumeID() for each in others} == {ct.GetID()}
    setLayers(scene, background=ct, holder="comparison")
    assert red.GetBackgroundVolumeID() == ct.GetID()
    red.RemoveAttribute(HELD_ATTRIBUTE)


@pytest.fixture
def a_saved_scene(scene, an_oblique_ct, tmp_path, a_box):
    """A whole result, saved, the scene cleared and loaded again."""
    ct = addVolumeNode(scene, an_oblique_ct())
    roi = addRoiNode(scene, a_box(name="L1"), colorRGB=(1, 0.5, 0))
    fractions = np.linspace(0, 1, 60).reshape(3, 4, 5)
    heatMap = addHeatMapNode(
        scene, fractions, an_oblique_ct().ijkToRAS, name="L1 heat", referenceVolumeNode=ct, threshold=0.3
    )
    columns = {"box": ["L1", "L2"], "p": [0.25, None], "n": [3, 4]}
    table = addResultsTableNode(scene, columns, name="Results")
    setLayers(scene, background=ct, foreground=heatMap, opacity=0.4)
    placeResults(scene, ct, [roi, heatMap, table], folderName="Study 1")
    saveScene(scene, tmp_path / "résumé 1.mrb")
    scene.Clear(False)
    slicer.util.loadScene(str(tmp_path / "résumé 1.mrb"))
    return scene


def test_the_ct_of_a_saved_scene_comes_back(a_saved_scene, an_oblique_ct):
    again = volumeFromNode(slicer.util.getNode("CT"))
    assert np.array_equal(again.array, an_oblique_ct().array)
    assert np.allclose(again.ijkToRAS, an_oblique_ct().ijkToRAS, atol=1e-6)


def test_the_box_of_a_saved_scene_comes_back(a_saved_scene, a_box, same_place):
    roi = slicer.util.getNode("L1")
    assert same_place(boxFromRoi(roi), a_box().cornersRAS)
    assert roi.GetDisplayNode().GetSelectedColor() == (1, 0.5, 0)
    assert not roi.GetDisplayNode().GetFillVisibility()


def test_the_heat_map_of_a_saved_scene_comes_back_in_its_colours(a_saved_scene):
    heatMap = slicer.util.getNode("L1 heat")
    display = heatMap.GetDisplayNode()
    assert heatMap.GetAttribute(HEAT_MAP_ATTRIBUTE)
    assert heatMap.GetNodeReference(REFERENCE_VOLUME_ROLE).GetName() == "CT"
    assert (display.GetLowerThreshold(), display.GetApplyThreshold()) == (0.3, 1)
    assert (display.GetWindowLevelMin(), display.GetWindowLevelMax(), display.GetAutoWindowLevel()) == (
        0,
        1,
        0,
    )
    assert display.GetColorNode() is heatColorNode(a_saved_scene)
    assert np.allclose(display.GetColorNode().GetColorTransferFunction().GetColor(1.0), (0.988, 0.998, 0.645))


def test_table_layers_and_tree_of_a_saved_scene_come_back(a_saved_scene):
    table = slicer.util.getNode("Results")
    cells = [table.GetCellText(row, column) for row in range(2) for column in range(3)]
    assert cells == ["L1", "0.25", "3", "L2", "nan", "4"]
    composite = nodesOfClass(a_saved_scene, "vtkMRMLSliceCompositeNode")[0]
    assert a_saved_scene.GetNodeByID(composite.GetForegroundVolumeID()).GetName() == "L1 heat"
    assert composite.GetForegroundOpacity() == 0.4
    expected = [("L1", "Markups"), ("L1 heat", "Volumes"), ("Results", "Tables")]
    assert _children(a_saved_scene, "Study 1") == expected


def test_a_left_handed_ct_comes_back_from_a_file_with_its_slices_in_reverse_order(scene, an_oblique_ct, tmp_path):
    """Slicer's reader makes every volume right-handed: another voxel order, the same values at the same places."""
    ct = an_oblique_ct(leftHanded=True)
    addVolumeNode(scene, ct)
    saveScene(scene, tmp_path / "left.mrb")
    scene.Clear(False)
    slicer.util.loadScene(str(tmp_path / "left.mrb"))
    again = volumeFromNode(slicer.util.getNode("CT"))
    assert np.array_equal(again.array[::-1], ct.array)
    last = ct.array.shape[0] - 1
    assert np.allclose(
        transformed_points(again.ijkToRAS, [3, 4, last - 5]),
        transformed_points(ct.ijkToRAS, [3, 4, 5]),
        atol=1e-6,
    )


@pytest.mark.parametrize("name", ["nowhere/scene.mrb", "scene.zip"])
def test_a_scene_that_cannot_be_saved_says_so(scene, tmp_path, name):
    with pytest.raises(OutputError, match=r"choose a folder that exists|is saved as \.mrb"):
        saveScene(scene, tmp_path / name)


def test_saving_replaces_an_older_file_and_leaves_nothing_else(scene, tmp_path):
    (tmp_path / "scene.mrb").write_text("old")
    saveScene(scene, tmp_path / "scene.mrb")
    assert os.listdir(tmp_path) == ["scene.mrb"]
    assert (tmp_path / "scene.mrb").stat().st_size > 1000
