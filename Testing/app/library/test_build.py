"""`lesionlens library build`: known cases in, one file without identifiers out."""

from __future__ import annotations

import shutil
import stat

import pytest
from LesionLib.model.bundle import load_bundle
from LesionRetrievalLib.library import intake as case_adding
from LesionRetrievalLib.library.store import CaseLibrary

pytestmark = pytest.mark.usefixtures("asks_malignancy")


@pytest.fixture
def built(run, cases_folder, tmp_path):
    def build(*extra: object, folder=cases_folder):
        path = tmp_path / "cases.lesionlib"
        return path, run("library", "build", folder, "--out", path, "--key", tmp_path / "owner.key", *extra)

    return build


def test_every_case_is_there_with_its_answer_and_attributes(built):
    path, ran = built(
        "--organ", "lung", "--label-source", "how it was made", "--keep", "diameter_mm", "--keep", "texture"
    )
    assert ran.code == 0
    with CaseLibrary.open(path) as library:
        assert library.labels() == {"benign": 3, "malignant": 3}
        assert library.model.sha256 == load_bundle("lung-nodule-malignancy").sha256
        case = library.cases()[0]
        assert case.attributes == {"diameter_mm": 9.0, "texture": "solid"}
        assert (case.organ, case.label_source) == ("lung", "how it was made")
        assert library.thumbnails(case.case_id) == {}
        assert library.integrity_problems() == ()


def test_pictures_are_stored_only_when_asked_for(built):
    path, _ = built("--pictures")
    with CaseLibrary.open(path) as library:
        thumbnails = library.thumbnails("case-00001")
    assert set(thumbnails) == {"axial", "coronal", "sagittal"}
    assert thumbnails["axial"].max() > 200  # the nodule
    assert thumbnails["axial"][48, 48] > thumbnails["axial"][48, 20]


def test_no_patient_identifier_enters_the_file(built, tmp_path):
    path, ran = built("--pictures")
    assert b"SECRET" not in path.read_bytes()
    assert b"nii.gz" not in path.read_bytes()
    assert "SECRET" not in ran.out + ran.err
    assert stat.S_IMODE((tmp_path / "owner.key").stat().st_mode) == 0o600


def test_a_bad_row_is_named_with_its_line_and_leaves_nothing(built, cases_folder, tmp_path):
    folder = shutil.copytree(cases_folder, tmp_path / "broken")
    (folder / "mask" / "p3.nii.gz").unlink()
    path, ran = built(folder=folder)
    assert ran.code == 2
    assert "nodules.csv, line 5" in ran.err
    assert not path.exists()


def test_an_existing_library_is_replaced_only_when_asked(built):
    path, _ = built()
    before = path.read_bytes()
    _, ran = built()
    assert ran.code == 2
    assert "--overwrite" in ran.err
    assert path.read_bytes() == before
    assert built("--overwrite")[1].code == 0


def test_a_build_that_is_broken_off_leaves_the_old_library(built, monkeypatch, tmp_path):
    path, _ = built()
    before = path.read_bytes()
    real, calls = case_adding.case_thumbnails, []

    def broken(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(case_adding, "case_thumbnails", broken)
    _, ran = built("--overwrite", "--pictures")
    assert ran.code == 130
    assert path.read_bytes() == before
    assert {p.name for p in tmp_path.iterdir()} <= {"cases.lesionlib", "owner.key", "config"}


def test_a_file_that_is_no_library_is_never_overwritten(run, cases_folder, tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    ran = run(
        "library", "build", cases_folder, "--out", tmp_path / "thesis.txt", "--overwrite", "--key", tmp_path / "k"
    )
    assert ran.code == 2
    assert (tmp_path / "thesis.txt").read_text() == "precious"
