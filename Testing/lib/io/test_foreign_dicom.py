"""CT series as other programs and archives leave them: the right HU at the right place, or one line that says why not."""

from __future__ import annotations

import shutil
import subprocess
import sys

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from foreign_dicom import BALL_HU, BALL_RAS, LUNG_HU, slice_hu, write_ct, write_enhanced_ct
from LesionLib.errors import BoxError, VolumeError, WarningName
from LesionLib.geometry import CTVolume, LesionBox, in_missing_slices_mm, require_overlap, transformed_points
from LesionLib.io import dicom_pixels
from LesionLib.io.native_images import read_by_itk
from LesionLib.io.volumes import choose_series, read_ct, read_volume
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless


def hu_at(volume: CTVolume, ras: np.ndarray) -> float:
    i, j, k = np.round(transformed_points(volume.rasToIJK, ras)).astype(int)
    return float(volume.array[k, j, i])


def names_of(volume: CTVolume) -> list[str]:
    return [str(warning.name) for warning in volume.warnings]


@pytest.mark.parametrize(("bits", "is_signed"), [(16, 1), (12, 0), (16, 0)])
def test_an_image_that_is_shown_dark_on_bright_keeps_its_hu(tmp_path, bits, is_signed):
    def inverted(data, _k):
        data.PhotometricInterpretation = "MONOCHROME1"
        data.BitsStored, data.HighBit, data.PixelRepresentation = bits, bits - 1, is_signed

    write_ct(tmp_path / "ct", change=inverted)
    volume = read_volume(tmp_path / "ct")
    assert hu_at(volume, BALL_RAS) == BALL_HU
    assert hu_at(volume, BALL_RAS + [8, 0, 0]) == LUNG_HU


@pytest.mark.parametrize(("signed", "bits", "turned"), [(1, 16, -1 - 1104), (0, 12, 4095 - 1104)])
def test_what_the_native_decoder_turned_round_is_turned_back(signed, bits, turned):
    header = pydicom.Dataset()
    header.PixelRepresentation, header.BitsStored, header.RescaleSlope, header.RescaleIntercept = signed, bits, 1, -1024
    read = np.array([turned - 1024])
    np.testing.assert_array_equal(dicom_pixels._turned_back(read, header), [80])


def test_a_deflated_series_is_read(tmp_path):
    paths = write_ct(tmp_path / "ct")
    for path in paths:
        data = pydicom.dcmread(path)
        data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        pydicom.dcmwrite(path, data, little_endian=True, implicit_vr=False)
    np.testing.assert_array_equal(read_volume(tmp_path / "ct").array[10], slice_hu(-100.0))


def test_files_without_the_bytes_in_front_are_read(tmp_path):
    write_ct(tmp_path / "ct", preamble=False)
    np.testing.assert_array_equal(read_volume(tmp_path / "ct").array[10], slice_hu(-100.0))


def test_images_that_name_no_series_are_one_series_and_that_is_said(tmp_path):
    write_ct(tmp_path / "ct", change=lambda data, _k: delattr(data, "SeriesInstanceUID"))
    volume = read_volume(tmp_path / "ct")
    assert volume.sizeIJK[2] == 20
    assert names_of(volume) == [WarningName.FILES_LEFT_OUT]
    assert "do not say to which series" in volume.warnings[0]


def test_a_damaged_file_is_left_out_and_named_and_the_rest_goes_on(tmp_path):
    paths = write_ct(tmp_path / "ct")
    raw = paths[0].read_bytes()
    at = raw.index(b"\x28\x00\x10\x00US\x02\x00")
    paths[0].write_bytes(
        raw[:at] + b"\x28\x00\x10\x00US\x03\x00" + raw[at + 8 :]
    )  # an element of a length it cannot have
    volume = read_volume(tmp_path / "ct")
    assert volume.sizeIJK[2] == 19
    (warning,) = volume.warnings
    assert warning.name is WarningName.FILES_LEFT_OUT
    assert "IM000.dcm" in warning


@pytest.mark.parametrize(
    "damage",
    [
        lambda header: delattr(header, "Columns"),
        lambda header: setattr(header, "Rows", [20, 20]),
        lambda header: setattr(header.file_meta, "TransferSyntaxUID", "1.2.3"),
    ],
)
def test_a_header_without_what_every_image_has_is_refused_by_its_file(tmp_path, damage):
    path = write_ct(tmp_path / "ct")[3]
    header = pydicom.dcmread(path)
    damage(header)
    header.save_as(path, implicit_vr=False, little_endian=True)
    with pytest.raises(VolumeError, match=path.name):
        read_volume(tmp_path / "ct")


