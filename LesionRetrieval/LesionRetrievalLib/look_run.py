"""One lesion being embedded, as the panel shows it: busy bar, elapsed time, cancel. The interface never waits."""

from __future__ import annotations

from collections.abc import Callable

from LesionClassifierLib.background_run import BackgroundRun, Outcome, runInBackground
from LesionClassifierLib.run_timer import RunTimer
from LesionLib.runner_types import Embedding, EmbeddingRequest
from slicer.i18n import tr as _

Answered = Callable[[Embedding], str]


class EmbeddingRun:
    """One run at a time. ``onEnded`` is called when one has ended, however; what is wrong goes to ``onError``."""

    def __init__(self, ui, logic, *, onEnded: Callable[[], None], onError: Callable[[str], None]) -> None:
        self._ui, self._logic, self._onEnded, self._onError = ui, logic, onEnded, onError
        self._answered: Answered | None = None
        self._doing = ""
        self._timer = RunTimer(onProgress=self._show, onEnded=self._ended)
        ui.cancelButton.connect("clicked()", self.cancel)
        ui.progressBar.minimum = ui.progressBar.maximum = 0  # busy: how far one lesion is cannot be told
        ui.progressBar.visible = False

    @property
    def isRunning(self) -> bool:
        """Whether a lesion is being embedded."""
        return self._timer.isRunning

    def start(self, request: EmbeddingRequest, doing: str, answered: Answered) -> None:
        """Ask; returns at once. ``answered`` is called on the main thread and returns what to say."""
        if not self.isRunning:
            self._doing, self._answered = doing, answered
            self._ui.progressBar.visible = True
            self._timer.start(runInBackground(self._logic.runner, request))

    def cancel(self) -> None:
        """Ask for the end of the run."""
        if self._timer.cancel():
            self._ui.statusLabel.text = _("Cancelling...")

    def forget(self) -> None:
        """The scene closes: cancel, and show nothing of what may still come."""
        self._answered = None
        self.cancel()

    def stop(self) -> None:
        """The module goes away."""
        self.forget()
        self._timer.stop()

    def _ended(self, _run: BackgroundRun[Embedding], outcome: Outcome[Embedding]) -> None:
        answered, self._answered = self._answered, None
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

    def _show(self, run: BackgroundRun[Embedding]) -> None:
        self._ui.statusLabel.text = _("{doing} ... {seconds:.0f} s").format(doing=self._doing, seconds=run.seconds)
