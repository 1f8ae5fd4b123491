"""`lesionlens classify` on a DICOM CT: lesions and heat maps as DICOM beside the report, and heat maps as NIfTI."""

from __future__ import annotations

import csv
import json
import os
import stat
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from dicom_segmentations import KINDS, ball_and_cube, write_seg
from foreign_dicom import BALL_RAS, write_ct
from LesionClassifierLib import dicom_results
from LesionClassifierLib.dicom_results import DicomOutput, write_dicom
from LesionClassifierLib.export import StructuredReportError
from LesionLib.errors import WarningName
from LesionLib.explain.heat_map import HeatMap
from LesionLib.geometry import LesionBox
from LesionLib.inference.results import LesionResult, RunInfo
from LesionLib.io.volumes import read_ct, read_volume

ALL = ("--dicom-sr", "--dicom-seg", "--dicom-map")


@pytest.fixture
def ball(tmp_path, write_boxes) -> Path:
    return write_boxes(tmp_path / "ball.csv", LesionBox(BALL_RAS, [12, 12, 12], name="L1"))


def names_of(out: Path) -> list[str]:
    return json.loads((out / "results.json").read_text())["results"][0]["warningNames"]


def test_segments_maps_and_report_lie_beside_the_results_and_name_each_other(run, tmp_path):
    write_ct(tmp_path / "ct")
    pixels = ball_and_cube(tmp_path / "ct")
    given = write_seg(tmp_path / "ct", tmp_path / "given.dcm", pixels, KINDS.BINARY, ("ball", "cube"))
    out = tmp_path / "out"
    ran = run(
        "classify", tmp_path / "ct", "--segmentation", given, "--answer-anyway", *ALL, "--heat-map-format", "nii.gz",
        "--out", out,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    results = json.loads((out / "results.json").read_text())["results"]
    assert [result["name"] for result in results] == ["ball", "cube"]
    assert not {"dicom-not-written", "report-not-written"} & {n for r in results for n in r["warningNames"]}
    maps = [result["gradCam"] for result in results]
    assert maps == ["gradcam_1.nii.gz", "gradcam_2.nii.gz"]
    rows = csv.DictReader((out / "results.csv").read_text(encoding="utf-8").splitlines())
    assert [row["grad_cam"] for row in rows] == maps
    assert "gradcam_1.nii.gz" in (out / "report.html").read_text(encoding="utf-8")
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [*maps, "gradcam_1.dcm", "gradcam_2.dcm", "lesions.seg.dcm", "report.html", "results.csv", "results.dcm",
         "results.json", "scene.mrb"]
    )  # fmt: skip
    segmentation = hd.seg.segread(out / "lesions.seg.dcm")
    uids = [pydicom.dcmread(path).SOPInstanceUID for path in sorted((tmp_path / "ct").iterdir())]
    for number in (1, 2):
        found = segmentation.get_pixels_by_source_instance(
            uids, segment_numbers=[number], assert_missing_frames_are_empty=True
        )
        np.testing.assert_array_equal(found[..., 0], pixels[..., number - 1])
        image = hd.pm.ParametricMap.from_file(out / f"gradcam_{number}.dcm").get_volume(apply_real_world_transform=True)
        written = read_volume(out / f"gradcam_{number}.nii.gz")
        first = [0, 0, 0, 1] if image.affine[2, 0] > 0 else [image.array.shape[0] - 1, 0, 0, 1]
        values = image.array if image.affine[2, 0] > 0 else image.array[::-1]
        np.testing.assert_allclose(values, written.array, atol=1e-6)
        place = (image.affine @ first)[:3] * [-1, -1, 1]
        np.testing.assert_allclose(place, written.ijkToRAS[:3, 3], atol=1e-4)
    groups = hd.sr.srread(out / "results.dcm").content.get_volumetric_roi_measurement_groups()
    assert [g.tracking_uid for g in groups] == [d.TrackingUID for d in segmentation.SegmentSequence]
    assert {g.reference_type.meaning for g in groups} == {"Referenced Segment"}
    if os.name == "posix":
        assert {stat.S_IMODE(path.stat().st_mode) for path in out.iterdir()} == {0o600}


@pytest.mark.parametrize("options", [("--dicom-seg",), ("--dicom-map",), ALL])
def test_a_ct_that_is_no_dicom_folder_is_refused_before_anything_is_computed(run, nrrd, boxes, tmp_path, options):
    ran = run("classify", nrrd, "--boxes", boxes, *options, "--out", tmp_path / "out")
    assert ran.code == 2
    assert f"{', '.join(options)}: patch.nrrd is not a folder of DICOM files" in " ".join(ran.err.split())
    assert "Classifying" not in ran.err
    assert not (tmp_path / "out").exists()


def test_a_header_without_its_study_is_a_warning_and_all_other_results_are_kept(run, ball, tmp_path):
    write_ct(tmp_path / "ct", change=lambda data, _k: delattr(data, "StudyInstanceUID"))
    out = tmp_path / "out"
    ran = run("classify", tmp_path / "ct", "--boxes", ball, *ALL, "--answer-anyway", "--out", out)
    assert ran.code == 0, ran.err
    assert {"dicom-not-written", "report-not-written"} <= set(names_of(out))
    assert {path.name for path in out.iterdir()} == {
        "report.html", "scene.mrb", "results.json", "results.csv", "gradcam_1.nrrd",
    }  # fmt: skip


