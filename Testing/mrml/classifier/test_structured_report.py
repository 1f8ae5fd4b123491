"""DICOM structured reports: read back number by number, and accepted by a validator that is not ours."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from LesionClassifierLib import export
from LesionClassifierLib.export import StructuredReportError, exportReport, readDatasets, writeStructuredReport
from LesionClassifierLib.scene.lesions import addRoiNode
from LesionClassifierLib.scene.results import fingerprint, storeResult
from LesionClassifierLib.scene.volumes import addVolumeNode, volumeFromNode
from LesionLib.errors import InputWarning, LesionLensError, WarningName
from LesionLib.geometry import LesionBox
from LesionLib.inference.results import LesionResult, RunInfo
from LesionLib.io.volumes import read_volume
from LesionLib.model.scores import scores_from_json
from LesionLib.sampling.diameters import Diameters
from LesionLib.sampling.statistics import LesionStatistics
from LesionLib.uncertainty.reliability import Reliability
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from scored_model import SCORES

RUN = RunInfo(
    "CT", "lung-nodule-malignancy", "1.1.0", "ab" * 32, "cpu", "LesionLens 0.1.0, torch 2.13.0, Python 3.12.1"
)
SECRET = "Doe^John"
TILT = np.deg2rad(20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """An oblique series of 6 slices."""
    path = tmp_path_factory.mktemp("series")
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    normal = np.array([0, -np.sin(TILT), np.cos(TILT)])
    for k in range(6):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
        meta.MediaStorageSOPInstanceUID = generate_uid()
        data = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        data.PatientName, data.PatientID, data.PatientBirthDate, data.PatientSex = SECRET, "4711", "19500101", "O"
        data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = study, series, frame
        data.StudyDate, data.StudyTime, data.StudyID, data.AccessionNumber = "20200101", "120000", "1", "7"
        data.ReferringPhysicianName, data.Modality, data.SeriesNumber, data.InstanceNumber = "", "CT", 3, k + 1
        data.ImageOrientationPatient = [1, 0, 0, 0, np.cos(TILT), np.sin(TILT)]
        data.ImagePositionPatient = [*(np.array([10.0, 20.0, 30.0]) + 2.0 * k * normal)]
        data.PixelSpacing, data.SliceThickness = [0.8, 0.8], 2.0
        data.Rows, data.Columns, data.SamplesPerPixel, data.PhotometricInterpretation = 8, 8, 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
        data.RescaleSlope, data.RescaleIntercept = 1, 0
        data.PixelData = np.full((8, 8), 40, np.int16).tobytes()
        pydicom.dcmwrite(path / f"{k}.dcm", data, enforce_file_format=True)
    return path


@pytest.fixture
def results() -> list[LesionResult]:
    axes = np.array([[1, 0, 0], [0, np.cos(TILT), -np.sin(TILT)], [0, np.sin(TILT), np.cos(TILT)]])
    first = LesionResult(
        name="L1", box=LesionBox([-12.0, -23.0, 34.0], [4.0, 3.0, 6.0], axes, name="L1"), label="malignant",
        probabilities={"benign": 0.123456, "malignant": 0.876544}, embedding=np.ones(1, np.float32), heat_map=None,
        warnings=(InputWarning(WarningName.BOX_SIZE, "The box is small."),),
        reliability=Reliability(("malignant", "benign"), 0.9),
        statistics=LesionStatistics("box", (6.0, 4.0, 3.0), 0.072, 40.0, 1.5, 30.0, 40.0, 50.0),
    )  # fmt: skip
    return [first, replace(first, name="L2", box=replace(first.box, name="L2", sizeMm=[2, 2, 2]), statistics=None)]


def written(folder: Path, results: list[LesionResult], path: Path) -> Path:
    writeStructuredReport(path, results, RUN, readDatasets(sorted(folder.glob("*.dcm"))))
    return path


def texts_of(item: pydicom.Dataset) -> list[str]:
    """Every text value in a tree of content items."""
    inner = [text for child in item.get("ContentSequence", []) for text in texts_of(child)]
    return ([item.TextValue] if "TextValue" in item else []) + inner


def groups_of(path: Path) -> list:
    return hd.sr.srread(path).content.get_volumetric_roi_measurement_groups()


def test_every_lesion_is_read_back_with_its_probabilities_class_and_algorithm(folder, results, tmp_path):
    groups = groups_of(written(folder, results, tmp_path / "sr.dcm"))
    assert [group.tracking_identifier for group in groups] == ["L1", "L2"]
    assert len({group.tracking_uid for group in groups}) == 2
    for group, result in zip(groups, results, strict=True):
        values = {m.name.meaning: m.value for m in group.get_measurements()}
        for name, p in result.probabilities.items():
            assert values[f"Probability of {name}"] == pytest.approx(p, abs=1e-6)
        said = [(e.name.meaning, e.value.meaning) for e in group.get_qualitative_evaluations()]
        assert ("Answered class", "malignant") in said
        assert [value for name, value in said if "ruled out" in name] == ["malignant", "benign"]
        assert group.finding_type.meaning == "Lesion"
    texts = texts_of(groups[0][0])
    assert {"lung-nodule-malignancy", "1.1.0", f"sha256={RUN.model_sha256}", "device=cpu"} <= set(texts)
    assert "Volume of the box, not of the lesion" in {m.name.meaning for m in groups[0].get_measurements()}


def test_sizes_of_a_lesion_are_those_of_a_segment_never_of_a_box(folder, results, tmp_path):
    diameters = Diameters(9.1, 6.5, ((0.0, 0.0, 0.0), (9.1, 0.0, 0.0)), ((4.0, -3.0, 0.0), (4.0, 3.5, 0.0)))
    segment = replace(results[0].statistics, measured_in="segment", diameters=diameters)
    of_box, of_segment = groups_of(
        written(folder, [results[0], replace(results[1], statistics=segment)], tmp_path / "sr.dcm")
    )
    names = {"Volume", "Attenuation Coefficient", "Long axis", "Short axis", "Diameter"}
    assert not names & {m.name.meaning for m in of_box.get_measurements()}
    values = {m.name.meaning: (m.value, m.unit.value) for m in of_segment.get_measurements()}
    assert names <= set(values)
    assert (values["Long axis"], values["Short axis"]) == ((9.1, "mm"), (6.5, "mm"))
    assert values["Diameter"] == (7.8, "mm")


def test_the_box_is_read_back_in_lps_to_a_thousandth_of_a_millimetre(folder, results, tmp_path):
    for group, result in zip(groups_of(written(folder, results, tmp_path / "sr.dcm")), results, strict=True):
        corners = np.concatenate([polygon[:4] for polygon in group.roi.graphic_data])
        expected = result.box.cornersRAS * [-1, -1, 1]
        distances = np.linalg.norm(corners[:, None] - expected[None], axis=-1)
        assert distances.min(axis=0).max() < 1e-3
        assert distances.min(axis=1).max() < 1e-3


def test_it_belongs_to_its_patient_and_says_that_it_is_for_research(folder, results, tmp_path):
    report = pydicom.dcmread(written(folder, results, tmp_path / "sr.dcm"))
    source = pydicom.dcmread(folder / "0.dcm")
    for name in ("PatientName", "PatientID", "StudyInstanceUID", "AccessionNumber"):
        assert report[name].value == source[name].value
    assert report.SeriesInstanceUID != source.SeriesInstanceUID
    assert (report.VerificationFlag, report.CompletionFlag) == ("UNVERIFIED", "COMPLETE")
    assert "not for diagnosis" in report.SeriesDescription
    texts = texts_of(report)
    assert texts.count("Research use only, not for diagnosis.") == 2
    assert "The box is small." in texts


def scored(results: list[LesionResult]) -> tuple[RunInfo, list[LesionResult]]:
    """The same lesions by a model that scores them; the second has no answer."""
    run = replace(RUN, scores=scores_from_json(SCORES))
    values = {"spiculation": 1.25, "lobulation": 3.5, "subtlety": 5.0, "calcification": 5.875}
    first = replace(results[0], scores=values, longest_mm=6.0, warnings=())
    return run, [first, replace(first, name="L2", warnings=results[0].warnings).without_abstained]


def test_scores_are_read_back_under_the_codes_of_their_model_and_only_where_there_is_an_answer(
    folder, results, tmp_path
):
    run, lesions = scored(results)
    path = tmp_path / "sr.dcm"
    writeStructuredReport(path, lesions, run, readDatasets(sorted(folder.glob("*.dcm"))))
    first, second = groups_of(path)
    found = {(m.name.scheme_designator, m.name.value, m.name.meaning): m for m in first.get_measurements()}
    assert found["NCIt", "C28749", "Spiculation"].value == 1.25
    assert found["NCIt", "C62175", "Lobular Pattern"].value == 3.5
    assert found["99LESIONLENS", "score-3", "Score of subtlety"].value == 5.0
    calcification = found["NCIt", "C3672", "Calcification"]
    assert (calcification.value, calcification.unit.value, calcification.unit.meaning) == (5.875, "{1:6}", "range: 1:6")
    texts = texts_of(first[0])
    assert "malignant, box of 6 mm, lobulated 4 of 5, not calcified" in texts
    assert any(text.startswith("For lobulation the model is off by 0.82") for text in texts)
    assert not {m.name.meaning for m in second.get_measurements()} & {"Spiculation", "Score of subtlety"}
    assert not any("lobulat" in text for text in texts_of(second[0]))


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy is not installed: apt install dicom3tools")
def test_a_validator_that_is_not_ours_finds_no_error_in_a_report_with_scores(folder, results, tmp_path):
    run, lesions = scored(results)
    path = tmp_path / "sr.dcm"
    writeStructuredReport(path, lesions, run, readDatasets(sorted(folder.glob("*.dcm"))))
    said = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, check=False, timeout=60)
    assert [line for line in (said.stdout + said.stderr).splitlines() if line.startswith("Error")] == []


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy is not installed: apt install dicom3tools")
def test_a_validator_that_is_not_ours_finds_no_error(folder, results, tmp_path):
    path = written(folder, results, tmp_path / "sr.dcm")
    said = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, check=False, timeout=60)
    lines = (said.stdout + said.stderr).splitlines()
    assert [line for line in lines if line.startswith("Error")] == []
    assert "Comprehensive3DSR" in lines


class DicomFilesOf:
    """A folder in the place of Slicer's DICOM database."""

    def __init__(self, folder: Path) -> None:
        files = sorted(folder.glob("*.dcm"))
        self.paths = {str(data.SOPInstanceUID): str(p) for data, p in zip(readDatasets(files), files, strict=True)}

    def fileForInstance(self, instanceUID: str) -> str:
        return self.paths.get(instanceUID, "")


