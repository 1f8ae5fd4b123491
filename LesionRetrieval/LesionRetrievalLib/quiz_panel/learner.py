"""A learner at a quiz: start or resume, then step by step. What is shown is what the session allows, nothing else."""

from __future__ import annotations

import html
from collections.abc import Callable
from pathlib import Path

import qt
import slicer.util
from LesionLib.errors import LesionLensError
from slicer.i18n import tr as _

from .quiz import QuizSession, Step
from .quiz_answer_form import AnswerForm
from .quiz_logic import QuizLogic
from .quiz_paths import connectFile, connectFolder
from .quiz_reveal_panel import RevealPanel
from .quiz_schema import checked_learner
from .quiz_words import endText, feedbackText, goOnText, stepText

_ANSWERING = (Step.FIRST_ANSWER, Step.SECOND_ANSWER)
_REVEALED = (Step.REVEAL, Step.SECOND_ANSWER, Step.FEEDBACK)


class LearnerPanel:
    """``onChanged`` is called when a session begins or ends; what goes wrong is told by ``onError``."""

    def __init__(self, ui, logic: QuizLogic, *, onChanged: Callable[[], None], onError: Callable[[str], None]) -> None:
        self._ui, self._logic, self._onChanged, self._onError = ui, logic, onChanged, onError
        self.answers = AnswerForm(ui, onChanged=self._updateGoOn, onGoOn=self.goOn)
        self.reveal = RevealPanel(ui, logic)
        self._showing: tuple | None = None
        connectFile(
            ui.quizPathEdit, ui.quizPathBrowseButton, title=_("Choose a quiz"), filters=_("Quizzes (*.json)"),
        )  # fmt: skip
        connectFolder(ui.answersPathEdit, ui.answersPathBrowseButton)
        for edit in (ui.quizPathEdit, ui.answersPathEdit, ui.learnerEdit):
            edit.connect("textChanged(QString)", lambda _text: self._updateStart())
            edit.connect("returnPressed()", self.start)
        for button, slot in (
            (ui.startButton, self.start), (ui.goOnButton, self.goOn), (ui.leaveButton, self.leave),
            (ui.nextLearnerButton, self.leave), (ui.placeBoxButton, self._place), (ui.takeBoxButton, self._take),
        ):  # fmt: skip
            button.connect("clicked()", slot)
        ui.pauseButton.connect("toggled(bool)", self._pauseToggled)
        for key, edit in self._remembered():
            edit.text = qt.QSettings().value(key) or ""
        self._updateStart()
        self.show()

    def start(self) -> None:
        """Start, or go on where this learner stopped."""
        if self._whyNotStart():
            self._ui.quizInfoLabel.text = html.escape(self._whyNotStart())
            return
        if self._try(self._start):
            session = self._logic.session
            self.answers.offer(session.quiz.classes)
            self._showing = None
            for key, edit in self._remembered():
                qt.QSettings().setValue(key, edit.text)
            resumed = session.position > 1 or session.step not in (Step.LOOK, Step.DONE)
            self.show(_("Welcome back: it goes on where you stopped.") if resumed else "")
            self.answers.takeFocus()

    def _start(self) -> None:
        ui = self._ui
        with slicer.util.WaitCursor():
            self._logic.start(ui.quizPathEdit.text, ui.answersPathEdit.text, ui.learnerEdit.text)

    def goOn(self) -> None:
        """The one large button, and Return: what comes next at this step."""
        session = self._logic.session
        if session is not None and not self._whyNotGoOn(session):
            actions = {
                Step.LOOK: self._logic.finishLooking,
                Step.BOX: self._logic.useBox,
                Step.FIRST_ANSWER: self._answer,
                Step.REVEAL: self._logic.finishReveal,
                Step.SECOND_ANSWER: self._answer,
                Step.FEEDBACK: self._logic.nextCase,
            }
            if session.is_paused:
                self._ui.pauseButton.checked = False
            elif session.step in actions:
                self._try(actions[session.step])
                self.show()
                self.answers.takeFocus()

    def pause(self, why: str = "") -> None:
        """Stop the clock and hide the case; ``why``: what to tell."""
        if self._logic.session is not None:
            self._ui.pauseButton.checked = True
            if why:
                self._say(why)

    def leave(self) -> None:
        """End here; the learner can come back."""
        name = "" if self._logic.session is None else self._logic.session.learner
        self._logic.stop()
        self._ui.learnerEdit.text = ""
        self.show()
        if name:
            self._ui.quizInfoLabel.text = _("The answers of {0} are kept. The next learner may start.").format(name)

    def close(self) -> None:
        """The module goes away."""
        self.answers.setActive(answering=False, goingOn=False)

    def show(self, said: str = "") -> None:
        """Bring the widgets in line with the session."""
        ui, session = self._ui, self._logic.session
        isDone = session is not None and session.step is Step.DONE
        ui.startFrame.visible = session is None
        ui.sessionFrame.visible = session is not None and not isDone
        ui.endFrame.visible = isDone
        self._say(said)
        self._onChanged()
        if session is None or isDone:
            self.reveal.hide()
            self._showing = None
            ui.feedbackLabel.text = ""
            ui.endLabel.text = endText(self._logic.ownScore(), session.quiz) if isDone else ""
            self.answers.setActive(answering=False, goingOn=False)
            return
        self._showSession(session)

    def _showSession(self, session: QuizSession) -> None:
        ui, step = self._ui, session.step
        isShown = not session.is_paused
        ui.caseLabel.text = _("<b>Case {0} of {1}</b>, {2}").format(
            session.position, session.total, html.escape(session.learner)
        )
        ui.caseProgress.maximum, ui.caseProgress.value = session.total, session.position - 1
        ui.pauseButton.checked = session.is_paused
        ui.pauseButton.text = _("Paused") if session.is_paused else _("Pause")
        ui.stepLabel.text = stepText(session)
        ui.boxFrame.visible = isShown and step is Step.BOX
        ui.takeBoxButton.visible = session.quiz.boxes == "free"
        ui.answerFrame.visible = isShown and step in _ANSWERING
        isTold = isShown and step is Step.FEEDBACK
        ui.feedbackLabel.visible = isTold
        ui.feedbackLabel.text = feedbackText(session.feedback) if isTold else ""
        now = (session.position, step)
        if now != self._showing:
            self.answers.clear()
        self._showing = now
        if isShown and step in _REVEALED:
            self.reveal.show(session.quiz, session.model_answer)
        else:
            self.reveal.hide()
        self._updateGoOn()

    def _updateGoOn(self) -> None:
        session = self._logic.session
        if session is None or session.step is Step.DONE:
            return
        why = self._whyNotGoOn(session)
        self._ui.goOnButton.text = goOnText(session)
        self._ui.goOnButton.enabled = not why
        self._ui.goOnButton.toolTip = why or _("Return")
        answering = session.step in _ANSWERING and not session.is_paused
        self.answers.setActive(answering=answering, goingOn=True)

    def _whyNotGoOn(self, session: QuizSession) -> str:
        if session.is_paused or session.step not in _ANSWERING:
            return ""
        if not self.answers.label:
            return _("Choose what it is: click, or press its number.")
        return _("Say how sure you are: click, or press + or -.") if self.answers.confidence is None else ""

    def _remembered(self):
        """Which quiz and which folder, so that whoever comes back needs only the code."""
        return (
            ("LesionLens/Quiz", self._ui.quizPathEdit),
            ("LesionLens/QuizAnswers", self._ui.answersPathEdit),
        )

    def _whyNotStart(self) -> str:
        ui = self._ui
        if not Path(ui.quizPathEdit.text).is_file():
            return _("Choose a quiz file.")
        if not ui.answersPathEdit.text.strip():
            return _("Choose the folder where the answers are kept.")
        try:
            checked_learner(ui.learnerEdit.text)
        except LesionLensError as error:
            return str(error) if ui.learnerEdit.text else _("Type your code.")
        return ""

    def _updateStart(self) -> None:
        why = self._whyNotStart()
        self._ui.startButton.enabled = not why
        self._ui.startButton.toolTip = why or _("Start, or go on where this code stopped.")
        self._ui.quizInfoLabel.text = html.escape(why)

    def _answer(self) -> None:
        self._logic.answer(self.answers.label, self.answers.confidence)

    def _place(self) -> None:
        if self._try(self._logic.startPlacing):
            self._say(
                _(
                    "Click the middle of the lesion in a slice view: a box of 20 mm appears; pull its handles until it fits."
                )
            )

    def _take(self) -> None:
        self._try(self._logic.takeBox)
        self.show()

    def _pauseToggled(self, isPaused: bool) -> None:
        session = self._logic.session
        if session is not None and isPaused != session.is_paused:
            self._try(self._logic.pause if isPaused else self._logic.resume)
            self.show()

    def _say(self, text: str) -> None:
        self._ui.learnerStateLabel.text, self._ui.learnerStateLabel.visible = text, bool(text)

    def _try(self, action: Callable[[], object]) -> bool:
        try:
            action()
        except LesionLensError as error:
            self._onError(str(error))
            return False
        return True
