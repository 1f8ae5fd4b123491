"""Inference behind one interface: in the process itself, or in a warm worker process that can be killed.

The worker is a Python child with three pipes. A request and its answer are frames (`messages.Frame`): a JSON header and raw
arrays. The whole CT goes through the pipe with every request: 157 MB (512 x 512 x 300) take about 50 ms into memory that was
used before, and nothing needs cleaning up after a crash. Shared memory was not chosen: its first touch costs as much,
containers often cap it at 64 MB, and what a killed process leaves there are pictures of a patient. Nor were crops around the
boxes: how far a model looks, and what a warning needs to see, is the model's business, not the transport's.

Nothing here imports torch: that is the worker's, or waits for the in-process runner's first use.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from io import RawIOBase
from itertools import count
from pathlib import Path
from threading import Event, Lock, Thread, Timer
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, overload

import numpy as np

from LesionLib.inference.messages import (
    PARENT_VARIABLE,
    Embedding,
    EmbeddingRequest,
    Frame,
    ModelDescription,
    Progress,
    RunAnswer,
    RunnerCancelled,
    RunnerError,
    RunOptions,
    RunRequest,
    WireError,
    error_from_json,
    question_to_frame,
    read_first_frame,
    read_frame,
    reply_from_frame,
    write_frame,
)
from LesionLib.model.folder import is_model_path

if TYPE_CHECKING:
    from LesionLib.inference.classifier import Engine


WORKER_ARGUMENTS = ("-m", "LesionLib.inference.worker")
_KEPT_LINES, _LONGEST_LINE, _QUOTED_LINES = 50, 2000, 4
_END_S = 2.0
_WRITTEN_AT_ONCE = 256 * 1024


def worker_python() -> Path:
    """The Python that runs the worker. Inside 3D Slicer that is PythonSlicer: ``sys.executable`` may be Slicer itself."""
    if not sys.executable:
        msg = "this Python does not know its own executable; start the worker from Slicer or an ordinary Python."
        raise RunnerError(msg)
    slicers = Path(sys.executable).parent / ("PythonSlicer.exe" if os.name == "nt" else "PythonSlicer")
    return slicers if slicers.is_file() else Path(sys.executable)


def worker_threads() -> int:
    """Threads for the worker: one core stays free for the interface."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, usable - 1)


def worker_environment() -> dict[str, str]:
    """The environment of the worker: finds LesionLib, never the working folder's files; waits without burning a core."""
    here = str(Path(__file__).resolve().parents[2])
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(p for p in (here, os.environ.get("PYTHONPATH", "")) if p),
        PARENT_VARIABLE: str(os.getpid()),
        "PYTHONSAFEPATH": "1",
        "PYTHONUTF8": "1",
        "PYTHONFAULTHANDLER": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "OMP_NUM_THREADS": str(worker_threads()),
        "MKL_NUM_THREADS": str(worker_threads()),
    }


class WorkerGoneError(Exception):
    """The worker does not read or write any more, or what it wrote is not a message."""


