"""Looks at lesions: the same in the process and in a worker, which is cancelled, refused, closed and gone in plain words."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from LesionLib.errors import BoxError, BundleError
from LesionLib.runner_types import RunnerCancelled, RunnerError
from LesionRetrievalLib.retrieval_codec import (
    look_from_frame,
    look_request_from_frame,
    look_request_to_frame,
    look_to_frame,
)
from LesionRetrievalLib.retrieval_runner import InProcessLookRunner, WorkerLookRunner
from LesionRetrievalLib.retrieval_types import LookRequest, describing_request

MODEL = "lung-nodule-malignancy"


@pytest.fixture(scope="module")
def request_():
    return describing_request(MODEL)


@pytest.fixture(scope="module")
def worker():
    runner = WorkerLookRunner()
    yield runner
    runner.close()


@pytest.fixture(scope="module")
def look(request_):
    return InProcessLookRunner().run(request_)


def test_a_look_has_a_unit_embedding_and_probabilities_that_add_up(look):
    assert np.linalg.norm(look.embedding) == pytest.approx(1, abs=1e-5)
    assert sum(look.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert set(look.class_colors) == set(look.probabilities)
    assert look.model.name == MODEL
    assert look.heat_map is None


def test_the_worker_sees_what_the_process_itself_sees(worker, request_, look):
    seen = worker.run(request_)
    assert np.abs(seen.embedding - look.embedding).max() < 1e-5
    assert seen.probabilities == pytest.approx(look.probabilities, abs=1e-5)
    assert (seen.model, seen.class_colors) == (look.model, look.class_colors)


def test_why_similar_comes_painted_into_the_ct(worker, request_, look):
    other = np.roll(look.embedding, 3)
    here = InProcessLookRunner().run(replace(request_, similar_to=other)).heat_map
    there = worker.run(replace(request_, similar_to=other)).heat_map
    assert here.array.max() == pytest.approx(1)
    assert np.abs(here.array - there.array).max() < 1e-2
    assert np.array_equal(here.ijkToRAS, there.ijkToRAS)


def test_requests_and_looks_survive_the_wire(request_, look):
    asked = replace(request_, similar_to=look.embedding)
    back = look_request_from_frame(look_request_to_frame(asked))
    assert np.array_equal(back.similar_to, look.embedding)
    assert np.array_equal(back.volume.array, request_.volume.array)
    assert np.array_equal(back.boxes[0].segment.array, request_.boxes[0].segment.array)
    assert look_request_from_frame(look_request_to_frame(request_)).similar_to is None
    again = look_from_frame(look_to_frame(look))
    assert np.array_equal(again.embedding, look.embedding)
    assert (again.model, again.device, again.heat_map) == (look.model, look.device, None)


def test_what_is_wrong_is_told_as_it_was_raised(worker, request_):
    with pytest.raises(BundleError, match="unknown model 'liver'"):
        worker.run(replace(request_, model="liver"))
    with pytest.raises(BoxError, match="one lesion"):
        worker.run(replace(request_, boxes=[*request_.boxes, *request_.boxes]))
    assert worker.run(request_).model.name == MODEL


def test_cancel_kills_the_worker_and_the_next_request_finds_another(worker, request_):
    worker.run(request_)
    first, ended = worker.pid, []

    def ask():
        try:
            big = replace(request_.volume, array=np.tile(request_.volume.array, (40, 4, 4)))
            worker.run(LookRequest(MODEL, big, request_.boxes))
        except RunnerCancelled as error:
            ended.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    end = time.monotonic() + 20
    while not worker.cancel() and time.monotonic() < end:
        time.sleep(0.001)
    thread.join(20)
    assert len(ended) == 1
    assert worker.run(request_).model.name == MODEL
    assert worker.pid not in (None, first)


def test_nothing_to_cancel_is_said(worker):
    assert worker.cancel() is False


def test_a_worker_that_cannot_start_says_why(request_):
    runner = WorkerLookRunner(arguments=("-c", "raise SystemExit('no torch here')"))
    with pytest.raises(RunnerError, match="could not start.*no torch here"):
        runner.run(request_)
    runner.close()


def test_a_closed_runner_refuses_and_leaves_no_process(request_):
    runner = WorkerLookRunner()
    runner.start(MODEL)
    runner.close()
    assert runner.pid is None
    with pytest.raises(RunnerError, match="was closed"):
        runner.run(request_)


def test_a_model_without_classes_is_looked_with_all_the_same(request_, look, monkeypatch):
    from LesionLib.runner_models import ModelCache

    loaded = ModelCache.get

    def without_classes(cache, *given):
        model = loaded(cache, *given)
        return replace(model, bundle=replace(model.bundle, class_names=(), class_colors=()))

    monkeypatch.setattr(ModelCache, "get", without_classes)
    seen = InProcessLookRunner().run(request_)
    assert (dict(seen.probabilities), dict(seen.class_colors)) == ({}, {})
    assert np.abs(seen.embedding - look.embedding).max() < 1e-5
