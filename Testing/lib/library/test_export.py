"""A copy to give away holds what was asked for, and nothing else."""

from types import SimpleNamespace

import numpy as np
import pytest
from case_libraries import MODEL
from LesionLib.errors import CaseLibraryError
from LesionLib.geometry import CTVolume, LesionBox
from LesionRetrievalLib.library.cases import Case
from LesionRetrievalLib.library.file import ExportPlan
from LesionRetrievalLib.library.patches import lesion_patch
from LesionRetrievalLib.library.pseudonyms import Pseudonymiser
from LesionRetrievalLib.library.reindex import reindex
from LesionRetrievalLib.library.store import CaseLibrary

GREY = np.frombuffer(b"a picture of the inside of a patient" * 4, np.uint8).reshape(12, 12)


@pytest.fixture
def library(library):
    """Three cases with a picture, the CT around the lesion, and a remark."""
    volume = CTVolume(np.arange(729, dtype=np.int16).reshape(9, 9, 9), np.eye(4))
    patch = lesion_patch(volume, LesionBox([4, 4, 4], [3, 3, 3]))
    for number in range(3):
        case = Case(f"c{number}", "cyst", "histology", "liver", f"{number:032}", "1" * 32, {"size": 2.5}, "a remark")
        vector = np.eye(4)[number]
        library.add(case, vector, model_sha256=MODEL.sha256, thumbnails={"axial": GREY}, patch=patch)
    return library


def test_a_copy_searches_like_the_library_and_holds_no_pictures(library, tmp_path):
    path = tmp_path / "copy.lesionlib"
    assert GREY.tobytes() in library.path.read_bytes()
    assert library.export(path) == 3
    assert GREY.tobytes() not in path.read_bytes()
    with CaseLibrary.open(path) as copy:
        assert copy.cases() == library.cases()
        assert set(copy.contents().values()) == {()}
        assert copy.integrity_problems() == ()
        query = [1, 0.5, 0.2, 0]
        assert copy.search(query, model_sha256=MODEL.sha256) == library.search(query, model_sha256=MODEL.sha256)


def test_pictures_patches_and_notes_come_along_as_the_plan_says(library, tmp_path):
    path = tmp_path / "copy.lesionlib"
    library.export(path, ExportPlan(thumbnails=True, patches=True, notes=False))
    with CaseLibrary.open(path) as copy:
        np.testing.assert_array_equal(copy.thumbnails("c1")["axial"], GREY)
        np.testing.assert_array_equal(copy.patch("c1").volume.array, library.patch("c1").volume.array)
        assert copy.case("c1").note == ""
        assert copy.integrity_problems() == ()
    assert b"a remark" not in path.read_bytes()


def test_a_copy_has_finished_models_only(library, tmp_path):
    other = SimpleNamespace(name="new", version="2", sha256="b" * 64)

    def stop(done, _total):
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reindex(library, other, embed=lambda _: np.ones(3), progress=stop)
    library.export(tmp_path / "half.lesionlib")
    reindex(library, other, embed=lambda _: np.ones(3))
    library.export(tmp_path / "whole.lesionlib")
    for name, models in (("half", ["orthopatch"]), ("whole", ["orthopatch", "new"])):
        with CaseLibrary.open(tmp_path / f"{name}.lesionlib") as copy:
            assert [model.identity.name for model in copy.models()] == models
            assert copy.integrity_problems() == ()


def test_the_salt_stays_with_its_owner(library, tmp_path):
    key = Pseudonymiser.create(tmp_path / "owner.key")
    case = Case("mine", "cyst", "histology", "liver", key.hash("4711"), key.hash("4711", domain="study"))
    library.add(case, np.ones(4), model_sha256=MODEL.sha256)
    library.export(tmp_path / "copy.lesionlib", ExportPlan(thumbnails=True, patches=True))
    for path in (library.path, tmp_path / "copy.lesionlib"):
        content = path.read_bytes()
        assert key.hash("4711").encode() in content
        assert key.salt not in content
        assert key.salt.hex().encode() not in content


def test_a_copy_replaces_only_a_library_and_only_when_asked(library, tmp_path):
    (tmp_path / "thesis.txt").write_text("precious " * 20)
    with pytest.raises(CaseLibraryError, match="not a LesionLens case library"):
        library.export(tmp_path / "thesis.txt", overwrite=True)
    with pytest.raises(CaseLibraryError, match="the library itself"):
        library.export(library.path, overwrite=True)
    library.export(tmp_path / "copy.lesionlib")
    with pytest.raises(CaseLibraryError, match="exists"):
        library.export(tmp_path / "copy.lesionlib")
    library.export(tmp_path / "copy.lesionlib", overwrite=True)
    with pytest.raises(CaseLibraryError):
        library.export(tmp_path / "no such folder" / "copy.lesionlib")
    names = {file.name for file in tmp_path.iterdir()}
    assert names == {library.path.name, "copy.lesionlib", "thesis.txt"}
    library.add(Case("c9", "cyst", "x", "liver", "0" * 32, "1" * 32), np.ones(4), model_sha256=MODEL.sha256)
