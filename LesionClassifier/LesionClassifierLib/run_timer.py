"""Qt's side of a run in the background: asks it every few hundredths of a second how far it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt

from .background_run import BackgroundRun, Outcome

_EVERY_MS = 40


class RunTimer:
    """Looks after one run at a time, on the main thread.

    ``onProgress(run)`` is called while it is under way, ``onEnded(run, outcome)`` once, when the timer is free again.
    """

    def __init__(
        self, *, onProgress: Callable[[BackgroundRun], None], onEnded: Callable[[BackgroundRun, Outcome[Any]], None]
    ) -> None:
        self._onProgress, self._onEnded = onProgress, onEnded
        self._run: BackgroundRun | None = None
        self._timer = qt.QTimer()
        self._timer.setInterval(_EVERY_MS)
        self._timer.connect("timeout()", self._poll)

    @property
    def isRunning(self) -> bool:
        """Whether a run is under way."""
        return self._run is not None

    def start(self, run: BackgroundRun) -> None:
        """Look after ``run`` from now on."""
        self._run = run
        self._onProgress(run)
        self._timer.start()

    def cancel(self) -> bool:
        """Ask for the end of the run; False where none is under way."""
        if self._run is None:
            return False
        self._run.cancel()
        return True

    def stop(self) -> None:
        """The module goes away: cancel, and ask no more."""
        self.cancel()
        self._timer.stop()
        self._run = None

    def _poll(self) -> None:
        run = self._run
        if run is None:
            self._timer.stop()
            return
        outcome = run.poll()
        if outcome is None:
            self._onProgress(run)
            return
        self._timer.stop()
        self._run = None
        self._onEnded(run, outcome)
