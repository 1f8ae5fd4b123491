"""The lesions of a scene: ROI nodes named L1, L2, …, drawn by hand or made from the segments of a segmentation.

An ROI node becomes a `LesionBox` and back, and is read from Slicer's .mrk.json files. The segments of a segmentation node
become masks, each on the smallest lattice that holds it, and masks become segments.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import slicer
from LesionLib.errors import BoxError, InputWarning
from LesionLib.geometry import CTVolume, LesionBox, transformed_points
from LesionLib.io.boxes import boxes_from_label_array
from LesionLib.io.segmentations import split_parts
from LesionLib.model.folder import DEFAULT_MODEL, segment_margin_mm
from slicer import vtkMRMLMarkupsROINode, vtkMRMLScene, vtkMRMLSegmentationNode, vtkMRMLStorageNode
from vtkmodules.util.numpy_support import numpy_to_vtk, vtk_to_numpy
from vtkmodules.vtkCommonDataModel import vtkImageData
from vtkmodules.vtkCommonMath import vtkMatrix4x4

from LesionClassifierLib.scene.volumes import arrayFromMatrix, matrixFromArray, nodesOfClass, parentToWorld

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
    boxToRAS = parentToWorld(roiNode, BoxError) @ arrayFromMatrix(roiNode.GetObjectToNodeMatrix())
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
    node.SetAndObserveObjectToNodeMatrix(matrixFromArray(boxToRAS))
    node.SetSize(*box.sizeMm)
    # Setting the size has rounded the centre to single precision, by way of the control point.
    node.GetObjectToNodeMatrix().DeepCopy(matrixFromArray(boxToRAS))
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


def boxColor(roiNode: vtkMRMLMarkupsROINode) -> tuple[float, float, float]:
    """The colour that the box is drawn in, 0 … 1."""
    return tuple(roiNode.GetDisplayNode().GetSelectedColor())


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


def statesFrame(path: Path) -> bool:
    """Whether every ROI of a markups file says whether its numbers are LPS or RAS; LPS is taken where not. `BoxError`."""
    return all("coordinateSystem" in markup for markup in _markups(path) if markup.get("type") == "ROI")


def _rightHanded(axes: np.ndarray) -> np.ndarray:
    return axes * [1, 1, -1] if np.linalg.det(axes) < 0 else axes


def _markups(path: Path) -> list[dict]:
    """What the file lists; an empty entry for what is no markup. Raises `BoxError`."""
    try:
        str(path).encode("utf-8")
        raw = path.read_bytes()
        if raw[:2] in (b"\xff\xfe", b"\xfe\xff") or raw[:3] == b"\xef\xbb\xbf":
            msg = f"{path} is in another encoding than Slicer's; save it as UTF-8 without a byte order mark."
            raise BoxError(msg)
        content = json.loads(raw.decode("utf-8"))
    except UnicodeEncodeError as error:
        msg = f"{path.name!r}: the name of the file is not UTF-8 text; rename it."
        raise BoxError(msg) from error
    except BoxError:
        raise
    except RecursionError as error:
        msg = f"{path} is not a Slicer markups file: it is nested too deeply."
        raise BoxError(msg) from error
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


def checkedFrame(markup: Mapping[str, Any]) -> str:
    """LPS or RAS: the frame of an ROI in a markups file. `BoxError` for another one, and for an ROI that is not drawn."""
    frame = markup.get("coordinateSystem", "LPS")
    if not isinstance(frame, str) or frame not in _COORDINATE_SYSTEMS:
        msg = f"coordinateSystem is {frame!r}; it must be LPS or RAS."
        raise BoxError(msg)
    _requireOneMeaning(markup)
    if not markup.get("controlPoints"):
        msg = "this ROI has no control point, without which Slicer takes it for not drawn; add one at the centre."
        raise BoxError(msg)
    return frame


def _loadOne(scene: vtkMRMLScene, path: Path, index: int, markup: dict) -> vtkMRMLMarkupsROINode:
    coordinateSystem = checkedFrame(markup)
    storage = scene.AddNewNodeByClass("vtkMRMLMarkupsROIJsonStorageNode")
    # The reader takes centre and orientation in the frame set here, before it looks at the frame in the file.
    storage.SetCoordinateSystem(_COORDINATE_SYSTEMS[coordinateSystem])
    node = storage.AddNewMarkupsNodeFromFile(str(path), None, index)
    if node is None:
        scene.RemoveNode(storage)
        msg = "this ROI cannot be read; open the file in Slicer and save it again."
        raise BoxError(msg)
    return node


_SAME_MM = 0.1
_ROI_TYPES = ("Box", None)


def _requireOneMeaning(markup: dict) -> None:
    """Refuse what Slicer would read otherwise than the file says it (`BoxError`)."""
    units = markup.get("coordinateUnits", "mm")
    if units not in ("mm", ["mm", "UCUM", "millimeter"], ""):
        msg = f"coordinateUnits is {units!r}; only mm are read. Save it again from Slicer."
        raise BoxError(msg)
    if markup.get("roiType") not in _ROI_TYPES:
        msg = f"this ROI is a {markup['roiType']!r}; draw a box (roiType Box)."
        raise BoxError(msg)
    orientation = _numbersOf(markup.get("orientation"), 9)
    if orientation is not None:
        axes = orientation.reshape(3, 3)
        lengths = np.linalg.norm(axes, axis=0)
        # Axes that are not at right angles are told as such below.
        are_square = (
            lengths.min() < 1e-9 or np.abs(axes.T @ axes - np.diag(lengths**2)).max() < 1e-3 * lengths.max() ** 2
        )
        if are_square and (lengths.min() < 1e-9 or np.abs(lengths - 1).max() > 1e-3):
            msg = f"its orientation scales by {', '.join(f'{v:g}' for v in lengths)}; axes have length 1, sizes go into 'size'."
            raise BoxError(msg)
    center, points = _numbersOf(markup.get("center"), 3), markup.get("controlPoints")
    point = points[0] if isinstance(points, list) and points and isinstance(points[0], dict) else {}
    position = _numbersOf(point.get("position"), 3)
    if center is not None and position is not None and np.linalg.norm(center - position) > _SAME_MM:
        msg = (
            f"its center is {center.tolist()} and its control point {position.tolist()}, {np.linalg.norm(center - position):.1f} "
            "mm from it; Slicer takes the control point. Make both the same."
        )
        raise BoxError(msg)


def _numbersOf(value: object, count: int) -> np.ndarray | None:
    """So many finite numbers; None for anything else, of which the reader says what is wrong."""
    try:
        numbers = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        return None
    return numbers if numbers.shape == (count,) and np.isfinite(numbers).all() else None


def _remove(scene: vtkMRMLScene, node: vtkMRMLMarkupsROINode) -> None:
    for companion in (node.GetStorageNode(), node.GetDisplayNode()):
        scene.RemoveNode(companion)
    scene.RemoveNode(node)


def segmentMasks(segmentationNode: vtkMRMLSegmentationNode) -> dict[str, CTVolume]:
    """Every segment that holds a voxel, by its ID, as 0 and 1 in world RAS mm, named as the segment.

    Slicer keeps many segments in one label map: each is walked through once, so that fifty segments stay usable.
    Raises `BoxError` for segments that cannot be made voxels, or under a non-linear transform.
    """
    toWorld = parentToWorld(segmentationNode, BoxError)
    segmentation = segmentationNode.GetSegmentation()
    representation = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
    if segmentation.GetNumberOfSegments() and not segmentation.CreateRepresentation(representation):
        msg = (
            f"{segmentationNode.GetName()}: its segments cannot be turned into voxels; create a binary label map first."
        )
        raise BoxError(msg)
    layers: dict[int, tuple[vtkImageData, dict[int, str]]] = {}
    for segmentId in segmentation.GetSegmentIDs():
        segment = segmentation.GetSegment(segmentId)
        image = segment.GetRepresentation(representation)
        layers.setdefault(id(image), (image, {}))[1][segment.GetLabelValue()] = segmentId
    found = {}
    for image, idOfLabel in layers.values():
        found.update(_masksOfLayer(image, idOfLabel, toWorld))
    names = {segmentId: segmentation.GetSegment(segmentId).GetName() for segmentId in segmentation.GetSegmentIDs()}
    return {i: CTVolume(*found[i], names[i]) for i in names if i in found}


def _masksOfLayer(
    image: vtkImageData, idOfLabel: dict[int, str], toWorld: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    scalars = image.GetPointData().GetScalars()
    if scalars is None or scalars.GetNumberOfTuples() == 0:
        return {}
    labels = vtk_to_numpy(scalars).reshape(image.GetDimensions()[::-1])
    matrix = vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    ijkToRAS = toWorld @ arrayFromMatrix(matrix)
    origin = np.array(image.GetExtent()[::2])
    from scipy import ndimage  # not when Slicer starts

    masks = {}
    for label, slices in enumerate(ndimage.find_objects(labels, max_label=max(idOfLabel)), start=1):
        if slices is None or label not in idOfLabel:
            continue
        cropToRAS = ijkToRAS.copy()
        cropToRAS[:3, 3] = transformed_points(ijkToRAS, origin + [s.start for s in reversed(slices)])
        masks[idOfLabel[label]] = ((labels[slices] == label).astype(np.uint8), cropToRAS)
    return masks


def addSegmentationNode(scene: vtkMRMLScene, masks: Sequence[CTVolume], *, name: str) -> vtkMRMLSegmentationNode:
    """A segmentation with one segment a mask (0 and 1, world RAS mm), named as the mask; segments may overlap."""
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    _fillSegmentation(node, masks)
    return node


def segmentationOfParts(
    segmentationNode: vtkMRMLSegmentationNode,
) -> tuple[vtkMRMLSegmentationNode, tuple[InputWarning, ...]]:
    """A segmentation whose segments are in one piece each: a segment in three parts becomes three; and what was left out.

    The given one where its segments are so already, else another one beside it, which is filled anew at the next time; the given
    one stays as it is, hidden. Raises `BoxError`.
    """
    masks = segmentMasks(segmentationNode)
    parts, warnings = split_parts(masks.values())
    if len(parts) == len(masks) and not warnings:
        return segmentationNode, ()
    scene, whole = segmentationNode.GetScene(), segmentationNode.GetID()
    earlier = [
        node for node in nodesOfClass(scene, "vtkMRMLSegmentationNode") if node.GetNodeReferenceID(_WHOLE_ROLE) == whole
    ]
    if earlier:
        _fillSegmentation(earlier[0], parts)
    else:
        earlier = [addSegmentationNode(scene, parts, name=f"{segmentationNode.GetName()} (parts)")]
        earlier[0].SetNodeReferenceID(_WHOLE_ROLE, whole)
    if segmentationNode.GetDisplayNode() is not None:
        segmentationNode.GetDisplayNode().SetVisibility(False)
    return earlier[0], warnings


def _fillSegmentation(node: vtkMRMLSegmentationNode, masks: Sequence[CTVolume]) -> None:
    """Put one segment a mask in place of what the node has; the same number has the same ID each time."""
    segmentation = node.GetSegmentation()
    for segmentId in segmentation.GetSegmentIDs():
        segmentation.RemoveSegment(segmentId)
    representation = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
    segmentation.SetSourceRepresentationName(representation)
    for number, mask in enumerate(masks, start=1):
        image = slicer.vtkOrientedImageData()
        image.SetDimensions(*mask.sizeIJK)
        image.SetImageToWorldMatrix(matrixFromArray(mask.ijkToRAS))
        scalars = numpy_to_vtk(mask.array.astype(np.uint8).ravel(), deep=True)
        image.GetPointData().SetScalars(scalars)
        segment = slicer.vtkSegment()
        segment.SetName(mask.name)
        segment.AddRepresentation(representation, image)
        segmentation.AddSegment(segment, f"Segment_{number}")
    segmentation.CollapseBinaryLabelmaps(False)


DEFAULT_BOX_MM = 20.0
SEGMENTATION_ROLE = "LesionLens.Segmentation"
_WHOLE_ROLE = "LesionLens.WholeSegments"  # of a segmentation of parts: the one that they are parts of
_LESION, _SEGMENT_ID = "LesionLens.IsLesion", "LesionLens.SegmentID"
_AUTOMATIC_NAME = re.compile(r"L(\d+)")
_ROI_CLASS = "vtkMRMLMarkupsROINode"

Progress = Callable[[int, int, str], None]


def lesionNodes(scene: vtkMRMLScene) -> list[vtkMRMLMarkupsROINode]:
    """The ROIs that are lesions, in scene order; other ROIs (of cropping, of volume rendering) are none."""
    return [node for node in nodesOfClass(scene, _ROI_CLASS) if node.GetAttribute(_LESION)]


def nextLesionName(scene: vtkMRMLScene) -> str:
    """L1, L2, …: one more than the highest there is, so that a name is never given twice."""
    numbers = [_AUTOMATIC_NAME.fullmatch(node.GetName() or "") for node in nodesOfClass(scene, _ROI_CLASS)]
    return f"L{1 + max((int(found.group(1)) for found in numbers if found), default=0)}"


def markAsLesion(roiNode: vtkMRMLMarkupsROINode) -> vtkMRMLMarkupsROINode:
    """Make any ROI a lesion of this module."""
    roiNode.SetAttribute(_LESION, "1")
    return roiNode


def addLesionAt(scene: vtkMRMLScene, centerRAS: Sequence[float], *, sizeMm: float) -> vtkMRMLMarkupsROINode:
    """A new lesion: a cube of ``sizeMm`` a side around a point in world RAS mm, with handles to fit it by."""
    box = LesionBox(np.asarray(centerRAS, dtype=float), np.full(3, float(sizeMm)), name=nextLesionName(scene))
    scene.SaveStateForUndo()
    return markAsLesion(addRoiNode(scene, box, interactive=True))


def isDrawn(roiNode: vtkMRMLMarkupsROINode) -> bool:
    """Whether the box has a size; one that was begun in another module and given up has none."""
    return any(roiNode.GetSize())


def addLesionsFromSegmentation(
    scene: vtkMRMLScene,
    segmentationNode: vtkMRMLSegmentationNode,
    *,
    marginMm: float = 0.0,
    progress: Progress | None = None,
) -> list[vtkMRMLMarkupsROINode]:
    """One lesion a segment, its box grown by ``marginMm`` a side; an earlier lesion of the same segment is moved, not doubled.

    Empty segments are passed over. Raises `BoxError` where no segment holds a voxel; then the scene is as it was.
    """
    masks = segmentMasks(segmentationNode)
    boxes = []
    for done, (segmentId, mask) in enumerate(masks.items()):
        if progress is not None:
            progress(done, len(masks), mask.name)
        boxes.append((segmentId, _boxAround(mask, marginMm)))
    if not boxes:
        msg = f"{segmentationNode.GetName()} has no segment with a voxel in it; draw or load a segmentation of the lesions."
        raise BoxError(msg)
    earlier = _lesionsBySegment(scene)
    return [_addOrMove(scene, segmentationNode, *found, earlier) for found in boxes]


def lesionOfSegment(
    segmentationNode: vtkMRMLSegmentationNode,
    segmentId: str,
    *,
    marginMm: float | None = None,
    model: str = DEFAULT_MODEL,
) -> vtkMRMLMarkupsROINode:
    """The lesion made from one segment, ``marginMm`` larger on every side; one that is there already is moved, not doubled.

    ``marginMm`` None: what ``model`` was made for, as the cases of its libraries. Raises `BoxError` for a segment without a voxel.
    """
    mask = segmentMasks(segmentationNode).get(segmentId)
    if mask is None:
        msg = f"The segment of {segmentationNode.GetName()} holds no voxel; draw the lesion, or choose another segment."
        raise BoxError(msg)
    scene = segmentationNode.GetScene()
    box = _boxAround(mask, segment_margin_mm(model) if marginMm is None else marginMm)
    return _addOrMove(scene, segmentationNode, segmentId, box, _lesionsBySegment(scene))


def lesionsFromNodes(roiNodes: Sequence[vtkMRMLMarkupsROINode]) -> list[LesionBox]:
    """The lesions' boxes in world RAS mm, each with the mask of its segment where it was made from one. Raises `BoxError`."""
    sources = [segmentOfLesion(node) for node in roiNodes]
    segmentations = {node.GetID(): node for node, _ in sources if node is not None}
    masks = {nodeId: segmentMasks(node) for nodeId, node in segmentations.items()}
    return [
        replace(boxFromRoi(roiNode), segment=masks[node.GetID()].get(segmentId) if node is not None else None)
        for roiNode, (node, segmentId) in zip(roiNodes, sources, strict=True)
    ]


