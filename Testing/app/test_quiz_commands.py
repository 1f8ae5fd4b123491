"""`lesionlens quiz make | score`: from cases to a file for a class, and from its answers to a page."""

from __future__ import annotations

import csv
import io
import json
import re
from xml.etree import ElementTree

import pytest
from LesionLensApp.web.viewer import niivue_script
from LesionLib.geometry import LesionBox
from LesionLib.phantom.nodules import nodule_patch
from LesionRetrievalLib.quiz.attempt import Step
from LesionRetrievalLib.quiz.file import load_quiz
from LesionRetrievalLib.quiz.session import QuizSession
from repository import ROOT

pytestmark = pytest.mark.usefixtures("asks_malignancy")

TITLE = "Nodules <b>& more</b>"

KEPT = ("--keep", "diameter_mm", "--keep", "texture")


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("quiz")


@pytest.fixture
def quiz_path(run, out):
    """A quiz of four phantoms, made once."""
    path = out / "quiz.json"
    if not path.exists():
        # Some phantoms are unlike what the model learned from; here every case is to have something to reveal.
        options = ("--boxes", "free", "--answer-anyway")
        ran = run("quiz", "make", "--phantom", "--cases", 4, "--title", TITLE, *options, "--out", path)
        assert ran.code == 0, ran.err
        assert "4 cases" in ran.out
    return path


def learn(quiz, folder, learner, *, cases=99, confidence=0.8):
    """Answer the first class, then what the model says; the box moved by half of it."""
    session = QuizSession.open(quiz, folder, learner=learner, clock=iter(range(10_000)).__next__)
    while session.step is not Step.DONE and session.position <= cases:
        session.finish_looking()
        session.take_box()
        session.answer(quiz.class_names[0], confidence)
        said = session.model_prediction.label
        session.finish_reveal()
        session.answer(said, confidence)
        session.next_case()


def sheet(folder):
    return list(csv.DictReader(io.StringIO((folder / "score.csv").read_text())))


def test_the_quiz_holds_all_that_a_classroom_needs(quiz_path):
    quiz = load_quiz(quiz_path)
    assert (quiz.title, quiz.boxes, len(quiz.cases)) == (TITLE, "free", 4)
    assert "computed" in quiz.instructions
    assert sorted(case.known.label for case in quiz.cases) == ["benign", "benign", "malignant", "malignant"]
    for case in quiz.cases:
        assert sum(case.prediction.probabilities.values()) == pytest.approx(1, abs=1e-6)
        assert case.prediction.heat_map.array.max() == pytest.approx(1)
        assert case.prediction.reliability.prediction_set
        assert -1100 < case.volume.array.min() < -700


def test_the_class_gets_a_sheet_and_a_page(run, quiz_path, tmp_path):
    quiz = load_quiz(quiz_path)
    learn(quiz, tmp_path / "answers", "L1")
    learn(quiz, tmp_path / "answers", "L2", cases=2, confidence=0.55)
    ran = run("quiz", "score", quiz_path, tmp_path / "answers", "--out", tmp_path / "score")
    assert ran.code == 0, ran.err
    rows = sheet(tmp_path / "score")
    assert [row["learner"] for row in rows] == ["L1"] * 4 + ["L2"] * 2
    assert sum(int(row["first_right"]) for row in rows[:4]) == 2
    assert all(row["agreed_after"] == "1" for row in rows)
    assert "n = 6" in ran.out
    page = (tmp_path / "score" / "summary.html").read_text()
    assert "L2 (2 left)" in page
    assert {p.name for p in (tmp_path / "score").iterdir()} == {"score.csv", "summary.html"}


def test_the_page_fetches_nothing_runs_nothing_and_says_its_notice(run, quiz_path, tmp_path):
    learn(load_quiz(quiz_path), tmp_path / "answers", "L1")
    run("quiz", "score", quiz_path, tmp_path / "answers", "--out", tmp_path / "score")
    page = (tmp_path / "score" / "summary.html").read_text()
    assert "<script" not in page
    assert not re.search(r"https?:|@import|url\(", page)
    assert all(where.startswith("data:image/png") for where in re.findall(r'(?:src|href)="([^"]*)', page))
    assert "Research use only, not for diagnosis." in page
    assert "<b>&amp; more" not in page
    assert "&lt;b&gt;&amp; more&lt;/b&gt;" in page
    charts = re.findall(r"<svg.*?</svg>", page, flags=re.S)
    assert len(charts) == 5
    for chart in charts:
        ElementTree.fromstring(chart)  # well-formed


