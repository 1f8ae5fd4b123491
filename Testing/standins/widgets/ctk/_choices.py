"""``ctkComboBox``, ``ctkCheckableComboBox`` and ``ctkSearchBox``."""

from __future__ import annotations

import qt
from PySide6.QtCore import Property, Signal


@qt.customWidget
class ctkComboBox(qt.QComboBox):
    """A combo box that says something while nothing is chosen."""

    def __init__(self, parent: qt.QWidget | None = None) -> None:
        super().__init__(parent)
        self._defaultText = ""

    def _setDefaultText(self, text: str) -> None:
        self._defaultText = text
        self.setPlaceholderText(text)

    defaultText = Property(str, lambda self: self._defaultText, _setDefaultText)


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

    def checkableModel(self) -> qt.QAbstractItemModel:
        """The model inside."""
        return self.model()

    def allChecked(self) -> bool:
        """Whether all items are ticked."""
        return len(self.checkedIndexes()) == self.model().rowCount()

    def noneChecked(self) -> bool:
        """Whether no item is ticked."""
        return not self.checkedIndexes()


@qt.customWidget
class ctkSearchBox(qt.QLineEdit):
    """A line to search with."""

    def __init__(self, parent: qt.QWidget | None = None) -> None:
        super().__init__(parent)
        self.setClearButtonEnabled(True)
