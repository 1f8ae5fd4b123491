"""Slicer's three slice views as nodes of a scene: where they look when the scene is opened there. Draws nothing."""

from __future__ import annotations

import numpy as np
from LesionClassifierLib.headless import HeadlessSlicer
from slicer import vtkMRMLSliceLogic, vtkMRMLSliceNode

# Slicer's names for its three slice views, so that a saved scene opens there as it was drawn here.
LAYOUT_NAMES = {"Axial": "Red", "Sagittal": "Yellow", "Coronal": "Green"}
_LAYOUT_COLORS = {"Red": (0.953, 0.290, 0.200), "Yellow": (0.929, 0.835, 0.298), "Green": (0.431, 0.690, 0.294)}
_SLICE_THICKNESS_MM = 1.0


def placeSlices(
    headless: HeadlessSlicer, *, centerRAS: np.ndarray, fieldOfViewMm: float, size: tuple[int, int] = (480, 480)
) -> None:
    """Put ``centerRAS`` (RAS mm) into the middle of Slicer's three slice views, for a scene that is to open there. Draws nothing."""
    for orientation, layoutName in LAYOUT_NAMES.items():
        logic = sliceLogic(headless, layoutName)
        placeSlice(logic.GetSliceNode(), orientation, size, centerRAS, fieldOfViewMm)
        releaseSliceLogic(headless, logic)


def placeSlice(
    node: vtkMRMLSliceNode, orientation: str, size: tuple[int, int], centerRAS: np.ndarray, fieldOfViewMm: float
) -> None:
    """Put ``centerRAS`` (RAS mm) into the middle of a view of ``size`` (pixels); its shorter side shows ``fieldOfViewMm``."""
    width, height = size
    mmPerPixel = fieldOfViewMm / min(width, height)
    node.SetOrientation(orientation)
    node.SetDimensions(width, height, 1)
    node.SetFieldOfView(width * mmPerPixel, height * mmPerPixel, _SLICE_THICKNESS_MM)
    node.JumpSliceByCentering(*(float(value) for value in centerRAS))
    node.UpdateMatrices()


def releaseSliceLogic(headless: HeadlessSlicer, logic: vtkMRMLSliceLogic) -> None:
    """Let go of a logic of `sliceLogic`; its node stays in the scene."""
    headless.applicationLogic.GetSliceLogics().RemoveItem(logic)
    logic.SetMRMLScene(None)


def sliceLogic(headless: HeadlessSlicer, layoutName: str) -> vtkMRMLSliceLogic:
    """The logic of a slice view of the scene, with the node of that name, made as Slicer makes its own if need be."""
    logic = vtkMRMLSliceLogic()
    logic.SetMRMLApplicationLogic(headless.applicationLogic)
    headless.applicationLogic.GetSliceLogics().AddItem(logic)
    logic.SetMRMLScene(headless.scene)
    existing = headless.scene.GetSingletonNode(layoutName, "vtkMRMLSliceNode")
    if existing is not None:
        logic.SetSliceNode(existing)
    else:
        sliceNode = logic.AddSliceNode(layoutName)
        if layoutName in _LAYOUT_COLORS:  # as Slicer's own, whose place it takes where the scene is opened
            sliceNode.SetLayoutLabel(layoutName[0])
            sliceNode.SetLayoutColor(*_LAYOUT_COLORS[layoutName])
    return logic
