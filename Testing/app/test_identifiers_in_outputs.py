"""Every byte that the usual commands leave behind, searched for whose CT it was."""

from __future__ import annotations

import gzip
import json
import os
import stat
import tempfile
import zipfile
import zlib
from pathlib import Path

import pydicom
import pytest
from LesionRetrievalLib.quiz.attempt import Step
from LesionRetrievalLib.quiz.file import load_quiz
from LesionRetrievalLib.quiz.session import QuizSession
from pydicom.dataset import Dataset

# By design what is written as DICOM is filed with the study: these, and no others, stand in it.
IN_REPORT = {
    "PatientName": "Zweistein^Mileva",
    "PatientID": "HOSP-471177",
    "PatientBirthDate": "19691224",
    "AccessionNumber": "ACC90210",
    "ReferringPhysicianName": "Besso^Michele",
    "StudyID": "STUDY-5150",
    "StudyDate": "20190314",
    "StudyDescription": "thorax for Lieserl",
}
NOWHERE = {
    "InstitutionName": "Inselspital",
    "InstitutionAddress": "Freiburgstrasse 18",
    "OperatorsName": "Grossmann^Marcel",
    "PerformingPhysicianName": "Kleiner^Alfred",
    "OtherPatientIDs": ["AHV-756-1234", "PASS-998877"],
    "PatientBirthName": "Maric^Mitza",
    "PatientAddress": "Kramgasse 49",
    "PatientTelephoneNumbers": "+41-31-3120091",
    "PatientComments": "came with Habicht",
    "AdditionalPatientHistory": "worked at the Patentamt",
    "Occupation": "physiker",
    "Allergies": "erdbeeren",
    "MedicalAlerts": "sonnenstich",
    "AdmissionID": "ADM-31415",
    "CurrentPatientLocation": "Station Aare",
    "StationName": "SCANNER-0707",
    "SeriesDescription": "series for Solovine",
    "SeriesDate": "20190315",
}
TABLE = {
    "patient_id": "TAB-81818",
    "patient_name": "Minkowski",
    "birth_date": "1864-06-22",
    "remark": "nephew of Hilbert",
}


def texts_of(*elements: dict) -> set[str]:
    """The values as they stand, and the parts of names."""
    found = set()
    for each in elements:
        for value in each.values():
            for text in value if isinstance(value, list) else [value]:
                found |= {text, *text.split("^")}
    return found


SECRETS = texts_of(IN_REPORT, NOWHERE, TABLE)


def contents(path: Path) -> list[tuple[str, bytes]]:
    """The bytes of a file, and of everything that is packed into it."""
    content = path.read_bytes()
    found = [(path.name, content)]
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                found += [(f"{path.name}: {name}", archive.read(name)), (f"name in {path.name}", name.encode())]
    return [(name, part) for where, data in found for name, part in [(where, data), *unpacked(where, data)]]


def unpacked(where: str, data: bytes) -> list[tuple[str, bytes]]:
    """The voxels of an .nrrd."""
    header, _, body = data.partition(b"\n\n")
    if not header.startswith(b"NRRD") or b"gzip" not in header:
        return []
    try:
        return [(f"voxels of {where}", gzip.decompress(body))]
    except (OSError, zlib.error, EOFError):
        return []


def found_in(content: bytes, secrets: set[str]) -> set[str]:
    lowered = content.lower()
    encodings = ("utf-8", "utf-16-le", "utf-16-be", "latin-1", "utf-32-le")
    return {text for text in secrets if any(text.lower().encode(e) in lowered for e in encodings)}


@pytest.fixture
def dicom(tmp_path, patch, write_dicom) -> Path:
    folder = write_dicom(tmp_path / "ct", patch[0])
    for file in folder.iterdir():
        data = pydicom.dcmread(file)
        for name, value in (IN_REPORT | NOWHERE).items():
            setattr(data, name, value)
        data.PatientSex, data.StudyTime = "F", "101112"
        data.FrameOfReferenceUID = "1.2.826.0.1.3680043.8.498.77"
        asked = Dataset()
        asked.RequestingPhysician = "Habilitand^Max"
        data.RequestAttributesSequence = [asked]
        pydicom.dcmwrite(file, data)
    return folder


@pytest.fixture
def table(tmp_path, cases_folder) -> Path:
    """The cases of the other tests with columns that name somebody."""
    folder = tmp_path / "collection"
    folder.mkdir()
    for name in ("image", "mask"):
        (folder / name).symlink_to(cases_folder / name, target_is_directory=True)
    lines = (cases_folder / "nodules.csv").read_text().splitlines()
    header = lines[0].split(",")
    rows = []
    for line in lines[1:]:
        values = dict(zip(header, line.split(","), strict=True)) | TABLE
        rows.append(",".join(values.values()))
    (folder / "nodules.csv").write_text("\n".join([",".join([*header, *list(TABLE)[1:]]), *rows]) + "\n")
    return folder


