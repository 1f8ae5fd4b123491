"""A table of lesions becomes a case library that answers, and names nobody."""

from __future__ import annotations

import pytest
from lesion_tables import write_lesion_table
from LesionLib.model.bundle import load_bundle
from LesionRetrievalLib.library.store import CaseLibrary
from lesiontraining.cli import main


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return write_lesion_table(tmp_path_factory.mktemp("table"), patients=4)


@pytest.fixture
def index(table, tmp_path):
    def run(*more: str) -> int:
        options = ["--label", "kind", "--label-source", "computed", "--key", str(tmp_path / "owner.key")]
        model = ["--model", "lung-nodule-malignancy"]
        return main(["index", str(table), "--out", str(tmp_path / "cases.lesionlib"), *options, *model, *more])

    return run


def test_every_lesion_is_a_case_and_finds_itself(index, tmp_path, capsys):
    assert index("--patches") == 0
    assert "8 cases by lung-nodule-malignancy" in capsys.readouterr().out
    sha256 = load_bundle("lung-nodule-malignancy").sha256
    with CaseLibrary.open(tmp_path / "cases.lesionlib") as library:
        assert library.labels() == {"bright": 4, "hollow": 4}
        assert len({case.patient_hash for case in library.cases()}) == 4
        assert library.integrity_problems() == ()
        for case in library.cases():
            first, second = library.search(library.vector(case.case_id, model_sha256=sha256), k=2, model_sha256=sha256)
            assert first.case_id == case.case_id
            assert second.label == case.label
            assert library.patch(case.case_id) is not None


def test_the_library_holds_no_name(index, tmp_path):
    assert index("--pictures", "--patches") == 0
    content = (tmp_path / "cases.lesionlib").read_bytes()
    assert b"Secret" not in content
    assert b"1.2.840" not in content


def test_a_library_that_is_there_is_not_replaced(index, tmp_path, capsys):
    (tmp_path / "cases.lesionlib").write_text("mine")
    assert index() == 2
    assert "exists; give another name" in capsys.readouterr().err
    assert (tmp_path / "cases.lesionlib").read_text() == "mine"


def test_an_unknown_column_is_named(table, tmp_path, capsys):
    options = [
        "--label",
        "diagnosis",
        "--label-source",
        "x",
        "--key",
        str(tmp_path / "k"),
        "--model",
        "lung-nodule-malignancy",
    ]
    assert main(["index", str(table), "--out", str(tmp_path / "c"), *options]) == 2
    assert "diagnosis" in capsys.readouterr().err
