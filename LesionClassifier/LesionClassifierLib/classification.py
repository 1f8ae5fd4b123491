"""Classify the boxes of a scene and show the answers in it: what the button, the command line and a script share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from LesionLib.geometry import CTVolume, LesionBox, require_overlap
from LesionLib.results import LesionResult, RunInfo
from slicer import vtkMRMLMarkupsROINode, vtkMRMLScalarVolumeNode, vtkMRMLScene, vtkMRMLTableNode

from .nodes import (
    addHeatMapNode,
    addResultsTableNode,
    boxFromRoi,
    placeUnderStudy,
    setLayers,
    showAsOutline,
    volumeFromNode,
)

if TYPE_CHECKING:
    from LesionLib.bundle import Bundle

STUDY_NAME = "LesionLens (research use only, not for diagnosis)"
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class ShownResults:
    """The nodes that show the answers: one heat map a lesion (None where there is none) and one table."""

    heatMapNodes: tuple[vtkMRMLScalarVolumeNode | None, ...]
    tableNode: vtkMRMLTableNode


def classifyNodes(
    volumeNode: vtkMRMLScalarVolumeNode,
    roiNodes: Sequence[vtkMRMLMarkupsROINode],
    bundle: Bundle,
    *,
    redrawn: int = 0,
    progress: Progress | None = None,
) -> list[LesionResult]:
    """One answer a box, in the order given; changes nothing in the scene.

    Every box is checked before the first is classified. ``redrawn``: boxes drawn a little differently that are asked too,
    for the spread of the answer. Raises `VolumeError` or `BoxError`.
    """
    from LesionLib.classify import Classifier

    volume: CTVolume = volumeFromNode(volumeNode)
    boxes: list[LesionBox] = [boxFromRoi(roiNode) for roiNode in roiNodes]
    for box in boxes:
        require_overlap(volume, box)
    answers = Classifier(bundle, volume).classify_all(boxes, redrawn=redrawn)
    results = []
    for done, box in enumerate(boxes):
        if progress is not None:
            progress(done, len(boxes), box.name)
        results.append(next(answers))
    return results


def runInfo(volumeNode: vtkMRMLScalarVolumeNode, bundle: Bundle) -> RunInfo:
    """What all answers on this volume by this model share."""
    from LesionLib.classify import device_name, software_versions
    from LesionLib.networks.base import device_of

    device = device_name(device_of(bundle.network))
    return RunInfo(volumeNode.GetName(), bundle.name, bundle.version, bundle.sha256, device, software_versions())


def showResults(
    scene: vtkMRMLScene,
    volumeNode: vtkMRMLScalarVolumeNode,
    roiNodes: Sequence[vtkMRMLMarkupsROINode],
    results: Sequence[LesionResult],
    *,
    run: RunInfo,
    bundle: Bundle,
) -> ShownResults:
    """Colour the boxes by class, add heat maps and a table, put all of it under a study, show the first map."""
    classColors = dict(zip(bundle.class_names, bundle.class_colors, strict=True))
    heatMapNodes = []
    for roiNode, result in zip(roiNodes, results, strict=True):
        showAsOutline(roiNode, colorRGB=classColors[result.label])
        node = _addHeatMap(scene, volumeNode, result)
        heatMapNodes.append(node)
        for carrier in (roiNode, node) if node is not None else (roiNode,):
            _writeAttributes(carrier, result, run)
    tableNode = addResultsTableNode(scene, _columns(results), name="LesionLens results")
    shown = [node for node in heatMapNodes if node is not None]
    placeUnderStudy(scene, [volumeNode, *roiNodes, *shown, tableNode], studyName=STUDY_NAME)
    setLayers(scene, background=volumeNode, foreground=shown[0] if shown else None)
    return ShownResults(tuple(heatMapNodes), tableNode)


def _addHeatMap(
    scene: vtkMRMLScene, volumeNode: vtkMRMLScalarVolumeNode, result: LesionResult
) -> vtkMRMLScalarVolumeNode | None:
    heatMap = result.heat_map
    if heatMap is None:
        return None
    name = f"{result.name} Grad-CAM {heatMap.class_name}"
    return addHeatMapNode(scene, heatMap.array, heatMap.ijkToRAS, name=name, referenceVolumeNode=volumeNode)


def _writeAttributes(node: vtkMRMLMarkupsROINode, result: LesionResult, run: RunInfo) -> None:
    """Where an answer came from travels with the node, so that a saved scene explains itself."""
    attributes = {
        "Lesion": result.name,
        "Label": result.label,
        "Probability": f"{result.probabilities[result.label]:.6f}",
        "Model": run.model_name,
        "ModelVersion": run.model_version,
        "ModelSha256": run.model_sha256,
        "Device": run.device,
    }
    for key, value in attributes.items():
        node.SetAttribute(f"LesionLens.{key}", value)


def _columns(results: Sequence[LesionResult]) -> dict[str, list]:
    columns: dict[str, list] = {"name": [r.name for r in results], "label": [r.label for r in results]}
    for className in results[0].probabilities if results else ():
        columns[f"p_{className}"] = [r.probabilities[className] for r in results]
    columns["warnings"] = [" | ".join(r.warnings) for r in results]
    return columns
