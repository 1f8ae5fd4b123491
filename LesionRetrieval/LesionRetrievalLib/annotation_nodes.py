"""Lesions of a scene to .mrk.json files with their labels and attributes, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from LesionClassifierLib.lesion_nodes import markAsLesion
from LesionClassifierLib.roi_nodes import addRoiNode, boxFromRoi
from LesionLib.errors import BoxError, OutputError
from slicer import vtkMRMLMarkupsROINode, vtkMRMLScene

from .annotations import Annotation, annotations_text, described, description_text, parse_annotations
from .library_schema import Scalar


def annotationOf(roiNode: vtkMRMLMarkupsROINode) -> Annotation:
    """The box with its label and attributes, which are its control point's label and description. Raises `BoxError`."""
    label, description = roiNode.GetNthControlPointLabel(0) or "", roiNode.GetNthControlPointDescription(0) or ""
    # A label that Slicer gave by itself, as "L1-1", is none.
    label = "" if label.startswith(f"{roiNode.GetName()}-") else label
    return described(boxFromRoi(roiNode), label=label, description=description)


def annotate(roiNode: vtkMRMLMarkupsROINode, label: str, attributes: Mapping[str, Scalar] | None = None) -> None:
    """Give a box a label and attributes, which are saved with the scene. Raises `BoxError`."""
    annotation = Annotation(boxFromRoi(roiNode), label, attributes or {})
    roiNode.SetNthControlPointLabel(0, label)
    roiNode.SetNthControlPointDescription(0, description_text(annotation))


def saveAnnotations(path: Path, roiNodes: Sequence[vtkMRMLMarkupsROINode]) -> int:
    """Write the boxes with labels and attributes as .mrk.json; how many. Raises `BoxError` or `OutputError`."""
    text = annotations_text(annotationOf(node) for node in roiNodes)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        msg = f"{path} cannot be written ({error.strerror}); choose a folder that exists and is writable."
        raise OutputError(msg) from error
    return len(roiNodes)


def loadAnnotations(scene: vtkMRMLScene, path: Path) -> list[vtkMRMLMarkupsROINode]:
    """The boxes of a .mrk.json file as lesions, labels and attributes on them. Raises `BoxError`; then nothing was added."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{path} cannot be read; give a Slicer markups file (.mrk.json)."
        raise BoxError(msg) from error
    nodes = []
    for annotation in parse_annotations(text, source=str(path)):
        node = markAsLesion(addRoiNode(scene, annotation.box, interactive=True))
        annotate(node, annotation.label, annotation.attributes)
        nodes.append(node)
    return nodes