def test_the_search_of_this_test_finds_what_is_there(tmp_path, dicom):
    file = next(dicom.iterdir())
    assert found_in(file.read_bytes(), texts_of(IN_REPORT, NOWHERE)) == texts_of(IN_REPORT, NOWHERE)
    for encoding in ("utf-8", "utf-16-le", "utf-16-be"):
        assert found_in(b"\0x" + "MINKOWSKI".encode(encoding), SECRETS) == {"Minkowski"}
    with zipfile.ZipFile(tmp_path / "z.mrb", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner.txt", "a friend of Minkowski" * 50)
    assert any(found_in(content, SECRETS) for _, content in contents(tmp_path / "z.mrb"))


@pytest.mark.usefixtures("asks_malignancy")
def test_no_output_of_the_usual_commands_tells_whose_ct_it_was(run, dicom, table, boxes, tmp_path):
    out, key = tmp_path / "written", tmp_path / "owner.key"
    out.mkdir()
    library, shown = out / "cases.lesionlib", []

    def done(*arguments: object) -> None:
        ran = run(*arguments)
        assert ran.code == 0, ran.err
        shown.append(ran.out + ran.err)

    done("library", "build", table, "--out", library, "--key", key, "--keep", "diameter_mm", "--pictures", "--patches")
    done(
        "library", "add", library, dicom, "--boxes", boxes, "--label", "malignant", "--label-source", "histology",
        "--key", key, "--pictures", "--patches", "--note", "seen twice",
    )  # fmt: skip
    done(
        "classify", dicom, "--boxes", boxes, "--library", library, "--key", key, "--name", "case 1", "--dicom-sr",
        "--dicom-seg", "--dicom-map", "--out", out / "results",
    )  # fmt: skip
    done("library", "search", library, "--volume", dicom, "--boxes", boxes, "--key", key)
    done("library", "search", library, "--volume", dicom, "--boxes", boxes, "--json")
    done("library", "list", library)
    done("library", "list", library, "--json")
    done("library", "verify", library)
    done("library", "key", library, "--key", key)
    done("library", "export", library, out / "copy.lesionlib", "--pictures", "--patches")
    done("quiz", "make", "--library", library, "--cases", 2, "--out", out / "quiz.json")
    quiz = load_quiz(out / "quiz.json")
    session = QuizSession.open(quiz, out / "answers", learner="L1")
    while session.step is not Step.DONE:
        {
            Step.LOOK: session.finish_looking,
            Step.BOX: session.take_box,
            Step.FIRST_ANSWER: lambda: session.answer("malignant", 0.8),
            Step.REVEAL: session.finish_reveal,
            Step.SECOND_ANSWER: lambda: session.answer("benign", 0.6),
            Step.FEEDBACK: session.next_case,
        }[session.step]()
    done("quiz", "score", out / "quiz.json", out / "answers", "--out", out / "score")

    assert found_in("\n".join(shown).encode(), SECRETS) == set()
    files = [path for path in out.rglob("*") if path.is_file()]
    names = {path.name for path in files}
    assert {"cases.lesionlib", "results.json", "results.csv", "results.dcm", "report.html", "scene.mrb"} <= names
    assert {"quiz.json", "attempt-L1.jsonl", "score.csv", "summary.html", "gradcam_1.nrrd"} <= names
    assert {"lesions.seg.dcm", "gradcam_1.dcm"} <= names
    for path in files:
        for where, content in contents(path):
            found = found_in(content, SECRETS)
            if path.suffix == ".dcm":
                assert found == texts_of(IN_REPORT), where
            else:
                assert found == set(), where
                # Nor where on this computer it was made.
                assert str(tmp_path).encode() not in content, where
                assert f"{tempfile.gettempdir()}{os.sep}".encode() not in content, where
    for path in (out / "results").glob("*.dcm"):
        report = pydicom.dcmread(path)
        assert {name: str(report[name].value) for name in IN_REPORT} == IN_REPORT
        assert not any(name in report for name in NOWHERE if name not in ("SeriesDescription",))


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
def test_what_is_written_is_its_owner_s_only(run, nrrd, boxes, tmp_path):
    before = os.umask(0)
    try:
        assert run("classify", nrrd, "--boxes", boxes, "--out", tmp_path / "a" / "results").code == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "a" / "results").stat().st_mode) == 0o700
    files = list((tmp_path / "a" / "results").iterdir())
    assert len(files) == 5
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_a_folder_s_name_in_the_results_is_said_with_the_remedy(run, patch, write_dicom, boxes, tmp_path):
    folder = write_dicom(tmp_path / "Minkowski", patch[0])
    ran = run("classify", folder, "--boxes", boxes, "--out", tmp_path / "one")
    assert ran.code == 0
    assert "The results carry the name of the folder, Minkowski" in " ".join(ran.err.split())
    assert "give another by --name" in " ".join(ran.err.split())
    assert json.loads((tmp_path / "one" / "results.json").read_text())["volume"] == "Minkowski"
    ran = run("classify", folder, "--boxes", boxes, "--name", "case 1", "--out", tmp_path / "two")
    assert "carry the name" not in ran.err
    for path in (tmp_path / "two").iterdir():
        for where, content in contents(path):
            assert found_in(content, {"Minkowski"}) == set(), where
