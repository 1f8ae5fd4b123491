"""The runners for all who ask, most often one: jobs wait in a queue, each knows its place, one that fails leaves the next alone."""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from threading import Condition, Event, Thread, local
from typing import Any

from LesionLib.errors import LesionLensError
from LesionLib.inference.messages import (
    Embedding,
    EmbeddingRequest,
    ModelDescription,
    RunnerCancelled,
    RunnerError,
    RunOptions,
    RunRequest,
    RunResponse,
    error_to_json,
)
from LesionLib.inference.runner import InferenceRunner

from LesionLensApp.serve.access import FAILED, ApiError

_MAX_WAITING, _MAX_OF_ONE = 64, 8


class JobState(StrEnum):
    """How far a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Job:
    """Something that is computed for ``owner``. ``done`` of ``total`` lesions, at the one of ``name``; ``value`` at the end."""

    def __init__(self, owner: str, work: Callable[[Job], Any], *, total: int = 1) -> None:
        self.id, self.owner, self.work = secrets.token_hex(16), owner, work
        self.state, self.done, self.total, self.name = JobState.QUEUED, 0, total, ""
        self.error: LesionLensError | None = None
        self.value: Any = None
        self.is_unwanted = False
        self.seconds = 0.0
        self.ended = Event()

    def stop_if_unwanted(self) -> None:
        """Raises `RunnerCancelled`."""
        if self.is_unwanted:
            msg = "the request was cancelled."
            raise RunnerCancelled(msg)


class Queue:
    """Jobs, one after the other; as many at a time as there are ``runners``, each of which has a thread of its own.

    ``on_error`` is told what nobody foresaw; whoever waits for the job gets a sentence.
    """

    def __init__(
        self, runners: Sequence[InferenceRunner], *, device: str, on_error: Callable[[BaseException], None]
    ) -> None:
        self.runners, self._device, self._on_error = tuple(runners), device, on_error
        self._changed = Condition()
        self._waiting: deque[Job] = deque()
        self._running: dict[Job, InferenceRunner] = {}
        self._here = local()  # ``runner``: of this thread
        self._is_closed = False
        self._threads = [
            Thread(target=self._work, args=(runner,), name="LesionLens jobs", daemon=True) for runner in self.runners
        ]
        for thread in self._threads:
            thread.start()

    def put(self, job: Job) -> Job:
        """Let a job wait for its turn. Raises `ApiError` where too many wait."""
        with self._changed:
            own = sum(other.owner == job.owner for other in self._waiting)
            if self._is_closed or len(self._waiting) >= _MAX_WAITING or own >= _MAX_OF_ONE:
                raise ApiError(503, "too many wait for the model; try again in a minute.")
            self._waiting.append(job)
            self._changed.notify_all()
        return job

    def place(self, job: Job) -> int:
        """How many are before it, 0 where it runs or has ended."""
        with self._changed:
            if job not in self._waiting:
                return 0
            return self._waiting.index(job) + max(len(self._running) - len(self.runners) + 1, 0)

    def to_json(self, job: Job) -> dict[str, Any]:
        """For whoever waits for it."""
        error = None if job.error is None else error_to_json(job.error)
        return {
            "id": job.id, "state": str(job.state), "place": self.place(job), "done": job.done, "total": job.total,
            "name": job.name, "seconds": round(job.seconds, 3), "error": error,
        }  # fmt: skip

    def cancel(self, job: Job) -> None:
        """Nobody wants it any more: taken out of the queue, or stopped."""
        with self._changed:
            job.is_unwanted = True
            if job in self._waiting:
                self._waiting.remove(job)
                job.state = JobState.CANCELLED
                job.ended.set()
            # While nobody else begins: a moment later the runner may be at the next job.
            if (runner := self._running.get(job)) is not None:
                runner.cancel()

    def cancel_all(self, owner: str) -> None:
        """All jobs of one who is gone."""
        with self._changed:
            own = [job for job in (*self._waiting, *self._running) if job.owner == owner]
        for job in own:
            self.cancel(job)

    def ask(self, job: Job, request: RunRequest | EmbeddingRequest) -> RunResponse | Embedding:
        """Ask the runner of a running job, on the device of this server. Raises what `InferenceRunner.run` raises."""
        job.stop_if_unwanted()
        runner = self._here.runner

        def note(done: int, total: int, name: str) -> None:
            job.done, job.total, job.name = done, total, name
            if job.is_unwanted:  # it was cancelled before the runner had it
                runner.cancel()

        options = replace(request.options, device=self._device)
        return runner.run(replace(request, options=options), progress=note)

    def describe(self, model: str | Path) -> ModelDescription:
        """Who a model is; on a thread of the jobs only. Raises `BundleError` or `RunnerError`."""
        return self._here.runner.describe(model, RunOptions(device=self._device, precision="float32"))

    def close(self) -> None:
        """End all."""
        with self._changed:
            self._is_closed = True
            left = [*self._waiting, *self._running]
            self._changed.notify_all()
        for job in left:
            self.cancel(job)
        for runner in self.runners:
            runner.close()
        for thread in self._threads:
            thread.join(5.0)

    def _work(self, runner: InferenceRunner) -> None:
        self._here.runner = runner
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_closed)
                if self._is_closed:
                    return
                job = self._waiting.popleft()
                job.state, self._running[job] = JobState.RUNNING, runner
            self._do(job)

    def _do(self, job: Job) -> None:
        started, state = time.monotonic(), JobState.DONE
        try:
            job.stop_if_unwanted()
            job.value = job.work(job)
        except RunnerCancelled:
            state = JobState.CANCELLED
        except LesionLensError as error:
            state, job.error = JobState.FAILED, error
        except Exception as error:
            self._on_error(error)
            state, job.error = JobState.FAILED, RunnerError(FAILED)
        job.seconds = time.monotonic() - started
        job.work = None  # with all that it holds
        with self._changed:
            self._running.pop(job)
        job.state = JobState.CANCELLED if job.is_unwanted else state
        job.ended.set()
