"""Lesions embedded for comparing: the same in the process and in a worker, which cancels, refuses and ends in plain words."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from LesionLib.errors import BoxError, BundleError, WarningName
from LesionLib.inference.classifier import Classifier, Engine
from LesionLib.inference.loaded_models import ModelCache
from LesionLib.inference.messages import (
    Embedding,
    EmbeddingRequest,
    RunnerCancelled,
    RunnerError,
    RunOptions,
    RunRequest,
    describing_request,
    question_from_frame,
    question_to_frame,
    reply_from_frame,
    reply_to_frame,
)
from LesionLib.inference.runner import InProcessRunner, WorkerRunner
from LesionRetrievalLib.library.cases import ModelIdentity

MODEL = "lung-nodule-malignancy"


@pytest.fixture(scope="module")
def request_():
    return describing_request(MODEL)


@pytest.fixture(scope="module")
def worker():
    with closing(WorkerRunner()) as runner:
        yield runner


@pytest.fixture(scope="module")
def in_process():
    with closing(InProcessRunner()) as runner:
        yield runner


@pytest.fixture(scope="module")
def embedding(in_process, request_):
    return in_process.run(request_)


def test_an_embedding_is_a_unit_vector_with_probabilities_that_add_up(embedding):
    assert np.linalg.norm(embedding.vector) == pytest.approx(1, abs=1e-5)
    assert sum(embedding.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert set(embedding.class_colors) == set(embedding.probabilities)
    assert ModelIdentity.of(embedding.info).name == MODEL
    assert embedding.heat_map is None


def test_the_worker_sees_what_the_process_itself_sees(worker, request_, embedding):
    seen = worker.run(request_)
    assert np.abs(seen.vector - embedding.vector).max() < 1e-5
    assert seen.probabilities == pytest.approx(embedding.probabilities, abs=1e-5)
    assert (seen.info, seen.class_colors) == (embedding.info, embedding.class_colors)


def test_why_similar_comes_painted_into_the_ct(in_process, worker, request_, embedding):
    other = np.roll(embedding.vector, 3)
    here = in_process.run(replace(request_, similar_to=other)).heat_map
    there = worker.run(replace(request_, similar_to=other)).heat_map
    assert here.array.max() == pytest.approx(1)
    assert np.abs(here.array - there.array).max() < 1e-2
    assert np.array_equal(here.ijkToRAS, there.ijkToRAS)


def test_one_worker_answers_both_kinds_of_request(worker, request_):
    pid = worker.pid
    answer = worker.run(RunRequest(MODEL, request_.volume, [request_.box], RunOptions(precision="float32")))
    embedding = worker.run(request_)
    assert embedding.probabilities == pytest.approx(answer.results[0].probabilities, abs=1e-5)
    assert np.array_equal(embedding.vector, answer.results[0].embedding)
    assert pid in (None, worker.pid)


def test_a_query_only_answer_is_the_vector_alone(in_process, request_, embedding):
    seen = in_process.run(replace(request_, query_only=True))
    assert dict(seen.probabilities) == {}
    assert np.array_equal(seen.vector, embedding.vector)


def test_requests_and_embeddings_survive_the_wire(request_, embedding):
    asked = replace(request_, similar_to=embedding.vector, query_only=True)
    back = question_from_frame(question_to_frame(asked))
    assert np.array_equal(back.similar_to, embedding.vector)
    assert np.array_equal(back.volume.array, request_.volume.array)
    assert np.array_equal(back.box.segment.array, request_.box.segment.array)
    assert (back.model, back.options, back.query_only) == (MODEL, request_.options, True)
    back = question_from_frame(question_to_frame(request_))
    assert (back.similar_to, back.query_only) == (None, False)
    embedding = replace(embedding, same_embedding_as=("ab" * 32, "cd" * 32))
    again = reply_from_frame(reply_to_frame(embedding), request_)
    assert np.array_equal(again.vector, embedding.vector)
    assert again.same_embedding_as == embedding.same_embedding_as
    assert reply_from_frame(reply_to_frame(replace(embedding, metric="euclidean")), request_).metric == "euclidean"
    assert (again.info, again.heat_map, again.warnings) == (embedding.info, None, ())
    assert (dict(again.probabilities), again.class_colors) == (embedding.probabilities, embedding.class_colors)
    assert dict(again.scores) == {}
    crossing = {
        "vector",
        "probabilities",
        "class_colors",
        "heat_map",
        "info",
        "warnings",
        "scores",
        "same_embedding_as",
        "metric",
    }
    assert {field.name for field in fields(Embedding)} == crossing


def test_what_is_wrong_is_told_as_it_was_raised(worker, request_):
    with pytest.raises(BundleError, match="unknown model 'liver'"):
        worker.run(replace(request_, model="liver"))
    away = replace(request_.box, centerRAS=request_.box.centerRAS + [500.0, 0, 0])
    with pytest.raises(BoxError, match="lies outside the volume"):
        worker.run(replace(request_, box=away))
    assert worker.run(request_).info.model_name == MODEL


def test_cancel_ends_the_request_and_the_next_one_is_answered(worker, request_):
    worker.run(request_)
    ended = []

    def ask():
        try:
            big = replace(request_.volume, array=np.tile(request_.volume.array, (40, 4, 4)))
            worker.run(EmbeddingRequest(MODEL, big, request_.box))
        except RunnerCancelled as error:
            ended.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    end = time.monotonic() + 20
    while not worker.cancel() and time.monotonic() < end:
        time.sleep(0.001)
    thread.join(20)
    assert len(ended) == 1
    assert worker.run(request_).info.model_name == MODEL


def test_nothing_to_cancel_is_said(worker):
    assert worker.cancel() is False


def test_a_worker_that_cannot_start_says_why(request_):
    runner = WorkerRunner(arguments=("-c", "raise SystemExit('no torch here')"))
    with pytest.raises(RunnerError, match="could not start.*no torch here"):
        runner.run(request_)
    runner.close()


def test_a_closed_runner_refuses_and_leaves_no_process(request_):
    runner = WorkerRunner()
    runner.start(MODEL)
    runner.close()
    assert runner.pid is None
    with pytest.raises(RunnerError, match="was closed"):
        runner.run(request_)


def test_a_restarted_worker_is_another_one_and_answers(worker, request_):
    worker.run(request_)
    first = worker.pid
    worker.restart()
    assert worker.run(request_).info.model_name == MODEL
    assert worker.pid not in (None, first)


def test_a_model_without_classes_embeds_all_the_same(in_process, request_, embedding, monkeypatch):
    loaded = ModelCache.get

    def without_classes(cache, *given, **options):
        model = loaded(cache, *given, **options)
        return replace(model, bundle=replace(model.bundle, class_names=(), class_colors=()))

    monkeypatch.setattr(ModelCache, "get", without_classes)
    seen = in_process.run(request_)
    assert (dict(seen.probabilities), dict(seen.class_colors)) == ({}, {})
    assert np.abs(seen.vector - embedding.vector).max() < 1e-5


def test_an_embedding_is_float32_where_answers_are_not(in_process, request_):
    engine = Engine(default_precision="auto")
    engine.run(RunRequest(MODEL, request_.volume, [request_.box], RunOptions()))
    seen = engine.embed(replace(request_, options=RunOptions(precision="auto")))
    assert "bfloat16" not in seen.info.device
    assert np.array_equal(seen.vector, in_process.run(request_).vector)


def test_a_model_lies_in_memory_once_for_answers_and_embeddings():
    cache, cpu = ModelCache(), torch.device("cpu")
    measured, exact = cache.get(MODEL, cpu, "auto"), cache.get(MODEL, cpu, "float32")
    network = measured.bundle.network
    assert getattr(network, "exact", network) is exact.bundle.network


def out_of_memory(monkeypatch, method: str, times: int) -> None:
    """The next ``times`` calls of a classifier's ``method`` find the GPU's memory full."""
    honest, left = getattr(Classifier, method), [times]

    def full(*given, **named):
        if left[0]:
            left[0] -= 1
            msg = "CUDA out of memory. Tried to allocate 2.00 GiB"
            raise torch.OutOfMemoryError(msg)
        return honest(*given, **named)

    monkeypatch.setattr(Classifier, method, full)


@pytest.mark.parametrize("method", ["classify", "embed_checked", "similarity_to"])
def test_out_of_gpu_memory_falls_back_to_the_cpu_and_says_so(in_process, request_, embedding, monkeypatch, method):
    out_of_memory(monkeypatch, method, times=1)
    asked = replace(request_, query_only=method == "embed_checked", similar_to=np.roll(embedding.vector, 3))
    seen = in_process.run(asked)
    assert [warning.name for warning in seen.warnings] == [WarningName.GPU_MEMORY]
    assert np.abs(seen.vector - embedding.vector).max() < 1e-5
    assert seen.info.device == "cpu"


def test_no_memory_even_on_the_cpu_is_a_sentence(in_process, request_, monkeypatch):
    out_of_memory(monkeypatch, "embed_checked", times=2)
    with pytest.raises(RunnerError, match="not enough memory to answer box 'golden lesion'"):
        in_process.run(replace(request_, query_only=True))
