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
    """Nodes are made when first needed, and found again in a scene that was loaded."""

    def __init__(self, scene: vtkMRMLScene) -> None:
        self._scene = scene
        self._view: vtkMRMLPlotViewNode | None = None

    @property
    def viewNode(self) -> vtkMRMLPlotViewNode:
        """The view that shows the chart, for a plot widget."""
        if self._view is None:
            self._view = self._find("vtkMRMLPlotViewNode")
            if self._view is None:
                self._view = vtkMRMLPlotViewNode()
                self._view.SetSingletonTag("LesionLens")
                self._view.SetLayoutName("LesionLens")
                self._view = self._scene.AddNode(self._view)
                self._view.SetAttribute(_ATTRIBUTE, "1")
        return self._view

    def show(self, lesion: str, probabilities: Mapping[str, float], classColors: Mapping[str, Sequence[float]]) -> None:
        """One bar a class, in the colour of the class; the axis always runs from 0 to 1."""
        table, chart = self._table(probabilities), self._made("vtkMRMLPlotChartNode", "LesionLens probabilities")
        for series in [n for n in nodesOfClass(self._scene, "vtkMRMLPlotSeriesNode") if n.GetAttribute(_ATTRIBUTE)]:
            self._scene.RemoveNode(series)
        chart.RemoveAllPlotSeriesNodeIDs()
        for name in probabilities:
            chart.AddAndObservePlotSeriesNodeID(self._series(table, name, classColors[name]).GetID())
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

    def _series(self, table: vtkMRMLTableNode, name: str, color: Sequence[float]) -> vtkMRMLPlotSeriesNode:
        node = self._scene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", name)
        node.SetAttribute(_ATTRIBUTE, "1")
        node.SetAndObserveTableNodeID(table.GetID())
        node.SetPlotType(vtkMRMLPlotSeriesNode.PlotTypeBar)
        node.SetLabelColumnName("class")
        node.SetYColumnName(name)
        node.SetColor(*color)
        return node

    def _made(self, className: str, name: str) -> vtkMRMLNode:
        found = self._find(className)
        if found is None:
            found = self._scene.AddNewNodeByClass(className, name)
            found.SetAttribute(_ATTRIBUTE, "1")
        return found

    def _find(self, className: str) -> vtkMRMLNode | None:
        return next((node for node in nodesOfClass(self._scene, className) if node.GetAttribute(_ATTRIBUTE)), None)


def _dress(chart: vtkMRMLPlotChartNode, lesion: str) -> None:
    chart.SetTitle(f"{lesion}: {_TITLE}")
    chart.SetXAxisTitle("")
    chart.SetYAxisTitle("probability")
    chart.SetYAxisRangeAuto(False)
    chart.SetYAxisRange(0.0, 1.0)
    chart.SetLegendVisibility(False)
    chart.SetGridVisibility(False)
