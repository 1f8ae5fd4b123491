"""What Qt complains about on its console, kept for the tests."""

from __future__ import annotations

import logging

from PySide6.QtCore import QMessageLogContext, QtMsgType, qInstallMessageHandler

# Said by Qt's own reader of .ui files about signals that only our reader can connect, and by the offscreen platform.
_HARMLESS = (
    "QFormBuilder",
    "(vtkMRML",
    "(sender name:",
    "(receiver name:",
    "This plugin does not support",
    "propagateSizeHints",
    "Populating font family aliases",
)
warnings: list[str] = []


def install() -> None:
    """Take over Qt's message handler."""
    qInstallMessageHandler(_handle)


def _handle(kind: QtMsgType, _context: QMessageLogContext, text: str) -> None:
    if kind == QtMsgType.QtDebugMsg or any(part in text for part in _HARMLESS):
        return
    warn(text)


def warn(text: str) -> None:
    """Say it as Qt's ``qWarning`` would."""
    warnings.append(text)
    logging.getLogger("qt").warning(text)
