"""Looks at lesions in the process itself, or in a warm worker process that is killed where it is not wanted any more.

The runners of LesionLib classify; a library also needs models that know no classes, and "why are these two alike?". These
take the same part in a panel: `run` in a thread of its own, `cancel` from any. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, NoReturn, Protocol

from LesionLib.runner_codec import error_from_json
from LesionLib.runner_process import WorkerGoneError, WorkerProcess
from LesionLib.runner_types import Progress, RunnerCancelled, RunnerError, RunOptions

from .retrieval_codec import look_from_frame, look_request_to_frame
from .retrieval_types import LesionLook, LookRequest

if TYPE_CHECKING:
    from .retrieval_engine import RetrievalEngine

_WORKER = (str(Path(__file__).with_name("retrieval_worker.py")),)
_CLOSED = "the runner was closed; make a new one."
_BUSY = "the runner is busy with another request; wait for its answer or cancel it."


class LookRunner(Protocol):
    """Answers one request at a time; a second one meanwhile is refused (`RunnerError`)."""

    def start(self, model: str | Path, options: RunOptions | None = None) -> None:
        """Get ready, with ``model`` loaded."""

    def run(self, request: LookRequest, *, progress: Progress | None = None) -> LesionLook:
        """Look at the lesion, or raise: `RunnerCancelled`, `RunnerError`, `BoxError`, `VolumeError`, `BundleError`."""

    def cancel(self) -> bool:
        """Stop the request that is running; from any thread, returns at once. False where none is running."""

    def close(self) -> None:
        """Give everything back."""


class InProcessLookRunner:
    """Looks in the calling thread; imports torch when first used. What runs cannot be stopped."""

    def __init__(self) -> None:
        self._busy, self._engine = Lock(), None

    def start(self, model: str | Path, options: RunOptions | None = None) -> None:
        """Load the model; returns when that is done."""
        self._ready_engine().warm(str(model), options or RunOptions())

    def run(self, request: LookRequest, *, progress: Progress | None = None) -> LesionLook:
        """See `LookRunner.run`."""
        with _Turn(self._busy):
            return self._ready_engine().look(request)

    def cancel(self) -> bool:
        """False: nothing can be stopped here."""
        return False

    def close(self) -> None:
        """Forget the models."""
        if self._engine is not None:
            self._engine.close()

    def _ready_engine(self) -> RetrievalEngine:
        if self._engine is None:
            from .retrieval_engine import RetrievalEngine

            self._engine = RetrievalEngine()
        return self._engine


class WorkerLookRunner:
    """Looks in a child process, which `cancel` kills: the next request starts another one."""

    def __init__(self, *, arguments: Sequence[str] = _WORKER) -> None:
        self._arguments = tuple(arguments)
        self._busy, self._state = Lock(), Lock()
        self._numbers = count(1)
        self._process: WorkerProcess | None = None
        self._running = self._cancelled = self._closed = False

    @property
    def pid(self) -> int | None:
        """Process id of the worker, None where there is none."""
        process = self._process
        return process.pid if process is not None and process.is_alive else None

    def start(self, model: str | Path, options: RunOptions | None = None) -> None:
        """Start the worker and let it warm up; returns at once. What goes wrong there is told by the next request."""
        with self._state:
            process = self._living_process()
        if not self._running:
            header = {"kind": "warm", "id": 0, "model": _resolved(model), "options": asdict(options or RunOptions())}
            with suppress(WorkerGoneError):
                process.send(header)

    def run(self, request: LookRequest, *, progress: Progress | None = None) -> LesionLook:
        """See `LookRunner.run`. Blocks its thread."""
        with _Turn(self._busy):
            with self._state:
                process, number = self._living_process(), next(self._numbers)
                self._running, self._cancelled = True, False
            try:
                return self._ask(process, number, replace(request, model=_resolved(request.model)))
            except WorkerGoneError as error:
                self._lost(process, error)
            finally:
                self._running = False

    def cancel(self) -> bool:
        """Kill the worker in the middle of its request."""
        with self._state:
            if not self._running or self._process is None:
                return False
            self._cancelled = True
            self._process.kill()
        return True

    def close(self) -> None:
        """End the worker; a request that is running is cancelled."""
        with self._state:
            self._closed = self._cancelled = True
            process, self._process = self._process, None
        if process is not None:
            if self._running or not process.was_ready:  # one that is still importing torch would take seconds to end
                process.kill()
            process.end()

    def _ask(self, process: WorkerProcess, number: int, request: LookRequest) -> LesionLook:
        question = look_request_to_frame(request)
        process.send({**question.header, "kind": "look", "id": number}, question.arrays)
        while True:
            frame = process.receive()
            if frame.header["id"] != number:
                continue  # it is ready, or warm
            if frame.header["kind"] == "error":
                raise error_from_json(frame.header)
            return look_from_frame(frame)

    def _living_process(self) -> WorkerProcess:
        if self._closed:
            raise RunnerError(_CLOSED)
        if self._process is not None and not self._process.is_alive:
            self._process.end()
            self._process = None
        if self._process is None:
            self._process = WorkerProcess(self._arguments)
        return self._process

    def _lost(self, process: WorkerProcess, error: Exception) -> NoReturn:
        how, was_ready = process.end(), process.was_ready
        with self._state:
            if self._process is process:
                self._process = None
        if self._cancelled:
            msg = "the request was cancelled."
            raise RunnerCancelled(msg) from error
        if not was_ready:
            msg = f"the worker could not start: {how}. Check that its Python can import torch, then try again."
            raise RunnerError(msg) from error
        msg = f"the worker stopped in the middle of the request: {how}. Try again, or on the CPU."
        raise RunnerError(msg) from error


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
    return str(Path(model).resolve()) if Path(model).is_dir() else str(model)
