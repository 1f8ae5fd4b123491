"""Inference behind one interface: in the process itself, in a warm worker process that can be killed, or in a share of one.

Nothing here imports torch: that is the worker's, or waits for the in-process runner's first use.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path
from threading import Event, Lock, Timer
from typing import TYPE_CHECKING, NoReturn, Protocol, overload

from LesionLib.inference.messages import (
    Embedding,
    EmbeddingRequest,
    Frame,
    ModelDescription,
    Progress,
    RunnerCancelled,
    RunnerError,
    RunOptions,
    RunRequest,
    RunResponse,
    error_from_json,
    question_to_frame,
    reply_from_frame,
)
from LesionLib.inference.model_description import description_from_json
from LesionLib.inference.process import WORKER_ARGUMENTS, WorkerGoneError, WorkerProcess
from LesionLib.model.folder import is_model_path

if TYPE_CHECKING:  # it imports torch
    from LesionLib.inference.classifier import Engine

_GRACE_S = 0.4  # how long a worker may take to stop by itself before it is killed
_CLOSED = "the runner was closed; make a new one."
_BUSY = "the runner is busy with another request; wait for its answer or cancel it."
_CANCELLED = "the request was cancelled."


class InferenceRunner(Protocol):
    """Answers one request at a time; a second one meanwhile is refused, so that an interface knows what is going on."""

    def start(self, model: str | Path | None = None, options: RunOptions | None = None) -> None:
        """Get ready, with ``model`` loaded where one is given."""

    @overload
    def run(self, request: RunRequest, *, progress: Progress | None = None) -> RunResponse: ...

    @overload
    def run(self, request: EmbeddingRequest, *, progress: Progress | None = None) -> Embedding: ...

    def run(
        self, request: RunRequest | EmbeddingRequest, *, progress: Progress | None = None
    ) -> RunResponse | Embedding:
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

    def run(
        self, request: RunRequest | EmbeddingRequest, *, progress: Progress | None = None
    ) -> RunResponse | Embedding:
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

    def describe(self, model: str | Path, options: RunOptions | None = None) -> ModelDescription:
        """Load ``model`` there, and say who it is; waits for it. Raises `BundleError` or `RunnerError`."""
        with _Turn(self._busy):
            header = {"kind": "describe", "model": _resolved(model), "options": asdict(options or RunOptions())}
            return description_from_json(self._ask(Frame(header, []), None).header["model"])

    def run(
        self, request: RunRequest | EmbeddingRequest, *, progress: Progress | None = None
    ) -> RunResponse | Embedding:
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
    return str(Path(model).resolve()) if is_model_path(model) and os.path.isdir(model) else str(model)


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

    def run(
        self, request: RunRequest | EmbeddingRequest, *, progress: Progress | None = None
    ) -> RunResponse | Embedding:
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
            raise RunnerError(_CLOSED)
        return self._runner
