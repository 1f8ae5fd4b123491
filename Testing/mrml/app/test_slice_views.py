"""Pictures by Slicer's slice views: by their pixels, everything lies where its millimetres say."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import slicer
import slicer.util
from LesionClassifierLib.scene.heatmaps import addHeatMapNode, setLayers
from LesionClassifierLib.scene.lesions import addRoiNode, boxFromRoi
from LesionClassifierLib.scene.tree import saveScene
from LesionClassifierLib.scene.volumes import addVolumeNode, nodesOfClass
from LesionLib.geometry import CTVolume, LesionBox, transformed_points
from scipy import ndimage
from slice_views import NoOpenGLError, SliceRenderer

ORIENTATIONS = ("Axial", "Sagittal", "Coronal")
SIZE = (200, 160)
ROI_COLOR = (0.0, 1.0, 0.0)
# Voxels i, j, k of the bright cube.
CUBE_LOW, CUBE_HIGH = np.array([30, 24, 16]), np.array([42, 36, 24])


@pytest.fixture(scope="module")
def renderer(headless):
    try:
        made = SliceRenderer(headless, SIZE)
    except NoOpenGLError as error:
        pytest.skip(str(error))
    yield made
    made.close()


@pytest.fixture
def a_cube(an_oblique_ct):
    """An oblique CT with a bright cube in it, and the cube's centre."""

    def make(*, leftHanded=False) -> tuple[CTVolume, np.ndarray]:
        ct = an_oblique_ct(leftHanded=leftHanded)
        ct.array[CUBE_LOW[2] : CUBE_HIGH[2], CUBE_LOW[1] : CUBE_HIGH[1], CUBE_LOW[0] : CUBE_HIGH[0]] = 150
        return ct, transformed_points(ct.ijkToRAS, (CUBE_LOW + CUBE_HIGH - 1) / 2)

    return make


def _pixelsRAS(renderer: SliceRenderer, orientation: str) -> np.ndarray:
    """RAS mm of every pixel of the last picture, (height, width, 3), top row first, by the slice node's own word."""
    width, height = SIZE
    x, y = np.meshgrid(np.arange(width), np.arange(height)[::-1])
    xyToRAS = slicer.util.arrayFromVTKMatrix(renderer.view(orientation).sliceNode.GetXYToRAS())
    return transformed_points(xyToRAS, np.stack([x, y, np.zeros_like(x)], axis=-1))


def _isColored(picture: np.ndarray) -> np.ndarray:
    return np.ptp(picture.astype(int), axis=-1) > 25


def _isRoi(picture: np.ndarray) -> np.ndarray:
    return (picture[..., 1] > 180) & (picture[..., 0] < 90) & (picture[..., 2] < 90)


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    return (one & other).sum() / (one | other).sum()


def _middle(mask: np.ndarray) -> np.ndarray:
    return np.argwhere(mask).mean(axis=0)


def _assertOutline(drawn: np.ndarray, box: LesionBox, pixelsRAS: np.ndarray) -> None:
    """The drawn line, 3 pixels wide, lies where the box's surface crosses the slice: all of it, and nothing else.

    Slicer draws markups half a pixel lower and further left than the image.
    """
    inBox = np.abs(transformed_points(np.linalg.inv(box.boxToRAS), pixelsRAS)) <= box.sizeMm / 2
    inside = inBox.all(axis=-1)
    edge = inside & ~ndimage.binary_erosion(inside)
    assert edge.sum() > 50
    assert ndimage.distance_transform_edt(~edge)[drawn].max() <= 3
    assert ndimage.distance_transform_edt(~drawn)[edge].max() <= 2
    assert np.abs(_middle(ndimage.binary_fill_holes(drawn)) - _middle(inside)).max() < 0.8


