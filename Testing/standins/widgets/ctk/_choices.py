"""``ctkComboBox``, ``ctkCheckableComboBox`` and ``ctkSearchBox``."""

from __future__ import annotations

import qt
from PySide6.QtCore import Signal


@qt.customWidget
class ctkComboBox(qt.QComboBox):
    """A combo box; what it says while nothing is chosen is not stood in for."""


@qt.customWidget
class ctkCheckableComboBox(qt.QComboBox):
    """A combo box whose items can be ticked, as many as one likes."""

    checkedIndexesChanged = Signal()

    def __init__(self, parent: qt.QWidget | None = None) -> None:
        super().__init__(parent)
        self.model().itemChanged.connect(self._say)
        self.model().rowsInserted.connect(self._makeCheckable)

    def _say(self) -> None:
        self.checkedIndexesChanged.emit()

    def _makeCheckable(self, _parent: qt.QModelIndex, first: int, last: int) -> None:
        for row in range(first, last + 1):
            item = self.model().item(row)
            item.setCheckable(True)
            item.setCheckState(qt.Qt.Unchecked)

    def checkedIndexes(self) -> list[qt.QModelIndex]:
        """The ticked items, in their order."""
        rows = range(self.model().rowCount())
        return [self.model().index(row, 0) for row in rows if self.model().item(row).checkState() == qt.Qt.Checked]

    def checkState(self, index: qt.QModelIndex) -> qt.Qt.CheckState:
        """Whether an item is ticked."""
        return self.model().itemFromIndex(index).checkState()

    def setCheckState(self, index: qt.QModelIndex, state: qt.Qt.CheckState) -> None:
        """Tick an item, or not."""
        self.model().itemFromIndex(index).setCheckState(state)


@qt.customWidget
class ctkSearchBox(qt.QLineEdit):
    """A line to search with."""

    def __init__(self, parent: qt.QWidget | None = None) -> None:
        super().__init__(parent)
        self.setClearButtonEnabled(True)