@pytest.mark.filterwarnings("ignore:Invalid value for VR DA")
def test_a_ct_without_dicom_gets_no_report_and_hears_why(scene, folder, results, tmp_path, monkeypatch):
    volumeNode = addVolumeNode(scene, read_volume(folder))
    roi = addRoiNode(scene, results[0].box)
    place = fingerprint(volumeFromNode(volumeNode), results[0].box)
    colors = {"benign": (0.0, 1.0, 0.0), "malignant": (1.0, 0.0, 0.0)}
    storeResult(roi, volumeNode, results[0], run=RUN, classColors=colors, fingerprint=place)
    files = DicomFilesOf(folder)
    with pytest.raises(StructuredReportError, match="was not loaded from DICOM"):
        exportReport(tmp_path / "sr.dcm", [roi], files)
    volumeNode.SetAttribute("DICOM.instanceUIDs", " ".join([*files.paths, "1.2.3"]))  # as Slicer's DICOM module does
    with pytest.raises(StructuredReportError, match="1 of the 7 DICOM files of .* are gone"):
        exportReport(tmp_path / "sr.dcm", [roi], files)
    assert not (tmp_path / "sr.dcm").exists()
    volumeNode.SetAttribute("DICOM.instanceUIDs", " ".join(files.paths))
    assert exportReport(tmp_path / "sr.dcm", [roi], files) == 1
    assert groups_of(tmp_path / "sr.dcm")[0].tracking_identifier == "L1"
    dated = pydicom.dcmread(folder / "0.dcm")
    monkeypatch.setattr(
        export, "sourceDatasets", lambda *_: [_withoutAValidDate(dated), *readDatasets(files.paths.values())[1:]]
    )
    gaps = []
    assert exportReport(tmp_path / "sr.dcm", [roi], files, warn=gaps.append) == 1
    assert [(gap.name, "PatientBirthDate empty" in gap) for gap in gaps] == [(WarningName.REPORT_GAPS, True)]


def _withoutAValidDate(data: pydicom.Dataset) -> pydicom.Dataset:
    data.PatientBirthDate = "1950-XX-01"
    return data


def test_nothing_to_report_and_files_of_two_series_are_refused_without_a_word_about_the_patient(
    folder, results, tmp_path
):
    sources = readDatasets(sorted(folder.glob("*.dcm")))
    with pytest.raises(StructuredReportError, match="no answer to report"):
        writeStructuredReport(tmp_path / "sr.dcm", [], RUN, sources)
    sources[0].SeriesInstanceUID = "1.2.3"
    with pytest.raises(StructuredReportError, match="name 2 series") as raised:
        writeStructuredReport(tmp_path / "sr.dcm", results, RUN, sources)
    assert "Doe" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_is_not_overwritten_unasked(folder, results, tmp_path):
    path = tmp_path / "sr.dcm"
    path.write_text("mine")
    with pytest.raises(LesionLensError, match="is there already"):
        written(folder, results, path)
    assert path.read_text() == "mine"


def test_without_highdicom_it_is_said_where_to_get_it(folder, results, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(StructuredReportError, match="pip install highdicom"):
        written(folder, results, tmp_path / "sr.dcm")
