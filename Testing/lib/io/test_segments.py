"""Segments as boxes."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from LesionLib.errors import BoxError, VolumeError
from LesionLib.geometry import transformed_points
from LesionLib.io.boxes import boxes_from_label_array, read_segment_boxes
from scipy import ndimage


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


@pytest.fixture
def oblique() -> sitk.Image:
    """Two labels on an oblique lattice: 3 holds 4 x 3 x 2 voxels, 8 holds a single one."""
    labels = np.zeros((9, 10, 11), np.uint8)
    labels[2:4, 3:6, 4:8] = 3
    labels[7, 8, 9] = 8
    image = sitk.GetImageFromArray(labels)
    image.SetSpacing((0.5, 0.8, 2.0))
    image.SetOrigin((-3.0, 14.0, 25.0))
    turn = sitk.Euler3DTransform()
    turn.SetRotation(0.2, 0.4, -0.3)
    image.SetDirection(turn.GetMatrix())
    return image


@pytest.mark.parametrize("suffix", [".nrrd", ".nii.gz"])
@pytest.mark.parametrize("pixel", [sitk.sitkUInt8, sitk.sitkInt16, sitk.sitkFloat32])
def test_every_label_of_a_file_becomes_a_tight_box_in_ras(tmp_path, oblique, suffix, pixel):
    path = tmp_path / f"labels{suffix}"
    sitk.WriteImage(sitk.Cast(oblique, pixel), str(path))
    large, small = read_segment_boxes(path, margin_mm=0)
    assert [large.name, small.name] == ["label 3", "label 8"]
    np.testing.assert_allclose(large.sizeMm, [4 * 0.5, 3 * 0.8, 2 * 2.0], atol=1e-4)
    np.testing.assert_allclose(small.sizeMm, [0.5, 0.8, 2.0], atol=1e-4)
    for box, index in ((large, (5.5, 4.0, 2.5)), (small, (9.0, 8.0, 7.0))):
        lps = np.array(oblique.TransformContinuousIndexToPhysicalPoint(index))
        np.testing.assert_allclose(box.centerRAS, lps * [-1, -1, 1], atol=1e-4)
    direction = np.array(oblique.GetDirection()).reshape(3, 3) * np.array([[-1], [-1], [1]])
    np.testing.assert_allclose(large.axesRAS, direction, atol=1e-5)


def test_every_box_has_the_voxels_of_its_segment(tmp_path, oblique):
    sitk.WriteImage(oblique, str(tmp_path / "s.nrrd"))
    large, small = read_segment_boxes(tmp_path / "s.nrrd", margin_mm=2.0)
    assert (large.segment.array == 1).all()
    assert large.segment.sizeIJK == (4, 3, 2)
    assert small.segment.sizeIJK == (1, 1, 1)
    for box in (large, small):
        middle = (np.array(box.segment.sizeIJK) - 1) / 2
        np.testing.assert_allclose(transformed_points(box.segment.ijkToRAS, middle), box.centerRAS, atol=1e-4)


def test_the_margin_is_added_on_every_side_and_moves_nothing(tmp_path, oblique):
    sitk.WriteImage(oblique, str(tmp_path / "s.nrrd"))
    tight, grown = (read_segment_boxes(tmp_path / "s.nrrd", margin_mm=margin)[0] for margin in (0.0, 1.5))
    np.testing.assert_allclose(grown.sizeMm, tight.sizeMm + 3.0)
    np.testing.assert_allclose(grown.centerRAS, tight.centerRAS)


def test_the_box_holds_every_voxel_of_a_random_segment_and_no_slice_more():
    rng = np.random.default_rng(4)
    labels = ndimage.gaussian_filter(rng.normal(size=(12, 14, 16)), 2) > 0.05
    labels &= ndimage.label(labels)[0] == 1
    matrix = np.diag([-0.7, -0.6, 1.5, 1.0])
    (box,) = boxes_from_label_array(labels.astype(np.uint8), matrix, {1: "x"})
    corners = np.argwhere(labels)[:, None, ::-1] + (np.indices((2, 2, 2)).reshape(3, 8).T - 0.5)
    ras = corners.reshape(-1, 3) * [-0.7, -0.6, 1.5]
    np.testing.assert_allclose(box.centerRAS - box.sizeMm / 2, ras.min(axis=0), atol=1e-9)
    np.testing.assert_allclose(box.centerRAS + box.sizeMm / 2, ras.max(axis=0), atol=1e-9)


def test_a_slicer_segmentation_in_one_layer_gives_its_names_and_leaves_out_what_it_does_not_name(tmp_path, oblique):
    oblique.SetMetaData("Segment0_Name", "metastasis, segment 7")
    oblique.SetMetaData("Segment0_LabelValue", "8")
    oblique.SetMetaData("Segment0_Layer", "0")
    oblique.SetMetaData("Segment1_LabelValue", "5")  # named, but without a voxel
    sitk.WriteImage(oblique, str(tmp_path / "s.seg.nrrd"))
    (box,) = read_segment_boxes(tmp_path / "s.seg.nrrd", margin_mm=0)
    assert box.name == "metastasis, segment 7"
    np.testing.assert_allclose(box.sizeMm, [0.5, 0.8, 2.0])


@pytest.mark.parametrize(("key", "value"), [("Segment0_LabelValue", "one"), ("Segment0_Layer", "")])
def test_a_segmentation_with_a_damaged_key_is_refused_by_its_name(tmp_path, oblique, key, value):
    oblique.SetMetaData("Segment0_LabelValue", "3")
    oblique.SetMetaData(key, value or "x")
    sitk.WriteImage(oblique, str(tmp_path / "s.seg.nrrd"))
    with pytest.raises(BoxError, match=rf"s\.seg\.nrrd: {key} is .*a whole number is needed"):
        read_segment_boxes(tmp_path / "s.seg.nrrd", margin_mm=0)


@pytest.mark.parametrize(
    ("array", "is_vector"),
    [
        (np.full((3, 4, 5), np.nan, np.float32), False),
        (np.full((3, 4, 5, 3), 1.5, np.float32), True),  # a displacement field is no segmentation in layers
        (np.full((3, 4, 5), 2**31, np.uint32), False),
        (np.full((3, 4, 5), 1e9, np.float64), False),
        (np.ones((3, 4, 5, 2), np.uint8), False),
        (np.ones((4, 5), np.uint8), False),
    ],
)
def test_a_file_that_holds_no_labels_in_3d_is_refused_quickly(tmp_path, array, is_vector):
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=is_vector), str(tmp_path / "s.nrrd"))
    with pytest.raises(BoxError, match=r"s\.nrrd is not a segmentation") as error:
        read_segment_boxes(tmp_path / "s.nrrd", margin_mm=0)
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_image_is_refused(tmp_path):
    (tmp_path / "s.seg.nrrd").write_text("no image")
    with pytest.raises(VolumeError, match=r"s\.seg\.nrrd cannot be read as an image"):
        read_segment_boxes(tmp_path / "s.seg.nrrd", margin_mm=0)
