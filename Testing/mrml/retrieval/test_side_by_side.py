"""A lesion beside a similar case in real slice views: each box on its lesion, linked, and everything back afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import slice_views as sliceviews
import slicer
from LesionClassifierLib.scene.heatmaps import setLayers
from LesionClassifierLib.scene.lesions import addRoiNode, boxFromRoi
from LesionClassifierLib.scene.tree import saveScene
from LesionClassifierLib.scene.volumes import addVolumeNode, nodesOfClass, volumeFromNode
from LesionLib.errors import CaseLibraryError
from LesionLib.explain.heat_map import HeatMap
from LesionLib.geometry import CTVolume, LesionBox, transformed_points
from LesionLib.sampling.resample import lattice_points
from LesionRetrievalLib.library.cases import ModelIdentity
from LesionRetrievalLib.library.patches import lesion_patch
from LesionRetrievalLib.scene.comparison import COMPARISON_FOLDER, SideBySide, showSimilarity
from LesionRetrievalLib.scene.identity import identityOfVolume
from LesionRetrievalLib.scene.quiz_cases import CaseDisplay
from LesionRetrievalLib.scene.views import (
    CASE_VIEWS,
    LAYOUT_ID,
    QUERY_VIEWS,
    compositeOf,
    mendLoadedViews,
    showInAllViews,
    sliceNodeOf,
)
from PIL import Image

PIXELS = 240


def a_ct_with_a_ball(center, *, radius=7.0, spacing=(0.8, 0.8, 2.0), name="CT"):
    """A ball of soft tissue at ``center`` (RAS mm) in a little noise of lung, and a box that just holds it."""
    ijkToRAS = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    size = np.array([120, 110, 48])
    ijkToRAS[:3, 3] = np.array(center) - ijkToRAS[:3, :3] @ (size / 2 + [6, -5, 3])
    points = transformed_points(ijkToRAS, lattice_points(tuple(size)))
    inside = np.linalg.norm(points - center, axis=-1) < radius
    noise = np.random.default_rng(1).integers(-860, -840, inside.shape)
    array = np.where(inside, 40, noise).astype(np.int16)
    return CTVolume(array, ijkToRAS, name=name), LesionBox(center, [2 * radius] * 3, name="L1")


@pytest.fixture
def nodes(scene):
    volume, box = a_ct_with_a_ball((30.0, -12.0, 45.0), radius=9.0)
    volumeNode = addVolumeNode(scene, volume, windowHU=1200.0, levelHU=-500.0)
    for sliceNode in nodesOfClass(scene, "vtkMRMLSliceNode"):
        sliceNode.SetDimensions(PIXELS, PIXELS, 1)  # views outlive a test, and others may have drawn in another shape
    return volumeNode, addRoiNode(scene, box, colorRGB=(0.2, 0.9, 0.3))


@pytest.fixture
def patch():
    """Of another patient, elsewhere and with other voxels."""
    return lesion_patch(*a_ct_with_a_ball((-80.0, 60.0, -150.0), radius=6.0, spacing=(0.7, 0.7, 1.5)))


@pytest.fixture
def compare(nodes, patch):
    """Shows the comparison on demand; goes back at the end."""
    shown = []

    def show(**changes):
        given = {"patch": patch, "caseId": "case-7", "label": "cyst", **changes}
        shown.append(SideBySide(*nodes, given["patch"], caseId=given["caseId"], label=given["label"]))
        return shown[-1]

    yield show
    for each in shown:
        each.close()


@pytest.fixture
def views(headless, monkeypatch, scene):
    """All six slice views, drawn by their real displayable managers, as wide as a view of the layout."""
    made = {}
    for orientation, name in CASE_VIEWS.items():
        monkeypatch.setitem(sliceviews.LAYOUT_NAMES, f"Case{orientation}", name)
    for row, names in (("", QUERY_VIEWS), ("Case", CASE_VIEWS)):
        for orientation, name in names.items():
            made[name] = sliceviews.SliceView(headless, f"{row}{orientation}", (PIXELS, PIXELS))
            made[name].sliceNode.SetDimensions(PIXELS, PIXELS, 1)
    yield made
    for view in made.values():
        view.close()
    for name in CASE_VIEWS.values():
        scene.RemoveNode(sliceNodeOf(scene, name))
        scene.RemoveNode(compositeOf(scene, name))


def state_of(scene):
    """What a user sees of the views."""
    slices = {
        node.GetLayoutName(): (
            [node.GetSliceToRAS().GetElement(i, j) for i in range(4) for j in range(4)], node.GetFieldOfView(), node.GetXYZOrigin(),
        )
        for node in nodesOfClass(scene, "vtkMRMLSliceNode") if node.GetLayoutName() in QUERY_VIEWS.values()
    }  # fmt: skip
    layers = {
        node.GetLayoutName(): (node.GetBackgroundVolumeID(), node.GetForegroundVolumeID(), node.GetForegroundOpacity(),
                               node.GetLinkedControl(), node.GetHotLinkedControl())
        for node in nodesOfClass(scene, "vtkMRMLSliceCompositeNode") if node.GetLayoutName() in QUERY_VIEWS.values()
    }  # fmt: skip
    shownIn = {n.GetID(): n.GetNumberOfViewNodeIDs() for n in nodesOfClass(scene, "vtkMRMLMarkupsROIDisplayNode")}
    return slices, layers, shownIn


def test_the_case_s_lesion_lies_on_the_query_s_and_keeps_its_own_coordinates(compare, nodes, patch):
    shown = compare()
    assert boxFromRoi(shown.roiNode).centerRAS == pytest.approx(boxFromRoi(nodes[1]).centerRAS, abs=1e-4)
    shown.roiNode.SetAndObserveTransformNodeID(None)
    shown.volumeNode.SetAndObserveTransformNodeID(None)
    assert boxFromRoi(shown.roiNode).centerRAS == pytest.approx(patch.box.centerRAS, abs=1e-4)
    volume = volumeFromNode(shown.volumeNode)
    assert np.allclose(volume.ijkToRAS, patch.volume.ijkToRAS)
    assert np.array_equal(volume.array, patch.volume.array)


def test_both_rows_show_the_same_places_in_the_same_window_linked(compare, nodes, scene):
    shown = compare()
    for orientation, name in QUERY_VIEWS.items():
        upper, lower = sliceNodeOf(scene, name), sliceNodeOf(scene, CASE_VIEWS[orientation])
        assert upper.GetOrientation() == lower.GetOrientation() == orientation
        assert upper.GetFieldOfView()[:2] == pytest.approx(lower.GetFieldOfView()[:2])
        assert upper.GetSliceOffset() == pytest.approx(lower.GetSliceOffset())
        for each, volumeNode in ((name, nodes[0]), (CASE_VIEWS[orientation], shown.volumeNode)):
            composite = compositeOf(scene, each)
            assert composite.GetBackgroundVolumeID() == volumeNode.GetID()
            assert composite.GetLinkedControl()
            assert composite.GetHotLinkedControl()
    mine, other = nodes[0].GetDisplayNode(), shown.volumeNode.GetDisplayNode()
    assert (other.GetWindow(), other.GetLevel()) == (1200.0, -500.0)
    mine.SetWindowLevel(400.0, 40.0)
    assert (other.GetWindow(), other.GetLevel()) == (400.0, 40.0)
    other.SetWindowLevel(1500.0, -600.0)
    assert (mine.GetWindow(), mine.GetLevel()) == (1500.0, -600.0)


def test_boxes_are_drawn_in_their_own_row_only(compare, nodes, scene):
    shown = compare()
    upper = {sliceNodeOf(scene, name).GetID() for name in QUERY_VIEWS.values()}
    lower = {sliceNodeOf(scene, name).GetID() for name in CASE_VIEWS.values()}
    assert set(nodes[1].GetDisplayNode().GetViewNodeIDs()) == upper
    assert set(shown.roiNode.GetDisplayNode().GetViewNodeIDs()) == lower


def test_back_gives_everything_back(compare, nodes, scene, views):
    red = sliceNodeOf(scene, "Red")
    red.SetOrientation("Sagittal")
    red.SetFieldOfView(333.0, 222.0, 1.0)
    red.JumpSliceByCentering(1.0, 2.0, 3.0)
    layout = scene.AddNode(slicer.vtkMRMLLayoutNode())
    layout.SetViewArrangement(layout.SlicerLayoutFourUpView)
    before, there = state_of(scene), scene.GetNumberOfNodes()
    shown = compare()
    assert layout.GetViewArrangement() == LAYOUT_ID
    assert state_of(scene) != before
    shown.close()
    shown.close()
    assert layout.GetViewArrangement() == layout.SlicerLayoutFourUpView
    assert state_of(scene) == before
    assert scene.GetNumberOfNodes() == there
    tree = scene.GetSubjectHierarchyNode()
    assert not tree.GetItemChildWithName(tree.GetSceneItemID(), COMPARISON_FOLDER)
    scene.RemoveNode(layout)


def test_the_layout_is_one_that_slicer_can_read(compare, scene):
    layout = scene.AddNode(slicer.vtkMRMLLayoutNode())
    compare()
    root = layout.GetCurrentLayoutDescription()
    names = ["Red", "Green", "Yellow", "LesionLensAxial", "LesionLensCoronal", "LesionLensSagittal"]
    assert [part.split('"')[0] for part in root.split('singletontag="')[1:]] == names
    assert layout.GetLayoutRootElement().GetNumberOfNestedElements() == 2
    scene.RemoveNode(layout)


def test_the_comparison_is_in_a_folder_and_not_saved(compare, scene, tmp_path):
    shown = compare()
    tree = scene.GetSubjectHierarchyNode()
    folder = tree.GetItemChildWithName(tree.GetSceneItemID(), COMPARISON_FOLDER)
    for node in (shown.volumeNode, shown.roiNode, shown.transformNode):
        assert tree.GetItemParent(tree.GetItemByDataNode(node)) == folder
    saveScene(scene, tmp_path / "scene.mrb")
    shown.close()
    scene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    assert [node.GetName() for node in nodesOfClass(scene, "vtkMRMLScalarVolumeNode")] == ["CT"]
    (roi,) = nodesOfClass(scene, "vtkMRMLMarkupsROINode")
    assert roi.GetName() == "L1"
    showInAllViews(scene)
    assert roi.GetDisplayNode().GetNumberOfViewNodeIDs() == 0


def test_boxes_that_were_shown_in_some_views_only_stay_so(compare, nodes, scene):
    own = sliceNodeOf(scene, "Red").GetID()
    nodes[1].GetDisplayNode().AddViewNodeID(own)
    compare().close()
    assert nodes[1].GetDisplayNode().GetViewNodeIDs() == (own,)


def test_a_map_that_was_painted_meanwhile_stays_when_going_back(compare, nodes, scene, views):
    old = addVolumeNode(scene, volumeFromNode(nodes[0]))
    compositeOf(scene, "Red").SetForegroundVolumeID(old.GetID())
    shown = compare()
    scene.RemoveNode(old)
    new = addVolumeNode(scene, volumeFromNode(nodes[0]))
    compositeOf(scene, "Red").SetForegroundVolumeID(new.GetID())
    shown.close()
    assert compositeOf(scene, "Red").GetForegroundVolumeID() == new.GetID()


def test_a_case_without_a_ct_is_refused_and_nothing_changes(compare, scene):
    there = scene.GetNumberOfNodes()
    with pytest.raises(CaseLibraryError, match="holds no CT of case case-7"):
        compare(patch=None)
    assert scene.GetNumberOfNodes() == there


def test_a_scene_that_is_closed_meanwhile_does_no_harm(compare, scene):
    shown = compare()
    scene.Clear(False)
    shown.close()
    assert not shown.isShown


def drawn_box(pixels, color):
    """Rows and columns of the outline in about this colour: (top, bottom, left, right) in pixels."""
    wanted = np.array(color) * 255
    rows, columns = np.nonzero(np.abs(pixels.astype(float) - wanted).max(axis=2) < 70)
    assert len(rows) > 100, "no outline of this colour is drawn"
    return rows.min(), rows.max(), columns.min(), columns.max()


def lesion_extent(pixels):
    """The same of what is bright and grey."""
    grey = (np.ptp(pixels.astype(int), axis=2) < 12) & (pixels[..., 0] > 150)
    rows, columns = np.nonzero(grey)
    return rows.min(), rows.max(), columns.min(), columns.max()


def test_drawn_by_slicer_s_own_views_each_box_sits_on_its_lesion(compare, views, tmp_path):
    compare()
    rows = []
    for names, color in ((QUERY_VIEWS, (0.2, 0.9, 0.3)), (CASE_VIEWS, (0.98, 0.78, 0.2))):
        thumbnails = []
        for name in names.values():
            pixels = views[name].grab()
            box, lesion = np.array(drawn_box(pixels, color)), np.array(lesion_extent(pixels))
            # The box just holds the ball: no side is further than a slice step (and the line's width) from it.
            assert np.abs(box - lesion).max() <= 10, name
            middle = (box[[0, 2]] + box[[1, 3]]) / 2
            assert middle == pytest.approx([PIXELS / 2, PIXELS / 2], abs=3), name
            thumbnails.append(pixels)
        rows.append(np.concatenate(thumbnails, axis=1))
    folder = Path(os.environ.get("LESIONLENS_TEST_ARTEFACTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows)).save(folder / "side-by-side.png", optimize=True)
    ratio = [
        np.ptp(drawn_box(views[name].grab(), color)[:2])
        for name, color in (("Red", (0.2, 0.9, 0.3)), ("LesionLensAxial", (0.98, 0.78, 0.2)))
    ]
    assert ratio[0] / ratio[1] == pytest.approx(9 / 6, rel=0.1)  # both rows have the same scale


def test_linked_views_zoom_and_scroll_together(compare, views, headless, scene):
    link = slicer.vtkMRMLSliceLinkLogic()
    link.SetMRMLApplicationLogic(headless.applicationLogic)
    link.SetMRMLScene(scene)
    compare()
    upper, lower = sliceNodeOf(scene, "Red"), sliceNodeOf(scene, "LesionLensAxial")
    logic = views["Red"]._logic
    logic.StartSliceNodeInteraction(slicer.vtkMRMLSliceNode.FieldOfViewFlag | slicer.vtkMRMLSliceNode.SliceToRASFlag)
    upper.SetFieldOfView(20.0, 20.0, 1.0)
    upper.SetSliceOffset(48.0)
    logic.EndSliceNodeInteraction()
    assert lower.GetFieldOfView()[0] == pytest.approx(20.0)
    assert lower.GetSliceOffset() == pytest.approx(48.0)
    link.SetMRMLScene(None)


def holders(scene):
    """Who holds which view."""
    composites = nodesOfClass(scene, "vtkMRMLSliceCompositeNode")
    return {each.GetLayoutName(): each.GetAttribute("LesionLens.HeldBy") for each in composites}


def test_both_rows_are_held_by_the_comparison_until_it_ends(compare, nodes, scene, views):
    shown = compare()
    assert set(holders(scene).values()) == {"comparison"}
    setLayers(scene, background=nodes[0])
    assert compositeOf(scene, "LesionLensAxial").GetBackgroundVolumeID() == shown.volumeNode.GetID()
    shown.close()
    assert set(holders(scene).values()) == {None}


def test_why_a_case_is_similar_is_painted_in_the_query_s_row_of_its_comparison(compare, nodes, scene, views):
    shown = compare()
    heatMap = HeatMap(np.ones((2, 2, 2), np.float32), np.eye(4), 1.0, "similar")
    node = showSimilarity(*nodes, heatMap, caseId="case-7", model=ModelIdentity("m", "1", "0" * 64))
    for name in QUERY_VIEWS.values():
        assert compositeOf(scene, name).GetForegroundVolumeID() == node.GetID()
    for name in CASE_VIEWS.values():
        assert compositeOf(scene, name).GetBackgroundVolumeID() == shown.volumeNode.GetID()
        assert compositeOf(scene, name).GetForegroundVolumeID() is None


def test_why_a_case_is_similar_leaves_the_ct_in_its_study(nodes, scene):
    tree = scene.GetSubjectHierarchyNode()
    patient = tree.CreateSubjectItem(tree.GetSceneItemID(), "Doe^Jane")
    tree.SetItemAttribute(patient, "DICOM.PatientID", "PAT-1")
    tree.CreateItem(tree.CreateStudyItem(patient, "CT thorax"), nodes[0])
    heatMap = HeatMap(np.ones((2, 2, 2), np.float32), np.eye(4), 1.0, "similar")
    node = showSimilarity(*nodes, heatMap, caseId="case-7", model=ModelIdentity("m", "1", "0" * 64))
    assert identityOfVolume(nodes[0]).patient == "PAT-1"
    above = tree.GetItemParent(tree.GetItemParent(tree.GetItemByDataNode(node)))
    assert tree.GetItemName(above) == "CT thorax"


@pytest.fixture
def layout(scene):
    """Slicer's own layout logic on the scene, with four views."""
    logic = slicer.vtkMRMLLayoutLogic()
    logic.SetMRMLScene(scene)
    node = logic.GetLayoutNode()
    node.SetViewArrangement(node.SlicerLayoutFourUpView)
    yield node
    node.SetViewArrangement(node.SlicerLayoutFourUpView)
    logic.SetMRMLScene(None)
    scene.RemoveNode(node)


