"""An abdomen with organs for segments: what the model has no answer for gets none, on the page, in the scene and in the files."""

from __future__ import annotations

import csv
import json
import re

import highdicom as hd
import numpy as np
import pydicom
import pytest
from LesionClassifierLib.headless import startHeadlessSlicer
from LesionClassifierLib.scene.results import NO_ANSWER_COLOR
from LesionClassifierLib.scene.volumes import nodesOfClass
from LesionLib.geometry import CTVolume, LesionBox

pytestmark = pytest.mark.usefixtures("asks_malignancy")

RED = re.compile(r"rgb\(204,51,41\)")  # the model's colour of malignant


@pytest.fixture(scope="module")
def abdomen() -> tuple[CTVolume, np.ndarray]:
    """Soft tissue in fat, 2 mm voxels, with a large organ (1), a small one (2) and a spot in between (3)."""
    rng = np.random.default_rng(0)
    hu = rng.normal(-100, 15, (60, 60, 60))
    labels = np.zeros(hu.shape, np.uint8)
    k, j, i = np.indices(hu.shape)
    for value, (center, radii, density) in enumerate(
        (((30, 30, 18), (20, 24, 15), 60), ((30, 20, 44), (7, 8, 6), 120), ((12, 40, 44), (4, 5, 5), 40)), start=1
    ):
        inside = sum(((axis - c) / r) ** 2 for axis, c, r in zip((k, j, i), center, radii, strict=True)) < 1
        hu[inside], labels[inside] = rng.normal(density, 12, int(inside.sum())), value
    return CTVolume(hu.round().astype(np.int16), np.diag([2.0, 2.0, 2.0, 1.0]), name="abdomen"), labels


@pytest.fixture(scope="module")
def files(abdomen, write_image, write_dicom, tmp_path_factory):
    folder = tmp_path_factory.mktemp("abdomen")
    labels = write_image(folder / "organs.nrrd", abdomen[1], abdomen[0].ijkToRAS)
    series = write_dicom(folder / "ct", abdomen[0])
    for path in series.iterdir():
        data = pydicom.dcmread(path)
        data.FrameOfReferenceUID = "1.2.826.0.1.3680043.8.498.777.1"
        for name in ("PatientSex", "StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"):
            setattr(data, name, "")  # a report takes them over
        pydicom.dcmwrite(path, data)
    return series, labels


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """What was answered already, by the options; several tests look at one answer, and change nothing in its folder."""
    return tmp_path_factory.mktemp("answers"), {}


@pytest.fixture
def answered(run, files, answers):
    """The command with more options, and the folder it wrote."""
    folder, known = answers

    def call(*options):
        if options not in known:
            out = folder / str(len(known))
            ran = run("classify", files[0], "--segmentation", files[1], "--out", out, *options)
            assert ran.code == 0, ran.err
            known[options] = ran, out
        return known[options]

    return call


def test_organs_of_an_abdomen_get_no_answer_anywhere(answered, result_of):
    ran, out = answered()
    results = result_of(out)["results"]
    assert results[0]["noAnswer"][0] == "box-size"
    for result in results:
        assert (result["label"], result["usable"], result["probabilities"], result["gradCam"]) == ("", False, {}, None)
        assert set(result["details"]["probabilities"]) == {"benign", "malignant"}
    assert ran.out.count("no answer") == 3
    assert "malignant 0." not in ran.out
    rows = list(csv.DictReader((out / "results.csv").read_text().splitlines()))
    assert {(row["label"], row["p_malignant"], row["usable"]) for row in rows} == {("", "", "no")}
    assert "box-size" in rows[0]["warning_codes"]
    assert not list(out.glob("gradcam_*"))


def test_the_page_shows_no_answer_no_colour_of_a_class_and_no_map_without_one(answered):
    page = (answered()[1] / "report.html").read_text()
    shown = page.partition('id="model-card"')[0]
    assert shown.count('<span class="answer none">no answer</span>') == 6  # in the overview and at each lesion
    assert not RED.search(page)
    assert "Grad-CAM)" not in shown
    assert "<h3>Probabilities</h3>" not in shown
    assert shown.count("Why there is no answer") == 3
    assert "its size is outside what the model was trained on" in shown


def test_segments_and_boxes_without_an_answer_are_grey_in_the_scene(answered):
    out = answered()[1]
    scene = startHeadlessSlicer().scene
    scene.Clear(0)
    assert scene.ReadFromMRB(str(out / "scene.mrb"), True)
    (node,) = nodesOfClass(scene, "vtkMRMLSegmentationNode")
    for number in range(3):
        np.testing.assert_allclose(node.GetSegmentation().GetNthSegment(number).GetColor(), NO_ANSWER_COLOR, atol=0.01)
    for roi in nodesOfClass(scene, "vtkMRMLMarkupsROINode"):
        assert roi.GetAttribute("LesionLens.Label") in (None, "")
    assert not [n for n in nodesOfClass(scene, "vtkMRMLScalarVolumeNode") if "Grad-CAM" in n.GetName()]


