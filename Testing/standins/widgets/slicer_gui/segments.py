"""``qMRMLSegmentsTableView``: the segments of a segmentation, of which some are selected."""

from __future__ import annotations

import qt
import slicer
from PySide6.QtCore import Signal

from .observation import Observation
from .widgets import qMRMLWidget


@qt.customWidget
class qMRMLSegmentsTableView(qMRMLWidget):
    """A row a segment, with its name; opacity, colour and state are not stood in for."""

    selectionChanged = Signal(object, object)

    def __init__(self, parent: qt.QWidget | None = None) -> None:
        super().__init__(parent)
        self._node: slicer.vtkMRMLSegmentationNode | None = None
        self._ids: list[str] = []
        self._events = Observation(self, "_fill")
        self._table = qt.QTableWidget(0, 1)
        self._table.setHorizontalHeaderLabels(["Name"])
        self._table.horizontalHeader().setStretchLastSection(True)
        self._table.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
        layout = qt.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._table)
        self._table.itemSelectionChanged.connect(lambda: self.selectionChanged.emit(None, None))

    def setSegmentationNode(self, node: slicer.vtkMRMLSegmentationNode | None) -> None:
        """Show another segmentation."""
        self._events.stop()
        self._node = node
        if node is not None:
            segmentation = node.GetSegmentation()
            events = [segmentation.SegmentAdded, segmentation.SegmentRemoved, segmentation.SegmentModified]
            self._events.watch(segmentation, events)
        self._fill()

    def segmentationNode(self) -> slicer.vtkMRMLSegmentationNode | None:
        """The segmentation."""
        return self._node

    def segmentCount(self) -> int:
        """How many segments are listed."""
        return len(self._ids)

    def selectedSegmentIDs(self) -> tuple[str, ...]:
        """The IDs of the selected segments."""
        rows = sorted({index.row() for index in self._table.selectionModel().selectedRows()})
        return tuple(self._ids[row] for row in rows)

    def setSelectedSegmentIDs(self, segmentIDs: list[str]) -> None:
        """Select these and no others."""
        self._table.clearSelection()
        mode = qt.QItemSelectionModel.Select | qt.QItemSelectionModel.Rows
        for segmentID in segmentIDs:
            if segmentID in self._ids:
                index = self._table.model().index(self._ids.index(segmentID), 0)
                self._table.selectionModel().select(index, mode)

    def clearSelection(self) -> None:
        """Select none."""
        self._table.clearSelection()

    def tableWidget(self) -> qt.QTableWidget:
        """Qt's table inside."""
        return self._table

    def _fill(self) -> None:
        chosen = self.selectedSegmentIDs()
        self._ids = [] if self._node is None else list(self._node.GetSegmentation().GetSegmentIDs())
        self._table.setRowCount(len(self._ids))
        for row, segmentID in enumerate(self._ids):
            self._table.setItem(
                row, 0, qt.QTableWidgetItem(self._node.GetSegmentation().GetSegment(segmentID).GetName())
            )
        self.setSelectedSegmentIDs(list(chosen))
