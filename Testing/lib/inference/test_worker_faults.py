"""Whatever happens to a worker's reading thread or to its parent: the worker ends, and the one who asked hears it at once."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import textwrap
from contextlib import closing
from io import BytesIO
from pathlib import Path
from time import monotonic, sleep

import numpy as np
import pytest
from LesionLib.inference.messages import RunnerError, RunOptions, RunRequest, WireError, read_frame, write_frame
from LesionLib.inference.process import WORKER_ARGUMENTS, worker_environment, worker_python
from LesionLib.inference.runner import WorkerRunner
from LesionLib.model.folder import golden_case

MODEL = "lung-nodule-malignancy"
posix_only = pytest.mark.skipif(os.name != "posix", reason="asks /proc who is still there")

# The worker's own loop, with an engine that needs no torch and sleeps when it is asked.
SLEEPER = """
import sys, time
from LesionLib.inference import worker
class Engine:
    def warm(self, model, options): pass
    def run(self, request, **_): time.sleep(60)
    embed = run
worker._engine = Engine
{before}
worker.main()
"""


def head(header: bytes) -> bytes:
    return struct.pack("<4sI", b"LLW1", len(header)) + header


def frame(header: object) -> bytes:
    return head(json.dumps(header).encode())


def array(**described: object) -> bytes:
    return frame({"kind": "run", "id": 1, "arrays": [{"dtype": "<i2", "shape": [1], **described}]})


FAULTS = {
    "not a frame": b"hello, worker",
    "a header that is no JSON": head(b"{"),
    "a header that is a list": frame([]),
    "a header that is text": frame("abc"),
    "a header of bytes that are no text": head(b"\xff\xfe\x00"),
    "a header of the size of a film": struct.pack("<4sI", b"LLW1", 2**31),
    "a header without kind": frame({"id": 1, "arrays": []}),
    "a header without number": frame({"kind": "run", "arrays": []}),
    "a number that is a list": frame({"kind": "cancel", "id": [1], "arrays": []}),
    "a number that is nothing": frame({"kind": "cancel", "id": None, "arrays": []}),
    "no list of arrays": frame({"kind": "run", "id": 1}),
    "arrays that are a number": frame({"kind": "run", "id": 1, "arrays": 7}),
    "an array of objects": array(dtype="O"),
    "an array of a type in brackets": array(dtype="(2,"),
    "an array of a type by name": array(dtype={"names": ["a"], "formats": ["O"]}),
    "an array of text": array(dtype="U5"),
    "an array of infinite length": head(b'{"kind":"run","id":1,"arrays":[{"dtype":"<i2","shape":[1e999]}]}'),
    "an array of negative length": array(shape=[-1]),
    "an array larger than any CT": array(shape=[2**40]),
    "an array of a hundred dimensions": array(shape=[1] * 100),
    "an array of nothing times everything": array(shape=[0, 2**62, 2**62]),
    "a deep header": head(b'{"kind":"run","id":1,"arrays":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_whatever_is_no_message_is_a_wire_error_or_the_end(name):
    try:
        got = read_frame(BytesIO(FAULTS[name]))
    except (WireError, EOFError) as error:
        assert len(str(error)) < 2000
    else:  # what it says is the worker's to look at
        assert {"kind", "id"} - got.header.keys() or not isinstance(got.header["id"], int)


@pytest.mark.parametrize("name", FAULTS)
def test_the_worker_ends_on_what_is_no_message(name):
    command = [str(worker_python()), "-c", SLEEPER.format(before="")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=worker_environment()
    ) as process:
        assert read_frame(process.stdout).header["kind"] == "ready"
        process.stdin.write(FAULTS[name])
        process.stdin.flush()
        started = monotonic()
        process.wait(10)
        assert monotonic() - started < 5


@pytest.mark.parametrize(
    "fault", ["MemoryError()", "KeyError('kind')", "RecursionError()", "SystemExit(0)", "KeyboardInterrupt()"]
)
def test_a_fault_of_the_reading_thread_is_told_at_once(fault):
    before = textwrap.dedent(f"""
        honest, count = worker.read_frame, 0
        def read_frame(*arguments):
            global count
            count += 1
            if count > 2:
                raise {fault}
            return honest(*arguments)
        worker.read_frame = read_frame
    """)
    volume, box = golden_case()
    with closing(WorkerRunner(arguments=("-c", SLEEPER.format(before=before)))) as runner:
        runner.start(MODEL)  # the first frame; the question is the second, in the middle of which the third fails
        started = monotonic()
        with pytest.raises(RunnerError, match=r"the worker (stopped in the middle|could not start).*exit code 3"):
            runner.run(RunRequest(MODEL, volume, [box]))
        assert monotonic() - started < 10


BABBLER = """
import os, sys
from LesionLib.inference.messages import read_frame, write_frame
requests, replies = os.fdopen(0, "rb", 0), os.fdopen(1, "wb", 0)
write_frame(replies, {"kind": "ready", "id": 0})
while True:
    frame = read_frame(requests)
    if frame.header["kind"] == "warm":
        write_frame(replies, {"kind": "warm", "id": frame.header["id"]})
    else:
        header = eval(sys.argv[1])
        write_frame(replies, {"id": frame.header["id"], **header} if isinstance(header, dict) else header)
