"""The case library in the panel: open, make, the ones open lately, and what it holds."""

from __future__ import annotations

import html
from collections.abc import Callable
from pathlib import Path

import qt
import slicer.util
from LesionLib.errors import LesionLensError
from slicer.i18n import tr as _

from .library import CaseLibrary

SUFFIX = ".lesionlib"
_RECENT_KEY, _MOST_RECENT = "LesionRetrieval/recentLibraries", 8
_MOST_LABELS = 8


class LibraryPanel:
    """``onOpened`` is called when another library is open, or none; ``onNew(path)`` when the user wants a new one."""

    def __init__(
        self, ui, logic, *, onOpened: Callable[[], None], onNew: Callable[[Path], None], onError: Callable[[str], None]
    ) -> None:
        self._ui, self._logic = ui, logic
        self._onOpened, self._onNew, self._onError = onOpened, onNew, onError
        self._filling = False
        ui.openLibraryButton.connect("clicked()", self._askToOpen)
        ui.newLibraryButton.connect("clicked()", self._askForNew)
        ui.librarySelector.connect("currentIndexChanged(int)", self._chosen)
        ui.writableCheckBox.connect("toggled(bool)", self._writableChanged)
        self._fillRecent()
        self.show()

    @property
    def path(self) -> str:
        """Of the open library; "" where none is open."""
        return "" if self._logic.library is None else str(self._logic.library.path)

    def open(self, path: str | Path, *, writable: bool = False, isAsked: bool = True) -> bool:
        """Open a library; what is wrong is told, and the one that was open stays. Whether it worked.

        ``isAsked``: the user waits for it. Slicer's wait cursor lets events through, which must not be while a scene is loaded.
        """
        try:
            with slicer.util.WaitCursor(show=isAsked):
                self._logic.openLibrary(path, writable=writable)
                self.opened()
        except LesionLensError as error:
            self.show()
            self._onError(str(error))
            return False
        return True

    def opened(self) -> None:
        """Another library is open."""
        self._remember(self.path)
        self.show()
        self._onOpened()

    def close(self) -> None:
        """No library any more."""
        self._logic.closeLibrary()
        self.show()
        self._onOpened()

    def show(self) -> None:
        """Say what the open library holds."""
        library: CaseLibrary | None = self._logic.library
        self._filling = True
        try:
            self._fillRecent()
            self._ui.writableCheckBox.enabled = library is not None
            self._ui.writableCheckBox.checked = library is not None and not library.read_only
            self._ui.libraryLabel.text = _("No library is open.") if library is None else describedLibrary(library)
            self._ui.libraryLabel.toolTip = self.path
        except LesionLensError as error:
            self._ui.libraryLabel.text = html.escape(str(error))
        finally:
            self._filling = False

    def _askToOpen(self) -> None:
        path = qt.QFileDialog.getOpenFileName(slicer.util.mainWindow(), _("Open a case library"), "", _filter())
        if path:
            self.open(path)

    def _askForNew(self) -> None:
        path = qt.QFileDialog.getSaveFileName(
            slicer.util.mainWindow(), _("Make a case library"), f"cases{SUFFIX}", _filter()
        )
        if path:
            self._onNew(Path(path) if Path(path).suffix else Path(path + SUFFIX))

    def _chosen(self, index: int) -> None:
        path = self._ui.librarySelector.itemData(index) if index >= 0 else None
        if not self._filling and path and path != self.path:
            self.open(path)

    def _writableChanged(self, isWritable: bool) -> None:
        if not self._filling and self.path and isWritable == self._logic.library.read_only:
            self.open(self.path, writable=isWritable)

    def _remember(self, path: str) -> None:
        settings = qt.QSettings()
        settings.setValue(_RECENT_KEY, [path, *(p for p in self._recent() if p != path)][:_MOST_RECENT])

    def _recent(self) -> list[str]:
        known = qt.QSettings().value(_RECENT_KEY)
        return [known] if isinstance(known, str) else list(known or ())

    def _fillRecent(self) -> None:
        selector = self._ui.librarySelector
        was, self._filling = self._filling, True
        selector.clear()
        for path in [p for p in self._recent() if p != self.path and Path(p).is_file()]:
            _addPath(selector, path)
        if self.path:
            selector.insertItem(0, Path(self.path).name)
            selector.setItemData(0, self.path)
        selector.setCurrentIndex(0 if self.path else -1)
        selector.enabled = selector.count > 0
        self._filling = was


def describedLibrary(library: CaseLibrary) -> str:
    """How many cases, which answers, which model, and whether it can be changed."""
    counts = sorted(library.labels().items(), key=lambda item: -item[1])
    labels = ", ".join(f"{html.escape(label)} {count}" for label, count in counts[:_MOST_LABELS])
    if len(counts) > _MOST_LABELS:
        labels += _(" and {0} more").format(len(counts) - _MOST_LABELS)
    state = _("opened <b>to read only</b>") if library.read_only else _("opened <b>to be changed</b>")
    head = _("{count} cases{labels}").format(count=len(library), labels=f": {labels}" if labels else "")
    return f"{head}<br>" + _("made with {model}; {state}").format(model=html.escape(str(library.model)), state=state)


def _filter() -> str:
    return _("Case libraries (*.lesionlib *.sqlite);;All files (*)")


def _addPath(selector, path: str) -> None:
    selector.addItem(Path(path).name)
    selector.setItemData(selector.count - 1, path)
    selector.setItemData(selector.count - 1, path, qt.Qt.ToolTipRole)
