"""Loading and saving for `slicer.util` where the Slicer application, and with it qSlicerCoreIOManager, is absent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import slicer
import vtk

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
        loadedNodes: vtk.vtkCollection,
        userMessages: slicer.vtkMRMLMessageCollection | None = None,
    ) -> bool:
        """Load ``properties["fileName"]``; False, with the reason in ``userMessages``, where that fails."""
        path = Path(properties["fileName"])
        if not path.exists():
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
        userMessages.AddMessage(vtk.vtkCommand.ErrorEvent, text)
    return False
