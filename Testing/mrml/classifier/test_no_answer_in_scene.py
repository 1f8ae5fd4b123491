"""A lesion that the model has no answer for, in a scene: grey, without a class, and quiet in exports unless it is asked for."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest
from LesionClassifierLib.classification import classifyNodes, heatMapNode
from LesionClassifierLib.export import exportCsv
from LesionClassifierLib.scene.lesions import (
    addRoiNode,
    addSegmentationNode,
    lesionsFromNodes,
    markAsLesion,
    segmentOfLesion,
)
from LesionClassifierLib.scene.results import NO_ANSWER_COLOR, resultsTable, storedResult, storeResult
from LesionClassifierLib.scene.volumes import addVolumeNode
from LesionLib.errors import WarningName
from LesionLib.inference.messages import RunOptions
from LesionLib.io.boxes import segment_margins_mm
from LesionLib.model.folder import golden_case
from LesionRetrievalLib.scene.segments import lesionOfSegment

MODEL = "lung-nodule-malignancy"


@pytest.fixture
def a_large_case(scene):
    """The golden CT with a box that no box of training was as long as."""
    volume, box = golden_case()
    return addVolumeNode(scene, volume), markAsLesion(
        addRoiNode(scene, replace(box, name="L1", sizeMm=[60.0, 12, 14], segment=None))
    )


def test_its_box_is_grey_and_neither_label_nor_map_is_in_the_scene(scene, a_large_case, runner):
    ct, roi = a_large_case
    classifyNodes(runner, ct, [roi], MODEL)
    stored = storedResult(roi)
    assert (stored.result.label, stored.explained) == ("", "")
    assert WarningName.BOX_SIZE in stored.result.abstention
    assert roi.GetDisplayNode().GetColor() == pytest.approx(NO_ANSWER_COLOR)
    assert heatMapNode(roi) is None
    assert not roi.GetAttribute("LesionLens.Probability")
    table = resultsTable(scene).GetTable()
    assert table.GetColumnByName("usable").GetValue(0) == "no"
    assert np.isnan(table.GetColumnByName("p_malignant").GetValue(0))


def test_a_class_that_is_asked_for_is_mapped_and_the_box_stays_grey(scene, a_large_case, runner):
    ct, roi = a_large_case
    classifyNodes(runner, ct, [roi], MODEL, RunOptions(class_name="malignant"))
    assert storedResult(roi).explained == "malignant"
    assert heatMapNode(roi) is not None
    assert roi.GetDisplayNode().GetColor() == pytest.approx(NO_ANSWER_COLOR)


def exported(path, roi, **how) -> dict[str, str]:
    assert exportCsv(path, [roi], **how) == 1
    (row,) = csv.DictReader(path.open())
    return row


def test_an_export_holds_the_class_only_where_it_is_asked_for(scene, a_large_case, runner, tmp_path):
    ct, roi = a_large_case
    classifyNodes(runner, ct, [roi], MODEL)
    silent, asked = (exported(tmp_path / f"{a}.csv", roi, answerAnyway=a) for a in (False, True))
    assert (silent["label"], silent["p_benign"], silent["usable"]) == ("", "", "no")
    assert asked["label"] in ("benign", "malignant")
    assert asked["usable"] == "no"


def test_a_scene_of_before_models_abstained_opens_and_exports_no_answer(scene, a_large_case, runner, tmp_path):
    ct, roi = a_large_case
    answer, _ = classifyNodes(runner, ct, [roi], MODEL, RunOptions(answer_anyway=True))
    colors = dict(zip(answer.class_names, answer.class_colors, strict=True))
    storeResult(roi, ct, answer.results[0], run=answer.info, classColors=colors, fingerprint="then")
    assert storedResult(roi).result.label in colors  # as it was written
    assert exported(tmp_path / "old.csv", roi)["label"] == ""


def test_a_segment_s_box_reaches_as_far_beyond_it_as_the_model_was_made_for(scene):
    _, box = golden_case()
    node = addSegmentationNode(scene, [box.segment], name="S")
    (segmentId,) = node.GetSegmentation().GetSegmentIDs()
    for margin, wanted in ((None, 0.0), (5.0, 5.0)):
        roi = lesionOfSegment(node, segmentId, marginMm=margin)
        assert segmentOfLesion(roi) == (node, segmentId)
        np.testing.assert_allclose(segment_margins_mm(lesionsFromNodes([roi])[0]), wanted, atol=1e-3)
