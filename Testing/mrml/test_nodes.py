"""The border between MRML and LesionLib: nothing moves, nothing is lost, what cannot be right is refused."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import slicer
import slicer.util
import vtk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from LesionClassifierLib import nodes
from LesionLib.errors import BoxError, OutputError, VolumeError
from LesionLib.geometry import CTVolume, LesionBox, transformed_points
from scipy.spatial.transform import Rotation


def _linear(scene, matrix, *, above=None):
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    full = np.eye(4)
    full[: len(matrix), : len(matrix)] = matrix
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(full))
    if above is not None:
        transform.SetAndObserveTransformNodeID(above.GetID())
    return transform


def _bending(scene):
    spline = vtk.vtkThinPlateSplineTransform()
    points, moved = vtk.vtkPoints(), vtk.vtkPoints()
    for corner in np.ndindex(2, 2, 2):
        points.InsertNextPoint(*(100.0 * np.array(corner)))
        moved.InsertNextPoint(*(100.0 * np.array(corner) + 10 * np.sin(np.arange(3) + sum(corner) ** 2)))
    spline.SetSourceLandmarks(points)
    spline.SetTargetLandmarks(moved)
    spline.SetBasisToR()
    transform = scene.AddNewNodeByClass("vtkMRMLTransformNode")
    transform.SetAndObserveTransformToParent(spline)
    return transform


def _a_box(turned, **changes) -> LesionBox:
    return LesionBox(**{"centerRAS": [12, -30, 45.5], "sizeMm": [20, 30, 14], "axesRAS": turned(10, 20, 30)} | changes)


def _same_place(box: LesionBox, corners: np.ndarray) -> bool:
    """Whether the box has these corners, in any order."""
    distances = np.linalg.norm(box.cornersRAS[:, None] - corners[None], axis=-1)
    return bool((distances.min(axis=0) < 1e-6).all() and (distances.min(axis=1) < 1e-6).all())


# Volumes


@pytest.mark.parametrize("leftHanded", [False, True])
def test_an_oblique_volume_makes_the_round_trip_exactly(scene, an_oblique_ct, leftHanded):
    ct = an_oblique_ct(leftHanded=leftHanded)
    again = nodes.volumeFromNode(nodes.addVolumeNode(scene, ct))
    assert again.array.dtype == np.int16
    assert np.array_equal(again.array, ct.array)
    assert np.allclose(again.ijkToRAS, ct.ijkToRAS, atol=1e-9)


def test_the_array_is_the_nodes_own_memory(scene, an_oblique_ct):
    node = nodes.addVolumeNode(scene, an_oblique_ct())
    assert np.shares_memory(nodes.volumeFromNode(node).array, slicer.util.arrayFromVolume(node))


@pytest.mark.parametrize("dtype", [bool, np.float16, ">i2", np.uint8, np.int32, np.float64])
def test_every_voxel_type_keeps_its_values(scene, dtype):
    array = np.array([0, 1, 1, 0], dtype=dtype).reshape(1, 2, 2)
    node = nodes.addVolumeNode(scene, CTVolume(array, np.eye(4)))
    assert np.array_equal(nodes.volumeFromNode(node).array, array)


def test_a_volume_is_shown_in_the_lung_window(scene, an_oblique_ct):
    display = nodes.addVolumeNode(scene, an_oblique_ct()).GetDisplayNode()
    assert (display.GetWindow(), display.GetLevel(), display.GetAutoWindowLevel()) == (1500, -600, 0)


def test_linear_transforms_above_a_volume_are_part_of_its_geometry(scene, an_oblique_ct, turned):
    ct = an_oblique_ct()
    node = nodes.addVolumeNode(scene, ct)
    outer = _linear(scene, turned(0, 0, 90))
    node.SetAndObserveTransformNodeID(_linear(scene, np.diag([2, 2, 2]), above=outer).GetID())
    expected = transformed_points(ct.ijkToRAS, [3, 4, 5]) @ (turned(0, 0, 90) * 2).T
    assert np.allclose(transformed_points(nodes.volumeFromNode(node).ijkToRAS, [3, 4, 5]), expected)


def test_a_volume_under_a_non_linear_transform_is_refused(scene, an_oblique_ct):
    node = nodes.addVolumeNode(scene, an_oblique_ct())
    node.SetAndObserveTransformNodeID(_bending(scene).GetID())
    with pytest.raises(VolumeError, match="harden the transform first"):
        nodes.volumeFromNode(node)


def test_a_volume_without_an_image_is_refused(scene):
    with pytest.raises(VolumeError, match="holds no image"):
        nodes.volumeFromNode(scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty"))


def test_a_colour_volume_is_refused(scene):
    node = slicer.util.addVolumeFromArray(np.zeros((2, 2, 2, 3), np.uint8), nodeClassName="vtkMRMLVectorVolumeNode")
    with pytest.raises(VolumeError, match="3 values per voxel"):
        nodes.volumeFromNode(node)


# Boxes


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    quaternion=st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: np.linalg.norm(q) > 0.1),
    center=st.tuples(*[st.floats(-500, 500)] * 3),
    size=st.tuples(*[st.floats(0.2, 300)] * 3),
)
def test_any_rotated_box_makes_the_round_trip(scene, quaternion, center, size):
    box = LesionBox(center, size, Rotation.from_quat(quaternion).as_matrix(), name="L1")
    node = nodes.addRoiNode(scene, box)
    again = nodes.boxFromRoi(node)
    scene.RemoveNode(node)
    assert again.name == "L1"
    for key in ("centerRAS", "sizeMm", "axesRAS"):
        assert np.abs(getattr(again, key) - getattr(box, key)).max() < 1e-6


def test_a_left_handed_box_comes_back_right_handed_at_the_same_place(scene, turned):
    box = _a_box(turned, axesRAS=turned(10, 20, 30) * [1, -1, 1])
    again = nodes.boxFromRoi(nodes.addRoiNode(scene, box))
    assert np.linalg.det(again.axesRAS) > 0
    assert _same_place(again, box.cornersRAS)


@pytest.mark.parametrize(
    "matrix",
    [np.diag([2.0, 2, 2]), np.diag([-1.0, 1, 1]), Rotation.from_euler("x", 40, degrees=True).as_matrix()],
    ids=["larger", "mirrored", "turned"],
)
def test_a_box_follows_the_transforms_above_it(scene, turned, matrix):
    box = _a_box(turned)
    node = nodes.addRoiNode(scene, box)
    outer = _linear(scene, turned(0, 50, 0))
    node.SetAndObserveTransformNodeID(_linear(scene, matrix, above=outer).GetID())
    again = nodes.boxFromRoi(node)
    assert _same_place(again, box.cornersRAS @ (turned(0, 50, 0) @ matrix).T)
    sizeWorld = [0.0] * 3
    node.GetSizeWorld(sizeWorld)
    assert np.allclose(again.sizeMm, sizeWorld)


def test_unequal_scaling_along_the_boxs_own_axes_goes_into_its_size(scene, turned):
    node = nodes.addRoiNode(scene, _a_box(turned, axesRAS=np.eye(3)))
    node.SetAndObserveTransformNodeID(_linear(scene, np.diag([1.0, 2, 3])).GetID())
    assert np.allclose(nodes.boxFromRoi(node).sizeMm, [20, 60, 42])


@pytest.mark.parametrize(
    "matrix",
    [np.diag([1.0, 2, 3]), [[1, 0.3, 0], [0, 1, 0], [0, 0, 1]]],
    ids=["unequal scaling of a turned box", "shear"],
)
def test_a_sheared_box_is_refused(scene, turned, matrix):
    node = nodes.addRoiNode(scene, _a_box(turned))
    node.SetAndObserveTransformNodeID(_linear(scene, matrix).GetID())
    with pytest.raises(BoxError, match="sheared by its transform"):
        nodes.boxFromRoi(node)


def test_a_box_pressed_flat_is_refused(scene, turned):
    node = nodes.addRoiNode(scene, _a_box(turned))
    node.SetAndObserveTransformNodeID(_linear(scene, np.diag([1.0, 1, 0])).GetID())
    with pytest.raises(BoxError, match="pressed flat"):
        nodes.boxFromRoi(node)


def test_a_box_under_a_non_linear_transform_is_refused(scene, turned):
    node = nodes.addRoiNode(scene, _a_box(turned))
    node.SetAndObserveTransformNodeID(_bending(scene).GetID())
    with pytest.raises(BoxError, match="non-linear"):
        nodes.boxFromRoi(node)


def test_a_box_that_is_not_drawn_yet_is_refused(scene):
    with pytest.raises(BoxError, match="has not been drawn yet"):
        nodes.boxFromRoi(scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "R"))


def test_a_box_without_thickness_is_refused(scene):
    node = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "R")
    node.SetSize(10, 10, 0)
    with pytest.raises(BoxError, match="10 x 10 x 0 mm"):
        nodes.boxFromRoi(node)


def test_a_box_is_shown_as_an_outline_without_handles(scene, turned):
    display = nodes.addRoiNode(scene, _a_box(turned), colorRGB=(1, 0.5, 0)).GetDisplayNode()
    assert (display.GetFillVisibility(), display.GetOutlineVisibility(), display.GetHandlesInteractive()) == (
        0,
        1,
        0,
    )
    assert display.GetSelectedColor() == (1, 0.5, 0)


# Markups files


def test_a_box_saved_by_slicer_is_read_back(scene, tmp_path, turned):
    box = _a_box(turned)
    assert slicer.util.saveNode(nodes.addRoiNode(scene, box), str(tmp_path / "L1.mrk.json"))
    scene.Clear(False)
    (node,) = nodes.loadRoiNodes(scene, tmp_path / "L1.mrk.json")
    assert node.GetName() == "L1"
    assert _same_place(nodes.boxFromRoi(node), box.cornersRAS)
    assert not node.GetDisplayNode().GetFillVisibility()


def _markup(kind="ROI", system="RAS", name="", center=(1.0, 2.0, 3.0), axes=None, size=(4.0, 5.0, 6.0)):
    axes = np.eye(3) if axes is None else np.array(axes)
    point = {
        "id": "1",
        "position": list(center),
        "orientation": axes.ravel().tolist(),
        "positionStatus": "defined",
    }
    markup = {"type": kind, "coordinateSystem": system, "controlPoints": [point]}
    if kind == "ROI":
        markup |= {
            "roiType": "Box",
            "center": list(center),
            "orientation": axes.ravel().tolist(),
            "size": list(size),
        }
    return markup | ({"name": name} if name else {})


def _file(tmp_path, *markups):
    schema = (
        "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/"
        "Resources/Schema/markups-schema-v1.0.3.json#"
    )
    path = tmp_path / "boxes.mrk.json"
    path.write_text(json.dumps({"@schema": schema, "markups": list(markups)}))
    return path


def test_a_file_may_hold_several_boxes_in_ras_and_lps(scene, tmp_path, turned):
    axes = turned(25, -40, 30)
    path = _file(
        tmp_path,
        _markup(name="ras", axes=axes),
        _markup(kind="Fiducial"),
        _markup(name="lps", system="LPS", center=(-1.0, -2.0, 3.0), axes=np.diag([-1, -1, 1]) @ axes),
    )
    loaded = nodes.loadRoiNodes(scene, path)
    assert [node.GetName() for node in loaded] == ["ras", "lps"]
    expected = LesionBox([1, 2, 3], [4, 5, 6], axes)
    assert all(_same_place(nodes.boxFromRoi(node), expected.cornersRAS) for node in loaded)
    assert len(nodes.nodesOfClass(scene, "vtkMRMLMarkupsNode")) == 2


def test_boxes_without_a_name_are_named_after_their_file(scene, tmp_path):
    names = [node.GetName() for node in nodes.loadRoiNodes(scene, _file(tmp_path, _markup(), _markup()))]
    assert names == ["boxes", "boxes_1"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "is not a Slicer markups file"),
        ("[]", "no list 'markups'"),
        ('{"markups": 3}', "no list 'markups'"),
        ('{"markups": [{"type": "Fiducial"}, 7]}', "holds no ROI"),
        ('{"markups": [{"type": "ROI"}]}', "markup 1: this ROI has no control point"),
        ('{"markups": [{"type": "ROI", "coordinateSystem": "XYZ"}]}', "coordinateSystem is 'XYZ'"),
        (
            '{"markups": [{"type": "ROI", "center": "here", "controlPoints": [{}]}]}',
            "this ROI cannot be read",
        ),
        ("\x00\xff", "is not a Slicer markups file"),
    ],
)
def test_a_file_that_is_no_box_file_is_refused_in_one_line(scene, tmp_path, text, complaint):
    path = tmp_path / "bad.mrk.json"
    path.write_bytes(text.encode("latin-1"))
    before = scene.GetNumberOfNodes()
    with pytest.raises(BoxError, match=complaint) as error:
        nodes.loadRoiNodes(scene, path)
    assert "\n" not in str(error.value)
    assert scene.GetNumberOfNodes() == before


def test_a_file_with_one_broken_box_leaves_the_scene_as_it_was(scene, tmp_path):
    path = _file(tmp_path, _markup(), _markup(size=(0, 0, 0)))
    before = scene.GetNumberOfNodes()
    with pytest.raises(BoxError, match="markup 2"):
        nodes.loadRoiNodes(scene, path)
    assert scene.GetNumberOfNodes() == before


def test_a_missing_file_is_named(scene, tmp_path):
    with pytest.raises(BoxError, match=r"nowhere\.mrk\.json cannot be read \(No such file"):
        nodes.loadRoiNodes(scene, tmp_path / "nowhere.mrk.json")


# Heat maps, layers, tables, scenes


def test_all_heat_maps_of_a_scene_share_one_colour_ramp(scene):
    first, second = (nodes.addHeatMapNode(scene, np.ones((2, 2, 2)), np.eye(4), name=name) for name in "AB")
    assert first.GetDisplayNode().GetColorNode() is second.GetDisplayNode().GetColorNode()
    assert nodes.volumeFromNode(first).array.dtype == np.float32


@pytest.mark.parametrize("array", [np.full((2, 2, 2), 1.5), np.full((2, 2, 2), np.nan), np.zeros((2, 2))])
def test_a_heat_map_that_is_none_is_refused(scene, array):
    with pytest.raises(VolumeError):
        nodes.addHeatMapNode(scene, array, np.eye(4), name="A")


def test_layers_are_set_for_the_three_slice_views_even_where_there_are_none(scene):
    ct = nodes.addVolumeNode(scene, CTVolume(np.zeros((2, 2, 2), np.int16), np.eye(4)))
    heatMap = nodes.addHeatMapNode(scene, np.ones((2, 2, 2)), np.eye(4), name="A")
    nodes.setLayers(scene, background=ct, foreground=heatMap, opacity=0.4)
    composites = nodes.nodesOfClass(scene, "vtkMRMLSliceCompositeNode")
    assert {composite.GetLayoutName() for composite in composites} >= {"Red", "Green", "Yellow"}
    assert {composite.GetForegroundVolumeID() for composite in composites} == {heatMap.GetID()}
    nodes.setLayers(scene, background=ct)
    assert {composite.GetForegroundVolumeID() for composite in composites} == {None}


def test_a_table_with_unequal_columns_is_refused(scene):
    with pytest.raises(ValueError, match="a: 1, b: 2"):
        nodes.addResultsTableNode(scene, {"a": [1], "b": [1, 2]}, name="T")


def _children(scene, studyName):
    tree = scene.GetSubjectHierarchyNode()
    study = tree.GetItemChildWithName(tree.GetSceneItemID(), studyName)
    children = vtk.vtkIdList()
    tree.GetItemChildren(study, children)
    items = [children.GetId(n) for n in range(children.GetNumberOfIds())]
    return [(tree.GetItemName(item), tree.GetItemOwnerPluginName(item)) for item in items]


def test_nodes_placed_twice_stand_under_the_study_once(scene):
    table = nodes.addResultsTableNode(scene, {"a": [1]}, name="T")
    first = nodes.placeUnderStudy(scene, [table], studyName="S")
    assert nodes.placeUnderStudy(scene, [table], studyName="S") == first
    assert _children(scene, "S") == [("T", "Tables")]


@pytest.fixture
def a_saved_scene(scene, an_oblique_ct, turned, tmp_path):
    """A whole result, saved, the scene cleared and loaded again."""
    ct = nodes.addVolumeNode(scene, an_oblique_ct())
    roi = nodes.addRoiNode(scene, _a_box(turned, name="L1"), colorRGB=(1, 0.5, 0))
    fractions = np.linspace(0, 1, 60).reshape(3, 4, 5)
    heatMap = nodes.addHeatMapNode(
        scene, fractions, an_oblique_ct().ijkToRAS, name="L1 heat", referenceVolumeNode=ct, threshold=0.3
    )
    columns = {"box": ["L1", "L2"], "p": [0.25, None], "n": [3, 4]}
    table = nodes.addResultsTableNode(scene, columns, name="Results")
    nodes.setLayers(scene, background=ct, foreground=heatMap, opacity=0.4)
    nodes.placeUnderStudy(scene, [ct, roi, heatMap, table], studyName="Study 1")
    nodes.saveScene(scene, tmp_path / "résumé 1.mrb")
    scene.Clear(False)
    slicer.util.loadScene(str(tmp_path / "résumé 1.mrb"))
    return scene


def test_the_ct_of_a_saved_scene_comes_back(a_saved_scene, an_oblique_ct):
    again = nodes.volumeFromNode(slicer.util.getNode("CT"))
    assert np.array_equal(again.array, an_oblique_ct().array)
    assert np.allclose(again.ijkToRAS, an_oblique_ct().ijkToRAS, atol=1e-6)


def test_the_box_of_a_saved_scene_comes_back(a_saved_scene, turned):
    roi = slicer.util.getNode("L1")
    assert _same_place(nodes.boxFromRoi(roi), _a_box(turned).cornersRAS)
    assert roi.GetDisplayNode().GetSelectedColor() == (1, 0.5, 0)
    assert not roi.GetDisplayNode().GetFillVisibility()


def test_the_heat_map_of_a_saved_scene_comes_back_in_its_colours(a_saved_scene):
    heatMap = slicer.util.getNode("L1 heat")
    display = heatMap.GetDisplayNode()
    assert heatMap.GetAttribute(nodes.HEAT_MAP_ATTRIBUTE)
    assert heatMap.GetNodeReference(nodes.REFERENCE_VOLUME_ROLE).GetName() == "CT"
    assert (display.GetLowerThreshold(), display.GetApplyThreshold()) == (0.3, 1)
    assert (display.GetWindowLevelMin(), display.GetWindowLevelMax(), display.GetAutoWindowLevel()) == (
        0,
        1,
        0,
    )
    assert display.GetColorNode() is nodes.heatColorNode(a_saved_scene)
    assert np.allclose(display.GetColorNode().GetColorTransferFunction().GetColor(1.0), (0.988, 0.998, 0.645))


def test_table_layers_and_tree_of_a_saved_scene_come_back(a_saved_scene):
    table = slicer.util.getNode("Results")
    cells = [table.GetCellText(row, column) for row in range(2) for column in range(3)]
    assert cells == ["L1", "0.25", "3", "L2", "nan", "4"]
    composite = nodes.nodesOfClass(a_saved_scene, "vtkMRMLSliceCompositeNode")[0]
    assert a_saved_scene.GetNodeByID(composite.GetForegroundVolumeID()).GetName() == "L1 heat"
    assert composite.GetForegroundOpacity() == 0.4
    expected = [("CT", "Volumes"), ("L1", "Markups"), ("L1 heat", "Volumes"), ("Results", "Tables")]
    assert _children(a_saved_scene, "Study 1") == expected


def test_a_left_handed_ct_comes_back_from_a_file_with_its_slices_in_reverse_order(scene, an_oblique_ct, tmp_path):
    """Slicer's reader makes every volume right-handed: another voxel order, the same values at the same places."""
    ct = an_oblique_ct(leftHanded=True)
    nodes.addVolumeNode(scene, ct)
    nodes.saveScene(scene, tmp_path / "left.mrb")
    scene.Clear(False)
    slicer.util.loadScene(str(tmp_path / "left.mrb"))
    again = nodes.volumeFromNode(slicer.util.getNode("CT"))
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
        nodes.saveScene(scene, tmp_path / name)


def test_saving_replaces_an_older_file_and_leaves_nothing_else(scene, tmp_path):
    (tmp_path / "scene.mrb").write_text("old")
    nodes.saveScene(scene, tmp_path / "scene.mrb")
    assert os.listdir(tmp_path) == ["scene.mrb"]
    assert (tmp_path / "scene.mrb").stat().st_size > 1000
