"""The command line on files as they come: what is odd is on the result or is one line, and nothing of an earlier run stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from foreign_dicom import BALL_RAS, write_ct
from LesionLensApp.output import check_output, staged_output
from LesionLib.errors import OutputError
from LesionLib.geometry import LesionBox

pytestmark = pytest.mark.usefixtures("asks_malignancy")


@pytest.fixture
def ball(tmp_path, write_boxes) -> Path:
    return write_boxes(tmp_path / "ball.csv", LesionBox(BALL_RAS, [8, 8, 8], name="L1"))


def names_of(result: dict) -> list[str]:
    return result["results"][0]["warningNames"]


def test_a_report_that_cannot_be_written_is_named_and_all_other_results_are_kept(run, ball, tmp_path, result_of):
    write_ct(tmp_path / "ct", change=lambda data, _k: delattr(data, "StudyInstanceUID"))
    ran = run("classify", tmp_path / "ct", "--boxes", ball, "--dicom-sr", "--out", tmp_path / "out")
    assert ran.code == 0, ran.err
    assert "report-not-written" in names_of(result_of(tmp_path / "out"))
    assert "no StudyInstanceUID" in " ".join(result_of(tmp_path / "out")["results"][0]["warnings"])
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"report.html", "scene.mrb", "results.json", "results.csv"} <= written
    assert "results.dcm" not in written


def test_the_report_of_another_patient_does_not_stay_under_overwrite(run, ball, tmp_path):
    for name, patient in (("a", "PATIENT-A"), ("b", "PATIENT-B")):
        write_ct(tmp_path / name, change=lambda data, _k, patient=patient: setattr(data, "PatientID", patient))
    out = tmp_path / "out"
    assert run("classify", tmp_path / "a", "--boxes", ball, "--dicom-sr", "--out", out).code == 0
    assert pydicom.dcmread(out / "results.dcm").PatientID == "PATIENT-A"
    (out / "notes.txt").write_text("mine")
    assert run("classify", tmp_path / "b", "--boxes", ball, "--out", out, "--overwrite").code == 0
    assert not (out / "results.dcm").exists()
    assert (out / "notes.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".out")] == []


def test_a_segment_in_two_parts_is_a_warning_and_can_be_split(run, nrrd, patch, tmp_path, result_of):
    volume = patch[0]
    array = np.zeros(volume.array.shape, np.uint8)
    k, j, i = (n // 2 for n in array.shape)
    array[k - 4 : k + 4, j - 8 : j - 2, i - 8 : i - 2] = array[k - 4 : k + 4, j + 2 : j + 8, i + 2 : i + 8] = 1
    image = sitk.GetImageFromArray(array)
    image.CopyInformation(sitk.ReadImage(str(nrrd)))
    sitk.WriteImage(image, str(tmp_path / "m.nrrd"))
    given = ("classify", nrrd, "--segmentation", tmp_path / "m.nrrd", "--out")
    assert run(*given, tmp_path / "whole").code == 0
    assert names_of(result_of(tmp_path / "whole")).count("several-parts") == 1
    assert run(*given, tmp_path / "split", "--split-parts").code == 0
    split = result_of(tmp_path / "split")["results"]
    assert [result["name"] for result in split] == ["label 1 1", "label 1 2"]
    assert not any("several-parts" in result["warningNames"] for result in split)
    ran = run(*given, tmp_path / "other", "--split-parts", "-3")
    assert (ran.code, "--split-parts is -3" in ran.err) == (2, True)


@pytest.fixture
def around_the_origin(tmp_path) -> Path:
    """A CT around the origin, lung where R is above -4 mm and nothing but air elsewhere: most boxes fit in either frame."""

    def change(data, _k):
        data.ImagePositionPatient = [-16.0, -16.0, data.ImagePositionPatient[2]]
        pixels = data.pixel_array.astype(np.int16)
        pixels[:, 20 * pixels.shape[1] // 32 :] = 24  # -1000 HU
        data.PixelData = pixels.tobytes()

    write_ct(tmp_path / "ct", change=change)
    return tmp_path / "ct"


def test_a_stated_frame_is_doubted_only_where_the_box_holds_air_and_the_other_reading_tissue(
    run, around_the_origin, tmp_path, write_boxes, result_of
):
    in_tissue, in_air = (LesionBox([r, -6.0, -100.0], [5, 5, 5], name="L1") for r in (8.0, -8.0))
    for frame in ("RAS", "LPS"):
        boxes = write_boxes(tmp_path / f"{frame}.csv", in_tissue, frame=frame)
        ran = run("classify", around_the_origin, "--boxes", boxes, "--out", tmp_path / frame)
        assert ran.code == 0, ran.err
        assert "box-frame" not in names_of(result_of(tmp_path / frame))
    boxes = write_boxes(tmp_path / "air.csv", in_air)
    assert run("classify", around_the_origin, "--boxes", boxes, "--out", tmp_path / "air").code == 0
    result = result_of(tmp_path / "air")
    assert "box-frame" in names_of(result)
    text = " ".join(result["results"][0]["warnings"])
    assert "L1 lies at RAS -8.0, -6.0, -100.0 mm, where there is only air" in text
    assert "RAS 8.0, 6.0, -100.0 mm, in tissue" in text


@pytest.mark.parametrize("stated", [False, True])
def test_a_frame_that_a_file_does_not_state_is_never_guessed_in_silence(
    run, around_the_origin, tmp_path, result_of, stated
):
    roi = {"type": "ROI", "center": [-8.0, 6.0, -100.0], "size": [5, 5, 5]}
    roi |= {"orientation": [1, 0, 0, 0, 1, 0, 0, 0, 1]}
    roi |= {"controlPoints": [{"position": roi["center"], "positionStatus": "defined"}]}
    roi |= {"coordinateSystem": "LPS"} if stated else {}
    boxes = tmp_path / "L1.mrk.json"
    boxes.write_text(json.dumps({"markups": [roi]}))
    ran = run("classify", around_the_origin, "--boxes", boxes, "--out", tmp_path / "out")
    assert ran.code == 0, ran.err
    result = result_of(tmp_path / "out")
    assert ("box-frame" in names_of(result)) is not stated
    text = " ".join(result["results"][0]["warnings"])
    assert ("taken as LPS" in text and "which lies in this CT, too" in text) is not stated


def test_a_box_that_grazes_the_ct_is_refused_and_nothing_is_written(run, tmp_path, write_boxes):
    write_ct(tmp_path / "ct")
    boxes = write_boxes(tmp_path / "b.csv", LesionBox([10.49, 15.0, -100.0], [8, 8, 8], name="L1"))
    ran = run("classify", tmp_path / "ct", "--boxes", boxes, "--out", tmp_path / "out")
    assert ran.code == 2
    assert "but for its edge" in ran.err
    assert not (tmp_path / "out").exists()


def test_a_name_that_is_no_text_is_read_and_answered(run, nrrd, boxes, tmp_path, result_of):
    odd = Path(str(tmp_path / "l\udce4sion.nrrd"))
    try:
        odd.write_bytes(nrrd.read_bytes())
    except OSError:
        pytest.skip("this file system has no such names")
    ran = run("classify", odd, "--boxes", boxes, "--out", tmp_path / "out")
    assert ran.code == 0, ran.err
    assert result_of(tmp_path / "out")["volume"] == "l\ufffdsion.nrrd"
    ran = run("classify", nrrd, "--boxes", boxes, "--out", Path(str(tmp_path / "o\udcfft")))
    assert ran.code == 2
    assert "not UTF-8" in ran.err


def test_a_pipe_in_the_code_page_of_windows_takes_every_letter(nrrd, lesion, tmp_path, write_boxes):
    boxes = tmp_path / "b.csv"
    write_boxes(boxes, replace(lesion, name="L1"))
    boxes.write_text(boxes.read_text().replace("L1", "腫瘤"), encoding="utf-8")
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "LesionLensApp.cli", "classify", nrrd, "--boxes", boxes, "--out", tmp_path / "out"]
    ran = subprocess.run(list(map(str, command)), env=environment, capture_output=True, check=False, timeout=200)
    assert ran.returncode == 0, ran.stderr
    assert "\\u816b\\u7624".encode("cp1252") in ran.stdout
    assert json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))["results"][0]["name"] == "腫瘤"


def test_a_process_that_is_asked_to_end_leaves_nothing_behind(tmp_path):
    script = (
        "import sys, time; from pathlib import Path; from LesionLensApp.output import staged_output\n"
        "from LesionLib.faults import guarded\n"
        "def body():\n"
        "    with staged_output(Path(sys.argv[1])) as folder:\n"
        "        (folder / 'x').write_text('x'); print('begun', flush=True); time.sleep(60)\n"
        "sys.exit(guarded('lesionlens', body))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "out")], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"begun\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 128 + signal.SIGTERM
    process.stdout.close()
    deadline = time.monotonic() + 5
    while list(tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert list(tmp_path.iterdir()) == []


def test_a_link_stays_a_link_and_its_folder_is_replaced(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "results.dcm").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with staged_output(tmp_path / "link", overwrite=True) as folder:
        (folder / "results.json").write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert [path.name for path in (tmp_path / "real").iterdir()] == ["results.json"]
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    with pytest.raises(OutputError, match="is a link to .*gone, which is not there"):
        check_output(tmp_path / "dangling", overwrite=True)


def test_a_folder_in_the_place_of_a_result_is_refused_and_stays(tmp_path):
    (tmp_path / "out" / "report.html").mkdir(parents=True)
    with (
        pytest.raises(OutputError, match=r"holds a folder named report\.html"),
        staged_output(tmp_path / "out", overwrite=True),
    ):
        pass
    assert (tmp_path / "out" / "report.html").is_dir()


def test_what_is_odd_about_a_ct_is_said_when_it_goes_into_a_library(run, cases_folder, tmp_path, write_boxes):
    library, key = tmp_path / "a.lesionlib", tmp_path / "owner.key"
    assert run("library", "build", cases_folder, "--out", library, "--key", key).code == 0
    write_ct(tmp_path / "ct", heights=tuple(-120.0 + 2.0 * k for k in range(20) if k != 3))
    boxes = write_boxes(tmp_path / "b.csv", LesionBox(BALL_RAS, [8, 8, 8], name="L1"))
    given = (tmp_path / "ct", "--boxes", boxes, "--label", "cyst", "--label-source", "histology")
    ran = run("library", "add", library, *given, "--key", key)
    assert ran.code == 0, ran.err
    assert "unevenly spaced" in " ".join(ran.err.split())
    searched = run("library", "search", library, "--volume", *given[:3], "--key", key, "--json")
    (result,) = json.loads(searched.out)
    assert "uneven-slices" in result["warningNames"]
    assert "unevenly spaced" in " ".join(result["warnings"])


def test_a_lesion_in_two_parts_is_said_once_when_it_goes_into_a_library(run, library_of, nrrd, patch, tmp_path):
    array = np.zeros(patch[0].array.shape, np.uint8)
    k, j, i = (n // 2 for n in array.shape)
    array[k - 4 : k + 4, j - 8 : j - 2, i - 8 : i - 2] = array[k - 4 : k + 4, j + 2 : j + 8, i + 2 : i + 8] = 1
    image = sitk.GetImageFromArray(array)
    image.CopyInformation(sitk.ReadImage(str(nrrd)))
    sitk.WriteImage(image, str(tmp_path / "m.nrrd"))
    library = library_of()
    given = (
        library,
        nrrd,
        "--segmentation",
        tmp_path / "m.nrrd",
        "--key",
        library.with_name("owner.key"),
        "--patient",
        "P",
    )
    ran = run("library", "add", *given, "--label", "cyst", "--label-source", "histology")
    assert ran.code == 0, ran.err
    assert " ".join(ran.err.split()).count("2 separate parts") == 1
    searched = run("library", "search", given[0], "--volume", *given[1:], "--json")
    assert json.loads(searched.out)[0]["warningNames"].count("several-parts") == 1


def test_boxes_of_any_size_and_at_any_edge_are_measured_or_refused(run, nrrd, lesion, tmp_path, write_boxes, result_of):
    """Smaller than a voxel, thinner than a slice, larger than the CT, half outside: no such box gets a confident answer."""
    center = np.array(lesion.centerRAS)
    sizes = {"tiny": [0.2] * 3, "thin": [8, 8, 0.2], "huge": [400] * 3}
    boxes = [LesionBox(center, size, name=name) for name, size in sizes.items()]
    boxes.append(LesionBox(center + [22, 22, 22], [8, 8, 8], name="corner"))
    ran = run("classify", nrrd, "--boxes", write_boxes(tmp_path / "b.csv", *boxes), "--out", tmp_path / "out")
    assert ran.code == 0, ran.err
    for result in result_of(tmp_path / "out")["results"]:
        assert result["statistics"]["hu"]["mean"] == pytest.approx(result["statistics"]["hu"]["mean"])  # no NaN
        if result["name"] == "corner":
            assert "outside-volume" in result["warningNames"]
        else:
            assert (result["label"], "box-size" in result["warningNames"]) == ("", True)
