"""Boxes between MRML, files and LesionLib: the same place in every frame, and no box that is none."""

from __future__ import annotations

import json

import numpy as np
import pytest
import slicer.util
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from LesionClassifierLib.scene.lesions import addRoiNode, boxFromRoi, loadRoiNodes
from LesionClassifierLib.scene.volumes import nodesOfClass
from LesionLib.errors import BoxError
from LesionLib.geometry import LesionBox
from scipy.spatial.transform import Rotation


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    quaternion=st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: np.linalg.norm(q) > 0.1),
    center=st.tuples(*[st.floats(-500, 500)] * 3),
    size=st.tuples(*[st.floats(0.2, 300)] * 3),
)
def test_any_rotated_box_makes_the_round_trip(scene, quaternion, center, size):
    box = LesionBox(center, size, Rotation.from_quat(quaternion).as_matrix(), name="L1")
    node = addRoiNode(scene, box)
    again = boxFromRoi(node)
    scene.RemoveNode(node)
    assert again.name == "L1"
    for key in ("centerRAS", "sizeMm", "axesRAS"):
        assert np.abs(getattr(again, key) - getattr(box, key)).max() < 1e-6


def test_a_left_handed_box_comes_back_right_handed_at_thesame_place(scene, turned, a_box, same_place):
    box = a_box(axesRAS=turned(10, 20, 30) * [1, -1, 1])
    again = boxFromRoi(addRoiNode(scene, box))
    assert np.linalg.det(again.axesRAS) > 0
    assert same_place(again, box.cornersRAS)


@pytest.mark.parametrize(
    "matrix",
    [np.diag([2.0, 2, 2]), np.diag([-1.0, 1, 1]), Rotation.from_euler("x", 40, degrees=True).as_matrix()],
    ids=["larger", "mirrored", "turned"],
)
def test_a_box_follows_the_transforms_above_it(scene, turned, matrix, a_linear_transform, a_box, same_place):
    box = a_box()
    node = addRoiNode(scene, box)
    outer = a_linear_transform(turned(0, 50, 0))
    node.SetAndObserveTransformNodeID(a_linear_transform(matrix, above=outer).GetID())
    again = boxFromRoi(node)
    assert same_place(again, box.cornersRAS @ (turned(0, 50, 0) @ matrix).T)
    sizeWorld = [0.0] * 3
    node.GetSizeWorld(sizeWorld)
    assert np.allclose(again.sizeMm, sizeWorld)


def test_unequal_scaling_along_the_boxs_own_axes_goes_into_its_size(scene, a_linear_transform, a_box):
    node = addRoiNode(scene, a_box(axesRAS=np.eye(3)))
    node.SetAndObserveTransformNodeID(a_linear_transform(np.diag([1.0, 2, 3])).GetID())
    assert np.allclose(boxFromRoi(node).sizeMm, [20, 60, 42])


@pytest.mark.parametrize(
    "matrix",
    [np.diag([1.0, 2, 3]), [[1, 0.3, 0], [0, 1, 0], [0, 0, 1]]],
    ids=["unequal scaling of a turned box", "shear"],
)
def test_a_sheared_box_is_refused(scene, matrix, a_linear_transform, a_box):
    node = addRoiNode(scene, a_box())
    node.SetAndObserveTransformNodeID(a_linear_transform(matrix).GetID())
    with pytest.raises(BoxError, match="sheared by its transform"):
        boxFromRoi(node)


def test_a_box_pressed_flat_is_refused(scene, a_linear_transform, a_box):
    node = addRoiNode(scene, a_box())
    node.SetAndObserveTransformNodeID(a_linear_transform(np.diag([1.0, 1, 0])).GetID())
    with pytest.raises(BoxError, match="pressed flat"):
        boxFromRoi(node)


def test_a_box_under_a_non_linear_transform_is_refused(scene, a_bending_transform, a_box):
    node = addRoiNode(scene, a_box())
    node.SetAndObserveTransformNodeID(a_bending_transform().GetID())
    with pytest.raises(BoxError, match="non-linear"):
        boxFromRoi(node)


def test_a_box_that_is_not_drawn_yet_is_refused(scene):
    with pytest.raises(BoxError, match="has not been drawn yet"):
        boxFromRoi(scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "R"))


def test_a_box_without_thickness_is_refused(scene):
    node = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "R")
    node.SetSize(10, 10, 0)
    with pytest.raises(BoxError, match="10 x 10 x 0 mm"):
        boxFromRoi(node)


def test_a_box_is_shown_as_an_outline_without_handles(scene, a_box):
    display = addRoiNode(scene, a_box(), colorRGB=(1, 0.5, 0)).GetDisplayNode()
    assert (display.GetFillVisibility(), display.GetOutlineVisibility(), display.GetHandlesInteractive()) == (
        0,
        1,
        0,
    )
    assert display.GetSelectedColor() == (1, 0.5, 0)


def test_a_box_saved_by_slicer_is_read_back(scene, tmp_path, a_box, same_place):
    box = a_box()
    assert slicer.util.saveNode(addRoiNode(scene, box), str(tmp_path / "L1.mrk.json"))
    scene.Clear(False)
    (node,) = loadRoiNodes(scene, tmp_path / "L1.mrk.json")
    assert node.GetName() == "L1"
    assert same_place(boxFromRoi(node), box.cornersRAS)
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


def test_a_file_may_hold_several_boxes_in_ras_and_lps(scene, tmp_path, turned, same_place):
    axes = turned(25, -40, 30)
    path = _file(
        tmp_path,
        _markup(name="ras", axes=axes),
        _markup(kind="Fiducial"),
        _markup(name="lps", system="LPS", center=(-1.0, -2.0, 3.0), axes=np.diag([-1, -1, 1]) @ axes),
    )
    loaded = loadRoiNodes(scene, path)
    assert [node.GetName() for node in loaded] == ["ras", "lps"]
    expected = LesionBox([1, 2, 3], [4, 5, 6], axes)
    assert all(same_place(boxFromRoi(node), expected.cornersRAS) for node in loaded)
    assert len(nodesOfClass(scene, "vtkMRMLMarkupsNode")) == 2


def test_boxes_without_a_name_are_named_after_their_file(scene, tmp_path):
    names = [node.GetName() for node in loadRoiNodes(scene, _file(tmp_path, _markup(), _markup()))]
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
        loadRoiNodes(scene, path)
    assert "\n" not in str(error.value)
    assert scene.GetNumberOfNodes() == before


def test_a_file_with_one_broken_box_leaves_the_scene_as_it_was(scene, tmp_path):
    path = _file(tmp_path, _markup(), _markup(size=(0, 0, 0)))
    before = scene.GetNumberOfNodes()
    with pytest.raises(BoxError, match="markup 2"):
        loadRoiNodes(scene, path)
    assert scene.GetNumberOfNodes() == before


def test_a_missing_file_is_named(scene, tmp_path):
    with pytest.raises(BoxError, match=r"nowhere\.mrk\.json cannot be read \(No such file"):
        loadRoiNodes(scene, tmp_path / "nowhere.mrk.json")
