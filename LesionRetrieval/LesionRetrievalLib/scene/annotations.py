"""Boxes of a scene with a label and free attributes as Slicer markups JSON (.mrk.json), and back without loss.

Slicer keeps of a markup only what it knows: of an ROI the centre, the orientation, the size, and of its control point the
label and the description. So the diagnosis is the control point's label, which Slicer shows and lets people edit, and the
name and the attributes are JSON in its description. Both come back from Slicer's own files.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from LesionClassifierLib.scene.lesions import addRoiNode, boxFromRoi, checkedFrame, markAsLesion
from LesionLib.errors import BoxError, OutputError
from LesionLib.geometry import LesionBox
from LesionLib.io.private_files import write_private
from slicer import vtkMRMLMarkupsROINode, vtkMRMLScene

from LesionRetrievalLib.library.cases import Scalar

_SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.3.json#"
)
_OURS = "lesionlens"
_TO_LPS = np.array([-1.0, -1.0, 1.0])
_FRAMES = {"LPS": _TO_LPS, "RAS": np.ones(3)}
_MAX_MARKUPS = 10_000


@dataclass(frozen=True, eq=False)
class Annotation:
    """A box, the ``label`` somebody gave it ("" for none), and ``attributes``: text, finite numbers, bool or None by name.

    A segment of the box is not part of it.
    """

    box: LesionBox
    label: str = ""
    attributes: Mapping[str, Scalar] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what JSON would not give back (`BoxError`); keep an own copy of the attributes."""
        if not isinstance(self.label, str):
            msg = f"box {self.box.name!r}: its label is a {type(self.label).__name__}; give text."
            raise BoxError(msg)
        object.__setattr__(self, "attributes", _checked_attributes(self.attributes, self.box.name))


def annotations_text(annotations: Iterable[Annotation]) -> str:
    """The text of a .mrk.json file that Slicer loads, one ROI an annotation; LPS, as Slicer writes by itself.

    The axes are written right-handed, as Slicer needs them; of a left-handed box the z axis is turned round, which leaves
    the box where it is.
    """
    markups = [_markup(annotation) for annotation in annotations]
    if not markups:
        msg = "There is no annotation to save; give at least one."
        raise BoxError(msg)
    return json.dumps({"@schema": _SCHEMA, "markups": markups}, indent=4, ensure_ascii=False, allow_nan=False) + "\n"


def parse_annotations(text: str, *, source: str) -> list[Annotation]:
    """The annotations in the text of a .mrk.json file, of ours or of Slicer's; markups other than ROIs are left out.

    ROIs that were drawn in Slicer have their control point's label and no attributes. LPS and RAS files both. Raises
    `BoxError` naming ``source`` and the markup.
    """
    annotations = []
    for number, markup in enumerate(_markups(text, source), start=1):
        if not isinstance(markup, dict) or markup.get("type") != "ROI":
            continue
        try:
            annotations.append(_annotation(markup, number))
        except BoxError as error:
            msg = f"{source}, markup {number}: {error}"
            raise BoxError(msg) from error
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            msg = f"{source}, markup {number}: this ROI cannot be read; open the file in Slicer and save it again."
            raise BoxError(msg) from error
    if not annotations:
        msg = f"{source} holds no ROI; in Slicer, draw a box with Markups > ROI and save it as .mrk.json."
        raise BoxError(msg)
    return annotations


def description_text(annotation: Annotation) -> str:
    """What stands in the control point's description: the name and the attributes as one line of JSON.

    With `described` it also serves nodes that are in a scene: ``roiNode.SetNthControlPointDescription(0, text)``.
    """
    content = {_OURS: 1, "name": annotation.box.name, "attributes": dict(annotation.attributes)}
    return json.dumps(content, ensure_ascii=False, allow_nan=False)


