"""The list of lesions in the panel: a row each, ticked to show, double-clicked to jump, typed in to rename."""

from __future__ import annotations

from collections.abc import Callable

import qt
from LesionLib.errors import LesionLensError
from LesionLib.inference.results import color_bytes
from slicer import vtkMRMLMarkupsROINode, vtkMRMLScene
from slicer.i18n import tr as _

from LesionClassifierLib.scene.lesions import jumpToLesion, lesionNodes
from LesionClassifierLib.scene.results import removeResult, staleReason, storedResult

_NAME, _LABEL, _PROBABILITY, _STATE = range(4)


class LesionsPanel:
    """Shows the lesions of a scene; ``onChanged`` is called when the list was filled anew, ``onSelected`` when a row is chosen."""

    def __init__(
        self,
        table,
        *,
        onChanged: Callable[[], None],
        onSelected: Callable[[], None],
        onError: Callable[[str], None],
    ) -> None:
        self._table, self._onChanged, self._onSelected, self._onError = table, onChanged, onSelected, onError
        self._scene: vtkMRMLScene | None = None
        self._ids: list[str] = []
        self._filling = False
        titles = [_("Lesion"), _("Answer"), _("Probability"), _("State")]
        table.setColumnCount(len(titles))
        table.setHorizontalHeaderLabels(titles)
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
            if {node.GetID() for node in self.selected} != chosen:
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
        name = self._cell(row, _NAME, node.GetName(), isEditable=True)
        display = node.GetDisplayNode()
        isShown = display is None or bool(display.GetVisibility())
        tick = qt.Qt.Checked if isShown else qt.Qt.Unchecked
        if name.checkState() != tick:
            name.setCheckState(tick)
        stored, stale = storedResult(node), staleReason(node)
        label = probability = ""
        if stored is not None:
            label = stored.result.without_abstained.label
            probability = f"{stored.result.probabilities[label]:.2f}" if label else ""
        state = _("out of date") if stale else _("not answered") if stored is None else _("answered")
        hint = stale or ("; ".join(stored.result.warnings) if stored is not None else "")
        shown = _("no answer") if stored is not None and not label else label
        for column, text in ((_LABEL, shown), (_PROBABILITY, probability), (_STATE, state)):
            item = self._cell(row, column, text)
            item.setToolTip(hint)
            isColored = column == _LABEL and bool(label) and not stale
            color = qt.QColor(*color_bytes(stored.classColors[label])) if isColored else None
            item.setForeground(qt.QBrush() if color is None else qt.QBrush(color))

    def _cell(self, row: int, column: int, text: str, *, isEditable: bool = False):
        """The item of a cell with this text; one that says so already is left alone, so that an open editor stays open."""
        item = self._table.item(row, column)
        if item is None:
            item = qt.QTableWidgetItem(text)
            flags = item.flags() | qt.Qt.ItemIsUserCheckable if isEditable else item.flags() & ~qt.Qt.ItemIsEditable
            item.setFlags(flags)
            self._table.setItem(row, column, item)
        elif item.text() != text:
            item.setText(text)
        return item

    def _selectionChanged(self) -> None:
        if not self._filling:
            self._onSelected()

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
