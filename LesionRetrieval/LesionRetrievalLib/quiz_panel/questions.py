"""A teacher's own questions in the answer form: a list to choose from each, or a line to write in."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence

import qt
from slicer.i18n import tr as _

from LesionRetrievalLib.quiz.questions import DIFFERENTIAL, FREE_TEXT, MAX_DIFFERENTIAL, Question


class QuestionForm:
    """Below classes and confidence, with the first answer only. Nothing is chosen beforehand. ``onChanged``: something was."""

    def __init__(self, ui, *, onChanged: Callable[[], None]) -> None:
        self._onChanged = onChanged
        self._place = qt.QWidget()
        ui.answerFrame.layout().addWidget(self._place)
        qt.QVBoxLayout(self._place).setContentsMargins(0, 0, 0, 0)
        self._asked: tuple[Question, ...] = ()
        self._inputs: list[list] = []
        self._widgets: list = []

    def show(self, questions: Sequence[Question]) -> None:
        """Ask these; what was asked before goes with its answers."""
        if tuple(questions) == self._asked:
            return
        for widget in self._widgets:
            widget.setParent(None)
            widget.deleteLater()
        self._asked, self._widgets = tuple(questions), []
        self._inputs = [self._inputsOf(question) for question in self._asked]
        self._place.visible = bool(self._asked)

    @property
    def answers(self) -> dict[str, str | list[str]]:
        """What is answered so far, by the questions' ids."""
        given = {}
        for question, inputs in zip(self._asked, self._inputs, strict=True):
            if question.kind == FREE_TEXT:
                value = inputs[0].text.strip()
            else:
                chosen = [question.options[box.currentIndex - 1] for box in inputs if box.currentIndex > 0]
                value = list(dict.fromkeys(chosen)) if question.kind == DIFFERENTIAL else "".join(chosen)
            if value:
                given[question.question_id] = value
        return given

    @property
    def missing(self) -> str:
        """The first question that has to be answered and is not; empty where all are."""
        answers = self.answers
        waiting = [one for one in self._asked if not one.optional and one.question_id not in answers]
        return waiting[0].text if waiting else ""

    def choose(self, questionId: str, value: str | Sequence[str]) -> None:
        """Answer as a learner would."""
        place = next(number for number, one in enumerate(self._asked) if one.question_id == questionId)
        question, inputs = self._asked[place], self._inputs[place]
        if question.kind == FREE_TEXT:
            inputs[0].text = value
            return
        for box, option in zip(inputs, [value] if isinstance(value, str) else value, strict=False):
            box.setCurrentIndex(question.options.index(option) + 1)

    def _inputsOf(self, question: Question) -> list:
        text = html.escape(question.text)
        label = qt.QLabel(_("{0} (the likeliest first)").format(text) if question.kind == DIFFERENTIAL else text)
        label.wordWrap = True
        self._add(label)
        if question.kind == FREE_TEXT:
            edit = qt.QLineEdit()
            edit.connect("textChanged(QString)", lambda _text: self._onChanged())
            self._add(edit)
            return [edit]
        count = min(MAX_DIFFERENTIAL, len(question.options)) if question.kind == DIFFERENTIAL else 1
        boxes = [qt.QComboBox() for _number in range(count)]
        for number, box in enumerate(boxes):
            box.addItems([_("choose") if number == 0 else "\u2013", *question.options])
            box.connect("currentIndexChanged(int)", lambda _index: self._onChanged())
            self._add(box)
        return boxes

    def _add(self, widget) -> None:
        self._place.layout().addWidget(widget)
        self._widgets.append(widget)
