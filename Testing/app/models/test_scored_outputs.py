"""A model with scores on the command line: sentence, tables, page, structured report, and what the model's listing says."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pydicom
import pytest
from LesionLib.explain import occlusion
from LesionLib.geometry import LesionBox
from scored_model import NAME, SCORES, write_scored_model

pytestmark = pytest.mark.usefixtures("asks_malignancy")


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    return write_scored_model(tmp_path_factory.mktemp("model") / NAME)


@pytest.fixture
def ran(run, nrrd, boxes, model, tmp_path):
    """`lesionlens classify` of one lesion, with boxes drawn a little differently."""
    out = tmp_path / "out"
    return run("classify", nrrd, "--boxes", boxes, "--model", model, "--box-jitter", 3, "--out", out), out


def test_the_sentence_is_printed_and_stands_in_every_output(ran):
    done, out = ran
    assert done.code == 0, done.err
    (result,) = json.loads((out / "results.json").read_text())["results"]
    sentence = result["sentence"]
    assert re.fullmatch(r"solid, box of \d+ mm, lobulated \d of 5, not calcified", sentence)
    assert f"L1: {sentence}" in done.out
    (row,) = csv.DictReader(io.StringIO((out / "results.csv").read_text(encoding="utf-8")))
    assert row["sentence"] == sentence
    assert float(row["score_lobulation"]) == pytest.approx(result["scores"]["lobulation"], abs=1e-3)
    assert result["reliability"]["boxSpread"]["score_minimum"][1] <= result["scores"]["lobulation"] + 1
    assert sentence in (out / "report.html").read_text(encoding="utf-8")


def test_the_page_draws_each_score_on_its_scale_and_says_where_a_reader_is_better(ran):
    _done, out = ran
    page = (out / "report.html").read_text(encoding="utf-8")
    rows = re.findall(r'<tr(?: class="(worse)")?[^>]*><td[^>]*>(\w+)<small>.*?</tr>', page, re.DOTALL)
    assert [name for _, name in rows] == [entry["name"] for entry in SCORES]
    assert [name for worse, name in rows if worse] == ["lobulation"]
    (scores,) = json.loads((out / "results.json").read_text())["results"]
    for entry, drawn in zip(SCORES, re.findall(r'<span class="scale".*?</span>', page), strict=True):
        assert drawn.count("<i") == len(entry["levels"])
        assert drawn.count('class="on"') == int(scores["scores"][entry["name"]] + 0.5) - entry["low"] + 1
    assert "For lobulation the model is off by 0.82 on average, more than one reader is from the others (0.64)." in page
    assert "for boxes drawn a little differently" in page
    assert page.count("not measured</td>") == 1  # of subtlety


def test_a_lesion_without_an_answer_has_no_scores_in_any_output(run, nrrd, lesion, write_boxes, model, tmp_path):
    boxes = write_boxes(tmp_path / "large.csv", LesionBox(lesion.centerRAS, [60.0, 20, 20], name="L1"))
    done = run("classify", nrrd, "--boxes", boxes, "--model", model, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    (result,) = json.loads((tmp_path / "out" / "results.json").read_text())["results"]
    assert (result["label"], result["scores"], result["sentence"]) == ("", {}, "")
    assert set(result["details"]["scores"]) == {entry["name"] for entry in SCORES}
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert 'class="scores"' not in page
    assert "of 5" not in done.out + page.partition('id="model-card"')[0].partition("</style>")[2]
    anyway = run("classify", nrrd, "--boxes", boxes, "--model", model, "--answer-anyway", "--out", tmp_path / "anyway")
    assert "L1: solid, box of 60 mm, " in anyway.out


def test_the_structured_report_of_a_dicom_folder_holds_the_scores(run, patch, boxes, write_dicom, model, tmp_path):
    folder = write_dicom(tmp_path / "dicom", patch[0])
    for path in folder.iterdir():
        data = pydicom.dcmread(path)
        data.FrameOfReferenceUID = "1.2.826.0.1.3680043.8.498.77"
        data.save_as(path)
    done = run(
        "classify", folder, "--boxes", boxes, "--model", model, "--name", "CT", "--dicom-sr", "--out", tmp_path / "out"
    )
    assert done.code == 0, done.err
    report = str(pydicom.dcmread(tmp_path / "out" / "results.dcm"))
    assert "Lobular Pattern" in report
    assert "Score of subtlety" in report


def test_show_lists_the_scores_with_the_errors_of_model_and_reader(run, model, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    done = run("models", "show", model)
    assert done.code == 0, done.err
    line = next(line for line in done.out.splitlines() if "lobulation" in line and "0.82" in line)
    for text in ("1 no lobulation to 5 marked lobulation", "0.82, more than a reader", "0.64 (n = 806)"):
        assert text in line
    assert not any("Scores" in line for line in run("models", "show", "lung-nodule-malignancy").out.splitlines())


def cases_of(run, library: Path) -> dict[str, dict]:
    """The attributes of each case, by its id."""
    cases = json.loads(run("library", "list", library, "--json").out)["cases"]
    return {case["case_id"]: case["attributes"] for case in cases}


@pytest.fixture
def library(run, model, cases_folder, tmp_path) -> Path:
    """The six phantom nodules, by the model that scores."""
    path = tmp_path / "cases.lesionlib"
    done = run("library", "build", cases_folder, "--model", model, "--out", path, "--key", tmp_path / "owner.key")
    assert done.code == 0, done.err
    return path


def test_cases_keep_what_the_model_scored_and_are_found_by_it(run, library):
    kept = cases_of(run, library)
    names = {f"predicted_{entry['name']}" for entry in SCORES} | {"prediction_of"}
    assert all(set(attributes) == names for attributes in kept.values())
    assert {attributes["prediction_of"] for attributes in kept.values()} == {f"{NAME} 1.0.0"}
    values = {case: attributes["predicted_lobulation"] for case, attributes in kept.items()}
    asked, middle = min(values, key=values.__getitem__), sorted(values.values())[3]
    expected = {case for case, value in values.items() if value >= middle}
    assert 0 < len(expected) < len(values)
    done = run(
        "library", "search", library, "--case", asked, "--attribute", f"predicted_lobulation={middle}..", "--json"
    )
    assert done.code == 0, done.err
    assert set(re.findall(r'"case_id": "([^"]+)"', done.out)) - {asked} == expected


def test_a_case_added_later_keeps_its_scores_beside_what_a_person_said(run, library, nrrd, boxes, model, tmp_path):
    def add(case: str, attribute: str):
        return run(
            "library", "add", library, nrrd, "--boxes", boxes, "--label", "malignant", "--label-source", "histology",
            "--patient", "p-new", "--case-id", case, "--attribute", attribute, "--model", model,
            "--key", tmp_path / "owner.key",
        )  # fmt: skip

    done = add("added", "lobe=left")
    assert done.code == 0, done.err
    kept = cases_of(run, library)["added"]
    assert kept["lobe"] == "left"
    assert 1 <= kept["predicted_lobulation"] <= 5
    refused = add("refused", "predicted_lobulation=5")
    assert refused.code == 2
    assert "'predicted_lobulation' has a name that is kept for what a model says of a case" in refused.err
    assert "refused" not in cases_of(run, library)


def test_the_page_says_how_a_map_was_made_and_what_the_model_says_of_it(run, nrrd, boxes, tmp_path, monkeypatch):
    monkeypatch.setattr(occlusion, "_CELLS", {2: (4, 2), 3: (4, 2)})
    note = "On its own lesions this map is no better than chance."
    explanation = {"class": "calcified", "method": "occlusion", "note": note}
    model = write_scored_model(tmp_path / NAME, explanation=explanation)
    pages = {}
    for method in ("occlusion", "grad_cam", "none"):
        out = tmp_path / method
        asked = () if method == "occlusion" else ("--map", method)
        done = run("classify", nrrd, "--boxes", boxes, "--model", model, *asked, "--out", out)
        assert done.code == 0, done.err
        pages[method] = (out / "report.html").read_text(encoding="utf-8")
        assert (out / "gradcam_1.nrrd").exists() == (method != "none")
    assert "Where the model looked for calcified (occlusion map)" in pages["occlusion"]
    assert note in pages["occlusion"]
    assert "Where the model looked for calcified (Grad-CAM)" in pages["grad_cam"]
    assert "Where the model looked" not in pages["none"]
    assert note not in pages["grad_cam"] + pages["none"]


def test_a_batch_has_a_column_a_score_and_the_sentence_of_every_lesion(run, nrrd, boxes, model, tmp_path):
    table = tmp_path / "cases.csv"
    table.write_text(f"name,volume,boxes\nc1,{nrrd},{boxes}\n")
    done = run("classify", "--batch", table, "--model", model, "--out", tmp_path / "batch")
    assert done.code == 0, done.err
    (row,) = csv.DictReader(io.StringIO((tmp_path / "batch" / "results.csv").read_text(encoding="utf-8")))
    assert row["sentence"].startswith("solid, box of ")
    assert {f"score_{entry['name']}" for entry in SCORES} <= set(row)
    assert 1 <= float(row["score_lobulation"]) <= 5
