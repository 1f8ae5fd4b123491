"""A segment instead of a box: which one, and the lesion made from it."""

from __future__ import annotations

from collections.abc import Callable

from LesionClassifierLib.scene.lesions import lesionOfSegment
from LesionLib.errors import LesionLensError
from LesionLib.model.folder import DEFAULT_MODEL
from slicer import vtkMRMLMarkupsROINode


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
        for index, segmentId in enumerate(ids):
            selector.addItem(segmentation.GetSegment(segmentId).GetName())
            selector.setItemData(index, segmentId)
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
