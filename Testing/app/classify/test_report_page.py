"""What a radiologist finds on the page and beside it: instances, how the CT was taken, similar cases at one scale, the scene."""

from __future__ import annotations

import csv
import html
import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pydicom
import pytest
from LesionClassifierLib.headless import startHeadlessSlicer
from LesionClassifierLib.scene.results import FOLDER_NAME, HEAT_MAP_ROLE
from LesionClassifierLib.scene.volumes import nodesOfClass
from LesionLensApp.classify import _side_px
from LesionLensApp.cli import main
from LesionLensApp.similar_cases import TABLE_NAME
from LesionLib.geometry import LesionBox
from LesionLib.io.volumes import read_volume

MALIGNANCY = "lung-nodule-malignancy"
DAY, SERIES = "2019-03-14", "thorax <thin>"


@pytest.fixture(scope="module")
def dicom(tmp_path_factory, patch, write_dicom) -> Path:
    """A folder whose images are counted from the head down."""
    folder = write_dicom(tmp_path_factory.mktemp("series") / "ct", patch[0])
    count = len(patch[0].array)
    for path in folder.iterdir():
        data = pydicom.dcmread(path)
        data.InstanceNumber = count + 100 - int(data.InstanceNumber)
        data.StudyDate, data.SeriesDescription, data.ConvolutionKernel = DAY.replace("-", ""), SERIES, "B70f"
        pydicom.dcmwrite(path, data)
    return folder


@pytest.fixture(scope="module")
def answered(tmp_path_factory, dicom, lesion, write_boxes, built_library):
    """Two lesions on that CT with the similar cases of a library that holds CTs: the folder of results."""
    folder = tmp_path_factory.mktemp("answered")
    beside = LesionBox(lesion.centerRAS + [2.0, 0.0, 4.0], lesion.sizeMm, name="beside")
    library = built_library("--pictures", "--patches")
    given = ["--boxes", write_boxes(folder / "b.csv", lesion, beside), "--library", library / "cases.lesionlib"]
    given += ["--key", library / "owner.key", "--model", MALIGNANCY, "--answer-anyway", "--out", folder / "out"]
    assert main(["classify", *map(str, (dicom, *given))]) == 0
    return folder / "out"


def page_of(out: Path) -> str:
    return (out / "report.html").read_text(encoding="utf-8")


def test_under_an_axial_picture_stand_the_slice_and_the_instance_that_it_is(answered, dicom, lesion):
    heights = {}
    for path in dicom.iterdir():
        data = pydicom.dcmread(path)
        heights[float(data.ImagePositionPatient[2])] = int(data.InstanceNumber)
    nearest = min(heights, key=lambda height: abs(height - lesion.centerRAS[2]))
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page_of(answered))
    wanted = rf"Axial, S {lesion.centerRAS[2]:.1f} mm, slice \d+ of \d+, DICOM instance {heights[nearest]}"
    assert re.fullmatch(wanted, captions[0])
    assert [caption for caption in captions if "instance" in caption] == [c for c in captions if c.startswith("Axial")]
    first, second = json.loads((answered / "results.json").read_text())["results"]
    assert (first["instanceNumber"], first["instanceNumber"] - second["instanceNumber"] > 0) == (heights[nearest], True)


def test_nothing_is_said_of_instances_where_the_ct_is_a_file(run, nrrd, boxes, tmp_path):
    assert run("classify", nrrd, "--boxes", boxes, "--model", MALIGNANCY, "--out", tmp_path / "out").code == 0
    page = page_of(tmp_path / "out").partition('id="model-card"')[0]
    assert re.search(r"<figcaption>Axial, S -?\d+\.\d mm, slice \d+ of \d+</figcaption>", page)
    assert "instance" not in page
    assert "slice thickness" not in page
    volume = read_volume(nrrd)
    assert f"<dt>CT</dt><dd>{volume.sizeIJK[2]} slices of {volume.sizeIJK[0]} x {volume.sizeIJK[1]} voxels" in page


