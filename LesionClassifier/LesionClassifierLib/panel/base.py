"""What the panels of both modules are built on: a run with its bar, its line of text and its cancel button; and the panel itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np
import qt
from LesionLib.errors import LesionLensError
from LesionLib.inference.messages import RunOptions
from LesionLib.model.folder import user_model_root
from slicer import vtkMRMLScene
from slicer.i18n import tr as _

from LesionClassifierLib.background import BackgroundRun, Outcome
from LesionClassifierLib.panel.models import ModelsPanel
from LesionClassifierLib.panel.observers import SceneWatch
from LesionClassifierLib.panel.runs_on import RunsOnPanel
from LesionClassifierLib.scene.placing import BoxPlacing
from LesionClassifierLib.setup import explain, missingPackages

T = TypeVar("T")
_EVERY_MS = 40


class PanelRun(ABC, Generic[T]):
    """A run in the background as a panel shows it: how far it is, elapsed time, cancel. The interface never waits.

    One run at a time, on the main thread: Qt's timer asks it every few hundredths of a second. ``onEnded(outcome)`` is called
    once, when the next run may start; what went wrong goes to ``onError`` after that. ``isCounted``: the bar shows how much
    of the run is done, else only that it goes on. What the line of text says is the subclass's.
    """

    def __init__(
        self, bar, label, cancelButton, *,
        onEnded: Callable[[Outcome[T]], None], onError: Callable[[str], None], isCounted: bool = True,
    ) -> None:  # fmt: skip
        self._bar, self._label, self._isCounted = bar, label, isCounted
        self._onEnded, self._onError = onEnded, onError
        self._run: BackgroundRun[T] | None = None
        self._isForgotten = False
        self._timer = qt.QTimer()
        self._timer.setInterval(_EVERY_MS)
        self._timer.connect("timeout()", self._poll)
        cancelButton.connect("clicked()", self.cancel)
        if not isCounted:
            bar.minimum = bar.maximum = 0
        bar.visible = False

    @property
    def isRunning(self) -> bool:
        """Whether a run is under way."""
        return self._run is not None

    def cancel(self) -> None:
        """Ask for the end of the run; what is there by then is kept."""
        if self._run is not None:
            self._run.cancel()
            self._label.text = _("Cancelling...")

    def forget(self) -> None:
        """The scene closes: cancel, and show nothing of what may still come."""
        self._isForgotten = True
        self.cancel()

    def stop(self) -> None:
        """The module goes away: cancel, and ask no more."""
        self.forget()
        self._timer.stop()
        self._run = None

    def _begin(self, run: BackgroundRun[T]) -> None:
        """Look after ``run`` from now on."""
        self._run, self._isForgotten = run, False
        self._bar.maximum = run.total if self._isCounted else 0
        self._bar.visible = True
        self._show(run)
        self._timer.start()

    def _poll(self) -> None:
        run = self._run
        if run is None:
            self._timer.stop()
            return
        outcome = run.poll()
        if outcome is None:
            self._show(run)
            return
        self._timer.stop()
        self._run = None
        self._ended(run, outcome)

    def _show(self, run: BackgroundRun[T]) -> None:
        if self._isCounted:
            self._bar.value = run.done
        self._label.text = self._progressText(run)

    def _ended(self, run: BackgroundRun[T], outcome: Outcome[T]) -> None:
        self._bar.visible = False
        self._label.text = self._endText(run, outcome)
        self._onEnded(outcome)
        if outcome.error is not None:
            self._onError(str(outcome.error))

    def _endText(self, run: BackgroundRun[T], outcome: Outcome[T]) -> str:
        if outcome.error is not None:
            return self._errorText(outcome.error)
        if outcome.was_cancelled:
            return self._cancelledText()
        return self._goneText() if self._isForgotten else self._answered(run, outcome.value)

    @abstractmethod
    def _progressText(self, run: BackgroundRun[T]) -> str:
        """How far the run is."""

    @abstractmethod
    def _answered(self, run: BackgroundRun[T], answer: T) -> str:
        """Show the answer, and return what to say of it."""

    def _errorText(self, error: LesionLensError) -> str:
        """Beside what ``onError`` is told."""
        return ""

    def _cancelledText(self) -> str:
        return _("Cancelled; nothing was changed.")

    def _goneText(self) -> str:
        return _("The scene was closed meanwhile; the answer is not shown.")


class ModulePanel(ABC):
    """A module's whole panel: the scene and its parameters, the model and where it runs, the set-up step, a box by one click.

    ``ui``: the widgets of the module's .ui file by name. ``logic``: what the buttons call; its ``runner`` is where the models
    run. ``missing``: what they need and this computer has not. ``parameters`` is the parameter node, None between two scenes.
    A subclass makes `run`, and says what the rest of the panel does.
    """

    run: PanelRun

    def __init__(self, ui, logic, *, missing=missingPackages) -> None:
        self._ui, self._logic, self._missing = ui, logic, missing
        self.parameters = None
        self.scene: vtkMRMLScene | None = None
        self._isEntered = False
        self.models = ModelsPanel(ui, onChosen=self._modelChosen, onError=self._showError)
        self.runsOn = RunsOnPanel(ui, logic.runner, onChanged=self._runsElsewhere, onError=self._showError)
        self.watch = SceneWatch(self._sceneChanged)
        self.placing = BoxPlacing()
        ui.placeButton.connect("clicked()", self._place)
        ui.restartButton.connect("clicked()", self._restart)
        self.models.showDevice(_("decided at the first answer"), _("The GPU where there is one, else the CPU."))
        self.checkSetup()

    @property
    def isSetUp(self) -> bool:
        """Whether all that models need is there: on this computer, or on the server that is asked."""
        return self.runsOn.isServer or not self._missing()

    def checkSetup(self) -> None:
        """Show the set-up step where something is missing."""
        missing = [] if self.runsOn.isServer else self._missing()
        self._ui.setupFrame.visible = bool(missing)
        if missing:
            self._ui.setupLabel.text = explain(missing, user_model_root())

    def warmUp(self) -> None:
        """Start the worker with the chosen model, so that the first answer comes soon."""
        if self.isSetUp and self.models.model and not self.run.isRunning:
            try:
                self._logic.runner.start(self.models.model, self.options())
            except LesionLensError as error:
                self._ui.statusLabel.text = str(error)

    def close(self) -> None:
        """The module goes away: end what runs."""
        self.watch.setScene(None)
        self.placing.stop()
        self.runsOn.stop()
        self.run.stop()

    @abstractmethod
    def options(self) -> RunOptions:
        """How the model is to run."""

    @abstractmethod
    def update(self) -> None:
        """Bring buttons and words in line with everything."""

    @abstractmethod
    def _sceneChanged(self) -> None:
        """Lesions, the CT or what lies above them have changed."""

    @abstractmethod
    def _place(self) -> None:
        """The user wants to place a box."""

    @abstractmethod
    def _showError(self, text: str) -> None:
        """What the user asked for did not work: say so, once."""

    def _watchScene(self) -> None:
        """Watch the scene while the module is the one that is shown."""
        self.watch.setScene(self.scene if self._isEntered else None)

    def _startPlacing(
        self, sizeMm: float, onPlaced: Callable[[np.ndarray], None], *, onGivenUp: Callable[[], None] | None = None
    ) -> None:
        """Wait for a click, and say what it will do."""
        self.placing.start(self.scene, onPlaced, onGivenUp=onGivenUp)
        self._ui.statusLabel.text = _(
            "Click the middle of the lesion in a slice view: a box of {0:.0f} mm appears."
        ).format(sizeMm)

    def _modelChosen(self, model: str, device: str) -> None:
        if self.parameters is not None:
            self.parameters.model, self.parameters.device = model, device
        self.warmUp()
        self.update()

    def _runsElsewhere(self) -> None:
        """The models run on another computer now, or here again."""
        self.checkSetup()
        self.warmUp()
        self.update()

    def _restart(self) -> None:
        self.run.cancel()
        self._logic.restartRunner()
        self.warmUp()
        self._ui.statusLabel.text = _("The worker was restarted.")
