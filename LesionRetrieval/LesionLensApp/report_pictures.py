"""The pictures of the report: each lesion in three planes by Slicer's own slice views, without and with its heat map."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from LesionLib.results import LesionResult
from PIL import Image
from slicer import vtkMRMLMarkupsROINode, vtkMRMLScalarVolumeNode

from .sliceviews import SliceRenderer

PLANES = ("Axial", "Coronal", "Sagittal")
_SURROUNDINGS_MM = 30.0


@dataclass(frozen=True)
class PlanePicture:
    """One plane through the centre of a box, twice: the CT with the box, and the same under its heat map (data URIs)."""

    plane: str
    plain: str
    explained: str


def lesion_pictures(
    renderer: SliceRenderer,
    volumeNode: vtkMRMLScalarVolumeNode,
    roiNode: vtkMRMLMarkupsROINode,
    heatMapNode: vtkMRMLScalarVolumeNode | None,
    result: LesionResult,
) -> list[PlanePicture]:
    """Three planes, each wide enough for the box and 30 mm around it."""
    fieldOfViewMm = float(np.ptp(result.box.cornersRAS, axis=0).max()) + _SURROUNDINGS_MM
    pictures = []
    for plane in PLANES:
        plain, explained = (
            renderer.render(
                plane,
                centerRAS=result.box.centerRAS,
                fieldOfViewMm=fieldOfViewMm,
                volumeNode=volumeNode,
                heatMapNode=heatMap,
                visibleRois=[roiNode],
            )
            for heatMap in (None, heatMapNode)
        )
        pictures.append(PlanePicture(plane, png_data_uri(plain), png_data_uri(explained)))
    return pictures


def png_data_uri(pixels: np.ndarray) -> str:
    """A uint8 picture, grey (h, w) or colour (h, w, 3), as a PNG inside a data URI."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