def test_nothing_of_an_earlier_patient_stays_under_overwrite(run, ball, tmp_path):
    write_ct(tmp_path / "ct")
    given = ("classify", tmp_path / "ct", "--boxes", ball, "--answer-anyway", "--out", tmp_path / "out")
    assert run(*given, *ALL, "--heat-map-format", "nii.gz").code == 0
    assert run(*given, "--overwrite").code == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"report.html", "scene.mrb", "results.json", "results.csv", "gradcam_1.nrrd"}


def test_a_tilted_gantry_and_nifti_are_refused_before_anything_is_computed(run, ball, tmp_path):
    def tilted(data, k):
        data.ImagePositionPatient = [-6.0, -31.0 + 0.5 * k, -120.0 + 2.0 * k]

    write_ct(tmp_path / "ct", change=tilted)
    given = ("classify", tmp_path / "ct", "--boxes", ball, "--heat-map-format", "nii.gz", "--out", tmp_path / "out")
    ran = run(*given)
    assert ran.code == 2
    assert "gantry tilt" in ran.err
    assert "Classifying" not in ran.err
    assert not (tmp_path / "out").exists()


def test_what_belongs_to_one_ct_is_refused_with_a_batch(run, tmp_path):
    table = tmp_path / "cases.csv"
    table.write_text("name,volume,mask\n")
    given = ("--dicom-seg", "--dicom-map", "--heat-map-format", "nrrd")
    ran = run("classify", "--batch", table, "--out", tmp_path / "out", *given)
    assert ran.code == 2
    assert "leave out --dicom-seg, --dicom-map, --heat-map-format" in " ".join(ran.err.split())


# --- one part that cannot be written takes no other along


@pytest.fixture
def job(tmp_path):
    """Writes what is wanted of one lesion with a map and one without, and returns the folder and the warnings."""
    files = write_ct(tmp_path / "ct")
    volume = read_ct(tmp_path / "ct")
    array = np.random.default_rng(0).random((4, 6, 5)).astype(np.float32)
    heat_map = HeatMap(array / array.max(), volume.ijkToRAS, 1.0, "malignant")
    box = LesionBox(BALL_RAS, [8, 8, 8], name="L1")
    probabilities = {"benign": 0.25, "malignant": 0.75}
    results = [
        LesionResult("L1", box, "malignant", probabilities, np.ones(1, np.float32), heat_map),
        LesionResult("L2", box, "malignant", probabilities, np.ones(1, np.float32), None),
    ]
    run = RunInfo("CT", "m", "1.0.0", "ab" * 32, "cpu", "LesionLens 0.1.0")
    out = tmp_path / "out"
    out.mkdir()

    def write(**wanted) -> tuple[set[str], list]:
        found = write_dicom(DicomOutput(files, **wanted), run, results, volume, out)
        assert found[0].warnings == found[1].warnings
        return {path.name for path in out.iterdir()}, list(found[0].warnings)

    return write


EVERYTHING = {"report": True, "segmentation": True, "maps": True}


@pytest.mark.parametrize(
    ("wanted", "files"),
    [
        ({}, set()),
        ({"report": True}, {"results.dcm"}),
        ({"segmentation": True}, {"lesions.seg.dcm"}),
        ({"maps": True}, {"gradcam_1.dcm"}),
        (EVERYTHING, {"results.dcm", "lesions.seg.dcm", "gradcam_1.dcm"}),
    ],
)
def test_what_is_asked_for_is_written_and_nothing_else(job, wanted, files):
    assert job(**wanted) == (files, [])


@pytest.mark.parametrize(
    ("broken", "missing"),
    [
        ("writeSegmentation", "lesions.seg.dcm"),
        ("writeHeatMap", "gradcam_1.dcm"),
        ("writeStructuredReport", "results.dcm"),
    ],
)
def test_one_that_cannot_be_written_takes_no_other_along(job, tmp_path, monkeypatch, broken, missing):
    def fails(*_args, **_options):
        msg = "the disk is full."
        raise StructuredReportError(msg)

    monkeypatch.setattr(dicom_results, broken, fails)
    files, (warning,) = job(**EVERYTHING)
    assert files == {"results.dcm", "lesions.seg.dcm", "gradcam_1.dcm"} - {missing}
    assert f"({missing}): the disk is full. All other results were written." in warning
    report = broken == "writeStructuredReport"
    assert warning.name is (WarningName.REPORT_NOT_WRITTEN if report else WarningName.DICOM_NOT_WRITTEN)
    if not report:
        (group, _) = hd.sr.srread(tmp_path / "out" / "results.dcm").content.get_volumetric_roi_measurement_groups()
        expected = "Volume Surface" if broken == "writeSegmentation" else "Referenced Segment"
        assert group.reference_type.meaning == expected


def test_files_that_are_gone_and_headers_with_gaps_are_said_once(job, tmp_path):
    for path in (tmp_path / "ct").iterdir():
        data = pydicom.dcmread(path)
        data["PatientBirthDate"]._value = "1950"
        data.save_as(path)
    _, (warning,) = job(**EVERYTHING)
    assert warning.name is WarningName.REPORT_GAPS
    assert "PatientBirthDate empty" in warning
    for path in (tmp_path / "ct").iterdir():
        path.unlink()
    _, warnings = job(**EVERYTHING)
    assert [w.name for w in warnings] == [WarningName.DICOM_NOT_WRITTEN, WarningName.REPORT_NOT_WRITTEN]
    assert "lesions.seg.dcm, gradcam_1.dcm, …" in warnings[0]
