"""A segment instead of a box: which one, and the lesion's box made of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import slicer.util
from LesionClassifierLib.scene.lesions import (
    SEGMENTATION_ROLE,
    addRoiNode,
    lesionNodes,
    markAsLesion,
    segmentMasks,
    segmentOfLesion,
)
from LesionLib.errors import BoxError, LesionLensError
from LesionLib.io.boxes import boxes_from_label_array
from LesionLib.model.folder import DEFAULT_MODEL, segment_margin_mm
from slicer import vtkMRMLMarkupsROINode, vtkMRMLSegmentationNode

_SEGMENT_ID = "LesionLens.SegmentID"


def lesionOfSegment(
    segmentationNode: vtkMRMLSegmentationNode,
    segmentId: str,
    *,
    marginMm: float | None = None,
    model: str = DEFAULT_MODEL,
) -> vtkMRMLMarkupsROINode:
    """The lesion made from a segment, ``marginMm`` larger on every side; one that is there already is moved, not doubled.

    ``marginMm`` None: what ``model`` was made for, as the cases of its libraries. Raises `BoxError` for a segment without a voxel.
    """
    mask = segmentMasks(segmentationNode).get(segmentId)
    if mask is None:
        msg = f"The segment of {segmentationNode.GetName()} holds no voxel; draw the lesion, or choose another segment."
        raise BoxError(msg)
    (found,) = boxes_from_label_array(mask.array.astype(np.int32), mask.ijkToRAS, {1: mask.name})
    box = found.grown(segment_margin_mm(model) if marginMm is None else marginMm)
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


class SegmentChoice:
    """``onLesion(roiNode)`` is called when the user has taken a segment."""

    def __init__(
        self, ui, *, onLesion: Callable[[vtkMRMLMarkupsROINode], None], onError: Callable[[str], None]
    ) -> None:
        self._ui, self._onLesion, self._onError = ui, onLesion, onError
        self._parameters = None
        self._filling = False
        ui.segmentSelector.connect("currentIndexChanged(int)", self._chosen)
        ui.takeSegmentButton.connect("clicked()", self._take)

    def setParameters(self, parameters) -> None:
        """Show the scene's parameters; None between two scenes."""
        self._parameters = parameters
        self.show()

    def show(self) -> None:
        """List the segments of the chosen segmentation."""
        node = None if self._parameters is None else self._parameters.segmentation
        segmentation = None if node is None else node.GetSegmentation()
        ids = [] if segmentation is None else list(segmentation.GetSegmentIDs())
        selector = self._ui.segmentSelector
        self._filling = True
        selector.clear()
        for place, segmentId in enumerate(ids):
            selector.addItem(segmentation.GetSegment(segmentId).GetName())
            selector.setItemData(place, segmentId)
        if ids and self._parameters.segmentId in ids:
            selector.setCurrentIndex(ids.index(self._parameters.segmentId))
        self._filling = False
        selector.enabled = self._ui.takeSegmentButton.enabled = bool(ids)

    def _chosen(self, index: int) -> None:
        if not self._filling and self._parameters is not None and index >= 0:
            self._parameters.segmentId = self._ui.segmentSelector.itemData(index)

    def _take(self) -> None:
        segmentId = self._ui.segmentSelector.itemData(self._ui.segmentSelector.currentIndex)
        try:
            model = self._parameters.model or DEFAULT_MODEL
            node = lesionOfSegment(self._parameters.segmentation, segmentId, model=model)
        except LesionLensError as error:
            self._onError(str(error))
            return
        self._onLesion(node)
