"""Inference in a worker: the same answer, progress, cancellation, and a clear word for whatever ends the process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from threading import Thread
from time import monotonic, sleep

import numpy as np
import pytest
from LesionLib.errors import BoxError, BundleError, InputWarning, WarningName
from LesionLib.inference.messages import RunnerCancelled, RunnerError, RunOptions, RunRequest
from LesionLib.inference.process import worker_environment
from LesionLib.inference.runner import InProcessRunner, WorkerRunner
from LesionLib.model.folder import golden_case
from scored_model import small_model

MODEL = "lung-nodule-malignancy"
FLOAT32 = RunOptions(precision="float32")
posix_only = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")

# The process border is where faults are made: the worker's own main, with a way of cutting that does what a box's name says.
FAULTY = """
import os, time, torch
os.write(1, b"printed before the worker took hold of its output\\n")
from LesionLib.sampling import batches
from LesionLib.inference.worker import main
honest, tries_that_find_memory_full = batches.crop_sample, 2
def cut(volume, box, spec):
    global tries_that_find_memory_full
    if box.name == "sleep":
        time.sleep(60)
    if box.name == "hold the interpreter":
        pow(3, 10 ** 9)
    if box.name == "crash":
        import faulthandler; faulthandler._sigsegv()
    if box.name == "print":
        print("a stray print", flush=True); os.write(1, b"\\0LLW1 and bytes from C")
    if box.name == "bug":
        raise KeyError("a bug of ours")
    if box.name == "out of memory" and tries_that_find_memory_full:
        tries_that_find_memory_full -= 1
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    return honest(volume, box, spec)
batches.crop_sample = cut
main()
"""

# The same main without a network behind it, for what ends before there is an answer.
SLEEPING = """
import time
from LesionLib.inference import worker
class Engine:
    def warm(self, model, options): pass
    def run(self, request, *, progress, **_):
        progress(0, len(request.boxes), request.boxes[0].name)
        time.sleep(60)
