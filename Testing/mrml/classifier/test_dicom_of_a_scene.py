"""What the panel writes of a scene as DICOM: segmentation, heat maps and report, as `lesionlens classify` writes them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from foreign_dicom import BALL_HU, BALL_RAS, write_ct
from LesionClassifierLib import dicom_results
from LesionClassifierLib.dicom_headers import StructuredReportError
from LesionClassifierLib.dicom_results import exportDicom
from LesionClassifierLib.scene.lesions import addLesionsFromSegmentation, addRoiNode, addSegmentationNode, boxFromRoi
from LesionClassifierLib.scene.results import showResults
from LesionClassifierLib.scene.volumes import addVolumeNode
from LesionLib.errors import OutputError, WarningName
from LesionLib.explain.heat_map import HeatMap
from LesionLib.geometry import CTVolume, LesionBox, transformed_points
from LesionLib.inference.results import LesionResult, RunInfo
from LesionLib.io.volumes import read_ct

RUN = RunInfo("CT", "lung-nodule-malignancy", "1.1.0", "ab" * 32, "cpu", "LesionLens 0.1.0")
COLORS = {"benign": (0.0, 0.45, 0.7), "malignant": (0.84, 0.37, 0.0)}
FIRST = (10, 11, 8)  # of the map, on the CT


class FolderOfFiles:
    """A folder in the place of Slicer's DICOM database."""

    def __init__(self, folder: Path) -> None:
        self.paths = {str(pydicom.dcmread(path).SOPInstanceUID): str(path) for path in sorted(folder.iterdir())}

    def fileForInstance(self, instanceUID: str) -> str:
        return self.paths.get(instanceUID, "")


@pytest.fixture
def answered(scene, tmp_path):
    """A CT from DICOM with two answered lesions, the ball's segment and a box, as a panel leaves it; and its files."""
    write_ct(tmp_path / "ct")
    files = FolderOfFiles(tmp_path / "ct")
    volume = read_ct(tmp_path / "ct")
    volumeNode = addVolumeNode(scene, volume)
    volumeNode.SetAttribute("DICOM.instanceUIDs", " ".join(files.paths))
    ball = CTVolume((volume.array == BALL_HU).astype(np.uint8), volume.ijkToRAS, "ball")
    (ofSegment,) = addLesionsFromSegmentation(scene, addSegmentationNode(scene, [ball], name="s"), marginMm=2.0)
    ofBox = addRoiNode(scene, LesionBox(BALL_RAS + [0, 0, 6], [6, 6, 6], name="L2"))
    corner = volume.ijkToRAS.copy()
    corner[:3, 3] = transformed_points(volume.ijkToRAS, FIRST)
    array = np.random.default_rng(0).random((4, 9, 8)).astype(np.float32)
    heat = HeatMap(array / array.max(), corner, 2.5, "malignant")
    rois = [ofSegment, ofBox]
    results = [
        LesionResult(
            roi.GetName(), boxFromRoi(roi), "malignant", {"benign": 0.25, "malignant": 0.75}, np.ones(1, np.float32), of
        )
        for roi, of in zip(rois, (heat, None), strict=True)
    ]
    showResults(scene, volumeNode, rois, results, volume=volume, run=RUN, classColors=COLORS)
    out = tmp_path / "out"
    out.mkdir()
    return volumeNode, rois, files, heat, out


