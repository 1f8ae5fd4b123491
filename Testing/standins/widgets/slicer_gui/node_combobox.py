"""``qMRMLNodeComboBox`` on the real scene: nodes come, go and change their names, and the selection follows as in Slicer."""

from __future__ import annotations

import qt
import slicer
import vtk
from PySide6.QtCore import Property, Signal

from .observation import Observation

_NONE = ""


class qMRMLSortFilterProxyModel(qt.QObject):
    """Of the real one only which nodes are never listed."""

    def __init__(self, onChanged, parent: qt.QObject) -> None:
        super().__init__(parent)
        self._hidden: list[str] = []
        self._onChanged = onChanged

    def _setHidden(self, nodeIDs: list[str]) -> None:
        self._hidden = list(nodeIDs)
        self._onChanged()

    hiddenNodeIDs = Property("QStringList", lambda self: self._hidden, _setHidden)


@qt.customWidget
class qMRMLNodeComboBox(qt.QWidget):
    """Lists the scene's nodes of ``nodeTypes``; without a scene (no connection in the .ui file) it is empty and disabled."""

    currentNodeChanged = Signal((object,), (bool,))
    currentNodeIDChanged = Signal(str)
    nodeActivated = Signal(object)
    nodeAddedByUser = Signal(object)
    currentNodeRenamed = Signal(str)

    def __init__(self, parent: qt.QWidget | None = None) -> None:
        super().__init__(parent)
        self._scene: slicer.vtkMRMLScene | None = None
        self._types: list[str] = []
        self._flags = {"none": False, "add": True, "remove": True, "edit": False, "rename": False}
        self._flags |= {"hidden": False, "childTypes": True, "selectNew": True}
        self._noneDisplay, self._baseName = "None", ""
        self._attributes: dict[tuple[str, str], object] = {}
        self._typeLabels: dict[str, str] = {}
        self._nodes: list[slicer.vtkMRMLNode] = []
        self._ids: list[str] = []
        self._filled: object = None
        self._current, self._requested = _NONE, _NONE
        self._sceneEvents, self._nodeEvents = Observation(self, "_update"), Observation(self, "_updateNodes")
        self._filter = qMRMLSortFilterProxyModel(self._update, self)
        self._combo = qt.QComboBox()
        layout = qt.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._combo)
        self._combo.activated.connect(self._onActivated)
        self.setEnabled(False)

    # The scene

    def mrmlScene(self) -> slicer.vtkMRMLScene | None:
        """The scene."""
        return self._scene

    def setMRMLScene(self, scene: slicer.vtkMRMLScene | None) -> None:
        """Show the nodes of this scene."""
        if scene is self._scene:
            return
        self._sceneEvents.stop()
        self._scene = scene
        if scene is not None:
            events = (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndBatchProcessEvent)
            self._sceneEvents.watch(scene, events)
        wanted = self._current if self._ids else self._requested
        self._requested = _NONE
        self._find()
        self._ids = self._listed()
        if not wanted and not self._flags["none"] and self._ids:
            wanted = self._ids[0]
        self._fill()
        self._select(wanted)
        self.setEnabled(scene is not None)

    def _find(self) -> None:
        """The scene's nodes of the types; each is watched, since it may come to be listed."""
        if self._scene is None:
            self._nodeEvents.stop()
            self._nodes = []
            return
        scene, types, isAnyChild = self._scene, self._types, self._flags["childTypes"]  # looked up once for all nodes
        nodes = [scene.GetNthNode(place) for place in range(scene.GetNumberOfNodes())]
        nodes = [n for n in nodes if (any(map(n.IsA, types)) if isAnyChild else n.GetClassName() in types)]
        if nodes == self._nodes:
            return
        self._nodeEvents.stop()
        self._nodes = nodes
        for node in nodes:
            self._nodeEvents.watch(node, [vtk.vtkCommand.ModifiedEvent])

    def _listed(self) -> list[str]:
        """The IDs of the nodes to list."""
        return [node.GetID() for node in self._nodes if self._isListed(node)]

    def _isListed(self, node: slicer.vtkMRMLNode) -> bool:
        if node.GetHideFromEditors() and not self._flags["hidden"]:
            return False
        if node.GetID() in self._filter.hiddenNodeIDs:
            return False
        for (nodeType, name), value in self._attributes.items():
            if node.IsA(nodeType) and (
                node.GetAttribute(name) is None or (value is not None and node.GetAttribute(name) != str(value))
            ):
                return False
        return True

    def _update(self) -> None:
        """The scene has changed."""
        if self._scene is not None and not self._scene.IsBatchProcessing():
            self._find()
            self._updateNodes()

    def _updateNodes(self) -> None:
        """A node has changed, or which there are."""
        if self._scene is None or self._scene.IsBatchProcessing():
            return
        before, shown = self._ids, [self._combo.itemText(row) for row in range(self._combo.count)]
        self._ids = self._listed()
        self._fill()
        isRenamed = self._current in self._ids and self._ids == before and shown != self._texts()
        isFirst = not before and bool(self._ids) and not self._flags["none"] and not self._actions()
        if self._current and self._current not in self._ids:
            self._select(self._neighbour(before))
        elif not self._current and isFirst:
            # Qt's combo box takes the first item that it gets, and an item for "Create new" is there before.
            self._select(self._ids[0])
        else:
            self._show()
        if isRenamed:
            self._say()

    def _neighbour(self, before: list[str]) -> str:
        """What Qt selects when the selected row goes: the row above."""
        place = before.index(self._current) if self._current in before else 0
        above = before[place - 1] if place > 0 else _NONE
        return above if above in self._ids else _NONE

    # The list

    def _texts(self) -> list[str]:
        return [self._combo.itemText(row) for row in range(self._combo.count)]

    def _fill(self) -> None:
        isNone = self._flags["none"] and self._scene is not None
        items = [(self._noneDisplay, _NONE)] if isNone else []
        items += [(self._scene.GetNodeByID(nodeID).GetName() or "", nodeID) for nodeID in self._ids]
        actions = self._actions() if self._scene is not None else []
        wanted = (items, [text for text, _action in actions], self._label())
        if wanted == self._filled:  # most events of a node change nothing that is shown
            return
        self._filled = wanted
        self._combo.blockSignals(True)
        self._combo.clear()
        for text, data in items:
            self._combo.addItem(text, data)
        if actions:
            self._combo.insertSeparator(self._combo.count)
            for text, action in actions:
                self._combo.addItem(text, action)
        self._combo.setPlaceholderText(f"Select a {self._label()}")
        self._combo.blockSignals(False)
        self._show()

    def nodeTypeLabel(self, nodeType: str) -> str:
        """What the user reads for a type: what was set, else the scene's word for it."""
        known = self._scene.GetTagByClassName(nodeType) if self._scene is not None and nodeType else None
        return self._typeLabels.get(nodeType) or known or "node"

    def _label(self) -> str:
        return self.nodeTypeLabel(self._types[0] if self._types else "")

    def _actions(self) -> list[tuple[str, object]]:
        label, found = self._label(), []
        if self._flags["rename"]:
            found.append((f"Rename current {label}", self.renameCurrentNode))
        if self._flags["add"]:
            kinds = [(kind, self.nodeTypeLabel(kind)) for kind in self._types]
            found += [(f"Create new {shown}", lambda kind=kind: self.addNode(kind)) for kind, shown in kinds]
        if self._flags["remove"]:
            found.append((f"Delete current {label}", self.removeCurrentNode))
        return found

    def _onActivated(self, row: int) -> None:
        chosen = self._combo.itemData(row)
        if callable(chosen):
            self._show()
            chosen()
        else:
            self._select(chosen or _NONE)
            self.nodeActivated.emit(self.currentNode())

    # The selection

    def _select(self, nodeID: str) -> None:
        nodeID = nodeID if nodeID in self._ids else _NONE
        isNew = nodeID != self._current
        self._current = nodeID
        self._show()
        if isNew:
            self._say()

    def _show(self) -> None:
        self._combo.blockSignals(True)
        row = self._ids.index(self._current) + int(self._flags["none"]) if self._current in self._ids else -1
        self._combo.setCurrentIndex(0 if row < 0 and self._flags["none"] else row)
        self._combo.blockSignals(False)

    def _say(self) -> None:
        node = self.currentNode()
        self.currentNodeChanged.emit(node)
        self.currentNodeChanged[bool].emit(node is not None)
        self.currentNodeIDChanged.emit(self._current)

    def currentNode(self) -> slicer.vtkMRMLNode | None:
        """The selected node."""
        return self._scene.GetNodeByID(self._current) if self._scene is not None and self._current else None

    def setCurrentNode(self, node: slicer.vtkMRMLNode | None) -> None:
        """Select a node; one that isn't listed is as good as None."""
        self.setCurrentNodeID(node.GetID() if node is not None else _NONE)

    def setCurrentNodeID(self, nodeID: str) -> None:
        """Select a node; before there is a scene it is remembered."""
        if self._scene is None:
            self._requested = nodeID or _NONE
        self._select(nodeID or _NONE)

    def nodeCount(self) -> int:
        """How many nodes are listed."""
        return len(self._ids)

    def nodeFromIndex(self, index: int) -> slicer.vtkMRMLNode | None:
        """The node at a place."""
        return self._scene.GetNodeByID(self._ids[index]) if 0 <= index < len(self._ids) else None

    # What the user can do

    def addNode(self, nodeType: str | None = None) -> slicer.vtkMRMLNode | None:
        """Make a node of this type, or of the first type, and select it."""
        nodeType = nodeType or (self._types[0] if self._types else None)
        if nodeType not in self._types or self._scene is None:
            return None
        node = self._scene.CreateNodeByClass(nodeType)
        node.UnRegister(None)
        node.SetName(self._scene.GenerateUniqueName(self._baseName or node.GetNodeTagName()))
        for (attributeType, attribute), value in self._attributes.items():
            if node.IsA(attributeType):
                node.SetAttribute(attribute, "" if value is None else str(value))
        node = self._scene.AddNode(node)
        if self._flags["selectNew"]:
            self.setCurrentNode(node)
        self.nodeAddedByUser.emit(node)
        return node

    def removeCurrentNode(self) -> None:
        """Take the selected node out of the scene."""
        if self.currentNode() is not None:
            self._scene.RemoveNode(self.currentNode())

    def renameCurrentNode(self) -> None:
        """Ask for a name."""
        node = self.currentNode()
        if node is None:
            return
        name = qt.QInputDialog.getText(self, "Rename", "New name:", qt.QLineEdit.Normal, node.GetName())
        if name:
            node.SetName(name)
            self.currentNodeRenamed.emit(name)

    def sortFilterProxyModel(self) -> qMRMLSortFilterProxyModel:
        """What decides which nodes are listed."""
        return self._filter

    def addAttribute(self, nodeType: str, name: str, value: object = None) -> None:
        """List only nodes with this attribute; None is any value."""
        self._attributes[nodeType, name] = value
        self._update()

    def _setTypes(self, nodeTypes: list[str]) -> None:
        self._types = list(nodeTypes)
        self._update()

    def _setText(self, name: str, text: str) -> None:
        self.__dict__[name] = text
        self._update()

    def _setFlag(self, name: str, isOn: bool) -> None:
        self._flags[name] = bool(isOn)
        self._update()

    currentNodeID = Property(str, lambda self: self._current, setCurrentNodeID, notify=currentNodeIDChanged)
    nodeTypes = Property("QStringList", lambda self: tuple(self._types), _setTypes)
    baseName = Property(str, lambda self: self._baseName, lambda self, text: self._setText("_baseName", text))
    noneEnabled = Property(bool, lambda self: self._flags["none"], lambda self, on: self._setFlag("none", on))
    addEnabled = Property(bool, lambda self: self._flags["add"], lambda self, on: self._setFlag("add", on))
    removeEnabled = Property(bool, lambda self: self._flags["remove"], lambda self, on: self._setFlag("remove", on))
    renameEnabled = Property(bool, lambda self: self._flags["rename"], lambda self, on: self._setFlag("rename", on))
    showChildNodeTypes = Property(
        bool, lambda self: self._flags["childTypes"], lambda self, on: self._setFlag("childTypes", on)
    )
