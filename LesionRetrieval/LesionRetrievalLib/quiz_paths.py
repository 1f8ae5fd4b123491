"""A line for a path with a button that asks for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import qt
import slicer.util
from slicer.i18n import tr as _


def connectFile(edit, button, *, title: str, filters: str, onChosen: Callable[[], None] | None = None) -> None:
    """The button asks for a file that exists."""

    def ask() -> None:
        path = qt.QFileDialog.getOpenFileName(slicer.util.mainWindow(), title, edit.text, filters)
        if path:
            edit.text = path
            if onChosen is not None:
                onChosen()

    button.connect("clicked()", ask)


def connectFolder(edit, button, *, onChosen: Callable[[], None] | None = None) -> None:
    """The button asks for a folder."""

    def ask() -> None:
        path = qt.QFileDialog.getExistingDirectory(
            slicer.util.mainWindow(), _("The folder with the answers"), edit.text
        )
        if path:
            edit.text = path
            if onChosen is not None:
                onChosen()

    button.connect("clicked()", ask)


def withSuffix(path: str, suffix: str) -> Path:
    """``path`` ending so; some dialogs leave it out."""
    return Path(path) if path.endswith(suffix) else Path(path + suffix)
