"""``QSettings()`` without arguments, in a folder of this process."""

from __future__ import annotations

import atexit
import tempfile

from PySide6.QtCore import QCoreApplication, QSettings


def install() -> None:
    """Send the settings of this process, which would be Slicer's, to a folder that goes with it."""
    folder = tempfile.TemporaryDirectory(prefix="lesionlens-settings-", ignore_cleanup_errors=True)
    atexit.register(folder.cleanup)
    QSettings.setDefaultFormat(QSettings.Format.IniFormat)
    QSettings.setPath(QSettings.Format.IniFormat, QSettings.Scope.UserScope, folder.name)
    QCoreApplication.setOrganizationName("NA-MIC")
    QCoreApplication.setApplicationName("Slicer")


def clear() -> None:
    """Forget all settings."""
    settings = QSettings()
    settings.clear()
    settings.sync()
