"""A learner at a quiz: start or resume, then step by step: the answer form, what the model says, and the truth."""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Sequence

import qt
import slicer.util
from LesionLib.errors import LesionLensError
from LesionLib.inference.description import ScoreRow, score_rows
from LesionLib.inference.results import RGB, color_bytes, css_color
from slicer.i18n import tr as _

from LesionRetrievalLib.library.cases import Neighbour
from LesionRetrievalLib.panel.cards import CaseCard
from LesionRetrievalLib.panel.results import CARDS, labelColors
from LesionRetrievalLib.quiz.attempt import Step
from LesionRetrievalLib.quiz.model import (
    NOBODY,
    ModelPrediction,
    Quiz,
    QuizClass,
    QuizNeighbour,
    checked_learner,
    confidence_levels,
)
from LesionRetrievalLib.quiz.session import QuizSession
from LesionRetrievalLib.quiz_logic import QuizLogic
from LesionRetrievalLib.quiz_panel.questions import QuestionForm
from LesionRetrievalLib.quiz_panel.widgets import connectFile, connectFolder, endText, feedbackText, goOnText, stepText

_KEYS = 9


class AnswerForm:
    """What the learner answers with: a class and how sure. Nothing is chosen beforehand, so that no answer is given by default.

    ``onChanged`` is called when something is chosen, ``onGoOn`` for Return.

    The keys of the answers work while the panel is to be seen. Return works only while the quiz has the keyboard: a line edit
    lets shortcuts of its window take it, so that it would send an answer while somebody renames a volume. Pressing the
    key of an answer, or any button of the quiz, gives the quiz the keyboard.
    """

    def __init__(self, ui, *, onChanged: Callable[[], None], onGoOn: Callable[[], None]) -> None:
        self._ui, self._onChanged = ui, onChanged
        self._names: list[str] = []
        self._classes: list[qt.QRadioButton] = []
        self._levels: list[qt.QPushButton] = []
        self._percents: list[int] = []
        qt.QVBoxLayout(ui.classesPlace).setContentsMargins(0, 0, 0, 0)
        row = qt.QHBoxLayout(ui.confidencePlace)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(2)
        self._answerKeys = [self._key(str(number + 1), self._chooser(number)) for number in range(_KEYS)]
        self._answerKeys += [self._key("+", lambda: self._move(1)), self._key("-", lambda: self._move(-1))]
        self._goOnKeys = [self._key(name, onGoOn) for name in ("Return", "Enter")]
        for key in self._goOnKeys:
            key.setContext(qt.Qt.WidgetWithChildrenShortcut)

    def offer(self, classes: Sequence[QuizClass]) -> None:
        """The answers of a quiz."""
        for button in (*self._classes, *self._levels):
            button.setParent(None)
            button.deleteLater()
        self._names = [one.name for one in classes]
        self._classes = [self._classButton(number, one) for number, one in enumerate(classes)]
        self._percents = confidence_levels(len(classes))
        self._levels = [self._levelButton(percent) for percent in self._percents]

    def clear(self) -> None:
        for button in (*self._classes, *self._levels):
            button.autoExclusive = False
            button.checked = False
            button.autoExclusive = True
        self._onChanged()

    @property
    def label(self) -> str:
        """The chosen class; empty where none is."""
        return next((name for name, b in zip(self._names, self._classes, strict=True) if b.checked), "")

    @property
    def confidence(self) -> float | None:
        """0 … 1; None as long as nothing is said."""
        chosen = [percent for percent, b in zip(self._percents, self._levels, strict=True) if b.checked]
        return chosen[0] / 100 if chosen else None

    def choose(self, label: str, confidence: float | None = None) -> None:
        """Choose as a click would; ``confidence``: the nearest level is taken."""
        self._classes[self._names.index(label)].checked = True
        if confidence is not None:
            near = min(range(len(self._percents)), key=lambda level: abs(self._percents[level] - 100 * confidence))
            self._levels[near].checked = True

    def takeFocus(self) -> None:
        """Give the quiz the keyboard, so that Return goes on."""
        self._ui.takeTab.setFocus()

    def setActive(self, *, answering: bool, goingOn: bool) -> None:
        """Which keys work now."""
        for key in self._answerKeys:
            key.enabled = answering
        for key in self._goOnKeys:
            key.enabled = goingOn

    def _classButton(self, number: int, one: QuizClass):
        key = f"{number + 1}  " if number < _KEYS else ""
        button = qt.QRadioButton(f"{key}{one.name}".replace("&", "&&"))
        hint = _(" (key {0})").format(number + 1) if number < _KEYS else ""
        button.toolTip = f"<span>{html.escape(one.description)}{hint}</span>"
        button.connect("toggled(bool)", lambda _isChosen: self._onChanged())
        self._ui.classesPlace.layout().addWidget(button)
        return button

    def _levelButton(self, percent: int):
        button = qt.QPushButton(f"{percent}%")
        button.checkable = button.autoExclusive = True
        button.minimumWidth = 30
        notes = {self._percents[0]: _("a guess"), 100: _("certain")}.get(percent, _("so probably right"))
        button.toolTip = _("{0} (keys + and -)").format(notes)
        button.connect("toggled(bool)", lambda _isChosen: self._onChanged())
        self._ui.confidencePlace.layout().addWidget(button)
        return button

    def _chooser(self, number: int) -> Callable[[], None]:
        def choose() -> None:
            if number < len(self._classes):
                self._classes[number].checked = True
                self.takeFocus()

        return choose

    def _move(self, step: int) -> None:
        """The first press says the lowest level, or with - the highest."""
        chosen = [level for level, button in enumerate(self._levels) if button.checked]
        level = chosen[0] + step if chosen else (0 if step > 0 else len(self._levels) - 1)
        self._levels[max(0, min(level, len(self._levels) - 1))].checked = True
        self.takeFocus()

    def _key(self, name: str, slot: Callable[[], None]):
        shortcut = qt.QShortcut(qt.QKeySequence(name), self._ui.takeTab)
        shortcut.connect("activated()", slot)
        shortcut.enabled = False
        return shortcut


