"""``slicer.app`` with windows: the headless application, and what needs Qt."""

from __future__ import annotations

from collections.abc import Callable

import qt
import slicer
from LesionClassifierLib.headless import HeadlessApplication, HeadlessSlicer

from .layout import LayoutManager


class ModuleFactoryManager:
    """What knows which modules there are."""


class ModuleManager:
    """What a module's widget connects to; nothing is ever unloaded here."""

    def connect(self, _signal: str, _slot: Callable[..., object]) -> bool:
        """As Qt's."""
        return True

    def disconnect(self, _signal: str, _slot: Callable[..., object]) -> bool:
        """As Qt's."""
        return True

    def module(self, name: str) -> object | None:
        """A module by name."""
        return getattr(slicer.modules, name.lower(), None)

    def factoryManager(self) -> ModuleFactoryManager:
        """What knows which modules there are."""
        return ModuleFactoryManager()


class GuiApplication(HeadlessApplication):
    """One a test. ``startupCompleted()`` is emitted by `completeStartup`."""

    def __init__(self, headless: HeadlessSlicer) -> None:
        super().__init__(headless.scene, headless.applicationLogic, headless.temporaryPath)
        self._layoutManager = LayoutManager(headless.scene)
        self._moduleManager = ModuleManager()
        self._slots: dict[str, list[Callable[..., object]]] = {}
        self._startupTags: list[int] = []
        self.restarts = 0
        self.defaultScenePath = self.temporaryPath

    def connect(self, signal: str, slot: Callable[..., object]) -> bool:
        """Connect to a signal of the application, such as ``startupCompleted()``."""
        self._slots.setdefault(signal, []).append(slot)
        return True

    def disconnect(self, signal: str, slot: Callable[..., object]) -> bool:
        """Take back `connect`."""
        isThere = slot in self._slots.get(signal, [])
        if isThere:
            self._slots[signal].remove(slot)
        return isThere

    def testingEnabled(self) -> bool:
        """False: what the user would be told goes to `Told`, and so do errors in ``tryWithErrorDisplay``."""
        return False

    def completeStartup(self) -> None:
        """Emit ``startupCompleted()``. What listens to the scene from then on does so until the application ends."""
        before = self._nextTag()
        for slot in self._slots.pop("startupCompleted()", []):
            slot()
        self._startupTags.extend(range(before + 1, self._nextTag()))

    def _nextTag(self) -> int:
        """VTK numbers the observers of an object one after the other."""
        tag = self._scene.AddObserver("UserEvent", lambda *_: None)
        self._scene.RemoveObserver(tag)
        return tag

    def processEvents(self, *flags: object) -> None:
        """Let Qt do what is due."""
        qt.QApplication.processEvents(*flags)

    def settings(self) -> qt.QSettings:
        """The settings, in a file of this process."""
        return qt.QSettings()

    def layoutManager(self) -> LayoutManager:
        """The arrangement of the views, which are nodes only."""
        return self._layoutManager

    def _close(self) -> None:
        """The test is over."""
        for tag in self._startupTags:
            self._scene.RemoveObserver(tag)
        self._layoutManager._close()

    def moduleManager(self) -> ModuleManager:
        """The modules that are there."""
        return self._moduleManager

    def topLevelWidgets(self) -> list[qt.QWidget]:
        """All windows; none of them is Slicer's main window."""
        return qt.QApplication.topLevelWidgets()

    def activeWindow(self) -> qt.QWidget | None:
        """The window that has the keyboard."""
        return qt.QApplication.activeWindow()

    def clipboard(self) -> qt.QClipboard:
        """The clipboard."""
        return qt.QApplication.clipboard()

    def keyboardModifiers(self) -> qt.Qt.KeyboardModifier:
        """The keys that are held down."""
        return qt.QApplication.keyboardModifiers()

    def palette(self) -> qt.QPalette:
        """The colours."""
        return qt.QApplication.palette()

    def setOverrideCursor(self, cursor: qt.QCursor) -> None:
        """Show another cursor."""
        qt.QApplication.setOverrideCursor(cursor)

    def restoreOverrideCursor(self) -> None:
        """Take back `setOverrideCursor`."""
        qt.QApplication.restoreOverrideCursor()

    def restart(self) -> None:
        """Only counted."""
        self.restarts += 1
