"""A real MRML scene without the Slicer application: what `import slicer` lacks when it comes from PyPI.

The package ``slicer-core`` brings MRML, Slicer's logics and ``slicer.util``. This file adds what the application would: the
scene, the modules' logics, a small ``slicer.app``, loading and saving for ``slicer.util`` (qSlicerCoreIOManager is the
application's), and VTK's and MRML's messages in Python `logging`, not on the user's terminal. Inside Slicer all of it is
there.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import tempfile
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import slicer
import slicer.util
from vtkmodules.vtkCommonCore import VTK_STRING, vtkCollection, vtkCommand, vtkLogger, vtkOutputWindow

_FILE_TYPES = {
    ".mrb": "SceneFile",
    ".mrml": "SceneFile",
    ".seg.nrrd": "SegmentationFile",
    ".mrk.json": "MarkupsFile",
    ".h5": "TransformFile",
    ".tfm": "TransformFile",
    ".vtk": "ModelFile",
    ".vtp": "ModelFile",
    ".stl": "ModelFile",
    ".csv": "TableFile",
    ".tsv": "TableFile",
    ".txt": "TextFile",
    ".json": "TextFile",
}


class HeadlessIOManager:
    """The part of Slicer's core I/O manager that ``slicer.util.load…`` and ``save…`` call, on the real logics."""

    def __init__(self, scene: slicer.vtkMRMLScene, applicationLogic: slicer.vtkSlicerApplicationLogic) -> None:
        self._scene = scene
        self._applicationLogic = applicationLogic
        self._loaders: dict[str, Callable[[str, str, Mapping], slicer.vtkMRMLNode | None]] = {
            "VolumeFile": self._loadVolume,
            "SegmentationFile": self._loadSegmentation,
            "MarkupsFile": self._loadMarkups,
            "ModelFile": lambda path, _name, _properties: self._logic("Models").AddModel(path),
            "TableFile": lambda path, name, _properties: self._logic("Tables").AddTable(path, name),
            "TextFile": self._loadText,
            "TransformFile": lambda path, _name, _properties: self._logic("Transforms").AddTransform(path, self._scene),
        }

    def fileType(self, fileName: str | Path) -> str:
        """Slicer's name of the file type, by the longest known ending; anything unknown is taken for a volume."""
        lowered = str(fileName).lower()
        endings = sorted((ending for ending in _FILE_TYPES if lowered.endswith(ending)), key=len)
        return _FILE_TYPES[endings[-1]] if endings else "VolumeFile"

    def fileWriterFileType(self, node: slicer.vtkMRMLNode) -> str:
        """Any name but ``SceneFile``: how a node is written is known to its own storage node."""
        return node.GetClassName()

    def loadNodes(
        self,
        fileType: str,
        properties: Mapping,
        loadedNodes: vtkCollection,
        userMessages: slicer.vtkMRMLMessageCollection | None = None,
    ) -> bool:
        """Load ``properties["fileName"]``; False, with the reason in ``userMessages``, where that fails."""
        path = Path(properties["fileName"])
        if not os.path.exists(path):
            return _failed(userMessages, f"there is no file {path}")
        if fileType == "SceneFile":
            return self._loadScene(path, properties)
        if fileType not in self._loaders:
            return _failed(userMessages, f"files of type {fileType} cannot be loaded without the Slicer application")
        name = properties.get("name") or path.name.split(".")[0]
        node = self._loaders[fileType](str(path), name, properties)
        if node is None:
            return _failed(userMessages, f"{path} cannot be read as {fileType}")
        loadedNodes.AddItem(node)
        return True

    def saveNodes(
        self, fileType: str, properties: Mapping, userMessages: slicer.vtkMRMLMessageCollection | None = None
    ) -> bool:
        """Save a scene (``fileName``) or one node (``nodeID``, ``fileName``, optional ``useCompression``)."""
        path = Path(properties["fileName"])
        if fileType == "SceneFile":
            return self._saveScene(path)
        node = self._scene.GetNodeByID(properties["nodeID"])
        if node.GetStorageNode() is None:
            node.AddDefaultStorageNode(str(path))
        storage = node.GetStorageNode()
        if storage is None:
            return _failed(userMessages, f"{node.GetName()} is of a kind that is not saved to a file of its own")
        storage.SetFileName(str(path))
        storage.SetUseCompression(int(properties.get("useCompression", 1)))
        return bool(storage.WriteData(node))

    def _logic(self, moduleName: str) -> slicer.vtkMRMLAbstractLogic:
        return self._applicationLogic.GetModuleLogic(moduleName)

    def _loadVolume(self, path: str, name: str, properties: Mapping) -> slicer.vtkMRMLNode | None:
        # The bits of vtkSlicerVolumesLogic::LoadingOptions.
        options = {
            "labelmap": 1,
            "center": 2,
            "singleFile": 4,
            "autoWindowLevel": 8,
            "discardOrientation": 16,
        }
        bits = sum(bit for option, bit in options.items() if properties.get(option))
        return self._logic("Volumes").AddArchetypeVolume(path, name, bits)

    def _loadSegmentation(self, path: str, name: str, _properties: Mapping) -> slicer.vtkMRMLNode | None:
        return self._logic("Segmentations").LoadSegmentationFromFile(path, True, name)

    def _loadMarkups(self, path: str, name: str, _properties: Mapping) -> slicer.vtkMRMLNode | None:
        nodeID = self._logic("Markups").LoadMarkups(path, name)
        return self._scene.GetNodeByID(nodeID) if nodeID else None

    def _loadText(self, path: str, name: str, _properties: Mapping) -> slicer.vtkMRMLNode | None:
        node = self._scene.AddNewNodeByClass("vtkMRMLTextNode", name)
        storage = self._scene.AddNewNodeByClass("vtkMRMLTextStorageNode")
        storage.SetFileName(path)
        node.SetAndObserveStorageNodeID(storage.GetID())
        if storage.ReadData(node):
            return node
        self._scene.RemoveNode(storage)
        self._scene.RemoveNode(node)
        return None

    def _loadScene(self, path: Path, properties: Mapping) -> bool:
        clear = bool(properties.get("clear"))
        if path.suffix.lower() == ".mrb":
            return bool(self._scene.ReadFromMRB(str(path), clear))
        self._scene.SetURL(str(path))
        self._scene.SetRootDirectory(str(path.parent))
        return bool(self._scene.Connect() if clear else self._scene.Import())

    def _saveScene(self, path: Path) -> bool:
        if path.suffix.lower() == ".mrb":
            return bool(self._scene.WriteToMRB(str(path)))
        if path.suffix.lower() == ".mrml":
            self._scene.SetURL(str(path))
            self._scene.SetRootDirectory(str(path.parent))
            return bool(self._scene.Commit(str(path)))
        path.mkdir(parents=True, exist_ok=True)
        return bool(self._applicationLogic.SaveSceneToSlicerDataBundleDirectory(str(path), None))


