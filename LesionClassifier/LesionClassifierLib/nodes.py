"""The border between MRML and LesionLib: volumes, boxes, heat maps, tables and scenes, here under one name.

Every function takes the scene or the node it works on; none looks for a global one, so all of it works in Slicer and
without it. Coordinates are world RAS mm: linear parent transforms are applied on the way in, non-linear ones refused.
"""

from __future__ import annotations

from .heatmap_display import (
    HEAT_MAP_ATTRIBUTE,
    REFERENCE_VOLUME_ROLE,
    addHeatMapNode,
    heatColorNode,
    setLayers,
)
from .roi_nodes import addRoiNode, boxFromRoi, loadRoiNodes, showAsOutline
from .scene_tree import addResultsTableNode, placeResults, saveScene
from .volume_nodes import addVolumeNode, nodesOfClass, volumeFromNode, writeVolumeFile

__all__ = [
    "HEAT_MAP_ATTRIBUTE",
    "REFERENCE_VOLUME_ROLE",
    "addHeatMapNode",
    "addResultsTableNode",
    "addRoiNode",
    "addVolumeNode",
    "boxFromRoi",
    "heatColorNode",
    "loadRoiNodes",
    "nodesOfClass",
    "placeResults",
    "saveScene",
    "setLayers",
    "showAsOutline",
    "volumeFromNode",
    "writeVolumeFile",
]