def test_figures_on_the_page_are_those_of_the_sheet(run, quiz_path, tmp_path):
    learn(load_quiz(quiz_path), tmp_path / "answers", "L1")
    run("quiz", "score", quiz_path, tmp_path / "answers", "--out", tmp_path / "score")
    rows = sheet(tmp_path / "score")
    page = (tmp_path / "score" / "summary.html").read_text()
    for column in ("first_right", "second_right", "ai_right"):
        assert f"<span>{sum(int(row[column]) for row in rows)} of 4; 95% interval" in page


def test_a_phantom_unlike_what_the_model_learned_from_has_no_answer_in_a_quiz(run, tmp_path):
    assert run("quiz", "make", "--phantom", "--cases", 4, "--out", tmp_path / "quiz.json").code == 0
    for case in load_quiz(tmp_path / "quiz.json").cases:
        is_unlike = any("looks unlike those it learned from" in text for text in case.prediction.warnings)
        assert (case.prediction.label == "") == (case.prediction.heat_map is None) == is_unlike


def test_a_class_that_has_not_begun_has_an_empty_sheet_and_no_page(run, quiz_path, tmp_path):
    QuizSession.open(load_quiz(quiz_path), tmp_path / "answers", learner="L1")
    ran = run("quiz", "score", quiz_path, tmp_path / "answers", "--out", tmp_path / "score")
    assert (ran.code, "Nobody of 1" in ran.out) == (0, True)
    assert [p.name for p in (tmp_path / "score").iterdir()] == ["score.csv"]


def test_an_earlier_score_is_replaced_only_when_asked_and_other_files_stay(run, quiz_path, tmp_path):
    learn(load_quiz(quiz_path), tmp_path / "answers", "L1")
    arguments = ("quiz", "score", quiz_path, tmp_path / "answers", "--out", tmp_path / "score")
    assert run(*arguments).code == 0
    (tmp_path / "score" / "notes.txt").write_text("mine")
    ran = run(*arguments)
    assert (ran.code, "--overwrite" in ran.err) == (2, True)
    assert run(*arguments, "--overwrite").code == 0
    assert (tmp_path / "score" / "notes.txt").read_text() == "mine"


def test_answers_beside_another_quiz_are_refused_in_one_line(run, quiz_path, tmp_path):
    learn(load_quiz(quiz_path), tmp_path / "answers", "L1")
    content = json.loads(quiz_path.read_text())
    content["title"] = "Another"
    (tmp_path / "other.json").write_text(json.dumps(content))
    ran = run("quiz", "score", tmp_path / "other.json", tmp_path / "answers", "--out", tmp_path / "score")
    assert (ran.code, ran.err.count("\n"), "another quiz" in ran.err) == (2, 1, True)
    assert not (tmp_path / "score").exists()


# --- from a folder, with a library


@pytest.fixture
def from_folder(run, cases_folder, tmp_path):
    def make(*extra: object):
        path = tmp_path / "q.json"
        return path, run("quiz", "make", "--from", cases_folder, "--cases", 4, "--out", path, *KEPT, *extra)

    return make


@pytest.fixture(scope="module")
def library(built_library):
    return built_library("--pictures") / "cases.lesionlib"


def test_a_folder_of_cases_becomes_a_quiz_without_identifiers(from_folder):
    path, ran = from_folder("--label-source", "how it was made", "--organ", "lung")
    assert ran.code == 0, ran.err
    text = path.read_text()
    assert "SECRET" not in text
    assert "nii.gz" not in text
    assert "luna16" not in text
    case = load_quiz(path).cases[0]
    assert (case.known.label_source, case.known.organ) == ("how it was made", "lung")
    assert case.known.attributes["texture"] == "solid"


def test_a_patient_s_own_cases_are_not_among_the_similar_ones(from_folder, library, tmp_path):
    """Three patients with two nodules each: four of the six library cases are left for every case."""
    path, ran = from_folder("--library", library, "--key", library.with_name("owner.key"))
    assert ran.code == 0, ran.err
    for case in load_quiz(path).cases:
        assert len(case.prediction.similar) == 4
        assert set(case.prediction.similar[0].thumbnails) == {"axial", "coronal", "sagittal"}


