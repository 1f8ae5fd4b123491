"""What the retrieval panel keeps in the scene: its parameter node. Nothing in it tells whose CT it is."""

from __future__ import annotations

from typing import Annotated

from LesionLib.model.folder import DEFAULT_MODEL
from slicer import vtkMRMLMarkupsROINode, vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.parameterNodeWrapper import Default, WithinRange, parameterNodeWrapper


@parameterNodeWrapper
class LesionRetrievalParameterNode:
    """``scope``: all, same-patient or cross-patient. ``label`` and ``organ``: "" for any. ``device``: auto, cpu or cuda."""

    volume: vtkMRMLScalarVolumeNode
    lesion: vtkMRMLMarkupsROINode
    segmentation: vtkMRMLSegmentationNode
    segmentId: str
    model: Annotated[str, Default(DEFAULT_MODEL)]
    device: Annotated[str, Default("auto")]
    libraryPath: str
    scope: Annotated[str, Default("all")]
    label: str
    organ: str
    attributes: str
    leaveOutPatient: Annotated[bool, Default(True)]
    withPictures: Annotated[bool, Default(False)]
    withPatch: Annotated[bool, Default(False)]
    heatOpacity: Annotated[float, WithinRange(0.0, 1.0), Default(0.5)]
