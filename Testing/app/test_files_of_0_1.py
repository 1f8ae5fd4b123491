"""What version 0.1 left on people's disks opens, with the values that were written: see `Testing/fixtures/README.md`."""

from __future__ import annotations

import csv
import io
import json
import shutil

import numpy as np
import pytest
from LesionLib.inference.classifier import Classifier
from LesionLib.model.bundle import load_bundle
from LesionLib.model.folder import golden_case
from LesionRetrievalLib.library.feedback import FeedbackLog, Query
from LesionRetrievalLib.library.store import CaseLibrary
from LesionRetrievalLib.quiz.attempt import Step
from LesionRetrievalLib.quiz.file import load_quiz, quiz_sha256
from LesionRetrievalLib.quiz.session import QuizSession
from repository import FILES_OF_0_1 as FILES

MODEL_SHA256 = "5602ff71ae6ecfea9c82568de299962299464df9da49ab91eedb5d8b5b039050"
QUIZ_SHA256 = "969f182ffad85fdd37657f3855377676e875a94908d941b7df8e802c2b97759e"


# --- the case library


def test_a_library_of_0_1_has_its_cases_pictures_patches_and_vectors():
    with CaseLibrary.open(FILES / "cases.lesionlib") as library:
        assert [(c.case_id, c.label, c.label_source, c.organ) for c in library.cases()] == [
            ("case-00001", "bright", "a formula", "lung"),
            ("case-00002", "hollow", "a formula", "lung"),
            ("case-00003", "bright", "a formula", "lung"),
        ]
        case = library.case("case-00002")
        assert case.attributes == {"diameter_mm": 8.0, "texture": "solid"}
        assert case.patient_hash == "c9f05f8141096e6ca61bdc6268440f9a"
        assert case.study_hash == "32f56c752f9a1922344c1b95a8fc5884"
        assert (library.model.name, library.model.version, library.model.sha256) == ("tiny", "0.1.0", MODEL_SHA256)
        thumbnails = library.thumbnails("case-00002")
        assert {name: (p.shape, int(p.sum())) for name, p in thumbnails.items()} == {
            "axial": ((96, 96), 788705),
            "coronal": ((96, 96), 770168),
            "sagittal": ((96, 96), 772442),
        }
        patch = library.patch("case-00002")
        assert (patch.volume.array.shape, int(patch.volume.array.sum())) == ((16, 32, 32), -13634964)
        np.testing.assert_allclose(patch.volume.ijkToRAS[:3, 3], [15.5, 15.5, -15.0])
        np.testing.assert_allclose(patch.box.sizeMm, [10, 10, 12])
        assert int(patch.box.segment.array.sum()) == 600
        vector = library.vector("case-00001", model_sha256=MODEL_SHA256)
        assert vector.shape == (32,)
        np.testing.assert_allclose(vector[:4], [0.09933041, 0.0, 0.02374225, 0.35290998], atol=1e-6)


def test_a_library_of_0_1_is_sound_and_answers_a_search(run):
    assert run("library", "verify", FILES / "cases.lesionlib").code == 0
    ran = run("library", "search", FILES / "cases.lesionlib", "--case", "case-00002", "--json")
    assert ran.code == 0, ran.err
    assert ran.out.index("case-00001") < ran.out.index("case-00003")


def test_a_library_of_0_1_can_be_changed(tmp_path):
    path = shutil.copy(FILES / "cases.lesionlib", tmp_path)
    with CaseLibrary.open(path, read_only=False) as library:
        library.remove("case-00003")
    with CaseLibrary.open(path) as library:
        assert [case.case_id for case in library.cases()] == ["case-00001", "case-00002"]


def test_feedback_of_0_1_lies_beside_its_library_and_counts(tmp_path):
    log = FeedbackLog(FILES / "cases.lesionlib", own_folder=tmp_path)
    assert log.marked(Query("0123456789abcdef" * 2, MODEL_SHA256, "cases.lesionlib")) == {"case-00002"}


# --- the quiz


def test_a_quiz_of_0_1_has_its_cases_and_answers_and_its_own_fingerprint():
    quiz = load_quiz(FILES / "quiz.json")
    assert quiz_sha256(quiz) == QUIZ_SHA256  # what logs of answers name
    assert (quiz.title, quiz.instructions, quiz.boxes) == ("Phantoms", "Computed nodules.", "placed")
    assert (quiz.window_hu, quiz.model) == ((-1350.0, 150.0), ("tiny", "0.1.0", MODEL_SHA256))
    assert quiz.class_names == ("bright", "hollow")
    first, second = quiz.cases
    assert (first.case_id, first.known.label, second.case_id, second.known.label) == (
        "case-01", "bright", "case-02", "hollow",
    )  # fmt: skip
    assert second.known.attributes == {"diameter_mm": 8.0, "texture": "solid"}
    assert (second.volume.array.shape, int(second.volume.array.sum())) == ((12, 20, 20), -4022560)
    np.testing.assert_allclose(second.box.sizeMm, [10, 10, 12])
    answer = second.prediction
    assert answer.label == "bright"
    assert answer.probabilities == pytest.approx({"bright": 0.529265, "hollow": 0.470735}, abs=1e-6)
    np.testing.assert_allclose(answer.reliability.spread.maximum, [0.51856899, 0.48385143], atol=1e-6)
    assert answer.warnings[0].startswith("The box is 10.0 x 10.0 x 12.0 mm;")
    assert answer.heat_map.array.shape == (7, 16, 16)
    assert [(near.case_id, near.label) for near in answer.similar] == [
        ("case-00001", "bright"), ("case-00003", "bright"),
    ]  # fmt: skip
    assert answer.similar[0].similarity == pytest.approx(0.983875, abs=1e-6)
    assert answer.similar[0].thumbnails["axial"].shape == (96, 96)


