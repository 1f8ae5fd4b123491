"""Slicer's runner on a real server over TLS: the same answer as here, and a clear word for all that can go wrong."""

from __future__ import annotations

import json
import shutil
import socket
import socketserver
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler

import numpy as np
import pytest
from LesionLib.errors import BoxError, BundleError
from LesionLib.inference.messages import (
    EmbeddingRequest,
    RunnerCancelled,
    RunnerError,
    RunOptions,
    RunRequest,
)
from LesionLib.inference.runner import InProcessRunner, WorkerRunner
from LesionLib.phantom.nodules import nodule_patch
from LesionLib.remote import runner as remote
from LesionLib.remote.runner import RemoteRunner, ServerAddress
from scored_model import NAME, small_model
from served import self_signed, serving

FLOAT32 = RunOptions(precision="float32", answer_anyway=True)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder of models that the server finds by name."""
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(small_model(), folder / NAME)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LESIONLENS_MODELS", str(folder))
        yield folder


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the certificate, is not here")
    return self_signed(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def department(models, pair):
    with serving(NAME, tls=pair) as running:
        yield running


@pytest.fixture
def runner(department, pair):
    remote_runner = RemoteRunner(department.address, certificate=pair[0])
    yield remote_runner
    remote_runner.close()


@pytest.fixture(scope="module")
def question():
    volume, nodule = nodule_patch(kind="lobulated", diameter_mm=14.0, seed=3, size_mm=90.0)
    boxes = [replace(nodule.box, name="A"), replace(nodule.box.grown(2.0), name="B")]
    return RunRequest(NAME, volume, boxes, replace(FLOAT32, box_jitter=2))


def test_the_answer_over_tls_is_the_one_of_this_process_bit_for_bit(runner, question, models):
    told = []
    here, there = InProcessRunner().run(question), runner.run(question, progress=lambda *now: told.append(now))
    assert here.info == there.info
    assert here.class_colors == there.class_colors
    for one, other in zip(here.results, there.results, strict=True):
        assert one.probabilities == other.probabilities
        assert one.scores == other.scores
        assert one.warnings == other.warnings
        assert one.embedding.tobytes() == other.embedding.tobytes()
        assert np.array_equal(one.heat_map.array, other.heat_map.array)
        assert np.array_equal(one.heat_map.ijkToRAS, other.heat_map.ijkToRAS)
        assert one.reliability.to_json() == other.reliability.to_json()
        assert other.box is question.boxes[there.results.index(other)]
    assert told[-1] == (2, 2, "")


def test_a_question_of_the_retrieval_panel_is_answered_too(runner, question, models):
    box = question.boxes[0]
    asked = EmbeddingRequest(str(models / NAME), question.volume, box)
    similar = InProcessRunner().run(asked)
    compared = replace(asked, similar_to=similar.vector)
    here, there = InProcessRunner().run(compared), runner.run(compared)
    assert here.vector.tobytes() == there.vector.tobytes()
    assert np.array_equal(here.heat_map.array, there.heat_map.array)
    assert here.info == there.info


def test_where_the_whole_ct_is_asked_for_it_is_sent(department, pair, question, monkeypatch):
    sent = []
    honest = remote.question_to_bytes
    monkeypatch.setattr(
        remote, "question_to_bytes", lambda request, reach: sent.append(reach) or honest(request, reach)
    )
    RemoteRunner(department.address, certificate=pair[0], sends_whole=True).run(question)
    assert sent == [None]


def test_the_server_says_which_models_it_has_and_who_each_is(runner, models):
    assert NAME in runner.models()
    here, there = InProcessRunner().describe(NAME), runner.describe(NAME)
    assert (here.sha256, here.spec, here.class_names) == (there.sha256, there.spec, there.class_names)


def test_nothing_of_a_run_stays_on_the_server(runner, question, department):
    runner.run(question)
    assert len(department.service.runs) == 0


def test_a_model_that_is_not_there_is_named_with_those_that_are(runner, question):
    with pytest.raises(BundleError, match=rf"no model 'elsewhere'; it has .*{NAME}"):
        runner.run(replace(question, model="elsewhere"))


def test_a_path_of_the_server_s_disk_is_no_model(department, models):
    status, refused, _ = department.ask("GET", f"/api/models/{str(models / NAME).replace('/', '%2F')}")
    assert status == 404
    assert refused["message"]


def test_an_error_of_the_box_is_the_error_it_is_here(runner, question):
    far = replace(question.boxes[0], centerRAS=question.boxes[0].centerRAS + 500)
    with pytest.raises(BoxError, match="outside the volume"):
        runner.run(replace(question, boxes=[far]))


def test_a_wrong_token_is_said_so_and_never_repeated(department, pair, question):
    with pytest.raises(RunnerError, match="does not know this token") as raised:
        RemoteRunner(department.address.partition("#")[0], "s3cret", certificate=pair[0]).run(question)
    assert "s3cret" not in str(raised.value)


def test_a_certificate_that_is_not_trusted_ends_before_anything_is_sent(department, question):
    with pytest.raises(RunnerError, match="not trusted here .* nothing was sent"):
        RemoteRunner(department.address).run(question)


def test_a_certificate_of_another_name_is_not_trusted(models, tmp_path, question, pair):
    other = self_signed(tmp_path, name="elsewhere.example")
    with (
        serving(NAME, tls=other, runner=idle_worker()) as running,
        pytest.raises(RunnerError, match="not trusted here"),
    ):
        RemoteRunner(running.address, certificate=other[0]).run(question)


def idle_worker() -> WorkerRunner:
    """One that is never asked: it loads no torch."""
    return WorkerRunner(arguments=("-c", "import sys; sys.stdin.read()"))


def test_a_certificate_file_that_is_none_is_said_so(department, tmp_path, question):
    (tmp_path / "no.pem").write_text("no certificate")
    for name in ("no.pem", "missing.pem"):
        with pytest.raises(RunnerError, match="cannot be read as a certificate"):
            RemoteRunner(department.address, certificate=tmp_path / name).run(question)


def test_no_server_a_foreign_one_and_one_without_tls_are_told_apart(question, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(RunnerError, match="no server listens at"):
        RemoteRunner(f"http://127.0.0.1:{port}", "t").run(question)
    with pytest.raises(RunnerError, match="no computer 'nowhere.invalid'"):
        RemoteRunner("https://nowhere.invalid:1", "t").run(question)
    with foreign(lambda handler: answer(handler, 200, {})) as port:
        with pytest.raises(RunnerError, match="no server of LesionLens"):
            RemoteRunner(f"http://127.0.0.1:{port}", "t").run(question)
        with pytest.raises(RunnerError, match="does not speak TLS"):
            RemoteRunner(f"https://127.0.0.1:{port}", "t").run(question)


def test_a_server_of_another_version_is_named_with_both_versions(question):
    headers = {"LesionLens-API": "99", "LesionLens-Version": "9.9.9"}
    with (
        foreign(lambda handler: answer(handler, 200, headers)) as port,
        pytest.raises(RunnerError, match=r"server runs LesionLens 9\.9\.9, this computer 0\.\d"),
    ):
        RemoteRunner(f"http://127.0.0.1:{port}", "t").run(question)


def test_a_server_that_ends_in_the_middle_is_said_so(question):
    with (
        foreign(lambda handler: handler.connection.close()) as port,
        pytest.raises(RunnerError, match="the connection to .* broke"),
    ):
        RemoteRunner(f"http://127.0.0.1:{port}", "t").run(question)


@pytest.mark.parametrize(
    "address", ["", "ftp://a", "http://elsewhere:8765/#token=s3cret", "https://a:port", "nonsense"]
)
def test_what_is_no_address_is_refused_at_once_without_its_token(address):
    with pytest.raises(RunnerError, match=r"address|encrypted") as raised:
        RemoteRunner(address)
    assert "s3cret" not in str(raised.value)


def test_the_address_is_taken_as_the_server_prints_it():
    address, token = ServerAddress.parsed(" https://gpu.example:8765/#token=abc ")
    assert (str(address), token) == ("https://gpu.example:8765", "abc")


@pytest.fixture
def long(question):
    """A request that takes far longer than any test."""
    return replace(question, options=replace(question.options, box_jitter=100), boxes=question.boxes * 40)


def test_a_run_is_cancelled_there_and_the_next_one_is_answered(department, runner, question, long):
    raised = []

    def ask() -> None:
        try:
            runner.run(long)
        except RunnerCancelled as error:
            raised.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    while not len(department.service.runs):
        time.sleep(0.005)
    assert runner.cancel()
    thread.join(10)
    assert len(raised) == 1
    assert len(department.service.runs) == 0
    assert runner.run(question).results[0].probabilities


def test_a_runner_that_was_closed_asks_no_more(runner, question):
    runner.close()
    with pytest.raises(RunnerError, match="was closed"):
        runner.run(question)


def test_a_worker_that_is_killed_in_the_middle_is_said_and_the_next_run_is_answered(department, runner, question, long):
    worker = department.service.queue.runners[0]

    def kill() -> None:
        while not any(job.state == "running" for job in department.service.runs._jobs.values()):
            time.sleep(0.005)
        worker._process.kill()

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(RunnerError, match="stopped in the middle of the request"):
        runner.run(long)
    thread.join()
    assert runner.run(question).results[0].probabilities


def test_a_message_that_is_damaged_on_the_way_is_not_answered(department):
    kind = "application/x-lesionlens-frame"
    status, refused, _ = department.ask(
        "POST", "/api/runs", b"LLW1", kind=kind, headers={"Content-Digest": "sha-256=:AA==:"}
    )
    assert (status, "did not arrive whole" in refused["message"]) == (400, True)
    status, refused, _ = department.ask(
        "POST", "/api/runs", b"LLW1", kind=kind, headers={"Content-Digest": remote.digest_of(b"LLW1")}
    )
    assert (status, "cannot be read" in refused["message"]) == (400, True)


class foreign:
    """Another server on this computer that does ``what`` with every request."""

    def __init__(self, what) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                what(self)

            def log_message(self, *_arguments) -> None:
                pass

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.handle_error = lambda *_arguments: None

    def __enter__(self) -> int:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self._server.server_address[1]

    def __exit__(self, *_exception) -> None:
        self._server.shutdown()
        self._server.server_close()


def answer(handler: BaseHTTPRequestHandler, status: int, headers: dict) -> None:
    body = json.dumps({}).encode()
    handler.send_response(status)
    for name, value in {**headers, "Content-Length": str(len(body))}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)
