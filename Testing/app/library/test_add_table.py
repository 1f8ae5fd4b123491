"""`lesionlens library add --table`: many CTs into a library, each row with what is said of its own."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from LesionLensApp.case_table import read_batch
from LesionLensApp.loaded_model import ModelSession
from LesionLib.geometry import LesionBox
from LesionRetrievalLib.library.pseudonyms import Pseudonymiser
from LesionRetrievalLib.library.store import CaseLibrary

pytestmark = pytest.mark.usefixtures("asks_malignancy")

HEADER = "name,volume,boxes,segmentation,mask,label,organ,note,attributes,patient,case_id,size_mm,ward"


@pytest.fixture
def library(library_of):
    return library_of()


@pytest.fixture
def folder(tmp_path, patch, write_image, write_boxes, lesion, write_dicom):
    """Two CTs, one of them DICOM, and a box or a mask on each."""
    volume, nodule = patch
    folder = tmp_path / "cases"
    folder.mkdir()
    write_image(folder / "ct.nrrd", volume.array, volume.ijkToRAS)
    write_dicom(folder / "dicom", volume)
    k, j, i = np.indices(volume.array.shape)
    at = (volume.ijkToRAS @ np.stack([i, j, k, np.ones_like(i)]).reshape(4, -1))[:3].T
    ball = (np.linalg.norm(at - nodule.box.centerRAS, axis=1) < 7).reshape(volume.array.shape).astype(np.uint8)
    write_image(folder / "mask.nrrd", ball, volume.ijkToRAS)
    write_boxes(folder / "boxes.csv", lesion)
    write_boxes(folder / "two.csv", lesion, LesionBox(lesion.centerRAS + 3.0, lesion.sizeMm, name="L2"))
    return folder


@pytest.fixture
def add(run, library, folder):
    def call(*rows: str, extra=(), header: str = HEADER):
        (folder / "cases.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
        source = () if "--label-source" in extra else ("--label-source", "histology")
        key = ("--key", library.with_name("owner.key"))
        return run("library", "add", library, "--table", folder / "cases.csv", *source, *key, *extra)

    return call


def added(library) -> dict:
    with CaseLibrary.open(library) as opened:
        assert opened.integrity_problems() == ()
        return {case.case_id: case for case in opened.cases() if not case.case_id.startswith("case-0000")}


def failures(folder) -> list[dict[str, str]]:
    with (folder / "cases.failed.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


BOX = "a,ct.nrrd,boxes.csv,,,cyst,liver,seen twice,size=12; phase=venous,P-0001,one,7.5,W3"
MASK = "b,dicom,,,mask.nrrd,,,,,,two,,"


def test_every_row_has_its_own_answer_and_attributes_and_what_it_leaves_open_is_said_by_the_options(add, library):
    ran = add(
        BOX, MASK, extra=("--label", "solid", "--organ", "lung", "--attribute", "phase=native", "--keep", "size_mm")
    )
    assert ran.code == 0, ran.err
    cases = added(library)
    one, two = cases["one"], cases["two"]
    assert (one.label, one.label_source, one.organ, one.note) == ("cyst", "histology", "liver", "seen twice")
    assert one.attributes == {"phase": "venous", "size": 12.0, "size_mm": 7.5}
    assert (two.label, two.organ, two.note, two.attributes) == ("solid", "lung", "", {"phase": "native"})
    key = Pseudonymiser.load(library.with_name("owner.key"))
    assert one.patient_hash == key.hash("P-0001")
    assert two.patient_hash == key.hash("HOSPITAL-4711")  # of the DICOM header
    assert "added 2 cases of 2 rows" in ran.out
    assert "not kept (--keep COLUMN keeps one): ward" in ran.out
    assert b"W3" not in library.read_bytes()


def test_the_model_is_loaded_once_and_the_code_is_kept_with_each_case(add, library, monkeypatch):
    loaded, real = [], ModelSession.__init__
    monkeypatch.setattr(ModelSession, "__init__", lambda self, *a, **k: loaded.append(1) or real(self, *a, **k))
    assert add(BOX, "c,ct.nrrd,two.csv,,,cyst,,,,P-0001,two,,", extra=("--by", "reader7")).code == 0
    assert len(loaded) == 1
    with CaseLibrary.open(library) as opened:
        assert [(c.by, c.what) for c in opened.changes("one")] == [("reader7", "added")]
    assert list(added(library)) == ["one", "two-2"]  # the first lesion of the second row is there


def test_a_bad_row_is_named_in_the_failed_table_and_the_others_are_added(add, library, folder):
    rows = [
        "gone,nowhere.nrrd,boxes.csv,,,cyst,,,,P-0001,,,",
        "both,ct.nrrd,boxes.csv,,mask.nrrd,cyst,,,,P-0001,,,",
        "unlabelled,ct.nrrd,boxes.csv,,,,,,,P-0001,,,",
        "nobody,ct.nrrd,boxes.csv,,,cyst,,,,,,,",
        "named,dicom,,,mask.nrrd,cyst,,asked by Jane,,,,,",
        "odd,ct.nrrd,boxes.csv,,,cyst,,,size,P-0001,,,",
        "told,ct.nrrd,boxes.csv,,,cyst,,of P-0001,,P-0001,,,",
        "none,ct.nrrd,nowhere.csv,,,cyst,,,,P-0001,,,",
        BOX,
    ]
    ran = add(*rows)
    assert ran.code == 2
    assert "8 of 9 rows failed; see" in ran.err
    assert list(added(library)) == ["one"]
    failed = failures(folder)
    assert [row["name"] for row in failed] == [row.split(",")[0] for row in rows[:-1]]
    assert [row["where"] for row in failed] == [f"cases.csv, line {n}" for n in range(2, 10)]
    for row, reason in zip(
        failed,
        [
            "nowhere.nrrd", "exactly one of", "label is empty; fill it in the table", "fill the column patient in",
            "holds a name, number or date", "write name=value", "holds a name, number or date", "nowhere.csv",
        ],
        strict=True,
    ):  # fmt: skip
        assert reason in row["error"], row
    assert "Jane" not in " ".join(row["error"] for row in failed)


def test_the_lesions_of_a_row_come_in_together_or_not_at_all(add, library, folder, write_boxes, lesion):
    far = LesionBox(lesion.centerRAS + 500.0, lesion.sizeMm, name="far")
    write_boxes(folder / "far.csv", lesion, far)
    ran = add("a,ct.nrrd,far.csv,,,cyst,,,,P-0001,one,,", "b,ct.nrrd,two.csv,,,cyst,,,,P-0001,two,,")
    assert ran.code == 2
    assert list(added(library)) == ["two-1", "two-2"]
    assert "'far' lies outside" in failures(folder)[0]["error"]


def test_a_second_run_adds_what_is_missing_and_says_that_the_rest_is_there(add, library, folder):
    assert add(BOX).code == 0
    ran = add(BOX, MASK.replace(",,,,,,two", ",cyst,,,,,two"))
    assert ran.code == 0, ran.err
    assert "added 1 cases of 1 rows; the lesions of 1 rows were there already" in ran.out
    assert list(added(library)) == ["one", "two"]
    assert not (folder / "cases.failed.csv").exists()


def test_a_lesion_that_is_there_with_another_answer_is_named(add, folder):
    assert add(BOX).code == 0
    assert add(BOX.replace("cyst", "metastasis")).code == 2
    assert "as case one (cyst), with another answer" in failures(folder)[0]["error"]
    assert add(BOX).code == 0
    assert failures(folder) == []  # those of the run before are gone


def test_an_interruption_leaves_whole_cases_and_the_same_command_goes_on(add, library, monkeypatch):
    real, seen = ModelSession.embed_case, []

    def embed(self, volume, box):
        seen.append(box.name)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return real(self, volume, box)

    rows = (MASK.replace(",,,,,,two", ",cyst,,,,,two"), "z,ct.nrrd,two.csv,,,cyst,,,,P-0001,one,,")
    monkeypatch.setattr(ModelSession, "embed_case", embed)
    ran = add(*rows)
    assert ran.code == 130
    assert "1 of 2 rows are in" in ran.err
    assert list(added(library)) == ["two"]
    assert add(*rows).code == 0
    assert sorted(added(library)) == ["one-1", "one-2", "two"]


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        (("--series", "1"), "leave out --series, which go with one CT"),
        (("--keep", "nothing"), "there is no column 'nothing' to keep"),
        (("--keep", "patient"), "tells whose a lesion is"),
        (("--margin-mm", "9"), "would not find itself"),
    ],
)
def test_options_that_do_not_go_with_a_table_are_refused_before_the_first_row(add, library, extra, reason):
    ran = add(BOX, extra=extra)
    assert ran.code == 2
    assert reason in ran.err
    assert added(library) == {}


def test_a_ct_without_its_label_says_what_is_missing(run, library, nrrd, boxes):
    ran = run("library", "add", library, nrrd, "--boxes", boxes)
    assert ran.code == 2
    assert "--label, --label-source is missing; give it, or many CTs" in ran.err


def test_a_table_is_read_as_that_of_a_batch(folder):
    failed = []
    (folder / "t.csv").write_text("name,volume,boxes\na,ct.nrrd,boxes.csv\na,ct.nrrd,boxes.csv\n,ct.nrrd,boxes.csv\n")
    (case,) = read_batch(folder / "t.csv", failed=failed)
    assert (case.name, case.kind, case.values["boxes"]) == ("a", "boxes", "boxes.csv")
    assert [(name, where) for name, where, _ in failed] == [("a", "t.csv, line 3"), ("", "t.csv, line 4")]