def test_thickness_and_kernel_are_on_the_page_and_day_and_description_only_for_those_who_ask(
    run, answered, dicom, boxes, tmp_path, patch
):
    thickness = patch[0].spacingMm[2]
    for page in (shown := page_of(answered), (answered / "results.json").read_text()):
        assert DAY not in page
        assert "thorax" not in page
    assert f"slice thickness {thickness:g} mm; kernel B70f" in shown
    assert json.loads((answered / "results.json").read_text())["series"] == {
        "sliceThicknessMm": thickness, "kernel": "B70f",
    }  # fmt: skip
    given = ("--boxes", boxes, "--model", MALIGNANCY, "--with-series", "--out", tmp_path / "out")
    assert run("classify", dicom, *given).code == 0
    page = page_of(tmp_path / "out")
    assert f"<dt>Study</dt><dd>{DAY}</dd>" in page
    assert f"<dt>Series</dt><dd>{html.escape(SERIES)}</dd>" in page
    content = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (content["series"]["studyDate"], content["series"]["description"]) == (DAY, SERIES)


def test_what_only_a_dicom_folder_can_tell_is_refused_of_a_file_and_of_a_batch(run, nrrd, boxes, tmp_path):
    ran = run("classify", nrrd, "--boxes", boxes, "--with-series", "--out", tmp_path / "out")
    assert ran.code == 2
    assert "--with-series: patch.nrrd is not a folder of DICOM files" in " ".join(ran.err.split())
    (tmp_path / "cases.csv").write_text("name,volume,mask\n")
    ran = run("classify", "--batch", tmp_path / "cases.csv", "--with-series", "--out", tmp_path / "out")
    assert "leave out --with-series" in " ".join(ran.err.split())
    assert not (tmp_path / "out").exists()


def test_the_similar_cases_are_a_table_with_one_value_a_cell_that_says_what_the_json_says(answered):
    content = json.loads((answered / "results.json").read_text())
    rows = list(csv.DictReader((answered / "similar.csv").read_text(encoding="utf-8").splitlines()))
    told = [
        (result["name"], rank, case["caseId"], case["label"], case["similarity"])
        for result in content["results"]
        for rank, case in enumerate(result["similarCases"], start=1)
    ]
    assert len(told) == 2 * 6
    assert told == [
        (row["lesion"], int(row["rank"]), row["case_id"], row["label"], float(row["similarity"])) for row in rows
    ]
    assert {row["model_sha256"] for row in rows} == {content["model"]["sha256"]}
    assert {(row["lesion_usable"], row["may_be_the_lesion"]) for row in rows} <= {
        (usable, same) for usable in ("yes", "no") for same in ("yes", "no")
    }
    assert not any(" | " in value for row in rows for value in row.values())


def test_the_lesion_stands_before_its_similar_cases_at_their_scale_with_a_bar_under_each(answered):
    page = page_of(answered)
    for block in re.findall(r'<div class="cards">(.*?)</div>\n</section>', page, flags=re.DOTALL):
        bars = re.findall(r'<b style="width:([\d.]+)%">(\d+) mm</b>', block)
        assert len(bars) == 1 + 6
        assert len(set(bars)) == 1
        assert block.startswith('<div class="card this">')
        assert [int(n) for n in re.findall(r"<b>(\d+)\. (?:benign|malignant)</b>", block)] == [1, 2, 3, 4, 5, 6]
    assert page.count("Axial, all at one scale; lung window, W 1500 L -600.") == 2


def test_pictures_without_their_ct_have_no_bar_and_the_page_says_that_their_scale_is_not_known(
    run, nrrd, boxes, built_library, tmp_path
):
    library = built_library("--pictures") / "cases.lesionlib"
    given = ("--boxes", boxes, "--library", library, "--model", MALIGNANCY, "--out", tmp_path / "out")
    assert run("classify", nrrd, *given).code == 0
    page = page_of(tmp_path / "out")
    (block,) = re.findall(r'<div class="cards">(.*?)</div>\n</section>', page, flags=re.DOTALL)
    assert block.count('class="card"') == block.count("<img ") == 6
    assert "%" not in re.sub(r'src="[^"]*"', "", block)
    assert "each at a scale of its own" in page


