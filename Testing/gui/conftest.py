"""A module's real panel under pytest: the very ``.ui`` and widget class that Slicer loads, on a real, empty MRML scene.

How to write a test of a panel:

1. ``def test_it_says_so(module_widget):`` and ``panel = module_widget("LesionClassifier", size=(480, 1100))``: imported,
   made, ``setup()``, shown and ``enter()``ed, as Slicer does; ``panel.ui.applyButton`` is a widget with PythonQt's manners.
2. Act as a user: ``panel.ui.applyButton.click()``, ``panel.ui.opacitySlider.value = 0.3``; and read ``label.text``,
   ``button.enabled``. ``spin(0.2)`` runs Qt's event loop, ``spin(until=lambda: panel.ui.x.text, seconds=20)`` until so.
3. The scene is ``scene`` (or ``slicer.mrmlScene``); add nodes before or after the panel is there, ``scene.Clear(0)`` closes it.
4. ``told``: what ``slicer.util.errorDisplay`` and the like said (``told.of("error")``, ``"no box" in told``); questions are
   answered yes, or by ``told.answers = [False, True]``. Dialogs: ``monkeypatch.setattr(qt.QFileDialog, "getOpenFileName", …)``.
5. ``screenshot(panel, "answered")`` writes a PNG into $LESIONLENS_TEST_ARTEFACTS (default: pytest's folder), returns its path.
6. An exception in a slot or observer fails the test unless the user was shown its text; so does a connection to a signal
   that does not exist, and any Qt warning. Expected ones: look at ``slot_errors`` or ``qt_warnings`` and ``.clear()`` them.
7. Leaving and coming back: ``leave(panel)``, ``return_to(panel)``. Several panels live side by side, at most one of them is
   entered: ``module_widget("LesionRetrieval")`` or ``return_to(other)`` leaves the one before (``exit()``, then ``enter()``).
   ``module_widget(name, enter=False)`` is a panel that nobody has opened yet; ``runner=``: what its models run in, so that
   no worker is started. At the end every panel is left, cleaned up and
   deleted, and the scene is closed: one that still listens then (no ``disconnectGui``, no ``removeObservers``) fails the test.
8. ``import qt`` or ``ctk`` inside tests, not at the top of the file: without PySide6 these tests skip and say so.
9. ``slicer.app.completeStartup()`` emits ``startupCompleted()``; ``slicer.app.settings()`` is empty for each test.
10. ``slicer.app.layoutManager()`` stands on Slicer's own layout logic: slice and 3D views are nodes, nothing is drawn.
11. Not stood in for: what 2D and 3D views draw (Testing/mrml draws those), Slicer's style, units, the module manager.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import slicer
import slicer.util
from LesionClassifierLib.headless import HeadlessModule, HeadlessSlicer, startHeadlessSlicer
from LesionClassifierLib.scene.lesions import addRoiNode, markAsLesion
from LesionClassifierLib.scene.volumes import addVolumeNode
from LesionLib.inference.messages import Embedding, describing_request
from LesionLib.inference.runner import InProcessRunner, SharedRunner
from LesionLib.model.folder import golden_case
from LesionRetrievalLib.quiz_logic import QuizLogic
from repository import ROOT, SLICER_STANDINS, WIDGET_STANDINS


@pytest.fixture(scope="session")
def headless() -> HeadlessSlicer:
    return startHeadlessSlicer()


class WarmWorker:
    """Holds a share of the one worker from test to test, so that not each of them starts a process and a model."""

    def __init__(self) -> None:
        self._share: SharedRunner | None = None

    def hold(self) -> None:
        self._share = SharedRunner()

    def release(self) -> None:
        self._share.close()


@pytest.fixture(scope="session", autouse=True)
def warm_worker() -> Iterator[WarmWorker]:
    worker = WarmWorker()
    worker.hold()
    yield worker
    worker.release()


@pytest.fixture
def last_share(warm_worker: WarmWorker) -> Iterator[None]:
    """The panel of this test holds the worker alone: it ends with the panel, as in Slicer."""
    warm_worker.release()
    yield
    warm_worker.hold()


@pytest.fixture(autouse=True)
def gui(headless: HeadlessSlicer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Qt, CTK and Slicer's widgets, and a ``slicer.app`` that has windows."""
    if importlib.util.find_spec("PySide6") is None:
        pytest.skip("PySide6 is not installed: pip install PySide6-Essentials (in the extra `dev`) to test the panels")
    for folder, path in ((WIDGET_STANDINS, sys.path), (SLICER_STANDINS, slicer.__path__)):
        if str(folder) not in path:
            path.append(str(folder))
    import qt
    import slicer_gui

    slicer_gui.install()
    qt._settings.clear()
    headless.scene.Clear(False)
    application = slicer_gui.GuiApplication(headless)
    monkeypatch.setattr(slicer, "app", application)
    yield application
    qt.QApplication.closeAllWindows()
    application._close()
    # Parameter nodes outlive a closed scene; the next test is to have its own.
    for node in slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode"):
        headless.scene.RemoveNode(node)
    headless.scene.Clear(False)


