"""Class probabilities as Slicer's own bar chart: one chart a scene, used for whichever lesion is selected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import vtk
from slicer import (
    vtkMRMLNode,
    vtkMRMLPlotChartNode,
    vtkMRMLPlotSeriesNode,
    vtkMRMLPlotViewNode,
    vtkMRMLScene,
    vtkMRMLTableNode,
)

from .volume_nodes import nodesOfClass

_ATTRIBUTE = "LesionLens.Chart"
_TITLE = "Class probabilities (research use only)"


class ProbabilityChart:
    """Nodes are made when first needed, changed in place, hidden, and not saved with the scene."""

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
        for place, (name, p) in enumerate(probabilities.items()):
            column = vtk.vtkDoubleArray()
            column.SetName(name)
            for other in range(len(probabilities)):
                column.InsertNextValue(p if other == place else 0.0)
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
