"""The vote of the cases found beside the model's probabilities: two bars a label, and a sentence."""

from __future__ import annotations

import html
from collections.abc import Mapping

import qt
from slicer.i18n import tr as _

from .neighbour_vote import NeighbourVote, agreement_sentence

_MOST_ROWS = 6


class VotePanel:
    """Bars for at most six labels, those with the most cases or the highest probability."""

    def __init__(self, place, sentence) -> None:
        self._place, self._sentence = place, sentence
        self._grid = qt.QGridLayout(place)
        self._grid.setContentsMargins(0, 4, 0, 0)
        self._grid.setColumnStretch(1, 1)
        self._grid.setColumnStretch(2, 1)
        self._titles = [qt.QLabel(), qt.QLabel(_("cases found")), qt.QLabel(_("model"))]
        for column, title in enumerate(self._titles):
            self._grid.addWidget(title, 0, column)
        self._grid.setRowStretch(_MOST_ROWS + 1, 1)
        self._rows = [self._row(row) for row in range(1, _MOST_ROWS + 1)]
        self.clear()

    def clear(self) -> None:
        """Nothing was searched."""
        self._place.visible = self._sentence.visible = False

    def show(self, vote: NeighbourVote, probabilities: Mapping[str, float], *, model: str) -> None:
        """``probabilities``: by class, of the model named ``model``; empty for one that only compares lesions."""
        self._titles[2].toolTip = html.escape(model)
        sentence = agreement_sentence(vote, probabilities)
        if set(vote.shares).isdisjoint(probabilities):
            probabilities = {}  # bars of different things beside each other would look like a comparison
        weights = {
            label: max(vote.shares.get(label, 0), probabilities.get(label, 0))
            for label in {**vote.shares, **probabilities}
        }
        labels = sorted(weights, key=lambda label: -weights[label])[:_MOST_ROWS]
        self._titles[2].visible = bool(probabilities)
        for row, widgets in enumerate(self._rows):
            self._fill(widgets, labels[row] if row < len(labels) else None, vote, probabilities)
        self._place.visible = bool(vote.shares)
        self._sentence.visible = True
        self._sentence.text = html.escape(sentence)

    def say(self, words: str) -> None:
        """No bars, only words."""
        self._place.visible = False
        self._sentence.visible = True
        self._sentence.text = html.escape(words)

    def _row(self, row: int) -> tuple:
        widgets = (qt.QLabel(), qt.QProgressBar(), qt.QProgressBar())
        for column, widget in enumerate(widgets):
            self._grid.addWidget(widget, row, column)
        for bar in widgets[1:]:
            bar.maximum = 1000
            bar.maximumHeight = 18
        return widgets

    def _fill(self, widgets: tuple, label: str | None, vote: NeighbourVote, probabilities: Mapping[str, float]) -> None:
        name, cases, model = widgets
        name.visible = cases.visible = label is not None
        model.visible = label is not None and bool(probabilities)
        if label is None:
            return
        name.text = html.escape(label)
        share, count = vote.shares.get(label, 0.0), vote.counts.get(label, 0)
        cases.value = round(1000 * share)
        cases.format = _("{share:.0%} ({count} of {total})").format(share=share, count=count, total=vote.total)
        model.value = round(1000 * probabilities.get(label, 0.0))
        model.format = f"p = {probabilities[label]:.2f}" if label in probabilities else _("no such class")
