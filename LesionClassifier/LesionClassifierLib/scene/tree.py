"""The scene as a whole: result tables, the tree that Slicer's Data module shows, and the file it is saved to."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from numbers import Integral, Real
from pathlib import Path

from LesionLib.errors import OutputError
from LesionLib.io.private_files import make_private
from slicer import vtkMRMLMessageCollection, vtkMRMLNode, vtkMRMLScene, vtkMRMLTableNode
from vtkmodules.vtkCommonCore import vtkAbstractArray, vtkDoubleArray, vtkIdList, vtkLongLongArray, vtkStringArray

# In Slicer, plug-ins claim the items of the tree; an item without its plug-in's name has no icon and no menu there.
_TREE_PLUGINS = {
    "vtkMRMLSegmentationNode": "Segmentations",
    "vtkMRMLLabelMapVolumeNode": "LabelMaps",
    "vtkMRMLVolumeNode": "Volumes",
    "vtkMRMLMarkupsNode": "Markups",
    "vtkMRMLTableNode": "Tables",
    "vtkMRMLTextNode": "Texts",
    "vtkMRMLTransformNode": "Transforms",
}


def addResultsTableNode(scene: vtkMRMLScene, columns: Mapping[str, Sequence], *, name: str) -> vtkMRMLTableNode:
    """A table of equally long columns: all-integer ones as int, numbers as double (None as NaN), others as text.

    Raises `ValueError` where the columns differ in length.
    """
    lengths = {len(values) for values in columns.values()}
    if len(lengths) > 1:
        msg = f"{name}: the columns differ in length ({', '.join(f'{k}: {len(v)}' for k, v in columns.items())})."
        raise ValueError(msg)
    node = scene.AddNewNodeByClass("vtkMRMLTableNode")
    node.SetName(name)
    node.SetUseColumnTitleAsColumnHeader(True)
    for title, values in columns.items():
        node.AddColumn(_columnArray(title, values))
    return node


def placeResults(scene: vtkMRMLScene, volumeNode: vtkMRMLNode, nodes: Iterable[vtkMRMLNode], *, folderName: str) -> int:
    """Put what was made from a volume into a folder beside it, in the order given, and return the folder's item ID.

    The folder stands below the study (or whatever else is the parent) of the volume, at the top of the tree where it has none;
    one of that name there is used again. The volume itself is never moved, nor is a node that somebody has put somewhere.
    """
    tree = scene.GetSubjectHierarchyNode()
    top = tree.GetSceneItemID()
    volumeItem = tree.GetItemByDataNode(volumeNode)
    if not volumeItem:
        volumeItem = _addItem(tree, top, volumeNode)
    folder = _folder(tree, tree.GetItemParent(volumeItem) or top, folderName)
    for node in nodes:
        item = tree.GetItemByDataNode(node)
        # Inside Slicer the item is there already; without the application nobody has made it.
        if not item:
            _addItem(tree, folder, node)
        elif node is not volumeNode and tree.GetItemParent(item) in (0, top):
            tree.SetItemParent(item, folder)
    return folder


def saveScene(scene: vtkMRMLScene, path: Path) -> None:
    """Save everything in the scene to one .mrb file; an older file of that name is replaced only when all is written.

    Raises `OutputError`.
    """
    if path.suffix.lower() != ".mrb":
        msg = f"{path}: a scene is saved as .mrb; give a name that ends so."
        raise OutputError(msg)
    messages = vtkMRMLMessageCollection()
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".lesionlens-") as folder:
            # The same file name, because the scene inside the .mrb is named after it.
            partial = Path(folder) / path.name
            if not scene.WriteToMRB(str(partial), None, messages) or not partial.is_file():
                reasons = messages.GetAllMessagesAsString().split("\n")
                msg = f"the scene cannot be saved to {path}: {reasons[0] or 'no reason given'}"
                raise OutputError(msg)
            _nameNoFolders(partial)
            make_private(partial)
            os.replace(partial, path)
    except OSError as error:
        msg = f"the scene cannot be saved to {path} ({error.strerror}); choose a folder that exists and is writable."
        raise OutputError(msg) from error


# A table of colours begins with the path that it was written to: a folder of this computer, often with its user's name.
_COLOR_TABLE = re.compile(rb"^(# Color \w+ file )(?:.*[/\\])?([^/\\\r\n]*)", flags=re.M)
_MAX_TABLE, _MAX_ZIP32 = 1 << 20, 1 << 30


def _nameNoFolders(path: Path) -> None:
    """Take the folders that MRML wrote through out of the scene's color tables. Raises `OSError`."""
    with zipfile.ZipFile(path) as scene:
        tables = {
            item.filename: _COLOR_TABLE.sub(rb"\1\2", content)
            for item in scene.infolist()
            if item.filename.endswith((".txt", ".ctbl")) and item.file_size <= _MAX_TABLE
            if _COLOR_TABLE.search(content := scene.read(item))
        }
        if not tables:
            return
        clean = path.with_name(f"clean-{path.name}")
        with zipfile.ZipFile(clean, "w") as target:  # volumes are packed already
            for item in scene.infolist():
                if item.filename in tables or item.is_dir():
                    target.writestr(copy(item), tables.get(item.filename, b""))
                    continue
                new = copy(item)
                new.compress_type = zipfile.ZIP_STORED if item.filename.endswith(".nrrd") else zipfile.ZIP_DEFLATED
                with (
                    scene.open(item) as source,
                    target.open(new, "w", force_zip64=item.file_size > _MAX_ZIP32) as sink,
                ):
                    shutil.copyfileobj(source, sink, 1 << 20)
    os.replace(clean, path)


def _folder(tree: vtkMRMLNode, parent: int, name: str) -> int:
    """The folder of this name right below ``parent``, made where there is none; a node's own item is no folder."""
    children = vtkIdList()
    tree.GetItemChildren(parent, children)
    for index in range(children.GetNumberOfIds()):
        item = children.GetId(index)
        if tree.GetItemName(item) == name and tree.GetItemDataNode(item) is None:
            return item
    folder = tree.CreateFolderItem(parent, name)
    _claim(tree, folder, "Folder")
    return folder


def _addItem(tree: vtkMRMLNode, parent: int, node: vtkMRMLNode) -> int:
    item = tree.CreateItem(parent, node)
    _claim(tree, item, _pluginOf(node))
    return item


def _pluginOf(node: vtkMRMLNode) -> str:
    return next((plugin for kind, plugin in _TREE_PLUGINS.items() if node.IsA(kind)), "Default")


def _claim(tree: vtkMRMLNode, item: int, plugin: str) -> None:
    if not tree.GetItemOwnerPluginName(item):
        tree.SetItemOwnerPluginName(item, plugin)


def _columnArray(title: str, values: Sequence) -> vtkAbstractArray:
    if values and all(isinstance(value, Integral) and not isinstance(value, bool) for value in values):
        column, convert = vtkLongLongArray(), int
    elif values and all(value is None or (isinstance(value, Real) and not isinstance(value, bool)) for value in values):
        column, convert = vtkDoubleArray(), _numberOrNaN
    else:
        column, convert = vtkStringArray(), _textOrNothing
    column.SetName(title)
    for value in values:
        column.InsertNextValue(convert(value))
    return column


def _numberOrNaN(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _textOrNothing(value: object) -> str:
    return "" if value is None else str(value)