class WorkerProcess:
    """The worker as an operating-system process: its pipes, its last words, its end. It never outlives this process,
    for it ends when its input is closed.

    ``was_ready``: it has imported everything and answered at least once. Raises `RunnerError` where it cannot start.
    """

    def __init__(self, arguments: Sequence[str] = WORKER_ARGUMENTS) -> None:
        self.was_ready = False
        self._sending = Lock()
        self._stderr_lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._popen = _started([str(worker_python()), *arguments])
        self._input = _Input(self._popen.stdin)
        self._stderr_reader = Thread(target=self._keep_stderr, name="LesionLens worker stderr", daemon=True)
        self._stderr_reader.start()

    @property
    def pid(self) -> int:
        """Process id, for tests and logs."""
        return self._popen.pid

    @property
    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self._popen.poll() is None

    def send(self, header: Mapping[str, Any], arrays: Sequence[np.ndarray] = ()) -> None:
        """Send one message. Raises `WorkerGoneError`."""
        with self._sending:
            try:
                write_frame(self._input, header, arrays)
            except (OSError, ValueError) as error:  # ValueError: closed by another thread
                raise WorkerGoneError from error
            finally:
                self._input.close_if_shut()

    def send_if_free(self, header: Mapping[str, Any]) -> None:
        """Send a short message unless another one is still on its way, or the worker is gone."""
        if self._sending.acquire(blocking=False):
            with suppress(OSError, ValueError):
                write_frame(self._input, header)
            self._input.close_if_shut()
            self._sending.release()

    def receive(self) -> Frame:
        """Wait for a message. Raises `WorkerGoneError` where none can come any more."""
        read = read_frame if self.was_ready else read_first_frame
        try:
            frame = read(self._popen.stdout)
        except (EOFError, OSError, ValueError, WireError) as error:
            raise WorkerGoneError from error
        if not {"kind", "id"} <= frame.header.keys():
            msg = "a message without kind and number"
            raise WorkerGoneError(msg)
        self.was_ready = True
        return frame

    def kill(self) -> None:
        """End it now, with all it started. Whoever waits in `receive` or `send` is freed."""
        self._input.is_shut = True
        if os.name == "posix" and self.is_alive:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.kill()
        # PythonSlicer is a launcher: what it launched survives it, but ends when its input does. Whoever is sending
        # stops at the next piece, and closes the input then.
        if self._sending.acquire(blocking=False):
            self._input.close_if_shut()
            self._sending.release()

    def end(self) -> str:
        """Wait for its end, kill it where that takes long, close the pipes; how it ended and its last words."""
        with suppress(OSError):
            self._popen.stdin.close()
        try:
            self._popen.wait(_END_S)
        except subprocess.TimeoutExpired:
            self.kill()
            self._popen.wait()
        self._popen.stdout.close()
        self._stderr_reader.join(_END_S)
        said = " | ".join(list(self._stderr_lines)[-_QUOTED_LINES:])
        return _how_it_ended(self._popen.returncode) + (f"; it last said: {said}" if said else "")

    def _keep_stderr(self) -> None:
        with self._popen.stderr as stream:
            while line := stream.readline(_LONGEST_LINE):
                text = line.decode("utf-8", errors="replace").strip()
                if text:
                    self._stderr_lines.append(text[:300])


class _Input:
    """The worker's input, written to piece by piece, so that it can be shut in the middle of a CT."""

    def __init__(self, stream: RawIOBase) -> None:
        self._stream = stream
        self.is_shut = False

    def write(self, view: memoryview) -> int:
        """How many bytes were taken. Raises `OSError` where the input was shut."""
        if self.is_shut:
            msg = "the worker was ended"
            raise BrokenPipeError(msg)
        return self._stream.write(view[:_WRITTEN_AT_ONCE])

    def close_if_shut(self) -> None:
        """Nobody may be writing now."""
        if self.is_shut:
            with suppress(OSError):
                self._stream.close()


def _started(command: Sequence[str]) -> subprocess.Popen[bytes]:
    # Its own session: Ctrl+C in a terminal is ours to handle, and one signal ends the worker with all it started.
    apart = {"creationflags": subprocess.CREATE_NO_WINDOW} if os.name == "nt" else {"start_new_session": True}
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    try:
        return subprocess.Popen(command, bufsize=0, env=worker_environment(), **pipes, **apart)
    except OSError as error:
        msg = f"the worker process cannot be started with {command[0]}: {error}. Use the in-process runner instead."
        raise RunnerError(msg) from error


def _how_it_ended(returncode: int) -> str:
    if returncode >= 0:
        return f"it ended with exit code {returncode}"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = str(-returncode)
    memory = ", often because the computer ran out of memory" if name == "SIGKILL" else ""
    return f"it was ended by {name}{memory}"


_GRACE_S = 0.4  # how long a worker may take to stop by itself before it is killed
_CLOSED = "the runner was closed; make a new one."
_BUSY = "the runner is busy with another request; wait for its answer or cancel it."
_CANCELLED = "the request was cancelled."


