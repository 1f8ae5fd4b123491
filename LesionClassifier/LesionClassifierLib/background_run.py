"""One request on its own thread, looked after from the main thread: where MRML is, and where Qt's timer asks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Thread

from LesionLib.errors import LesionLensError
from LesionLib.runner import InferenceRunner, RunnerCancelled
from LesionLib.runner_types import RunAnswer, RunnerError, RunRequest

_LETTING_GO_S = 0.002  # Qt's event loop holds Python's lock; while the main thread sleeps, the run's thread gets on


@dataclass(frozen=True, eq=False)
class Outcome:
    """How a run ended: with an answer, or with an error, which is None for one that was cancelled."""

    answer: RunAnswer | None
    error: LesionLensError | None = None

    @property
    def was_cancelled(self) -> bool:
        """Neither an answer nor an error."""
        return self.answer is None and self.error is None


class BackgroundRun:
    """Started when made. The thread touches the runner and nothing else; `look` tells the main thread what is going on."""

    def __init__(
        self, runner: InferenceRunner, request: RunRequest, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._runner, self._request, self._clock = runner, request, clock
        self._started = clock()
        self._outcome: Outcome | None = None
        self._isCancelled = self._isCancelTold = False
        self.done, self.total, self.name = 0, len(request.boxes), request.boxes[0].name if request.boxes else ""
        self._thread = Thread(target=self._work, name="LesionLens run", daemon=True)
        self._thread.start()

    @property
    def request(self) -> RunRequest:
        """What was asked."""
        return self._request

    @property
    def seconds(self) -> float:
        """Since the start."""
        return self._clock() - self._started

    def look(self) -> Outcome | None:
        """The outcome once there is one; call it every few hundredths of a second."""
        if self._thread.is_alive():
            self._tellCancel()
            time.sleep(_LETTING_GO_S)
        if self._outcome is not None and self._isCancelled:
            return Outcome(None)  # an answer that came after all is not wanted any more
        return self._outcome

    def cancel(self) -> None:
        """Ask for the end; `look` tells when it has come."""
        self._isCancelled = True
        self._tellCancel()

    def _tellCancel(self) -> None:
        """Until the runner has heard it: a request that has not reached it yet cannot be stopped there."""
        if self._isCancelled and not self._isCancelTold:
            self._isCancelTold = self._runner.cancel()

    def _work(self) -> None:
        try:
            self._outcome = Outcome(self._runner.run(self._request, progress=self._note))
        except RunnerCancelled:
            self._outcome = Outcome(None)
        except LesionLensError as error:
            self._outcome = Outcome(None, error)
        except Exception as error:  # a bug must reach the user too, not end a thread in silence
            self._outcome = Outcome(None, RunnerError(f"the run failed: {type(error).__name__}: {error}"))

    def _note(self, done: int, total: int, name: str) -> None:
        self.done, self.total, self.name = done, total, name or self.name
