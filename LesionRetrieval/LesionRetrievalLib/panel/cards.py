"""A similar case in the panel: as one card of many, and, when chosen, beside the lesion."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping

import numpy as np
import qt
from LesionLib.inference.results import RGB, css_color
from slicer.i18n import tr as _

from LesionRetrievalLib.library.attributes import attributes_text, shown_name
from LesionRetrievalLib.library.cases import Neighbour

_BIG_PX, _SMALL_PX, _GAP_PX = 84, 41, 2
_WIDTH_PX, _HEIGHT_PX = 140, 174
_STYLE = "QPushButton:checked { border: 2px solid palette(highlight); border-radius: 4px; }"
_MAX_LETTERS, _MAX_OF_ATTRIBUTES = 30, 58


class CaseCard:
    """One similar case as a card: its pictures, its answer, how alike it is. A button, so that click and keyboard choose it.

    Made empty; `show` fills it, or hides it. ``onChosen`` is called when it becomes the chosen one of its siblings.
    """

    def __init__(self, parent, *, onChosen: Callable[[], None]) -> None:
        self.button = qt.QPushButton(parent)
        self.button.checkable = self.button.autoExclusive = True
        self.button.minimumWidth, self.button.minimumHeight = _WIDTH_PX, _HEIGHT_PX
        self.button.setStyleSheet(_STYLE)
        self.button.connect("toggled(bool)", lambda isChosen: onChosen() if isChosen else None)
        layout = qt.QVBoxLayout(self.button)
        layout.setContentsMargins(6, 6, 6, 4)
        layout.setSpacing(3)
        self._thumbnails = {plane: self._thumbnail() for plane in ("axial", "coronal", "sagittal")}
        row, column = qt.QHBoxLayout(), qt.QVBoxLayout()
        for each in (row, column):
            each.setSpacing(_GAP_PX)
        column.addWidget(self._thumbnails["coronal"])
        column.addWidget(self._thumbnails["sagittal"])
        row.addStretch(1)
        row.addWidget(self._thumbnails["axial"])
        row.addLayout(column)
        row.addStretch(1)
        layout.addLayout(row)
        self._none = self._label()
        self._none.alignment = qt.Qt.AlignCenter
        self._none.minimumHeight = _BIG_PX
        self._none.text = _("no pictures<br>in the library")
        layout.addWidget(self._none)
        self._head, self._more = self._label(), self._label()
        self._more.wordWrap = True
        layout.addWidget(self._head)
        layout.addWidget(self._more)
        layout.addStretch(1)
        self.neighbour: Neighbour | None = None

    def show(
        self, neighbour: Neighbour | None, thumbnails: Mapping[str, np.ndarray], *,
        rank: str, color: RGB, isMarked: bool = False,
    ) -> None:  # fmt: skip
        """Show a case; None shows an empty place. ``rank``: what stands in front. ``isMarked``: as not similar."""
        self.neighbour = neighbour
        self.button.visible = neighbour is not None
        if neighbour is None:
            return
        for plane, label in self._thumbnails.items():
            label.visible = bool(thumbnails)
            side = _BIG_PX if plane == "axial" else _SMALL_PX
            label.setFixedSize(side, side)
            label.setPixmap(pixmapOf(thumbnails.get(plane), side))
        self._none.visible = not thumbnails
        name = html.escape(_short(neighbour.label))
        struck = f"<s>{name}</s>" if isMarked else name
        self._head.text = (
            f"{rank}&nbsp; <b style='color:{css_color(color)}'>{struck}</b>&nbsp; {neighbour.similarity:.3f}"
        )
        source = _("marked as not similar") if isMarked else neighbour.label_source
        attributes = f"{neighbour.organ} · {attributes_text(neighbour.attributes)}".strip(" ·")
        lines = [_short(source), _short(attributes, _MAX_OF_ATTRIBUTES)]
        if neighbour.may_be_the_lesion:
            lines.insert(0, _("may be this very lesion"))
        self._more.text = "<br>".join(f"<small>{html.escape(line)}</small>" for line in lines)
        self.button.toolTip = cardToolTip(neighbour)
        self.button.accessibleName = f"{rank} {neighbour.label} {neighbour.similarity:.3f}"

    def choose(self) -> None:
        """Make it the chosen one."""
        self.button.checked = True

    def _thumbnail(self):
        label = self._label()
        label.alignment = qt.Qt.AlignCenter
        return label

    def _label(self):
        """The button below takes the clicks."""
        label = qt.QLabel()
        label.setAttribute(qt.Qt.WA_TransparentForMouseEvents)
        label.textFormat = qt.Qt.RichText
        return label


def pixmapOf(grey: np.ndarray | None, side: int):
    """A grey picture (height, width) as a pixmap that fits into ``side`` pixels; black where there is none."""
    if grey is None:
        grey = np.zeros((1, 1), np.uint8)
    height, width = grey.shape
    # As text: bytes that are zero would end the data where PythonQt takes it for a C string.
    text = f"P2 {width} {height} 255\n" + "\n".join(" ".join(map(str, row)) for row in grey.tolist())
    pixmap = qt.QPixmap()
    pixmap.loadFromData(qt.QByteArray(text.encode("ascii")), "PGM")
    return pixmap.scaled(side, side, qt.Qt.KeepAspectRatio, qt.Qt.SmoothTransformation)


def cardToolTip(neighbour: Neighbour) -> str:
    """All that the library says of the case."""
    lines = [
        f"<b>{html.escape(neighbour.label)}</b> ({html.escape(neighbour.case_id)})",
        _("similarity {0:.3f} (1 is the same)").format(neighbour.similarity),
        "" if neighbour.distance is None else _("at a distance of {0:.3f}").format(neighbour.distance),
        _("may be this very lesion") if neighbour.may_be_the_lesion else "",
        _("established by {0}").format(html.escape(neighbour.label_source)),
        html.escape(neighbour.organ),
        *(html.escape(f"{shown_name(name)}: {value}") for name, value in neighbour.attributes.items()),
        html.escape(neighbour.note),
    ]
    return "<br>".join(line for line in lines if line)


def mosaic(thumbnails: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """The three planes as one grey picture, as on a card: axial large, coronal above sagittal beside it; None without any."""
    if len(thumbnails) < 3:
        return None
    small = [thumbnails[plane][::2, ::2] for plane in ("coronal", "sagittal")]
    return np.concatenate([thumbnails["axial"], np.concatenate(small)], axis=1)


def _short(text: str, most: int = _MAX_LETTERS) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


_LARGE_PX = 168
_PLANES = ("axial", "coronal", "sagittal")


class ComparisonPanel:
    """The chosen case in the panel: beside the lesion, why it is similar, and that it is not.

    ``onAsk(what, neighbour)``: "side by side", "back", "why" or "not similar".
    """

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

    def show(
        self, neighbour: Neighbour | None, *, isMarked: bool, isShown: bool, isMapShown: bool, disabledReason: str
    ) -> None:
        """``isShown``, ``isMapShown``: whether a comparison, or the map of this case, is on the screen.
        ``disabledReason``: why nothing can be asked now."""
        ui = self._ui
        if neighbour is None or self._neighbour is None or neighbour.case_id != self._neighbour.case_id:
            self.hideLarge()
        self._neighbour = neighbour
        ui.caseLabel.visible = neighbour is not None
        ui.caseLabel.text = "" if neighbour is None else caseText(neighbour)
        ui.caseLabel.toolTip = "" if neighbour is None else cardToolTip(neighbour)
        reason = disabledReason or ("" if neighbour is not None else _("Choose a case among those found."))
        for button, text in (
            (ui.sideBySideButton, _("Show the lesion and the selected case in linked slice views.")),
            (
                ui.whyButton,
                _("Paint what in the lesion makes it resemble the selected case; press again to take it off."),
            ),
            (ui.notSimilarButton, _("Note that this case is not similar in your eyes; press again to take it back.")),
        ):
            button.enabled, button.toolTip = not reason, reason or text
        ui.whyButton.checked = isMapShown
        ui.notSimilarButton.checked = isMarked
        ui.notSimilarButton.text = _("Marked not similar") if isMarked else _("Not similar")
        ui.backButton.enabled = isShown

    def showMessage(self, text: str) -> None:
        """Below the cards."""
        self._ui.comparisonLabel.visible = bool(text)
        self._ui.comparisonLabel.text = text

    def showLarge(self, thumbnails: Mapping[str, np.ndarray]) -> None:
        """The case's pictures, as large as the panel allows: all there is where the library holds no CT of it."""
        self._ui.picturesPlace.visible = bool(thumbnails)
        for label, plane in zip(self._large, _PLANES, strict=True):
            label.visible = plane in thumbnails
            if plane in thumbnails:
                label.setPixmap(pixmapOf(thumbnails[plane], _LARGE_PX))
                label.toolTip = plane

    def hideLarge(self) -> None:
        """No pictures."""
        self.showLarge({})
        self.showMessage("")

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