def described(box: LesionBox, *, label: str, description: str) -> Annotation:
    """The annotation of a box whose control point has this label and description; the inverse of `description_text`.

    A description that people wrote becomes the attribute ``description``; the box then keeps its own name.
    """
    content = _our_content(description)
    if content is None:
        return Annotation(box, label, {"description": description} if description else {})
    name = content.get("name")
    named = LesionBox(box.centerRAS, box.sizeMm, box.axesRAS, name=name if isinstance(name, str) else box.name)
    return Annotation(named, label, content.get("attributes", {}))


def _markup(annotation: Annotation) -> dict[str, Any]:
    box = annotation.box
    axes = box.axesRAS * [1, 1, -1] if np.linalg.det(box.axesRAS) < 0 else box.axesRAS
    # Plus zero: -0.0 would come out of the mirroring, and reads oddly in a file.
    position = (box.centerRAS * _TO_LPS + 0.0).tolist()
    point = {
        "id": "1",
        "label": annotation.label,
        "description": description_text(annotation),
        "associatedNodeID": "",
        "position": position,
        "orientation": [-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0],
        "selected": True,
        "locked": False,
        "visibility": True,
        "positionStatus": "defined",
    }
    return {
        "type": "ROI",
        "name": box.name,
        "coordinateSystem": "LPS",
        "coordinateUnits": "mm",
        "locked": False,
        "fixedNumberOfControlPoints": False,
        "labelFormat": "%N-%d",
        "lastUsedControlPointNumber": 1,
        "roiType": "Box",
        "center": position,
        "orientation": (_TO_LPS[:, None] * axes + 0.0).ravel().tolist(),
        "size": box.sizeMm.tolist(),
        "insideOut": False,
        "controlPoints": [point],
    }


def _annotation(markup: Mapping[str, Any], number: int) -> Annotation:
    frame = checkedFrame(markup)
    points: Sequence[Mapping[str, Any]] = markup["controlPoints"]
    center = markup["center"] if "center" in markup else points[0]["position"]
    # Without an orientation the box lies along the axes of its own frame, which LPS and RAS share but for their signs.
    written = markup.get("orientation", [1, 0, 0, 0, 1, 0, 0, 0, 1])
    axes = _FRAMES[frame][:, None] * np.array(written, dtype=float).reshape(3, 3)
    name = str(markup.get("name") or f"lesion {number}")
    box = LesionBox(
        np.array(center, dtype=float) * _FRAMES[frame], np.array(markup["size"], dtype=float), axes, name=name
    )
    return described(box, label=points[0].get("label", ""), description=points[0].get("description", ""))


def _markups(text: str, source: str) -> list[Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        msg = f"{source} is not a Slicer markups file: {str(error)[:200]}."
        raise BoxError(msg) from error
    markups = content.get("markups") if isinstance(content, dict) else None
    if not isinstance(markups, list) or len(markups) > _MAX_MARKUPS:
        msg = f"{source} is not a Slicer markups file: it has no list 'markups' of at most {_MAX_MARKUPS} entries."
        raise BoxError(msg)
    return markups


def _our_content(description: str) -> dict[str, Any] | None:
    try:
        content = json.loads(description)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) and content.get(_OURS) == 1 else None


def _checked_attributes(attributes: object, name: str) -> dict[str, Scalar]:
    if not isinstance(attributes, Mapping):
        msg = f"box {name!r}: its attributes are a {type(attributes).__name__}; give a mapping from name to value."
        raise BoxError(msg)
    checked = {}
    for key, value in attributes.items():
        plain = value.item() if isinstance(value, np.generic) else value
        is_number = isinstance(plain, int | float) and math.isfinite(plain)
        if not isinstance(key, str) or not (is_number or plain is None or isinstance(plain, str)):
            msg = f"box {name!r}: attribute {key!r} cannot be kept; give text, a finite number, bool or None under a name."
            raise BoxError(msg)
        checked[key] = plain
    return checked


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
        write_private(path, text)
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
