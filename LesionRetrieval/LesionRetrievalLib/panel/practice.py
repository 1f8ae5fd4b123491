"""Practice in the panels: a library or a quiz of computed nodules being made, with its bar, its line of text and cancel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from LesionClassifierLib.background import BackgroundRun, Outcome
from LesionClassifierLib.panel.base import PanelRun
from LesionLib.errors import LesionLensError
from slicer.i18n import tr as _


class PracticeRun(PanelRun[Path]):
    """``onReady(path)`` is called with what was made, or was there already; ``onEnded`` however it ended.

    ``readyText``: what to say then.
    """

    def __init__(
        self, bar, label, cancelButton, *, readyText: str,
        onReady: Callable[[Path], None], onEnded: Callable[[], None], onError: Callable[[str], None],
    ) -> None:  # fmt: skip
        super().__init__(bar, label, cancelButton, onEnded=self._hasEnded, onError=onError)
        self._readyText, self._onReady, self._onAnyEnd = readyText, onReady, onEnded

    def start(self, run: BackgroundRun[Path]) -> None:
        """Look after a run."""
        self._begin(run)

    def _hasEnded(self, outcome: Outcome[Path]) -> None:
        if outcome.value is not None and not self._isForgotten:
            self._onReady(outcome.value)
        self._onAnyEnd()

    def _progressText(self, run: BackgroundRun[Path]) -> str:
        return _("Computed nodule {0} of {1}, {2:.0f} s").format(min(run.done + 1, run.total), run.total, run.seconds)

    def _answered(self, run: BackgroundRun[Path], answer: Path) -> str:
        return self._readyText

    def _errorText(self, error: LesionLensError) -> str:
        return _("Nothing was made.")

    def _cancelledText(self) -> str:
        return _("Cancelled.")


def practiceText(text: str, missing: list[str]) -> str:
    """The tool tip of a practice button: what it does, or what is missing for it."""
    return _("Practice asks a model, for which {0} is missing.").format(", ".join(missing)) if missing else text