def opened_elsewhere(path):
    """What a Slicer without this extension shows of a saved scene: (its layout's number, how many views, what it printed)."""
    code = f"""
import slicer, slicer.util
from LesionClassifierLib.headless import startHeadlessSlicer
scene = startHeadlessSlicer().scene
logic = slicer.vtkMRMLLayoutLogic()
logic.SetMRMLScene(scene)
logic.GetLayoutNode().SetViewArrangement(logic.GetLayoutNode().SlicerLayoutConventionalView)
slicer.util.loadScene({str(path)!r})
names = [node.GetLayoutName() for node in slicer.util.getNodesByClass("vtkMRMLSliceNode")]
print(logic.GetLayoutNode().GetViewArrangement(), logic.GetViewNodes().GetNumberOfItems(), " ".join(sorted(names)))
logic.SetMRMLScene(None)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    arrangement, count, *names = ran.stdout.split("\n")[-2].split()
    return int(arrangement), int(count), names, ran.stdout + ran.stderr


def test_a_scene_saved_in_the_middle_of_a_comparison_opens_elsewhere_with_views(compare, scene, layout, tmp_path):
    shown = compare()
    assert layout.GetViewArrangement() == LAYOUT_ID
    saveScene(scene, tmp_path / "scene.mrb")
    assert layout.GetViewArrangement() == LAYOUT_ID
    shown.close()
    assert layout.GetViewArrangement() == layout.SlicerLayoutFourUpView
    assert layout.GetSaveWithScene()
    arrangement, count, names, printed = opened_elsewhere(tmp_path / "scene.mrb")
    assert "Can't find layout" not in printed
    assert arrangement == layout.SlicerLayoutConventionalView
    assert count == 4
    assert names == ["Green", "Red", "Yellow"]


def test_what_a_comparison_left_in_a_saved_scene_is_mended_when_it_is_loaded(compare, scene, layout, tmp_path):
    shown = compare()
    layout.SetSaveWithScene(True)
    saveScene(scene, tmp_path / "scene.mrb")
    shown.close()
    scene.Clear(False)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    assert layout.GetViewArrangement() == LAYOUT_ID
    mendLoadedViews(scene)
    assert layout.GetViewArrangement() == layout.SlicerLayoutConventionalView
    assert set(holders(scene).values()) == {None}
    (roi,) = nodesOfClass(scene, "vtkMRMLMarkupsROINode")
    assert roi.GetDisplayNode().GetNumberOfViewNodeIDs() == 0


def test_loading_a_scene_ends_the_comparison(compare, scene, layout, tmp_path):
    saveScene(scene, tmp_path / "scene.mrb")
    shown = compare()
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    assert not shown.isShown
    assert layout.GetViewArrangement() == layout.SlicerLayoutFourUpView
    assert set(holders(scene).values()) == {None}


def test_a_comparison_does_not_take_the_views_of_a_quiz(compare, scene):
    quiz = CaseDisplay(scene)
    quiz.showCase("case-1", a_ct_with_a_ball((0.0, 0.0, 0.0))[0], windowHU=(-1350.0, 150.0))
    assert set(holders(scene).values()) == {"quiz"}
    there = scene.GetNumberOfNodes()
    with pytest.raises(CaseLibraryError, match="show a case of a quiz"):
        compare()
    assert scene.GetNumberOfNodes() == there
    quiz.clear()
    compare()
