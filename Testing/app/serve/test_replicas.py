"""Models on several GPUs or nodes: what a replica says, what its runner makes of it, and a real Ray of this computer alone."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from LesionLensApp.serve.replicas import Replica, ReplicaRunner
from LesionLib.errors import BundleError
from LesionLib.inference.messages import RunnerCancelled, RunnerError, RunOptions, RunRequest
from LesionLib.inference.process import worker_threads
from LesionLib.inference.runner import InProcessRunner
from LesionLib.phantom.nodules import nodule_patch
from served import Served, Visitor, serving

MODEL = "lung-nodule-malignancy"
LOOPBACK = {
    "0100007F",
    "0000000000000000FFFF00000100007F",
    "00000000000000000000000001000000",
}  # as the kernel writes it
HAS_SERVE = find_spec("ray") is not None and find_spec("pydantic") is not None


class Answering:
    """A replica's answer as Ray hands it on: one thing after the other, until it is cancelled."""

    def __init__(self, said) -> None:
        self._said, self._loop = said, asyncio.new_event_loop()
        self._next: asyncio.Task | None = None

    def __iter__(self) -> Iterator[tuple]:
        try:
            while True:
                self._next = self._loop.create_task(anext(self._said))
                try:
                    yield self._loop.run_until_complete(self._next)
                except StopAsyncIteration:
                    return
        finally:
            self._loop.run_until_complete(self._said.aclose())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()

    def cancel(self) -> None:
        self._loop.call_soon_threadsafe(self._next.cancel)


class Method:
    def __init__(self, method) -> None:
        self._method = method

    def options(self, *, stream: bool) -> Method:
        assert stream
        return self

    def remote(self, *given) -> Answering:
        return Answering(self._method(*given))


class Here:
    """What Ray Serve gives for a deployment, with one replica in this process."""

    def __init__(self, replica: Replica) -> None:
        self.describe, self.run = Method(replica.describe), Method(replica.run)


@pytest.fixture(scope="module")
def replica() -> Replica:
    return Replica(is_local=False)


@pytest.fixture
def runner(replica) -> ReplicaRunner:
    return ReplicaRunner(Here(replica))


@pytest.fixture(scope="module")
def question() -> RunRequest:
    volume, nodule = nodule_patch(kind="lobulated", diameter_mm=14.0, seed=3, size_mm=90.0)
    return RunRequest(MODEL, volume, [nodule.box], RunOptions(precision="float32", device="cpu"))


@contextmanager
def as_many_threads_as_a_worker() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(worker_threads())
    yield
    torch.set_num_threads(before)


def test_a_replica_s_answer_is_the_one_of_this_process_to_the_last_digit(runner, question):
    told = []
    with as_many_threads_as_a_worker():  # a sum over two threads rounds otherwise than over one
        here = InProcessRunner().run(question)
    there = runner.run(question, progress=lambda *now: told.append(now))
    assert here.info == there.info
    for one, other in zip(here.results, there.results, strict=True):
        assert one.probabilities == other.probabilities
        assert one.warnings == other.warnings
        assert one.embedding.tobytes() == other.embedding.tobytes()
        assert np.array_equal(one.heat_map.array, other.heat_map.array)
        assert other.box is question.boxes[0]
    assert (told[0][:2], told[-1]) == ((0, 1), (1, 1, ""))
    assert runner.describe(MODEL).sha256 == there.info.model_sha256


def test_what_a_user_can_mend_comes_back_as_the_error_that_it_is(runner):
    with pytest.raises(BundleError, match="unknown model"):
        runner.describe("no-such-model")


def test_a_question_to_a_replica_is_cancelled_and_the_next_one_answered(runner, question):
    many = RunRequest(MODEL, question.volume, list(question.boxes) * 200, question.options)

    def cancel_at_the_third(done: int, _total: int, _name: str) -> None:
        if done == 2:
            Thread(target=runner.cancel).start()

    started = time.monotonic()
    with pytest.raises(RunnerCancelled):
        runner.run(many, progress=cancel_at_the_third)
    assert time.monotonic() - started < 30
    assert runner.cancel() is False
    assert runner.run(question).results[0].probabilities


def test_a_closed_runner_asks_nobody(replica, question):
    runner = ReplicaRunner(Here(replica))
    runner.close()
    with pytest.raises(RunnerError, match="closed"):
        runner.run(question)


