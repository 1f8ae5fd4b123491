"""Many CTs at once: one table of answers, bad cases named, a break survived."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest
import slicer
from hypothesis import given, settings
from hypothesis import strategies as st
from LesionClassifierLib.headless import startHeadlessSlicer
from LesionClassifierLib.scene.lesions import addRoiNode
from LesionLensApp import batch
from LesionLensApp.batch import read_batch
from LesionLib.geometry import LesionBox
from LesionLib.io.boxes import CaseTableError
from pyarrow import parquet

pytestmark = pytest.mark.usefixtures("asks_malignancy")


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def cases(tmp_path, patch, write_image, write_boxes, lesion):
    """A CT with one box, with a label map, with a mask; and one that is missing."""
    volume, nodule = patch
    folder = tmp_path / "cases"
    folder.mkdir()
    write_image(folder / "ct.nrrd", volume.array, volume.ijkToRAS)
    k, j, i = np.indices(volume.array.shape)
    at = (volume.ijkToRAS @ np.stack([i, j, k, np.ones_like(i)]).reshape(4, -1))[:3].T
    ball = (np.linalg.norm(at - nodule.box.centerRAS, axis=1) < 7).reshape(volume.array.shape).astype(np.uint8)
    write_image(folder / "mask.nrrd", ball * 3, volume.ijkToRAS)
    write_boxes(folder / "boxes.csv", lesion)
    table = folder / "cases.csv"
    table.write_text(
        "name,volume,boxes,segmentation,mask\n"
        "with box,ct.nrrd,boxes.csv,,\n"
        "=gone,nowhere.nrrd,boxes.csv,,\n"
        "with segments,ct.nrrd,,mask.nrrd,\n"
        "with mask,ct.nrrd,,,mask.nrrd\n"
    )
    return table


def test_one_table_holds_the_answers_of_all_and_another_names_what_failed(run, cases, tmp_path):
    out = tmp_path / "out"
    ran = run("classify", "--batch", cases, "--out", out)
    assert ran.code == 2
    assert "1 of 4 cases failed" in ran.err
    rows = rows_of(out / "results.csv")
    assert [(row["name"], row["lesion"]) for row in rows] == [
        ("with box", "L1"), ("with segments", "label 3"), ("with mask", "with mask")
    ]  # fmt: skip
    assert list(rows[0])[:9] == [
        "name", "lesion", "label", "p_benign", "p_malignant", "set", "usable", "warning_codes", "center_r"
    ]  # fmt: skip
    (failed,) = rows_of(out / "failed.csv")
    assert failed["name"] == "'=gone"
    assert failed["where"] == "cases.csv, line 3"
    assert "nowhere.nrrd" in failed["error"]


def test_an_answer_of_a_batch_is_the_one_that_the_ct_gets_alone(run, cases, tmp_path):
    assert run("classify", "--batch", cases, "--out", tmp_path / "many").code == 2
    of_many = {row["name"]: row for row in rows_of(tmp_path / "many" / "results.csv")}
    for name, option in (("with box", "--boxes"), ("with segments", "--segmentation")):
        file = cases.parent / ("boxes.csv" if option == "--boxes" else "mask.nrrd")
        alone = tmp_path / name.replace(" ", "-")
        assert run("classify", cases.parent / "ct.nrrd", option, file, "--out", alone).code == 0
        (row,) = rows_of(alone / "results.csv")
        for column in ("label", "p_benign", "p_malignant", "center_r", "size_x", "usable", "warning_codes", "distance"):
            assert of_many[name][column] == row[column], column


def test_a_batch_goes_on_where_it_stopped_and_begins_anew_where_a_file_changed(run, cases, tmp_path, monkeypatch):
    out = tmp_path / "out"
    asked = []
    honest = batch._classified
    monkeypatch.setattr(batch, "_classified", lambda case, *rest: (asked.append(case.name), honest(case, *rest))[1])
    run("classify", "--batch", cases, "--out", out)
    assert asked == ["with box", "=gone", "with segments", "with mask"]
    first = (out / "results.csv").read_bytes()
    asked.clear()
    ran = run("classify", "--batch", cases, "--out", out)
    assert asked == ["=gone"]
    assert "3 of 4 cases are answered already" in ran.err
    assert (out / "results.csv").read_bytes() == first
    text = (cases.parent / "boxes.csv").read_text()
    (cases.parent / "boxes.csv").write_text(text + "\n")
    asked.clear()
    run("classify", "--batch", cases, "--out", out)
    assert asked == ["with box", "=gone"]
    asked.clear()
    run("classify", "--batch", cases, "--out", out, "--overwrite")
    assert len(asked) == 4


def test_ctrl_c_keeps_what_is_answered(run, cases, tmp_path, monkeypatch):
    honest = batch._classified

    def interrupted(case, *rest):
        if case.name == "with segments":
            raise KeyboardInterrupt
        return honest(case, *rest)

    monkeypatch.setattr(batch, "_classified", interrupted)
    with pytest.raises(SystemExit) as ended:
        run("classify", "--batch", cases, "--out", tmp_path / "out")
    assert ended.value.code == 130
    assert len(list((tmp_path / "out" / "answered").glob("*.csv"))) == 1


def test_two_processes_give_the_same_table_as_one(run, cases, tmp_path):
    for jobs in (1, 2):
        assert run("classify", "--batch", cases, "--out", tmp_path / f"{jobs}", "--jobs", jobs).code == 2
    assert (tmp_path / "1" / "results.csv").read_bytes() == (tmp_path / "2" / "results.csv").read_bytes()


def test_boxes_of_a_markups_file_are_those_of_the_table(cases, lesion):
    slicer.util.saveNode(addRoiNode(startHeadlessSlicer().scene, lesion), str(cases.parent / "b.mrk.json"))
    cases.write_text("name,volume,boxes\nmarkups,ct.nrrd,b.mrk.json\n")
    (case,) = read_batch(cases)
    (box,), odd = batch.lesions_of(case, None, None, None, 0.0)
    np.testing.assert_allclose(box.centerRAS, lesion.centerRAS, atol=1e-4)
    np.testing.assert_allclose(box.sizeMm, lesion.sizeMm, atol=1e-4)
    assert odd == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,volume,boxes,mask\na,ct.nrrd,b.csv,m.nrrd\n", "line 2: name, volume and exactly one of boxes"),
        ("name,volume\na,ct.nrrd\n", "exactly one of"),
        ("name,volume,mask\na,c.nrrd,m.nrrd\na,d.nrrd,n.nrrd\n", "'a' stands in cases.csv, line 2 already"),
        ("name;volume;mask\na;c.nrrd;m.nrrd\n", "semicolons"),
        ("name,boxes\na,b.csv\n", "lacks the column"),
    ],
)
def test_a_table_that_says_too_little_or_too_much_is_refused_with_its_line(tmp_path, text, message):
    (tmp_path / "cases.csv").write_text(text)
    with pytest.raises(CaseTableError, match=message):
        read_batch(tmp_path / "cases.csv")


@given(st.text(max_size=80))
@settings(max_examples=60, deadline=None)
def test_any_text_is_a_batch_or_an_error_of_ours(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("t") / "cases.csv"
    path.write_text("name,volume,mask\n" + text, encoding="utf-8", newline="")
    try:
        cases = read_batch(path)
    except CaseTableError as error:
        assert "cases.csv" in str(error)
    else:
        assert len({case.name for case in cases}) == len(cases)


def test_what_belongs_to_one_ct_is_refused_with_a_batch_and_a_folder_of_others_is_left_alone(run, cases, tmp_path):
    ran = run("classify", "--batch", cases, "--out", tmp_path / "out", "--name", "x", "--dicom-sr")
    assert ran.code == 2
    assert "leave out --name, --dicom-sr" in ran.err
    assert not (tmp_path / "out").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    ran = run("classify", "--batch", cases, "--out", tmp_path / "other", "--overwrite")
    assert ran.code == 2
    assert "no folder of a batch" in ran.err
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["thesis.txt"]
    assert "no CT is given" in run("classify", "--boxes", cases, "--out", tmp_path / "out").err


def test_a_box_off_its_ct_fails_its_case_alone(run, cases, tmp_path, lesion, write_boxes):
    far = LesionBox(lesion.centerRAS + 500, lesion.sizeMm, name="far")
    write_boxes(cases.parent / "far.csv", replace(far))
    cases.write_text("name,volume,boxes\nfar,ct.nrrd,far.csv\nnear,ct.nrrd,boxes.csv\n")
    ran = run("classify", "--batch", cases, "--out", tmp_path / "out")
    assert ran.code == 2
    assert [row["name"] for row in rows_of(tmp_path / "out" / "results.csv")] == ["near"]
    assert "outside" in rows_of(tmp_path / "out" / "failed.csv")[0]["error"]


def test_embeddings_are_a_table_beside_the_answers_in_their_order(run, cases, tmp_path, monkeypatch):
    out, table = tmp_path / "out", tmp_path / "embeddings.parquet"
    assert run("classify", "--batch", cases, "--out", out, "--embeddings", table).code == 2  # one of four is missing
    found = parquet.read_table(table).to_pydict()
    rows = rows_of(out / "results.csv")
    for column in ("name", "lesion", "label", "model_sha256"):
        assert found[column] == [row[column] for row in rows]
    assert "embedding" not in rows[0]
    vectors = np.array([found[f"e{i}"] for i in range(len(found) - 4)])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=0), 1, atol=1e-5)

    def not_again(case, _session, _reading):
        assert case.name == "=gone"  # all others are answered
        raise CaseTableError("still missing")

    monkeypatch.setattr(batch, "_classified", not_again)
    assert run("classify", "--batch", cases, "--out", out, "--embeddings", tmp_path / "e.csv").code == 2
    again = rows_of(tmp_path / "e.csv")
    np.testing.assert_allclose([float(row["e0"]) for row in again], vectors[0], atol=1e-6)


def test_embeddings_that_an_older_version_did_not_keep_are_missed_aloud(run, cases, tmp_path):
    out = tmp_path / "out"
    assert run("classify", "--batch", cases, "--out", out).code == 2
    for part in (out / "answered").glob("*.csv"):
        rows = list(csv.reader(part.read_text(encoding="utf-8").splitlines()))
        part.write_text("\n".join(",".join(f'"{cell}"' for cell in row[:-1]) for row in rows), encoding="utf-8")
    ran = run("classify", "--batch", cases, "--out", out, "--embeddings", tmp_path / "e.csv")
    assert ran.code == 2
    assert "without embeddings; answer again with --overwrite" in ran.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch", "cases.csv", "--embeddings", "e.xlsx"], "its name ends in .parquet or .csv"),
        (["ct.nrrd", "--boxes", "b.csv", "--embeddings", "e.csv"], "go with --batch"),
        (["ct.nrrd", "--boxes", "b.csv", "--ray", "auto"], "go with --batch"),
        (["--batch", "cases.csv", "--ray", "127.0.0.1:1"], "no Ray cluster answers at 127.0.0.1:1"),
    ],
)
def test_what_cannot_be_written_or_reached_is_refused(run, cases, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(cases.parent)
    ran = run("classify", *arguments, "--out", tmp_path / "out")
    assert ran.code == 2
    assert message in " ".join(ran.err.split())


@pytest.mark.timeout(300)
def test_a_ray_cluster_gives_the_same_table_as_one_process(run, cases, tmp_path):
    assert run("classify", "--batch", cases, "--out", tmp_path / "alone").code == 2
    ran = run(
        "classify", "--batch", cases, "--out", tmp_path / "many", "--ray", "local", "--jobs", "2", "--device", "cpu"
    )
    assert ran.code == 2, ran.err
    for table in ("results.csv", "failed.csv"):
        assert (tmp_path / "many" / table).read_bytes() == (tmp_path / "alone" / table).read_bytes()
