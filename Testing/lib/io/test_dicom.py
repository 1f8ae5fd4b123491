"""DICOM folders: the right series in the right order at the right place, or a reason why not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from LesionLib.errors import VolumeError, WarningName
from LesionLib.io.volumes import choose_series, find_series, ijk_to_ras, read_volume
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

SECRET = "Doe^John"


@pytest.fixture
def series(tmp_path) -> Callable[..., Path]:
    """Write a small series: values 10 k + j in HU, 0.5 x 0.8 x 2 mm; keyword arguments override header fields."""

    def write(folder: str = "ct", *, uid: str = "1.2.3", count: int = 5, first: int = 0, **fields) -> Path:
        path = tmp_path / folder
        path.mkdir(exist_ok=True)
        for k in range(first, first + count):
            meta = FileMetaDataset()
            meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
            meta.MediaStorageSOPInstanceUID = f"{uid}.{k + 1}"
            data = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
            data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
            data.PatientName, data.PatientID, data.StudyInstanceUID = SECRET, "4711", "1.9"
            data.SeriesInstanceUID, data.Modality, data.SeriesNumber, data.InstanceNumber = uid, "CT", 3, k + 1
            data.ImageOrientationPatient, data.PixelSpacing = [1, 0, 0, 0, 1, 0], [0.8, 0.5]
            data.ImagePositionPatient, data.SliceThickness = [10.0, 20.0, 30.0 + 2.0 * k], 2.0
            data.Rows, data.Columns, data.SamplesPerPixel = 4, 6, 1
            data.PhotometricInterpretation, data.BitsAllocated, data.BitsStored = "MONOCHROME2", 16, 16
            data.HighBit, data.PixelRepresentation = 15, 0
            data.RescaleSlope, data.RescaleIntercept = 2, -1000
            hu = 10 * k + 2 * np.arange(4)[:, None] + np.zeros(6)
            data.PixelData = ((hu + 1000) / 2).astype(np.uint16).tobytes()
            for name, value in fields.items():
                setattr(data, name, value(k) if callable(value) else value)
            pydicom.dcmwrite(path / f"{(k * 37) % 100:02d}_{uid}.dcm", data, enforce_file_format=True)
        return path

    return write


def test_slices_are_sorted_rescaled_and_placed_in_ras(series):
    volume = read_volume(series())
    assert volume.sizeIJK == (6, 4, 5)
    np.testing.assert_array_equal(volume.array[:, 1, 0], [2, 12, 22, 32, 42])
    assert volume.array.dtype == np.int16
    np.testing.assert_allclose(volume.ijkToRAS[:, 3], [-10, -20, 30, 1])
    np.testing.assert_allclose(np.diag(volume.ijkToRAS), [-0.5, -0.8, 2, 1])
    assert volume.warnings == ()


def test_the_geometry_is_simpleitk_s_for_an_oblique_series(series):
    a, b = np.deg2rad(20), np.deg2rad(10)
    row = np.array([np.cos(a), np.sin(a), 0])
    column = np.array([-np.sin(a) * np.cos(b), np.cos(a) * np.cos(b), np.sin(b)])
    normal = np.cross(row, column)
    folder = series(
        ImageOrientationPatient=[float(v) for v in (*row, *column)],
        ImagePositionPatient=lambda k: [round(float(v), 6) for v in np.array([1.0, 2.0, 3.0]) + 2.0 * k * normal],
    )
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    volume = read_volume(folder)
    np.testing.assert_allclose(volume.ijkToRAS, ijk_to_ras(image), atol=1e-4)
    np.testing.assert_array_equal(volume.array, sitk.GetArrayFromImage(image))


def test_slices_stored_from_head_to_feet_still_run_along_their_normal(series):
    volume = read_volume(series(ImagePositionPatient=lambda k: [0.0, 0.0, -2.0 * k]))
    assert volume.ijkToRAS[2, 2] == pytest.approx(2.0)
    np.testing.assert_array_equal(volume.array[:, 0, 0], [40, 30, 20, 10, 0])


def test_other_files_and_folders_inside_are_no_hindrance(series):
    folder = series()
    (folder / "notes.txt").write_text("hello")
    (folder / "deeper").mkdir()
    (folder / "DICOMDIR").write_bytes(b"\0" * 300)
    assert read_volume(folder).sizeIJK[2] == 5


def test_two_series_are_listed_without_naming_anybody_and_either_can_be_chosen(series):
    folder = series(uid="1.2.3")
    series(uid="1.2.4", count=3, SeriesNumber=8)
    assert [len(found.slices) for found in find_series(folder)] == [5, 3]
    with pytest.raises(VolumeError, match=r"holds 2 series; choose one with --series NUMBER: 1: CT.*2: CT") as error:
        choose_series(folder, None)
    assert SECRET not in str(error.value)
    assert "4711" not in str(error.value)
    assert read_volume(folder, series="2").sizeIJK[2] == 3
    assert read_volume(folder, series="1.2.3").sizeIJK[2] == 5


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"ImagePositionPatient": lambda k: [0.0, 0.0, 2.0 * (k // 2)]}, "several images lie at the same place"),
        (
            {"ImageOrientationPatient": lambda k: [1, 0, 0, 0, 1, 0] if k else [0, 1, 0, 0, 0, 1]},
            "differ in size or direction",
        ),
        ({"PixelSpacing": lambda k: [0.8, 0.5 + 0.1 * k]}, "differ in size or direction"),
        ({"SamplesPerPixel": 3}, "colour images"),
        ({"ImagePositionPatient": None}, "without ImagePositionPatient"),
    ],
)
def test_what_is_no_single_stack_of_grey_slices_is_refused(series, fields, said):
    with pytest.raises(VolumeError, match=said) as error:
        read_volume(series(**fields))
    assert "\n" not in str(error.value)
    assert SECRET not in str(error.value)


def test_a_damaged_image_is_refused_in_one_line(series):
    folder = series(Rows=64, Columns=64, PixelData=bytes(2 * 64 * 64))
    path = next(folder.iterdir())
    data = pydicom.dcmread(path)
    data.PixelData = data.PixelData[:10]
    data.save_as(path)
    with pytest.raises(VolumeError, match="is cut short"):
        read_volume(folder)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"Modality": "MR"}, WarningName.MODALITY),
        ({"count": 1}, WarningName.SINGLE_SLICE),
        ({"ImagePositionPatient": lambda k: [0.0, 0.0, 2.0 * k + (k > 2) * 2.0]}, WarningName.UNEVEN_SLICES),
    ],
)
def test_what_is_unusual_is_a_warning(series, arguments, name):
    (warning,) = read_volume(series(**arguments)).warnings
    assert warning.name is name
    assert SECRET not in warning


def test_a_series_number_for_a_file_and_a_path_that_is_not_there_are_refused(tmp_path):
    sitk.WriteImage(sitk.Image([3, 3, 3], sitk.sitkInt16), str(tmp_path / "ct.nrrd"))
    with pytest.raises(VolumeError, match="--series is for a DICOM folder"):
        read_volume(tmp_path / "ct.nrrd", series="1")
    with pytest.raises(VolumeError, match="does not exist"):
        read_volume(tmp_path / "absent")
    (tmp_path / "text.nrrd").write_text("no image")
    with pytest.raises(VolumeError, match="cannot be read as an image"):
        read_volume(tmp_path / "text.nrrd")


@pytest.mark.parametrize("name", ["nan.nii", "nan.nii.gz", "nan.nrrd", "nan.mha"])
def test_nans_are_refused_in_every_format(tmp_path, name):
    array = np.full((5, 6, 7), -700, np.float32)
    array[2, 3, 4], array[0, 0, 0] = np.nan, np.inf
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / name))
    with pytest.raises(VolumeError, match="2 voxels are NaN or infinite"):
        read_volume(tmp_path / name)
    sitk.WriteImage(sitk.GetImageFromArray(np.nan_to_num(array, posinf=0)), str(tmp_path / name))
    assert read_volume(tmp_path / name).sizeIJK == (7, 6, 5)
