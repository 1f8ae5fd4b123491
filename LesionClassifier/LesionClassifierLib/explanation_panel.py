"""Grad-CAM in the panel: for which class, how opaque, from which strength on, and what the model looked at."""

from __future__ import annotations

from collections.abc import Callable

from slicer import vtkMRMLMarkupsROINode
from slicer.i18n import tr as _

from .explanation import heatMapNode, hideSeen, showHeatMap, showSeen
from .result_nodes import StoredResult, storedResult


class ExplanationPanel:
    """Shows the explanation of one lesion; ``onAsk(className)`` is called for a class that is not explained yet."""

    def __init__(self, ui, *, onAsk: Callable[[str], None]) -> None:
        self._ui, self._onAsk = ui, onAsk
        self._roiNode: vtkMRMLMarkupsROINode | None = None
        self._filling = False
        self._laid: tuple | None = None
        ui.explainedClassSelector.connect("currentIndexChanged(int)", self._chosen)

    def show(self, roiNode: vtkMRMLMarkupsROINode | None, parameters, *, laysViews: bool) -> None:
        """Bring the widgets in line with the lesion and the panel's parameters; with ``laysViews`` the slice views too.

        What is laid over the views is laid once and only when it changes: what the user shows there meanwhile stays.
        """
        stored = None if roiNode is None else storedResult(roiNode)
        self._roiNode = roiNode if stored is not None else None
        self._ui.explanationButton.enabled = stored is not None
        self._fill(
            [] if stored is None else list(stored.result.probabilities), "" if stored is None else stored.explained
        )
        if stored is None:
            self._ui.heatLabel.text = ""
            if laysViews and roiNode is not None:
                hideSeen(roiNode.GetScene())
            return
        self._ui.heatLabel.text = self._words(stored)
        if laysViews:
            self._lay(roiNode, stored, parameters)

    def adopt(self, roiNode: vtkMRMLMarkupsROINode | None, parameters) -> None:
        """Take the views as they are for laid: a scene that was opened shows what it showed when it was saved."""
        stored = None if roiNode is None else storedResult(roiNode)
        self._laid = None if stored is None else _layers(roiNode, stored, parameters)

    def _lay(self, roiNode: vtkMRMLMarkupsROINode, stored: StoredResult, parameters) -> None:
        wanted = _layers(roiNode, stored, parameters)
        if wanted == self._laid:
            return
        self._laid = wanted
        showHeatMap(
            roiNode, opacity=parameters.heatOpacity, threshold=parameters.heatThreshold, isShown=parameters.showHeat
        )
        if parameters.showSeen:
            showSeen(roiNode)
        else:
            hideSeen(roiNode.GetScene())

    def _fill(self, classes: list[str], explained: str) -> None:
        """What is shown already stays untouched, so that an open list stays open."""
        selector = self._ui.explainedClassSelector
        self._filling = True
        try:
            if [selector.itemText(row) for row in range(selector.count)] != classes:
                selector.clear()
                selector.addItems(classes)
            if explained in classes and selector.currentIndex != classes.index(explained):
                selector.setCurrentIndex(classes.index(explained))
        finally:
            self._filling = False

    def _words(self, stored) -> str:
        node = heatMapNode(self._roiNode)
        inside = stored.result.reliability.heat_inside
        if node is None or inside is None:
            return _("The Grad-CAM is empty: nothing in the box speaks for {0}.").format(stored.explained)
        where = (
            _("segment") if stored.result.statistics and stored.result.statistics.measured_in == "segment" else _("box")
        )
        return _(
            "{share:.0%} of the heat lies inside the {where}; peak {peak} before scaling. It shows where the model looked, "
            "not where disease is."
        ).format(share=inside, where=where, peak=node.GetAttribute("LesionLens.Peak") or "?")

    def _chosen(self, _index: int) -> None:
        if self._filling or self._roiNode is None:
            return
        stored = storedResult(self._roiNode)
        asked = self._ui.explainedClassSelector.currentText
        if stored is not None and asked and asked != stored.explained:
            self._onAsk(asked)


def _layers(roiNode: vtkMRMLMarkupsROINode, stored: StoredResult, parameters) -> tuple:
    """All that decides what lies over the slice views."""
    heatNode = heatMapNode(roiNode)
    return (
        roiNode.GetID(), None if heatNode is None else heatNode.GetID(), stored.fingerprint, stored.explained,
        parameters.heatOpacity, parameters.heatThreshold, parameters.showHeat, parameters.showSeen,
    )  # fmt: skip
