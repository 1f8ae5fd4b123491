"""Structured reports from anonymised, old and damaged headers: what may be empty is empty, what cannot be written is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from foreign_dicom import write_ct
from LesionClassifierLib.export import StructuredReportError, readDatasets, writeStructuredReport
from LesionLib.errors import WarningName
from LesionLib.geometry import LesionBox
from LesionLib.inference.results import LesionResult, RunInfo
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

RUN = RunInfo("CT", "lung-nodule-malignancy", "1.1.0", "ab" * 32, "cpu", "LesionLens 0.1.0")
TYPE_2 = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber", "StudyID",
    "ReferringPhysicianName",
)  # fmt: skip


def result(name: str = "L1") -> LesionResult:
    box = LesionBox([-10, 15, -100], [8, 8, 8], name=name)
    return LesionResult(name, box, "benign", {"benign": 0.7, "malignant": 0.3}, np.ones(1, np.float32), None)


def report_of(folder: Path, tmp_path: Path, name: str = "L1") -> tuple[pydicom.Dataset, tuple]:
    gaps = writeStructuredReport(tmp_path / "sr.dcm", [result(name)], RUN, readDatasets(sorted(folder.iterdir())))
    return pydicom.dcmread(tmp_path / "sr.dcm"), gaps


def raw(keyword: str, vr: str, value: bytes):
    """An element with bytes that its kind does not allow."""

    def change(data, _k):
        tag = Tag(pydicom.datadict.tag_for_keyword(keyword))
        data._dict[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True)

    return change


def without(*keywords: str):
    def change(data, _k):
        for keyword in keywords:
            delattr(data, keyword)

    return change


@pytest.mark.parametrize("keyword", [*TYPE_2, "all"])
def test_what_an_anonymised_header_lacks_is_empty_in_the_report(tmp_path, keyword):
    lacking = TYPE_2 if keyword == "all" else (keyword,)
    write_ct(tmp_path / "ct", change=without(*lacking))
    report, gaps = report_of(tmp_path / "ct", tmp_path)
    assert gaps == ()
    for name in TYPE_2:
        assert name in report
        assert bool(report[name].value) == (name not in lacking and name != "ReferringPhysicianName"), name


@pytest.mark.parametrize("lacking", [("InstanceNumber", "SeriesNumber"), ("Manufacturer",), ("SliceThickness",)])
def test_what_a_report_does_not_need_is_no_hindrance(tmp_path, lacking):
    write_ct(tmp_path / "ct", change=without(*lacking))
    assert report_of(tmp_path / "ct", tmp_path)[1] == ()


@pytest.mark.parametrize(
    ("keyword", "vr", "value"),
    [("StudyDate", "DA", b"2020-01-01"), ("StudyTime", "TM", b"12 o'clock"), ("PatientBirthDate", "DA", b"1950")],
)
def test_a_value_that_is_not_valid_is_left_empty_and_named_without_repeating_it(tmp_path, keyword, vr, value):
    write_ct(tmp_path / "ct", change=raw(keyword, vr, value))
    report, gaps = report_of(tmp_path / "ct", tmp_path)
    (warning,) = gaps
    assert warning.name is WarningName.REPORT_GAPS
    assert keyword in warning
    assert value.decode() not in warning
    assert not report[keyword].value


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "FrameOfReferenceUID"])
def test_a_header_that_does_not_say_what_it_belongs_to_is_refused_by_name(tmp_path, keyword):
    write_ct(tmp_path / "ct", change=without(keyword))
    with pytest.raises(StructuredReportError, match="StudyInstanceUID|0 frames of reference"):
        report_of(tmp_path / "ct", tmp_path)
    assert not (tmp_path / "sr.dcm").exists()
    assert not list(tmp_path.glob(".lesionlens-*"))


@pytest.mark.parametrize("character_set", [None, "ISO_IR 100", "ISO 2022 IR 999"])
def test_every_letter_is_kept_whatever_the_source_s_character_set_lacks(tmp_path, character_set):
    def named(data, _k):
        if character_set is not None:
            data.SpecificCharacterSet = character_set
        if character_set == "ISO_IR 100":
            data.PatientName = "Müller^Jörg"

    write_ct(tmp_path / "ct", change=named)
    report, _ = report_of(tmp_path / "ct", tmp_path, name="Läsion rechts 腫瘤")
    assert report.SpecificCharacterSet == "ISO_IR 192"
    assert str(report.PatientName) == ("Müller^Jörg" if character_set == "ISO_IR 100" else "Doe^John")
    texts = []
    report.walk(lambda _data, element: texts.append(str(element.value)) if element.keyword == "TextValue" else None)
    assert "Läsion rechts 腫瘤" in texts


def test_the_ct_s_own_headers_stay_as_they_are(tmp_path):
    write_ct(tmp_path / "ct", change=without("PatientBirthDate"))
    sources = readDatasets(sorted((tmp_path / "ct").iterdir()))
    writeStructuredReport(tmp_path / "sr.dcm", [result()], RUN, sources)
    assert "PatientBirthDate" not in sources[0]
    assert "SpecificCharacterSet" not in sources[0]


def test_files_without_the_bytes_in_front_have_a_report_too(tmp_path):
    write_ct(tmp_path / "ct", preamble=False)
    report, _ = report_of(tmp_path / "ct", tmp_path)
    assert report.PatientID == "4711"
