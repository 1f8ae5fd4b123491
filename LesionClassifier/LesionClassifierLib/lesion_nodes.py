"""The lesions of a scene: ROI nodes named L1, L2, …, drawn by hand or made from the segments of a segmentation."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import slicer.util
from LesionLib.errors import BoxError
from LesionLib.geometry import LesionBox
from LesionLib.segments import boxes_from_label_array
from slicer import vtkMRMLMarkupsROINode, vtkMRMLScene, vtkMRMLSegmentationNode

from .roi_nodes import addRoiNode, boxFromRoi
from .segment_masks import segmentMasks
from .volume_nodes import nodesOfClass

DEFAULT_BOX_MM = 20.0
SEGMENTATION_ROLE = "LesionLens.Segmentation"
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
        (box,) = boxes_from_label_array(mask.array.astype(np.int32), mask.ijkToRAS, {1: mask.name})
        boxes.append((segmentId, box.grown(marginMm)))
    if not boxes:
        msg = f"{segmentationNode.GetName()} has no segment with a voxel in it; draw or load a segmentation of the lesions."
        raise BoxError(msg)
    earlier = {_segmentOf(node): node for node in lesionNodes(scene)}
    return [_addOrMove(scene, segmentationNode, *found, earlier) for found in boxes]


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


def _addOrMove(scene, segmentationNode, segmentId: str, box: LesionBox, earlier: dict) -> vtkMRMLMarkupsROINode:
    node = earlier.get((segmentationNode.GetID(), segmentId))
    if node is None:
        node = markAsLesion(addRoiNode(scene, box))
        node.SetNodeReferenceID(SEGMENTATION_ROLE, segmentationNode.GetID())
        node.SetAttribute(_SEGMENT_ID, segmentId)
        return node
    node.SetAndObserveTransformNodeID(None)
    node.SetAndObserveObjectToNodeMatrix(slicer.util.vtkMatrixFromArray(box.boxToRAS))
    node.SetSize(*box.sizeMm)
    return node


def _segmentOf(roiNode: vtkMRMLMarkupsROINode) -> tuple[str | None, str | None]:
    return roiNode.GetNodeReferenceID(SEGMENTATION_ROLE), roiNode.GetAttribute(_SEGMENT_ID)
