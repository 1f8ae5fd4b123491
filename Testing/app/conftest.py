"""Small CTs and files for the command line, made from phantoms."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from LesionLensApp.cli import main
from LesionLib.geometry import LPS_TO_RAS, CTVolume, LesionBox
from LesionLib.phantom.nodules import PhantomNodule, nodule_patch
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

MALIGNANCY = "lung-nodule-malignancy"
PATIENT_NAME, PATIENT_ID = "Doe^Jane", "HOSPITAL-4711"
PICTURES_MATTER = ("test_report_page", "test_slices_through_the_box", "test_python_api")
SERIES_UID = "1.2.826.0.1.3680043.8.498.1"


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(capsys, monkeypatch, tmp_path) -> Callable[..., Ran]:
    """The command line in this process, with an empty configuration folder of its own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    def call(*arguments: object) -> Ran:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return call


@pytest.fixture(autouse=True)
def small_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report's pictures are drawn small but where they are looked at: most of the time of a command went into them."""
    if request.path.stem not in PICTURES_MATTER:
        monkeypatch.setattr("LesionLensApp.classify._PICTURE_PX", 64)


@pytest.fixture
def asks_malignancy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that name no model ask the one that tells benign from malignant, as for a user who has set it so."""
    monkeypatch.setenv("LESIONLENS_MODEL", MALIGNANCY)


@pytest.fixture(scope="session")
def patch() -> tuple[CTVolume, PhantomNodule]:
    return nodule_patch(kind="lobulated", diameter_mm=14.0, seed=3, size_mm=44.0)


def to_sitk(array: np.ndarray, ijk_to_ras: np.ndarray) -> sitk.Image:
    lps = LPS_TO_RAS @ ijk_to_ras
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


@pytest.fixture(scope="session")
def write_image() -> Callable[[Path, np.ndarray, np.ndarray], Path]:
    def write(path: Path, array: np.ndarray, ijk_to_ras: np.ndarray) -> Path:
        sitk.WriteImage(to_sitk(array, ijk_to_ras), str(path))
        return path

    return write


@pytest.fixture(scope="session")
def nrrd(patch, write_image, tmp_path_factory) -> Path:
    volume, _ = patch
    return write_image(tmp_path_factory.mktemp("ct") / "patch.nrrd", volume.array, volume.ijkToRAS)


def boxes_text(*boxes: LesionBox, frame: str = "RAS") -> str:
    sign = np.array([-1, -1, 1]) if frame == "LPS" else np.ones(3)
    lines = ["name,frame,center_x,center_y,center_z,size_x,size_y,size_z"]
    lines += [",".join([b.name, frame, *(f"{v:.6f}" for v in (*(b.centerRAS * sign), *b.sizeMm))]) for b in boxes]
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="session")
def write_boxes() -> Callable[..., Path]:
    def write(path: Path, *boxes: LesionBox, frame: str = "RAS") -> Path:
        path.write_text(boxes_text(*boxes, frame=frame))
        return path

    return write


@pytest.fixture(scope="session")
def lesion(patch) -> LesionBox:
    """The nodule's box, its axes those of RAS."""
    return LesionBox(patch[1].box.centerRAS, patch[1].box.sizeMm + 3.0, name="L1")


@pytest.fixture
def boxes(tmp_path, lesion, write_boxes) -> Path:
    return write_boxes(tmp_path / "boxes.csv", lesion)