def segmentOfLesion(roiNode: vtkMRMLMarkupsROINode) -> tuple[vtkMRMLSegmentationNode | None, str]:
    """Where a lesion comes from; (None, "") for one drawn by hand, or when the segment is gone."""
    segmentationNode = roiNode.GetNodeReference(SEGMENTATION_ROLE)
    segmentId = roiNode.GetAttribute(_SEGMENT_ID) or ""
    if segmentationNode is None or segmentationNode.GetSegmentation().GetSegment(segmentId) is None:
        return None, ""
    return segmentationNode, segmentId


def jumpToLesion(roiNode: vtkMRMLMarkupsROINode) -> None:
    """Centre all slice views on the lesion."""
    center = boxFromRoi(roiNode).centerRAS
    for sliceNode in nodesOfClass(roiNode.GetScene(), "vtkMRMLSliceNode"):
        sliceNode.JumpSliceByCentering(*center)


def _boxAround(mask: CTVolume, marginMm: float) -> LesionBox:
    (box,) = boxes_from_label_array(mask.array.astype(np.int32), mask.ijkToRAS, {1: mask.name})
    return box.grown(marginMm)


def _addOrMove(scene, segmentationNode, segmentId: str, box: LesionBox, earlier: dict) -> vtkMRMLMarkupsROINode:
    node = earlier.get((segmentationNode.GetID(), segmentId))
    if node is None:
        node = markAsLesion(addRoiNode(scene, box))
        node.SetNodeReferenceID(SEGMENTATION_ROLE, segmentationNode.GetID())
        node.SetAttribute(_SEGMENT_ID, segmentId)
        return node
    node.SetAndObserveTransformNodeID(None)
    node.SetAndObserveObjectToNodeMatrix(matrixFromArray(box.boxToRAS))
    node.SetSize(*box.sizeMm)
    return node


def _lesionsBySegment(scene: vtkMRMLScene) -> dict[tuple[str | None, str | None], vtkMRMLMarkupsROINode]:
    """By the ID of its segmentation and that of its segment."""
    return {
        (node.GetNodeReferenceID(SEGMENTATION_ROLE), node.GetAttribute(_SEGMENT_ID)): node
        for node in lesionNodes(scene)
    }
