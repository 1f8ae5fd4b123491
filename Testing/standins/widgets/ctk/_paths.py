"""``ctkPathLineEdit`` and ``ctkDirectoryButton``: a file or folder that is typed or chosen."""

from __future__ import annotations

import os

import qt
from PySide6.QtCore import Property, Signal


@qt.customWidget
class ctkPathLineEdit(qt.QWidget):
    """A line to type in and a button that opens a dialog; the test answers it by replacing ``qt.QFileDialog``'s functions."""

    Dirs, Drives, NoSymLinks, Files, Readable, Writable, Executable = (1 << bit for bit in range(7))
    currentPathChanged = Signal(str)

    def __init__(self, parent: qt.QWidget | None = None) -> None:
        super().__init__(parent)
        self._line, self._button = qt.QLineEdit(), qt.QToolButton()
        self._button.setText("...")
        self._filters = self.Files | self.Readable
        layout = qt.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._line, 1)
        layout.addWidget(self._button)
        self._line.textChanged.connect(self.currentPathChanged.emit)
        self._button.clicked.connect(self.browse)

    def setCurrentPath(self, path: str) -> None:
        """Set it as text; it needn't exist."""
        self._line.setText(path)

    def browse(self) -> None:
        """Ask for a path."""
        if self._filters & self.Dirs and not self._filters & self.Files:
            chosen = qt.QFileDialog.getExistingDirectory(self, "Select a directory...", self.currentPath)
        elif self._filters & self.Writable:
            chosen = qt.QFileDialog.getSaveFileName(self, "Select a file to save", self.currentPath)
        else:
            chosen = qt.QFileDialog.getOpenFileName(self, "Open a file", self.currentPath)
        if chosen:
            self.setCurrentPath(chosen)

    def _set(self, name: str, value: object) -> None:
        setattr(self, name, value)

    currentPath = Property(str, lambda self: self._line.text, setCurrentPath, notify=currentPathChanged)
    filters = Property(int, lambda self: self._filters, lambda self, value: self._set("_filters", int(value)))


@qt.customWidget
class ctkDirectoryButton(qt.QWidget):
    """A button with the name of a folder; once set an absolute path."""

    directoryChanged = Signal(str)
    directorySelected = Signal(str)

    def __init__(self, *arguments) -> None:
        super().__init__(next((each for each in arguments if isinstance(each, qt.QWidget)), None))
        # Qt's current folder is "." until another one is set.
        self._directory = next((os.path.abspath(each) for each in arguments if isinstance(each, str)), ".")
        self._button = qt.QPushButton(self._directory)
        layout = qt.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._button)
        self._button.clicked.connect(self.browse)

    def _setDirectory(self, path: str) -> None:
        """Set the folder."""
        path = os.path.abspath(path)
        if path != os.path.abspath(self._directory):
            self._directory = path
            self._button.setText(path)
            self.directoryChanged.emit(path)

    def browse(self) -> None:
        """Ask for a folder."""
        chosen = qt.QFileDialog.getExistingDirectory(self, "Select a directory", self._directory)
        if chosen:
            self._setDirectory(chosen)
            self.directorySelected.emit(self._directory)

    directory = Property(str, lambda self: self._directory, _setDirectory, notify=directoryChanged)
