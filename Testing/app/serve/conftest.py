"""One server for all tests of the page's API, with a folder of CTs and a case library."""

from __future__ import annotations

import shutil
from pathlib import Path

import pydicom
import pytest
from served import Served, Visitor, serving

MODEL = "lung-nodule-malignancy"


@pytest.fixture(scope="session")
def shelf(tmp_path_factory, nrrd, patch, write_dicom) -> Path:
    """The folder whose files may be opened: a CT as a file and as a DICOM folder."""
    folder = tmp_path_factory.mktemp("shelf")
    shutil.copy(nrrd, folder / "patch.nrrd")
    for path in write_dicom(folder / "series", patch[0]).iterdir():
        data = pydicom.dcmread(path)
        data.FrameOfReferenceUID = "1.2.826.0.1.3680043.8.498.7"
        data.StudyDate, data.StudyTime, data.StudyID, data.AccessionNumber = "20200101", "120000", "1", ""
        data.PatientSex, data.ReferringPhysicianName = "O", ""
        data.save_as(path)
    return folder


@pytest.fixture(scope="session")
def pictured(built_library) -> Path:
    """The folder of a library whose cases have pictures."""
    return built_library("--pictures", "--patches")


@pytest.fixture(scope="session")
def served(shelf, pictured, tmp_path_factory) -> Served:
    library = pictured
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        with serving(
            MODEL, folder=shelf, library=library / "cases.lesionlib", key=library / "owner.key", max_sessions=24
        ) as running:
            yield running


@pytest.fixture
def visitor(served) -> Visitor:
    """A session of its own."""
    session = served.session()
    yield session
    session.ask("DELETE", "")


@pytest.fixture
def box(lesion) -> dict:
    """The nodule's box as the page sends it."""
    return {"name": "L1", "centerRAS": lesion.centerRAS.tolist(), "sizeMm": lesion.sizeMm.tolist()}
