"""A library embedded again by another model."""

from types import SimpleNamespace

import numpy as np
import pytest
from case_libraries import MODEL as OLD
from case_libraries import a_case, a_library_at
from LesionLib.errors import CaseLibraryError
from LesionLib.geometry import CTVolume, LesionBox
from LesionLib.sampling.planes import SliceWithNeighboursSpec
from LesionRetrievalLib.library.patches import lesion_patch
from LesionRetrievalLib.library.reindex import NO_PATCH, reindex
from LesionRetrievalLib.library.store import CaseLibrary

NEW = SimpleNamespace(name="new", version="2", sha256="b" * 64)
BOX = LesionBox([4, 4, 4], [3, 3, 3])


def a_patch(number: int):
    return lesion_patch(CTVolume(np.full((9, 9, 9), number, np.int16), np.eye(4)), BOX)


def embed(patch) -> np.ndarray:
    """Three numbers where the old model has four; the direction tells the patches apart."""
    angle = float(patch.volume.array[0, 0, 0]) / 10
    return np.array([np.cos(angle), np.sin(angle), 0.0])


@pytest.fixture
def library(library):
    """Six cases, all but the fourth with a patch."""
    for number in range(6):
        patch = a_patch(number) if number != 3 else None
        library.add(a_case(f"c{number}"), np.eye(4)[number % 4], model_sha256=OLD.sha256, patch=patch)
    return library


def found(library, vector, sha256) -> list[str]:
    return [neighbour.case_id for neighbour in library.search(vector, model_sha256=sha256)]


def test_after_a_reindex_both_models_search_their_own_vectors(library):
    told = []
    report = reindex(library, NEW, embed=embed, progress=lambda *done: told.append(done))
    assert (report.embedded, report.kept, report.left_out) == (5, 0, {"c3": NO_PATCH})
    assert told == [(n, 6) for n in range(7)]
    assert found(library, [1, 0, 0], NEW.sha256) == ["c0", "c1", "c2", "c4", "c5"]
    assert found(library, [0, 0, 0, 1], OLD.sha256)[0] == "c3"
    assert (library.model.name, library.dimension) == ("new", 3)
    assert [(m.identity.name, m.dimension, m.cases, m.unfinished) for m in library.models()] == [
        (OLD.name, 4, 6, False),
        ("new", 3, 5, False),
    ]
    assert library.ids_without_vector(NEW.sha256) == ["c3"]
    assert library.integrity_problems() == ()


def test_a_reindex_that_was_broken_off_goes_on_where_it_stopped(library):
    def stop_after_two(done, _total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reindex(library, NEW, embed=embed, progress=stop_after_two)
    with CaseLibrary.open(library.path) as reader:  # as after a restart
        assert reader.models()[1].cases == 2
        assert reader.model == OLD
        for call in (lambda: found(reader, [1, 0, 0], NEW.sha256), lambda: reader.require_model(NEW.sha256)):
            with pytest.raises(CaseLibraryError, match="not finished"):
                call()
        assert len(found(reader, [1, 0, 0, 0], OLD.sha256)) == 6
    calls = []
    report = reindex(library, NEW, embed=lambda patch: calls.append(patch) or embed(patch))
    assert (report.embedded, report.kept, len(calls)) == (3, 2, 3)
    assert len(found(library, [1, 0, 0], NEW.sha256)) == 5


def test_cases_added_later_are_embedded_by_the_next_reindex(library):
    reindex(library, NEW, embed=embed)
    library.add(a_case("late"), np.ones(4), model_sha256=OLD.sha256, patch=a_patch(9))
    assert library.ids_without_vector(NEW.sha256) == ["c3", "late"]
    assert reindex(library, NEW, embed=embed).embedded == 1
    library.add(a_case("later"), [1, 0, 0], model_sha256=NEW.sha256)
    assert "later" in found(library, [1, 0, 0], NEW.sha256)
    assert "later" not in found(library, [1, 0, 0, 0], OLD.sha256)
    assert library.integrity_problems() == ()


def test_a_library_without_patches_is_not_reindexed_and_stays_as_it_is(tmp_path):
    with a_library_at(tmp_path / "l") as library:
        library.add(a_case("c"), np.ones(4), model_sha256=OLD.sha256)
        with pytest.raises(CaseLibraryError, match=r"No case.*no HU patch.*Build the library again"):
            reindex(library, NEW, embed=embed)
        assert [model.identity for model in library.models()] == [OLD]


def test_a_library_opened_to_read_is_refused_before_any_work(library):
    with CaseLibrary.open(library.path) as reader, pytest.raises(CaseLibraryError, match="read_only=False"):
        reindex(reader, NEW, embed=lambda _: pytest.fail("embedded for nothing"))


def test_a_vector_of_another_length_is_refused_and_what_is_done_is_kept(library):
    lengths = iter([3, 3, 5])
    with pytest.raises(CaseLibraryError, match=r"shape \(5,\); give 3"):
        reindex(library, NEW, embed=lambda _: np.ones(next(lengths)))
    assert library.models()[1].cases == 2


def test_the_vector_of_a_case_can_be_asked_for(library):
    np.testing.assert_array_equal(library.vector("c1", model_sha256=OLD.sha256), [0, 1, 0, 0])
    reindex(library, NEW, embed=embed)
    with pytest.raises(CaseLibraryError, match="never embedded"):
        library.vector("c3", model_sha256=NEW.sha256)


def test_a_model_that_looks_beyond_the_patches_is_not_asked(tmp_path):
    volume = CTVolume(np.zeros((120, 120, 120), np.int16), np.eye(4))
    patch = lesion_patch(volume, LesionBox([60, 60, 60], [10, 10, 10]))
    bundle = SimpleNamespace(**vars(NEW), spec=SliceWithNeighboursSpec(view="slice"), network=None)
    with a_library_at(tmp_path / "l2") as library:
        library.add(a_case("c"), np.ones(4), model_sha256=OLD.sha256, patch=patch)
        with pytest.raises(CaseLibraryError, match="looks further than the HU patch"):
            reindex(library, bundle)
