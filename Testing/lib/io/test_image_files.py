"""Image files and odd DICOM folders as CTs: the right values at the right place in RAS, or one line that says why not."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from LesionLib.errors import VolumeError, WarningName
from LesionLib.geometry import transformed_points
from LesionLib.io.image_files import _rescaled
from LesionLib.io.volumes import read_image, read_volume
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RLELossless

SECRETS = ("Doe", "John", "MRN-4711")
ROWS, COLUMNS, ROW_MM, COLUMN_MM = 32, 40, 0.8, 0.5


@pytest.fixture
def ct_image() -> sitk.Image:
    """An oblique int16 CT of 7 x 6 x 5 voxels."""
    image = sitk.GetImageFromArray(np.arange(210, dtype=np.int16).reshape(5, 6, 7) * 7 - 1000)
    image.SetSpacing((0.5, 0.8, 2.0))
    image.SetOrigin((-11.0, 22.0, 33.0))
    turn = sitk.Euler3DTransform()
    turn.SetRotation(0.3, -0.2, 0.5)
    image.SetDirection(turn.GetMatrix())
    return image


@pytest.fixture
def write_series(tmp_path) -> Callable[..., Path]:
    """Write a CT series of ``hu`` (k, row, column), each slice at ``origin + k * step`` in LPS; returns its folder."""

    def write(
        hu: np.ndarray,
        *,
        folder: str = "ct",
        step: tuple[float, float, float] = (0.0, 0.0, 2.0),
        axes: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        leave_out: tuple[int, ...] = (),
        packed: bool = False,
        **fields: object,
    ) -> Path:
        path = tmp_path / folder
        path.mkdir(parents=True, exist_ok=True)
        order = np.random.default_rng(0).permutation(len(hu))
        for k in set(range(len(hu))) - set(leave_out):
            meta = FileMetaDataset()
            meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
            data = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
            data.PatientName, data.PatientID, data.StudyInstanceUID = "Doe^John", "MRN-4711", "1.9"
            data.SeriesInstanceUID, data.Modality, data.SeriesNumber, data.InstanceNumber = "1.2.3", "CT", 3, int(k) + 1
            data.ImageOrientationPatient, data.PixelSpacing = list(axes), [ROW_MM, COLUMN_MM]
            data.ImagePositionPatient = [round(float(v), 6) for v in np.array([5.0, -7.0, 11.0]) + k * np.array(step)]
            data.SliceThickness = 2.0
            data.Rows, data.Columns = hu.shape[1:]
            data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
            data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
            data.RescaleSlope, data.RescaleIntercept = 1, -1024
            for name, value in fields.items():
                setattr(data, name, value(k) if callable(value) else value)
            data.SOPClassUID = CTImageStorage
            data.SOPInstanceUID = meta.MediaStorageSOPInstanceUID = f"{data.SeriesInstanceUID}.{k + 1}"
            stored = (hu[k] - float(data.RescaleIntercept)) / float(data.RescaleSlope)
            data.PixelData = np.round(stored).astype(np.int16).tobytes()
            if packed:
                data.compress(RLELossless)
            # The order of the names is not the order of the slices.
            pydicom.dcmwrite(path / f"IM{order[k]:03d}", data, enforce_file_format=True)
        return path

    return write


@pytest.fixture
def hu() -> np.ndarray:
    """Even HU of six slices, no two voxels of a row or column alike."""
    return np.random.default_rng(1).integers(-512, 512, (6, ROWS, COLUMNS)) * 2


# --- image files


@pytest.mark.parametrize("suffix", [".nrrd", ".nhdr", ".nii", ".nii.gz", ".mha", ".mhd"])
def test_an_image_file_has_simpleitk_s_values_and_its_geometry_in_ras(tmp_path, ct_image, suffix):
    sitk.WriteImage(ct_image, str(tmp_path / f"ct{suffix}"))
    volume = read_image(tmp_path / f"ct{suffix}")
    np.testing.assert_array_equal(volume.array, sitk.GetArrayFromImage(ct_image))
    assert volume.name == f"ct{suffix}"
    assert volume.warnings == ()
    for index in ((0, 0, 0), (6, 0, 0), (0, 5, 0), (6, 5, 4)):
        lps = ct_image.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose(transformed_points(volume.ijkToRAS, index), np.array(lps) * [-1, -1, 1], atol=1e-4)


def test_a_left_handed_image_stays_left_handed(tmp_path, ct_image):
    flipped = sitk.Flip(ct_image, (False, False, True))
    sitk.WriteImage(flipped, str(tmp_path / "ct.nrrd"))
    volume = read_image(tmp_path / "ct.nrrd")
    assert np.linalg.det(volume.ijkToRAS[:3, :3]) < 0
    original = volume.array[4, 2, 3]
    assert original == sitk.GetArrayFromImage(flipped)[4, 2, 3]


@pytest.mark.parametrize(
    ("name", "array", "is_vector", "said"),
    [
        ("four.nii.gz", np.zeros((2, 3, 4, 5), np.int16), False, "has 4 dimensions"),
        ("flat.mha", np.zeros((4, 5), np.int16), False, "has 2 dimensions"),
        ("colour.nrrd", np.zeros((3, 4, 5, 3), np.uint8), True, "every voxel has 3 values"),
        ("holes.nrrd", np.full((3, 4, 5), np.nan, np.float32), False, "60 voxels are NaN"),
        ("phases.nrrd", np.zeros((3, 4, 5), np.complex64), False, "complex64"),
    ],
)
def test_an_image_that_cannot_be_a_ct_is_refused_by_its_file_name(tmp_path, name, array, is_vector, said):
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=is_vector), str(tmp_path / name))
    with pytest.raises(VolumeError, match=said) as error:
        read_volume(tmp_path / name)
    assert str(error.value).startswith(f"{name}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "said"), [("absent.nrrd", "does not exist"), ("notes.txt", "cannot be read as an")])
def test_a_missing_path_and_a_text_file_are_refused_in_one_line(tmp_path, name, said):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(VolumeError, match=said) as error:
        read_volume(tmp_path / name)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_a_file_that_was_cut_short_is_refused_instead_of_filled_up(tmp_path, suffix):
    path = tmp_path / f"ct{suffix}"
    noise = np.random.default_rng(0).integers(-1000, 1000, (6, 20, 20)).astype(np.int16)
    sitk.WriteImage(sitk.GetImageFromArray(noise), str(path), True)
    whole = path.read_bytes()
    for kept in (len(whole) * 2 // 3, len(whole) - 40):
        path.write_bytes(whole[:kept])
        with pytest.raises(VolumeError, match=r"is cut short|cannot be read") as error:
            read_volume(path)
        assert path.name in str(error.value)
        assert "\n" not in str(error.value)


def test_a_damaged_nifti_is_refused_and_one_packed_in_parts_is_read(tmp_path, ct_image):
    path = tmp_path / "ct.nii.gz"
    sitk.WriteImage(ct_image, str(tmp_path / "ct.nii"))
    raw = (tmp_path / "ct.nii").read_bytes()
    path.write_bytes(gzip.compress(raw[:500]) + gzip.compress(raw[500:]))
    np.testing.assert_array_equal(read_volume(path).array, sitk.GetArrayFromImage(ct_image))
    damaged = bytearray(gzip.compress(raw))
    damaged[-6] ^= 0xFF  # the checksum
    path.write_bytes(damaged)
    with pytest.raises(VolumeError, match=r"cut short or damaged|cannot be read as an image"):
        read_volume(path)


def test_a_scaled_nifti_is_read_in_hu(tmp_path, ct_image):
    path = tmp_path / "ct.nii"
    sitk.WriteImage(ct_image, str(path))
    raw = bytearray(path.read_bytes())
    raw[112:120] = np.array([2.0, -50.0], "<f4").tobytes()  # scl_slope, scl_inter
    path.write_bytes(raw)
    np.testing.assert_allclose(read_volume(path).array, sitk.GetArrayFromImage(ct_image) * 2.0 - 50.0)


# --- DICOM folders


@pytest.mark.parametrize("slope", [1, 2, 0.5])
def test_hu_are_right_and_slices_in_order_whatever_the_files_are_called(write_series, hu, slope):
    volume = read_volume(write_series(hu, RescaleSlope=slope))
    np.testing.assert_array_equal(volume.array, hu)
    np.testing.assert_allclose(volume.ijkToRAS[:, 3], [-5, 7, 11, 1])
    np.testing.assert_allclose(volume.spacingMm, [COLUMN_MM, ROW_MM, 2.0])
    assert volume.warnings == ()


def test_every_slice_is_rescaled_by_its_own_numbers(write_series, hu):
    folder = write_series(hu, RescaleSlope=lambda k: 1 + k % 2, RescaleIntercept=lambda k: -1024 - 2 * int(k))
    np.testing.assert_array_equal(read_volume(folder).array, hu)


def test_a_losslessly_compressed_series_is_read(write_series, hu):
    np.testing.assert_array_equal(read_volume(write_series(hu, packed=True)).array, hu)


@pytest.mark.parametrize("head_first", [True, False])
def test_an_oblique_series_lies_where_its_header_says(write_series, hu, head_first):
    a, b = np.deg2rad(20), np.deg2rad(12)
    row = np.array([np.cos(a), np.sin(a), 0])
    column = np.array([-np.sin(a) * np.cos(b), np.cos(a) * np.cos(b), np.sin(b)])
    step = np.cross(row, column) * (2.0 if head_first else -2.0)
    volume = read_volume(write_series(hu, step=tuple(step), axes=(*row, *column)))
    for k, j, i in ((0, 0, 0), (5, ROWS - 1, 0), (2, 3, COLUMNS - 1)):
        lps = np.array([5.0, -7.0, 11.0]) + k * step + j * ROW_MM * column + i * COLUMN_MM * row
        index = transformed_points(volume.rasToIJK, lps * [-1, -1, 1])
        np.testing.assert_allclose(index, np.round(index), atol=1e-3)
        found = tuple(np.round(index).astype(int)[::-1])
        assert volume.array[found] == hu[k, j, i]


def test_a_tilted_gantry_is_kept_as_a_shear(write_series, hu):
    volume = read_volume(write_series(hu, step=(0.0, 0.7, 2.0)))
    np.testing.assert_allclose(volume.ijkToRAS[:3, 2], [0, -0.7, 2.0], atol=1e-6)
    np.testing.assert_allclose(volume.sliceNormalRAS, [0, 0, 1], atol=1e-6)
    assert volume.sliceDistanceMm == pytest.approx(2.0)
    np.testing.assert_array_equal(volume.array, hu)
    assert volume.warnings == ()


def test_a_left_out_slice_is_a_warning_that_names_the_gap(write_series, hu):
    volume = read_volume(write_series(hu, leave_out=(2,)))
    (warning,) = volume.warnings
    assert warning.name is WarningName.UNEVEN_SLICES
    assert "2.00 to 4.00 mm" in warning
    np.testing.assert_array_equal(volume.array, np.delete(hu, 2, axis=0))


def test_a_single_slice_keeps_its_thickness_and_says_so(write_series, hu):
    volume = read_volume(write_series(hu[:1], SliceThickness=3.5))
    (warning,) = volume.warnings
    assert warning.name is WarningName.SINGLE_SLICE
    assert volume.sliceDistanceMm == pytest.approx(3.5)


def test_series_in_folders_below_are_found_and_chosen_by_number_or_uid(write_series, hu, tmp_path):
    write_series(hu, folder="study/a")
    write_series(hu[:4], folder="study/deeper/b", SeriesInstanceUID="1.2.9", SeriesNumber=8)
    study = tmp_path / "study"
    with pytest.raises(VolumeError, match=r"holds 2 series; choose one with --series NUMBER") as error:
        read_volume(study)
    assert "1: CT, series number 3, 6 images of 40 x 32; 2: CT, series number 8, 4 images" in str(error.value)
    assert read_volume(study, series="1").sizeIJK == (COLUMNS, ROWS, 6)
    assert read_volume(study, series="1.2.9").sizeIJK == (COLUMNS, ROWS, 4)
    for unknown in ("3", "0", "1.2", ""):
        with pytest.raises(VolumeError, match="choose one with --series"):
            read_volume(study, series=unknown)


def test_a_wrong_series_is_refused_even_where_there_is_only_one(write_series, hu):
    with pytest.raises(VolumeError, match="has no series '7'"):
        read_volume(write_series(hu), series="7")


@pytest.mark.parametrize("content", [None, "some notes"])
def test_a_folder_without_images_is_refused(tmp_path, content):
    folder = tmp_path / "folder"
    folder.mkdir()
    if content:
        (folder / "a.txt").write_text(content)
        (folder / "b.csv").write_text(content)
    with pytest.raises(VolumeError, match="holds no DICOM images"):
        read_volume(folder)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"ImagePositionPatient": [1.0, 2.0]}, "without ImagePositionPatient"),
        ({"ImageOrientationPatient": [1, 0, 0]}, "without ImageOrientationPatient"),
        ({"PixelSpacing": [0.5]}, "without PixelSpacing"),
        ({"PixelSpacing": []}, "without PixelSpacing"),
        ({"PixelSpacing": [0, 0]}, "geometry is broken"),
        ({"SamplesPerPixel": 3}, "colour images"),
        ({"ImagePositionPatient": [0.0, 0.0, 0.0]}, "several images lie at the same place"),
    ],
)
def test_a_series_with_an_unusable_header_is_refused_in_one_line_that_names_nobody(write_series, hu, fields, said):
    with pytest.raises(VolumeError, match=said) as error:
        read_volume(write_series(hu, **fields))
    assert "\n" not in str(error.value)
    assert not any(secret in str(error.value) for secret in SECRETS)


def test_a_position_that_is_no_number_is_refused(write_series, hu):
    folder = write_series(hu)
    path = next(folder.iterdir())
    path.write_bytes(path.read_bytes().replace(b"0.8\\0.5 ", b"abc\\0.5 "))
    with pytest.raises(VolumeError, match="without PixelSpacing"):
        read_volume(folder)


def test_an_empty_optional_entry_is_no_hindrance(write_series, hu):
    volume = read_volume(write_series(hu, SamplesPerPixel=None, SeriesNumber=None, SliceThickness=None))
    np.testing.assert_array_equal(volume.array, hu)


def test_nothing_that_names_the_patient_leaves_the_reader(write_series, hu):
    volume = read_volume(write_series(hu, leave_out=(3,), Modality="MR"))
    assert {w.name for w in volume.warnings} == {WarningName.MODALITY, WarningName.UNEVEN_SLICES}
    assert volume.name == "ct"
    assert not any(secret in f"{volume!r} {volume.warnings}" for secret in SECRETS)


@pytest.mark.parametrize(
    ("slope", "intercept", "kind"), [(1.0, -1024.0, np.int16), (2.0, -50.0, np.int16), (30.0, 0.0, np.int32)]
)
def test_whole_numbers_are_rescaled_in_the_smallest_integers_that_hold_them(slope, intercept, kind):
    stored = np.array([[[0, 1024, 3000], [-5, 7, 4000]]], np.int16)
    expected = stored.astype(np.int64) * int(slope) + int(intercept)
    found = _rescaled(stored, slope, intercept)
    assert found.dtype == kind
    assert np.array_equal(found, expected)
    assert np.shares_memory(found, stored) == (kind is np.int16)  # a long CT is in memory once
