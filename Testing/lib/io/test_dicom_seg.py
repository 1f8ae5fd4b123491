"""DICOM segmentations as highdicom and others write them: every segment with its name, where it lies on the CT."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_segmentations import KINDS, ball_and_cube, write_seg
from foreign_dicom import BALL_RAS, write_ct
from LesionLib.errors import BoxError, VolumeError, WarningName
from LesionLib.io.boxes import read_segment_boxes
from LesionLib.io.segmentations import mask_on_lattice, read_label_map, read_segments
from LesionLib.io.volumes import choose_series, read_volume


@pytest.fixture(scope="module")
def ct(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("study") / "ct"
    write_ct(folder)
    return folder


@pytest.mark.parametrize("kind", [KINDS.BINARY, KINDS.LABELMAP])
def test_segments_have_their_names_and_lie_on_their_tissue(ct, tmp_path, kind):
    both = ball_and_cube(ct)
    both[..., 1] &= 1 - both[..., 0]  # labels cannot overlap in a label map
    path = write_seg(ct, tmp_path / "seg.dcm", both, kind, ("tumour", "Zyste links, größer"))
    found = read_segments(path)
    assert [mask.name for mask in found.masks] == ["tumour", "Zyste links, größer"]
    assert found.values == (1, 2)
    assert found.warnings == ()
    volume = read_volume(ct)
    for number, mask in enumerate(found.masks):
        on_ct = mask_on_lattice(mask.array, mask.ijkToRAS, volume)
        np.testing.assert_array_equal(on_ct, both[..., number] > 0)
    (ball, _) = read_segment_boxes(path, margin_mm=0)
    np.testing.assert_allclose(ball.centerRAS, BALL_RAS, atol=0.51)


def test_segments_that_overlap_are_whole(ct, tmp_path):
    both = ball_and_cube(ct)
    both[9:12, 13:19, 14:24, 1] = 1
    assert (both[..., 0] & both[..., 1]).any()
    path = write_seg(ct, tmp_path / "seg.dcm", both, KINDS.BINARY, ("ball", "cube"))
    assert [int(mask.array.sum()) for mask in read_segments(path).masks] == both.sum(axis=(0, 1, 2)).tolist()
    alone = read_label_map(path, value=1)
    assert int((alone.array == 1).sum()) == both[..., 0].sum()


def test_a_fractional_segment_is_taken_from_one_half_on_and_that_is_said(ct, tmp_path):
    shares = ball_and_cube(ct)[..., :1].astype(float)
    shares[shares[..., 0] > 0] = 0.9
    shares[0, 0, 0] = 0.2
    path = write_seg(ct, tmp_path / "seg.dcm", shares, KINDS.FRACTIONAL, ("tumour",))
    found = read_segments(path)
    (mask,) = found.masks
    assert int(mask.array.sum()) == int((shares > 0.5).sum())
    assert [warning.name for warning in found.warnings] == [WarningName.SEGMENTATION]


def test_a_folder_with_one_segmentation_is_that_segmentation(ct, tmp_path):
    write_seg(ct, tmp_path / "seg.dcm", ball_and_cube(ct), KINDS.BINARY, ("a", "b"))
    shutil.copy(sorted(ct.iterdir())[0], tmp_path / "an_image.dcm")
    assert len(read_segments(tmp_path).masks) == 2
    shutil.copy(tmp_path / "seg.dcm", tmp_path / "again.dcm")
    with pytest.raises(BoxError, match="a folder with 2 DICOM segmentations"):
        read_segments(tmp_path)


def test_it_says_on_which_frame_it_was_drawn(ct, tmp_path):
    path = write_seg(ct, tmp_path / "seg.dcm", ball_and_cube(ct), KINDS.BINARY, ("a", "b"))
    assert read_segments(path).frame_of_reference == choose_series(ct, None).frame_of_reference != ""


def test_another_kind_of_dicom_file_is_named(ct, tmp_path):
    data = pydicom.dcmread(sorted(ct.iterdir())[0])
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"
    data.save_as(tmp_path / "rs.dcm")
    with pytest.raises(BoxError, match=r"rs\.dcm is not a segmentation but an RT structure set"):
        read_segments(tmp_path / "rs.dcm")
    with pytest.raises(BoxError, match="but a DICOM file of another kind"):
        read_segments(sorted(ct.iterdir())[0])


def test_a_damaged_segmentation_is_one_line(ct, tmp_path):
    path = write_seg(ct, tmp_path / "seg.dcm", ball_and_cube(ct), KINDS.BINARY, ("a", "b"))
    data = pydicom.dcmread(path)
    data.PixelData = data.PixelData[:10]
    data.save_as(path)
    with pytest.raises(VolumeError, match=r"seg\.dcm cannot be read as a DICOM segmentation") as error:
        read_segments(path)
    assert "\n" not in str(error.value)


def test_an_empty_one_and_a_segment_that_is_not_there_are_refused(ct, tmp_path):
    path = write_seg(ct, tmp_path / "seg.dcm", ball_and_cube(ct), KINDS.BINARY, ("a", "b"))
    with pytest.raises(BoxError, match="has no segment 7"):
        read_label_map(path, value=7)
    empty = write_seg(ct, tmp_path / "empty.dcm", 0 * ball_and_cube(ct), KINDS.BINARY, ("a", "b"))
    with pytest.raises(BoxError, match="holds no segment with a voxel"):
        read_segments(empty)
