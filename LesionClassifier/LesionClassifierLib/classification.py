"""Classify the boxes of a scene: what the button, the command line and a script share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from LesionLib.errors import BoxError
from LesionLib.geometry import require_overlap
from LesionLib.runner_types import RunAnswer, RunOptions, RunRequest
from slicer import vtkMRMLMarkupsROINode, vtkMRMLScalarVolumeNode

from .lesion_nodes import lesionsFromNodes
from .showing import ShownResults, layFirstMap, showResults
from .volume_nodes import volumeFromNode

if TYPE_CHECKING:
    from LesionLib.runner import InferenceRunner

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
        classColors=dict(zip(answer.class_names, answer.class_colors, strict=True)),
        colorSegments=colorSegments,
    )
    if laysViews:
        layFirstMap(volumeNode, shown)
    return shown
