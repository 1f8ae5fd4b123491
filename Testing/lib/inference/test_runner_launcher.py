"""A worker behind a launcher such as PythonSlicer: it survives the launcher that is killed, and must end all the same."""

from __future__ import annotations

import os
import signal
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from threading import Thread
from time import monotonic, sleep

import numpy as np
import pytest
from LesionLib.inference.messages import EmbeddingRequest, RunnerCancelled, RunOptions, RunRequest
from LesionLib.inference.runner import WorkerRunner
from LesionLib.model.folder import golden_case
from scored_model import small_model

FLOAT32 = RunOptions(precision="float32")
pytestmark = pytest.mark.skipif(os.name != "posix", reason="asks /proc and process groups who is still there")

# The worker's own main, in which cutting out the lesion "slow" takes a minute.
SLOW_WORKER = """
import os, sys, time
with open(sys.argv[1], "w") as file:
    file.write(str(os.getpid()))
time.sleep(float(sys.argv[2]))
from LesionLib.inference import worker
make_engine = worker._engine
def engine():
    made = make_engine()
    from LesionLib.sampling import batches
    honest = batches.crop_sample
    def cut(volume, box, spec):
        if box.name == "slow":
            time.sleep(60)
        return honest(volume, box, spec)
    batches.crop_sample = cut
    return made
worker._engine = engine
worker.main()
"""
# In a group of its own the worker survives a signal to the launcher's group, as it survives the launcher on Windows.
LAUNCHER = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", *sys.argv[1:]], start_new_session=True)
sys.exit(child.wait())
"""


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone_within(seconds: float, pid: int) -> bool:
    deadline = monotonic() + seconds
    while running(pid) and monotonic() < deadline:
        sleep(0.02)
    return not running(pid)


@pytest.fixture
def launched(tmp_path):
    """``launched(late=0.0)``: a runner whose worker is a launcher's child, and how to ask for the worker's own pid."""
    pid_file, runners = tmp_path / "pid", []

    def worker_pid() -> int:
        while not (pid_file.exists() and pid_file.read_text()):
            sleep(0.01)
        return int(pid_file.read_text())

    def launch(*, late: float = 0.0):
        runners.append(WorkerRunner(arguments=("-c", LAUNCHER, SLOW_WORKER, str(pid_file), str(late))))
        return runners[-1], worker_pid

    yield launch
    for runner in runners:
        runner.close()
    with suppress(FileNotFoundError, ProcessLookupError, ValueError):
        os.kill(int(pid_file.read_text()), signal.SIGKILL)


def classify(volume, box):
    return RunRequest(small_model(), volume, [box], FLOAT32)


def embed(volume, box):
    return EmbeddingRequest(small_model(), volume, box, FLOAT32)


def cancelled_after(runner, request, *, pressed: float) -> float:
    """Ask, cancel ``pressed`` seconds after the lesion was begun; how many seconds later the cancellation was there."""
    times = []

    def press(*_):
        def wait_and_cancel():
            sleep(pressed)
            times.append(monotonic())
            runner.cancel()

        Thread(target=wait_and_cancel, daemon=True).start()

    with pytest.raises(RunnerCancelled):
        runner.run(request, progress=press)
    return monotonic() - times[0]


@pytest.mark.parametrize("kind", [classify, embed])
def test_cancel_takes_under_two_seconds_and_leaves_no_worker_though_only_the_launcher_is_killed(launched, kind):
    runner, worker_pid = launched()
    volume, box = golden_case()
    assert runner.run(kind(volume, box))
    pid, launcher = worker_pid(), runner.pid
    assert pid != launcher
    assert cancelled_after(runner, kind(volume, replace(box, name="slow")), pressed=0.3) < 2.0
    assert gone_within(2.0, pid)
    assert not running(launcher)
    assert runner.run(kind(volume, box))  # by the next worker
    assert worker_pid() != pid


def test_a_request_on_its_way_to_a_worker_that_is_late_is_cancelled_and_leaves_no_worker(launched):
    runner, worker_pid = launched(late=0.5)
    volume, box = golden_case()
    big = replace(volume, array=np.tile(volume.array, (40, 4, 4)))  # more than a pipe holds
    ended = []

    def ask():
        with pytest.raises(RunnerCancelled):
            runner.run(embed(big, box))
        ended.append(monotonic())

    thread = Thread(target=ask)
    thread.start()
    pid = worker_pid()
    while not runner.cancel():
        sleep(0.01)
    pressed = monotonic()
    thread.join(20)
    assert ended[0] - pressed < 2.0
    assert gone_within(2.0, pid)


def test_closing_ends_the_worker_behind_the_launcher(launched):
    runner, worker_pid = launched()
    runner.start(small_model(), FLOAT32)
    pid = worker_pid()
    with closing(runner):
        runner.wait_until_warm()
    assert gone_within(2.0, pid)
