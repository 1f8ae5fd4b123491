"""A real MRML scene without the Slicer application: what `import slicer` lacks when it comes from PyPI.

The package ``slicer-core`` brings MRML, Slicer's logics and ``slicer.util``. This file adds what the
application would: the scene, the modules' logics, a small ``slicer.app``. Inside Slicer all of it is there.
"""

from __future__ import annotations

import atexit
import sys
import tempfile
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import slicer
import slicer.util
import vtk

from .headless_io import HeadlessIOManager
from .vtk_messages import routeVtkMessagesToLogging, stopRoutingVtkMessages

# Creating a module's logic registers the module's node classes in the scene.
_MODULE_LOGICS = {
    "Terminologies": "vtkSlicerTerminologiesModuleLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Colors": "vtkSlicerColorLogic",
    "Units": "vtkSlicerUnitsLogic",
    "Volumes": "vtkSlicerVolumesLogic",
    "Markups": "vtkSlicerMarkupsLogic",
    "Models": "vtkSlicerModelsLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "VolumeRendering": "vtkSlicerVolumeRenderingLogic",
    "Tables": "vtkSlicerTablesLogic",
    "Plots": "vtkSlicerPlotsLogic",
    "Texts": "vtkSlicerTextsLogic",
    "Sequences": "vtkSlicerSequencesLogic",
    "Transforms": "vtkSlicerTransformLogic",
    "CropVolume": "vtkSlicerCropVolumeLogic",
    "Data": "vtkSlicerDataModuleLogic",
    "Cameras": "vtkSlicerCamerasModuleLogic",
    "SceneViews": "vtkSlicerSceneViewsModuleLogic",
    "ViewControllers": "vtkSlicerViewControllersLogic",
}


class HeadlessModule:
    """What ``slicer.modules.<name>`` is here: a name, a logic, and the file of a scripted module."""

    def __init__(self, name: str, logic: slicer.vtkMRMLAbstractLogic | None = None, path: str = "") -> None:
        self.name = name
        self.path = path
        self._logic = logic

    def logic(self) -> slicer.vtkMRMLAbstractLogic | None:
        """The module's C++ logic; None for a module that has none."""
        return self._logic


class HeadlessApplication:
    """What ``slicer.app`` is here: the few calls that need no window."""

    applicationName = "Slicer"

    def __init__(
        self,
        scene: slicer.vtkMRMLScene,
        applicationLogic: slicer.vtkSlicerApplicationLogic,
        temporaryPath: Path,
    ) -> None:
        self.temporaryPath = str(temporaryPath)
        self._scene = scene
        self._applicationLogic = applicationLogic
        self._ioManager = HeadlessIOManager(scene, applicationLogic)

    def mrmlScene(self) -> slicer.vtkMRMLScene:
        """The scene."""
        return self._scene

    def applicationLogic(self) -> slicer.vtkSlicerApplicationLogic:
        """The application logic, which knows the modules' logics and the slice logics."""
        return self._applicationLogic

    def coreIOManager(self) -> HeadlessIOManager:
        """What ``slicer.util.load…`` and ``save…`` go through."""
        return self._ioManager

    def ioManager(self) -> HeadlessIOManager:
        """The same as `coreIOManager`."""
        return self._ioManager

    def connect(self, _signal: str, _slot: Callable[[], None]) -> None:
        """Nothing is ever signalled: there is no start-up to complete, no window to close."""

    def layoutManager(self) -> None:
        """None: there are no windows."""

    def processEvents(self, *_flags: object) -> None:
        """Nothing: there is no event loop."""

    def pauseRender(self) -> None:
        """Nothing: views draw when asked."""

    def resumeRender(self) -> None:
        """Nothing: views draw when asked."""

    def testingEnabled(self) -> bool:
        """True, which is what keeps ``slicer.util`` from opening message boxes."""
        return True

    def translate(self, _context: str, text: str) -> str:
        """The text itself: no translations are loaded."""
        return text


@dataclass(frozen=True, eq=False)
class HeadlessSlicer:
    """A running MRML scene with everything that has to stay alive beside it."""

    scene: slicer.vtkMRMLScene
    applicationLogic: slicer.vtkSlicerApplicationLogic
    temporaryPath: Path
    moduleLogics: dict[str, slicer.vtkMRMLAbstractLogic] = field(default_factory=dict)
    _keptAlive: list[object] = field(default_factory=list, repr=False)
    _closers: list[Callable[[], None]] = field(default_factory=list, repr=False)

    def callBeforeStop(self, closer: Callable[[], None]) -> None:
        """Have something that draws the scene closed before the scene goes, at the latest at the process's end."""
        self._closers.append(closer)

    def forget(self, closer: Callable[[], None]) -> None:
        """Take back `callBeforeStop`: it is closed already."""
        if closer in self._closers:
            self._closers.remove(closer)