@pytest.fixture
def scene(gui: Any, headless: HeadlessSlicer) -> slicer.vtkMRMLScene:
    return headless.scene


@pytest.fixture(autouse=True)
def told(gui: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the user was told."""
    from slicer_gui import Told

    recorder = Told()
    recorder.install(monkeypatch)
    return recorder


@pytest.fixture(autouse=True)
def slot_errors(told: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[BaseException]]:
    """Exceptions that Qt or VTK only print: an error in a slot or an observer."""
    errors: list[BaseException] = []
    monkeypatch.setattr(sys, "excepthook", lambda _kind, error, _trace: errors.append(error))
    yield errors
    # tryWithErrorDisplay shows the error and raises it again.
    unseen = [error for error in errors if not any(str(error) in text for text in told.of("error"))]
    if unseen:
        raise unseen[0]


@pytest.fixture(autouse=True)
def qt_warnings(gui: Any) -> Iterator[list[str]]:
    """What Qt complained about."""
    import qt

    qt._messages.warnings.clear()
    yield qt._messages.warnings
    assert not qt._messages.warnings, qt._messages.warnings


@pytest.fixture
def spin(gui: Any) -> Callable[..., bool]:
    """Run Qt's event loop: for ``seconds``, or ``until`` something holds, for at most ``seconds``. Says whether it does."""
    import qt

    def run(seconds: float | None = None, *, until: Callable[[], object] | None = None) -> bool:
        end = time.monotonic() + (seconds if seconds is not None else 0.0 if until is None else 10.0)
        while True:
            qt.QApplication.processEvents()
            if until is not None and until():
                return True
            if time.monotonic() >= end:
                return until is None
            time.sleep(0.005)

    return run


@pytest.fixture(autouse=True)
def own_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The owner's key and feedback in a folder of the test."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture(scope="session")
def in_process() -> InProcessRunner:
    """Models in this process, each loaded once: for what is answered before a panel is there."""
    return InProcessRunner()


@pytest.fixture(scope="session")
def embedding(in_process: InProcessRunner) -> Embedding:
    """What the model sees in the golden lesion."""
    return in_process.run(describing_request("lung-nodule-malignancy"))


@pytest.fixture
def a_case(scene: slicer.vtkMRMLScene) -> tuple[slicer.vtkMRMLScalarVolumeNode, slicer.vtkMRMLMarkupsROINode]:
    """The golden CT and its box as nodes."""
    volume, box = golden_case()
    return addVolumeNode(scene, volume), markAsLesion(addRoiNode(scene, replace(box, name="L1")))


@pytest.fixture
def quiz_room(gui: Any) -> Iterator[Callable[[QuizLogic], Any]]:
    """The teaching room on a logic, in a window, as the module makes it."""
    import qt
    from LesionRetrievalLib.quiz_panel.quiz_panel import QuizPanel

    container = qt.QWidget()
    container.setLayout(qt.QVBoxLayout())
    container.resize(560, 900)
    made: list[QuizPanel] = []

    def make(logic: QuizLogic) -> QuizPanel:
        made.append(QuizPanel(container=container, logic=logic))
        container.show()
        return made[-1]

    yield make
    for panel in made:
        panel.cleanup()
    container.close()
    container.deleteLater()
    qt.QApplication.sendPostedEvents(None, qt.QEvent.DeferredDelete)


@pytest.fixture
def module_widget(
    scene: slicer.vtkMRMLScene, spin: Callable[..., bool], gui: Any, selector: ModuleSelector, monkeypatch
) -> Iterator[Callable[..., Any]]:
    """The panel of a module, by name or by file, in a window of this size (pixels); entered, unless not wanted."""
    import qt

    made: list[Any] = []

    def make(module: str | Path, *, size: tuple[int, int] = (480, 1000), enter: bool = True, runner: Any = None) -> Any:
        path = Path(module) if str(module).endswith(".py") else ROOT / module / f"{module}.py"
        if not path.is_file():
            msg = f"there is no module file {path}; give a folder of the repository, or the path of a .py file."
            raise FileNotFoundError(msg)
        monkeypatch.syspath_prepend(str(path.parent))
        imported = importlib.import_module(path.stem)
        monkeypatch.setattr(
            slicer.modules, path.stem.lower(), HeadlessModule(path.stem, None, str(path)), raising=False
        )
        getattr(imported, path.stem)(SimpleNamespace(path=str(path)))
        parent = _parent(scene)
        given = {} if runner is None else {"runner": runner}
        panel = getattr(imported, f"{path.stem}Widget")(parent, **given)
        made.append((panel, _window(parent, size)))
        panel.setup()
        if enter:
            selector.enter(panel)
        spin(0)
        return panel

    yield make
    for panel, window in made:
        selector.leave(panel)
        panel.cleanup()
        window.close()
        window.deleteLater()
    qt.QApplication.sendPostedEvents(None, qt.QEvent.DeferredDelete)
    spin(0)
    # A panel that still listens to the scene or to its parameter node shows now.
    scene.Clear(False)


def _parent(scene: slicer.vtkMRMLScene) -> Any:
    """What `qSlicerScriptedLoadableModuleWidget` is to a panel."""
    import qt

    class ModulePanel(slicer.qMRMLWidget):
        isEntered = False

    parent = ModulePanel()
    parent.setLayout(qt.QVBoxLayout())
    parent.setMRMLScene(scene)
    return parent


def _window(parent: Any, size: tuple[int, int]) -> Any:
    """Slicer's module panel: as wide as it is made, as high as it likes."""
    import qt

    window = qt.QScrollArea()
    window.setWidgetResizable(True)
    window.setHorizontalScrollBarPolicy(qt.Qt.ScrollBarAlwaysOff)
    window.setWidget(parent)
    window.resize(*size)
    return window


class ModuleSelector:
    """Slicer's module panel shows one module: the one before is left and hidden, then the next is shown and entered."""

    def __init__(self) -> None:
        self.entered: Any = None

    def enter(self, panel: Any) -> None:
        if panel is not self.entered:
            self.leave(self.entered)
            self.entered = panel
            panel.parent.window().show()
            panel.parent.isEntered = True
            getattr(panel, "enter", _nothing)()

    def leave(self, panel: Any) -> None:
        if panel is not None and panel is self.entered:
            self.entered = None
            panel.parent.isEntered = False
            getattr(panel, "exit", _nothing)()
            panel.parent.window().hide()


def _nothing() -> None:
    """Slicer calls ``enter`` and ``exit`` where a panel has them; its base class has not."""


@pytest.fixture
def selector() -> ModuleSelector:
    """Which of the test's panels is entered."""
    return ModuleSelector()


@pytest.fixture
def leave(selector: ModuleSelector) -> Callable[[Any], None]:
    """Go to another module, which is none of the test's."""
    return selector.leave


@pytest.fixture
def return_to(selector: ModuleSelector) -> Callable[[Any], None]:
    """Come back, or go to another of the test's panels."""
    return selector.enter


@pytest.fixture
def screenshot(spin: Callable[..., bool], tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., Path]:
    """A picture of a panel (all of it, also what is below the window's edge) or of a widget."""
    folder = Path(os.environ.get("LESIONLENS_TEST_ARTEFACTS") or tmp_path)

    def take(widget: Any, name: str = "") -> Path:
        spin(0)
        target = widget if hasattr(widget, "grab") else widget.parent
        folder.mkdir(parents=True, exist_ok=True)
        stem = re.sub(r"[^\w.-]+", "_", name or request.node.name)
        path = folder / f"{stem}.png"
        if not target.grab().save(str(path)):
            msg = f"the picture could not be written to {path}"
            raise OSError(msg)
        return path

    return take
