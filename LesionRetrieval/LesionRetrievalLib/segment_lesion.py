"""One segment of a segmentation as a lesion's box."""

from __future__ import annotations

import numpy as np
import slicer.util
from LesionClassifierLib.lesion_nodes import SEGMENTATION_ROLE, lesionNodes, markAsLesion, segmentOfLesion
from LesionClassifierLib.roi_nodes import addRoiNode
from LesionClassifierLib.segment_masks import segmentMasks
from LesionLib.errors import BoxError
from LesionLib.segments import boxes_from_label_array
from slicer import vtkMRMLMarkupsROINode, vtkMRMLSegmentationNode

_SEGMENT_ID = "LesionLens.SegmentID"


def lesionOfSegment(
    segmentationNode: vtkMRMLSegmentationNode, segmentId: str, *, marginMm: float = 2.0
) -> vtkMRMLMarkupsROINode:
    """The lesion made from a segment, ``marginMm`` larger on every side; one that is there already is moved, not doubled.

    Raises `BoxError` for a segment without a voxel.
    """
    mask = segmentMasks(segmentationNode).get(segmentId)
    if mask is None:
        msg = f"The segment of {segmentationNode.GetName()} holds no voxel; draw the lesion, or choose another segment."
        raise BoxError(msg)
    (found,) = boxes_from_label_array(mask.array.astype(np.int32), mask.ijkToRAS, {1: mask.name})
    box = found.grown(marginMm)
    for node in lesionNodes(segmentationNode.GetScene()):
        if segmentOfLesion(node) == (segmentationNode, segmentId):
            node.SetAndObserveTransformNodeID(None)
            node.SetAndObserveObjectToNodeMatrix(slicer.util.vtkMatrixFromArray(box.boxToRAS))
            node.SetSize(*box.sizeMm)
            return node
    node = markAsLesion(addRoiNode(segmentationNode.GetScene(), box))
    node.SetNodeReferenceID(SEGMENTATION_ROLE, segmentationNode.GetID())
    node.SetAttribute(_SEGMENT_ID, segmentId)
    return node
