"""Annotations between us, a file and real MRML: the same box, label and attributes, whoever saved last."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from LesionClassifierLib.scene.lesions import addRoiNode, boxFromRoi, loadRoiNodes
from LesionLib.errors import BoxError
from LesionLib.geometry import LesionBox
from LesionRetrievalLib.scene.annotations import (
    Annotation,
    annotations_text,
    described,
    description_text,
    parse_annotations,
)
from scipy.spatial.transform import Rotation

ATTRIBUTES = {"Größe": 12.25, "n": 3, "sure": True, "by": None, "note": 'two\nlines, "quoted" \\ ✓', "": "no name"}


@pytest.fixture
def an_annotation(a_box):
    def make(label="hämangioma", attributes=ATTRIBUTES, **changes) -> Annotation:
        return Annotation(a_box(name="L1", **changes), label, attributes)

    return make


@pytest.fixture
def through_slicer(scene, tmp_path):
    """The text after Slicer has loaded every ROI of it into a scene and saved each to a file of its own."""

    def go(text: str) -> list[str]:
        path = tmp_path / "in.mrk.json"
        path.write_text(text, encoding="utf-8")
        saved = []
        for number, node in enumerate(loadRoiNodes(scene, path)):
            storage = scene.AddNewNodeByClass("vtkMRMLMarkupsROIJsonStorageNode")
            storage.SetFileName(str(tmp_path / f"out{number}.mrk.json"))
            assert storage.WriteData(node)
            saved.append((tmp_path / f"out{number}.mrk.json").read_text(encoding="utf-8"))
        return saved

    return go


def require_same(one: Annotation, other: Annotation, *, within: float) -> None:
    assert (one.box.name, one.label, one.attributes) == (other.box.name, other.label, other.attributes)
    assert [type(v) for v in one.attributes.values()] == [type(v) for v in other.attributes.values()]
    for key in ("centerRAS", "sizeMm", "axesRAS"):
        assert np.allclose(getattr(one.box, key), getattr(other.box, key), rtol=0, atol=within)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    quaternion=st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: np.linalg.norm(q) > 0.1),
    center=st.tuples(*[st.floats(-500, 500)] * 3),
    size=st.tuples(*[st.floats(0.2, 300)] * 3),
    label=st.text(st.characters(codec="utf-8"), max_size=20),
    attributes=st.dictionaries(
        st.text(st.characters(codec="utf-8"), max_size=8),
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters(codec="utf-8"), max_size=20),
        max_size=4,
    ),
)  # fmt: skip
def test_any_annotation_comes_back_from_text_bit_for_bit(quaternion, center, size, label, attributes):
    box = LesionBox(center, size, Rotation.from_quat(quaternion).as_matrix(), name=label or "L1")
    annotation = Annotation(box, label, attributes)
    (again,) = parse_annotations(annotations_text([annotation]), source="test")
    require_same(again, annotation, within=0)


def test_slicer_loads_and_saves_an_annotation_without_loss(an_annotation, through_slicer):
    annotation = an_annotation()
    (saved,) = through_slicer(annotations_text([annotation]))
    (again,) = parse_annotations(saved, source="saved")
    require_same(again, annotation, within=1e-9)
    (saved_again,) = through_slicer(annotations_text([again]))
    require_same(parse_annotations(saved_again, source="saved")[0], annotation, within=1e-9)


def test_what_slicer_shows_is_the_box_and_its_label(an_annotation, scene, tmp_path):
    path = tmp_path / "a.mrk.json"
    path.write_text(annotations_text([an_annotation()]), encoding="utf-8")
    (node,) = loadRoiNodes(scene, path)
    box = boxFromRoi(node)
    assert np.allclose(box.cornersRAS, an_annotation().box.cornersRAS)
    assert (node.GetName(), node.GetNthControlPointLabel(0)) == ("L1", "hämangioma")


def test_slicer_s_own_loader_finds_the_box_at_its_place(an_annotation, scene, tmp_path):
    path = tmp_path / "a.mrk.json"
    path.write_text(annotations_text([an_annotation()]), encoding="utf-8")
    storage = scene.AddNewNodeByClass("vtkMRMLMarkupsROIJsonStorageNode")
    node = storage.AddNewMarkupsNodeFromFile(str(path), None, 0)
    assert np.allclose(boxFromRoi(node).cornersRAS, an_annotation().box.cornersRAS)


def test_several_annotations_stay_apart_and_in_order(an_annotation, a_box, through_slicer):
    several = [an_annotation(), Annotation(a_box(name="L2", centerRAS=[0, 1, 2])), an_annotation(label="cyst")]
    saved = through_slicer(annotations_text(several))
    again = [parse_annotations(text, source="saved")[0] for text in saved]
    for one, other in zip(again, several, strict=True):
        require_same(one, other, within=1e-9)


def test_a_label_edited_in_slicer_is_the_label(an_annotation, scene, tmp_path):
    path = tmp_path / "a.mrk.json"
    path.write_text(annotations_text([an_annotation()]), encoding="utf-8")
    (node,) = loadRoiNodes(scene, path)
    node.SetNthControlPointLabel(0, "cyst")
    storage = node.GetStorageNode()
    storage.SetFileName(str(path))
    assert storage.WriteData(node)
    (again,) = parse_annotations(path.read_text(encoding="utf-8"), source="a")
    assert (again.label, again.attributes) == ("cyst", ATTRIBUTES)


def test_label_and_attributes_travel_on_a_node_too(an_annotation, scene):
    annotation = an_annotation()
    node = addRoiNode(scene, annotation.box)
    node.SetNthControlPointLabel(0, annotation.label)
    node.SetNthControlPointDescription(0, description_text(annotation))
    again = described(
        boxFromRoi(node),
        label=node.GetNthControlPointLabel(0),
        description=node.GetNthControlPointDescription(0),
    )
    require_same(again, annotation, within=1e-9)


def test_an_roi_drawn_in_slicer_is_an_annotation_without_attributes(scene, a_box, tmp_path):
    node = addRoiNode(scene, a_box(name="R"))
    node.SetNthControlPointLabel(0, "R-1")
    node.SetNthControlPointDescription(0, "seen on 3 slices")
    storage = scene.AddNewNodeByClass("vtkMRMLMarkupsROIJsonStorageNode")
    storage.SetFileName(str(tmp_path / "R.mrk.json"))
    assert storage.WriteData(node)
    (found,) = parse_annotations((tmp_path / "R.mrk.json").read_text(), source="R")
    assert np.allclose(found.box.cornersRAS, a_box().cornersRAS)
    assert (found.label, found.attributes) == ("R-1", {"description": "seen on 3 slices"})


def test_a_mirrored_box_keeps_its_place_in_slicer(an_annotation, same_place, through_slicer):
    mirrored = an_annotation(axesRAS=np.diag([1.0, 1.0, -1.0]))
    (saved,) = through_slicer(annotations_text([mirrored]))
    assert same_place(parse_annotations(saved, source="saved")[0].box, mirrored.box.cornersRAS)


def test_a_file_in_ras_is_read_in_ras(an_annotation):
    content = json.loads(annotations_text([an_annotation()]))
    markup = content["markups"][0]
    markup["coordinateSystem"] = "RAS"
    (again,) = parse_annotations(json.dumps(content), source="test")
    assert np.allclose(again.box.centerRAS, an_annotation().box.centerRAS * [-1, -1, 1])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: m.pop("size"), "cannot be read"),
        (lambda m: m.update(size=[1, 0, 1]), "size is 1 x 0 x 1 mm"),
        (lambda m: m.update(center=[1, "x", 1]), "cannot be read"),
        (lambda m: m.update(orientation=[1, 0, 0]), "cannot be read"),
        (lambda m: m.update(orientation=[1, 1, 0, 0, 1, 0, 0, 0, 1]), "right angles"),
        (lambda m: m.update(coordinateSystem="XYZ"), "LPS or RAS"),
        (lambda m: m.update(controlPoints=[]), "no control point"),
        (lambda m: m["controlPoints"][0].update(label=7), "give text"),
        (lambda m: m["controlPoints"][0].update(description=7), "cannot be read"),
        (lambda m: m["controlPoints"][0].update(description='{"lesionlens": 1, "attributes": {"a": [1]}}'), "'a'"),
        (lambda m: m["controlPoints"][0].update(description='{"lesionlens": 1, "attributes": {"a": NaN}}'), "'a'"),
        (lambda m: m.update(type="Line"), "no ROI"),
    ],
)
def test_a_broken_roi_is_refused_with_file_and_reason(an_annotation, change, reason):
    content = json.loads(annotations_text([an_annotation()]))
    change(content["markups"][0])
    with pytest.raises(BoxError, match=reason) as caught:
        parse_annotations(json.dumps(content), source="boxes.mrk.json")
    assert str(caught.value).startswith("boxes.mrk.json")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"markups": {}}', "[" * 100_000])
def test_what_is_no_markups_file_is_refused(text):
    with pytest.raises(BoxError, match="not a Slicer markups file"):
        parse_annotations(text, source="x")


@pytest.mark.parametrize("attributes", [{"a": float("inf")}, {"a": [1]}, {1: "a"}, "a=1"])
def test_attributes_that_json_would_not_give_back_are_refused(a_box, attributes):
    with pytest.raises(BoxError, match="attribute"):
        Annotation(a_box(), "x", attributes)


def test_no_annotation_at_all_is_not_saved():
    with pytest.raises(BoxError, match="at least one"):
        annotations_text([])
