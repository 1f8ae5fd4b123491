"""The commands around a library's key, what is kept of a table, burned-in text, and foreign text on the terminal."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from LesionLensApp.cli import main
from LesionLib.terminal import printable
from LesionRetrievalLib.library.ownership import KEY_PROPERTY
from LesionRetrievalLib.library.pseudonyms import Pseudonymiser, default_key_path
from LesionRetrievalLib.library.store import CaseLibrary

pytestmark = pytest.mark.usefixtures("asks_malignancy")


@pytest.fixture(scope="module")
def built(tmp_path_factory, cases_folder):
    folder = tmp_path_factory.mktemp("built")
    arguments = ["library", "build", cases_folder, "--out", folder / "l", "--key", folder / "owner.key", "--patches"]
    arguments += ["--model", "lung-nodule-malignancy"]
    assert main([str(argument) for argument in arguments]) == 0
    return folder


@pytest.fixture
def library(built, tmp_path) -> Path:
    shutil.copy(built / "owner.key", tmp_path / "owner.key")
    return shutil.copy(built / "l", tmp_path / "cases.lesionlib")


@pytest.fixture
def key(library, tmp_path) -> Path:
    return tmp_path / "owner.key"


@pytest.fixture
def foreign(tmp_path) -> Path:
    Pseudonymiser.create(tmp_path / "foreign.key")
    return tmp_path / "foreign.key"


@pytest.fixture
def add(run, library, nrrd, boxes):
    def call(*extra: object):
        said = ("--label", "malignant", "--label-source", "histology", "--patient", "P7")
        return run("library", "add", library, nrrd, "--boxes", boxes, *said, *extra)

    return call


def one_line(text: str) -> str:
    return " ".join(text.split())


# --- the key


def test_a_foreign_key_adds_nothing_and_hears_what_to_do(add, library, foreign, tmp_path):
    before = library.read_bytes()
    ran = add("--key", foreign)
    assert ran.code == 2
    assert "hashed by another key" in ran.err
    assert "Give the library's own key by --key" in ran.err
    ran = add()  # no key anywhere: none is made, it would be a foreign one
    assert ran.code == 2
    assert "is not there, and this library knows its patients by a key" in ran.err
    assert not (tmp_path / "config").exists()
    assert library.read_bytes() == before


def test_a_foreign_key_searches_only_unnamed_and_then_it_is_said(run, library, foreign, nrrd, boxes):
    asked = ("library", "search", library, "--volume", nrrd, "--boxes", boxes, "--patient", "SECRET-1")
    ran = run(*asked, "--key", foreign)
    assert ran.code == 2
    assert "hashed by another key" in ran.err
    default_key_path().parent.mkdir(parents=True)
    shutil.copy(foreign, default_key_path())
    ran = run(*asked, "--json")
    (answer,) = json.loads(ran.out)
    assert answer["note"].startswith("Cases of the same patient may be among those found: the key here is not the one")
    assert {case["patient"] for case in answer["found"]} == {"not known"}
    ran = run(*asked, "--scope", "cross-patient")
    assert ran.code == 2
    assert "the key that the library was made with" in ran.err


def test_a_search_without_the_key_or_the_patient_says_what_may_be_found(run, library, key, nrrd, boxes, tmp_path):
    asked = ("library", "search", library, "--volume", nrrd, "--boxes", boxes)
    without = one_line(run(*asked).out)
    assert "Cases of the same patient may be among those found: there is no key here" in without
    assert "it is not known whose CT this is" in one_line(run(*asked, "--key", key).out)
    assert "may be among" not in run(*asked, "--key", key, "--patient", "secret-1 ").out
    ran = run("classify", nrrd, "--boxes", boxes, "--library", library, "--out", tmp_path / "results")
    assert "Cases of the same patient may be among those found" in one_line(ran.err)
    assert "Cases of the same patient may be among those found" in (tmp_path / "results" / "report.html").read_text()


def test_a_patient_is_the_same_however_the_identifier_is_typed(run, library, key, nrrd, boxes):
    asked = ("library", "search", library, "--volume", nrrd, "--boxes", boxes, "--key", key, "--json")
    found = [
        [(case["case_id"], case["patient"]) for case in json.loads(run(*asked, "--patient", typed).out)[0]["found"]]
        for typed in ("SECRET-1", " secret-1", "Secret\u00a0-1")
    ]
    assert found[0] == found[1] == found[2]
    assert [whose for _, whose in found[0]].count("the same") == 2


def test_the_key_command_tells_own_foreign_and_unknown_and_notes_the_last(run, library, key, foreign):
    assert "knows its patients by" in run("library", "key", library, "--key", key).out
    assert "by another key than" in run("library", "key", library, "--key", foreign).out
    assert run("library", "key", library, "--key", foreign, "--set").code == 2
    with CaseLibrary.open(library, read_only=False) as opened:
        opened._rows("DELETE FROM properties")
    ran = run("library", "key", library, "--key", key)
    assert (ran.code, "add --set" in ran.out) == (0, True)
    assert run("library", "key", library, "--key", key, "--set").code == 0
    with CaseLibrary.open(library) as opened:
        assert opened.properties() == {KEY_PROPERTY: Pseudonymiser.load(key).fingerprint}


def test_a_quiz_with_a_foreign_key_is_refused(run, library, foreign, cases_folder, tmp_path):
    ran = run(
        "quiz", "make", "--from", cases_folder, "--library", library, "--key", foreign, "--cases", 2,
        "--out", tmp_path / "quiz.json",
    )  # fmt: skip
    assert ran.code == 2
    assert "hashed by another key" in ran.err


# --- the same lesion twice


def test_the_same_lesion_is_added_once(add, run, library, key, nrrd, boxes):
    assert add("--key", key, "--case-id", "first").code == 0
    ran = add("--key", key, "--case-id", "second", "--label", "benign")
    assert ran.code == 2
    assert "in the library already, as case first (malignant), with another answer" in ran.err
    ran = run("library", "search", library, "--volume", nrrd, "--boxes", boxes, "--key", key, "--json")
    found = json.loads(ran.out)[0]["found"]
    assert (found[0]["case_id"], found[0]["mayBeTheLesion"]) == ("first", True)
    assert not any(case["mayBeTheLesion"] for case in found[1:])
    assert (
        "may be this very lesion"
        in one_line(run("library", "search", library, "--volume", nrrd, "--boxes", boxes, "--key", key).out).replace(
            "│", ""
        )
        or "may be" in ran.out
    )
    assert add("--key", key, "--case-id", "second", "--allow-duplicates").code == 0


def test_a_lesion_that_a_table_holds_twice_is_left_out_and_said(run, cases_folder, tmp_path):
    folder = shutil.copytree(cases_folder, tmp_path / "twice")
    for kind in ("image", "mask"):
        shutil.copy(folder / kind / "p1.nii.gz", folder / kind / "q1.nii.gz")
    with (folder / "nodules.csv").open("a") as file:
        file.write("q1.nii.gz,SECRET-9,0,10.0,0,solid\n")
    ran = run("library", "build", folder, "--out", tmp_path / "l", "--key", tmp_path / "k")
    assert ran.code == 0, ran.err
    assert "6 cases" in ran.out
    assert "case-00007 was left out: it is the very lesion of case-00002" in ran.out


# --- columns


def test_no_column_is_kept_unasked_and_the_others_are_named(run, cases_folder, tmp_path):
    build = ("library", "build", cases_folder, "--key", tmp_path / "k", "--out")
    ran = run(*build, tmp_path / "none")
    with CaseLibrary.open(tmp_path / "none") as library:
        assert {tuple(case.attributes) for case in library.cases()} == {()}
    assert "not kept (--keep COLUMN keeps one): file, patient_id, luna16_subset, diameter_mm, texture." in ran.out
    ran = run(*build, tmp_path / "one", "--keep", "texture")
    with CaseLibrary.open(tmp_path / "one") as library:
        assert library.cases()[0].attributes == {"texture": "solid"}
    assert "diameter_mm." in ran.out


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        ("patient_id", "tells whose a lesion is"),
        ("luna16_subset", "cannot be kept"),
        ("nothing", "no column 'nothing'"),
    ],
)
def test_a_column_that_names_somebody_or_is_not_there_is_not_kept(run, cases_folder, tmp_path, column, reason):
    ran = run("library", "build", cases_folder, "--out", tmp_path / "l", "--key", tmp_path / "k", "--keep", column)
    assert ran.code == 2
    assert reason in ran.err
    assert not (tmp_path / "l").exists()


def test_a_kept_value_that_is_an_identifier_of_its_row_is_refused_with_the_line(run, cases_folder, tmp_path):
    folder = shutil.copytree(cases_folder, tmp_path / "named")
    table = folder / "nodules.csv"
    table.write_text(table.read_text().replace("SECRET-1,1,11.0,1,solid", "SECRET-1,1,11.0,1,as in secret-1"))
    ran = run("library", "build", folder, "--out", tmp_path / "l", "--key", tmp_path / "k", "--keep", "texture")
    assert ran.code == 2
    assert "nodules.csv, line 4: The name or value of an attribute holds a name, number or date" in ran.err
    assert "secret-1" not in ran.err.lower()
    ran = run("quiz", "make", "--from", folder, "--cases", 6, "--out", tmp_path / "q.json", "--keep", "texture")
    assert ran.code == 2
    assert "nodules.csv, line 4" in ran.err


# --- burned-in text


def test_a_ct_with_burned_in_text_gives_no_pictures_unless_forced(
    add, run, library, key, patch, write_dicom, boxes, tmp_path
):
    folder = write_dicom(tmp_path / "ct", patch[0])
    last = sorted(folder.iterdir())[-1]
    data = pydicom.dcmread(last)
    data.BurnedInAnnotation = "YES"
    pydicom.dcmwrite(last, data)
    said = ("--boxes", boxes, "--label", "x", "--label-source", "histology", "--key", key)
    for kind in ("--pictures", "--patches"):
        ran = run("library", "add", library, folder, *said, kind)
        assert ran.code == 2
        assert "text is burned into its images (BurnedInAnnotation)" in ran.err
    assert run("library", "add", library, folder, *said, "--case-id", "bare").code == 0
    assert run("library", "remove", library, "bare", "--yes").code == 0
    assert run("library", "add", library, folder, *said, "--pictures", "--allow-burned-in").code == 0


# --- the terminal


def test_what_would_steer_a_terminal_is_shown_as_its_number():
    assert printable("a\x1b[31mb\x07\x9b\u202ec\n\td") == "a\\u001b[31mb\\u0007\\u009b\\u202ec\n\td"
    assert json.loads(printable(json.dumps({"a": "\x9b\u2028"}, ensure_ascii=False))) == {"a": "\x9b\u2028"}
    assert printable("Größe 5 · 7 mm, 結節") == "Größe 5 · 7 mm, 結節"


def test_foreign_text_cannot_steer_the_terminal(run, library):
    with CaseLibrary.open(library, read_only=False) as opened:
        evil = "\x1b]0;owned\x07\x1b[2J\u202e"
        opened._rows("UPDATE cases SET label = ?, note = ? WHERE case_id = 'case-00002'", (evil, evil))
        opened._rows("UPDATE models SET name = ?", (evil,))
    for command in (["list"], ["list", "--json"], ["verify"], ["search", "--case", "case-00001"]):
        ran = run("library", command[0], library, *command[1:])
        for text in (ran.out, ran.err):
            assert not set(text) & {"\x1b", "\x07", "\u202e", "\x9b"}, command


def test_commands_for_a_file_say_so_for_an_address(run, capsys):
    for command in (["export", "milvus://h/cases", "x"], ["reindex", "milvus://h/cases"]):
        with pytest.raises(SystemExit) as ended:
            run("library", *command)
        assert ended.value.code == 2
        assert "is on a server, and this works on a file" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["attributes = '[]'", "attributes = x'ff'", "label = x'ff'", "note = x'00'"])
def test_damaged_rows_are_one_line(run, library, damage):
    with CaseLibrary.open(library, read_only=False) as opened:
        opened._rows(f"UPDATE cases SET {damage} WHERE case_id = 'case-00002'")
    ran = run("library", "search", library, "--case", "case-00001")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "Case 'case-00002'" in ran.err


def test_a_damaged_picture_or_vector_is_one_line(run, library, nrrd, boxes, tmp_path):
    with CaseLibrary.open(library, read_only=False) as opened:
        opened._rows(
            "UPDATE vectors SET vector = ? WHERE case_id = 'case-00001'", (np.ones(3, "<f4").tobytes() + b"x",)
        )
    for command in (["--case", "case-00001"], ["--case", "case-00002"], ["--volume", nrrd, "--boxes", boxes]):
        ran = run("library", "search", library, *command)
        assert (ran.code, ran.err.count("\n") >= 1) == (2, True)
        assert "Case 'case-00001': its vector is damaged" in ran.err
