"""Whether an answer still belongs to what is in the scene: the box, the CT, or a transform may have changed since."""

from __future__ import annotations

from LesionLib.errors import LesionLensError
from LesionLib.geometry import CTVolume
from slicer import vtkMRMLMarkupsROINode, vtkMRMLScalarVolumeNode

from .result_nodes import VOLUME_ROLE, fingerprint, storedResult, voxelChecksum
from .roi_nodes import boxFromRoi
from .translation import tr as _
from .volume_nodes import volumeFromNode

_MOST_KEPT = 50
_checksums: dict[int, int] = {}  # when an image was modified (VTK counts for all objects together) -> its checksum


def whyStale(roiNode: vtkMRMLMarkupsROINode) -> str:
    """Why the answer on a lesion's node no longer holds, in plain words; empty where it does, or where there is none."""
    stored = storedResult(roiNode)
    if stored is None:
        return ""
    volumeNode = roiNode.GetNodeReference(VOLUME_ROLE)
    if volumeNode is None:
        return _("The CT of this answer is no longer in the scene.")
    try:
        volume = volumeFromNode(volumeNode)
        now = fingerprint(volume, boxFromRoi(roiNode), voxels=_voxels(volumeNode, volume))
    except LesionLensError as error:
        return _("This answer cannot be checked any more: {0}").format(error)
    if now == stored.fingerprint:
        return ""
    return _("The box, the CT or a transform has changed since this answer: classify again.")


def _voxels(volumeNode: vtkMRMLScalarVolumeNode, volume: CTVolume) -> int:
    """The checksum is taken once for each state of an image: fifty lesions on one CT are checked at every change."""
    image = volumeNode.GetImageData()
    changed = max(image.GetMTime(), image.GetPointData().GetScalars().GetMTime())
    if changed not in _checksums:
        if len(_checksums) >= _MOST_KEPT:
            _checksums.clear()
        _checksums[changed] = voxelChecksum(volume)
    return _checksums[changed]
