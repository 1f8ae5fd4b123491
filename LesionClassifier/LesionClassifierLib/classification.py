"""Classify the boxes of a scene and explain the answers: what the button, the command line and a script share.

An answer is explained by the heat map of a lesion over its CT, and by the part of the CT that the model looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from LesionLib.errors import BoxError
from LesionLib.geometry import require_overlap
from LesionLib.inference.messages import RunOptions, RunRequest, RunResponse
from LesionLib.inference.results import color_by_class
from LesionLib.inference.runner import InferenceRunner
from slicer import vtkMRMLMarkupsROINode, vtkMRMLScalarVolumeNode, vtkMRMLScene

from LesionClassifierLib.scene.heatmaps import setLayers
from LesionClassifierLib.scene.lesions import addRoiNode, lesionsFromNodes
from LesionClassifierLib.scene.results import (
    HEAT_MAP_ROLE,
    VOLUME_ROLE,
    ShownResults,
    layFirstMap,
    showResults,
    storedResult,
)
from LesionClassifierLib.scene.volumes import nodesOfClass, volumeFromNode

Progress = Callable[[int, int, str], None]


def requestFromNodes(
    volumeNode: vtkMRMLScalarVolumeNode,
    roiNodes: Sequence[vtkMRMLMarkupsROINode],
    model: str | Path,
    options: RunOptions | None = None,
) -> RunRequest:
    """What a runner is asked. Every box is checked against the CT; changes nothing. Raises `VolumeError` or `BoxError`."""
    if not roiNodes:
        msg = "there is no box to classify; place one around a lesion, or take the segments of a segmentation."
        raise BoxError(msg)
    volume, boxes = volumeFromNode(volumeNode), lesionsFromNodes(roiNodes)
    for box in boxes:
        require_overlap(volume, box)
    return RunRequest(str(model), volume, boxes, options or RunOptions())


def classifyNodes(
    runner: InferenceRunner,
    volumeNode: vtkMRMLScalarVolumeNode,
    roiNodes: Sequence[vtkMRMLMarkupsROINode],
    model: str | Path,
    options: RunOptions | None = None,
    *,
    progress: Progress | None = None,
) -> tuple[RunResponse, ShownResults]:
    """Ask a runner and show what it says; waits for the answer. Raises what `InferenceRunner.run` raises."""
    request = requestFromNodes(volumeNode, roiNodes, model, options)
    response = runner.run(request, progress=progress)
    return response, showResponse(volumeNode, roiNodes, request, response)


def showResponse(
    volumeNode: vtkMRMLScalarVolumeNode,
    roiNodes: Sequence[vtkMRMLMarkupsROINode],
    request: RunRequest,
    response: RunResponse,
    *,
    colorSegments: bool = True,
    laysViews: bool = True,
) -> ShownResults:
    """Show the answer to ``request`` on the nodes it was made from; ``laysViews``: in the slice views too."""
    shown = showResults(
        volumeNode.GetScene(),
        volumeNode,
        roiNodes,
        response.results,
        volume=request.volume,
        run=response.info,
        classColors=color_by_class(response),
        colorSegments=colorSegments,
    )
    if laysViews:
        layFirstMap(volumeNode, shown)
    return shown


_MODEL_INPUT = "LesionLens.Seen"
_MODEL_INPUT_COLOR = (0.75, 0.75, 0.75)


def heatMapNode(roiNode: vtkMRMLMarkupsROINode) -> vtkMRMLScalarVolumeNode | None:
    """The lesion's heat map; None where there is none."""
    return roiNode.GetNodeReference(HEAT_MAP_ROLE)


def showHeatMap(roiNode: vtkMRMLMarkupsROINode, *, opacity: float, threshold: float, isShown: bool = True) -> None:
    """Lay the lesion's heat map over its CT in all slice views, transparent below ``threshold``; or take it off."""
    volumeNode, heatNode = roiNode.GetNodeReference(VOLUME_ROLE), heatMapNode(roiNode)
    if volumeNode is None:
        return
    if heatNode is not None:
        display = heatNode.GetDisplayNode()
        display.SetThreshold(threshold, 1.0)
        display.ApplyThresholdOn()
    foreground = heatNode if isShown else None
    setLayers(roiNode.GetScene(), background=volumeNode, foreground=foreground, opacity=opacity)


def showModelInput(roiNode: vtkMRMLMarkupsROINode) -> list[vtkMRMLMarkupsROINode]:
    """Draw what the model looked at as grey, locked boxes; those of another lesion go away. Empty without an answer."""
    scene, stored = roiNode.GetScene(), storedResult(roiNode)
    tag = f"{roiNode.GetID()} {'' if stored is None else stored.fingerprint}"
    there = _seenNodes(scene)
    if there and all(node.GetAttribute(_MODEL_INPUT) == tag for node in there):
        return there  # drawing them anew would be one more change of the scene to react to
    hideModelInput(scene)
    nodes = []
    for box in () if stored is None else stored.result.model_input_boxes:
        node = addRoiNode(scene, box, colorRGB=_MODEL_INPUT_COLOR)
        node.SetName(f"{roiNode.GetName()}: what the model looked at")
        node.SetAttribute(_MODEL_INPUT, tag)
        node.SetLocked(True)
        node.SetSaveWithScene(False)
        node.GetDisplayNode().SetPropertiesLabelVisibility(False)
        nodes.append(node)
    return nodes


def hideModelInput(scene: vtkMRMLScene) -> None:
    """Take the grey boxes away."""
    for node in _seenNodes(scene):
        scene.RemoveNode(node)


def _seenNodes(scene: vtkMRMLScene) -> list[vtkMRMLMarkupsROINode]:
    return [node for node in nodesOfClass(scene, "vtkMRMLMarkupsROINode") if node.GetAttribute(_MODEL_INPUT)]
