"""What the learner answers with: a class and how sure. Nothing is chosen beforehand, so that no answer is given by default."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence

import qt
from slicer.i18n import tr as _

from .quiz_model import QuizClass

_LEVELS = 6
_KEYS = 9


def confidenceLevels(classes: int) -> list[int]:
    """Per cent from a guess among so many classes up to certain, in six steps; whole numbers, none twice."""
    lowest = 100 / classes
    return [round(lowest + (100 - lowest) * place / (_LEVELS - 1)) for place in range(_LEVELS)]


class AnswerForm:
    """``onChanged`` is called when something is chosen, ``onGoOn`` for Return.

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
        self._percents = confidenceLevels(len(classes))
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
            near = min(range(len(self._percents)), key=lambda place: abs(self._percents[place] - 100 * confidence))
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
        told = {self._percents[0]: _("a guess"), 100: _("certain")}.get(percent, _("so probably right"))
        button.toolTip = _("{0} (keys + and -)").format(told)
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
        chosen = [place for place, button in enumerate(self._levels) if button.checked]
        place = chosen[0] + step if chosen else (0 if step > 0 else len(self._levels) - 1)
        self._levels[max(0, min(place, len(self._levels) - 1))].checked = True
        self.takeFocus()

    def _key(self, name: str, slot: Callable[[], None]):
        shortcut = qt.QShortcut(qt.QKeySequence(name), self._ui.takeTab)
        shortcut.connect("activated()", slot)
        shortcut.enabled = False
        return shortcut
