"""Tables of the teaching room: plain rows of text, several to be chosen."""

from __future__ import annotations

import html
from collections.abc import Sequence

import qt

_READ_ONLY = qt.Qt.ItemIsSelectable | qt.Qt.ItemIsEnabled


def prepareTable(table, heads: Sequence[str]) -> None:
    """Columns with these heads; the last one takes the room that is left."""
    table.setColumnCount(len(heads))
    table.setHorizontalHeaderLabels(list(heads))
    table.horizontalHeader().setStretchLastSection(True)
    table.verticalHeader().hide()


def fillTable(table, rows: Sequence[Sequence[str]], *, editable: int | None = None) -> None:
    """Show these rows; only the column ``editable`` can be written to."""
    table.setRowCount(len(rows))
    for row, texts in enumerate(rows):
        for column, text in enumerate(texts):
            item = qt.QTableWidgetItem(text)
            item.setToolTip(f"<span>{html.escape(text)}</span>")  # never taken for rich text
            if column != editable:
                item.setFlags(_READ_ONLY)
            table.setItem(row, column, item)
    table.resizeColumnsToContents()
    for isStretched in (False, True):  # the header does so only when it is told anew
        table.horizontalHeader().setStretchLastSection(isStretched)


def selectedRows(table) -> list[int]:
    """The numbers of the chosen rows, from 0."""
    return sorted({index.row() for index in table.selectionModel().selectedRows()})
