"""Lesions of a scene: named, made from segments, and answered with everything kept on their nodes."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import slicer
import slicer.util
import vtk
from LesionClassifierLib.background import runInBackground
from LesionClassifierLib.classification import classifyNodes, requestFromNodes
from LesionClassifierLib.export import exportCsv
from LesionClassifierLib.scene.lesions import (
    addLesionAt,
    addLesionsFromSegmentation,
    addRoiNode,
    addSegmentationNode,
    boxFromRoi,
    isDrawn,
    lesionNodes,
    lesionsFromNodes,
    markAsLesion,
    nextLesionName,
    segmentationOfParts,
    segmentMasks,
)
from LesionClassifierLib.scene.results import (
    FOLDER_NAME,
    HEAT_MAP_ROLE,
    VOLUME_ROLE,
    removeResult,
    resultsTable,
    staleReason,
    storedResult,
)
from LesionClassifierLib.scene.tree import saveScene
from LesionClassifierLib.scene.volumes import addVolumeNode
from LesionLib.errors import BoxError, OutputError
from LesionLib.geometry import CTVolume, LesionBox
from LesionLib.inference.messages import RunOptions
from LesionLib.model.folder import golden_case

MODEL = "lung-nodule-malignancy"


@pytest.fixture
def a_case(scene):
    """The golden CT and its box as nodes."""
    volume, box = golden_case()
    return addVolumeNode(scene, volume), markAsLesion(addRoiNode(scene, replace(box, name="L1")))


@pytest.fixture
def a_segmentation(scene):
    """Segments from masks (name -> bool array) on the lattice of a volume node; all in one label map, as Slicer has it."""

    def make(volumeNode, masks):
        node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Segmentation")
        node.CreateDefaultDisplayNodes()
        labels = np.zeros(slicer.util.arrayFromVolume(volumeNode).shape, np.uint8)
        for value, mask in enumerate(masks.values(), start=1):
            labels[mask] = value
        labelNode = scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode")
        matrix = vtk.vtkMatrix4x4()
        volumeNode.GetIJKToRASMatrix(matrix)
        slicer.util.updateVolumeFromArray(labelNode, labels)
        labelNode.SetIJKToRASMatrix(matrix)
        logic = slicer.modules.segmentations.logic()
        assert logic.ImportLabelmapToSegmentationNode(labelNode, node)
        segmentation = node.GetSegmentation()
        for index, name in enumerate(masks):
            segmentation.GetNthSegment(index).SetName(name)
        scene.RemoveNode(labelNode)
        return node

    return make


def a_ct(scene, shape=(20, 40, 50)):
    volume = CTVolume(np.full(shape, -800, np.int16), np.diag([-1.0, -1.2, 2.0, 1.0]), "CT")
    return addVolumeNode(scene, volume)


def block(shape, low, high):
    mask = np.zeros(shape, bool)
    mask[low[2] : high[2], low[1] : high[1], low[0] : high[0]] = True
    return mask


def test_names_go_on_counting_and_are_never_given_twice(scene):
    assert nextLesionName(scene) == "L1"
    for name in ("L1", "L4", "R", "L3b"):
        addRoiNode(scene, LesionBox([0, 0, 0], [5, 5, 5], name=name))
    assert nextLesionName(scene) == "L5"


def test_only_rois_marked_as_lesions_are_lesions(scene):
    addRoiNode(scene, LesionBox([0, 0, 0], [5, 5, 5], name="crop"))
    lesion = markAsLesion(addRoiNode(scene, LesionBox([0, 0, 0], [5, 5, 5], name="L1")))
    assert lesionNodes(scene) == [lesion]


def test_a_new_lesion_is_a_cube_around_the_point_with_handles(scene):
    node = addLesionAt(scene, [10.0, -20.0, 30.0], sizeMm=20.0)
    assert node.GetName() == "L1"
    (box,) = lesionsFromNodes([node])
    np.testing.assert_allclose(box.centerRAS, [10.0, -20.0, 30.0], atol=1e-5)
    np.testing.assert_allclose(box.sizeMm, [20.0] * 3)
    assert node.GetDisplayNode().GetHandlesInteractive()


def test_an_roi_that_nobody_has_drawn_is_no_box_yet(scene):
    node = markAsLesion(scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "L1"))
    assert not isDrawn(node)
    with pytest.raises(BoxError, match="has not been drawn yet"):
        lesionsFromNodes([node])


def test_every_segment_becomes_a_lesion_with_its_mask(scene, a_segmentation):
    ct = a_ct(scene)
    shape = slicer.util.arrayFromVolume(ct).shape
    masks = {"cyst": block(shape, (5, 5, 5), (15, 12, 9)), "node": block(shape, (30, 20, 2), (34, 30, 18))}
    segmentation = a_segmentation(ct, masks)
    told = []
    nodes = addLesionsFromSegmentation(scene, segmentation, marginMm=2.0, progress=lambda *step: told.append(step))
    assert [node.GetName() for node in nodes] == ["cyst", "node"]
    assert [step[2] for step in told] == ["cyst", "node"]
    boxes = lesionsFromNodes(nodes)
    np.testing.assert_allclose(boxes[0].sizeMm, [10 + 4, 7 * 1.2 + 4, 4 * 2 + 4], atol=1e-5)
    np.testing.assert_allclose(boxes[0].centerRAS, [-9.5, -8 * 1.2, 6.5 * 2], atol=1e-5)
    for box, mask in zip(boxes, masks.values(), strict=True):
        assert box.segment.array.sum() == mask.sum()
        assert box.segment.array.shape == tuple(np.ptp(np.argwhere(mask), axis=0) + 1)


def test_taking_the_segments_again_moves_the_lesions_instead_of_doubling_them(scene, a_segmentation):
    ct = a_ct(scene)
    shape = slicer.util.arrayFromVolume(ct).shape
    segmentation = a_segmentation(ct, {"cyst": block(shape, (5, 5, 5), (15, 12, 9))})
    (first,) = addLesionsFromSegmentation(scene, segmentation, marginMm=0.0)
    (again,) = addLesionsFromSegmentation(scene, segmentation, marginMm=5.0)
    assert again is first
    np.testing.assert_allclose(boxFromRoi(again).sizeMm, [20, 7 * 1.2 + 10, 18], atol=1e-4)


def test_the_parts_of_a_segment_become_segments_of_their_own_and_the_given_ones_stay(scene, a_segmentation):
    ct = a_ct(scene)
    shape = slicer.util.arrayFromVolume(ct).shape
    two = block(shape, (5, 5, 5), (15, 12, 9)) | block(shape, (25, 20, 2), (30, 25, 6))
    two |= block(shape, (20, 2, 2), (21, 3, 3))  # a stray voxel
    given = a_segmentation(ct, {"metastases": two, "cyst": block(shape, (30, 30, 10), (36, 36, 14))})
    parts, warnings = segmentationOfParts(given)
    (left_out,) = warnings
    assert left_out.startswith("1 part(s) of metastases are smaller than")
    nodes = addLesionsFromSegmentation(scene, parts)
    assert [node.GetName() for node in nodes] == ["metastases 1", "metastases 2", "cyst"]
    boxes = lesionsFromNodes(nodes)
    assert [int(box.segment.array.sum()) for box in boxes] == [10 * 7 * 4, 5 * 5 * 4, 6 * 6 * 4]
    np.testing.assert_allclose(boxes[0].centerRAS, [-9.5, -8 * 1.2, 6.5 * 2], atol=1e-5)
    assert len(segmentMasks(given)) == 2
    again, _ = segmentationOfParts(given)
    assert again is parts
    assert addLesionsFromSegmentation(scene, again) == nodes


def test_segments_in_one_piece_each_are_taken_as_they_are(scene, a_segmentation):
    ct = a_ct(scene)
    shape = slicer.util.arrayFromVolume(ct).shape
    given = a_segmentation(ct, {"cyst": block(shape, (5, 5, 5), (15, 12, 9))})
    assert segmentationOfParts(given) == (given, ())


def test_fifty_segments_are_taken_in_a_moment(scene, a_segmentation):
    ct = a_ct(scene, (60, 200, 200))
    shape = slicer.util.arrayFromVolume(ct).shape
    places = [(x, y) for x in range(5, 195, 19) for y in range(5, 195, 38)][:50]
    masks = {f"s{n}": block(shape, (x, y, 10), (x + 9, y + 9, 30)) for n, (x, y) in enumerate(places)}
    segmentation = a_segmentation(ct, masks)
    assert len(addLesionsFromSegmentation(scene, segmentation)) == 50
    assert len(segmentMasks(segmentation)) == 50


def test_a_segmentation_without_a_voxel_is_refused(scene):
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "empty one")
    node.GetSegmentation().AddEmptySegment("a", "a")
    with pytest.raises(BoxError, match="empty one has no segment with a voxel"):
        addLesionsFromSegmentation(scene, node)
    assert lesionNodes(scene) == []


def test_the_answer_is_on_the_lesion_and_on_its_heat_map(scene, a_case, runner):
    ct, roi = a_case
    answer, shown = classifyNodes(runner, ct, [roi], MODEL)
    stored = storedResult(roi)
    (result,) = answer.results
    assert stored.result.label == result.label
    assert stored.result.probabilities == result.probabilities
    assert stored.result.reliability.prediction_set == result.reliability.prediction_set
    assert [w.name for w in stored.result.warnings] == [w.name for w in result.warnings]
    np.testing.assert_allclose(stored.result.embedding, result.embedding)
    np.testing.assert_allclose(stored.result.model_input_boxes[0].sizeMm, result.model_input_boxes[0].sizeMm)
    assert stored.explained == result.label
    heat = roi.GetNodeReference(HEAT_MAP_ROLE)
    assert heat is shown.heatMapNodes[0]
    for node in (roi, heat):
        assert node.GetAttribute("LesionLens.ModelSha256") == answer.info.model_sha256
        assert node.GetAttribute("LesionLens.Device") == "cpu"
        assert "torch" in node.GetAttribute("LesionLens.Software")
        box = json.loads(node.GetAttribute("LesionLens.Box"))
        np.testing.assert_allclose(box["centerRAS"], result.box.centerRAS, atol=1e-3)
    assert roi.GetDisplayNode().GetColor() == pytest.approx(stored.classColors[result.label])


def test_answering_again_replaces_what_was_there(scene, a_case, runner):
    ct, roi = a_case
    classifyNodes(runner, ct, [roi], MODEL)
    classifyNodes(runner, ct, [roi], MODEL, RunOptions(class_name="malignant"))
    volumes = [n.GetName() for n in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")]
    assert volumes == ["golden case", "L1 Grad-CAM malignant"]
    assert scene.GetNumberOfNodesByClass("vtkMRMLTableNode") == 1
    assert storedResult(roi).explained == "malignant"


def test_a_segment_takes_the_colour_of_its_class_and_gets_its_own_back(scene, a_segmentation, runner):
    volume, box = golden_case()
    ct = addVolumeNode(scene, volume)
    segmentation = a_segmentation(ct, {"nodule": box.segment.array.astype(bool)})
    segment = segmentation.GetSegmentation().GetNthSegment(0)
    before = segment.GetColor()
    nodes = addLesionsFromSegmentation(scene, segmentation, marginMm=1.0)
    answer, _ = classifyNodes(runner, ct, nodes, MODEL)
    classifyNodes(runner, ct, nodes, MODEL)
    colors = dict(zip(answer.class_names, answer.class_colors, strict=True))
    assert segment.GetColor() == pytest.approx(colors[answer.results[0].label])
    assert answer.results[0].statistics.measured_in == "segment"
    removeResult(nodes[0])
    assert segment.GetColor() == pytest.approx(before, abs=1e-5)
    assert storedResult(nodes[0]) is None


def test_a_saved_scene_is_whole_again_when_it_is_opened(scene, a_case, runner, tmp_path):
    ct, roi = a_case
    answer, _ = classifyNodes(runner, ct, [roi], MODEL)
    saveScene(scene, tmp_path / "scene.mrb")
    scene.Clear(False)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    (again,) = lesionNodes(scene)
    stored = storedResult(again)
    assert stored.result.probabilities == answer.results[0].probabilities
    assert again.GetNodeReference(VOLUME_ROLE).GetName() == "golden case"
    assert again.GetNodeReference(HEAT_MAP_ROLE).GetName() == f"L1 Grad-CAM {stored.result.label}"
    assert resultsTable(scene) is not None
    assert staleReason(again) == ""
    tree = scene.GetSubjectHierarchyNode()
    study = tree.GetItemChildWithName(tree.GetSceneItemID(), FOLDER_NAME)
    assert tree.GetItemParent(tree.GetItemByDataNode(again)) == study


@pytest.mark.parametrize("what", ["box", "voxels", "transform of the CT", "transform of the box", "CT gone"])
def test_an_answer_is_stale_once_box_ct_or_transform_change(scene, a_case, runner, a_linear_transform, what):
    ct, roi = a_case
    classifyNodes(runner, ct, [roi], MODEL)
    assert staleReason(roi) == ""
    if what == "box":
        roi.SetSize(*(np.array(roi.GetSize()) + 1.0))
    elif what == "voxels":
        slicer.util.arrayFromVolume(ct)[:] += 5
        slicer.util.arrayFromVolumeModified(ct)
    elif what == "CT gone":
        scene.RemoveNode(ct)
    else:
        moved = np.eye(4)
        moved[0, 3] = 3.0
        (ct if "CT" in what else roi).SetAndObserveTransformNodeID(a_linear_transform(moved).GetID())
    assert staleReason(roi).endswith(("classify again.", "no longer in the scene."))


def test_a_transform_that_moves_nothing_leaves_the_answer_as_it_is(scene, a_case, runner, a_linear_transform):
    ct, roi = a_case
    classifyNodes(runner, ct, [roi], MODEL)
    transform = a_linear_transform(np.eye(3))
    roi.SetAndObserveTransformNodeID(transform.GetID())
    assert staleReason(roi) == ""


def test_the_table_of_answers_is_exported_with_stable_columns(scene, a_case, runner, tmp_path):
    ct, roi = a_case
    with pytest.raises(OutputError, match="no lesion has an answer yet"):
        exportCsv(tmp_path / "out.csv", [roi])
    classifyNodes(runner, ct, [roi], MODEL)
    assert exportCsv(tmp_path / "out.csv", [roi]) == 1
    header, row = (tmp_path / "out.csv").read_text().splitlines()
    assert header.startswith("name,label,p_benign,p_malignant,center_r")
    assert row.startswith("L1,")
    with pytest.raises(OutputError, match="cannot be written"):
        exportCsv(tmp_path / "nowhere" / "out.csv", [roi])


def test_a_run_in_the_background_ends_with_the_answer_and_tells_how_far_it_is(scene, a_case, runner):
    ct, roi = a_case
    run = runInBackground(runner, requestFromNodes(ct, [roi], MODEL))
    while (outcome := run.poll()) is None:
        pass
    assert outcome.value.results[0].name == "L1"
    assert (run.done, run.total) == (1, 1)
    assert run.seconds > 0


def test_an_error_in_the_background_reaches_the_main_thread_in_plain_words(scene, a_case, runner):
    ct, roi = a_case
    run = runInBackground(runner, requestFromNodes(ct, [roi], "no such model"))
    while (outcome := run.poll()) is None:
        pass
    assert "unknown model 'no such model'" in str(outcome.error)

    class Broken:
        def run(self, request, *, progress=None):
            raise KeyError("bug")

    run = runInBackground(Broken(), requestFromNodes(ct, [roi], MODEL))
    while (outcome := run.poll()) is None:
        pass
    assert "KeyError" in str(outcome.error)


def test_masks_become_segments_and_come_back_voxel_for_voxel_even_where_they_overlap(scene, an_oblique_ct, tmp_path):
    ct = an_oblique_ct(leftHanded=True)
    rng = np.random.default_rng(5)
    masks = []
    for name, start in (("cyst", (3, 4, 5)), ("tumour", (4, 5, 6)), ("far", (20, 30, 40))):
        shape = rng.integers(4, 8, 3)
        array = rng.integers(0, 2, shape).astype(np.uint8)
        array[tuple(np.indices((2, 2, 2)) * (shape - 1)[:, None, None, None])] = 1  # its corners: the crop is tight
        ijkToRAS = ct.ijkToRAS.copy()
        ijkToRAS[:3, 3] = (ct.ijkToRAS @ [*start, 1])[:3]
        masks.append(CTVolume(array, ijkToRAS, name))
    node = addSegmentationNode(scene, masks, name="Lesions")
    saveScene(scene, tmp_path / "s.mrb")
    scene.Clear(False)
    slicer.util.loadScene(str(tmp_path / "s.mrb"))
    node = slicer.util.getNode("Lesions")
    found = segmentMasks(node)
    assert [mask.name for mask in found.values()] == ["cyst", "tumour", "far"]
    for mask, back in zip(masks, found.values(), strict=True):
        np.testing.assert_array_equal(back.array, mask.array)
        np.testing.assert_allclose(back.ijkToRAS, mask.ijkToRAS, atol=1e-3)
