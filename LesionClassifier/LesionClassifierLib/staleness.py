"""Whether an answer still belongs to what is in the scene: the box, the CT, or a transform may have changed since."""

from __future__ import annotations

from LesionLib.errors import LesionLensError
from slicer import vtkMRMLMarkupsROINode

from .result_nodes import VOLUME_ROLE, fingerprint, storedResult
from .roi_nodes import boxFromRoi
from .volume_nodes import volumeFromNode


def whyStale(roiNode: vtkMRMLMarkupsROINode) -> str:
    """Why the answer on a lesion's node no longer holds, in plain words; empty where it does, or where there is none."""
    stored = storedResult(roiNode)
    if stored is None:
        return ""
    volumeNode = roiNode.GetNodeReference(VOLUME_ROLE)
    if volumeNode is None:
        return "The CT of this answer is no longer in the scene."
    try:
        now = fingerprint(volumeFromNode(volumeNode), boxFromRoi(roiNode))
    except LesionLensError as error:
        return f"This answer cannot be checked any more: {error}"
    if now == stored.fingerprint:
        return ""
    return "The box, the CT or a transform has changed since this answer: classify again."