class InferenceRunner(Protocol):
    """Answers one request at a time; a second one meanwhile is refused, so that an interface knows what is going on."""

    def start(self, model: str | Path | None = None, options: RunOptions | None = None) -> None:
        """Get ready, with ``model`` loaded where one is given."""

    @overload
    def run(self, request: RunRequest, *, progress: Progress | None = None) -> RunAnswer: ...

    @overload
    def run(self, request: EmbeddingRequest, *, progress: Progress | None = None) -> Embedding: ...

    def run(self, request: RunRequest | EmbeddingRequest, *, progress: Progress | None = None) -> RunAnswer | Embedding:
        """Answer all boxes, or raise: `RunnerCancelled`, `RunnerError`, `BoxError`, `VolumeError`, `BundleError`.

        ``progress(done, total, name)`` is called in the calling thread before each box with its name, and at the end
        with ``done == total`` and no name.
        """

    def cancel(self) -> bool:
        """Stop the request that is running; from any thread, returns at once. False where none is running."""

    def restart(self) -> None:
        """Let go of all models and begin afresh; a request that is running is cancelled."""

    def close(self) -> None:
        """Give everything back. A running request is cancelled."""


class InProcessRunner:
    """Answers in the calling thread. Imports torch when started or first used; `cancel` works between two boxes."""

    def __init__(self) -> None:
        self._busy, self._cancelled = Lock(), Event()
        self._engine: Engine | None = None
        self._closed = False

    def start(self, model: str | Path | None = None, options: RunOptions | None = None) -> None:
        """Import torch and load ``model``; returns when that is done. Raises `BundleError`."""
        with _Turn(self._busy):
            engine = self._ready_engine()
            if model is not None:
                engine.warm(_resolved(model), options or RunOptions())

    def describe(self, model: str | Path, options: RunOptions | None = None) -> ModelDescription:
        """Load ``model`` as `start` does, and say who it is. Raises `BundleError`."""
        with _Turn(self._busy):
            return self._ready_engine().describe(_resolved(model), options or RunOptions())

    def run(self, request: RunRequest | EmbeddingRequest, *, progress: Progress | None = None) -> RunAnswer | Embedding:
        """See `InferenceRunner.run`."""
        with _Turn(self._busy):
            self._cancelled.clear()
            engine = self._ready_engine()
            ask = engine.embed if isinstance(request, EmbeddingRequest) else engine.run
            return ask(request, progress=progress, is_cancelled=self._cancelled.is_set)

    def cancel(self) -> bool:
        """Stop before the next box."""
        self._cancelled.set()
        return self._busy.locked()

    def restart(self) -> None:
        """Forget the models; a request that is running ends before its next box."""
        self._cancelled.set()
        self._forget()

    def close(self) -> None:
        """The same for good: the next request is refused."""
        self._closed = True
        self.restart()

    def _forget(self) -> None:
        if self._engine is not None and self._busy.acquire(blocking=False):
            self._engine.close()
            self._busy.release()

    def _ready_engine(self) -> Engine:
        if self._closed:
            raise RunnerError(_CLOSED)
        if self._engine is None:
            from LesionLib.inference.classifier import Engine

            self._engine = Engine(default_precision="float32")
        return self._engine