def test_who_asks_for_it_all_the_same_gets_it_marked(answered, result_of):
    ran, out = answered("--answer-anyway")
    for result in result_of(out)["results"]:
        assert result["label"] in ("benign", "malignant")
        assert (result["usable"], result["details"]) == (False, None)
        assert result["gradCam"]
    page = (out / "report.html").read_text()
    assert page.count("not an answer: asked for all the same") == 6
    assert "asked for all the same" in page
    assert ran.out.count("no answer") < 6


def test_the_structured_report_says_no_answer_and_why_and_holds_no_probability(answered):
    out = answered("--dicom-sr")[1]
    groups = hd.sr.srread(out / "results.dcm").content.get_volumetric_roi_measurement_groups()
    assert len(groups) == 3
    for group in groups:
        said = [(e.name.meaning, e.value.meaning) for e in group.get_qualitative_evaluations()]
        assert [value for name, value in said if name == "Answered class"] == ["No answer"]
        assert "Reason why the model has no answer" in {name for name, _ in said}
        assert not {"benign", "malignant"} & {value for _, value in said}
        assert not [m for m in group.get_measurements() if m.name.meaning.startswith("Probability")]
    codes = {e.value.value for e in groups[0].get_qualitative_evaluations()}
    assert "box-size" in codes


def test_the_page_says_what_the_card_says(run, nrrd, patch, write_boxes, tmp_path):
    tight = LesionBox(patch[1].box.centerRAS, patch[1].box.sizeMm, name="L1")
    boxes = write_boxes(tmp_path / "tight.csv", tight)
    assert run("classify", nrrd, "--boxes", boxes, "--out", tmp_path / "out").code == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "evidence" not in page.partition('id="model-card"')[0]
    assert "Where the model looked for" in page
    assert "AUC 0.937 (0.918-0.954); size alone has 0.921 (0.900-0.943)" in page
    assert "The probabilities assume 50% benign, 50% malignant" in page
    assert 'href="#model-card"' in page
    assert "## How far to rely on an answer" in page


def test_a_query_by_segment_finds_the_lesion_itself_that_a_library_was_built_from(run, cases_folder, tmp_path):
    library, key = tmp_path / "l.lesionlib", tmp_path / "key"
    assert run("library", "build", cases_folder, "--out", library, "--key", key).code == 0
    for number in range(6):
        ct, mask = (cases_folder / part / f"p{number}.nii.gz" for part in ("image", "mask"))
        asked = ("library", "search", library, "--volume", ct, "--segmentation", mask, "--json", "--key", key)
        ran = run(*asked)
        assert ran.code == 0, ran.err
        first = json.loads(ran.out)[0]["found"][0]
        assert first["case_id"] == f"case-{number + 1:05d}"
        assert first["similarity"] == pytest.approx(1.0, abs=1e-5)


def test_boxes_drawn_otherwise_than_those_of_the_library_are_refused(run, cases_folder, tmp_path):
    library, key = tmp_path / "l.lesionlib", tmp_path / "key"
    assert run("library", "build", cases_folder, "--out", library, "--key", key).code == 0
    ct, mask = (cases_folder / part / "p0.nii.gz" for part in ("image", "mask"))
    source = ("--segmentation", mask, "--margin-mm", 2)
    new = ("--label", "benign", "--label-source", "histology", "--patient", "P", "--key", key)
    for command in (
        ("library", "search", library, "--volume", ct, *source),
        ("library", "add", library, ct, *source, *new),
        ("classify", ct, *source, "--library", library, "--out", tmp_path / "out"),
    ):
        ran = run(*command)
        assert ran.code == 2
        assert "--margin-mm is 2" in ran.err
        assert "reach 0 mm beyond" in ran.err.replace("\n", " ")


def test_another_margin_without_a_library_is_said_with_the_answer(run, cases_folder, tmp_path, result_of):
    ct, mask = (cases_folder / part / "p0.nii.gz" for part in ("image", "mask"))
    for margin in (None, 2.0):
        options = () if margin is None else ("--margin-mm", margin)
        out = tmp_path / f"out-{margin}"
        assert run("classify", ct, "--segmentation", mask, "--out", out, *options).code == 0
        names = result_of(out)["results"][0]["warningNames"]
        assert ("segment-margin" in names) == (margin == 2.0)