_BAR_PX, _BAR_HEIGHT_PX = 220, 14
_MAX_COLUMNS, _CARD_PX = 3, 150


class RevealPanel:
    """What the model says, for the learner who has answered: bars, reliability, heat map, similar cases.

    Empty until `show`: neither a widget nor a node holds an answer before.
    """

    def __init__(self, ui, logic: QuizLogic) -> None:
        self._ui, self._logic = ui, logic
        grid = qt.QGridLayout(ui.probabilityPlace)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setVerticalSpacing(3)
        grid.setColumnStretch(2, 1)
        self._bars: list[qt.QLabel] = []
        self._shown: ModelPrediction | None = None
        self._grid = qt.QGridLayout(ui.neighboursPlace)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setSpacing(4)
        self.cards = [CaseCard(ui.neighboursPlace, onChosen=lambda: None) for _place in range(CARDS)]
        self._showNeighbours((), {})
        ui.quizHeatCheckBox.connect("toggled(bool)", lambda _isOn: self._showHeat())
        ui.quizHeatSlider.connect("valueChanged(int)", lambda _value: self._showHeat())

    def hide(self) -> None:
        """Forget the answer."""
        self._ui.revealFrame.visible = False
        if self._shown is None:
            return
        self._shown = None
        self._removeBars()
        self._showNeighbours((), {})
        for label in (self._ui.modelLabel, self._ui.quizReliabilityLabel, self._ui.neighboursLabel):
            label.text = ""

    def show(self, quiz: Quiz, answer: ModelPrediction) -> None:
        """Everything that the quiz holds of the model's answer to the case."""
        ui, colors = self._ui, {one.name: one.color for one in quiz.classes}
        ui.revealFrame.visible = True
        self._showHeat()
        if answer is self._shown:
            return
        self._shown = answer
        rows = score_rows(quiz.scores, answer.scores, answer.reliability.spread) if answer.label else ()
        ui.modelLabel.text = _modelText(answer, colors, rows)
        self._removeBars()
        for row, (name, p) in enumerate(answer.probabilities.items() if answer.label else ()):
            self._addBar(row, name, p, colors[name])
        messages = answer.reliability.messages(quiz.class_names) if answer.label else ()
        notes = [row.spec.note for row in rows if row.spec.note]
        texts = [*messages, *notes, *(f"\u26a0 {text}" for text in answer.warnings)]
        ui.quizReliabilityLabel.text = "<br>".join(html.escape(message) for message in texts)
        hasHeat = answer.heat_map is not None
        ui.quizHeatCheckBox.enabled = ui.quizHeatSlider.enabled = hasHeat
        without = _("No heat map: nothing in the box speaks for it") if answer.label else _("No heat map")
        ui.quizHeatCheckBox.text = _("Heat map") if hasHeat else without
        self._showNeighbours(answer.similar, colors)

    def _showNeighbours(self, similar: tuple[QuizNeighbour, ...], colors) -> None:
        shown = [_neighbour(one) for one in similar[:CARDS]]
        colored = labelColors([one.label for one in shown], colors)
        columns = max(1, min(_MAX_COLUMNS, self._ui.takeTab.width // _CARD_PX))
        for number, card in enumerate(self.cards):
            self._grid.addWidget(card.button, number // columns, number % columns)
            if number < len(shown):
                one = shown[number]
                card.show(one, similar[number].thumbnails, rank=str(number + 1), color=colored[one.label])
            else:
                card.show(None, {}, rank="", color=(0, 0, 0))
        self._ui.neighboursLabel.text = (
            _("The {0} most similar known cases, and what they turned out to be:").format(len(shown)) if shown else ""
        )

    def _addBar(self, row: int, name: str, p: float, color: RGB) -> None:
        bar = qt.QLabel()
        pixmap = qt.QPixmap(max(1, round(_BAR_PX * p)), _BAR_HEIGHT_PX)
        pixmap.fill(qt.QColor(*color_bytes(color)))
        bar.setPixmap(pixmap)
        for column, label in enumerate((qt.QLabel(name), qt.QLabel(f"{p:.2f}"), bar)):
            label.textFormat = qt.Qt.PlainText
            self._ui.probabilityPlace.layout().addWidget(label, row, column)
            self._bars.append(label)

    def _removeBars(self) -> None:
        for label in self._bars:
            self._ui.probabilityPlace.layout().removeWidget(label)
            label.setParent(None)
            label.deleteLater()
        self._bars = []

    def _showHeat(self) -> None:
        self._logic.display.setHeat(
            isShown=self._ui.quizHeatCheckBox.checked, opacity=self._ui.quizHeatSlider.value / 100
        )


def _modelText(answer: ModelPrediction, colors, rows: tuple[ScoreRow, ...]) -> str:
    if not answer.label:
        return _("<b>The model has no answer for this case.</b>")
    says = _("The model says <b style='color:{0}'>{1}</b>, p = {2:.2f}").format(
        css_color(colors[answer.label]), html.escape(answer.label), answer.probabilities[answer.label]
    )
    lines = [says, html.escape(answer.sentence)] if rows else [says]
    return "<br>".join(lines) + _scoresTable(rows)


def _scoresTable(rows: tuple[ScoreRow, ...]) -> str:
    """A line a score, its level drawn on its scale; nothing without scores."""
    cells = [(row.spec.name, row.dots_text, f"{row.level_text} ({row.value:.1f})") for row in rows]
    lines = ["".join(f"<td>{html.escape(text)}&nbsp;&nbsp;</td>" for text in line) for line in cells]
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>" if rows else ""


def _neighbour(one: QuizNeighbour) -> Neighbour:
    return Neighbour(
        one.case_id, one.label, one.similarity, one.label_source, one.organ, NOBODY, NOBODY, one.attributes, ""
    )


_ANSWERING = (Step.FIRST_ANSWER, Step.SECOND_ANSWER)
_REVEALED = (Step.REVEAL, Step.SECOND_ANSWER, Step.FEEDBACK)


class LearnerPanel:
    """A learner at a quiz: start or resume, then step by step. What is shown is what the session allows, nothing else.

    ``onChanged`` is called when a session begins or ends; what goes wrong is told by ``onError``.
    """

    def __init__(self, ui, logic: QuizLogic, *, onChanged: Callable[[], None], onError: Callable[[str], None]) -> None:
        self._ui, self._logic, self._onChanged, self._onError = ui, logic, onChanged, onError
        self.answers = AnswerForm(ui, onChanged=self._updateGoOn, onGoOn=self.goOn)
        self.questions = QuestionForm(ui, onChanged=self._updateGoOn)
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
        if self._startDisabledReason():
            self._ui.quizInfoLabel.text = html.escape(self._startDisabledReason())
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
        if session is not None and not self._goOnDisabledReason(session):
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

    def pause(self, reason: str = "") -> None:
        """Stop the clock and hide the case; ``reason``: what to tell."""
        if self._logic.session is not None:
            self._ui.pauseButton.checked = True
            if reason:
                self._showMessage(reason)

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

    def show(self, texts: str = "") -> None:
        """Bring the widgets in line with the session."""
        ui, session = self._ui, self._logic.session
        isDone = session is not None and session.step is Step.DONE
        ui.startFrame.visible = session is None
        ui.sessionFrame.visible = session is not None and not isDone
        ui.endFrame.visible = isDone
        self._showMessage(texts)
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
        isNotified = isShown and step is Step.FEEDBACK
        ui.feedbackLabel.visible = isNotified
        ui.feedbackLabel.openExternalLinks = True
        ui.feedbackLabel.text = feedbackText(session.feedback, session.questions) if isNotified else ""
        now = (session.position, step)
        if now != self._showing:
            self.questions.show(())
            self.questions.show(session.questions if step is Step.FIRST_ANSWER else ())
            self.answers.clear()
        self._showing = now
        if isShown and step in _REVEALED:
            self.reveal.show(session.quiz, session.model_prediction)
        else:
            self.reveal.hide()
        self._updateGoOn()

    def _updateGoOn(self) -> None:
        session = self._logic.session
        if session is None or session.step is Step.DONE:
            return
        reason = self._goOnDisabledReason(session)
        self._ui.goOnButton.text = goOnText(session)
        self._ui.goOnButton.enabled = not reason
        self._ui.goOnButton.toolTip = reason or _("Return")
        answering = session.step in _ANSWERING and not session.is_paused
        self.answers.setActive(answering=answering, goingOn=True)

    def _goOnDisabledReason(self, session: QuizSession) -> str:
        if session.is_paused or session.step not in _ANSWERING:
            return ""
        if not self.answers.label:
            return _("Choose what it is: click, or press its number.")
        if self.answers.confidence is None:
            return _("Say how sure you are: click, or press + or -.")
        return _("Answer: {0}").format(self.questions.missing) if self.questions.missing else ""

    def _remembered(self):
        """Which quiz and which folder, so that whoever comes back needs only the code."""
        return (
            ("LesionLens/Quiz", self._ui.quizPathEdit),
            ("LesionLens/QuizAnswers", self._ui.answersPathEdit),
        )

    def _startDisabledReason(self) -> str:
        ui = self._ui
        if not os.path.isfile(ui.quizPathEdit.text):
            return _("Choose a quiz file.")
        if not ui.answersPathEdit.text.strip():
            return _("Choose the folder where the answers are kept.")
        try:
            checked_learner(ui.learnerEdit.text)
        except LesionLensError as error:
            return str(error) if ui.learnerEdit.text else _("Type your code.")
        return ""

    def _updateStart(self) -> None:
        reason = self._startDisabledReason()
        self._ui.startButton.enabled = not reason
        self._ui.startButton.toolTip = reason or _("Start, or go on where this code stopped.")
        self._ui.quizInfoLabel.text = html.escape(reason)

    def _answer(self) -> None:
        self._logic.answer(self.answers.label, self.answers.confidence, self.questions.answers)

    def _place(self) -> None:
        if self._try(self._logic.startPlacing):
            self._showMessage(
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

    def _showMessage(self, text: str) -> None:
        self._ui.learnerStateLabel.text, self._ui.learnerStateLabel.visible = text, bool(text)

    def _try(self, action: Callable[[], object]) -> bool:
        try:
            action()
        except LesionLensError as error:
            self._onError(str(error))
            return False
        return True
