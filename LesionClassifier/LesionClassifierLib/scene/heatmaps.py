"""How heat maps look: one colour ramp per scene, a fixed window, what is faint transparent, layers over the CT."""

from __future__ import annotations

import numpy as np
from LesionLib.errors import VolumeError
from slicer import (
    vtkMRMLProceduralColorNode,
    vtkMRMLScalarVolumeNode,
    vtkMRMLScene,
    vtkMRMLSliceCompositeNode,
    vtkMRMLVolumeNode,
)

from LesionClassifierLib.scene.volumes import HEAT_MAP_ATTRIBUTE, addScalarVolume, nodesOfClass

HELD_ATTRIBUTE = "LesionLens.HeldBy"
REFERENCE_VOLUME_ROLE = "referenceVolume"
MAP_THRESHOLD, MAP_OPACITY = 0.15, 0.5  # below it a map is transparent; the rest lies over the CT this strongly

_RAMP_ATTRIBUTE = "LesionLens.ColorRamp"
# Inferno (van der Walt and Smith, CC0): evenly growing lightness, readable in grey and by the colour-blind.
HEAT_RAMP = (
    (0.0, 0.001, 0.0, 0.014),
    (0.125, 0.129, 0.047, 0.291),
    (0.25, 0.342, 0.062, 0.429),
    (0.375, 0.541, 0.135, 0.415),
    (0.5, 0.736, 0.216, 0.33),
    (0.625, 0.894, 0.353, 0.194),
    (0.75, 0.978, 0.558, 0.035),
    (0.875, 0.975, 0.798, 0.206),
    (1.0, 0.988, 0.998, 0.645),
)
_SLICE_VIEWS = ("Red", "Green", "Yellow")


def addHeatMapNode(
    scene: vtkMRMLScene,
    array: np.ndarray,
    ijkToRAS: np.ndarray,
    *,
    name: str,
    referenceVolumeNode: vtkMRMLVolumeNode | None = None,
    threshold: float = MAP_THRESHOLD,
) -> vtkMRMLScalarVolumeNode:
    """A heat map as a float32 volume of its own that lies over the CT.

    ``array``: shape (k, j, i), 0 … 1. ``ijkToRAS``: 4x4 to world RAS mm. Below ``threshold`` the map is transparent.
    The node carries the attribute ``LesionLens.HeatMap`` and, in the role ``referenceVolume``, a reference to the
    CT it was made from. Raises `VolumeError` where the array is not 3-D or leaves 0 … 1.
    """
    _requireFractions(array, name)
    node = addScalarVolume(scene, np.clip(array, 0, 1).astype(np.float32), ijkToRAS, name=name)
    node.SetAttribute(HEAT_MAP_ATTRIBUTE, "1")
    if referenceVolumeNode is not None:
        node.SetNodeReferenceID(REFERENCE_VOLUME_ROLE, referenceVolumeNode.GetID())
    display = node.GetDisplayNode()
    display.SetAndObserveColorNodeID(heatColorNode(scene).GetID())
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(0.0, 1.0)
    display.AutoThresholdOff()
    display.SetThreshold(threshold, 1.0)
    display.ApplyThresholdOn()
    return node


def heatColorNode(scene: vtkMRMLScene) -> vtkMRMLProceduralColorNode:
    """The colour ramp that all heat maps of a scene share; made at the first call, saved with the scene."""
    for node in nodesOfClass(scene, "vtkMRMLProceduralColorNode"):
        if node.GetAttribute(_RAMP_ATTRIBUTE):
            return node
    node = scene.AddNewNodeByClass("vtkMRMLProceduralColorNode", "LesionLens heat")
    node.SetTypeToUser()
    node.SetAttribute(_RAMP_ATTRIBUTE, "heat")
    node.SetAttribute("Category", "LesionLens")  # the heading under which Slicer's colour menus list it
    for position, red, green, blue in HEAT_RAMP:
        node.GetColorTransferFunction().AddRGBPoint(position, red, green, blue)
    return node


def setLayers(
    scene: vtkMRMLScene,
    *,
    background: vtkMRMLVolumeNode,
    foreground: vtkMRMLVolumeNode | None = None,
    opacity: float = MAP_OPACITY,
    holder: str = "",
) -> None:
    """Show ``foreground`` over ``background`` in every slice view of the scene (``opacity`` 0 … 1).

    Views that a comparison or a quiz holds (``HELD_ATTRIBUTE``) are left alone, but for that of ``holder`` itself.
    A scene without views gets the settings of Slicer's three slice views, so that it opens in Slicer like this.
    """
    composites = nodesOfClass(scene, "vtkMRMLSliceCompositeNode") or [
        _addSliceComposite(scene, layoutName) for layoutName in _SLICE_VIEWS
    ]
    for composite in composites:
        if composite.GetAttribute(HELD_ATTRIBUTE) not in (None, "", holder):
            continue
        composite.SetBackgroundVolumeID(background.GetID())
        composite.SetForegroundVolumeID(foreground.GetID() if foreground is not None else None)
        composite.SetForegroundOpacity(opacity)


def _addSliceComposite(scene: vtkMRMLScene, layoutName: str) -> vtkMRMLSliceCompositeNode:
    node = vtkMRMLSliceCompositeNode()
    node.SetLayoutName(layoutName)
    return scene.AddNode(node)


def _requireFractions(array: np.ndarray, name: str) -> None:
    if array.ndim != 3 or array.size == 0:
        msg = f"{name}: a heat map is a 3-D array, not one of shape {array.shape}."
        raise VolumeError(msg)
    low, high = float(array.min()), float(array.max())
    # Written so that NaN fails too.
    if not (low > -1e-3 and high < 1 + 1e-3):
        msg = f"{name}: the heat map runs from {low:g} to {high:g}; scale it to 0 ... 1."
        raise VolumeError(msg)
