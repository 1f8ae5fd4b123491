"""A model of which only what is said has changed goes on with the libraries of the one before; any other has to reindex."""

from __future__ import annotations

import json
import shutil

import pytest
from LesionLib.errors import BundleError
from LesionLib.model.bundle import load_bundle, manifest_sha256, read_manifest
from LesionLib.model.folder import MANIFEST, MAX_SAME_EMBEDDINGS
from LesionRetrievalLib.library.store import CaseLibrary
from lesiontraining.commands.annotate import Annotation, annotate
from repository import FILES_OF_0_1 as FILES


@pytest.fixture
def model(tmp_path):
    """The tiny model that the library was made with, under a later version."""
    folder = shutil.copytree(FILES / "model", tmp_path / "tiny")
    annotate(folder, Annotation("0.2.0", "says the same"))
    return folder


@pytest.fixture
def library(tmp_path):
    return shutil.copy(FILES / "cases.lesionlib", tmp_path)


def changed(model, **values) -> None:
    manifest = json.loads((model / MANIFEST).read_text())
    manifest["lesionlens"].update(values)
    manifest["sha256"] = manifest_sha256(manifest)
    (model / MANIFEST).write_text(json.dumps(manifest))


def test_a_later_model_with_the_same_embedding_searches_adds_and_answers_with_the_library_as_it_is(
    model, library, run, nrrd, boxes, tmp_path
):
    earlier = read_manifest(FILES / "model")["sha256"]
    assert load_bundle(model).sha256 != earlier
    assert read_manifest(model)["lesionlens"]["same_embedding_as"] == [earlier]
    search = ("library", "search", library, "--volume", nrrd, "--boxes", boxes, "--json", "--patient", "P")
    found = [json.loads(run(*search, "--model", each).out)[0]["found"] for each in (FILES / "model", model)]
    assert found[0] == found[1]
    assert len(found[0]) == 3
    ran = run("classify", nrrd, "--boxes", boxes, "--library", library, "--model", model, "--out", tmp_path / "out")
    assert ran.code == 0, ran.err
    similar = json.loads((tmp_path / "out" / "results.json").read_text())["results"][0]["similarCases"]
    assert {case["caseId"] for case in similar} == {case["case_id"] for case in found[0]}
    quiz = ("quiz", "make", "--library", library, "--cases", "2", "--similar", "1", "--out", tmp_path / "quiz.json")
    ran = run(*quiz, "--model", model)
    assert ran.code == 0, ran.err
    add = ("library", "add", library, nrrd, "--boxes", boxes, "--patient", "P", "--label", "bright")
    ran = run(
        *add, "--label-source", "a formula", "--case-id", "new", "--key", tmp_path / "owner.key", "--model", model
    )
    assert ran.code == 0, ran.err
    with CaseLibrary.open(library) as opened:
        assert [indexed.identity.sha256 for indexed in opened.models()] == [earlier]
        assert opened.ids_without_vector(earlier) == []


def test_a_model_that_does_not_say_so_is_refused(model, library, run, nrrd, boxes):
    changed(model, same_embedding_as=["0" * 64])
    ran = run("library", "search", library, "--volume", nrrd, "--boxes", boxes, "--patient", "P", "--model", model)
    assert ran.code == 2
    assert "reindex the library with this one" in ran.err


@pytest.mark.parametrize(
    "listed",
    [["A" * 64], ["a" * 63], ["a" * 64 + "\n"], ["a" * 64] * 2, [f"{n:064x}" for n in range(99)], "a" * 64, [7]],
)
def test_what_is_no_short_list_of_hashes_is_refused(model, listed):
    changed(model, same_embedding_as=listed)
    with pytest.raises(BundleError, match="same_embedding_as"):
        load_bundle(model)


def test_the_list_keeps_the_latest_models(model):
    for number in range(MAX_SAME_EMBEDDINGS + 2):
        before = read_manifest(model)["sha256"]
        annotate(model, Annotation(f"0.3.{number}", "says the same"))
    listed = read_manifest(model)["lesionlens"]["same_embedding_as"]
    assert len(listed) == MAX_SAME_EMBEDDINGS
    assert listed[0] == before
    load_bundle(model)
