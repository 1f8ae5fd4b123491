"""`lesionlens library search | list | show | edit | remove | verify | export | reindex`."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from LesionLensApp.options import model_for
from LesionLib.model.bundle import load_bundle, manifest_sha256
from LesionLib.model.folder import DEFAULT_MODEL, MANIFEST, find_bundle
from LesionRetrievalLib.library.store import CaseLibrary
from repository import FILES_OF_0_1

pytestmark = pytest.mark.usefixtures("asks_malignancy")

MODEL = "lung-nodule-malignancy"


@pytest.fixture
def library(library_of):
    return library_of("--pictures", "--patches", "--keep", "diameter_mm,texture")


@pytest.fixture
def key(library):
    return library.with_name("owner.key")


def found(ran) -> list[list[str]]:
    assert ran.code == 0, ran.err
    return [[case["case_id"][-1] for case in answer["found"]] for answer in json.loads(ran.out)]


def test_a_case_of_the_library_is_compared_with_the_others(run, library):
    (all_others,) = found(run("library", "search", library, "--case", "case-00001", "--json"))
    assert sorted(all_others) == list("23456")
    assert found(run("library", "search", library, "--case", "case-00001", "--scope", "same-patient", "--json")) == [
        ["2"]
    ]
    (others,) = found(run("library", "search", library, "--case", "case-00001", "--scope", "cross-patient", "--json"))
    assert others == [case for case in all_others if case != "2"]
    (best,) = found(run("library", "search", library, "--case", "case-00001", "--similar", 2, "--json"))
    assert best == all_others[:2]


def test_filters_of_the_command_line_reach_the_search(run, library):
    def sorted_found(*extra):
        return sorted(found(run("library", "search", library, "--case", "case-00001", "--json", *extra))[0])

    assert sorted_found("--label", "benign") == list("246")
    assert sorted_found("--organ", "not stated") == list("23456")
    assert sorted_found("--attribute", "diameter_mm=10..12") == list("234")
    assert sorted_found("--attribute", "diameter_mm=..11", "--attribute", "texture=solid") == list("23")
    assert sorted_found("--exclude-study") == list("3456")


def test_the_table_says_who_is_the_same_patient(run, library):
    ran = run("library", "search", library, "--case", "case-00001")
    assert ran.code == 0
    assert ran.out.count("the same") == 1
    assert ran.out.count("another") == 4
    assert "Research use only" in ran.out


def test_lesions_of_a_ct_are_compared_with_the_library(run, library, key, nrrd, boxes):
    ran = run("library", "search", library, "--volume", nrrd, "--boxes", boxes, "--json")
    assert sorted(found(ran)[0]) == list("123456")
    assert {case["patient"] for case in json.loads(ran.out)[0]["found"]} == {"not known"}
    same = ("--patient", "SECRET-1", "--key", key)
    ran = run(
        "library", "search", library, "--volume", nrrd, "--boxes", boxes, *same, "--scope", "cross-patient", "--json"
    )
    assert sorted(found(ran)[0]) == list("1256")


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        ((), "Give either --case, or --volume"),
        (("--case", "case-00001", "--volume", "x"), "Give either --case, or --volume"),
        (("--case", "nobody"), "not in this library"),
        (("--case", "case-00001", "--attribute", "size"), "write name=value"),
        (("--case", "case-00001", "--attribute", "size=a..b"), "is no range"),
        (("--case", "case-00001", "--similar", "0"), "whole number"),
    ],
)
def test_a_search_that_cannot_be_made_says_why(run, library, extra, reason):
    ran = run("library", "search", library, *extra)
    assert ran.code == 2
    assert reason in ran.err
    assert ran.out == ""


def test_other_patients_can_only_be_told_with_patient_and_key(run, library, key, nrrd, boxes, tmp_path):
    asked = ("library", "search", library, "--volume", nrrd, "--boxes", boxes, "--scope", "cross-patient")
    assert "give --patient" in run(*asked, "--key", key).err
    assert "needs the key" in run(*asked, "--patient", "SECRET-1").err
    assert not (tmp_path / "config").exists()  # a new key would tell nobody from anybody


def test_the_list_shows_cases_models_and_what_is_stored(run, library, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    ran = run("library", "list", library)
    assert ran.code == 0
    assert "6 cases: 3 benign, 3 malignant" in ran.out
    assert "pictures, patch" in ran.out
    assert f"Embedded by {MODEL}" in ran.out
    listed = json.loads(run("library", "list", library, "--json").out)
    assert [case["case_id"] for case in listed["cases"]] == [f"case-{n:05}" for n in range(1, 7)]
    assert listed["models"][0]["sha256"] == load_bundle(MODEL).sha256
    assert listed["models"][0]["cases"] == 6


def test_the_list_begins_with_a_summary_and_shows_as_many_cases_as_asked(run, library, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    shown = run("library", "list", library, "--limit", 2).out
    assert shown.index("6 cases") < shown.index("case-00001") < shown.index("case-00002")
    assert "case-00003" not in shown
    assert "4 more: --limit 0 shows all" in shown
    assert "case-00006" in run("library", "list", library, "--limit", 0).out


def test_the_list_as_csv_has_a_column_an_attribute(run, library):
    rows = list(csv.DictReader(io.StringIO(run("library", "list", library, "--csv").out)))
    listed = json.loads(run("library", "list", library, "--json").out)["cases"]
    assert [row["case_id"] for row in rows] == [case["case_id"] for case in listed]
    assert [row["label"] for row in rows] == [case["label"] for case in listed]
    for row, case in zip(rows, listed, strict=True):
        assert {name: row[name] for name in case["attributes"]} == {n: str(v) for n, v in case["attributes"].items()}


def test_nothing_is_removed_without_a_yes(run, library, monkeypatch):
    ran = run("library", "remove", library, "case-00001")
    assert ran.code == 2
    assert "case-00001 (" in ran.err
    assert "--yes" in ran.err
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True, readline=lambda: "n\n"))
    monkeypatch.setattr("builtins.input", lambda: "n")
    assert "nothing was removed" in run("library", "remove", library, "case-00001").err
    monkeypatch.setattr("builtins.input", lambda: "Y")
    assert run("library", "remove", library, "case-00001").code == 0
    assert len(json.loads(run("library", "list", library, "--json").out)["cases"]) == 5


def test_a_first_library_needs_no_data_and_knows_its_truth(run, tmp_path):
    out = tmp_path / "phantom.lesionlib"
    assert run("library", "phantom", "--out", out, "--seed", 3).code == 0
    listed = json.loads(run("library", "list", out, "--json").out)
    assert Counter(case["label"] for case in listed["cases"]) == {"calcified": 8, "solid": 8, "subsolid": 8}
    assert all("patch" in case["with"] for case in listed["cases"])
    assert listed["credit"] == "Computed by LesionLens: no patient is in it."
    assert run("library", "verify", out).code == 0
    assert "exists" in run("library", "phantom", "--out", out).err


def test_cases_are_removed_all_or_none(run, library):
    ran = run("library", "remove", library, "case-00001", "nobody", "--yes")
    assert ran.code == 2
    assert len(json.loads(run("library", "list", library, "--json").out)["cases"]) == 6
    assert run("library", "remove", library, "case-00001", "case-00002", "--yes").code == 0
    assert len(json.loads(run("library", "list", library, "--json").out)["cases"]) == 4


def test_a_sound_library_is_verified_and_a_damaged_one_named(run, library):
    ran = run("library", "verify", library)
    assert (ran.code, "is sound: 6 cases" in ran.out) == (0, True)
    with CaseLibrary.open(library, read_only=False) as opened:
        opened._rows("UPDATE vectors SET vector = zeroblob(length(vector)) WHERE case_id = 'case-00003'")
    ran = run("library", "verify", library)
    assert ran.code == 2
    assert "case case-00003: its vector is damaged" in ran.err


def test_an_export_has_no_pictures_unless_asked_for(run, library, tmp_path):
    ran = run("library", "export", library, tmp_path / "copy.lesionlib")
    assert ran.code == 0
    assert "6 cases, without pictures, patches" in ran.out
    full = run("library", "export", library, tmp_path / "full.lesionlib", "--pictures", "--patches", "--without-notes")
    assert "6 cases, without notes" in full.out
    with CaseLibrary.open(tmp_path / "copy.lesionlib") as copy, CaseLibrary.open(tmp_path / "full.lesionlib") as whole:
        assert set(copy.contents().values()) == {()}
        assert set(whole.contents().values()) == {("pictures", "patch")}
    assert run("library", "export", library, tmp_path / "copy.lesionlib").code == 2
    assert run("library", "export", library, tmp_path / "copy.lesionlib", "--overwrite").code == 0


@pytest.fixture
def other_model(tmp_path):
    """The shipped model under another name and hash: its vectors must come out the same."""
    folder = shutil.copytree(find_bundle(MODEL), tmp_path / "twin")
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["version"] = "9.9.9"
    manifest["sha256"] = manifest_sha256(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return folder


def test_a_reindex_from_the_patches_gives_the_vectors_that_the_cts_gave(run, library, other_model, nrrd, boxes):
    searched = ("library", "search", library, "--volume", nrrd, "--boxes", boxes, "--model", other_model, "--json")
    refused = run(*searched)
    assert refused.code == 2
    assert "reindex the library" in refused.err
    ran = run("library", "reindex", library, "--model", other_model)
    assert ran.code == 0
    assert "6 cases embedded" in ran.out
    old, new = load_bundle(MODEL).sha256, load_bundle(other_model).sha256
    with CaseLibrary.open(library) as opened:
        for case in opened.cases():
            of_ct, of_patch = (opened.vector(case.case_id, model_sha256=sha256) for sha256 in (old, new))
            assert float(of_ct @ of_patch) > 0.9999
            assert np.abs(of_ct - of_patch).max() < 1e-3
    assert len(found(run(*searched))[0]) == 6
    again = run("library", "reindex", library, "--model", other_model)
    assert "0 cases embedded" in again.out
    assert "6 were already" in again.out


def test_a_reindex_names_the_cases_that_it_leaves_out(run, library, other_model, cases_folder):
    with CaseLibrary.open(library, read_only=False) as opened:
        for table in ("patches", "patch_boxes"):
            opened._rows(f"DELETE FROM {table} WHERE case_id IN ('case-00002', 'case-00005')")
    ran = run("library", "reindex", library, "--model", other_model)
    assert ran.code == 0
    assert "4 cases embedded" in ran.out
    assert "2 cannot be: the library holds no HU patch of it (case-00002, case-00005)" in ran.out


def test_an_interrupted_reindex_says_that_what_is_done_is_kept(run, library, other_model, monkeypatch, capsys):
    from LesionRetrievalLib.library import reindex as library_reindex

    real, calls = library_reindex.sees_beyond, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(library_reindex, "sees_beyond", interrupted)
    with pytest.raises(SystemExit) as ended:
        run("library", "reindex", library, "--model", other_model)
    assert ended.value.code == 130
    assert "what is embedded is kept" in capsys.readouterr().err
    assert "2 cases, not finished" in run("library", "verify", library).out
    assert "4 cases embedded" in run("library", "reindex", library, "--model", other_model).out


def test_a_library_of_another_model_than_the_default_is_asked_with_its_own(library, monkeypatch, tmp_path):
    monkeypatch.delenv("LESIONLENS_MODEL", raising=False)
    assert model_for(library) == MODEL
    assert model_for(None) == DEFAULT_MODEL == "lung-nodule-kind"
    assert model_for(tmp_path / "missing.lesionlib") == DEFAULT_MODEL  # whoever opens it says so
    monkeypatch.setenv("LESIONLENS_MODEL", MODEL)
    assert model_for(None) == MODEL


EDIT = ("library", "edit")


def shown(run, library, case="case-00001"):
    return json.loads(run("library", "show", library, case, "--json").out)


def test_a_case_is_changed_and_shown_with_who_did_it(run, library, monkeypatch):
    monkeypatch.setenv("LESIONLENS_BY", "reader7")
    ran = run(*EDIT, library, "case-00001", "--label", "hamartoma", "--set", "phase=venous", "--note", "seen twice")
    assert ran.code == 0, ran.err
    assert "case case-00001: changed label, note, attribute phase" in ran.out
    assert run(*EDIT, library, "case-00001", "--unset", "texture", "--by", "K-12").code == 0
    case = shown(run, library)
    assert (case["label"], case["note"]) == ("hamartoma", "seen twice")
    assert case["attributes"] == {"diameter_mm": 9.0, "phase": "venous"}
    assert [(c["by"], c["what"]) for c in case["history"][1:]] == [
        ("reader7", "label, note, attribute phase"),
        ("K-12", "attribute texture"),
    ]
    table = run("library", "show", library, "case-00001").out
    assert "UTC label, note, attribute phase by reader7" in " ".join(table.replace("│", " ").split())
    (row, *_) = csv.DictReader(io.StringIO(run("library", "list", library, "--csv").out))
    assert row["changed_by"] == "K-12"
    assert row["changed"].endswith(" UTC")
    assert row["added"].endswith(" UTC")
    assert run("library", "verify", library).code == 0


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ((), "nothing is to be changed; give --label"),
        (("--set", "size"), "write name=value"),
        (("--set", "mrn=4"), "would identify a patient"),
        (("--set", "predicted_size=4"), "kept for what a model says"),
        (("--unset", "nothing"), "has no attribute 'nothing' to take out; it has diameter_mm, texture"),
        (("--unset", "texture", "--set", "texture=x"), "to be set and taken out"),
        (("--label", ""), "label has 0 characters"),
        (("--label", "1.2.840.113619.2.55.3"), "contains a DICOM UID"),
    ],
)
def test_a_change_that_is_not_taken_says_why_and_leaves_the_case(run, library, asked, reason):
    before = library.read_bytes()
    ran = run(*EDIT, library, "case-00001", *asked)
    assert ran.code == 2
    assert reason in ran.err
    assert library.read_bytes() == before


def test_a_name_is_no_code_whether_typed_or_in_the_environment(run, library, monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        run(*EDIT, library, "case-00001", "--label", "x", "--by", "Doe, Jane")
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "a code, and nobody's name" in said
    assert "Jane" not in said
    monkeypatch.setenv("LESIONLENS_BY", "Jane Doe")
    ran = run("library", "remove", library, "case-00001", "--yes")
    assert ran.code == 2
    assert "a code, and nobody's name" in ran.err


@pytest.mark.parametrize(
    "asked", [("--note", "as in SECRET-0."), ("--set", "id=secret - 0"), ("--organ", "lung (Secret-0)")]
)
def test_the_patient_s_own_identifier_is_known_by_its_hash_when_a_case_is_changed(run, library, key, asked):
    ran = run(*EDIT, library, "case-00001", *asked, "--key", key)
    assert ran.code == 2
    assert "What you typed holds the identifier of the patient or study" in ran.err
    assert "ecret" not in ran.err


def test_names_of_the_ct_are_refused_in_a_change_where_the_ct_is_given(run, library, key, patch, write_dicom, tmp_path):
    ct = write_dicom(tmp_path / "ct", patch[0])
    ran = run(*EDIT, library, "case-00001", "--note", "of jane", "--volume", ct, "--key", key)
    assert ran.code == 2
    assert "the CT of another patient" in ran.err
    ran = run(*EDIT, library, "case-00001", "--note", "of jane", "--volume", ct)
    assert ran.code == 2
    assert "holds a name, number or date of the patient" in ran.err


def test_the_list_says_what_there_is_of_each_organ_and_when_it_was_added(run, library, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert run("library", "remove", library, "case-00006", "--yes", "--by", "reader7").code == 0
    lines = run("library", "list", library, "--limit", 1).out.splitlines()
    assert lines[0] == "cases.lesionlib: 5 cases: 2 benign, 3 malignant"
    assert lines[1] == "Organs: 5 not stated"
    assert lines[2].startswith("Last added: 20")
    with CaseLibrary.open(library) as opened:
        assert [(c.by, c.what) for c in opened.changes("case-00006")][1:] == [("reader7", "removed")]


def test_a_search_names_the_model_that_it_compared_by_and_when_the_library_was_reindexed(run, library, other_model):
    searched = ("library", "search", library, "--case", "case-00001")
    assert f"Compared by {MODEL} " in run(*searched).out
    ran = run("library", "reindex", library, "--model", other_model, "--by", "K-12")
    assert f"Searches by --case compare by {MODEL} 9.9.9 " in ran.out
    assert "from now on, before by" in ran.out
    ran = run(*searched)
    assert f"{MODEL} 9.9.9" in " ".join(ran.out.split())
    assert "the library was reindexed by it on 20" in " ".join(ran.out.split())
    (answer,) = json.loads(run(*searched, "--json").out)
    assert answer["model"]["version"] == "9.9.9"
    assert answer["model"]["reindexed"]
    (earlier,) = json.loads(run(*searched, "--json", "--model", find_bundle(MODEL)).out)
    assert (earlier["model"]["sha256"], earlier["model"]["reindexed"]) == (load_bundle(MODEL).sha256, None)
    assert "same model as before" in run("library", "reindex", library, "--model", other_model).out
    listed = " ".join(run("library", "list", library).out.split())
    assert "reindexed by" in listed
    assert "by K-12." in listed


def test_cases_that_a_search_cannot_find_are_counted(run, library, other_model):
    with CaseLibrary.open(library, read_only=False) as opened:
        for table in ("patches", "patch_boxes"):
            opened._rows(f"DELETE FROM {table} WHERE case_id = 'case-00002'")
    ran = run("library", "reindex", library, "--model", other_model)
    assert "does not find the 1 cases left out" in ran.out
    ran = run("library", "search", library, "--case", "case-00001")
    assert "1 of 6 cases were never embedded by it and cannot be found" in " ".join(ran.out.split())


def test_a_library_of_0_1_is_shown_and_listed_without_being_changed(run):
    path = FILES_OF_0_1 / "cases.lesionlib"
    before = path.read_bytes()
    ran = run("library", "show", path, "case-00002")
    assert "by whom and at what hour was not kept" in " ".join(ran.out.split())
    assert run("library", "list", path, "--csv").code == 0
    assert path.read_bytes() == before