def test_answers_of_a_learner_give_the_score_that_0_1_wrote(run, tmp_path):
    ran = run("quiz", "score", FILES / "quiz.json", FILES / "answers", "--out", tmp_path / "score")
    assert ran.code == 0, ran.err
    assert "1 learners, 2 answered cases" in ran.out  # the other one has begun only
    then, now = ((p / "score.csv").read_text() for p in (FILES, tmp_path / "score"))
    columns, *rows = csv.reader(io.StringIO(then))
    found = list(csv.DictReader(io.StringIO(now)))
    assert [[row[column] for column in columns] for row in found] == rows


def test_a_learner_who_stopped_in_0_1_goes_on_at_the_same_step(tmp_path):
    shutil.copytree(FILES / "answers", tmp_path / "answers")
    session = QuizSession.open(load_quiz(FILES / "quiz.json"), tmp_path / "answers", learner="L2", clock=lambda: 0.0)
    assert (session.step, session.position, session.attempt.record.case_id) == (Step.BOX, 1, "case-02")
    session.place_box(session.teacher_box if session.box is not None else session.quiz.case("case-02").box)
    session.answer("hollow", 0.8)
    assert session.step is Step.REVEAL


# --- model folders


@pytest.mark.parametrize("name", ["model", "model-without-classes", "model-with-svm"])
def test_a_model_of_0_1_answers_the_golden_case_as_it_did(name):
    bundle = load_bundle(FILES / name)
    then = json.loads((FILES / "answers_of_golden_case.json").read_text())[name]
    assert bundle.sha256 == then["sha256"]
    volume, box = golden_case()
    classifier = Classifier(bundle, volume)
    np.testing.assert_allclose(classifier.embed(box)[:8], then["embedding"], atol=1e-5)
    assert bool(bundle.class_names) == ("probabilities" in then)
    if bundle.class_names:
        assert classifier.classify(box).probabilities == pytest.approx(then["probabilities"], abs=1e-5)


# --- results of `classify`


@pytest.fixture(scope="module")
def classified_now(tmp_path_factory, write_image):
    """The command that wrote the files, with today's code."""
    from LesionLensApp.cli import main

    folder = tmp_path_factory.mktemp("classified")
    volume, _ = golden_case()
    ct = write_image(folder / "golden.nrrd", volume.array, volume.ijkToRAS)
    arguments = (
        "classify", ct, "--boxes", FILES / "boxes.csv", "--model", FILES / "model", "--library", FILES / "cases.lesionlib",
        "--key", folder / "key", "--similar", 2, "--redrawn", 2, "--name", "golden", "--out", folder / "out",
        # 0.1 named a class for every box; today this one, outside the model's sizes, would have no answer.
        "--answer-anyway",
    )  # fmt: skip
    from LesionRetrievalLib.library.pseudonyms import Pseudonymiser

    Pseudonymiser.create(folder / "key")
    assert main([str(argument) for argument in arguments]) == 0
    return folder / "out"


def same(then, now, where=""):
    """All that was there is there, numbers equal to 1e-3; keys may have come."""
    if isinstance(then, dict):
        assert then.keys() <= now.keys(), where
        for key in then:
            same(then[key], now[key], f"{where}/{key}")
    elif isinstance(then, list):
        assert len(then) == len(now), where
        for number, pair in enumerate(zip(then, now, strict=True)):
            same(*pair, f"{where}/{number}")
    elif isinstance(then, float):
        assert now == pytest.approx(then, abs=1e-3), where
    elif not where.endswith(("/software", "/device")):
        assert now == then, where


def test_results_json_says_under_the_keys_of_0_1_what_it_said(classified_now):
    then, now = (json.loads((p / "results.json").read_text()) for p in (FILES, classified_now))
    assert [one["name"] for one in then["results"]] == ["L1", "L2"]
    assert then["results"][0]["probabilities"]["bright"] == pytest.approx(0.536519)
    same(then, now)


def test_results_csv_has_the_columns_of_0_1_in_their_order(classified_now):
    then, now = (list(csv.reader(io.StringIO((p / "results.csv").read_text()))) for p in (FILES, classified_now))
    old, new = then[0], now[0]
    assert [name for name in new if name in old] == old
    for before, after in zip(then[1:], now[1:], strict=True):
        values = dict(zip(new, after, strict=True))
        for name, value in zip(old, before, strict=True):
            if name in ("device", "software"):
                continue
            try:
                assert float(values[name]) == pytest.approx(float(value), abs=1e-3), name
            except ValueError:
                assert values[name] == value, name
