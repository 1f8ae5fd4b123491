"""One look at a lesion under way in the panel: busy bar, elapsed time, cancel. The interface never waits."""

from __future__ import annotations

from collections.abc import Callable

import qt
from LesionClassifierLib.background_run import BackgroundRun
from slicer.i18n import tr as _

from .retrieval_types import LesionLook, LookRequest

_EVERY_MS = 40

Answered = Callable[[LesionLook], str]


class LookRun:
    """One run at a time. ``onEnded`` is called when one has ended, however; what is wrong goes to ``onError``."""

    def __init__(self, ui, logic, *, onEnded: Callable[[], None], onError: Callable[[str], None]) -> None:
        self._ui, self._logic, self._onEnded, self._onError = ui, logic, onEnded, onError
        self._run: BackgroundRun | None = None
        self._answered: Answered | None = None
        self._doing = ""
        self._timer = qt.QTimer()
        self._timer.setInterval(_EVERY_MS)
        self._timer.connect("timeout()", self._look)
        ui.cancelButton.connect("clicked()", self.cancel)
        ui.progressBar.minimum = ui.progressBar.maximum = 0  # busy: how far one look is cannot be told
        ui.progressBar.visible = False

    @property
    def isRunning(self) -> bool:
        """Whether a look is under way."""
        return self._run is not None

    def start(self, request: LookRequest, doing: str, answered: Answered) -> None:
        """Ask; returns at once. ``answered`` is called on the main thread and returns what to say."""
        if not self.isRunning:
            self._run = BackgroundRun(self._logic.runner, request)
            self._doing, self._answered = doing, answered
            self._ui.progressBar.visible = True
            self._show()
            self._timer.start()

    def cancel(self) -> None:
        """Ask for the end of the run."""
        if self._run is not None:
            self._ui.statusLabel.text = _("Cancelling...")
            self._run.cancel()

    def forget(self) -> None:
        """The scene closes: cancel, and show nothing of what may still come."""
        self._answered = None
        self.cancel()

    def stop(self) -> None:
        """The module goes away."""
        self.forget()
        self._timer.stop()
        self._run = None

    def _look(self) -> None:
        if self._run is None:
            self._timer.stop()
            return
        outcome = self._run.look()
        if outcome is None:
            self._show()
            return
        self._timer.stop()
        self._run, answered, self._answered = None, self._answered, None
        self._ui.progressBar.visible = False
        if outcome.error is not None:
            self._ui.statusLabel.text = _("No answer: {0}").format(outcome.error)
        elif outcome.was_cancelled:
            self._ui.statusLabel.text = _("Cancelled; nothing was changed.")
        elif answered is None:
            self._ui.statusLabel.text = _("The scene was closed meanwhile; the answer is not shown.")
        else:
            self._ui.statusLabel.text = answered(outcome.answer)
        self._onEnded()
        if outcome.error is not None:
            self._onError(str(outcome.error))

    def _show(self) -> None:
        self._ui.statusLabel.text = _("{doing} ... {seconds:.0f} s").format(
            doing=self._doing, seconds=self._run.seconds
        )
