"""Practice without any data: a library and a quiz of computed nodules, made once on this computer and kept."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from kind_runner import KINDS, KindRunner
from LesionLib.errors import CaseLibraryError
from LesionLib.inference.messages import RunnerCancelled
from LesionRetrievalLib.library.cases import CREDIT_PROPERTY
from LesionRetrievalLib.library.phantoms import phantom_nodule
from LesionRetrievalLib.library.store import CaseLibrary
from LesionRetrievalLib.practice import (
    LIBRARY_CASES,
    QUIZ_CASES,
    make_practice_library,
    make_practice_quiz,
    practice_files,
)
from LesionRetrievalLib.quiz.file import load_quiz
from LesionRetrievalLib.quiz.session import QuizSession


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Both, made at one go: the files, and what the progress said."""
    folder = tmp_path_factory.mktemp("practice")
    files, told = practice_files(folder / "practice"), []
    total = files.total
    make_practice_quiz(files, KindRunner(), key_path=folder / "key", progress=lambda *at: told.append(at))
    return files, told, total


def test_the_files_are_named_after_the_model_and_its_version_and_lie_with_the_user_s_data(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    files = practice_files()
    assert files.library.parent == tmp_path / "lesionlens" / "practice"
    assert files.library.name.startswith("practice-lung-nodule-kind-1.")


def test_the_library_holds_as_many_of_each_kind_and_says_that_no_patient_is_in_it(made):
    with CaseLibrary.open(made[0].library) as library:
        assert library.labels() == dict.fromkeys(KINDS, LIBRARY_CASES // 3)
        assert all({"patch", "pictures"} <= set(held) for held in library.contents().values())
        assert "no patient" in library.properties()[CREDIT_PROPERTY]
        sizes = {
            kind: sorted(c.attributes["diameter_mm"] for c in library.cases() if c.label == kind) for kind in KINDS
        }
    assert sizes["calcified"] == sizes["solid"] == sizes["subsolid"]  # size tells nothing


def test_the_quiz_holds_as_many_of_each_kind_each_with_similar_cases(made):
    quiz = load_quiz(made[0].quiz)
    assert Counter(case.known.label for case in quiz.cases) == dict.fromkeys(KINDS, QUIZ_CASES // 3)
    assert tuple(quiz.class_names) == KINDS
    assert all(len(case.prediction.similar) == 9 for case in quiz.cases)
    assert all(case.prediction.similar[0].thumbnails for case in quiz.cases)
    assert "computed" in quiz.instructions


def test_the_quiz_can_be_taken(made):
    session = QuizSession.open(load_quiz(made[0].quiz), made[0].answers, learner="L1")
    session.finish_looking()
    session.take_box()
    session.answer("solid", 0.7)
    assert session.model_prediction.label in KINDS


def test_the_progress_counts_library_and_quiz_together(made):
    _, told, total = made
    assert total == LIBRARY_CASES + QUIZ_CASES
    assert told[0] == (0, total)
    assert told[-1] == (total, total)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_what_is_there_is_taken_and_no_model_asked(made, tmp_path):
    runner = KindRunner()
    assert make_practice_quiz(made[0], runner) == made[0].quiz
    assert make_practice_library(made[0], runner) == made[0].library
    assert runner.asked == 0
    assert made[0].total == QUIZ_CASES


def test_a_progress_that_stops_leaves_nothing(tmp_path):
    files = practice_files(tmp_path / "practice")

    def stop(done: int, _of: int) -> None:
        if done == 3:
            msg = "enough."
            raise RunnerCancelled(msg)

    with pytest.raises(RunnerCancelled):
        make_practice_library(files, KindRunner(), key_path=tmp_path / "key", progress=stop)
    assert [path for path in files.library.parent.iterdir() if "lesionlib" in path.name and path.is_file()] == []


def test_a_damaged_library_is_named_and_not_replaced(tmp_path):
    files = practice_files(tmp_path)
    files.library.write_text("no library")
    with pytest.raises(CaseLibraryError, match=files.library.name):
        make_practice_library(files, KindRunner(), key_path=tmp_path / "key")
    assert files.library.read_text() == "no library"


def test_a_computed_nodule_is_the_same_for_the_same_seed():
    one, again = (phantom_nodule(shape="granuloma", diameter_mm=8.0, seed=3) for _ in range(2))
    assert np.array_equal(one[0].array, again[0].array)
    assert one[0].array.max() > 600