def test_a_folder_of_damaged_files_only_names_them(tmp_path):
    (tmp_path / "a.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 50)
    with pytest.raises(VolumeError, match=r"holds no DICOM images \(1 damaged: a\.dcm\)"):
        read_volume(tmp_path)


def test_copies_of_the_same_instances_are_named_as_such(tmp_path):
    write_ct(tmp_path / "ct")
    shutil.copytree(tmp_path / "ct", tmp_path / "ct" / "copy")
    with pytest.raises(VolumeError, match="several images lie at the same place.*20 files are copies of others"):
        read_volume(tmp_path / "ct")


def test_one_image_of_a_series_is_read_and_the_others_are_pointed_to(tmp_path):
    paths = write_ct(tmp_path / "ct", change=lambda data, _k: setattr(data, "Modality", "MR"))
    volume = read_volume(paths[10])
    assert hu_at(volume, BALL_RAS) == BALL_HU
    assert names_of(volume) == [WarningName.MODALITY, WarningName.SINGLE_SLICE, WarningName.SINGLE_FILE]
    assert "one of 20 images" in volume.warnings[2]


def test_the_index_of_a_disc_is_no_image(tmp_path):
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 400)
    with pytest.raises(VolumeError, match="DICOMDIR is the index of a disc"):
        read_volume(tmp_path / "DICOMDIR")


@pytest.mark.parametrize("modality", ["SEG", "RTSTRUCT", "SR"])
def test_what_is_no_image_is_not_taken_for_the_ct_and_does_not_hide_it(tmp_path, modality):
    write_ct(tmp_path / "study")
    write_ct(tmp_path / "study" / "b", heights=[0.0], change=lambda data, _k: setattr(data, "Modality", modality))
    assert choose_series(tmp_path / "study", None).modality == "CT"
    with pytest.raises(VolumeError, match=r"b is not a CT but a "):
        read_volume(tmp_path / "study" / "b")


def test_announced_pixels_that_no_ct_has_are_refused_before_they_are_read(tmp_path):
    def huge(data, _k):
        data.Rows = data.Columns = 65_535

    write_ct(tmp_path / "ct", heights=[0.0], change=huge)
    with pytest.raises(VolumeError, match="65535 x 65535 pixels"):
        read_volume(tmp_path / "ct")


