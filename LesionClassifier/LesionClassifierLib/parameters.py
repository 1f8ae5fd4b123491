"""What the panel keeps in the scene: its parameter node."""

from __future__ import annotations

from typing import Annotated

from LesionLib.model.folder import DEFAULT_MODEL
from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.parameterNodeWrapper import Default, WithinRange, parameterNodeWrapper

from LesionClassifierLib.scene.lesions import DEFAULT_BOX_MM


@parameterNodeWrapper
class LesionClassifierParameterNode:
    """``boxSizeMm``: side of a box that one click makes. ``marginMm``: around a segment; a model that is chosen sets its own,
    the default is that of the model that comes along. ``answerAnyway``: show what the network computed without an answer.

    ``splitParts``: each part of a segment is a lesion of its own. ``redrawnBoxes``: boxes drawn a little differently that are
    asked too. ``device``: auto, cpu or cuda.
    """

    volume: vtkMRMLScalarVolumeNode
    segmentation: vtkMRMLSegmentationNode
    marginMm: Annotated[float, WithinRange(0.0, 50.0), Default(0.0)]
    model: Annotated[str, Default(DEFAULT_MODEL)]
    device: Annotated[str, Default("auto")]
    boxSizeMm: Annotated[float, WithinRange(2.0, 300.0), Default(DEFAULT_BOX_MM)]
    redrawnBoxes: Annotated[int, WithinRange(0, 32), Default(0)]
    heatOpacity: Annotated[float, WithinRange(0.0, 1.0), Default(0.5)]
    heatThreshold: Annotated[float, WithinRange(0.0, 1.0), Default(0.15)]
    showHeat: Annotated[bool, Default(True)]
    showSeen: Annotated[bool, Default(False)]
    colorSegments: Annotated[bool, Default(True)]
    answerAnyway: Annotated[bool, Default(False)]
    splitParts: Annotated[bool, Default(False)]
