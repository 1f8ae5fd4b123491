"""Folders of LIDC-IDRI nodules labelled by their readers: a library, a quiz and the demo by one command each."""

from __future__ import annotations

import shutil
from collections import Counter

import pytest
from LesionLib.io.reader_ratings import RATINGS
from LesionRetrievalLib.library.store import CaseLibrary
from LesionRetrievalLib.quiz.file import load_quiz

KINDS = {"calcified": (5, 3), "solid": (5, 6), "subsolid": (2, 6)}  # texture, calcification


@pytest.fixture(scope="module")
def rated(tmp_path_factory, cases_folder):
    """The six cases, two of each kind by their readers but for the last, on which they do not agree; the ratings beside them."""
    folder = tmp_path_factory.mktemp("rated")
    shutil.copytree(cases_folder, folder / "nodules")
    (folder / "lidc_readers").mkdir()
    lines = ["file,match,texture,calcification"]
    for number, kind in enumerate(("calcified", "calcified", "solid", "solid", "subsolid")):
        lines += [f"p{number}.nii.gz,yes,{KINDS[kind][0]},{KINDS[kind][1]}"] * 3
    lines += ["p5.nii.gz,yes,1,6", "p5.nii.gz,yes,5,6"]
    (folder / "lidc_readers" / RATINGS).write_text("\n".join(lines) + "\n")
    return folder / "nodules", folder / "lidc_readers"


def test_a_library_by_readers_holds_the_kinds_and_leaves_out_what_has_none(run, rated, tmp_path):
    out = tmp_path / "kinds.lesionlib"
    ran = run("library", "build", rated[0], "--readers", rated[1], "--credit", "LIDC-IDRI, CC BY 3.0", "--out", out)
    assert ran.code == 0, ran.err
    assert "1 rows were left out" in ran.out
    with CaseLibrary.open(out) as library:
        assert library.labels() == {"calcified": 2, "solid": 2, "subsolid": 1}
        assert library.model.name == "lung-nodule-kind"
        assert {case.label_source for case in library.cases()} == {"majority of the readers of LIDC-IDRI"}
        assert library.properties()["credit"] == "LIDC-IDRI, CC BY 3.0"


def test_a_quiz_by_readers_asks_for_the_kind_and_is_balanced(run, rated, tmp_path):
    out = tmp_path / "quiz.json"
    ran = run("quiz", "make", "--from", rated[0], "--readers", rated[1], "--cases", 3, "--seed", 1, "--out", out)
    assert ran.code == 0, ran.err
    quiz = load_quiz(out)
    assert Counter(case.known.label for case in quiz.cases) == {"calcified": 1, "solid": 1, "subsolid": 1}
    again = tmp_path / "again.json"
    run("quiz", "make", "--from", rated[0], "--readers", rated[1], "--cases", 3, "--seed", 1, "--out", again)
    assert again.read_bytes() == out.read_bytes()


def test_cases_with_too_few_slices_to_look_through_are_not_asked(run, rated, tmp_path):
    asked = ("quiz", "make", "--from", rated[0], "--readers", rated[1], "--cases", 3, "--out", tmp_path / "quiz.json")
    ran = run(*asked, "--min-slices", 99)
    assert (ran.code, "No case has 99 slices of CT; the most is 32" in ran.err) == (2, True), ran.err
    assert run(*asked, "--min-slices", 32).code == 0


def test_readers_of_other_nodules_are_refused(run, cases_folder, tmp_path):
    (tmp_path / RATINGS).write_text("file,match,texture,calcification\nelsewhere.nii.gz,yes,5,6\n")
    ran = run("library", "build", cases_folder, "--readers", tmp_path, "--out", tmp_path / "x.lesionlib")
    assert (ran.code, "holds no ratings of the files" in ran.err) == (2, True)


def test_the_column_malignant_means_benign_or_malignant_whatever_the_model_knows(run, cases_folder, tmp_path):
    out = tmp_path / "x.lesionlib"
    assert run("library", "build", cases_folder, "--out", out).code == 0
    with CaseLibrary.open(out) as library:
        assert library.labels() == {"benign": 3, "malignant": 3}
        assert library.model.name == "lung-nodule-kind"


def test_the_demo_runs_on_real_nodules_where_a_folder_is_named(run, rated, tmp_path, monkeypatch, result_of):
    monkeypatch.setenv("LESIONLENS_DATA", str(rated[0]))
    ran = run("demo", "--out", tmp_path / "out")
    assert ran.code == 0, ran.err
    content = result_of(tmp_path / "out")
    assert content["volume"] == "5 nodules of nodules"
    labels = Counter(result["name"].split()[1] for result in content["results"])
    assert labels == {"calcified": 2, "solid": 2, "subsolid": 1}
    assert all(len(result["otherModels"]) == 2 for result in content["results"])
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<figure>") >= 15
    assert "SECRET" not in page
    assert "computed phantom" not in page


def test_rows_without_an_answer_are_left_out_only_when_asked(run, cases_folder, tmp_path):
    folder = shutil.copytree(cases_folder, tmp_path / "cases")
    lines = (folder / "nodules.csv").read_text().splitlines()
    lines[2] = lines[2].removesuffix("solid")  # its texture is not known
    (folder / "nodules.csv").write_text("\n".join(lines) + "\n")
    asked = ("library", "build", folder, "--label-column", "texture", "--out", tmp_path / "x.lesionlib")
    ran = run(*asked)
    assert (ran.code, "texture is empty" in ran.err) == (2, True)
    ran = run(*asked, "--without-unlabelled")
    assert (ran.code, "1 rows were left out: they have no answer" in ran.out) == (0, True), ran.err


def test_the_pictures_of_a_library_are_drawn_in_the_window_that_is_asked_for(run, cases_folder, tmp_path):
    means = []
    for name, window in (("lung", ()), ("bone", ("--window", -500, 1500))):
        out = tmp_path / f"{name}.lesionlib"
        assert run("library", "build", cases_folder, "--pictures", *window, "--out", out).code == 0
        with CaseLibrary.open(out) as library:
            means.append(library.thumbnails("case-00001")["axial"].mean())
    assert means[1] < means[0] / 2
    ran = run("library", "build", cases_folder, "--window", 200, 100, "--out", tmp_path / "none.lesionlib")
    assert (ran.code, "give the lower value first" in ran.err) == (2, True)