def test_segments_maps_and_report_of_a_scene_are_written_and_name_each_other(answered, tmp_path):
    _, rois, files, heat, out = answered
    assert exportDicom(out, rois, files) == 2
    assert {path.name for path in out.iterdir()} == {"lesions.seg.dcm", "gradcam_1.dcm", "results.dcm"}
    segmentation = hd.seg.segread(out / "lesions.seg.dcm")
    assert [segment.SegmentLabel for segment in segmentation.SegmentSequence] == ["ball", "box of L2"]
    found = segmentation.get_pixels_by_source_instance(
        list(files.paths), segment_numbers=[1], assert_missing_frames_are_empty=True
    )
    np.testing.assert_array_equal(found[..., 0] > 0, read_ct(tmp_path / "ct").array == BALL_HU)
    image = hd.pm.ParametricMap.from_file(out / "gradcam_1.dcm")
    volume = image.get_volume(apply_real_world_transform=True)
    goesUp = volume.affine[2, 0] > 0
    np.testing.assert_allclose(volume.array if goesUp else volume.array[::-1], heat.array, atol=1e-6)
    corner = (volume.affine @ [0 if goesUp else len(heat.array) - 1, 0, 0, 1])[:3] * [-1, -1, 1]
    np.testing.assert_allclose(corner, heat.ijkToRAS[:3, 3], atol=1e-4)
    assert "1 stands for 2.5" in image.DerivationDescription
    groups = hd.sr.srread(out / "results.dcm").content.get_volumetric_roi_measurement_groups()
    assert [g.tracking_uid for g in groups] == [d.TrackingUID for d in segmentation.SegmentSequence]
    assert {g.reference_type.meaning for g in groups} == {"Referenced Segment"}


def test_a_ct_without_dicom_is_refused_in_plain_words_and_nothing_is_written(answered):
    volumeNode, rois, files, _, out = answered
    volumeNode.RemoveAttribute("DICOM.instanceUIDs")
    with pytest.raises(
        StructuredReportError, match="was not loaded from DICOM, so there is no study that DICOM results"
    ):
        exportDicom(out, rois, files)
    with pytest.raises(StructuredReportError, match="not loaded from DICOM"):
        exportDicom(out, rois, None)
    assert not list(out.iterdir())


def test_a_ct_that_a_transform_moves_is_refused_by_the_transform_s_name(answered, scene):
    volumeNode, rois, files, _, out = answered
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "to the atlas")
    volumeNode.SetAndObserveTransformNodeID(transform.GetID())
    with pytest.raises(StructuredReportError, match="is moved by the transform to the atlas"):
        exportDicom(out, rois, files)
    assert not list(out.iterdir())


def test_an_answer_that_no_longer_holds_is_refused_by_its_lesion(answered):
    _, rois, files, _, out = answered
    rois[1].SetSize(9, 9, 9)
    with pytest.raises(OutputError, match="L2: The box, the CT or a transform has changed"):
        exportDicom(out, rois, files)
    assert not list(out.iterdir())


def test_files_that_are_there_are_not_overwritten(answered):
    _, rois, files, _, out = answered
    (out / "results.dcm").write_bytes(b"of another patient")
    with pytest.raises(OutputError, match="has a results.dcm already; choose another folder"):
        exportDicom(out, rois, files)
    assert [path.name for path in out.iterdir()] == ["results.dcm"]


def test_one_that_cannot_be_written_takes_no_other_along_and_is_said(answered, monkeypatch):
    def fails(*_, **__):
        raise StructuredReportError("no room.")

    _, rois, files, _, out = answered
    monkeypatch.setattr(dicom_results, "writeSegmentation", fails)
    told = []
    assert exportDicom(out, rois, files, warn=told.append) == 2
    assert {path.name for path in out.iterdir()} == {"gradcam_1.dcm", "results.dcm"}
    assert [warning.name for warning in told] == [WarningName.DICOM_NOT_WRITTEN]
    monkeypatch.setattr(dicom_results, "readDatasets", fails)
    for path in out.iterdir():
        path.unlink()
    with pytest.raises(OutputError, match="no room"):
        exportDicom(out, rois, files)


def test_of_a_lesion_without_an_answer_there_is_no_map(answered, scene):
    from LesionClassifierLib.scene.results import storedResult, storeResult
    from LesionLib.errors import InputWarning

    volumeNode, rois, files, _, out = answered
    stored = storedResult(rois[0])
    unlike = (InputWarning(WarningName.OUT_OF_DISTRIBUTION, "It looks unlike them."),)
    storeResult(
        rois[0], volumeNode, replace(stored.result, warnings=unlike),
        run=RUN, classColors=COLORS, fingerprint=stored.fingerprint,
    )  # fmt: skip
    assert exportDicom(out, rois, files) == 2
    assert {path.name for path in out.iterdir()} == {"lesions.seg.dcm", "results.dcm"}