@pytest.fixture(scope="session")
def write_dicom() -> Callable[..., Path]:
    written: dict[tuple[bytes, bytes, str, int], dict[str, bytes]] = {}  # many tests ask for the series of the same CT

    def write(folder: Path, volume: CTVolume, *, series: str = SERIES_UID, number: int = 1) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        which = (volume.array.tobytes(), volume.ijkToRAS.tobytes(), series, number)
        if which not in written:
            written[which] = dict(files(volume, series, number))
        for name, content in written[which].items():
            (folder / name).write_bytes(content)
        return folder

    def files(volume: CTVolume, series: str, number: int) -> Iterator[tuple[str, bytes]]:
        lps = LPS_TO_RAS @ volume.ijkToRAS
        spacing = np.linalg.norm(lps[:3, :3], axis=0)
        for k, pixels in enumerate(volume.array):
            meta = FileMetaDataset()
            meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
            meta.MediaStorageSOPInstanceUID = f"{series}.{k + 1}"
            data = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
            data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
            data.PatientName, data.PatientID, data.PatientBirthDate = PATIENT_NAME, PATIENT_ID, "19700102"
            data.StudyInstanceUID, data.SeriesInstanceUID = "1.2.826.0.1.3680043.8.498.9", series
            data.Modality, data.SeriesNumber, data.InstanceNumber = "CT", number, k + 1
            data.ImageOrientationPatient = [float(v) for v in (*(lps[:3, 0] / spacing[0]), *(lps[:3, 1] / spacing[1]))]
            data.ImagePositionPatient = [float(v) for v in lps[:3, 3] + k * lps[:3, 2]]
            data.PixelSpacing = [float(spacing[1]), float(spacing[0])]
            data.SliceThickness = float(spacing[2])
            data.Rows, data.Columns = pixels.shape
            data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
            data.BitsAllocated = data.BitsStored = 16
            data.HighBit, data.PixelRepresentation = 15, 0
            data.RescaleSlope, data.RescaleIntercept = 1, -1024
            data.PixelData = (pixels.astype(np.int32) + 1024).clip(0).astype(np.uint16).tobytes()
            content = BytesIO()
            pydicom.dcmwrite(content, data, enforce_file_format=True)
            yield f"{(k * 7919) % 1000:03d}-{k}.dcm", content.getvalue()

    return write


@pytest.fixture(scope="session")
def cases_folder(tmp_path_factory, write_image) -> Path:
    """Six phantom nodules of three patients in the form that `library build` reads."""
    folder = tmp_path_factory.mktemp("cases")
    (folder / "image").mkdir()
    (folder / "mask").mkdir()
    lines = ["file,patient_id,luna16_subset,diameter_mm,malignant,texture"]
    for number in range(6):
        kind = ("spiculated", "round")[number % 2]
        volume, nodule = nodule_patch(kind=kind, diameter_mm=9.0 + number, seed=number, size_mm=40.0)
        low = np.round(volume.rasToIJK @ [*nodule.box.cornersRAS.min(axis=0), 1])[:3]
        high = np.round(volume.rasToIJK @ [*nodule.box.cornersRAS.max(axis=0), 1])[:3]
        first, last = np.minimum(low, high).astype(int), np.maximum(low, high).astype(int)
        mask = np.zeros(volume.array.shape, np.uint8)
        mask[first[2] : last[2], first[1] : last[1], first[0] : last[0]] = 1
        write_image(folder / "image" / f"p{number}.nii.gz", volume.array, volume.ijkToRAS)
        write_image(folder / "mask" / f"p{number}.nii.gz", mask, volume.ijkToRAS)
        lines.append(f"p{number}.nii.gz,SECRET-{number // 2},{number // 2},{9.0 + number},{1 - number % 2},solid")
    (folder / "nodules.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def built_library(tmp_path_factory, cases_folder) -> Callable[..., Path]:
    """`library build` of these cases by the model of malignancy, with these options, once for all tests: a folder with
    cases.lesionlib and owner.key.
    """
    built: dict[tuple[str, ...], Path] = {}

    def build(*options: str) -> Path:
        if options not in built:
            folder = tmp_path_factory.mktemp("library")
            files = ("--out", folder / "cases.lesionlib", "--key", folder / "owner.key")
            model = ("--model", MALIGNANCY)
            assert main(["library", "build", *map(str, (cases_folder, *files, *model, *options))]) == 0
            built[options] = folder
        return built[options]

    return build


@pytest.fixture
def library_of(built_library, tmp_path) -> Callable[..., Path]:
    """A library of one's own, to be changed: a copy of the one built with these options, its key beside it."""
    return lambda *options: shutil.copytree(built_library(*options), tmp_path / "library") / "cases.lesionlib"


@pytest.fixture(scope="session")
def result_of() -> Callable[[Path], dict]:
    return lambda out: json.loads((out / "results.json").read_text())