@pytest.mark.parametrize("leftHanded", [False, True])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_cube_and_heat_map_lie_where_their_millimetres_say(scene, renderer, a_cube, orientation, leftHanded):
    ct, center = a_cube(leftHanded=leftHanded)
    node = addVolumeNode(scene, ct)
    # The map has a lattice of its own: a part of the CT's, which begins at voxel (20, 20, 10).
    part = np.zeros((20, 25, 30))
    part[6:14, 4:16, 10:22] = 0.8
    ijkToRAS = ct.ijkToRAS.copy()
    ijkToRAS[:3, 3] = transformed_points(ct.ijkToRAS, [20, 20, 10])
    heatMap = addHeatMapNode(scene, part, ijkToRAS, name="heat", threshold=0.4)
    arguments = {"centerRAS": center, "fieldOfViewMm": 40, "volumeNode": node, "ruler": False}
    plain = renderer.render(orientation, **arguments)
    hot = renderer.render(orientation, **arguments, heatMapNode=heatMap)
    assert plain.shape == (160, 200, 3)
    assert plain.dtype == np.uint8
    ijk = transformed_points(ct.rasToIJK, _pixelsRAS(renderer, orientation))
    cube = ((ijk >= CUBE_LOW - 0.5) & (ijk < CUBE_HIGH - 0.5)).all(axis=-1)
    assert cube.sum() > 1000
    assert not _isColored(plain).any()
    # Both thresholds are half way up, so that interpolation does not move the edge.
    for shown in (plain[..., 0] > 174, _isColored(hot)):
        assert _overlap(shown, cube) > 0.93
        assert np.abs(_middle(shown) - _middle(cube)).max() < 0.5
    inner = ndimage.binary_erosion(cube, iterations=6)
    # 0.8 of the ramp is orange: more red than green, more green than blue.
    assert (np.diff(hot[inner].mean(axis=0)) < -20).all()


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_the_outline_of_a_turned_box_lies_on_its_edges(scene, renderer, a_cube, turned, orientation):
    ct, center = a_cube()
    box = LesionBox(center + np.array([2, -1, 1]), [18, 14, 20], turned(20, 30, 40))
    addRoiNode(scene, box, colorRGB=ROI_COLOR)
    picture = renderer.render(
        orientation,
        centerRAS=center,
        fieldOfViewMm=50,
        volumeNode=addVolumeNode(scene, ct),
        ruler=False,
    )
    _assertOutline(_isRoi(picture), box, _pixelsRAS(renderer, orientation))


def test_the_outline_of_a_box_under_a_transform_is_that_of_the_box_read_from_it(scene, renderer, a_cube, turned):
    ct, center = a_cube()
    roi = addRoiNode(scene, LesionBox([0, 0, 0], [9, 7, 10], turned(20, 30, 40)), colorRGB=ROI_COLOR)
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = turned(0, 15, 30) * 2, center
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    roi.SetAndObserveTransformNodeID(transform.GetID())
    volume = addVolumeNode(scene, ct)
    picture = renderer.render("Axial", centerRAS=center, fieldOfViewMm=50, volumeNode=volume, ruler=False)
    _assertOutline(_isRoi(picture), boxFromRoi(roi), _pixelsRAS(renderer, "Axial"))


def test_boxes_hidden_for_many_pictures_are_seen_one_at_a_time_and_shown_again(scene, renderer, a_cube):
    ct, center = a_cube()
    volume = addVolumeNode(scene, ct)
    first, other = (addRoiNode(scene, LesionBox(center + at, [12, 12, 12]), colorRGB=ROI_COLOR) for at in (0, 3))
    arguments = {"orientation": "Axial", "centerRAS": center, "fieldOfViewMm": 50, "volumeNode": volume}
    alone, both = renderer.render(**arguments, visibleRois=[first]), renderer.render(**arguments)
    with renderer.hiddenRois():
        assert np.array_equal(renderer.render(**arguments, visibleRois=[first]), alone)
        assert not np.array_equal(renderer.render(**arguments, visibleRois=[other]), alone)
        assert not _isRoi(renderer.render(**arguments, visibleRois=[])).any()
    assert np.array_equal(renderer.render(**arguments), both)


def test_the_ct_inside_a_box_stays_as_it_is(scene, renderer, a_cube):
    ct, center = a_cube()
    volume = addVolumeNode(scene, ct)
    addRoiNode(scene, LesionBox(center, [30, 30, 30]), colorRGB=ROI_COLOR)
    arguments = {"centerRAS": center, "fieldOfViewMm": 20, "volumeNode": volume}
    assert np.array_equal(renderer.render("Axial", **arguments, visibleRois=[]), renderer.render("Axial", **arguments))


def test_an_axial_picture_has_the_patients_left_on_its_right_and_the_front_on_top(scene, renderer):
    array = np.full((10, 20, 20), -1400, np.int16)
    array[:, :, :10] = 0  # R grows with i: the patient's left half
    array[:, 15:, :] = 0  # A grows with j: the front quarter
    volume = addVolumeNode(scene, CTVolume(array, np.eye(4)))
    picture = renderer.render("Axial", centerRAS=[9.5, 9.5, 4.5], fieldOfViewMm=16, volumeNode=volume, ruler=False)
    assert picture[120, 180].min() > 200
    assert picture[120, 20].max() < 60
    assert picture[10, 20].min() > 200


