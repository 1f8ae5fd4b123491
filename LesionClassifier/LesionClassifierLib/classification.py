"""Classify the boxes of a scene and explain the answers: what the button, the command line and a script share.

An answer is explained by the heat map of a lesion over its CT, and by the part of the CT that the model looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from LesionLib.errors import BoxError
from LesionLib.geometry import require_overlap
from LesionLib.inference.messages import RunAnswer, RunOptions, RunRequest
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


def answerNodes(
    runner: InferenceRunner,
    volumeNode: vtkMRMLScalarVolumeNode,
    roiNodes: Sequence[vtkMRMLMarkupsROINode],
    model: str | Path,
    options: RunOptions | None = None,
    *,
    progress: Progress | None = None,
) -> tuple[RunAnswer, ShownResults]:
    """Ask a runner and show what it says; waits for the answer. Raises what `InferenceRunner.run` raises."""
    request = requestFromNodes(volumeNode, roiNodes, model, options)
    answer = runner.run(request, progress=progress)
    return answer, showAnswer(volumeNode, roiNodes, request, answer)


def showAnswer(
    volumeNode: vtkMRMLScalarVolumeNode,
    roiNodes: Sequence[vtkMRMLMarkupsROINode],
    request: RunRequest,
    answer: RunAnswer,
    *,
    colorSegments: bool = True,
    laysViews: bool = True,
) -> ShownResults:
    """Show the answer to ``request`` on the nodes it was made from; ``laysViews``: in the slice views too."""
    shown = showResults(
        volumeNode.GetScene(),
        volumeNode,
        roiNodes,
        answer.results,
        volume=request.volume,
        run=answer.info,
        classColors=color_by_class(answer),
        colorSegments=colorSegments,
    )
    if laysViews:
        layFirstMap(volumeNode, shown)
    return shown


_SEEN = "LesionLens.Seen"
_SEEN_COLOR = (0.75, 0.75, 0.75)


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


def showSeen(roiNode: vtkMRMLMarkupsROINode) -> list[vtkMRMLMarkupsROINode]:
    """Draw what the model looked at as grey, locked boxes; those of another lesion go away. Empty without an answer."""
    scene, stored = roiNode.GetScene(), storedResult(roiNode)
    tag = f"{roiNode.GetID()} {'' if stored is None else stored.fingerprint}"
    there = _seenNodes(scene)
    if there and all(node.GetAttribute(_SEEN) == tag for node in there):
        return there  # drawing them anew would be one more change of the scene to react to
    hideSeen(scene)
    nodes = []
    for box in () if stored is None else stored.result.seen:
        node = addRoiNode(scene, box, colorRGB=_SEEN_COLOR)
        node.SetName(f"{roiNode.GetName()}: what the model looked at")
        node.SetAttribute(_SEEN, tag)
        node.SetLocked(True)
        node.SetSaveWithScene(False)
        node.GetDisplayNode().SetPropertiesLabelVisibility(False)
        nodes.append(node)
    return nodes


def hideSeen(scene: vtkMRMLScene) -> None:
    """Take the grey boxes away."""
    for node in _seenNodes(scene):
        scene.RemoveNode(node)


def _seenNodes(scene: vtkMRMLScene) -> list[vtkMRMLMarkupsROINode]:
    return [node for node in nodesOfClass(scene, "vtkMRMLMarkupsROINode") if node.GetAttribute(_SEEN)]
