"""Every command goes on on the CPU where the GPU's memory does not suffice, and says so, as the Slicer module does."""

from __future__ import annotations

import json

import pytest
import torch
from LesionLib.model.folder import golden_case
from LesionLib.sampling import batches
from LesionRetrievalLib.library.store import CaseLibrary
from LesionRetrievalLib.quiz.file import load_quiz

SAID = "The GPU ran out of memory; this lesion was answered on the CPU."


@pytest.fixture
def full_gpu(monkeypatch):
    """``full_gpu(times)``: the next lesions that are cut out find the GPU's memory full; loading a model does not."""
    honest, of_models = batches.crop_sample, golden_case()[1].name
    left = [0]

    def cut(volume, box, spec):
        if left[0] and box.name != of_models:
            left[0] -= 1
            msg = "CUDA out of memory. Tried to allocate 2.00 GiB"
            raise torch.OutOfMemoryError(msg)
        return honest(volume, box, spec)

    def fill(times: int) -> None:
        left[0] = times

    monkeypatch.setattr(batches, "crop_sample", cut)
    return fill


def test_classify_answers_on_the_cpu_with_a_warning_on_the_result(run, nrrd, boxes, tmp_path, full_gpu):
    assert run("classify", nrrd, "--boxes", boxes, "--out", tmp_path / "honest").code == 0
    full_gpu(1)
    ran = run("classify", nrrd, "--boxes", boxes, "--out", tmp_path / "out")
    assert ran.code == 0
    written = [json.loads((tmp_path / name / "results.json").read_text()) for name in ("honest", "out")]
    honest, answered = (one["results"][0] for one in written)
    assert answered["probabilities"] == pytest.approx(honest["probabilities"], abs=1e-5)
    assert any(SAID in warning for warning in answered["warnings"])
    assert not any(SAID in warning for warning in honest["warnings"])
    assert SAID in ran.err


def test_a_library_is_built_on_the_cpu_and_the_command_says_so_once(run, cases_folder, tmp_path, full_gpu):
    full_gpu(1)
    path = tmp_path / "made.lesionlib"
    ran = run("library", "build", cases_folder, "--out", path)
    assert ran.code == 0
    assert ran.err.count(SAID) == 1
    with CaseLibrary.open(path) as library:
        assert len(library) > 1


def test_a_quiz_is_made_on_the_cpu(run, tmp_path, full_gpu):
    full_gpu(1)
    ran = run("quiz", "make", "--phantom", "--cases", 2, "--similar", 0, "--out", tmp_path / "q.json")
    assert ran.code == 0
    assert ran.err.count(SAID) == 1
    assert len(load_quiz(tmp_path / "q.json").cases) == 2


def test_no_memory_at_all_is_one_line_and_leaves_nothing(run, nrrd, boxes, tmp_path, full_gpu):
    full_gpu(100)
    ran = run("classify", nrrd, "--boxes", boxes, "--out", tmp_path / "out")
    assert ran.code == 2
    assert ran.err.splitlines()[-1].startswith("lesionlens: error: there is not enough memory to answer box")
    assert not (tmp_path / "out").exists()
