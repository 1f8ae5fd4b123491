"""`lesionlens library add`: lesions of a CT in, nobody's name in the file."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pydicom
import pytest
import slicer
from LesionClassifierLib.headless import startHeadlessSlicer
from LesionClassifierLib.scene.lesions import addRoiNode
from LesionRetrievalLib.library.pseudonyms import Pseudonymiser
from LesionRetrievalLib.library.store import CaseLibrary

pytestmark = pytest.mark.usefixtures("asks_malignancy")

SECRETS = {
    "PatientName": "Zweistein^Mileva",
    "PatientID": "HOSPITAL-4711",
    "OtherPatientIDs": ["AHV-756-1234", "PASS-998877"],
    "PatientBirthDate": "19691224",
    "PatientBirthName": "Maric^Mileva",
    "PatientAddress": "Kramgasse 49",
    "PatientTelephoneNumbers": "+41 31 312 00 91",
    "AccessionNumber": "ACC20190314",
    "StudyID": "STUDY-5150",
    "StudyDate": "20190314",
    "StudyTime": "132435",
    "SeriesDate": "20190315",
    "AcquisitionDate": "20190316",
    "ContentDate": "20190317",
    "StudyDescription": "CT thorax of Mileva",
    "SeriesDescription": "series of Zweistein",
    "InstitutionName": "Inselspital",
    "ReferringPhysicianName": "Besso^Michele",
    "OperatorsName": "Grossmann^Marcel",
    "StationName": "SCANNER-07",
    "DeviceSerialNumber": "SN-31415926",
    "PatientComments": "sister of Lieserl",
    "FrameOfReferenceUID": "1.2.826.0.1.3680043.8.498.777.1",
    "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.888.1",
}


@pytest.fixture
def dicom(tmp_path, named_series):
    return shutil.copytree(named_series, tmp_path / named_series.name)


@pytest.fixture(scope="module")
def named_series(tmp_path_factory, patch, write_dicom):
    folder = write_dicom(tmp_path_factory.mktemp("named") / "Zweistein Mileva", patch[0])
    for file in folder.iterdir():
        data = pydicom.dcmread(file)
        for name, value in SECRETS.items():
            setattr(data, name, value)
        pydicom.dcmwrite(file, data)
    return folder


@pytest.fixture
def library(library_of):
    return library_of()


@pytest.fixture
def add(run, library, tmp_path):
    def call(volume, boxes, *extra: object):
        label = () if "--label" in extra else ("--label", "carcinoma")
        where = ("--boxes", boxes, "--label-source", "histology", "--key", library.with_name("owner.key"))
        return run("library", "add", library, volume, *where, *label, *extra)

    return call


def secret_texts(folder) -> set[str]:
    """Every name, id, date and UID in the headers, in the forms in which they are written."""
    found = set()
    for file in folder.iterdir():
        for element in pydicom.dcmread(file).iterall():
            if element.VR == "UI" and element.keyword not in ("SOPClassUID",):
                found.add(str(element.value))
    for value in SECRETS.values():
        for text in value if isinstance(value, list) else [value]:
            found |= {text, *text.split("^")}
            if re.fullmatch(r"\d{8}", text):
                year, month, day = text[:4], text[4:6], text[6:]
                found |= {sign.join(order) for sign in "-./" for order in ((year, month, day), (day, month, year))}
    return found


def test_no_name_id_date_or_uid_of_a_dicom_series_enters_the_file(add, dicom, boxes, library):
    boxes.write_text(boxes.read_text().replace("L1", "Mileva Zweistein"))  # a box may be called anything
    ran = add(dicom, boxes, "--pictures", "--patches", "--attribute", "size=12.5", "--note", "seen twice")
    assert ran.code == 0
    texts = secret_texts(dicom)
    assert len(texts) > 60  # UIDs of every slice among them
    with CaseLibrary.open(library) as opened:
        (case,) = [case for case in opened.cases() if case.label == "carcinoma"]
        assert opened.contents()[case.case_id] == ("pictures", "patch")
        voxels = opened.patch(case.case_id).volume.array.tobytes()  # packed in the file
    content = library.read_bytes().lower() + voxels
    shown = (ran.out + ran.err).replace(dicom.name, "").lower()  # the folder's name is what the user typed
    for text in texts | {str(dicom)}:
        assert text.lower() not in shown, text
        for encoding in ("utf-8", "utf-16-le", "utf-16-be"):
            assert text.lower().encode(encoding) not in content, text
    assert b"carcinoma" in content  # what is there is found so


def test_patients_and_studies_are_hashed_by_the_owners_key(add, dicom, boxes, library):
    assert add(dicom, boxes, "--case-id", "mine").code == 0
    key = Pseudonymiser.load(library.with_name("owner.key"))
    with CaseLibrary.open(library) as opened:
        case = opened.case("mine")
    assert case.patient_hash == key.hash(SECRETS["PatientID"])
    assert case.study_hash == key.hash(SECRETS["StudyInstanceUID"], domain="study")


@pytest.mark.parametrize(
    "extra",
    [
        ("--note", "follow-up of mileva"),
        ("--note", "born 24.12.1969"),
        ("--note", "CT of 14.3.2019"),
        ("--attribute", "reader=Grossmann"),
        ("--attribute", "ACC20190314=yes"),
        ("--label", "AHV-756-1234"),
        ("--case-id", "HOSPITAL-4711"),
        ("--case-id", "zweistein_1"),
        ("--organ", "lung, Inselspital"),
    ],
)
def test_what_is_typed_may_not_name_the_patient_either(add, dicom, boxes, library, extra):
    before = library.read_bytes()
    ran = add(dicom, boxes, *extra)
    assert ran.code == 2
    assert "of the patient" in ran.err
    assert not re.search(r"mileva|4711|Grossmann|1969|756", ran.err.replace("Zweistein Mileva", ""))
    assert library.read_bytes() == before


def test_several_lesions_enter_together_with_what_was_said_of_them(add, nrrd, lesion, write_boxes, library, tmp_path):
    second = type(lesion)(lesion.centerRAS + 2.0, lesion.sizeMm, name="L2")
    boxes = write_boxes(tmp_path / "two.csv", lesion, second)
    extra = ("--organ", "lung", "--attribute", "size=12", "--attribute", "solid=true", "--attribute", "texture=mixed")
    ran = add(nrrd, boxes, "--patient", "PATIENT-0007", "--case-id", "new", *extra)
    assert ran.code == 0
    assert "new-1, new-2" in ran.out
    with CaseLibrary.open(library) as opened:
        assert len(opened) == 8
        case = opened.case("new-2")
        assert (case.label, case.label_source, case.organ) == ("carcinoma", "histology", "lung")
        assert case.attributes == {"size": 12.0, "solid": True, "texture": "mixed"}
        assert opened.thumbnails("new-1") == {}
        assert opened.patch("new-1") is None
    assert b"PATIENT-0007" not in library.read_bytes()


def test_a_box_outside_adds_none_of_them(add, nrrd, lesion, write_boxes, library, tmp_path):
    far = type(lesion)(lesion.centerRAS + 500.0, lesion.sizeMm, name="far")
    ran = add(nrrd, write_boxes(tmp_path / "two.csv", lesion, far), "--patient", "P7")
    assert ran.code == 2
    assert "'far' lies outside" in ran.err
    with CaseLibrary.open(library) as opened:
        assert len(opened) == 6


def test_a_file_that_names_no_patient_needs_one(add, nrrd, boxes):
    ran = add(nrrd, boxes)
    assert ran.code == 2
    assert "--patient" in ran.err


def test_a_patient_other_than_the_files_own_is_refused(add, dicom, boxes):
    ran = add(dicom, boxes, "--patient", "OTHER")
    assert ran.code == 2
    assert "another than the file's own" in ran.err
    assert "HOSPITAL" not in ran.err


def test_the_patch_of_a_lesion_is_the_ct_around_it(add, nrrd, boxes, library, patch):
    assert add(nrrd, boxes, "--patient", "P7", "--case-id", "mine", "--patches").code == 0
    with CaseLibrary.open(library) as opened:
        stored = opened.patch("mine")
    np.testing.assert_array_equal(stored.volume.array, patch[0].array)  # the CT is smaller than a patch
    assert stored.open_faces == (False,) * 6


def test_every_segment_of_a_segmentation_is_added_with_its_box_and_shape(run, library, patch, write_image, tmp_path):
    volume, nodule = patch
    ijk = np.moveaxis(np.indices(volume.array.shape), 0, -1)[..., ::-1]
    points = ijk @ volume.ijkToRAS[:3, :3].T + volume.ijkToRAS[:3, 3]
    mask = (np.linalg.norm(points - nodule.box.centerRAS, axis=-1) < 5).astype(np.uint8)
    ct = write_image(tmp_path / "ct.nrrd", volume.array, volume.ijkToRAS)
    labels = write_image(tmp_path / "labels.nrrd", mask, volume.ijkToRAS)
    options = ("--label", "x", "--label-source", "histology", "--patient", "PATIENT-7", "--case-id", "s", "--patches")
    ran = run(
        "library", "add", library, ct, "--segmentation", labels, *options, "--key", library.with_name("owner.key")
    )
    assert ran.code == 0
    with CaseLibrary.open(library) as opened:
        box = opened.patch("s").box
        assert np.abs(box.centerRAS - nodule.box.centerRAS).max() < 1.0
        assert np.abs(box.sizeMm - 10).max() < 2.0  # tight, as the model was made for
        assert box.segment.array.sum() == mask.sum()


def test_boxes_of_a_markups_file_are_added_too(add, nrrd, lesion, library, tmp_path):
    node = addRoiNode(startHeadlessSlicer().scene, lesion)
    slicer.util.saveNode(node, str(tmp_path / "roi.mrk.json"))
    assert add(nrrd, tmp_path / "roi.mrk.json", "--patient", "PATIENT-7", "--case-id", "m", "--patches").code == 0
    with CaseLibrary.open(library) as opened:
        np.testing.assert_allclose(opened.patch("m").box.centerRAS, lesion.centerRAS, atol=1e-6)


def test_a_box_in_voxels_holds_those_voxels_of_the_ct(add, nrrd, library, patch, tmp_path):
    (tmp_path / "voxels.csv").write_text("name,i_min,j_min,k_min,i_max,j_max,k_max\nL1,9,10,11,20,19,15\n")
    assert add(nrrd, tmp_path / "voxels.csv", "--patient", "P7", "--case-id", "v", "--patches").code == 0
    to_ras = patch[0].ijkToRAS
    with CaseLibrary.open(library) as opened:
        box = opened.patch("v").box
    np.testing.assert_allclose(box.centerRAS, (to_ras @ [14.5, 14.5, 13.0, 1.0])[:3], atol=1e-4)
    np.testing.assert_allclose(box.sizeMm, np.linalg.norm(to_ras[:3, :3], axis=0) * [12, 10, 5], atol=1e-4)
    (tmp_path / "voxels.csv").write_text("name;i_min;j_min;k_min;i_max;j_max;k_max\nL1;9;10;11;20;19;15\n")
    ran = add(nrrd, tmp_path / "voxels.csv", "--patient", "P7")
    assert ran.code == 2
    assert "separated by semicolons" in ran.err
