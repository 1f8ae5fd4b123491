"""`lesionlens library build`: known cases in, one file without identifiers out."""

from __future__ import annotations

import os
import re
import shutil
import stat

import pytest
from LesionLensApp.loaded_model import ModelSession
from LesionLib.errors import BoxError
from LesionLib.io.leftovers import leftovers, leftovers_note
from LesionLib.model.bundle import load_bundle
from LesionRetrievalLib.library import intake as case_adding
from LesionRetrievalLib.library.store import CaseLibrary
from repository import FILES_OF_0_1


@pytest.fixture(autouse=True)
def asks_a_quick_model(monkeypatch):
    """What a build keeps and what it leaves is the same of every model; a small one embeds in no time."""
    monkeypatch.setenv("LESIONLENS_MODEL", str(FILES_OF_0_1 / "model"))


@pytest.fixture
def built(run, cases_folder, tmp_path):
    def build(*extra: object, folder=cases_folder):
        path = tmp_path / "cases.lesionlib"
        return path, run("library", "build", folder, "--out", path, "--key", tmp_path / "owner.key", *extra)

    return build


def test_every_case_is_there_with_its_answer_and_attributes(built, asks_malignancy):
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
    begun = ".cases.lesionlib.building"  # what is done so far, for the next time
    assert {p.name for p in tmp_path.iterdir()} <= {"cases.lesionlib", "owner.key", "config", begun}
    assert "3 of 6 cases are embedded and kept, the same command goes on" in ran.err


def test_a_file_that_is_no_library_is_never_overwritten(run, cases_folder, tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    ran = run(
        "library", "build", cases_folder, "--out", tmp_path / "thesis.txt", "--overwrite", "--key", tmp_path / "k"
    )
    assert ran.code == 2
    assert (tmp_path / "thesis.txt").read_text() == "precious"


def contents(path):
    """All that a library holds, and when and by whom nothing."""
    with CaseLibrary.open(path) as library:
        sha256 = library.model.sha256
        assert library.integrity_problems() == ()
        cases = {
            case.case_id: (
                case,
                library.vector(case.case_id, model_sha256=sha256).tobytes(),
                {plane: grey.tobytes() for plane, grey in library.thumbnails(case.case_id).items()},
                library.patch(case.case_id).volume.array.tobytes(),
            )
            for case in library.cases()
        }
        assert [c.case_id for c in library.changes()] == sorted(cases)
        return cases, library.properties(), library.models(), library.created()


@pytest.fixture
def embedded(monkeypatch):
    """The lesions that are embedded; the ``at``-th raises ``error``."""
    real, seen = ModelSession.embed_case, []
    seen_until = {}

    def embed(self, volume, box):
        seen.append(volume.name)
        if len(seen) == seen_until.get("at"):
            raise seen_until["error"]
        return real(self, volume, box)

    monkeypatch.setattr(ModelSession, "embed_case", embed)

    def until(at, error):
        seen.clear()
        seen_until.update(at=at, error=error)
        return seen

    return until


def test_a_build_goes_on_after_a_break_and_its_library_is_that_of_one_unbroken(built, embedded, cases_folder, tmp_path):
    options = ("--pictures", "--patches", "--keep", "diameter_mm", "--credit", "whoever")
    path, _ = built(*options)
    unbroken = contents(path)
    path.unlink()
    folder = shutil.copytree(cases_folder, tmp_path / "folder")
    seen = embedded(4, KeyboardInterrupt)
    assert built(*options, folder=folder)[1].code == 130
    assert not path.exists()
    seen = embedded(2, BoxError("an odd lesion"))
    _, ran = built(*options, folder=folder)
    assert ran.code == 2
    assert "3 of 6 cases are embedded already, by a build that was broken off; it goes on with the others" in " ".join(
        ran.err.split()
    )
    seen = embedded(0, None)
    assert built(*options, folder=folder)[1].code == 0
    assert len(seen) == 2
    assert contents(path) == unbroken
    assert not list(tmp_path.glob(".*"))


def test_what_has_changed_since_a_break_is_embedded_again(built, embedded, cases_folder, tmp_path):
    folder = shutil.copytree(cases_folder, tmp_path / "folder")
    embedded(6, KeyboardInterrupt)
    assert built("--patches", folder=folder)[1].code == 130
    table = folder / "nodules.csv"
    lines = table.read_text().splitlines()
    lines[2] = lines[2].replace(",0,solid", ",1,solid")  # another answer
    shutil.copy(folder / "image" / "p0.nii.gz", folder / "image" / "p2.nii.gz")  # the third is the first now
    shutil.copy(folder / "mask" / "p0.nii.gz", folder / "mask" / "p2.nii.gz")
    table.write_text("\n".join(lines) + "\n")
    seen = embedded(0, None)
    path, ran = built("--patches", folder=folder)
    assert ran.code == 0, ran.err
    assert len(seen) == 3
    assert "case-00003 was left out: it is the very lesion of case-00001" in ran.out
    resumed = contents(path)
    assert len(resumed[0]) == 5
    path.unlink()
    built("--patches", folder=folder)
    assert contents(path) == resumed


def test_another_model_or_plan_than_before_the_break_begins_anew(built, embedded):
    embedded(3, KeyboardInterrupt)
    assert built()[1].code == 130
    seen = embedded(0, None)
    assert built("--organ", "lung")[1].code == 0
    assert len(seen) == 6


def test_without_a_terminal_a_line_says_how_far_a_build_is_and_how_long_it_takes(built, monkeypatch):
    monkeypatch.setattr("LesionLensApp.output._SECONDS_BETWEEN_LINES", 0.0)
    _, ran = built()
    assert re.search(r"3 of 6, about \d+ s left", ran.err)


def test_what_is_left_of_a_build_is_said_to_be_gone_on_with(built, embedded, tmp_path, capsys):
    embedded(3, KeyboardInterrupt)
    path, _ = built()
    (left,) = tmp_path.glob(".*.building")
    os.utime(left, (0, 0))
    assert leftovers(path) == [left]
    assert "the same command goes on with it" in leftovers_note(left, path)
