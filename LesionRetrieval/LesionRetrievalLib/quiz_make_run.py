"""A quiz being made on its own thread, looked after from the main thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Thread

from LesionLib.errors import LesionLensError
from LesionLib.runner import InferenceRunner, RunnerCancelled

from .quiz_model import Quiz
from .quiz_request import QuizRequest, answer_request
from .quiz_schema import QuizError

_LETTING_GO_S = 0.002  # Qt's event loop holds Python's lock; while the main thread sleeps, this thread gets on


@dataclass(frozen=True, eq=False)
class MadeQuiz:
    """How it ended: with a quiz, or with an error, which is None where it was cancelled."""

    quiz: Quiz | None
    error: LesionLensError | None = None


class QuizMakeRun:
    """Started when made. ``runner`` is this run's own and is closed when it has ended. Touches no MRML."""

    def __init__(
        self, request: QuizRequest, runner: InferenceRunner, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.request, self.done = request, 0
        self.total = len(request.cases) + len(request.lesions)
        self._runner, self._clock, self._started = runner, clock, clock()
        self._isCancelled = False
        self._outcome: MadeQuiz | None = None
        self._thread = Thread(target=self._work, name="LesionLens quiz", daemon=True)
        self._thread.start()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return self._clock() - self._started

    def look(self) -> MadeQuiz | None:
        """The outcome once there is one; call it every few hundredths of a second."""
        if self._thread.is_alive():
            if self._isCancelled:
                self._runner.cancel()
            time.sleep(_LETTING_GO_S)
            return None
        return self._outcome

    def cancel(self) -> None:
        """Ask for the end; `look` tells when it has come. A quiz that is written by then stays."""
        self._isCancelled = True
        self._runner.cancel()

    def _work(self) -> None:
        try:
            self._outcome = MadeQuiz(answer_request(self.request, self._runner, progress=self._note))
        except RunnerCancelled:
            self._outcome = MadeQuiz(None)
        except LesionLensError as error:
            self._outcome = MadeQuiz(None, None if self._isCancelled else error)
        except Exception as error:  # a bug must reach the user too, not end a thread in silence
            self._outcome = MadeQuiz(None, QuizError(f"The quiz was not made: {type(error).__name__}: {error}"))
        finally:
            self._runner.close()

    def _note(self, done: int, _total: int) -> None:
        if self._isCancelled:
            msg = "the request was cancelled."
            raise RunnerCancelled(msg)
        self.done = done