def test_without_the_key_a_library_is_only_used_for_other_patients(from_folder, library):
    path, ran = from_folder("--library", library)
    assert (ran.code, "--other-patients" in ran.err) == (2, True)
    assert not path.exists()
    path, ran = from_folder("--library", library, "--other-patients")
    assert ran.code == 0
    assert all(len(case.prediction.similar) == 5 for case in load_quiz(path).cases)  # the very lesion is left out


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        (("--cases", 0), "--cases is 0"),
        (("--cases", 7), "there are 6"),
        (("--seed", -1), "--seed is -1"),
        (("--margin-mm", -1), "margin"),
        (("--window", 100, -100), "window"),
        (("--label-column", "diagnosis"), "diagnosis"),
        (("--label-column", "texture"), "'solid' is no class"),
        (("--title", ""), "title"),
    ],
)
def test_bad_options_are_refused_in_one_line_and_leave_nothing(from_folder, extra, reason):
    path, ran = from_folder(*extra)
    assert ran.code == 2
    assert reason in ran.err
    assert ran.err.strip().splitlines()[-1].startswith("lesionlens: error:")
    assert not path.exists()


def test_an_existing_quiz_is_replaced_only_when_asked(from_folder):
    path, _ = from_folder("--cases", 2)
    before = path.read_bytes()
    assert from_folder("--cases", 2, "--seed", 5)[1].code == 2
    assert path.read_bytes() == before
    assert from_folder("--cases", 2, "--seed", 5, "--overwrite")[1].code == 0
    assert path.read_bytes() != before


# --- from a library alone


@pytest.fixture(scope="module")
def with_patches(built_library):
    return built_library("--pictures", "--patches", *KEPT) / "cases.lesionlib"


def test_a_library_that_keeps_the_ct_is_enough_for_a_quiz_and_gives_the_same_answers(
    run, from_folder, with_patches, tmp_path
):
    out = tmp_path / "own.json"
    ran = run("quiz", "make", "--library", with_patches, "--cases", 6, "--out", out)
    assert ran.code == 0, ran.err
    quiz = load_quiz(out)
    assert sorted(case.known.label for case in quiz.cases) == ["benign"] * 3 + ["malignant"] * 3
    assert all(len(case.prediction.similar) == 4 for case in quiz.cases)  # without its patient's two, and without a key
    path, ran = from_folder("--cases", 6)
    assert ran.code == 0
    said = {case.known.attributes["diameter_mm"]: case.prediction.probabilities for case in load_quiz(path).cases}
    for case in quiz.cases:
        assert case.prediction.probabilities == pytest.approx(said[case.known.attributes["diameter_mm"]], abs=1e-4)


def test_the_cases_of_a_library_can_be_named(run, with_patches, tmp_path):
    out = tmp_path / "own.json"
    ran = run("quiz", "make", "--library", with_patches, "--case", "case-00004", "--case", "case-00001", "--out", out)
    assert ran.code == 0, ran.err
    assert [case.known.attributes["diameter_mm"] for case in load_quiz(out).cases] == [12.0, 9.0]
    ran = run("quiz", "make", "--library", with_patches, "--case", "case-00099", "--out", tmp_path / "none.json")
    assert (ran.code, "case-00099" in ran.err) == (2, True)


def test_a_library_without_the_ct_and_no_source_at_all_are_refused(run, library, tmp_path):
    ran = run("quiz", "make", "--library", library, "--cases", 2, "--out", tmp_path / "q.json")
    assert (ran.code, "no case with its CT" in ran.err) == (2, True)
    ran = run("quiz", "make", "--cases", 2, "--out", tmp_path / "q.json")
    assert (ran.code, "Where do the cases come from" in ran.err) == (2, True)


# --- whole CTs, learners' files, a teacher's own questions


