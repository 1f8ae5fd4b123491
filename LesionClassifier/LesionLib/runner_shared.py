"""One worker for all panels of a process: each holds a share, and the model lies on the GPU once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from .runner import InferenceRunner, RunnerError, RunOptions, WorkerRunner

if TYPE_CHECKING:
    from .runner_types import Embedding, EmbeddingRequest, Progress, RunAnswer, RunRequest

_BUSY_ELSEWHERE = "the model is busy with another request, perhaps of another panel; wait for its answer or cancel it there."


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
