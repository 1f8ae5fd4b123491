"""`lesionlens classify`: from files to a folder of results that agree with each other."""

from __future__ import annotations

import csv
import io
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import slicer.util
from LesionClassifierLib.headless import startHeadlessSlicer
from LesionClassifierLib.scene.lesions import addRoiNode
from LesionClassifierLib.scene.volumes import HEAT_MAP_ATTRIBUTE, nodesOfClass
from LesionLib.errors import OutputError
from LesionLib.geometry import LesionBox
from LesionLib.io.volumes import read_volume
from LesionRetrievalLib.library.pseudonyms import Pseudonymiser
from LesionRetrievalLib.library.store import CaseLibrary

pytestmark = pytest.mark.usefixtures("asks_malignancy")

PATIENT = (b"Doe^Jane", b"HOSPITAL-4711", b"19700102", b"1.2.826.0.1.3680043.8.498")


def turned(degrees: float) -> np.ndarray:
    a = np.deg2rad(degrees)
    return np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])


@pytest.fixture(scope="module")
def library(built_library):
    return built_library("--pictures") / "cases.lesionlib"


def test_results_have_the_agreed_shape(run, nrrd, boxes, library, tmp_path, result_of):
    assert run("classify", nrrd, "--boxes", boxes, "--library", library, "--out", tmp_path / "out").code == 0
    content = result_of(tmp_path / "out")
    assert set(content) == {"volume", "model", "device", "software", "results", "notice"}
    assert content["volume"] == "patch.nrrd"
    assert set(content["model"]) == {"name", "version", "sha256"}
    (result,) = content["results"]
    target_coverage = {"name", "box", "label", "probabilities", "warnings", "gradCam", "similarCases"}
    added = {"usable", "noAnswer", "details"}
    assert set(result) == target_coverage | {"warningNames", "reliability", "statistics"} | added
    assert set(result["box"]) == {"centerRAS", "sizeMm", "axesRAS"}
    assert sum(result["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert result["label"] == max(result["probabilities"], key=result["probabilities"].get)
    assert result["gradCam"] == "gradcam_1.nrrd"
    assert len(result["similarCases"]) == 6
    assert set(result["similarCases"][0]) == {"caseId", "label", "similarity"}
    similarities = [case["similarity"] for case in result["similarCases"]]
    assert similarities == sorted(similarities, reverse=True)
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "results.json", "results.csv", "similar.csv", "report.html", "scene.mrb", "gradcam_1.nrrd",
    }  # fmt: skip


def test_the_answers_are_printed_before_the_scene_is_saved(run, nrrd, boxes, tmp_path, monkeypatch):
    def full(*_):
        msg = "the disk is full"
        raise OutputError(msg)

    monkeypatch.setattr("LesionLensApp.classify.saveScene", full)
    ran = run("classify", nrrd, "--boxes", boxes, "--out", tmp_path / "out")
    assert ran.code == 2
    assert "Research use only, not for diagnosis." in ran.out  # under the table
    assert "the disk is full" in ran.err
    assert "report.html" not in ran.out
    assert not (tmp_path / "out").exists()


def test_the_table_says_what_the_json_says(run, nrrd, boxes, tmp_path, result_of):
    run("classify", nrrd, "--boxes", boxes, "--out", tmp_path / "out")
    (row,) = csv.DictReader(io.StringIO((tmp_path / "out" / "results.csv").read_text()))
    (result,) = result_of(tmp_path / "out")["results"]
    assert row["label"] == result["label"]
    assert float(row["p_malignant"]) == pytest.approx(result["probabilities"]["malignant"], abs=1e-6)


def test_lps_ras_and_markups_boxes_give_the_same_answer(run, nrrd, lesion, write_boxes, tmp_path, result_of):
    scene = startHeadlessSlicer().scene
    roi = addRoiNode(scene, lesion)
    slicer.util.saveNode(roi, str(tmp_path / "L1.mrk.json"))
    files = [
        write_boxes(tmp_path / "ras.csv", lesion),
        write_boxes(tmp_path / "lps.csv", lesion, frame="LPS"),
        tmp_path / "L1.mrk.json",
    ]
    answers = []
    for number, path in enumerate(files):
        assert run("classify", nrrd, "--boxes", path, "--out", tmp_path / f"out{number}").code == 0
        (result,) = result_of(tmp_path / f"out{number}")["results"]
        np.testing.assert_allclose(result["box"]["centerRAS"], lesion.centerRAS, atol=1e-3)
        answers.append(result["probabilities"]["malignant"])
    assert np.ptp(answers) < 1e-4


def test_a_turned_roi_keeps_its_axes(run, nrrd, lesion, tmp_path, result_of):
    box = LesionBox(lesion.centerRAS, lesion.sizeMm, turned(30), name="turned")
    slicer.util.saveNode(addRoiNode(startHeadlessSlicer().scene, box), str(tmp_path / "turned.mrk.json"))
    assert run("classify", nrrd, "--boxes", tmp_path / "turned.mrk.json", "--out", tmp_path / "out").code == 0
    (result,) = result_of(tmp_path / "out")["results"]
    np.testing.assert_allclose(result["box"]["axesRAS"], turned(30), atol=1e-5)
    np.testing.assert_allclose(result["box"]["sizeMm"], lesion.sizeMm, atol=1e-4)


def test_several_boxes_are_answered_in_their_order(run, nrrd, lesion, write_boxes, tmp_path, result_of):
    beside = LesionBox(lesion.centerRAS + [1, 0, 0], lesion.sizeMm, name="beside")
    assert (
        run("classify", nrrd, "--boxes", write_boxes(tmp_path / "b.csv", beside, lesion), "--out", tmp_path / "o").code
        == 0
    )
    results = result_of(tmp_path / "o")["results"]
    assert [result["name"] for result in results] == ["beside", "L1"]
    assert [result["gradCam"] for result in results] == ["gradcam_1.nrrd", "gradcam_2.nrrd"]


def test_every_segment_becomes_a_box_with_its_margin(run, nrrd, patch, write_image, tmp_path, result_of):
    labels = np.zeros(patch[0].array.shape, np.uint8)
    labels[10:20, 20:40, 22:38] = 3
    path = write_image(tmp_path / "seg.nrrd", labels, patch[0].ijkToRAS)
    assert run("classify", nrrd, "--segmentation", path, "--margin-mm", 1.5, "--out", tmp_path / "out").code == 0
    (result,) = result_of(tmp_path / "out")["results"]
    assert result["name"] == "label 3"
    expected = np.array([16, 20, 10]) * patch[0].spacingMm + 3.0
    np.testing.assert_allclose(np.sort(result["box"]["sizeMm"]), np.sort(expected), atol=1e-3)
    scene = startHeadlessSlicer().scene
    scene.Clear(0)
    assert scene.ReadFromMRB(str(tmp_path / "out" / "scene.mrb"), True)
    (node,) = nodesOfClass(scene, "vtkMRMLSegmentationNode")
    (roi,) = nodesOfClass(scene, "vtkMRMLMarkupsROINode")
    segment = node.GetSegmentation().GetNthSegment(0)
    assert segment.GetName() == "label 3"
    np.testing.assert_allclose(segment.GetColor(), roi.GetDisplayNode().GetSelectedColor(), atol=0.01)


def test_the_heat_map_lies_on_the_ct_s_own_voxels(run, nrrd, boxes, tmp_path):
    run("classify", nrrd, "--boxes", boxes, "--out", tmp_path / "out")
    ct, heat = read_volume(nrrd), read_volume(tmp_path / "out" / "gradcam_1.nrrd")
    np.testing.assert_allclose(heat.ijkToRAS[:3, :3], ct.ijkToRAS[:3, :3], atol=1e-6)
    offset = (ct.rasToIJK @ heat.ijkToRAS[:, 3])[:3]
    np.testing.assert_allclose(offset, np.round(offset), atol=1e-3)
    assert heat.array.min() >= 0
    assert heat.array.max() == pytest.approx(1.0)


def test_the_scene_comes_back_whole(run, nrrd, boxes, tmp_path):
    run("classify", nrrd, "--boxes", boxes, "--out", tmp_path / "out")
    scene = startHeadlessSlicer().scene
    scene.Clear(0)
    assert scene.ReadFromMRB(str(tmp_path / "out" / "scene.mrb"), True)
    heat = [n for n in nodesOfClass(scene, "vtkMRMLScalarVolumeNode") if n.GetAttribute(HEAT_MAP_ATTRIBUTE)]
    (roi,) = nodesOfClass(scene, "vtkMRMLMarkupsROINode")
    assert len(heat) == 1
    assert scene.GetFirstNodeByName("patch.nrrd") is not None
    assert roi.GetAttribute("LesionLens.Model") == "lung-nodule-malignancy"
    assert len(roi.GetAttribute("LesionLens.ModelSha256")) == 64
    assert len(nodesOfClass(scene, "vtkMRMLTableNode")) == 1
    scene.Clear(0)


def test_a_dicom_folder_is_answered_like_the_same_ct_in_a_file(
    run, nrrd, boxes, patch, write_dicom, tmp_path, result_of
):
    folder = write_dicom(tmp_path / "dicom", patch[0])
    np.testing.assert_array_equal(read_volume(folder).array, np.clip(patch[0].array, -1024, None))
    run("classify", folder, "--boxes", boxes, "--out", tmp_path / "a")
    run("classify", nrrd, "--boxes", boxes, "--out", tmp_path / "b")
    first, second = (result_of(tmp_path / name)["results"][0]["probabilities"] for name in "ab")
    assert first["malignant"] == pytest.approx(second["malignant"], abs=1e-4)


def test_no_patient_identifier_is_in_any_output(run, boxes, patch, library, write_dicom, tmp_path):
    folder = write_dicom(tmp_path / "dicom", patch[0])
    ran = run("classify", folder, "--boxes", boxes, "--library", library, "--out", tmp_path / "out")
    assert ran.code == 0
    written = {"screen": (ran.out + ran.err).encode()}
    for path in (tmp_path / "out").iterdir():
        written[path.name] = path.read_bytes()
    with zipfile.ZipFile(tmp_path / "out" / "scene.mrb") as scene:
        written |= {name: scene.read(name) for name in scene.namelist()}
    for name, content in written.items():
        assert not any(identifier in content for identifier in PATIENT), name


def test_cases_of_the_same_patient_are_left_out_with_the_owner_s_key(
    run, boxes, patch, cases_folder, library, write_dicom, tmp_path, result_of
):
    key = library.parent / "owner.key"
    own = Pseudonymiser.load(key).hash("SECRET-1")
    with CaseLibrary.open(library) as opened:
        theirs = {case.case_id for case in opened.cases() if case.patient_hash == own}
    assert len(theirs) == 2
    folder = write_dicom(tmp_path / "dicom", patch[0])
    for path in folder.iterdir():
        data = pydicom.dcmread(path)
        data.PatientID = "SECRET-1"
        data.save_as(path)
    run("classify", folder, "--boxes", boxes, "--library", library, "--key", key, "--out", tmp_path / "out")
    shown = {case["caseId"] for case in result_of(tmp_path / "out")["results"][0]["similarCases"]}
    assert len(shown) == 4
    assert not shown & theirs


@pytest.fixture
def opened(monkeypatch):
    """How often every file was opened as DICOM, by what for: its headers, all but its pixels, its pixels."""
    counts = {"headers": Counter(), "whole": Counter(), "pixels": Counter()}
    read, name = pydicom.dcmread, sitk.ImageSeriesReader.SetFileNames

    def counting_read(path, **options):
        counts["headers" if options.get("specific_tags") else "whole"][Path(path).name] += 1
        return read(path, **options)

    def counting_names(reader, paths):
        counts["pixels"].update(Path(path).name for path in paths)
        return name(reader, paths)

    monkeypatch.setattr(pydicom, "dcmread", counting_read)
    monkeypatch.setattr(sitk.ImageSeriesReader, "SetFileNames", counting_names)
    return counts


def test_every_dicom_file_is_opened_once_for_its_header_its_report_and_its_pixels(
    run, boxes, patch, library, write_dicom, tmp_path, opened
):
    folder = write_dicom(tmp_path / "dicom", patch[0])
    for path in folder.iterdir():
        data = pydicom.dcmread(path)
        data.FrameOfReferenceUID, data.PatientSex, data.ReferringPhysicianName = "1.2.826.0.1.3680043.8.498.7", "O", ""
        data.StudyDate, data.StudyTime, data.StudyID, data.AccessionNumber = "20200101", "120000", "1", "7"
        data.save_as(path)
    opened["whole"].clear()
    key = library.parent / "owner.key"
    given = ("--boxes", boxes, "--library", library, "--key", key, "--dicom-sr", "--out", tmp_path / "out")
    ran = run("classify", folder, *given)
    assert ran.code == 0, ran.err
    once = Counter({path.name: 1 for path in folder.iterdir()})
    assert opened == {"headers": once, "whole": once, "pixels": once}


def test_overwriting_replaces_our_files_only(run, nrrd, lesion, boxes, write_boxes, tmp_path):
    out = tmp_path / "out"
    beside = LesionBox(lesion.centerRAS, [9, 9, 9], name="second")
    run("classify", nrrd, "--boxes", write_boxes(tmp_path / "two.csv", lesion, beside), "--out", out)
    (out / "notes.txt").write_text("mine")
    assert run("classify", nrrd, "--boxes", boxes, "--out", out, "--overwrite").code == 0
    assert (out / "notes.txt").read_text() == "mine"
    assert not (out / "gradcam_2.nrrd").exists()


def test_the_volume_can_be_called_otherwise(run, nrrd, boxes, tmp_path, result_of):
    run("classify", nrrd, "--boxes", boxes, "--name", "case A", "--out", tmp_path / "out")
    assert result_of(tmp_path / "out")["volume"] == "case A"
    assert b"patch.nrrd" not in (tmp_path / "out" / "report.html").read_bytes()


def test_a_gantry_tilt_is_kept_as_a_shear(patch, write_dicom, tmp_path):
    sheared = patch[0].ijkToRAS.copy()
    sheared[1, 2] = 0.3 * sheared[2, 2]
    folder = write_dicom(tmp_path / "tilted", replace(patch[0], ijkToRAS=sheared))
    np.testing.assert_allclose(read_volume(folder).ijkToRAS, sheared, atol=1e-4)


def test_a_missing_slice_is_a_warning_on_the_result(run, boxes, patch, write_dicom, tmp_path, result_of):
    folder = write_dicom(tmp_path / "gap", patch[0])
    next(path for path in folder.iterdir() if path.name.endswith("-7.dcm")).unlink()
    assert run("classify", folder, "--boxes", boxes, "--out", tmp_path / "out").code == 0
    assert any("unevenly spaced" in str(w) for w in result_of(tmp_path / "out")["results"][0]["warnings"])


def test_geometry_read_here_is_simpleitk_s(nrrd):
    image = sitk.ReadImage(str(nrrd))
    point = np.array(image.TransformContinuousIndexToPhysicalPoint([3.0, 5.0, 7.0])) * [-1, -1, 1]
    np.testing.assert_allclose((read_volume(nrrd).ijkToRAS @ [3, 5, 7, 1])[:3], point, atol=1e-6)
