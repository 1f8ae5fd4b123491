"""Segments as boxes."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from LesionLib.errors import BoxError
from LesionLib.segments import boxes_from_label_array, read_segment_boxes


def test_a_label_s_box_holds_its_whole_voxels_on_an_oblique_lattice():
    angle = np.deg2rad(30)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    matrix = np.eye(4)
    matrix[:3, :3] = turn @ np.diag([-0.5, -0.8, 2.0])
    matrix[:3, 3] = [3, 4, 5]
    labels = np.zeros((10, 20, 30), np.uint8)
    labels[2:5, 6:10, 8:20] = 7
    (box,) = boxes_from_label_array(labels, matrix, {7: "liver"}, margin_mm=1.0)
    np.testing.assert_allclose(box.sizeMm, [12 * 0.5 + 2, 4 * 0.8 + 2, 3 * 2.0 + 2])
    np.testing.assert_allclose(box.centerRAS, (matrix @ [13.5, 7.5, 3.0, 1])[:3])
    np.testing.assert_allclose(np.abs(box.axesRAS), np.abs(turn), atol=1e-12)
    assert box.name == "liver"


def test_on_a_sheared_lattice_the_box_holds_every_corner():
    matrix = np.array([[1.0, 0, 0, 0], [0, 1.0, 0.6, 0], [0, 0, 2.0, 0], [0, 0, 0, 1]])
    labels = np.zeros((10, 20, 20), np.uint8)
    labels[1:8, 5:9, 5:9] = 1
    (box,) = boxes_from_label_array(labels, matrix, {1: "x"})
    corner = (matrix @ [4.5, 4.5, 0.5, 1])[:3]
    assert (np.abs((corner - box.centerRAS) @ box.axesRAS) <= box.sizeMm / 2 + 1e-9).all()


def test_labels_that_do_not_occur_are_left_out():
    labels = np.zeros((4, 4, 4), np.uint8)
    labels[1, 1, 1] = 2
    assert [b.name for b in boxes_from_label_array(labels, np.eye(4), {1: "a", 2: "b", 9: "c"})] == ["b"]


def test_a_slicer_segmentation_gives_its_names_even_in_layers(tmp_path):
    layers = [np.zeros((6, 6, 6), np.uint8) for _ in range(2)]
    layers[0][1:3, 1:3, 1:3] = 1
    layers[1][2:5, 2:5, 2:5] = 1
    image = sitk.Compose([sitk.GetImageFromArray(layer) for layer in layers])
    for number, name in enumerate(("cyst", "tumour")):
        image.SetMetaData(f"Segment{number}_Name", name)
        image.SetMetaData(f"Segment{number}_LabelValue", "1")
        image.SetMetaData(f"Segment{number}_Layer", str(number))
    sitk.WriteImage(image, str(tmp_path / "s.seg.nrrd"))
    boxes = read_segment_boxes(tmp_path / "s.seg.nrrd", margin_mm=0)
    assert [box.name for box in boxes] == ["cyst", "tumour"]
    np.testing.assert_allclose(boxes[1].sizeMm, [3, 3, 3])


def test_what_is_not_a_segmentation_is_refused(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(np.full((3, 3, 3), 0.5, np.float32)), str(tmp_path / "ct.nrrd"))
    with pytest.raises(BoxError, match="is not a segmentation"):
        read_segment_boxes(tmp_path / "ct.nrrd", margin_mm=0)
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((3, 3, 3), np.uint8)), str(tmp_path / "empty.nrrd"))
    with pytest.raises(BoxError, match="holds no segment"):
        read_segment_boxes(tmp_path / "empty.nrrd", margin_mm=0)
