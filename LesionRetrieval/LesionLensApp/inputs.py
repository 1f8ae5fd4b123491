"""The boxes of a run as ROI nodes of the scene, from whichever file they come."""

from __future__ import annotations

from pathlib import Path

from LesionClassifierLib.lesion_nodes import addLesionsFromSegmentation
from LesionClassifierLib.nodes import addRoiNode, loadRoiNodes
from LesionClassifierLib.segment_masks import addSegmentationNode
from LesionLib.box_files import read_boxes_csv
from LesionLib.errors import BoxError
from LesionLib.segments import read_segment_boxes
from slicer import vtkMRMLMarkupsROINode, vtkMRMLScene


def addBoxes(scene: vtkMRMLScene, path: Path) -> list[vtkMRMLMarkupsROINode]:
    """ROI nodes from a Slicer markups file (``.mrk.json``) or a CSV of boxes. Raises `BoxError`."""
    if not path.is_file():
        msg = f"{path} does not exist; give a .csv of boxes or a Slicer markups file (.mrk.json)."
        raise BoxError(msg)
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return [addRoiNode(scene, box) for box in read_boxes_csv(path)]
    if suffix == ".json":
        return loadRoiNodes(scene, path)
    msg = f"{path.name}: boxes come as .csv or as a Slicer markups file (.mrk.json), not as {suffix or 'a file without ending'}."
    raise BoxError(msg)


def addSegments(scene: vtkMRMLScene, path: Path, *, marginMm: float) -> list[vtkMRMLMarkupsROINode]:
    """The segments of a segmentation file as a segmentation node, and one ROI node around each.

    Raises `BoxError` or `VolumeError`.
    """
    masks = [box.segment for box in read_segment_boxes(path, margin_mm=0.0)]
    node = addSegmentationNode(scene, masks, name=path.name.split(".")[0])
    return addLesionsFromSegmentation(scene, node, marginMm=marginMm)
