"""The answer of one lesion in the panel: bars, table, how far to rely on it, warnings."""

from __future__ import annotations

import html

import qt
import slicer
from slicer import vtkMRMLMarkupsROINode, vtkMRMLScene
from slicer.i18n import tr as _

from .probability_chart import ProbabilityChart
from .result_nodes import StoredResult, storedResult
from .staleness import whyStale

_HEADER_PX, _ROW_PX, _MOST_ROWS = 28, 30, 8


class ResultPanel:
    """Shows what is stored on a lesion's node; ``ui`` has the widgets of the panel's file."""

    def __init__(self, ui) -> None:
        self._ui = ui
        self._chart: ProbabilityChart | None = None
        ui.probabilityTable.setColumnCount(2)
        ui.probabilityTable.setHorizontalHeaderLabels([_("Class"), _("Probability")])
        ui.probabilityTable.horizontalHeader().setStretchLastSection(True)
        ui.probabilityTable.verticalHeader().hide()
        # Slicer has no Designer plug-in for this class: a .ui file that names it gets a plain QWidget.
        self._plot = slicer.qMRMLPlotView()
        self._plot.setMRMLScene(slicer.mrmlScene)
        self._plot.minimumHeight = 140
        ui.probabilityPlotPlace.layout().addWidget(self._plot)

    def setScene(self, scene: vtkMRMLScene | None) -> None:
        """The chart lives in the scene; a scene that is closed takes it along."""
        self._chart = None if scene is None else ProbabilityChart(scene)
        self._plot.setMRMLPlotViewNode(None if self._chart is None else self._chart.viewNode)

    def show(self, roiNode: vtkMRMLMarkupsROINode | None) -> None:
        """Show the lesion's answer, or that there is none."""
        stored = None if roiNode is None else storedResult(roiNode)
        isAnswered = stored is not None
        for widget in (self._ui.probabilityTable, self._ui.probabilityPlotPlace, self._ui.reliabilityLabel):
            widget.visible = isAnswered
        self._ui.warningsLabel.visible = False
        if not isAnswered:
            said = _("Select a lesion to see its answer.") if roiNode is None else _("This lesion is not answered yet.")
            self._ui.answerLabel.text = said
            return
        self._ui.answerLabel.text = _answerText(roiNode, stored)
        self._fillTable(stored)
        if self._chart is not None:
            self._chart.show(roiNode.GetName(), stored.result.probabilities, stored.classColors)
        sentences = stored.result.reliability.sentences(tuple(stored.result.probabilities))
        self._ui.reliabilityLabel.text = "<br>".join(html.escape(sentence) for sentence in sentences)
        self._showWarnings(whyStale(roiNode), stored)

    def _fillTable(self, stored: StoredResult) -> None:
        table, rows = self._ui.probabilityTable, stored.result.probabilities
        table.setRowCount(len(rows))
        for row, (name, p) in enumerate(rows.items()):
            label = qt.QTableWidgetItem(name)
            red, green, blue = (round(255 * value) for value in stored.classColors[name])
            label.setForeground(qt.QBrush(qt.QColor(red, green, blue)))
            table.setItem(row, 0, label)
            table.setItem(row, 1, qt.QTableWidgetItem(f"{p:.3f}"))
        table.setFixedHeight(_HEADER_PX + _ROW_PX * min(len(rows), _MOST_ROWS))

    def _showWarnings(self, stale: str, stored: StoredResult) -> None:
        said = ([stale] if stale else []) + list(stored.result.warnings)
        self._ui.warningsLabel.visible = bool(said)
        self._ui.warningsLabel.text = "<br>".join(f"\u26a0 {html.escape(warning)}" for warning in said)


def _answerText(roiNode: vtkMRMLMarkupsROINode, stored: StoredResult) -> str:
    result, run = stored.result, stored.run
    red, green, blue = (round(255 * value) for value in stored.classColors[result.label])
    name, label = html.escape(roiNode.GetName()), html.escape(result.label)
    head = (
        f"{name}: <b style='color:rgb({red},{green},{blue})'>{label}</b>, p = {result.probabilities[result.label]:.2f}"
    )
    lines = [head]
    known = result.statistics
    if known is not None:
        lines.append(
            f"{html.escape(known.measured_in)}: {known.volume_ml:.2f} mL, {known.hu_mean:.0f} &plusmn; {known.hu_sd:.0f} HU"
        )
    lines.append(f"{html.escape(run.model_name)} {html.escape(run.model_version)}, {html.escape(run.device)}")
    return "<br>".join(lines)
