"""``ctkCheckBox``, ``ctkCheckablePushButton``, ``ctkColorPickerButton`` and ``ctkMessageBox``."""

from __future__ import annotations

import qt
from PySide6.QtCore import Property, Signal


@qt.customWidget
class ctkCheckBox(qt.QCheckBox):
    """A tick box; the indicator's icon is not stood in for."""


@qt.customWidget
class ctkCheckablePushButton(qt.QPushButton):
    """A push button with a tick box on it, which says whether the button stays down."""


@qt.customWidget
class ctkColorPickerButton(qt.QPushButton):
    """A button in a colour; pressed, it asks for another one."""

    colorChanged = Signal(qt.QColor)

    def __init__(self, *arguments) -> None:
        super().__init__(next((each for each in arguments if isinstance(each, qt.QWidget)), None))
        self._color = qt.QColor(0, 0, 0)
        self.clicked.connect(self.changeColor)

    def setColor(self, color: qt.QColor) -> None:
        """Set it."""
        if color != self._color:
            self._color = qt.QColor(color)
            self.setText(self._color.name())
            self.colorChanged.emit(self._color)

    def changeColor(self) -> None:
        """Ask for another colour."""
        chosen = qt.QColorDialog.getColor(self._color, self)
        if chosen.isValid():
            self.setColor(chosen)

    color = Property(qt.QColor, lambda self: self._color, setColor, notify=colorChanged)


class ctkMessageBox(qt.QMessageBox):
    """A message box, made in code, with "don't show this again", whose answer is kept under ``dontShowAgainSettingsKey``."""

    def __init__(self, parent: qt.QWidget | None = None) -> None:
        super().__init__(parent)
        self._key = ""
        self._tick = qt.QCheckBox("Don't show this message again")
        self._tick.visible = False

    def _setKey(self, key: str) -> None:
        self._key = key
        self.setCheckBox(self._tick)
        self._tick.checked = self._kept() != 0

    def _kept(self) -> int:
        return int(qt.QSettings().value(self._key, 0) or 0) if self._key else 0

    def _setUnwanted(self, unwanted: bool) -> None:
        self._tick.checked = unwanted
        if self._key:
            qt.QSettings().setValue(self._key, int(qt.QMessageBox.Ok) if unwanted else 0)

    def exec_(self) -> int:
        """Show it unless the user did not want to see it again; then the answer of that time."""
        if self._kept():
            return self._kept()
        answer = super().exec_()
        if self._key and self._tick.checked:
            qt.QSettings().setValue(self._key, int(answer))
        return answer

    dontShowAgainSettingsKey = Property(str, lambda self: self._key, _setKey)
    dontShowAgain = Property(bool, lambda self: self._tick.checked, _setUnwanted)
