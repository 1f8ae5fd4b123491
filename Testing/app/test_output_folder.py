"""Results appear whole or not at all."""

from __future__ import annotations

import pytest
from LesionLensApp.output import staged_output
from LesionLib.errors import OutputError


def test_what_was_written_is_moved_in_at_the_end(tmp_path):
    with staged_output(tmp_path / "a" / "out") as folder:
        (folder / "results.json").write_text("{}")
        assert not (tmp_path / "a" / "out").exists()
    assert (tmp_path / "a" / "out" / "results.json").read_text() == "{}"
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["out"]


def test_a_failure_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), staged_output(tmp_path / "out") as folder:
        (folder / "results.json").write_text("{}")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_earlier_results_as_they_were(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "results.json").write_text("old")
    with pytest.raises(KeyboardInterrupt), staged_output(tmp_path / "out", overwrite=True) as folder:
        (folder / "results.json").write_text("new")
        raise KeyboardInterrupt
    assert (tmp_path / "out" / "results.json").read_text() == "old"


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "out").write_text("x")
    with pytest.raises(OutputError, match="is a file"), staged_output(tmp_path / "out", overwrite=True):
        pass


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot be written"), staged_output(tmp_path / "file" / "out"):
        pass
