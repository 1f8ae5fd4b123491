"""The nine cards, and a tenth for the nearest case that turned out to be something else."""

from __future__ import annotations

import html
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import qt
from slicer.i18n import tr as _

from .case_card import RGB, CaseCard
from .library import Neighbour

COLUMNS, CARDS = 3, 9
# For labels that the model does not name; far apart in hue and lightness (Okabe and Ito).
_COLORS = (
    (0.90, 0.62, 0.0),
    (0.34, 0.71, 0.91),
    (0.80, 0.47, 0.65),
    (0.0, 0.62, 0.45),
    (0.84, 0.37, 0.0),
    (0.0, 0.45, 0.70),
)


class GalleryPanel:
    """``onChosen(neighbour)`` is called when another card is chosen. Arrow keys go from card to card."""

    def __init__(self, place, *, onChosen: Callable[[Neighbour], None]) -> None:
        self._onChosen = onChosen
        self._place = place
        grid = qt.QGridLayout(place)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(4)
        self.cards = [CaseCard(place, onChosen=self._tell(number)) for number in range(CARDS + 1)]
        for number, card in enumerate(self.cards[:CARDS]):
            grid.addWidget(card.button, number // COLUMNS, number % COLUMNS)
        for column in range(COLUMNS):
            grid.setColumnStretch(column, 1)
        self._other = qt.QLabel()
        self._other.wordWrap = True
        grid.addWidget(self.cards[CARDS].button, CARDS // COLUMNS, 0)
        grid.addWidget(self._other, CARDS // COLUMNS, 1, 1, COLUMNS - 1)
        self._isFilling = False
        self.clear()

    @property
    def chosen(self) -> Neighbour | None:
        """The case of the chosen card."""
        return next((c.neighbour for c in self.cards if c.button.checked and c.neighbour is not None), None)

    def clear(self) -> None:
        """No cases."""
        self.show([], None, pictures=lambda _caseId: {}, colors={}, marked=())

    def show(
        self,
        neighbours: Sequence[Neighbour],
        other: Neighbour | None,
        *,
        pictures: Callable[[str], Mapping[str, np.ndarray]],
        colors: Mapping[str, RGB],
        marked: Collection[str],
    ) -> None:
        """Show the cases, best first, and ``other``; the first is chosen unless the one chosen before is among them."""
        before = None if self.chosen is None else self.chosen.case_id
        shown = [*neighbours[:CARDS], *[None] * (CARDS - len(neighbours)), other]
        colored = labelColors([n.label for n in shown if n is not None], colors)
        self._isFilling = True
        for number, (card, neighbour) in enumerate(zip(self.cards, shown, strict=True)):
            rank = "\u2260" if number == CARDS else str(number + 1)
            found = {} if neighbour is None else pictures(neighbour.case_id)
            isMarked = neighbour is not None and neighbour.case_id in marked
            color = (0.5, 0.5, 0.5) if neighbour is None else colored[neighbour.label]
            card.show(neighbour, found, rank=rank, color=color, isMarked=isMarked)
        self._other.visible = other is not None
        kept = [c for c in self.cards if c.neighbour is not None and c.neighbour.case_id == before]
        first = (kept or [c for c in self.cards if c.neighbour is not None] or [None])[0]
        self._isFilling = False
        self._place.visible = first is not None
        if first is not None:
            first.choose()

    def nameOther(self, top: str) -> None:
        """Of which answer the tenth card is not."""
        other = self.cards[CARDS].neighbour
        words = _("The nearest case that is <b>not {0}</b>: what else this might be.").format(html.escape(top))
        places = [
            n
            for n, c in enumerate(self.cards[:CARDS], 1)
            if c.neighbour and other and c.neighbour.case_id == other.case_id
        ]
        among = _(" It is number {0} above.").format(places[0]) if places else _(" It is not among the nine above.")
        self._other.text = words + among

    def _tell(self, number: int) -> Callable[[], None]:
        def chosen() -> None:
            card = self.cards[number]
            if not self._isFilling and card.neighbour is not None:
                self._onChosen(card.neighbour)

        return chosen


def labelColors(labels: Sequence[str], known: Mapping[str, RGB]) -> dict[str, RGB]:
    """A colour a label: the model's own where it has that class."""
    others = sorted({label for label in labels if label not in known})
    return {**known, **{label: _COLORS[place % len(_COLORS)] for place, label in enumerate(others)}}
