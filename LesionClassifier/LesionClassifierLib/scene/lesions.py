"""Boxes: from an ROI node to a `LesionBox` and back, and from Slicer's .mrk.json files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import slicer.util
from LesionLib.errors import BoxError
from LesionLib.geometry import LesionBox
from slicer import vtkMRMLMarkupsROINode, vtkMRMLScene, vtkMRMLStorageNode

from .volume_nodes import parentToWorld

_SMALLEST_SCALE = 1e-9
_COORDINATE_SYSTEMS = {
    "LPS": vtkMRMLStorageNode.CoordinateSystemLPS,
    "RAS": vtkMRMLStorageNode.CoordinateSystemRAS,
}


def boxFromRoi(roiNode: vtkMRMLMarkupsROINode) -> LesionBox:
    """The ROI as a box in world RAS mm, its own rotation and all linear transforms above it included.

    Scaling along the ROI's own axes goes into ``sizeMm``. The axes come out right-handed: where a transform mirrors,
    the z axis is turned round, which leaves the box where it is. Raises `BoxError` for an ROI that is not drawn yet,
    flat, sheared, or under a non-linear transform.
    """
    name = roiNode.GetName() or "lesion"
    size = np.array(roiNode.GetSize())
    if not size.any():
        msg = f"box {name!r} has not been drawn yet; place it around the lesion."
        raise BoxError(msg)
    boxToRAS = parentToWorld(roiNode, BoxError) @ slicer.util.arrayFromVTKMatrix(roiNode.GetObjectToNodeMatrix())
    if abs(np.linalg.det(boxToRAS[:3, :3])) < _SMALLEST_SCALE:
        msg = f"box {name!r} is pressed flat by its transform; remove the transform or correct its scale."
        raise BoxError(msg)
    scale = np.linalg.norm(boxToRAS[:3, :3], axis=0)
    axes = _rightHanded(boxToRAS[:3, :3] / scale)
    if np.abs(axes.T @ axes - np.eye(3)).max() > 1e-4:
        msg = f"box {name!r} is sheared by its transform, so its sides are not at right angles; remove the transform."
        raise BoxError(msg)
    return LesionBox(boxToRAS[:3, 3], size * scale, axes, name=name)


def addRoiNode(
    scene: vtkMRMLScene,
    box: LesionBox,
    *,
    colorRGB: Sequence[float] | None = None,
    interactive: bool = False,
) -> vtkMRMLMarkupsROINode:
    """The box as a new ROI node of the same name, shown as an outline (see `showAsOutline`)."""
    node = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode")
    node.SetName(box.name)
    boxToRAS = box.boxToRAS
    boxToRAS[:3, :3] = _rightHanded(box.axesRAS)
    node.SetAndObserveObjectToNodeMatrix(slicer.util.vtkMatrixFromArray(boxToRAS))
    node.SetSize(*box.sizeMm)
    # Setting the size has rounded the centre to single precision, by way of the control point.
    node.GetObjectToNodeMatrix().DeepCopy(slicer.util.vtkMatrixFromArray(boxToRAS))
    node.CreateDefaultDisplayNodes()
    showAsOutline(node, colorRGB=colorRGB, interactive=interactive)
    return node


def showAsOutline(
    roiNode: vtkMRMLMarkupsROINode, *, colorRGB: Sequence[float] | None = None, interactive: bool = False
) -> None:
    """Show the ROI as its edges and its name only, so that nothing covers the CT inside it.

    ``colorRGB``: three values 0 … 1, None keeps the colour. ``interactive``: with handles to drag.
    """
    roiNode.CreateDefaultDisplayNodes()
    display = roiNode.GetDisplayNode()
    display.SetFillVisibility(False)
    display.SetOutlineVisibility(True)
    display.SetOutlineOpacity(1.0)
    display.SetHandlesInteractive(interactive)
    display.SetGlyphScale(1.0)
    display.SetTextScale(3.0)
    if colorRGB is not None:
        display.SetColor(*colorRGB)
        display.SetSelectedColor(*colorRGB)


def loadRoiNodes(scene: vtkMRMLScene, path: Path) -> list[vtkMRMLMarkupsROINode]:
    """All ROIs of a Slicer markups file (.mrk.json), shown as outlines; other markups in it are left out.

    The file may say LPS or RAS; the nodes are in RAS mm. Raises `BoxError` for a file that is missing, not a
    markups file, without an ROI, or with one that is no box; then the scene is as it was.
    """
    markups = _markups(path)
    rois = [index for index, markup in enumerate(markups) if markup.get("type") == "ROI"]
    if not rois:
        msg = f"{path} holds no ROI; in Slicer, draw a box with Markups > ROI and save it as .mrk.json."
        raise BoxError(msg)
    nodes: list[vtkMRMLMarkupsROINode] = []
    try:
        for index in rois:
            nodes.append(_loadOne(scene, path, index, markups[index]))
            boxFromRoi(nodes[-1])
    except BoxError as error:
        for node in nodes:
            _remove(scene, node)
        msg = f"{path}, markup {index + 1}: {error}"
        raise BoxError(msg) from error
    for node in nodes:
        showAsOutline(node)
    if len(markups) == 1:
        # Else saving the scene would write several boxes over each other into this file.
        nodes[0].GetStorageNode().SetFileName(str(path))
    return nodes


def _rightHanded(axes: np.ndarray) -> np.ndarray:
    return axes * [1, 1, -1] if np.linalg.det(axes) < 0 else axes


def _markups(path: Path) -> list[dict]:
    """What the file lists; an empty entry for what is no markup. Raises `BoxError`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        msg = f"{path} cannot be read ({error.strerror}); give a Slicer markups file (.mrk.json)."
        raise BoxError(msg) from error
    except ValueError as error:
        msg = f"{path} is not a Slicer markups file: {error}."
        raise BoxError(msg) from error
    markups = content.get("markups") if isinstance(content, dict) else None
    if not isinstance(markups, list):
        msg = f"{path} is not a Slicer markups file: it has no list 'markups'."
        raise BoxError(msg)
    return [markup if isinstance(markup, dict) else {} for markup in markups]


def _loadOne(scene: vtkMRMLScene, path: Path, index: int, markup: dict) -> vtkMRMLMarkupsROINode:
    coordinateSystem = markup.get("coordinateSystem", "LPS")
    if coordinateSystem not in _COORDINATE_SYSTEMS:
        msg = f"coordinateSystem is {coordinateSystem!r}; it must be LPS or RAS."
        raise BoxError(msg)
    if not markup.get("controlPoints"):
        msg = "this ROI has no control point, without which Slicer takes it for not drawn; add one at the centre."
        raise BoxError(msg)
    storage = scene.AddNewNodeByClass("vtkMRMLMarkupsROIJsonStorageNode")
    # The reader takes centre and orientation in the frame set here, before it looks at the frame in the file.
    storage.SetCoordinateSystem(_COORDINATE_SYSTEMS[coordinateSystem])
    node = storage.AddNewMarkupsNodeFromFile(str(path), None, index)
    if node is None:
        scene.RemoveNode(storage)
        msg = "this ROI cannot be read; open the file in Slicer and save it again."
        raise BoxError(msg)
    return node


def _remove(scene: vtkMRMLScene, node: vtkMRMLMarkupsROINode) -> None:
    for companion in (node.GetStorageNode(), node.GetDisplayNode()):
        scene.RemoveNode(companion)
    scene.RemoveNode(node)
