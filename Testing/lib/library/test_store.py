"""Cases go into a library and come out again, wholly or not at all."""

import inspect

import numpy as np
import pytest
from case_libraries import MODEL, a_case, a_library_at, ids, search
from LesionLib.errors import CaseLibraryError
from LesionRetrievalLib.library.cases import CaseStore
from LesionRetrievalLib.library.store import CaseLibrary


def test_a_case_comes_back_as_it_went_in_after_the_file_was_closed(path):
    case = a_case(attributes={"size mm": 12.5, "slices": 3, "contrast": True, "phase": "venous", "x": None})
    thumbnails = {"axial": np.arange(12, dtype=np.uint8).reshape(3, 4), "sagittal": np.zeros((2, 2), np.uint8)}
    with a_library_at(path) as library:
        library.add(case, [3, 0, 4, 0], model_sha256=MODEL.sha256, thumbnails=thumbnails)
    with CaseLibrary.open(path) as library:
        assert (library.model, library.dimension, len(library)) == (MODEL, 4, 1)
        assert library.case("case-1") == case
        assert library.cases() == [case]
        assert library.labels() == {"metastasis": 1}
        assert library.integrity_problems() == ()
        found = library.thumbnails("case-1")
        assert found.keys() == thumbnails.keys()
        assert all(np.array_equal(found[plane], thumbnails[plane]) for plane in thumbnails)
        (neighbour,) = search(library)
        assert neighbour.similarity == pytest.approx(0.6)
        assert neighbour.attributes == case.attributes


def test_a_removed_case_is_gone_from_the_file_too(library):
    library.add(a_case(note="a remark to forget"), np.ones(4), model_sha256=MODEL.sha256)
    assert b"a remark to forget" in library.path.read_bytes()
    library.remove("case-1")
    assert len(library) == 0
    assert search(library) == []
    assert b"a remark to forget" not in library.path.read_bytes()
    with pytest.raises(CaseLibraryError, match="not in this library"):
        library.case("case-1")


def test_the_library_is_a_case_store(library):
    assert isinstance(library, CaseStore)
    for name, asked in vars(CaseStore).items():
        if callable(asked) and not name.startswith("_"):
            assert inspect.signature(getattr(CaseLibrary, name)) == inspect.signature(asked), name


def test_an_exception_half_way_leaves_nothing_of_the_batch(library):
    library.add(a_case("first"), np.ones(4), model_sha256=MODEL.sha256)

    def entries():
        yield a_case("second"), np.ones(4), {"axial": np.ones((2, 2), np.uint8)}
        assert ids(search(library)) == ["first", "second"]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        library.add_many(entries(), model_sha256=MODEL.sha256)
    assert ids(search(library)) == ["first"]
    assert library.integrity_problems() == ()


def test_one_refused_case_inside_a_transaction_leaves_the_others(library):
    with library.transaction():
        library.add(a_case("first"), np.ones(4), model_sha256=MODEL.sha256)
        twice = [(a_case(name), np.ones(4)) for name in ("second", "first")]
        with pytest.raises(CaseLibraryError, match="already"):
            library.add_many(twice, model_sha256=MODEL.sha256)
        library.add(a_case("third"), np.ones(4), model_sha256=MODEL.sha256)
    assert ids(search(library)) == ["first", "third"]
