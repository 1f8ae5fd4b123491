"""What the model says, for the learner who has answered: bars, reliability, heat map, similar cases."""

from __future__ import annotations

import html

import qt
from slicer.i18n import tr as _

from .case_card import CaseCard
from .gallery_panel import CARDS, labelColors
from .library import Neighbour
from .quiz_logic import QuizLogic
from .quiz_model import Quiz, QuizAnswer, QuizNeighbour

_BAR_PX, _BAR_HEIGHT_PX = 220, 14
_MOST_COLUMNS, _CARD_PX = 3, 150
_NOBODY = "0" * 32


class RevealPanel:
    """Empty until `show`: neither a widget nor a node holds an answer before."""

    def __init__(self, ui, logic: QuizLogic) -> None:
        self._ui, self._logic = ui, logic
        grid = qt.QGridLayout(ui.probabilityPlace)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setVerticalSpacing(3)
        grid.setColumnStretch(2, 1)
        self._bars: list[qt.QLabel] = []
        self._shown: QuizAnswer | None = None
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

    def show(self, quiz: Quiz, answer: QuizAnswer) -> None:
        """Everything that the quiz holds of the model's answer to the case."""
        ui, colors = self._ui, {one.name: one.color for one in quiz.classes}
        ui.revealFrame.visible = True
        self._showHeat()
        if answer is self._shown:
            return
        self._shown = answer
        red, green, blue = (round(255 * part) for part in colors[answer.label])
        ui.modelLabel.text = _("The model says <b style='color:rgb({0},{1},{2})'>{3}</b>, p = {4:.2f}").format(
            red, green, blue, html.escape(answer.label), answer.probabilities[answer.label]
        )
        self._removeBars()
        for row, (name, p) in enumerate(answer.probabilities.items()):
            self._addBar(row, name, p, colors[name])
        said = [*answer.reliability.sentences(quiz.class_names), *(f"\u26a0 {text}" for text in answer.warnings)]
        ui.quizReliabilityLabel.text = "<br>".join(html.escape(sentence) for sentence in said)
        hasHeat = answer.heat_map is not None
        ui.quizHeatCheckBox.enabled = ui.quizHeatSlider.enabled = hasHeat
        ui.quizHeatCheckBox.text = _("Heat map") if hasHeat else _("No heat map: nothing in the box speaks for it")
        self._showNeighbours(answer.similar, colors)

    def _showNeighbours(self, similar: tuple[QuizNeighbour, ...], colors) -> None:
        shown = [_neighbour(one) for one in similar[:CARDS]]
        colored = labelColors([one.label for one in shown], colors)
        columns = max(1, min(_MOST_COLUMNS, self._ui.takeTab.width // _CARD_PX))
        for number, card in enumerate(self.cards):
            self._grid.addWidget(card.button, number // columns, number % columns)
            if number < len(shown):
                one = shown[number]
                card.show(one, similar[number].pictures, rank=str(number + 1), color=colored[one.label])
            else:
                card.show(None, {}, rank="", color=(0, 0, 0))
        self._ui.neighboursLabel.text = (
            _("The {0} most similar known cases, and what they turned out to be:").format(len(shown)) if shown else ""
        )

    def _addBar(self, row: int, name: str, p: float, color) -> None:
        bar = qt.QLabel()
        pixmap = qt.QPixmap(max(1, round(_BAR_PX * p)), _BAR_HEIGHT_PX)
        pixmap.fill(qt.QColor(*(round(255 * part) for part in color)))
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


def _neighbour(one: QuizNeighbour) -> Neighbour:
    return Neighbour(
        one.case_id, one.label, one.similarity, one.label_source, one.organ, _NOBODY, _NOBODY, one.attributes, ""
    )