@pytest.fixture
def ct_table(tmp_path, write_dicom, write_boxes):
    """Two DICOM folders of one lesion each, and the table that names them."""
    lines = ["name,volume,boxes,label,feedback,grade"]
    for number, (kind, label) in enumerate((("round", "benign"), ("spiculated", "malignant")), start=1):
        volume, nodule = nodule_patch(kind=kind, diameter_mm=12.0, seed=number, size_mm=60.0)
        write_dicom(tmp_path / f"ct{number}", volume, series=f"1.2.826.0.1.3680043.8.498.{number}")
        write_boxes(tmp_path / f"b{number}.csv", LesionBox(nodule.box.centerRAS, nodule.box.sizeMm, name="L1"))
        lines.append(f"c{number},ct{number},b{number}.csv,{label},Look at its margin.,G{number}")
    (tmp_path / "cases.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "cases.csv"


def test_whole_dicom_cts_become_a_quiz_without_identifiers(run, ct_table, tmp_path):
    out = tmp_path / "q.json"
    ran = run("quiz", "make", "--table", ct_table, "--cases", 2, "--keep", "grade", "--organ", "lung", "--out", out)
    assert ran.code == 0, ran.err
    assert "warning" not in ran.out
    quiz = load_quiz(out)
    assert sorted((case.known.label, case.known.feedback) for case in quiz.cases) == [
        ("benign", "Look at its margin."),
        ("malignant", "Look at its margin."),
    ]
    assert {case.known.attributes["grade"] for case in quiz.cases} == {"G1", "G2"}
    text = out.read_text()
    assert not [secret for secret in ("Doe^Jane", "HOSPITAL-4711", "3680043.8.498") if secret in text]


def test_a_case_with_fewer_than_eight_slices_is_warned_of(run, ct_table, tmp_path):
    out = tmp_path / "q.json"
    ran = run("quiz", "make", "--table", ct_table, "--cases", 2, "--margin-mm", 0, "--out", out)
    depth = min(min(case.volume.array.shape) for case in load_quiz(out).cases)
    assert ("fewer than 8 slices" in ran.out) == (depth < 8)
    ran = run("quiz", "make", "--table", _thin(ct_table, tmp_path), "--cases", 1, "--out", tmp_path / "thin.json")
    assert ran.code == 0, ran.err
    assert "warning: fewer than 8 slices to look through in case-01" in ran.out


def _thin(table, folder):
    """The table's first row, its CT cut to five slices."""
    for path in sorted((folder / "ct1").iterdir()):
        if not 22 <= int(path.stem.split("-")[1]) < 27:
            path.unlink()
    (folder / "thin.csv").write_text("\n".join(table.read_text().splitlines()[:2]) + "\n")
    return folder / "thin.csv"


def test_a_row_that_names_its_patient_or_no_class_or_no_lesion_is_refused(run, ct_table, tmp_path):
    text = ct_table.read_text()
    for change, reason in (
        (("Look at its margin.", "HOSPITAL-4711 had it"), "number or date of the patient"),
        (("benign", "cyst"), "'cyst'"),
        (("label,feedback,grade", "label,feedback,box"), "one lesion is needed"),
    ):
        ct_table.write_text(text.replace(*change))
        ran = run("quiz", "make", "--table", ct_table, "--cases", 2, "--out", tmp_path / "bad.json")
        assert (ran.code, reason in ran.err) == (2, True), ran.err
        assert not (tmp_path / "bad.json").exists()


def test_edit_seal_page_and_score_go_together(run, quiz_path, tmp_path):
    if not (ROOT / "node_modules" / "@niivue").is_dir():
        pytest.skip("NiiVue is not there: run npm ci.")
    teaching = {
        "questions": [{"id": "sure", "text": "Sure?", "kind": "single", "options": ["yes", "no"], "optional": True}]
    }
    (tmp_path / "t.json").write_text(json.dumps(teaching))
    teacher, learners, page = (tmp_path / name for name in ("teacher.json", "learners.json", "quiz.html"))
    for arguments in (
        ("edit", quiz_path, "--with", tmp_path / "t.json", "--out", teacher),
        ("seal", teacher, "--out", learners),
        ("page", teacher, "--out", page),
    ):
        ran = run("quiz", *arguments)
        assert ran.code == 0, ran.err
        again = run("quiz", *arguments)
        assert (again.code, "--overwrite" in again.err) == (2, True)
    learn(load_quiz(learners), tmp_path / "answers", "L1")
    ran = run("quiz", "score", learners, tmp_path / "answers", "--out", tmp_path / "score")
    assert (ran.code, "the one for learners" in ran.err) == (2, True)
    ran = run("quiz", "score", teacher, tmp_path / "answers", "--out", tmp_path / "score", "--moodle")
    assert ran.code == 0, ran.err
    assert {p.name for p in (tmp_path / "score").iterdir()} == {
        "score.csv",
        "summary.html",
        "questions.csv",
        "moodle.csv",
    }
    assert sheet(tmp_path / "score")[0]["learner"] == "L1"
    assert page.stat().st_size < 8e6


def test_without_the_viewer_a_page_is_refused_with_what_to_do(run, quiz_path, tmp_path, monkeypatch):
    monkeypatch.setattr("LesionLensApp.web.viewer._BUNDLED", tmp_path / "none.js")
    monkeypatch.setattr("LesionLensApp.web.viewer._LOCKED", tmp_path / "none.js")
    niivue_script.cache_clear()
    ran = run("quiz", "page", quiz_path, "--out", tmp_path / "quiz.html")
    niivue_script.cache_clear()
    assert (ran.code, "npm ci" in ran.err, ran.err.count("\n")) == (2, True, 1)
    assert not (tmp_path / "quiz.html").exists()