@pytest.mark.parametrize("compressor", ["JPEG2000", "JPEGLS"])
@pytest.mark.parametrize("shown", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("is_signed", [0, 1])
def test_packed_images_are_read_in_hu_however_they_are_shown(tmp_path, compressor, shown, is_signed):
    heights = [-104.0, -102.0, -100.0]

    def packed(data, k):
        stored = (slice_hu(heights[k]) + 1024).astype(np.int16 if is_signed else np.uint16)
        writer = sitk.ImageFileWriter()
        writer.SetFileName(str(tmp_path / "packed.dcm"))
        writer.UseCompressionOn()
        writer.SetCompressor(compressor)
        writer.Execute(sitk.GetImageFromArray(stored[None]))
        source = pydicom.dcmread(tmp_path / "packed.dcm")
        data.file_meta.TransferSyntaxUID = source.file_meta.TransferSyntaxUID
        data.PhotometricInterpretation, data.PixelRepresentation = shown, is_signed
        data.PixelData = source.PixelData
        data["PixelData"].is_undefined_length = True

    write_ct(tmp_path / "ct", heights=heights, change=packed)
    volume = read_volume(tmp_path / "ct")
    np.testing.assert_array_equal(volume.array[2], slice_hu(-100.0))


def test_a_decoder_that_crashes_is_one_line_and_not_the_end(tmp_path, monkeypatch):
    def packed(data, _k):
        data.file_meta.TransferSyntaxUID = JPEG2000Lossless
        data.PixelData = pydicom.encaps.encapsulate([b"\xff\x4f\xff\x51no codestream"])
        data["PixelData"].is_undefined_length = True

    write_ct(tmp_path / "ct", change=packed)
    with pytest.raises(VolumeError, match=r"^ct: the decoder of its packed images failed"):
        read_volume(tmp_path / "ct")
    monkeypatch.setattr(dicom_pixels, "_CHILD", "import os; os.abort()")
    with pytest.raises(VolumeError, match=r"^ct: the decoder of its packed images crashed"):
        read_volume(tmp_path / "ct")


def test_what_the_decoder_s_own_process_reads_is_what_this_one_would(tmp_path):
    paths = write_ct(tmp_path / "ct")
    apart, place = dicom_pixels._read_apart(paths, name="ct")
    here, here_place = read_by_itk(paths)
    np.testing.assert_array_equal(apart, here)
    np.testing.assert_array_equal(place, here_place)


# --- slices that are not evenly spaced

MISSING = tuple(-120.0 + 2.0 * k for k in range(20) if k not in range(3, 8))  # a hole from -116 to -104
TWO_STACKS = (*(-120.0 + k for k in range(16)), *(-100.0 + 5.0 * k for k in range(10)))


@pytest.mark.parametrize("heights", [MISSING, TWO_STACKS])
def test_slices_are_taken_at_their_real_positions(tmp_path, heights):
    write_ct(tmp_path / "ct", heights=heights)
    volume = read_ct(tmp_path / "ct")
    assert names_of(volume) == [WarningName.UNEVEN_SLICES]
    k = np.arange(volume.sizeIJK[2])
    np.testing.assert_allclose(volume.ijkToRAS[2, 3] + k[-1] * volume.ijkToRAS[2, 2], heights[-1])
    for z in heights:  # every slice that was acquired is where it belongs, voxel by voxel
        index = (z - volume.ijkToRAS[2, 3]) / volume.ijkToRAS[2, 2]
        if abs(index - round(index)) < 1e-6:
            np.testing.assert_array_equal(volume.array[round(index)], slice_hu(z))
    assert hu_at(volume, BALL_RAS) == BALL_HU


def test_even_slices_are_left_alone(tmp_path):
    write_ct(tmp_path / "ct")
    volume = read_ct(tmp_path / "ct")
    assert volume.slicesAtK is None
    assert volume.missingSlices == ()
    assert volume.sizeIJK[2] == 20


def test_a_box_in_a_gap_is_refused_and_one_that_reaches_into_it_is_measured(tmp_path):
    write_ct(tmp_path / "ct", heights=MISSING)
    volume = read_ct(tmp_path / "ct")
    inside, across = (LesionBox([-10, 15, z], [8, 8, 6], name="L1") for z in (-110.0, -104.0))
    with pytest.raises(BoxError, match=r"'L1' lies in a gap of 12\.0 mm of ct where slices are missing"):
        require_overlap(volume, inside)
    require_overlap(volume, across)
    assert in_missing_slices_mm(volume, across) == pytest.approx(3.0)
    assert in_missing_slices_mm(volume, LesionBox([-10, 15, -95], [8, 8, 6])) == 0


def test_thick_slices_beside_thin_ones_are_no_gap(tmp_path):
    write_ct(tmp_path / "ct", heights=TWO_STACKS)
    volume = read_ct(tmp_path / "ct")
    assert volume.missingSlices == ()


def test_stacks_far_apart_are_refused_instead_of_filled_up(tmp_path):
    write_ct(tmp_path / "ct", heights=(0.0, 1.0, 2.0, 3.0, 900.0))
    with pytest.raises(VolumeError, match="1.00 to 897.00 mm apart; these are several stacks"):
        read_ct(tmp_path / "ct")


def test_a_box_that_only_grazes_the_ct_is_refused(tmp_path):
    write_ct(tmp_path / "ct")
    volume = read_volume(tmp_path / "ct")
    left = 6.5  # the outer face of the first column, RAS
    for x, is_refused in ((left + 3.99, True), (left + 3.51, True), (left + 3.3, False), (left - 0.2, False)):
        box = LesionBox([x, 15, -100], [8, 8, 8], name="L1")
        if is_refused:
            with pytest.raises(BoxError, match=r"but for its edge: it ends 0\.\d\d mm before the first voxel"):
                require_overlap(volume, box)
        else:
            require_overlap(volume, box)


def test_a_scout_under_the_uid_of_its_series_is_refused_with_what_to_do(tmp_path):
    def lengthwise(data, _k):
        data.ImageOrientationPatient, data.ImageType = [0, 1, 0, 0, 0, -1], ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    write_ct(tmp_path / "ct", uid="1.2.826.0.1.3680043.8.498.5")
    write_ct(tmp_path / "ct" / "scout", uid="1.2.826.0.1.3680043.8.498.5", heights=[-100.0], change=lengthwise)
    with pytest.raises(VolumeError, match="a scout among them.*give a folder with one stack of slices"):
        read_volume(tmp_path / "ct")


@pytest.mark.parametrize("order", [1, -1], ids=["feet first", "head first"])
@pytest.mark.parametrize("rescale_of", ["all frames", "each frame"])
def test_an_enhanced_ct_alone_in_its_folder_is_read_like_the_file(tmp_path, order, rescale_of):
    (tmp_path / "ct").mkdir()
    write_enhanced_ct(tmp_path / "ct" / "E.dcm", order=order, rescale_of=rescale_of)
    for path in (tmp_path / "ct", tmp_path / "ct" / "E.dcm"):
        volume = read_volume(path)
        assert hu_at(volume, BALL_RAS) == BALL_HU
        assert hu_at(volume, BALL_RAS + [0, 0, 8]) == LUNG_HU


def test_the_decoder_s_process_imports_only_what_decodes():
    text = "import LesionLib.io.native_images, sys; print({'torch', 'pydicom', 'scipy'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"