"""


@pytest.mark.parametrize(
    "answer",
    [
        "{'kind': 'answer'}",
        "{'kind': 'answer', 'results': 7, 'info': {}, 'class_names': [], 'class_colors': [], 'precision': {}}",
        "{'kind': 'answer', 'results': [{}], 'info': {}, 'class_names': [], 'class_colors': [], 'precision': {}}",
        "{'kind': 'answer', 'results': [], 'info': {}, 'class_names': [], 'class_colors': [], 'precision': {}}",
        "{'kind': 'error'}",
        "{'kind': 'error', 'error': 'SystemExit', 'message': 'x'}",
        "{'id': None, 'nothing': 1}",
    ],
)
def test_an_answer_that_is_none_is_an_error_of_the_runner(answer):
    volume, box = golden_case()
    with closing(WorkerRunner(arguments=("-c", BABBLER, answer))) as runner, pytest.raises(RunnerError):
        runner.run(RunRequest(MODEL, volume, [box]))


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


# A child that was forked, without exec, holds every pipe of its parent open.
FORKING_PARENT = """
import os, sys, time
from LesionLib.inference.runner import WorkerRunner
runner = WorkerRunner(arguments=("-c", {sleeper!r}))
runner.start()
runner.wait_until_warm()
child = os.fork()
if child == 0:
    time.sleep(60)
    os._exit(0)
print(runner.pid, child, flush=True)
time.sleep(60)
"""


@posix_only
def test_a_worker_ends_with_its_parent_though_another_process_holds_the_pipe():
    command = [sys.executable, "-c", FORKING_PARENT.format(sleeper=SLEEPER.format(before=""))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=worker_environment()) as process:
        pid, child = map(int, process.stdout.readline().split())
        try:
            assert running(pid)
            process.kill()
            deadline = monotonic() + 20
            while running(pid) and monotonic() < deadline:
                sleep(0.05)
            assert not running(pid)
            assert running(child)
        finally:
            os.kill(child, signal.SIGKILL)


@posix_only
def test_a_worker_whose_interpreter_is_held_ends_too():
    """No thread of Python can run then: the timer of the fault handler does."""
    before = textwrap.dedent("""
        worker._STUCK_S = 2.0
        def hold(self, request, **_): pow(3, 10 ** 9)
        Engine.run = hold
    """)
    volume, box = golden_case()
    with closing(WorkerRunner(arguments=("-c", SLEEPER.format(before=before)))) as runner:
        started = monotonic()
        with pytest.raises(RunnerError, match=r"stopped in the middle of the request"):
            runner.run(RunRequest(MODEL, volume, [box]))
        assert monotonic() - started < 30


def test_a_worker_that_only_waits_is_left_alone():
    with closing(WorkerRunner(arguments=("-c", SLEEPER.format(before="worker._STUCK_S = 2.0")))) as runner:
        runner.start(MODEL, RunOptions())
        runner.wait_until_warm()
        pid = runner.pid
        sleep(4)
        assert runner.pid == pid
        assert WORKER_ARGUMENTS == ("-m", "LesionLib.inference.worker")


def test_a_frame_without_anything_is_still_a_frame():
    stream = BytesIO()
    write_frame(stream, {}, [np.arange(3)])
    assert read_frame(BytesIO(stream.getvalue())).header == {}
