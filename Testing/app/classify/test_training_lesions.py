"""A model that learned from a lesion says so wherever it answers: what it gets right there is no success."""

from __future__ import annotations

import json
import shutil

import pytest
from LesionLib.io.boxes import read_case_table
from LesionLib.model.bundle import manifest_sha256
from LesionLib.model.folder import MANIFEST, find_bundle
from LesionLib.sampling.content_hash import TrainingContent, lesion_hash
from LesionRetrievalLib.quiz.file import load_quiz


@pytest.fixture(scope="module")
def model(tmp_path_factory, cases_folder):
    """The shipped model, had it learned from the first three cases."""
    folder = shutil.copytree(find_bundle("lung-nodule-malignancy"), tmp_path_factory.mktemp("models") / "learned")
    learned = [row.load()[:2] for row in read_case_table(cases_folder, columns=[])[:3]]
    manifest = json.loads((folder / MANIFEST).read_text())
    content = TrainingContent.of(lesion_hash(volume, box) for volume, box in learned)
    manifest["lesionlens"]["training_content"] = content.to_manifest()
    manifest["sha256"] = manifest_sha256(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return folder


def files(cases_folder, number: int):
    return tuple(cases_folder / part / f"p{number}.nii.gz" for part in ("image", "mask"))


def test_classify_says_so_on_the_result_and_on_the_page(run, cases_folder, model, tmp_path, result_of):
    for number, is_known in ((0, True), (5, False)):
        ct, mask = files(cases_folder, number)
        out = tmp_path / f"out{number}"
        assert run("classify", ct, "--segmentation", mask, "--model", model, "--out", out).code == 0
        assert ("training-lesion" in result_of(out)["results"][0]["warningNames"]) == is_known
        assert ("The model learned from this lesion" in (out / "report.html").read_text()) == is_known


def test_a_search_says_so_beside_the_cases(run, cases_folder, model, tmp_path):
    library, key = tmp_path / "l.lesionlib", tmp_path / "key"
    assert run("library", "build", cases_folder, "--model", model, "--out", library, "--key", key).code == 0
    for number, is_known in ((1, True), (4, False)):
        ct, mask = files(cases_folder, number)
        asked = ("library", "search", library, "--volume", ct, "--segmentation", mask, "--model", model, "--key", key)
        (answer,) = json.loads(run(*asked, "--json").out)
        assert ("training-lesion" in answer["warningNames"]) == is_known
    assert "The model learned from this lesion" not in run(*asked).out.replace("\n", " ")


def test_a_quiz_tells_it_at_the_reveal(run, cases_folder, model, tmp_path):
    made = run("quiz", "make", "--from", cases_folder, "--cases", 6, "--model", model, "--out", tmp_path / "quiz.json")
    assert made.code == 0, made.err
    said = [" ".join(case.prediction.warnings) for case in load_quiz(tmp_path / "quiz.json").cases]
    assert sum("The model learned from this lesion" in text for text in said) == 3
