"""``qMRMLPlotView`` and ``qMRMLTableView``: a chart and a table of the scene."""

from __future__ import annotations

import qt
import slicer
import vtk
from PySide6.QtCore import Signal

from .observation import Observation

_MODIFIED = [vtk.vtkCommand.ModifiedEvent]


class qMRMLPlotView(qt.QWidget):
    """Holds the view node and draws a bar chart's bars, no more: enough to see on a screenshot that it is there.

    No .ui file may name it: Slicer has no Designer plug-in for it. Its scene and its view node can only be set.
    """

    mrmlSceneChanged = Signal(object)

    def __init__(self, parent: qt.QWidget | None = None) -> None:
        super().__init__(parent)
        self._scene: slicer.vtkMRMLScene | None = None
        self._node: slicer.vtkMRMLPlotViewNode | None = None
        self._events = Observation(self, "update")

    def setMRMLScene(self, scene: slicer.vtkMRMLScene | None) -> None:
        """Set the scene; a view node of another scene goes."""
        if scene is not self._scene:
            self._scene = scene
            if self._node is not None and self._node.GetScene() is not scene:
                self.setMRMLPlotViewNode(None)
            self.mrmlSceneChanged.emit(scene)

    def setMRMLPlotViewNode(self, node: slicer.vtkMRMLPlotViewNode | None) -> None:
        """Show the chart of this view node."""
        self._events.stop()
        self._node = node
        self._events.watch(node, _MODIFIED)
        self.update()

    def _chart(self) -> slicer.vtkMRMLPlotChartNode | None:
        return None if self._node is None else self._node.GetPlotChartNode()

    def paintEvent(self, _event: qt.QPaintEvent) -> None:
        """The title above a bar for each row, in its series' colour, scaled to the axis or to the highest."""
        painter = qt.QPainter(self)
        painter.fillRect(self.rect, qt.QColor(255, 255, 255))
        chart = self._chart()
        bars = [] if chart is None else _bars(chart)
        if chart is not None:
            painter.drawText(self.rect, int(qt.Qt.AlignTop | qt.Qt.AlignHCenter), chart.GetTitle() or "")
        top = max([1.0, *(value for _label, value, _color in bars)])
        width = self.width / max(1, len(bars))
        for place, (label, value, color) in enumerate(bars):
            height = int((self.height - 44) * value / top)
            left = int(place * width + width / 4)
            painter.fillRect(left, self.height - 20 - height, int(width / 2), height, color)
            below = qt.QRect(int(place * width), self.height - 20, int(width), 20)
            painter.drawText(below, int(qt.Qt.AlignCenter), label)
        painter.end()


def _bars(chart: slicer.vtkMRMLPlotChartNode) -> list[tuple[str, float, qt.QColor]]:
    found = []
    for place in range(chart.GetNumberOfPlotSeriesNodes()):
        series = chart.GetNthPlotSeriesNode(place)
        table = series.GetTableNode()
        values = table.GetTable().GetColumnByName(series.GetYColumnName() or "") if table is not None else None
        labels = table.GetTable().GetColumnByName(series.GetLabelColumnName() or "") if table is not None else None
        color = qt.QColor(*(round(255 * part) for part in series.GetColor()))
        for row in range(values.GetNumberOfTuples() if values is not None else 0):
            value = values.GetVariantValue(row).ToDouble()
            if value:
                found.append((labels.GetValue(row) if labels is not None else "", value, color))
    return found


@qt.customWidget
class qMRMLTableView(qt.QTableView):
    """Shows a table node; cells can't be edited here."""

    def __init__(self, parent: qt.QWidget | None = None) -> None:
        super().__init__(parent)
        self._node: slicer.vtkMRMLTableNode | None = None
        self._scene: slicer.vtkMRMLScene | None = None
        self._events = Observation(self, "_fill")
        self._cells = qt.QStandardItemModel(self)
        self.setModel(self._cells)

    def setMRMLScene(self, scene: slicer.vtkMRMLScene | None) -> None:
        """Set the scene."""
        self._scene = scene

    def mrmlScene(self) -> slicer.vtkMRMLScene | None:
        """The scene."""
        return self._scene

    def setMRMLTableNode(self, node: slicer.vtkMRMLTableNode | None) -> None:
        """Show another table."""
        self._events.stop()
        self._node = node
        self._events.watch(node, _MODIFIED)
        self._fill()

    def mrmlTableNode(self) -> slicer.vtkMRMLTableNode | None:
        """The table node."""
        return self._node

    def _fill(self) -> None:
        self._cells.clear()
        if self._node is None:
            return
        names = [self._node.GetColumnName(column) for column in range(self._node.GetNumberOfColumns())]
        rows = [
            [self._node.GetCellText(row, column) for column in range(len(names))]
            for row in range(self._node.GetNumberOfRows())
        ]
        if self._node.GetUseColumnTitleAsColumnHeader():
            self._cells.setHorizontalHeaderLabels([self._node.GetColumnTitle(name) or name for name in names])
        else:
            rows.insert(0, names)
        for texts in rows:
            items = [qt.QStandardItem(text) for text in texts]
            for item in items:
                item.setEditable(False)
            self._cells.appendRow(items)
