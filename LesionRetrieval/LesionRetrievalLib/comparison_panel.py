"""The chosen case in the panel: beside the lesion, why it is similar, and that it is not."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping

import numpy as np
import qt
from slicer.i18n import tr as _

from .case_card import cardToolTip, pixmapOf
from .library import Neighbour

_LARGE_PX = 168
_PLANES = ("axial", "coronal", "sagittal")


class ComparisonPanel:
    """``onAsk(what, neighbour)``: "side by side", "back", "why" or "not similar"."""

    def __init__(self, ui, *, onAsk: Callable[[str, Neighbour], None]) -> None:
        self._ui, self._onAsk = ui, onAsk
        self._neighbour: Neighbour | None = None
        for button, what in (
            (ui.sideBySideButton, "side by side"), (ui.backButton, "back"), (ui.whyButton, "why"),
            (ui.notSimilarButton, "not similar"),
        ):  # fmt: skip
            button.connect("clicked()", self._asking(what))
        self._large = []
        layout = ui.picturesPlace.layout()
        layout.setContentsMargins(0, 0, 0, 0)
        for _plane in _PLANES:
            label = qt.QLabel()
            label.alignment = qt.Qt.AlignCenter
            layout.addWidget(label)
            self._large.append(label)
        self.hideLarge()

    def show(self, neighbour: Neighbour | None, *, isMarked: bool, isShown: bool, isPainted: bool, whyNot: str) -> None:
        """``isShown``, ``isPainted``: whether a comparison, or the map of this case, is on the screen. ``whyNot``: no asking now."""
        ui = self._ui
        if neighbour is None or self._neighbour is None or neighbour.case_id != self._neighbour.case_id:
            self.hideLarge()
        self._neighbour = neighbour
        ui.caseLabel.visible = neighbour is not None
        ui.caseLabel.text = "" if neighbour is None else caseText(neighbour)
        ui.caseLabel.toolTip = "" if neighbour is None else cardToolTip(neighbour)
        why = whyNot or ("" if neighbour is not None else _("Choose a case among those found."))
        for button, words in (
            (ui.sideBySideButton, _("Show the lesion and the selected case in linked slice views.")),
            (
                ui.whyButton,
                _("Paint what in the lesion makes it resemble the selected case; press again to take it off."),
            ),
            (ui.notSimilarButton, _("Note that this case is not similar in your eyes; press again to take it back.")),
        ):
            button.enabled, button.toolTip = not why, why or words
        ui.whyButton.checked = isPainted
        ui.notSimilarButton.checked = isMarked
        ui.notSimilarButton.text = _("Marked not similar") if isMarked else _("Not similar")
        ui.backButton.enabled = isShown

    def say(self, text: str) -> None:
        """Below the cards."""
        self._ui.comparisonLabel.visible = bool(text)
        self._ui.comparisonLabel.text = text

    def showLarge(self, pictures: Mapping[str, np.ndarray]) -> None:
        """The case's pictures, as large as the panel allows: all there is where the library holds no CT of it."""
        self._ui.picturesPlace.visible = bool(pictures)
        for label, plane in zip(self._large, _PLANES, strict=True):
            label.visible = plane in pictures
            if plane in pictures:
                label.setPixmap(pixmapOf(pictures[plane], _LARGE_PX))
                label.toolTip = plane

    def hideLarge(self) -> None:
        """No pictures."""
        self.showLarge({})
        self.say("")

    def _asking(self, what: str) -> Callable[[], None]:
        def ask() -> None:
            if self._neighbour is not None or what == "back":
                self._onAsk(what, self._neighbour)

        return ask


def caseText(neighbour: Neighbour) -> str:
    """The chosen case in one or two lines."""
    head = f"<b>{html.escape(neighbour.case_id)}</b>: {html.escape(neighbour.label)}, " + _(
        "established by {0}"
    ).format(html.escape(neighbour.label_source))
    return f"{head}<br>{html.escape(neighbour.note)}" if neighbour.note else head
