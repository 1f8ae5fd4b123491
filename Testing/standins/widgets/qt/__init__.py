"""Stand-in for Slicer's ``qt``: PySide6 with PythonQt's manners.

All names of QtCore, QtGui, QtWidgets and QtUiTools, and what differs from PySide6 in Slicer:

* Qt properties are attributes: ``button.text = "Go"``, ``spin.value``, ``label.visible = False``; so ``spin.value()`` is
  the error it is in Slicer (``sizeHint`` and ``minimumSizeHint`` stay methods here: C++ calls them);
* ``sender.connect("clicked(bool)", function)`` and ``disconnect``, a signal that does not exist gives False and a warning;
* slots get as many arguments as they take, as PythonQt counts them;
* enums are integers; ``widget.name``, ``widget.className()``, ``dialog.exec_()``;
* a new attribute on a plain Qt object is refused, as PythonQt refuses it (a typed error in a property's name shows);
* dialogs that nobody answers raise an error, or give up (see `_dialogs`), instead of waiting for ever;
* ``QSettings()`` is a file of this process, gone afterwards.
"""

import os

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
# Read once, when PySide6 is first imported: enums are int, as PythonQt's are.
os.environ.setdefault("PYSIDE6_OPTION_PYTHON_ENUM", "2")

from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets

from . import _attributes, _dialogs, _messages, _references, _settings, _signals
from ._uiloader import QUiLoader as _QUiLoader
from ._uiloader import customWidget

for _module in (QtCore, QtGui, QtWidgets, QtUiTools):
    globals().update({name: getattr(_module, name) for name in dir(_module) if not name.startswith("_")})
QUiLoader = _QUiLoader

_references.install()
_messages.install()
_settings.install()
# Kept: Qt does not own it.
_application = QtWidgets.QApplication.instance() or QtWidgets.QApplication(["Slicer"])
_application.setQuitOnLastWindowClosed(False)
_dialogs.install()
_attributes.install()
_signals.install()

__all__ = ["QUiLoader", "customWidget"]
