"""Dialogs that nobody answers: in a test they must not wait for ever."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QTimer
from PySide6.QtWidgets import QColorDialog, QDialog, QFileDialog, QInputDialog, QMessageBox

from . import _messages

_STATIC = {
    QFileDialog: ("getOpenFileName", "getOpenFileNames", "getSaveFileName", "getExistingDirectory"),
    QInputDialog: ("getText", "getItem", "getInt", "getDouble", "getMultiLineText"),
    QMessageBox: ("question", "information", "warning", "critical", "about"),
    QColorDialog: ("getColor",),
}
_PATIENCE_MS = 10_000


def install() -> None:
    """Refuse Qt's ready-made dialogs until the test replaces them, and give up on others after ten seconds.

    The replacement returns what PythonQt returns: a path as `str` (no filter beside it), the paths as a tuple, a text
    without Qt's "ok".
    """
    for dialog, names in _STATIC.items():
        for name in names:
            setattr(dialog, name, staticmethod(_refusal(dialog.__name__, name)))
    original = QDialog.exec
    for dialog in (QDialog, QMessageBox):
        dialog.exec = dialog.exec_ = _impatient(original if dialog is QDialog else dialog.exec)


def _refusal(dialog: str, name: str) -> Callable[..., None]:
    def refuse(*_given: object) -> None:
        msg = f"nobody answers qt.{dialog}.{name} here; monkeypatch.setattr(qt.{dialog}, {name!r}, lambda *_: …)"
        raise RuntimeError(msg)

    return refuse


def _impatient(original: Callable[[QDialog], int]) -> Callable[[QDialog], int]:
    def execute(self: QDialog) -> int:
        timer = QTimer()
        timer.setSingleShot(True)
        timer.timeout.connect(lambda: _giveUp(self))
        timer.start(_PATIENCE_MS)
        answer = original(self)
        timer.stop()
        return int(answer)

    return execute


def _giveUp(dialog: QDialog) -> None:
    _messages.warn(f"nobody answered the dialog {type(dialog).__name__} {dialog.windowTitle!r} for ten seconds")
    dialog.reject()
