"""Work on a thread of its own, looked after from the main thread: where MRML is, and where Qt's timer asks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Thread
from typing import Generic, TypeVar

from LesionLib.errors import LesionLensError
from LesionLib.inference.messages import (
    Embedding,
    EmbeddingRequest,
    RunnerCancelled,
    RunnerError,
    RunRequest,
    RunResponse,
)
from LesionLib.inference.runner import InferenceRunner

_LETTING_GO_S = 0.002  # Qt's event loop holds Python's lock; while the main thread sleeps, the run's thread gets on

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Outcome(Generic[T]):
    """How a run ended: with an answer, or with an error, which is None for one that was cancelled."""

    value: T | None
    error: LesionLensError | None = None

    @property
    def was_cancelled(self) -> bool:
        """Neither an answer nor an error."""
        return self.value is None and self.error is None


class BackgroundRun(Generic[T]):
    """Started when made. ``work(run)`` is done on a thread and touches neither MRML nor Qt; `poll` tells how far it is.

    ``work`` asks ``runner``, which `cancel` stops, once or several times, and calls `note` to tell how far it is.
    ``keepsLateResult``: an answer that comes although the run was cancelled counts, as where a file was written.
    """

    def __init__(
        self,
        runner: InferenceRunner,
        work: Callable[[BackgroundRun[T]], T],
        *,
        total: int = 1,
        name: str = "",
        keepsLateResult: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runner, self._work, self._clock, self._keepsLateResult = runner, work, clock, keepsLateResult
        self._started = clock()
        self._outcome: Outcome[T] | None = None
        self._isCancelled = self._isCancelNotified = False
        self.done, self.total, self.name = 0, total, name
        self._thread = Thread(target=self._run, name="LesionLens run", daemon=True)
        self._thread.start()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return self._clock() - self._started

    def poll(self) -> Outcome[T] | None:
        """The outcome once there is one; call it every few hundredths of a second."""
        if self._thread.is_alive():
            self._tellCancel()
            time.sleep(_LETTING_GO_S)
        outcome = self._outcome
        if outcome is None or not self._isCancelled or (self._keepsLateResult and outcome.value is not None):
            return outcome
        return Outcome(None)  # what came after all is not wanted any more

    def cancel(self) -> None:
        """Ask for the end; `poll` tells when it has come."""
        self._isCancelled = True
        self._tellCancel()

    def note(self, done: int, total: int, name: str = "") -> None:
        """``work`` is at ``done`` of ``total``, with the lesion ``name``."""
        self.done, self.total, self.name = done, total, name or self.name

    def noteUnlessCancelled(self, done: int, total: int) -> None:
        """`note` and `stopIfCancelled`, between two requests of the same ``work``."""
        self.note(done, total)
        self.stopIfCancelled()

    def stopIfCancelled(self) -> None:
        """Between two requests of the same ``work``: raises `RunnerCancelled` where the run was cancelled meanwhile."""
        self._isCancelNotified = False  # the next request is to hear it too
        if self._isCancelled:
            msg = "the request was cancelled."
            raise RunnerCancelled(msg)

    def _tellCancel(self) -> None:
        """Until the runner has heard it: a request that has not reached it yet cannot be stopped there."""
        if self._isCancelled and not self._isCancelNotified:
            self._isCancelNotified = self._runner.cancel()

    def _run(self) -> None:
        try:
            self._outcome = Outcome(self._work(self))
        except RunnerCancelled:
            self._outcome = Outcome(None)
        except LesionLensError as error:
            self._outcome = Outcome(None, error)
        except Exception as error:  # a bug must reach the user too, not end a thread in silence
            self._outcome = Outcome(None, RunnerError(f"the run failed: {type(error).__name__}: {error}"))


def runInBackground(
    runner: InferenceRunner, request: RunRequest | EmbeddingRequest
) -> BackgroundRun[RunResponse] | BackgroundRun[Embedding]:
    """One request as a run; returns at once."""
    boxes = [request.box] if isinstance(request, EmbeddingRequest) else request.boxes
    return BackgroundRun(
        runner,
        lambda run: runner.run(request, progress=run.note),
        total=len(boxes),
        name=boxes[0].name if boxes else "",
    )
