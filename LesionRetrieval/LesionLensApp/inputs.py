"""The boxes of a run as ROI nodes of the scene, from whichever file they come."""

from __future__ import annotations

from pathlib import Path

from LesionClassifierLib.nodes import addRoiNode, loadRoiNodes
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
    """One ROI node around each segment of a segmentation file. Raises `BoxError` or `VolumeError`."""
    return [addRoiNode(scene, box) for box in read_segment_boxes(path, margin_mm=marginMm)]