worker._engine = Engine
worker.main()
"""


def a_request(*names: str, options: RunOptions = FLOAT32, model: str = MODEL) -> RunRequest:
    volume, box = golden_case()
    return RunRequest(model, volume, [replace(box, name=name) for name in names], options)


def a_small_request(*names: str) -> RunRequest:
    """Of a model that is asked in milliseconds: how a worker ends has nothing to do with which one it is."""
    return a_request(*names, model=small_model())


@pytest.fixture(scope="module")
def worker():
    with closing(WorkerRunner()) as runner:
        runner.start(MODEL)
        runner.wait_until_warm()
        yield runner


@pytest.fixture(scope="module")
def faulty():
    with closing(WorkerRunner(arguments=("-c", FAULTY))) as runner:
        runner.start(small_model(), FLOAT32)
        yield runner


@pytest.fixture(scope="module")
def in_process() -> InProcessRunner:
    runner = InProcessRunner()
    runner.start(MODEL)
    return runner


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def after(seconds: float, action) -> None:
    Thread(target=lambda: (sleep(seconds), action()), daemon=True).start()


def test_the_worker_gives_the_same_answer_as_the_process_itself(worker, in_process):
    volume, box = golden_case()
    warned = replace(volume, warnings=(InputWarning(WarningName.PHANTOM, "A phantom."),))
    asked = RunRequest(MODEL, warned, [box, box.grown(30.0)], replace(FLOAT32, class_name="malignant"))
    here, there = in_process.run(asked), worker.run(asked)
    assert here.info == there.info
    assert (here.class_names, here.class_colors) == (there.class_names, there.class_colors)
    for a, b in zip(here.results, there.results, strict=True):
        assert (a.name, a.label, a.heat_map.class_name) == (b.name, b.label, b.heat_map.class_name)
        assert b.box in asked.boxes
        assert list(a.probabilities) == list(b.probabilities)
        np.testing.assert_allclose(list(a.probabilities.values()), list(b.probabilities.values()), atol=1e-5)
        np.testing.assert_allclose(a.embedding, b.embedding, atol=1e-5)
        np.testing.assert_allclose(a.heat_map.array, b.heat_map.array, atol=1e-5)
        np.testing.assert_allclose(a.heat_map.ijkToRAS, b.heat_map.ijkToRAS)
        assert a.heat_map.peak == pytest.approx(b.heat_map.peak, rel=1e-4)
        assert a.warnings == b.warnings
        assert [w.name for w in a.warnings] == [w.name for w in b.warnings]
        assert b.warnings[0].name is WarningName.PHANTOM
    assert WarningName.BOX_SIZE in [w.name for w in there.results[1].warnings]


@pytest.mark.parametrize("runner", ["worker", "in_process"])
def test_progress_comes_in_order_and_ends_complete(runner, request):
    told = []
    runner, asked = request.getfixturevalue(runner), a_request("first", "second", "third")
    answer = runner.run(asked, progress=lambda *step: told.append(step))
    assert told == [(0, 3, "first"), (1, 3, "second"), (2, 3, "third"), (3, 3, "")]
    assert [result.name for result in answer.results] == ["first", "second", "third"]


def test_the_precision_that_was_chosen_is_told_and_keeps_the_class(worker, in_process):
    answer = worker.run(a_request("lesion", options=RunOptions()))
    assert answer.precision.name in ("float32", "bfloat16")
    assert answer.precision.reason
    measured = answer.precision.float32_ms
    assert measured > 0 if measured is not None else "does not run in bfloat16" in answer.precision.reason
    assert ("bfloat16" in answer.info.device) == (answer.precision.name == "bfloat16")
    assert answer.results[0].label == in_process.run(a_request("lesion")).results[0].label
    assert in_process.run(a_request("lesion", options=RunOptions())).precision.float32_ms is None


@pytest.mark.parametrize("runner", ["worker", "in_process"])
def test_what_is_wrong_with_the_input_is_said_as_it_is_without_a_worker(runner, request):
    runner, good = request.getfixturevalue(runner), a_request("good")
    away = replace(good.boxes[0], centerRAS=good.boxes[0].centerRAS + [500.0, 0, 0], name="away")
    told = []
    with pytest.raises(BoxError, match=r"box 'away' lies outside the volume by 4\d\d\.\d mm"):
        runner.run(replace(good, boxes=[*good.boxes, away]), progress=lambda *step: told.append(step))
    assert told == []
    with pytest.raises(BundleError, match=r"unknown model 'liver'.*lung-nodule-malignancy"):
        runner.run(a_request("lesion", model="liver"))
    with pytest.raises(BundleError, match=r"no class 'cat' to explain; it knows benign, malignant"):
        runner.run(a_request("lesion", options=RunOptions(class_name="cat")))
    with pytest.raises(RunnerError, match="unknown device 'tpu'"):
        runner.run(a_request("lesion", options=RunOptions(device="tpu")))
    assert len(runner.run(good).results) == 1


def test_a_second_request_meanwhile_is_refused_and_does_no_harm(faulty):
    refusals = []

    def ask_again(*_):
        with pytest.raises(RunnerError, match="busy with another request"):
            faulty.run(a_small_request("second"))
        refusals.append(True)

    assert faulty.run(a_small_request("first"), progress=ask_again).results
    assert refusals


def test_stray_prints_of_the_worker_are_harmless(faulty):
    answer = faulty.run(a_request("print", "lesion"))
    assert answer.results[0].probabilities == pytest.approx(answer.results[1].probabilities)


def test_out_of_gpu_memory_falls_back_to_the_cpu_with_a_warning_that_has_a_name(faulty):
    answer = faulty.run(a_request("before", "out of memory", "later"))
    names = [[w.name for w in result.warnings] for result in answer.results]
    assert names == [[], [WarningName.GPU_MEMORY], [WarningName.GPU_MEMORY]]
    assert "answered on the CPU" in answer.results[1].warnings[0]
    assert answer.info.device == "cpu"
    assert len({result.label for result in answer.results}) == 1


def test_a_bug_in_the_worker_is_told_and_the_worker_serves_on(faulty):
    pid = faulty.pid
    with pytest.raises(RunnerError, match=r"failed with KeyError: 'a bug of ours'"):
        faulty.run(a_small_request("bug"))
    assert faulty.run(a_small_request("lesion")).results
    assert faulty.pid == pid


def test_a_callback_that_raises_ends_the_request_and_the_next_one_works(faulty):
    def broken(*_):
        msg = "the panel is gone"
        raise ValueError(msg)

    with pytest.raises(ValueError, match="the panel is gone"):
        faulty.run(a_small_request("lesion"), progress=broken)
    assert faulty.run(a_small_request("lesion")).results


@pytest.mark.parametrize("box", ["sleep", "hold the interpreter"])
def test_a_long_box_is_cancelled_within_a_second_and_the_next_request_works(faulty, box):
    pressed = []

    def press(*_):
        if not pressed:
            pressed.append(monotonic() + 0.2)
            after(0.2, faulty.cancel)

    with pytest.raises(RunnerCancelled):
        faulty.run(a_small_request("lesion", box, "never reached"), progress=press)
    assert monotonic() - pressed[0] < 1.0
    assert faulty.run(a_small_request("lesion")).results
    assert not faulty.cancel()


def test_between_two_boxes_the_worker_stops_by_itself_and_stays_warm(worker):
    pid, started = worker.pid, []
    boxes = a_request(*["lesion"] * 100, model=small_model())
    with pytest.raises(RunnerCancelled):
        worker.run(boxes, progress=lambda *_: started or started.append([monotonic(), worker.cancel()]))
    assert monotonic() - started[0][0] < 1.0
    assert worker.run(a_request("lesion")).results
    assert worker.pid == pid


@posix_only
def test_a_worker_killed_in_the_middle_is_told_and_the_next_request_works(faulty):
    with pytest.raises(RunnerError, match=r"stopped in the middle .* SIGKILL.*out of memory.*restarted"):
        faulty.run(a_small_request("sleep"), progress=lambda *_: os.kill(faulty.pid, signal.SIGKILL))
    assert faulty.run(a_small_request("lesion")).results


@posix_only
def test_a_worker_killed_while_it_waits_is_replaced_unnoticed(faulty):
    faulty.run(a_small_request("lesion"))
    pid = faulty.pid
    os.kill(pid, signal.SIGKILL)
    while faulty.pid is not None:
        sleep(0.01)
    assert faulty.run(a_small_request("lesion")).results
    assert faulty.pid != pid


@posix_only
def test_a_worker_that_is_killed_but_not_yet_gone_gets_no_further_request(faulty, monkeypatch):
    """As where the answer came just before the kill that a cancellation asked for."""
    faulty.run(a_small_request("lesion"))
    pid, process = faulty.pid, faulty._process

    def kill_later(group: int, _signal: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(group, signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(os, "killpg", lambda group, of: after(0.3, lambda: kill_later(group, of)))
        patch.setattr(process._popen, "kill", lambda: None)
        process.kill()
    assert faulty.run(a_small_request("lesion")).results
    assert faulty.pid != pid


@posix_only
def test_a_crash_quotes_the_worker_s_last_words(faulty):
    with pytest.raises(RunnerError, match=r"stopped in the middle .* SIGSEGV; it last said: .") as raised:
        faulty.run(a_small_request("crash"))
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 1800
    assert faulty.run(a_small_request("lesion")).results


def test_a_worker_that_cannot_start_says_why_and_does_not_try_for_ever():
    noisy = "import sys; print('x' * 10**6, file=sys.stderr); sys.exit('No module named torch')"
    with closing(WorkerRunner(arguments=("-c", noisy))) as runner:
        runner.start(MODEL)
        with pytest.raises(RunnerError, match=r"could not start: .* exit code 1; .*No module named torch") as raised:
            runner.run(a_request("lesion"))
        assert len(str(raised.value)) < 1800
        assert runner.pid is None


def test_closing_leaves_no_process_even_in_the_middle_of_a_request():
    runner = WorkerRunner(arguments=("-c", SLEEPING))
    runner.start()
    pid = runner.pid
    with pytest.raises(RunnerCancelled):
        runner.run(a_small_request("sleep"), progress=lambda *_: after(0.1, runner.close))
    runner.close()
    assert runner.pid is None
    assert not running(pid)
    with pytest.raises(RunnerError, match="was closed"):
        runner.run(a_request("lesion"))


@posix_only
def test_a_parent_that_dies_leaves_no_worker_behind_even_in_the_middle_of_a_box():
    parent = f"""
        from dataclasses import replace
        from LesionLib.model.folder import golden_case
        from LesionLib.inference.messages import RunRequest
        from LesionLib.inference.runner import WorkerRunner
        volume, box = golden_case()
        runner = WorkerRunner(arguments=("-c", {FAULTY!r}))
        runner.run(
            RunRequest({small_model()!r}, volume, [replace(box, name="sleep")]),
            progress=lambda *_: print(runner.pid, flush=True),
        )
    """
    command = [sys.executable, "-c", textwrap.dedent(parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=worker_environment()) as process:
        pid = int(process.stdout.readline())
        assert running(pid)
        process.kill()
    deadline = monotonic() + 5
    while running(pid) and monotonic() < deadline:
        sleep(0.02)
    assert not running(pid)
