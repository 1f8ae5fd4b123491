"""Bad input: one line that says what was given and what to do, exit code 2, nothing left behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from LesionLib.geometry import LesionBox
from LesionLib.model.folder import CARD, LICENSE, MANIFEST, WEIGHTS, find_bundle
from LesionRetrievalLib.library.cases import ModelIdentity
from LesionRetrievalLib.library.store import CaseLibrary

pytestmark = pytest.mark.usefixtures("asks_malignancy")

MODEL = "lung-nodule-malignancy"
LONG = "n" * 3000


@pytest.fixture
def refused(run, tmp_path):
    """Run, expect a refusal, return its one line; ``--out`` is added unless it is given."""

    def call(*arguments: object) -> str:
        before = set(tmp_path.iterdir())
        out = [] if "--out" in arguments else ["--out", tmp_path / "out"]
        ran = run(*arguments, *out)
        assert ran.code == 2
        (line,) = [text for text in ran.err.splitlines() if "error:" in text]
        assert line.startswith("lesionlens: error: ")
        assert ran.err.splitlines()[-1] == line
        assert ran.out == ""
        assert set(tmp_path.iterdir()) - before <= {tmp_path / "config"}
        return line

    return call


def test_a_box_outside_the_volume_is_refused_with_its_distance(refused, nrrd, lesion, write_boxes, tmp_path):
    outside = LesionBox(lesion.centerRAS + [200, 0, 0], [10, 10, 10], name="far")
    half = 44.0 / 2
    line = refused("classify", nrrd, "--boxes", write_boxes(tmp_path / "far.csv", outside))
    assert "'far' lies outside the volume by" in line
    distance = float(line.split("outside the volume by ")[1].split(" mm")[0])
    assert distance == pytest.approx(lesion.centerRAS[0] + 200 - 5 - half, abs=0.8)
    assert "frame (RAS or LPS)" in line


def test_one_box_outside_refuses_all_before_any_work(refused, nrrd, lesion, write_boxes, tmp_path):
    outside = LesionBox(lesion.centerRAS + [0, 90, 0], [10, 10, 10], name="far")
    assert "'far'" in refused("classify", nrrd, "--boxes", write_boxes(tmp_path / "b.csv", lesion, outside))


def test_a_box_of_zero_size_is_refused_with_its_line(refused, nrrd, tmp_path):
    boxes = tmp_path / "flat.csv"
    boxes.write_text("name,frame,center_x,center_y,center_z,size_x,size_y,size_z\nL1,RAS,0,0,0,10,0,10\n")
    line = refused("classify", nrrd, "--boxes", boxes)
    assert "flat.csv, line 2" in line
    assert "10 x 0 x 10 mm" in line


def test_a_folder_without_dicom_is_refused(refused, boxes, tmp_path):
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "readme.txt").write_text("no image")
    assert "holds no DICOM images" in refused("classify", tmp_path / "papers", "--boxes", boxes)


def test_two_series_in_a_folder_are_listed_and_asked_for(refused, run, boxes, patch, write_dicom, tmp_path):
    folder = write_dicom(tmp_path / "study" / "a", patch[0], series="1.2.3.1", number=2).parent
    write_dicom(tmp_path / "study" / "b", patch[0], series="1.2.3.2", number=7)
    line = refused("classify", folder, "--boxes", boxes)
    assert "holds 2 series" in line
    assert "--series" in line
    assert "1: CT, series number 2" in line
    assert "2: CT, series number 7" in line
    assert "Doe" not in line
    assert "has no series '5'" in refused("classify", folder, "--boxes", boxes, "--series", "5")
    assert run("classify", folder, "--boxes", boxes, "--series", "2", "--out", tmp_path / "done").code == 0


def test_a_four_dimensional_image_is_refused(refused, boxes, tmp_path):
    image = sitk.JoinSeries([sitk.Image(8, 8, 8, sitk.sitkInt16)] * 2)
    sitk.WriteImage(image, str(tmp_path / "four.nii.gz"))
    line = refused("classify", tmp_path / "four.nii.gz", "--boxes", boxes)
    assert "4 dimensions" in line


def test_a_colour_image_is_refused(refused, boxes, tmp_path):
    sitk.WriteImage(sitk.Image([8, 8, 8], sitk.sitkVectorUInt8, 3), str(tmp_path / "colour.nrrd"))
    assert "every voxel has 3 values" in refused("classify", tmp_path / "colour.nrrd", "--boxes", boxes)


def test_nans_are_refused_and_counted(refused, boxes, patch, write_image, tmp_path):
    array = patch[0].array.astype(np.float32)
    array[0, 0, :3] = np.nan
    path = write_image(tmp_path / "nan.nrrd", array, patch[0].ijkToRAS)
    assert "3 voxels are NaN" in refused("classify", path, "--boxes", boxes)


@pytest.mark.parametrize("low", [0, 1000])
def test_a_volume_that_is_not_in_hu_is_answered_with_a_warning(
    run, boxes, patch, write_image, tmp_path, result_of, low
):
    scaled = (patch[0].array.astype(float) + 1024) / 2200 * 255 + low
    path = write_image(tmp_path / "grey.nrrd", scaled.astype(np.int16), patch[0].ijkToRAS)
    assert run("classify", path, "--boxes", boxes, "--out", tmp_path / "out").code == 0
    (result,) = result_of(tmp_path / "out")["results"]
    assert any("Hounsfield" in str(warning) for warning in result["warnings"])


def test_an_unknown_model_is_refused_with_the_known_ones(refused, nrrd, boxes):
    line = refused("classify", nrrd, "--boxes", boxes, "--model", "liver-lesions")
    assert "unknown model 'liver-lesions'" in line
    assert MODEL in line


@pytest.mark.parametrize("name", [WEIGHTS, MANIFEST, CARD, LICENSE])
def test_a_tampered_model_is_refused(refused, nrrd, boxes, tmp_path, name):
    model = Path(shutil.copytree(find_bundle(MODEL), tmp_path / "model"))
    if name == MANIFEST:
        manifest = json.loads((model / name).read_text())
        manifest["lesionlens"]["classes"].reverse()
        (model / name).write_text(json.dumps(manifest))
    else:
        content = bytearray((model / name).read_bytes())
        content[-3] ^= 4
        (model / name).write_bytes(content)
    assert "was changed" in refused("classify", nrrd, "--boxes", boxes, "--model", model)


def test_a_library_made_with_another_model_is_refused_by_name(refused, nrrd, boxes, tmp_path):
    identity = ModelIdentity("older-model", "0.9.0", "a" * 64)
    CaseLibrary.create(tmp_path / "other.lesionlib", model=identity, dimension=1280).close()
    line = refused("classify", nrrd, "--boxes", boxes, "--library", tmp_path / "other.lesionlib")
    assert "older-model 0.9.0" in line
    assert "build the library again" in line


def test_a_file_that_is_not_a_library_is_refused(refused, nrrd, boxes, tmp_path):
    (tmp_path / "x.lesionlib").write_text("hello")
    assert "x.lesionlib" in refused("classify", nrrd, "--boxes", boxes, "--library", tmp_path / "x.lesionlib")


def test_a_folder_with_content_is_not_written_to(refused, nrrd, boxes, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    assert "is not empty" in refused("classify", nrrd, "--boxes", boxes, "--out", tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("boxes.xlsx", "", "come as .csv"),
        ("broken.mrk.json", "{", "is not a Slicer markups file"),
        ("lines.mrk.json", '{"markups": [{"type": "Line"}]}', "holds no ROI"),
        ("empty.csv", "", "line 1: the header must be name,frame"),
    ],
)
def test_a_file_that_holds_no_boxes_is_refused(refused, nrrd, tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    assert said in refused("classify", nrrd, "--boxes", tmp_path / name)


def test_what_is_not_there_is_named(refused, nrrd, boxes, tmp_path):
    assert "nowhere.nrrd does not exist" in refused("classify", tmp_path / "nowhere.nrrd", "--boxes", boxes)
    assert "nowhere.csv does not exist" in refused("classify", nrrd, "--boxes", tmp_path / "nowhere.csv")


def test_a_segmentation_without_segments_is_refused(refused, nrrd, patch, write_image, tmp_path):
    path = write_image(tmp_path / "empty.nrrd", np.zeros(patch[0].array.shape, np.uint8), patch[0].ijkToRAS)
    assert "holds no segment" in refused("classify", nrrd, "--segmentation", path)


def test_an_image_given_as_segmentation_is_refused(refused, nrrd, patch, write_image, tmp_path):
    path = write_image(tmp_path / "ct.nrrd", patch[0].array.astype(np.float32) + 0.5, patch[0].ijkToRAS)
    assert "is not a segmentation" in refused("classify", nrrd, "--segmentation", path)


@pytest.mark.parametrize(
    "command",
    [
        ("classify", LONG, "--boxes", "{boxes}"),
        ("classify", "{nrrd}", "--boxes", f"{LONG}.csv"),
        ("classify", "{nrrd}", "--segmentation", LONG),
        ("classify", "{nrrd}", "--boxes", "{boxes}", "--library", LONG),
        ("classify", "{nrrd}", "--boxes", "{boxes}", "--model", f"./{LONG}"),
        ("classify", "{nrrd}", "--boxes", "{boxes}", "--out", LONG),
        ("library", "build", LONG),
        ("quiz", "make", "--from", LONG),
        ("quiz", "score", LONG, LONG),
    ],
)
def test_a_name_that_is_too_long_for_a_file_is_refused_in_one_line(refused, nrrd, boxes, command):
    assert refused(*(part.format(nrrd=nrrd, boxes=boxes) for part in command)).count(LONG) >= 1