def test_two_runners_answer_two_people_at_a_time(replica, shelf, box):
    runners = [ReplicaRunner(Here(one)) for one in (replica, Replica(is_local=False))]
    with serving(MODEL, runners=runners, folder=shelf, device="cpu") as running:
        people = [running.session() for _ in range(3)]
        for one, count in zip(people, (30, 30, 1), strict=True):
            one.got("PUT", "ct", {"path": "patch.nrrd"})
            one.got("PUT", "boxes", {"boxes": [{**box, "name": f"L{n}"} for n in range(count)]})
            one.got("POST", "job", {"boxJitter": 2})
        until(lambda: [one.got("GET", "job")["state"] for one in people].count("running") == 2)
        waiting = people[2]
        assert waiting.got("GET", "job")["state"] == "queued"
        assert waiting.got("GET", "job")["place"] == 1
        for one in people[:2]:
            one.ask("DELETE", "job")
        assert waiting.waited(120)["state"] == "done"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--replicas", "2"], "--replicas goes with --ray"),
        (["--ray", "ray://head:10001"], "start the server there, with --ray auto"),
        (["--ray", "local", "--device", "cuda:1"], "a GPU of its own"),
        (["--ray", "local", "--replicas", "0"], "--replicas is 0"),
        (["--ray", "127.0.0.1:1"], "no Ray cluster answers at 127.0.0.1:1"),
    ],
)
def test_options_of_ray_that_cannot_be_are_refused(run, monkeypatch, given, said):
    there = find_spec
    monkeypatch.setattr("LesionLensApp.serve.commands.find_spec", lambda name: there(name) or name == "pydantic")
    ran = run("serve", "--model", MODEL, *given)
    assert ran.code == 2
    assert said in ran.err


@pytest.mark.parametrize("missing", ["ray", "pydantic"])
def test_without_ray_serve_it_is_said_how_to_get_it(run, monkeypatch, missing):
    monkeypatch.setattr("LesionLensApp.serve.commands.find_spec", lambda name: None if name == missing else name)
    ran = run("serve", "--model", MODEL, "--ray", "local")
    assert ran.code == 2
    assert "pip install 'lesionlens[ray]'" in ran.err


def marked(mark: str) -> list[int]:
    """The processes that descend from one with this in its environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (process / "environ").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return found


def listening(processes: list[int]) -> set[str]:
    """The addresses, as the kernel writes them, at which these processes listen."""
    sockets = set()
    for number in processes:
        for link in Path(f"/proc/{number}/fd").glob("*"):
            try:
                sockets.add(os.readlink(link))
            except OSError:
                continue
    lines = [
        line.split() for kind in ("tcp", "tcp6") for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]
    ]
    return {line[1].partition(":")[0] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in sockets}


@contextmanager
def process_on_ray(folder: Path, shelf: Path, mark: str, said: list[str]) -> Iterator[tuple[Served, subprocess.Popen]]:
    """``lesionlens serve --ray local`` as a process of its own, while it runs; ``said``: what it wrote of itself."""
    environment = {**os.environ, "TMPDIR": str(folder), "XDG_CONFIG_HOME": str(folder), "LESIONLENS_MARK": mark}
    command = [
        sys.executable,
        "-m",
        "LesionLensApp.cli",
        "serve",
        "--ray",
        "local",
        "--replicas",
        "2",
        "--device",
        "cpu",
    ]
    process = subprocess.Popen(
        [*command, "--port", "0", "--model", MODEL, "--folder", str(shelf)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    try:
        address = urlsplit(process.stdout.readline().strip())
        assert address.hostname == "127.0.0.1", process.communicate(timeout=60)[1]
        until(lambda: is_listening(address.port))
        yield Served(address.port, None, token=address.fragment.removeprefix("token=")), process
    finally:
        process.send_signal(signal.SIGTERM)
        said.append(process.communicate(timeout=60)[1])


def is_listening(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)


def with_boxes(person: Visitor, boxes: list[dict]) -> Visitor:
    person.got("PUT", "ct", {"path": "patch.nrrd"})
    person.got("PUT", "boxes", {"boxes": boxes})
    return person


@pytest.mark.skipif(not HAS_SERVE, reason="Ray Serve is not installed: pip install 'lesionlens[ray]'")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at processes and sockets in /proc")
def test_a_server_on_a_local_ray_answers_cancels_listens_on_loopback_alone_and_leaves_no_process(tmp_path, shelf, box):
    mark = f"lesionlens-test-{os.getpid()}-{time.monotonic_ns()}"
    said: list[str] = []
    with process_on_ray(tmp_path, shelf, mark, said) as (server, process):
        people = [with_boxes(server.session(), [box]) for _ in range(2)]
        for person in people:
            person.got("POST", "job", {})
        assert [person.waited(120)["state"] for person in people] == ["done", "done"]
        results = [person.got("GET", "results.json")["results"] for person in people]
        with serving(MODEL, folder=shelf, device="cpu") as single:
            alone = with_boxes(single.session(), [box])
            alone.classified()
            assert results == [alone.got("GET", "results.json")["results"]] * 2
        busy = with_boxes(people[0], [{**box, "name": f"L{n}"} for n in range(200)])
        busy.got("POST", "job", {"boxJitter": 8})
        until(lambda: busy.got("GET", "job")["done"] > 0)
        busy.ask("DELETE", "job")
        assert busy.waited()["state"] == "cancelled"
        addresses = listening(marked(mark))
    assert addresses
    assert addresses <= LOOPBACK
    assert process.returncode == 128 + signal.SIGTERM
    until(lambda: not marked(mark))
    assert list(tmp_path.glob("lesionlens-*")) == []
    assert list(Path("/tmp").glob(f"lesionlens-serve-{process.pid}-*")) == []
    assert server.token not in said[0]