class Tables(HTMLParser):
    """The heading above each cell of a page's tables, and what the cell is called where there is no room for headings."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[tuple[list[str], list[list[str | None]]]] = []
        self._in_heading = False

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag == "table":
            assert "stacked" in values["class"].split()
            self.tables.append(([], []))
        elif tag == "tr":
            self.tables[-1][1].append([])
        elif tag == "td":
            self.tables[-1][1][-1].append(values.get("data-label"))
        self._in_heading = tag == "th"

    def handle_data(self, data):
        if self._in_heading:
            self.tables[-1][0].append(data)
            self._in_heading = False


def test_on_a_telephone_every_cell_of_a_table_is_called_by_its_heading(answered):
    parser = Tables()
    parser.feed(page_of(answered))
    assert parser.tables
    for headings, rows in parser.tables:
        cells = [row for row in rows if row]
        assert cells
        assert all(row == headings for row in cells)
    style = page_of(answered).partition("</style>")[0]
    assert "@media screen and (max-width: 700px)" in style  # paper is narrow too, and has room for three pictures
    assert "@media print" in style
    assert "prefers-color-scheme: dark" in style


@pytest.fixture
def opened(answered):
    scene = startHeadlessSlicer().scene
    scene.Clear(0)
    assert scene.ReadFromMRB(str(answered / "scene.mrb"), True)
    yield scene
    scene.Clear(0)


def test_the_scene_opens_on_the_first_lesion_with_its_map(opened, lesion):
    views = {node.GetLayoutName(): node for node in nodesOfClass(opened, "vtkMRMLSliceNode")}
    assert set(views) == {"Red", "Yellow", "Green"}
    for name, view in views.items():
        toRAS = view.GetSliceToRAS()
        middle = [toRAS.GetElement(row, 3) for row in range(3)]
        np.testing.assert_allclose(middle, lesion.centerRAS, atol=1e-3)
        assert view.GetLayoutLabel() == name[0]
        assert view.GetLayoutColor() != (0.54902, 0.54902, 0.54902)  # the grey of a view that nobody named
        assert 30 < view.GetFieldOfView()[0] < 100  # the lesion and its surroundings, not the whole body
    rois = nodesOfClass(opened, "vtkMRMLMarkupsROINode")
    first = rois[0].GetNodeReference(HEAT_MAP_ROLE)
    for composite in nodesOfClass(opened, "vtkMRMLSliceCompositeNode"):
        assert composite.GetForegroundVolumeID() == first.GetID()


def test_every_lesion_s_map_lies_in_the_folder_of_the_answers_under_a_name_of_its_own(opened):
    tree = opened.GetSubjectHierarchyNode()
    maps = [roi.GetNodeReference(HEAT_MAP_ROLE) for roi in nodesOfClass(opened, "vtkMRMLMarkupsROINode")]
    assert len(maps) == len({node.GetName() for node in maps}) == 2
    for node in maps:
        item = tree.GetItemByDataNode(node)
        assert tree.GetItemName(tree.GetItemParent(item)) == FOLDER_NAME


def test_the_similar_cases_are_a_table_of_the_scene(opened, answered):
    node = next(node for node in nodesOfClass(opened, "vtkMRMLTableNode") if node.GetName() == TABLE_NAME)
    rows = list(csv.DictReader((answered / "similar.csv").read_text(encoding="utf-8").splitlines()))
    assert node.GetNumberOfRows() == len(rows)
    columns = {node.GetColumnName(n): n for n in range(node.GetNumberOfColumns())}
    for name in ("lesion", "case_id", "label"):
        assert [node.GetCellText(row, columns[name]) for row in range(len(rows))] == [row[name] for row in rows]
    similarities = [float(node.GetCellText(row, columns["similarity"])) for row in range(6)]
    assert all(one >= other for one, other in pairwise(similarities))
    tree = opened.GetSubjectHierarchyNode()
    assert tree.GetItemName(tree.GetItemParent(tree.GetItemByDataNode(node))) == FOLDER_NAME


def test_the_more_lesions_the_smaller_their_pictures_and_none_coarser_than_a_ct():
    assert [_side_px(lesions) for lesions in (1, 12, 13, 50, 51, 500)] == [480, 480, 320, 320, 240, 240]
    narrowest_mm = 2 * 30.0  # what is shown around every box
    assert narrowest_mm / 240 < 0.5  # the pixels of a CT of the lung are 0.5 to 0.9 mm
