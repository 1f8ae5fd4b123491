"""What a search has found, and all that can be done with it: cards, vote, comparison, explanation, feedback."""

from __future__ import annotations

import html
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import qt
from LesionClassifierLib.scene.lesions import boxFromRoi
from LesionClassifierLib.scene.results import staleReason, storedResult
from LesionClassifierLib.scene.volumes import volumeFromNode
from LesionLib.errors import LesionLensError, WarningName
from LesionLib.inference.messages import Embedding
from LesionLib.inference.results import RGB, abstention_codes
from slicer import vtkMRMLMarkupsROINode, vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _

from LesionRetrievalLib.library.cases import ModelIdentity, Neighbour, indexed_as
from LesionRetrievalLib.library.neighbours import NeighbourVote, agreement_text
from LesionRetrievalLib.library.patches import case_thumbnails
from LesionRetrievalLib.library.search.filters import SearchPlan
from LesionRetrievalLib.logic import searchLibrary
from LesionRetrievalLib.panel.cards import CaseCard, ComparisonPanel, mosaic, pixmapOf
from LesionRetrievalLib.scene.comparison import (
    SIMILARITY_ATTRIBUTE,
    removeSimilarity,
    setOpacity,
    showSimilarity,
    similarityNodes,
)

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
    """The nine cards, and a tenth for the nearest case that turned out to be something else.

    ``onChosen(neighbour)`` is called when another card is chosen. Arrow keys go from card to card.
    """

    def __init__(self, place, *, onChosen: Callable[[Neighbour], None]) -> None:
        self._onChosen = onChosen
        self._place = place
        grid = qt.QGridLayout(place)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(4)
        self.cards = [CaseCard(place, onChosen=self._notify(number)) for number in range(CARDS + 1)]
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
        self.show([], None, thumbnails=lambda _caseId: {}, colors={}, marked=())

    def show(
        self,
        neighbours: Sequence[Neighbour],
        other: Neighbour | None,
        *,
        thumbnails: Callable[[str], Mapping[str, np.ndarray]],
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
            found = {} if neighbour is None else thumbnails(neighbour.case_id)
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
        text = _("The nearest case that is <b>not {0}</b>: what else this might be.").format(html.escape(top))
        ranks = [
            n
            for n, c in enumerate(self.cards[:CARDS], 1)
            if c.neighbour and other and c.neighbour.case_id == other.case_id
        ]
        among = _(" It is number {0} above.").format(ranks[0]) if ranks else _(" It is not among the nine above.")
        self._other.text = text + among

    def _notify(self, number: int) -> Callable[[], None]:
        def chosen() -> None:
            card = self.cards[number]
            if not self._isFilling and card.neighbour is not None:
                self._onChosen(card.neighbour)

        return chosen


def labelColors(labels: Sequence[str], known: Mapping[str, RGB]) -> dict[str, RGB]:
    """A colour a label: the model's own where it has that class."""
    others = sorted({label for label in labels if label not in known})
    return {**known, **{label: _COLORS[place % len(_COLORS)] for place, label in enumerate(others)}}


_MAX_ROWS = 6


class VotePanel:
    """The vote of the cases found beside the model's probabilities: two bars a label, and a sentence.

    Bars for at most six labels, those with the most cases or the highest probability.
    """

    def __init__(self, place, message) -> None:
        self._place, self._message = place, message
        self._grid = qt.QGridLayout(place)
        self._grid.setContentsMargins(0, 4, 0, 0)
        self._grid.setColumnStretch(1, 1)
        self._grid.setColumnStretch(2, 1)
        self._titles = [qt.QLabel(), qt.QLabel(_("cases found")), qt.QLabel(_("model"))]
        for column, title in enumerate(self._titles):
            self._grid.addWidget(title, 0, column)
        self._grid.setRowStretch(_MAX_ROWS + 1, 1)
        self._rows = [self._row(row) for row in range(1, _MAX_ROWS + 1)]
        self.clear()

    def clear(self) -> None:
        """Nothing was searched."""
        self._place.visible = self._message.visible = False

    def show(
        self,
        vote: NeighbourVote,
        probabilities: Mapping[str, float],
        *,
        model: str,
        abstention: Sequence[WarningName] = (),
    ) -> None:
        """``probabilities``: by class, of the model named ``model``; empty for one that only compares lesions.

        ``abstention``: why the model has no answer; then there are no bars.
        """
        if abstention:
            self.showMessage(agreement_text(vote, None, abstention=abstention))
            return
        self._titles[2].toolTip = html.escape(model)
        message = agreement_text(vote, probabilities)
        if set(vote.shares).isdisjoint(probabilities):
            probabilities = {}  # bars of different things beside each other would look like a comparison
        weights = {
            label: max(vote.shares.get(label, 0), probabilities.get(label, 0))
            for label in {**vote.shares, **probabilities}
        }
        labels = sorted(weights, key=lambda label: -weights[label])[:_MAX_ROWS]
        self._titles[2].visible = bool(probabilities)
        for row, widgets in enumerate(self._rows):
            self._fill(widgets, labels[row] if row < len(labels) else None, vote, probabilities)
        self._place.visible = bool(vote.shares)
        self._message.visible = True
        self._message.text = html.escape(message)

    def showMessage(self, text: str) -> None:
        """No bars, only words."""
        self._place.visible = False
        self._message.visible = True
        self._message.text = html.escape(text)

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


_QUERY_PX = 146


@dataclass(frozen=True, eq=False)
class Found:
    """An answer, and what it answers: nodes by ID, for they may be gone.

    ``corners``: (8, 3), of the lesion's box when it was asked, RAS mm. ``thumbnail``: of the lesion, uint8 grey (height, width).
    """

    embedding: Embedding
    plan: SearchPlan
    patient: str | None
    neighbours: tuple[Neighbour, ...]
    other: Neighbour | None
    scene: Any
    volumeId: str
    roiId: str
    corners: np.ndarray
    thumbnail: np.ndarray | None
    text: str

    @property
    def volumeNode(self) -> vtkMRMLScalarVolumeNode | None:
        """The CT, while it is there."""
        return self.scene.GetNodeByID(self.volumeId)

    @property
    def roiNode(self) -> vtkMRMLMarkupsROINode | None:
        """The lesion, while it is there."""
        return self.scene.GetNodeByID(self.roiId)

    @property
    def abstention(self) -> tuple[WarningName, ...]:
        """Why the model has no answer for the lesion, as codes; empty where it has one."""
        return abstention_codes(self.embedding.warnings)

    def staleReason(self) -> str:
        """Why the answer holds no longer; empty where it does."""
        if self.volumeNode is None or self.roiNode is None:
            return _("The lesion of this search is no longer in the scene.")
        try:
            corners = boxFromRoi(self.roiNode).cornersRAS
        except LesionLensError as error:
            return str(error)
        return "" if np.allclose(corners, self.corners, atol=1e-3) else _("The box has changed since: search again.")


def modelsWord(found: Found) -> tuple[str, Mapping[str, float]]:
    """Name and probabilities: of the model that was asked, or, where it knows no classes, what Lesion Classifier said."""
    stored = storedResult(found.roiNode) if not found.embedding.probabilities else None
    if stored is not None and not staleReason(found.roiNode):
        return stored.run.model_name, stored.result.without_abstained.shown_probabilities
    return found.embedding.info.model_name, found.embedding.probabilities


class FoundPanel:
    """What a search has found, and all that can be done with it.

    ``ask(volumeNode, roiNode, doing, answered, similarTo)`` has the model look at a lesion.
    """

    def __init__(self, ui, logic, *, onChanged: Callable[[], None], onError: Callable[[str], None], ask) -> None:
        self._ui, self._logic = ui, logic
        self._onChanged, self._onError, self._ask = onChanged, onError, ask
        self._found: Found | None = None
        self._marked: set[str] = set()
        self._opacity = 0.5
        self._isEntered, self._atReturn = True, None
        self.comparison = ComparisonPanel(ui, onAsk=self._do)
        self.vote = VotePanel(ui.votePlace, ui.voteLabel)
        self.gallery = GalleryPanel(ui.galleryPlace, onChosen=lambda _neighbour: self._onChanged())
        self.clear()

    @property
    def chosen(self) -> Neighbour | None:
        """The case of the chosen card."""
        return None if self._found is None else self.gallery.chosen

    def search(self, embedding: Embedding, plan: SearchPlan, patient: str | None, nodes: tuple, text: str) -> str:
        """Search with what the model has seen, show it, and return what to say. ``nodes``: CT and lesion, None where gone."""
        volumeNode, roiNode = nodes
        if volumeNode is None or roiNode is None:
            return _("The lesion was deleted meanwhile; the answer is not shown.")
        try:
            self._found = self._answer(embedding, plan, patient, volumeNode, roiNode, text)
            self._marked = self._logic.notSimilar(embedding)
            self._show()
        except LesionLensError as error:
            self._onError(str(error))
            return _("Nothing was found.")
        return _("{count} similar cases for {name}.").format(count=len(self._found.neighbours), name=roiNode.GetName())

    def searchAgain(self) -> None:
        """The library has changed: search it with what was seen before."""
        f = self._found
        if f is not None:
            self.search(f.embedding, f.plan, f.patient, (f.volumeNode, f.roiNode), f.text)

    def clear(self) -> None:
        """Nothing was searched for."""
        self._found = self._atReturn = None
        self.back()
        self.gallery.clear()
        self.vote.clear()
        self._ui.queryPicture.visible = False
        self.comparison.hideLarge()
        self._ui.foundLabel.text = _("Choose a lesion and a library, then press Find similar cases.")

    def forget(self) -> None:
        """The scene closes."""
        self.clear()

    def back(self) -> None:
        """Leave the comparison."""
        self._logic.hideSideBySide()

    def update(self, askDisabledReason: str) -> None:
        """Bring cards and buttons in line with the scene."""
        found, neighbour = self._found, self.chosen
        stale = "" if found is None else found.staleReason()
        isMarked = neighbour is not None and neighbour.case_id in self._marked
        self.comparison.show(
            neighbour,
            isMarked=isMarked,
            isShown=self._logic.comparison is not None,
            isMapShown=neighbour is not None and self._isMapShown(neighbour),
            disabledReason=stale or askDisabledReason,
        )
        if found is not None:
            self._ui.foundLabel.text = self._words(found, stale)

    def setEntered(self, isEntered: bool) -> None:
        """Whether the module is shown; a map that came meanwhile is painted at the return."""
        self._isEntered = isEntered
        if isEntered and self._atReturn is not None:
            showMap, self._atReturn = self._atReturn, None
            self.comparison.showMessage(showMap())
            self._onChanged()

    def setOpacity(self, opacity: float) -> None:
        """Of the explanation over the CT."""
        if opacity != self._opacity and self._found is not None:
            for node in similarityNodes(self._found.scene):
                setOpacity(node, opacity)
        self._opacity = opacity

    def _words(self, found: Found, stale: str) -> str:
        lines = [html.escape(found.text)]
        lines += [f"\u26a0 {html.escape(warning)}" for warning in found.embedding.warnings]
        if not found.neighbours:
            lines.insert(0, _("<b>No case meets the filters.</b>"))
        if stale:
            lines.insert(0, f"<b>\u26a0 {html.escape(stale)}</b>")
        return "<br>".join(lines)

    def _answer(
        self, embedding: Embedding, plan: SearchPlan, patient: str | None, volumeNode, roiNode, text: str
    ) -> Found:
        neighbours = searchLibrary(self._logic.library, embedding, plan, patient)
        isAnswered = not abstention_codes(embedding.warnings)
        top, box = self._logic.neighbourVote(neighbours).top if isAnswered else "", boxFromRoi(roiNode)
        return Found(
            embedding=embedding,
            plan=plan,
            patient=patient,
            neighbours=tuple(neighbours),
            other=self._logic.nearestOtherClass(embedding, top, plan=plan, patientHash=patient) if top else None,
            scene=volumeNode.GetScene(),
            volumeId=volumeNode.GetID(),
            roiId=roiNode.GetID(),
            corners=box.cornersRAS,
            thumbnail=mosaic(case_thumbnails(volumeFromNode(volumeNode), box)),
            text=text,
        )

    def _show(self) -> None:
        found = self._found
        self.gallery.show(
            found.neighbours, found.other, thumbnails=self._logic.library.thumbnails, colors=found.embedding.class_colors,
            marked=self._marked,
        )  # fmt: skip
        self._ui.queryPicture.visible = True
        self._ui.queryPicture.setPixmap(pixmapOf(found.thumbnail, _QUERY_PX))
        vote = self._logic.neighbourVote(found.neighbours)
        self.gallery.nameOther(vote.top)
        if found.plan.label:
            self.vote.showMessage(
                _("Only cases labelled {0} were searched, so they cannot vote.").format(found.plan.label)
            )
        else:
            model, probabilities = modelsWord(found)
            self.vote.show(vote, probabilities, model=model, abstention=found.abstention)
        self._onChanged()

    def _do(self, what: str, neighbour: Neighbour | None) -> None:
        actions = {"side by side": self._sideBySide, "why": self._why, "not similar": self._toggleMark}
        try:
            if what == "back":
                self.back()
                self.comparison.hideLarge()
            else:
                actions[what](neighbour)
        except LesionLensError as error:
            self._onError(str(error))
        self._onChanged()

    def _sideBySide(self, neighbour: Neighbour) -> None:
        found, library = self._found, self._logic.library
        if library.patch(neighbour.case_id) is None:
            self.back()
            thumbnails = library.thumbnails(neighbour.case_id)
            self.comparison.showLarge(thumbnails)
            text = _("The library holds no CT of {0}, so it cannot be laid beside the lesion.")
            text += _(" These are its pictures.") if thumbnails else _(" It holds no pictures either.")
            self.comparison.showMessage(text.format(neighbour.case_id))
            return
        self._logic.showSideBySide(found.volumeNode, found.roiNode, neighbour.case_id)
        self.comparison.showLarge({})
        self.comparison.showMessage(
            _("Above the lesion, below {0}. The views are linked, the middles of both boxes lie on each other.").format(
                neighbour.case_id
            )
        )

    def _isMapShown(self, neighbour: Neighbour) -> bool:
        roiNode = self._found.roiNode
        nodes = [] if roiNode is None else similarityNodes(self._found.scene, roiNode)
        return any(node.GetAttribute(SIMILARITY_ATTRIBUTE) == neighbour.case_id for node in nodes)

    def _why(self, neighbour: Neighbour) -> None:
        found = self._found
        if self._isMapShown(neighbour):
            removeSimilarity(found.scene, found.roiNode)
            return
        library = self._logic.library
        sha256 = indexed_as(library, ModelIdentity.of_embedding(found.embedding))
        vector = library.vector(neighbour.case_id, model_sha256=sha256)

        def answered(embedding: Embedding) -> str:
            if self._isEntered:
                return showMap(embedding)
            self._atReturn = lambda: showMap(embedding)
            return _("It is painted over the CT as soon as you come back.")

        def showMap(embedding: Embedding) -> str:
            if self._found is not found or found.staleReason():
                return _("The lesion has changed meanwhile; the map is not shown.")
            if embedding.heat_map.is_empty:
                removeSimilarity(found.scene, found.roiNode)
                return _("Nothing in the lesion makes it resemble {0}.").format(neighbour.case_id)
            showSimilarity(
                found.volumeNode, found.roiNode, embedding.heat_map,
                caseId=neighbour.case_id, model=ModelIdentity.of(embedding.info), opacity=self._opacity,
            )  # fmt: skip
            return _("Painted over the CT: what in the lesion makes it resemble {0}.").format(neighbour.case_id)

        self._ask(found.volumeNode, found.roiNode, _("Comparing with {0}").format(neighbour.case_id), answered, vector)

    def _toggleMark(self, neighbour: Neighbour) -> None:
        isMarked = neighbour.case_id not in self._marked
        path: Path = self._logic.markNotSimilar(self._found.embedding, neighbour.case_id, isMarked=isMarked)
        (self._marked.add if isMarked else self._marked.discard)(neighbour.case_id)
        self._show()
        self.comparison.showMessage(
            _("Noted in {0}: the case and a fingerprint of the lesion, nothing that tells whose it is.").format(path)
            if isMarked
            else _("Taken back.")
        )
