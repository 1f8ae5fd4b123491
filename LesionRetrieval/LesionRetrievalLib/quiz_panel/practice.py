"""A practice quiz in the teaching room: computed nodules, made at a click, then taken as any other quiz."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from LesionClassifierLib.setup import missingPackages
from LesionLib.errors import LesionLensError
from slicer.i18n import tr as _

from LesionRetrievalLib.panel.practice import PracticeRun, practiceText
from LesionRetrievalLib.practice import practice_files
from LesionRetrievalLib.quiz_logic import QuizLogic


class PracticePanel:
    """``onReady(quiz, answers)``: the quiz file, and the folder for the answers. ``missing``: what a model would need."""

    def __init__(
        self, ui, logic: QuizLogic, *, onReady: Callable[[Path, Path], None], onError: Callable[[str], None],
        missing=missingPackages,
    ) -> None:  # fmt: skip
        self._ui, self._logic, self._onReady, self._onError, self._missing = ui, logic, onReady, onError, missing
        self.run = PracticeRun(
            ui.practiceProgress, ui.practiceLabel, ui.cancelPracticeButton,
            readyText=_("The practice quiz is ready: type a code and press Start."),
            onReady=self._ready, onEnded=self.update, onError=onError,
        )  # fmt: skip
        ui.practiceQuizButton.connect("clicked()", self.make)
        self.update()

    def make(self) -> None:
        """Make the quiz, or take the one that is there; returns at once."""
        if not self.run.isRunning:
            try:
                self.run.start(self._logic.startPractice())
            except LesionLensError as error:
                self._onError(str(error))
        self.update()

    def update(self) -> None:
        """Bring the buttons in line."""
        ui, missing = self._ui, [package.name for package in self._missing()]
        ui.practiceQuizButton.enabled = not missing and not self.run.isRunning
        ui.practiceQuizButton.toolTip = practiceText(
            _("Twelve computed nodules: calcified, solid or subsolid? No patient is in it."), missing
        )
        ui.cancelPracticeButton.visible = ui.practiceLabel.visible = self.run.isRunning or bool(ui.practiceLabel.text)
        ui.cancelPracticeButton.enabled = self.run.isRunning

    def close(self) -> None:
        """The module goes away: end what runs."""
        self.run.stop()

    def _ready(self, quiz: Path) -> None:
        self._onReady(quiz, practice_files().answers)
