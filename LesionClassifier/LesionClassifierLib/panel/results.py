"""The answer of one lesion in the panel: probabilities, how far to rely on them, warnings, and its explanation."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import qt
import slicer
import vtk
from LesionLib.errors import LesionLensError
from LesionLib.inference.description import ScoreRow
from LesionLib.inference.results import color_bytes, css_color
from LesionLib.model.card import figure_sentences, heat_sentence
from LesionLib.model.explanation import METHOD_NAMES
from LesionLib.model.folder import find_bundle, unchecked_manifest
from slicer import (
    vtkMRMLMarkupsROINode,
    vtkMRMLNode,
    vtkMRMLPlotChartNode,
    vtkMRMLPlotSeriesNode,
    vtkMRMLPlotViewNode,
    vtkMRMLScene,
    vtkMRMLTableNode,
)
from slicer.i18n import tr as _

from LesionClassifierLib.classification import heatMapNode, hideModelInput, showHeatMap, showModelInput
from LesionClassifierLib.scene.results import StoredResult, staleReason, storedResult
from LesionClassifierLib.scene.volumes import nodesOfClass

_NO_CLASS = "-"


def _noClass(stored: StoredResult) -> list[str]:
    """The first choice where nothing is explained yet: else the first class would look as if it were."""
    return [] if stored.explained else [_NO_CLASS]


class ExplanationPanel:
    """The map in the panel: for which class, how made, how opaque, from which strength on, and what the model looked at.

    Shows the explanation of one lesion; ``onAsk(className)`` is called for a class that is not explained yet, or not so.
    """

    def __init__(self, ui, *, onAsk: Callable[[str], None]) -> None:
        self._ui, self._onAsk = ui, onAsk
        self._roiNode: vtkMRMLMarkupsROINode | None = None
        self._filling = False
        self._laid: tuple | None = None
        for method, text in ((None, _("as the model's maps are made")), *METHOD_NAMES.items()):
            ui.mapMethodSelector.addItem(text if method is None else _("by {0}").format(text))
            ui.mapMethodSelector.setItemData(ui.mapMethodSelector.count - 1, method or "")
        ui.explainedClassSelector.connect("currentIndexChanged(int)", self._chosen)
        ui.mapMethodSelector.connect("currentIndexChanged(int)", self._methodChosen)

    @property
    def method(self) -> str | None:
        """How the user wants maps made; None: as the model does."""
        return self._ui.mapMethodSelector.currentData or None

    def show(self, roiNode: vtkMRMLMarkupsROINode | None, parameters, *, laysViews: bool) -> None:
        """Bring the widgets in line with the lesion and the panel's parameters; with ``laysViews`` the slice views too.

        What is laid over the views is laid once and only when it changes: what the user shows there meanwhile stays.
        """
        stored = None if roiNode is None else storedResult(roiNode)
        self._roiNode = roiNode if stored is not None else None
        self._ui.explanationButton.enabled = stored is not None
        self._fill(
            [] if stored is None else [*_noClass(stored), *stored.result.probabilities],
            "" if stored is None else stored.explained or _NO_CLASS,
        )
        if stored is None:
            self._ui.heatLabel.text = ""
            if laysViews and roiNode is not None:
                hideModelInput(roiNode.GetScene())
            return
        self._ui.heatLabel.text = self._heatText(stored)
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
            showModelInput(roiNode)
        else:
            hideModelInput(roiNode.GetScene())

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

    def _heatText(self, stored) -> str:
        node, method = heatMapNode(self._roiNode), METHOD_NAMES.get(stored.mapMethod, stored.mapMethod)
        if node is None and not stored.result.usable:
            return _(
                "The model has no answer, so there is nothing to explain; choose a class to see its map all the same."
            )
        if node is None and not stored.explained:
            return _("No map was made: this model's take up to a minute a lesion. Choose a class to see its map.")
        inside = stored.result.reliability.energy_inside
        if node is None or inside is None:
            return _("The {0} is empty: nothing in the box speaks for {1}.").format(method, stored.explained)
        where = (
            _("segment") if stored.result.statistics and stored.result.statistics.measured_in == "segment" else _("box")
        )
        return _("{share:.0%} of the heat lies inside the {where}; peak {peak} before scaling. {says}").format(
            share=inside,
            where=where,
            peak=node.GetAttribute("LesionLens.Peak") or "?",
            says=heat_sentence(_manifestOf(stored), method=stored.mapMethod),
        )

    def _methodChosen(self, _index: int) -> None:
        """Ask for the class that is shown once more, where its map was made in another way."""
        stored = None if self._roiNode is None else storedResult(self._roiNode)
        if stored is not None and stored.explained and self.method not in (None, stored.mapMethod):
            self._onAsk(stored.explained)

    def _chosen(self, _index: int) -> None:
        if self._filling or self._roiNode is None:
            return
        stored = storedResult(self._roiNode)
        asked = self._ui.explainedClassSelector.currentText
        if stored is not None and asked in stored.result.probabilities and asked != stored.explained:
            self._onAsk(asked)


def _layers(roiNode: vtkMRMLMarkupsROINode, stored: StoredResult, parameters) -> tuple:
    """All that decides what lies over the slice views."""
    heatNode = heatMapNode(roiNode)
    return (
        roiNode.GetID(), None if heatNode is None else heatNode.GetID(), stored.fingerprint, stored.explained,
        parameters.heatOpacity, parameters.heatThreshold, parameters.showHeat, parameters.showSeen,
    )  # fmt: skip


_ATTRIBUTE = "LesionLens.Chart"
_TITLE = "Class probabilities (research use only)"


class ProbabilityChart:
    """Class probabilities as Slicer's own bar chart: one chart a scene, used for whichever lesion is selected.

    Nodes are made when first needed, changed in place, hidden, and not saved with the scene.
    """

    def __init__(self, scene: vtkMRMLScene) -> None:
        self._scene = scene
        self._view: vtkMRMLPlotViewNode | None = None

    @property
    def viewNode(self) -> vtkMRMLPlotViewNode:
        """The view that shows the chart, for a plot widget."""
        if self._view is None:
            self._view = self._find("vtkMRMLPlotViewNode")
            if self._view is None:
                view = vtkMRMLPlotViewNode()
                view.SetSingletonTag("LesionLens")
                view.SetLayoutName("LesionLens")
                self._view = self._added(view)
        return self._view

    def show(self, lesion: str, probabilities: Mapping[str, float], classColors: Mapping[str, Sequence[float]]) -> None:
        """One bar a class, in the colour of the class; the axis always runs from 0 to 1."""
        table, chart = self._table(probabilities), self._made("vtkMRMLPlotChartNode", "LesionLens probabilities")
        kept = [n for n in nodesOfClass(self._scene, "vtkMRMLPlotSeriesNode") if n.GetAttribute(_ATTRIBUTE)]
        for spare in kept[len(probabilities) :]:
            self._scene.RemoveNode(spare)
        while len(kept) < len(probabilities):
            kept.append(self._added(vtkMRMLPlotSeriesNode()))
        for series, name in zip(kept, probabilities, strict=False):
            _dressSeries(series, table, name, classColors[name])
        wanted = [series.GetID() for series in kept[: len(probabilities)]]
        if [chart.GetNthPlotSeriesNodeID(n) for n in range(chart.GetNumberOfPlotSeriesNodes())] != wanted:
            chart.RemoveAllPlotSeriesNodeIDs()
            for seriesId in wanted:
                chart.AddAndObservePlotSeriesNodeID(seriesId)
        _dress(chart, lesion)
        self.viewNode.SetPlotChartNodeID(chart.GetID())

    def _table(self, probabilities: Mapping[str, float]) -> vtkMRMLTableNode:
        """A row and a column for each class: a bar has a colour of its own only in a series of its own."""
        node = self._made("vtkMRMLTableNode", "LesionLens probabilities")
        node.RemoveAllColumns()
        labels = vtk.vtkStringArray()
        labels.SetName("class")
        for name in probabilities:
            labels.InsertNextValue(name)
        node.AddColumn(labels)
        for index, (name, p) in enumerate(probabilities.items()):
            column = vtk.vtkDoubleArray()
            column.SetName(name)
            for other in range(len(probabilities)):
                column.InsertNextValue(p if other == index else 0.0)
            node.AddColumn(column)
        return node

    def _made(self, className: str, name: str) -> vtkMRMLNode:
        found = self._find(className)
        if found is None:
            made = self._scene.CreateNodeByClass(className)
            made.UnRegister(None)
            made.SetName(name)
            found = self._added(made)
        return found

    def _added(self, node: vtkMRMLNode) -> vtkMRMLNode:
        """The panel's own: neither listed nor saved, and no step of Undo. Hidden before it is added, or Slicer's tree lists it."""
        node.SetAttribute(_ATTRIBUTE, "1")
        node.SetHideFromEditors(True)
        node.SetSaveWithScene(False)
        node.SetUndoEnabled(False)
        return self._scene.AddNode(node)

    def _find(self, className: str) -> vtkMRMLNode | None:
        return next((node for node in nodesOfClass(self._scene, className) if node.GetAttribute(_ATTRIBUTE)), None)


def _dressSeries(series: vtkMRMLPlotSeriesNode, table: vtkMRMLTableNode, name: str, color: Sequence[float]) -> None:
    series.SetName(name)
    series.SetAndObserveTableNodeID(table.GetID())
    series.SetPlotType(vtkMRMLPlotSeriesNode.PlotTypeBar)
    series.SetLabelColumnName("class")
    series.SetYColumnName(name)
    series.SetColor(*color)


def _dress(chart: vtkMRMLPlotChartNode, lesion: str) -> None:
    chart.SetTitle(f"{lesion}: {_TITLE}")
    chart.SetXAxisTitle("")
    chart.SetYAxisTitle("probability")
    chart.SetYAxisRangeAuto(False)
    chart.SetYAxisRange(0.0, 1.0)
    chart.SetLegendVisibility(False)
    chart.SetGridVisibility(False)


_HEADER_PX, _ROW_PX, _MAX_ROWS = 28, 30, 8


class ResultPanel:
    """The answer of one lesion in the panel: bars, tables, how far to rely on it, warnings.

    Shows what is stored on a lesion's node; ``ui`` has the widgets of the panel's file. ``onCard`` is called for the model's card.
    """

    def __init__(self, ui, *, onCard: Callable[[], None]) -> None:
        self._ui = ui
        self._chart: ProbabilityChart | None = None
        ui.reliabilityLabel.connect("linkActivated(QString)", lambda _link: onCard())
        ui.probabilityTable.setColumnCount(2)
        ui.probabilityTable.setHorizontalHeaderLabels([_("Class"), _("Probability")])
        ui.probabilityTable.horizontalHeader().setStretchLastSection(True)
        ui.probabilityTable.verticalHeader().hide()
        ui.scoreTable.setColumnCount(3)
        ui.scoreTable.setHorizontalHeaderLabels([_("Score"), _("On its scale"), _("Level")])
        ui.scoreTable.horizontalHeader().setStretchLastSection(True)
        ui.scoreTable.verticalHeader().hide()
        # Slicer has no Designer plug-in for this class: a .ui file that names it gets a plain QWidget.
        self._plot = slicer.qMRMLPlotView()
        self._plot.setMRMLScene(slicer.mrmlScene)
        self._plot.minimumHeight = 140
        ui.probabilityPlotPlace.layout().addWidget(self._plot)

    def setScene(self, scene: vtkMRMLScene | None) -> None:
        """The chart lives in the scene; a scene that is closed takes it along."""
        self._chart = None if scene is None else ProbabilityChart(scene)
        self._plot.setMRMLPlotViewNode(None if self._chart is None else self._chart.viewNode)

    def show(self, roiNode: vtkMRMLMarkupsROINode | None, *, answerAnyway: bool = False) -> None:
        """Show the lesion's answer, or that there is none; what the network computed without one with ``answerAnyway``."""
        stored = None if roiNode is None else storedResult(roiNode)
        isAnswered = stored is not None
        if stored is not None:
            result = stored.result
            stored = replace(stored, result=result.answered_anyway if answerAnyway else result.without_abstained)
        isLabelled = stored is not None and bool(stored.result.label)
        for widget in (self._ui.probabilityTable, self._ui.probabilityPlotPlace):
            widget.visible = isLabelled
        self._ui.scoreTable.visible = False
        self._ui.reliabilityLabel.visible = isAnswered
        self._ui.answerAnywayCheckBox.visible = isAnswered and not stored.result.usable
        self._ui.warningsLabel.visible = False
        if not isAnswered:
            texts = (
                _("Select a lesion to see its answer.") if roiNode is None else _("This lesion is not answered yet.")
            )
            self._ui.answerLabel.text = texts
            return
        self._ui.answerLabel.text = _answerText(roiNode, stored)
        self._showScores(stored)
        if isLabelled:
            self._fillTable(stored)
        if self._chart is not None and isLabelled:
            self._chart.show(roiNode.GetName(), stored.result.probabilities, stored.classColors)
        notes = stored.result.score_notes(stored.run.scores)
        messages = [*stored.result.messages, *notes, *figure_sentences(_manifestOf(stored))]
        card = _("More is in <a href='card'>the model's card</a>.")
        self._ui.reliabilityLabel.text = "<br>".join([*map(html.escape, messages), card])
        self._showWarnings(staleReason(roiNode), stored)

    def _fillTable(self, stored: StoredResult) -> None:
        table, rows = self._ui.probabilityTable, stored.result.probabilities
        table.setRowCount(len(rows))
        for row, (name, p) in enumerate(rows.items()):
            label = qt.QTableWidgetItem(name)
            label.setForeground(qt.QBrush(qt.QColor(*color_bytes(stored.classColors[name]))))
            table.setItem(row, 0, label)
            table.setItem(row, 1, qt.QTableWidgetItem(f"{p:.3f}"))
        table.setFixedHeight(_HEADER_PX + _ROW_PX * min(len(rows), _MAX_ROWS))

    def _showScores(self, stored: StoredResult) -> None:
        """A row a score, its level drawn on its scale; what else is known of it is in the row's tool tip."""
        table, rows = self._ui.scoreTable, stored.result.score_rows(stored.run.scores)
        table.visible = bool(rows)
        table.setRowCount(len(rows))
        for index, row in enumerate(rows):
            warned = " \u26a0" if row.spec.errs_more_than_a_reader else ""
            for column, text in enumerate(
                (row.spec.name, row.dots_text, f"{row.level_text} ({row.value:.1f}){warned}")
            ):
                item = qt.QTableWidgetItem(text)
                item.setToolTip(_scoreTip(row))
                table.setItem(index, column, item)
        table.setFixedHeight(_HEADER_PX + _ROW_PX * min(len(rows), _MAX_ROWS))

    def _showWarnings(self, stale: str, stored: StoredResult) -> None:
        texts = ([stale] if stale else []) + list(stored.result.warnings)
        self._ui.warningsLabel.visible = bool(texts)
        self._ui.warningsLabel.text = "<br>".join(f"\u26a0 {html.escape(warning)}" for warning in texts)


