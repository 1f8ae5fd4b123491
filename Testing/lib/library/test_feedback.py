"""Feedback on cases: kept, taken back, without whose lesion it was, and never lost to a folder that cannot be written."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from LesionLib.errors import OutputError
from LesionRetrievalLib.library.feedback import FeedbackLog, Query, query_fingerprint

QUERY = Query("f" * 32, "a" * 64, "cases.lesionlib")


@pytest.fixture
def log(tmp_path):
    return FeedbackLog(tmp_path / "cases.lesionlib", own_folder=tmp_path / "own")


def test_a_mark_is_a_line_beside_the_library_with_nothing_but_these_fields(log, tmp_path):
    path = log.mark(QUERY, "case-1")
    assert path == tmp_path / "cases.lesionlib.feedback.jsonl"
    entry = json.loads(path.read_text())
    assert set(entry) == {"date", "step", "verdict", "query", "case", "library", "modelSha256"}
    assert (entry["case"], entry["verdict"], entry["step"]) == ("case-1", "not similar", 1)
    assert len(entry["date"]) == len("2026-01-31")


def test_marks_are_of_one_query_and_one_model(log):
    log.mark(QUERY, "case-1")
    log.mark(Query("e" * 32, QUERY.model_sha256, QUERY.library), "case-2")
    log.mark(Query(QUERY.fingerprint, "b" * 64, QUERY.library), "case-3")
    assert log.marked(QUERY) == {"case-1"}


def test_what_is_taken_back_is_no_mark_any_more_and_can_be_made_again(log):
    log.mark(QUERY, "case-1")
    log.withdraw(QUERY, "case-1")
    assert log.marked(QUERY) == set()
    log.mark(QUERY, "case-1")
    assert log.marked(QUERY) == {"case-1"}
    assert len(log.paths[0].read_text().splitlines()) == 3


def test_where_the_library_s_folder_cannot_be_written_it_goes_to_the_user_s(tmp_path):
    blocked = tmp_path / "a file"
    blocked.write_text("")
    log = FeedbackLog(blocked / "cases.lesionlib", own_folder=tmp_path / "own")
    assert log.mark(QUERY, "case-1") == tmp_path / "own" / "cases.lesionlib.feedback.jsonl"
    assert log.marked(QUERY) == {"case-1"}


def test_where_nothing_can_be_written_both_places_are_named(tmp_path):
    blocked = tmp_path / "a file"
    blocked.write_text("")
    log = FeedbackLog(blocked / "cases.lesionlib", own_folder=blocked / "own")
    with pytest.raises(OutputError, match="neither"):
        log.mark(QUERY, "case-1")


def test_the_order_holds_across_both_files(tmp_path):
    blocked = tmp_path / "shared"
    blocked.write_text("")
    log = FeedbackLog(blocked / "cases.lesionlib", own_folder=tmp_path / "own")
    log.mark(QUERY, "case-1")
    blocked.unlink()
    log.withdraw(QUERY, "case-1")
    assert len(log.paths) == 2
    assert log.marked(QUERY) == set()


def test_damaged_lines_are_passed_over(log):
    path = log.mark(QUERY, "case-1")
    with path.open("ab") as file:
        file.write(b'{"half": \n[1]\n\xff\xfe\n' + b"[" * 5000 + b"\n")
    log.mark(QUERY, "case-2")
    assert log.marked(QUERY) == {"case-1", "case-2"}


def test_a_fingerprint_is_the_same_for_the_same_lesion_and_another_for_another():
    vector = np.random.default_rng(0).standard_normal(64).astype(np.float32)
    vector /= np.linalg.norm(vector)
    assert query_fingerprint(vector) == query_fingerprint(vector.astype(np.float64))
    assert query_fingerprint(vector) == query_fingerprint(np.where(vector == 0, -0.0, vector))
    assert query_fingerprint(vector) != query_fingerprint(np.roll(vector, 1))
    assert len(query_fingerprint(vector)) == 32
    assert os.sep not in query_fingerprint(vector)