class WorkerRunner:
    """Answers in a child process: killed where it does not stop, restarted where it crashed.

    `run` blocks its thread; call it outside the interface's and touch MRML only when it is back. A crash answers the
    request that was running with a `RunnerError`; the next one finds a new worker. ``arguments`` of the child's Python
    are for tests.
    """

    def __init__(self, *, arguments: Sequence[str] = WORKER_ARGUMENTS) -> None:
        self._arguments = tuple(arguments)
        self._busy, self._state = Lock(), Lock()
        self._numbers = count(1)
        self._process: WorkerProcess | None = None
        self._current: int | None = None  # number of the request that is running
        self._warming: int | None = None  # number of the warm-up that was not yet answered
        self._wanted: tuple[str | None, RunOptions] = (None, RunOptions())  # what a restarted worker warms up
        self._cancelled = self._closed = False

    @property
    def pid(self) -> int | None:
        """Process id of the worker, None where there is none."""
        process = self._process
        return process.pid if process is not None and process.is_alive else None

    def start(self, model: str | Path | None = None, options: RunOptions | None = None) -> None:
        """Start the worker and let it warm up; returns at once. What goes wrong there is told by the next request."""
        self._wanted = (None if model is None else _resolved(model), options or RunOptions())
        with self._state:
            fresh = self._process is None or not self._process.is_alive
            process = self._living_process()
            if not fresh and self._current is None:
                self._warm(process)

    def wait_until_warm(self) -> None:
        """Wait until what `start` asked for is done. Raises what went wrong there."""
        with _Turn(self._busy):
            self._ask(None, None)

    def run(self, request: RunRequest | EmbeddingRequest, *, progress: Progress | None = None) -> RunAnswer | Embedding:
        """See `InferenceRunner.run`. Starts the worker where `start` was not called."""
        if self._closed:  # another thread may still be closing it, and would look busy
            raise RunnerError(_CLOSED)
        with _Turn(self._busy):
            request = replace(request, model=_resolved(request.model))
            self._wanted = (request.model, request.options)
            return reply_from_frame(self._ask(question_to_frame(request), progress), request)

    def cancel(self) -> bool:
        """Ask the worker to stop; kill and restart it where it has not stopped after 0.4 s."""
        with self._state:
            process, number = self._process, self._current
            if process is None or number is None:
                return False
            self._cancelled = True
        process.send_if_free({"kind": "cancel", "id": number})
        timer = Timer(_GRACE_S, self._kill_if_running, (number,))
        timer.daemon = True
        timer.start()
        return True

    def restart(self) -> None:
        """Another worker in the place of this one, warming up as this one did; a request that is running is cancelled."""
        with self._state:
            if self._process is not None:
                self._process.kill()
                if self._current is not None:  # whoever waits for the answer clears away and starts the next one
                    self._cancelled = True
                    return
                self._process.end()
                self._process = None
            self._living_process()

    def close(self) -> None:
        """End the worker; a request that is running is cancelled."""
        with self._state:
            self._closed, process = True, self._process
            if process is not None and self._current is not None:
                self._cancelled = True
                process.kill()
        free = self._busy.acquire(timeout=2.0)
        if self._process is not None:
            self._process.end()
            self._process = None
        if free:
            self._busy.release()

    def _ask(self, question: Frame | None, progress: Progress | None) -> Frame | None:
        """Send the question and wait for its answer; None: wait for the warm-up, where one is under way."""
        with self._state:
            process = self._living_process()
            number = self._warming if question is None else next(self._numbers)
            self._current, self._cancelled = number, False
        if number is None:
            return None
        try:
            if question is not None:
                process.send({**question.header, "id": number}, question.arrays)
            reply = self._reply(process, number, progress)
        except WorkerGoneError as error:
            self._lost(process, error)
        except BaseException:  # a callback that raised: where in the stream of frames we are is not known
            process.kill()
            self._restart(process)
            raise
        finally:
            with self._state:
                self._current = None
        if self._cancelled or reply.header["kind"] == "cancelled":
            raise RunnerCancelled(reply.header.get("message", _CANCELLED))
        if reply.header["kind"] == "error":
            raise error_from_json({"error": "", "message": "it failed without a word.", **reply.header})
        return reply

    def _reply(self, process: WorkerProcess, number: int, progress: Progress | None) -> Frame:
        while True:
            frame = process.receive()
            kind, of = frame.header["kind"], frame.header["id"]
            if of == self._warming:
                self._warming = None
            if of == number and kind != "progress":
                return frame
            if of == number and progress is not None:
                progress(frame.header["done"], frame.header["total"], frame.header["name"])

    def _living_process(self) -> WorkerProcess:
        """The worker; a new one, warming up, where there is none. Under the state lock."""
        if self._closed:
            raise RunnerError(_CLOSED)
        if self._process is not None and not self._process.is_alive:
            self._process.end()
            self._process = None
        if self._process is None:
            self._process = WorkerProcess(self._arguments)
            self._warm(self._process)
        return self._process

    def _warm(self, process: WorkerProcess) -> None:
        self._warming = next(self._numbers)
        model, options = self._wanted
        with suppress(WorkerGoneError):  # the next request meets the same and tells it
            process.send({"kind": "warm", "id": self._warming, "model": model, "options": asdict(options)})

    def _kill_if_running(self, number: int) -> None:
        with self._state:
            if self._current == number and self._process is not None:
                self._process.kill()

    def _lost(self, process: WorkerProcess, error: Exception) -> NoReturn:
        how = self._restart(process)
        if self._cancelled:
            raise RunnerCancelled(_CANCELLED) from error
        if not process.was_ready:
            msg = f"the worker could not start: {how}. Check that its Python can import torch, then try again."
            raise RunnerError(msg) from error
        msg = f"the worker stopped in the middle of the request: {how}. It was restarted: try again, or on the CPU."
        raise RunnerError(msg) from error

    def _restart(self, process: WorkerProcess) -> str:
        """Clear away what is left of a worker, start the next one where this one had worked; how it ended."""
        how = process.end()
        with self._state:
            self._process = None
            if process.was_ready and not self._closed:
                with suppress(RunnerError):
                    self._living_process()
        return how


