"""A CT series as other programs write it: a ball of 80 HU in lung, every element open to change, slices at any position."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid

BALL_RAS, RADIUS_MM, BALL_HU, LUNG_HU = np.array([-10.0, 15.0, -100.0]), 6.0, 80, -850
FIRST_LPS, PIXEL_MM, SIZE = np.array([-6.0, -31.0, -120.0]), 1.0, 32


def slice_hu(z: float) -> np.ndarray:
    """HU of the slice at height ``z``, (row, column)."""
    row, column = np.mgrid[:SIZE, :SIZE]
    lps = np.stack([FIRST_LPS[0] + column * PIXEL_MM, FIRST_LPS[1] + row * PIXEL_MM, np.full_like(row, z, float)], -1)
    inside = np.linalg.norm(lps * [-1, -1, 1] - BALL_RAS, axis=-1) < RADIUS_MM
    hu = np.full((SIZE, SIZE), LUNG_HU, np.int16)
    hu[:3], hu[-3:] = -1000, 300
    hu[inside] = BALL_HU
    return hu


def write_ct(
    folder: Path,
    *,
    heights: Sequence[float] = tuple(-120.0 + 2.0 * k for k in range(20)),
    change: Callable[[FileDataset, int], None] | None = None,
    preamble: bool = True,
    uid: str | None = None,
) -> list[Path]:
    """The files of the series, from the feet up. ``change``: what another program does to a dataset before it is written."""
    folder.mkdir(parents=True, exist_ok=True)
    uid, study, frame = uid or generate_uid(), generate_uid(), generate_uid()
    paths = []
    for k, z in enumerate(heights):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
        meta.MediaStorageSOPInstanceUID = generate_uid()
        data = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        data.PatientName, data.PatientID, data.PatientBirthDate, data.PatientSex = "Doe^John", "4711", "19500101", "O"
        data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = study, uid, frame
        data.StudyDate, data.StudyTime, data.StudyID, data.AccessionNumber = "20200101", "120000", "1", "7"
        data.ReferringPhysicianName, data.Modality, data.SeriesNumber, data.InstanceNumber = "", "CT", 1, k + 1
        data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        data.ImagePositionPatient = [FIRST_LPS[0], FIRST_LPS[1], float(z)]
        data.PixelSpacing, data.SliceThickness, data.Manufacturer = [PIXEL_MM, PIXEL_MM], 2.0, "X"
        data.Rows = data.Columns = SIZE
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated = data.BitsStored = 16
        data.HighBit, data.PixelRepresentation = 15, 1
        data.RescaleSlope, data.RescaleIntercept = 1, -1024
        data.PixelData = (slice_hu(z) + 1024).astype(np.int16).tobytes()
        data["PixelData"].VR = "OW"
        if change is not None:
            change(data, k)
        path = folder / f"IM{k:03d}.dcm"
        if preamble:
            data.save_as(path, enforce_file_format=True)
        else:
            del data.file_meta
            data.preamble = None
            data.save_as(path, implicit_vr=True, little_endian=True)
        paths.append(path)
    return paths


def write_enhanced_ct(path: Path, *, order: int = 1, rescale_of: str = "all frames") -> Path:
    """The same series as one file of an enhanced CT; ``order``: 1 for frames from the feet up, -1 for the head first.

    ``rescale_of``: "all frames" together, or "each frame" for itself.
    """
    source = write_ct(path.parent / "source", heights=[-100.0])[0]
    data = dcmread(source)
    source.unlink()
    source.parent.rmdir()
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    for keyword in (
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "RescaleSlope",
        "RescaleIntercept",
    ):
        delattr(data, keyword)

    def group(**values: object) -> list[Dataset]:
        item = Dataset()
        for name, value in values.items():
            setattr(item, name, value)
        return [item]

    heights = [-120.0 + 2.0 * k for k in range(20)][::order]
    rescale = {
        "PixelValueTransformationSequence": group(RescaleSlope=1, RescaleIntercept=-1024, RescaleType="HU"),
    }
    data.SharedFunctionalGroupsSequence = group(
        PlaneOrientationSequence=group(ImageOrientationPatient=[1, 0, 0, 0, 1, 0]),
        PixelMeasuresSequence=group(PixelSpacing=[PIXEL_MM, PIXEL_MM], SliceThickness=2, SpacingBetweenSlices=2),
        **(rescale if rescale_of == "all frames" else {}),
    )
    data.PerFrameFunctionalGroupsSequence = [
        group(
            PlanePositionSequence=group(ImagePositionPatient=[FIRST_LPS[0], FIRST_LPS[1], z]),
            **(rescale if rescale_of == "each frame" else {}),
        )[0]
        for z in heights
    ]
    data.NumberOfFrames = len(heights)
    data.PixelData = b"".join((slice_hu(z) + 1024).astype(np.int16).tobytes() for z in heights)
    data["PixelData"].VR = "OW"
    data.save_as(path, enforce_file_format=True)
    return path