def _failed(userMessages: slicer.vtkMRMLMessageCollection | None, text: str) -> bool:
    if userMessages is not None:
        userMessages.AddMessage(vtkCommand.ErrorEvent, text)
    return False


LOGGER = logging.getLogger("LesionLens.vtk")
# Without a handler of its own, Python would print warnings of an application that set up no logging.
LOGGER.addHandler(logging.NullHandler())

# MRML says the first two about its own helper scenes whenever a scene is saved or loaded; nothing is wrong then.
_HARMLESS = (
    "GetUnitNode failed: selection node not found",
    "invalid orientation preset name: Reformat",
    # Resources of the application that the package slicer-core does not carry.
    "Failed to load terminology",
    "Failed to load region context",
    "Default color files will not be loaded",
)
_LEVELS = {"ErrorEvent": logging.ERROR, "WarningEvent": logging.WARNING}


def routeVtkMessagesToLogging() -> None:
    """Send every VTK, MRML and Slicer-logic message to the logger ``LesionLens.vtk``; the terminal stays clean.

    Errors are logged as ERROR and warnings as WARNING, known harmless ones as DEBUG.
    """
    window = vtkOutputWindow()
    window.SetDisplayModeToNever()
    for event in _LEVELS:
        window.AddObserver(event, _logMessage)
    vtkOutputWindow.SetInstance(window)
    vtkLogger.SetStderrVerbosity(vtkLogger.VERBOSITY_OFF)


def stopRoutingVtkMessages() -> None:
    """Drop the route without printing anything: at the interpreter's end no Python code may be called any more."""
    window = vtkOutputWindow()
    window.SetDisplayModeToNever()
    vtkOutputWindow.SetInstance(window)


def _logMessage(_window: vtkOutputWindow, event: str, text: str) -> None:
    text = (text or "").strip()
    harmless = any(known in text for known in _HARMLESS)
    LOGGER.log(logging.DEBUG if harmless else _LEVELS[event], "%s", text)


_logMessage.CallDataType = VTK_STRING

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
    applicationLogic.SetSliceLogics(vtkCollection())
    applicationLogic.SetViewLogics(vtkCollection())
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