def test_a_picture_leaves_the_scene_as_it_was(scene, renderer, a_cube):
    ct, center = a_cube()
    volume, other = addVolumeNode(scene, ct), addVolumeNode(scene, ct)
    heatMap = addHeatMapNode(scene, np.ones((2, 2, 2)), np.eye(4), name="heat")
    rois = [addRoiNode(scene, LesionBox(center, [9, 9, 9])) for _ in range(2)]
    rois[0].GetDisplayNode().SetVisibility(False)
    setLayers(scene, background=other, foreground=heatMap, opacity=0.7)
    renderer.render("Axial", centerRAS=center, fieldOfViewMm=50, volumeNode=volume, visibleRois=rois[:1])
    displays = [roi.GetDisplayNode() for roi in rois]
    assert [display.GetVisibility() for display in displays] == [0, 1]
    assert all(display.GetPropertiesLabelVisibility() and display.GetGlyphScale() == 1 for display in displays)
    for composite in nodesOfClass(scene, "vtkMRMLSliceCompositeNode"):
        assert composite.GetBackgroundVolumeID() == other.GetID()
        assert composite.GetForegroundVolumeID() == heatMap.GetID()
        assert composite.GetForegroundOpacity() == 0.7


def test_only_the_boxes_asked_for_are_drawn_and_names_on_demand(scene, renderer, a_cube):
    ct, center = a_cube()
    volume = addVolumeNode(scene, ct)
    shown = addRoiNode(scene, LesionBox(center, [9, 9, 9], name="L1"), colorRGB=ROI_COLOR)
    addRoiNode(scene, LesionBox(center, [20, 20, 20], name="L2"), colorRGB=ROI_COLOR)
    arguments = {"centerRAS": center, "fieldOfViewMm": 40, "volumeNode": volume, "ruler": False}
    one = _isRoi(renderer.render("Axial", **arguments, visibleRois=[shown])).sum()
    both = _isRoi(renderer.render("Axial", **arguments)).sum()
    assert 0 < one < both / 2
    named = renderer.render("Axial", **arguments, visibleRois=[shown], names=True)
    assert not np.array_equal(named, renderer.render("Axial", **arguments, visibleRois=[shown]))


def test_the_views_live_on_when_the_scene_is_replaced(scene, renderer, a_cube, tmp_path):
    ct, center = a_cube()
    addVolumeNode(scene, ct)
    addRoiNode(scene, LesionBox(center, [9, 9, 9]), colorRGB=ROI_COLOR)
    arguments = {"centerRAS": center, "fieldOfViewMm": 40}
    before = renderer.render("Coronal", **arguments, volumeNode=slicer.util.getNode("CT"))
    saveScene(scene, tmp_path / "scene.mrb")
    scene.Clear(False)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    after = renderer.render("Coronal", **arguments, volumeNode=slicer.util.getNode("CT"))
    assert np.abs(before.astype(int) - after).max() <= 1


def test_an_unknown_orientation_is_refused(renderer):
    with pytest.raises(ValueError, match="must be one of Axial, Sagittal, Coronal"):
        renderer.view("Oblique")


DRAWING = """
import sys, numpy as np
from LesionClassifierLib.headless import startHeadlessSlicer
from LesionClassifierLib.scene.lesions import addRoiNode
from LesionClassifierLib.scene.volumes import addVolumeNode
from slice_views import NoOpenGLError, SliceRenderer
from LesionLib.geometry import CTVolume, LesionBox
headless = startHeadlessSlicer()
volume = addVolumeNode(headless.scene, CTVolume(np.zeros((9, 9, 9), np.int16), np.eye(4)))
addRoiNode(headless.scene, LesionBox([4, 4, 4], [3, 3, 3]))
try:
    renderer = SliceRenderer(headless)
    for orientation in ("Axial", "Sagittal"):
        renderer.render(orientation, centerRAS=[4, 4, 4], fieldOfViewMm=9, volumeNode=volume)
    {end}
except NoOpenGLError as error:
    print(error)
"""


def _draw(end: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", DRAWING.replace("{end}", end)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("end", ["renderer.close()", "pass", "sys.exit(0)"], ids=["closed", "left open", "exit"])
def test_a_process_that_drew_ends_quietly(renderer, end):
    done = _draw(end)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.skipif(not sys.platform.startswith("linux") or "DISPLAY" in os.environ, reason="hides Mesa from EGL")
def test_without_opengl_it_says_what_to_install():
    done = _draw("pass", __EGL_VENDOR_LIBRARY_DIRS="/nowhere")
    assert (done.returncode, done.stderr) == (0, "")
    assert "install libegl1 and libgl1-mesa-dri" in done.stdout
