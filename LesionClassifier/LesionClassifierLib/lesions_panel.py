"""The list of lesions in the panel: a row each, ticked to show, double-clicked to jump, typed in to rename."""

from __future__ import annotations

from collections.abc import Callable

import qt
from LesionLib.errors import LesionLensError
from slicer import vtkMRMLMarkupsROINode, vtkMRMLScene
from slicer.i18n import tr as _

from .lesion_nodes import jumpToLesion, lesionNodes
from .result_nodes import storedResult
from .showing import removeResult
from .staleness import whyStale

_COLUMNS = ("Lesion", "Answer", "Probability", "State")
_NAME, _ANSWER, _PROBABILITY, _STATE = range(4)


class LesionsPanel:
    """Shows the lesions of a scene; ``onChanged`` is called when the selection or the list has changed."""

    def __init__(self, table, *, onChanged: Callable[[], None], onError: Callable[[str], None]) -> None:
        self._table, self._onChanged, self._onError = table, onChanged, onError
        self._scene: vtkMRMLScene | None = None
        self._ids: list[str] = []
        self._filling = False
        table.setColumnCount(len(_COLUMNS))
        table.setHorizontalHeaderLabels([_(title) for title in _COLUMNS])
        table.horizontalHeader().setStretchLastSection(True)
        table.horizontalHeader().setSectionResizeMode(_NAME, qt.QHeaderView.ResizeToContents)
        table.verticalHeader().hide()
        table.connect("itemSelectionChanged()", self._selectionChanged)
        table.connect("itemChanged(QTableWidgetItem*)", self._edited)
        table.connect("cellDoubleClicked(int,int)", self._jumpTo)

    def setScene(self, scene: vtkMRMLScene | None) -> None:
        """Show another scene; None empties the list."""
        self._scene = scene
        self.refresh()

    @property
    def lesions(self) -> list[vtkMRMLMarkupsROINode]:
        """All lesions that are still in the scene, in the order of the rows."""
        if self._scene is None:
            return []
        nodes = (self._scene.GetNodeByID(nodeId) for nodeId in self._ids)
        return [node for node in nodes if node is not None]

    @property
    def selected(self) -> list[vtkMRMLMarkupsROINode]:
        """The lesions of the selected rows."""
        rows = sorted({index.row() for index in self._table.selectionModel().selectedRows()})
        nodes = [self._scene.GetNodeByID(self._ids[row]) for row in rows if row < len(self._ids)] if rows else []
        return [node for node in nodes if node is not None]

    @property
    def current(self) -> vtkMRMLMarkupsROINode | None:
        """The lesion whose answer is shown: the first selected, else the only one there is."""
        selected = self.selected
        if selected:
            return selected[0]
        lesions = self.lesions
        return lesions[0] if len(lesions) == 1 else None

    def refresh(self) -> None:
        """Fill the rows anew, keeping the selection."""
        chosen = {node.GetID() for node in self.selected} if self._scene is not None else set()
        nodes = lesionNodes(self._scene) if self._scene is not None else []
        self._filling = True
        try:
            self._ids = [node.GetID() for node in nodes]
            self._table.setRowCount(len(nodes))
            for row, node in enumerate(nodes):
                self._fillRow(row, node)
            self._table.clearSelection()
            self._select([row for row, nodeId in enumerate(self._ids) if nodeId in chosen])
        finally:
            self._filling = False
        self._onChanged()

    def select(self, node: vtkMRMLMarkupsROINode) -> None:
        """Select one lesion."""
        if node.GetID() in self._ids:
            self._table.clearSelection()
            self._select([self._ids.index(node.GetID())])

    def jump(self) -> None:
        """Centre the slice views on the current lesion."""
        node = self.current
        if node is not None:
            try:
                jumpToLesion(node)
            except LesionLensError as error:
                self._onError(str(error))

    def deleteSelected(self) -> None:
        """Remove the selected lesions and all that was answered about them."""
        self._scene.SaveStateForUndo()
        for node in self.selected:
            removeResult(node)
            self._scene.RemoveNode(node)
        self.refresh()

    def _select(self, rows: list[int]) -> None:
        mode = qt.QItemSelectionModel.Select | qt.QItemSelectionModel.Rows
        for row in rows:
            self._table.selectionModel().select(self._table.model().index(row, 0), mode)

    def _fillRow(self, row: int, node: vtkMRMLMarkupsROINode) -> None:
        name = qt.QTableWidgetItem(node.GetName())
        name.setFlags(name.flags() | qt.Qt.ItemIsUserCheckable | qt.Qt.ItemIsEditable)
        display = node.GetDisplayNode()
        isShown = display is None or bool(display.GetVisibility())
        name.setCheckState(qt.Qt.Checked if isShown else qt.Qt.Unchecked)
        self._table.setItem(row, _NAME, name)
        stored, stale = storedResult(node), whyStale(node)
        answer = probability = ""
        if stored is not None:
            answer = stored.result.label
            probability = f"{stored.result.probabilities[answer]:.2f}"
        state = _("out of date") if stale else _("not answered") if stored is None else _("answered")
        for column, text in ((_ANSWER, answer), (_PROBABILITY, probability), (_STATE, state)):
            item = qt.QTableWidgetItem(text)
            item.setFlags(item.flags() & ~qt.Qt.ItemIsEditable)
            item.setToolTip(stale or ("; ".join(stored.result.warnings) if stored is not None else ""))
            if stored is not None and not stale and column == _ANSWER:
                red, green, blue = (round(255 * value) for value in stored.classColors[answer])
                item.setForeground(qt.QBrush(qt.QColor(red, green, blue)))
            self._table.setItem(row, column, item)

    def _selectionChanged(self) -> None:
        if not self._filling:
            self._onChanged()

    def _edited(self, item) -> None:
        if self._filling or item.column() != _NAME or item.row() >= len(self._ids):
            return
        node = self._scene.GetNodeByID(self._ids[item.row()])
        if node is None:
            return
        if item.text().strip():
            node.SetName(item.text().strip())
        if node.GetDisplayNode() is not None:
            node.GetDisplayNode().SetVisibility(item.checkState() == qt.Qt.Checked)

    def _jumpTo(self, row: int, _column: int) -> None:
        if row < len(self._ids):
            self.jump()