class _Turn:
    """Holds the lock of the one request at a time; refuses instead of waiting (`RunnerError`)."""

    def __init__(self, lock: Lock) -> None:
        self._lock = lock

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            raise RunnerError(_BUSY)

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _resolved(model: str | Path) -> str:
    """A folder by its whole path: the worker may stand elsewhere. A name stays a name."""
    return str(Path(model).resolve()) if is_model_path(model) and Path(model).is_dir() else str(model)


_BUSY_ELSEWHERE = (
    "the model is busy with another request, perhaps of another panel; wait for its answer or cancel it there."
)


class _Pool:
    """The runner that is shared, while anybody holds a share of it, and whose request it is at."""

    def __init__(self, make: Callable[[], InferenceRunner]) -> None:
        self._make, self.lock, self.turn = make, Lock(), Lock()
        self.runner: InferenceRunner | None = None
        self.shares: set[SharedRunner] = set()
        self.owner: SharedRunner | None = None

    def join(self, share: SharedRunner) -> InferenceRunner:
        with self.lock:
            if self.runner is None:
                self.runner = self._make()
            self.shares.add(share)
            return self.runner

    def leave(self, share: SharedRunner) -> InferenceRunner | None:
        """The runner, where this was the last share of it: nobody else knows it any more."""
        with self.lock:
            self.shares.discard(share)
            if self.shares:
                return None
            last, self.runner = self.runner, None
            return last


_workers = _Pool(WorkerRunner)


class SharedRunner:
    """A share of this process's one worker; an `InferenceRunner` like any other.

    `cancel` and `close` concern the requests of this share alone; the worker ends with its last share. A request while
    another share's is running is refused (`RunnerError`). `restart` is for all: it ends what hangs, whosever it is.
    """

    def __init__(self, *, pool: _Pool = _workers) -> None:
        self._pool, self._isClosed = pool, False
        self._runner = pool.join(self)

    @property
    def pid(self) -> int | None:
        """Process id of the worker, None where there is none."""
        return getattr(self._runner, "pid", None)

    def start(self, model: str | Path | None = None, options: RunOptions | None = None) -> None:
        """Start the worker and let it warm up; returns at once."""
        self._open().start(model, options)

    def run(self, request: RunRequest | EmbeddingRequest, *, progress: Progress | None = None) -> RunAnswer | Embedding:
        """See `InferenceRunner.run`."""
        runner = self._open()
        if not self._pool.turn.acquire(blocking=False):
            raise RunnerError(_BUSY_ELSEWHERE)
        try:
            self._pool.owner = self
            return runner.run(request, progress=progress)
        finally:
            self._pool.owner = None
            self._pool.turn.release()

    def cancel(self) -> bool:
        """Stop this share's request; False where none of it is running."""
        return self._pool.owner is self and self._runner.cancel()

    def restart(self) -> None:
        """Another worker in the place of this one; whatever is running is cancelled."""
        self._open().restart()

    def close(self) -> None:
        """Give the share back; a request of it that is running is cancelled."""
        self._isClosed = True
        last = self._pool.leave(self)
        if last is not None:
            last.close()
        else:
            self.cancel()

    def _open(self) -> InferenceRunner:
        if self._isClosed:
            msg = "the runner was closed; make a new one."
            raise RunnerError(msg)
        return self._runner