_running: HeadlessSlicer | None = None


def startHeadlessSlicer(*, temporaryPath: Path | None = None) -> HeadlessSlicer:
    """Start MRML in this process, or return what is running already.

    Afterwards ``slicer.mrmlScene``, ``slicer.app``, ``slicer.modules.<name>.logic()`` and ``slicer.util``
    work as in Slicer, as far as they need no window. ``temporaryPath`` is for unpacked scenes; by default a
    folder of our own that is removed at exit. Raises `RuntimeError` inside the Slicer application, which has
    its own scene.
    """
    global _running  # noqa: PLW0603 - Slicer's own `slicer.mrmlScene` is one per process, so this is too
    if _running is not None:
        return _running
    if getattr(slicer, "app", None) is not None:
        msg = "the Slicer application is running; use its slicer.mrmlScene."
        raise RuntimeError(msg)
    routeVtkMessagesToLogging()
    # Registered first, so run last: the folder goes when nothing can write to it any more.
    folder = temporaryPath or _ownTemporaryFolder()
    atexit.register(_stop)
    _running = _start(folder)
    return _running


def _ownTemporaryFolder() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="lesionlens-", ignore_cleanup_errors=True)
    atexit.register(folder.cleanup)
    return Path(folder.name)


def _start(temporaryPath: Path) -> HeadlessSlicer:
    scene = slicer.vtkMRMLScene()
    slicer.mrmlScene = scene
    applicationLogic = slicer.vtkSlicerApplicationLogic()
    running = HeadlessSlicer(scene, applicationLogic, temporaryPath)
    running._keptAlive.extend(_connectFileCache(scene, applicationLogic, temporaryPath))
    applicationLogic.SetMRMLScene(scene)
    applicationLogic.SetTemporaryPath(str(temporaryPath))
    applicationLogic.GetColorLogic().SetMRMLScene(scene)
    applicationLogic.GetColorLogic().AddDefaultColorNodes()
    applicationLogic.SetSliceLogics(vtk.vtkCollection())
    applicationLogic.SetViewLogics(vtk.vtkCollection())
    slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene, True)
    _addCrosshair(scene)
    slicer.modules = types.SimpleNamespace()
    sys.modules["slicer.modules"] = slicer.modules  # so that `import slicer.modules` works too
    for name, className in _MODULE_LOGICS.items():
        running.moduleLogics[name] = _startModule(name, className, running)
    slicer.app = HeadlessApplication(scene, applicationLogic, temporaryPath)
    return running


def _connectFileCache(
    scene: slicer.vtkMRMLScene, applicationLogic: slicer.vtkSlicerApplicationLogic, temporaryPath: Path
) -> tuple[object, object]:
    """Give the scene a cache folder; without one it cannot unpack an .mrb."""
    cache = temporaryPath / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    remoteIO = slicer.vtkMRMLRemoteIOLogic()
    remoteIO.SetMRMLScene(scene)
    remoteIO.GetCacheManager().SetRemoteCacheDirectory(str(cache))
    remoteIO.AddDataIOToScene()
    dataIO = slicer.vtkDataIOManagerLogic()
    dataIO.SetMRMLApplicationLogic(applicationLogic)
    dataIO.SetAndObserveDataIOManager(remoteIO.GetDataIOManager())
    return remoteIO, dataIO


def _addCrosshair(scene: slicer.vtkMRMLScene) -> None:
    crosshair = slicer.vtkMRMLCrosshairNode()
    crosshair.SetCrosshairName("default")
    scene.AddNode(crosshair)


def _startModule(name: str, className: str, running: HeadlessSlicer) -> slicer.vtkMRMLAbstractLogic:
    logic = getattr(slicer, className)()
    if hasattr(logic, "SetModuleShareDirectory"):
        logic.SetModuleShareDirectory(str(running.temporaryPath))
    logic.SetMRMLApplicationLogic(running.applicationLogic)
    logic.SetMRMLScene(running.scene)
    running.applicationLogic.SetModuleLogic(name, logic)
    setattr(slicer.modules, name.lower(), HeadlessModule(name, logic))
    return logic


def _stop() -> None:
    """Empty the scene while Python still runs, so that no observer is called when it no longer does."""
    if _running is not None:
        for closer in reversed(_running._closers.copy()):
            closer()
        _running.scene.Clear(True)
    stopRoutingVtkMessages()