def _scoreTip(row: ScoreRow) -> str:
    """What a score is, how far model and readers are off, and where the model is the worse."""
    texts = [
        f"{row.spec.description}: {row.on_scale}",
        row.errors_text or _("Its error was not measured."),
        row.spec.note,
    ]
    return "\n".join(text for text in [*texts, row.spread_text] if text)


_manifests: dict[str, Mapping[str, Any]] = {}  # by SHA-256: read once, not at every change of the scene


def _manifestOf(stored: StoredResult) -> Mapping[str, Any]:
    """The manifest of the model that answered; empty where it is not here, or another version is."""
    sha256 = stored.run.model_sha256
    if sha256 not in _manifests:
        try:
            manifest = unchecked_manifest(find_bundle(stored.run.model_name))
        except LesionLensError:
            return {}
        if manifest.get("sha256") != sha256:
            return {}
        _manifests[sha256] = manifest
    return _manifests[sha256]


def _answerText(roiNode: vtkMRMLMarkupsROINode, stored: StoredResult) -> str:
    result, run = stored.result, stored.run
    name, label = html.escape(roiNode.GetName()), html.escape(result.label)
    if not label:
        lines = [_("{0}: <b>no answer</b>").format(name)]
    else:
        color, p = css_color(stored.classColors[result.label]), result.probabilities[result.label]
        lines = [f"{name}: <b style='color:{color}'>{label}</b>, p = {p:.2f}"]
        if not result.usable:
            lines.append(_("<b>Not an answer</b>: only what the network computed, as you asked."))
    if sentence := result.sentence(run.scores):
        lines.append(html.escape(sentence))
    known = result.statistics
    if known is not None:
        measured = _("segment") if known.measured_in == "segment" else _("contents of the box")
        lines.append(f"{measured}: {known.volume_ml:.2f} mL, {known.hu_mean:.0f} &plusmn; {known.hu_sd:.0f} HU")
        if (found := known.diameters) is not None:
            size = f"{found.longest_mm:.1f} x {found.perpendicular_mm:.1f} mm ({found.mean_mm:.1f} mm)"
            lines.append(_("longest axial diameter, and across it (mean): {0}").format(size))
    lines.append(f"{html.escape(run.model_name)} {html.escape(run.model_version)}, {html.escape(run.device)}")
    return "<br>".join(lines)
