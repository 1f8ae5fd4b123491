"""The same lesion a second time is found by what it shows, not by what it is called."""

from __future__ import annotations

import numpy as np
import pytest
from LesionLib.errors import CaseLibraryError
from LesionLib.geometry import CTVolume, LesionBox
from LesionRetrievalLib.library.cases import Case, CaseEntry, ModelIdentity
from LesionRetrievalLib.library.duplicates import LesionDigests, Repeats, require_new, same_lesion
from LesionRetrievalLib.library.patches import lesion_patch
from LesionRetrievalLib.library.store import CaseLibrary

MODEL = ModelIdentity("tested", "1.0.0", "a" * 64)


def entry(case_id, vector, *, label="cyst", ct: int | None = None) -> CaseEntry:
    case = Case(case_id, label, "histology", "liver", "0" * 32, "1" * 32)
    patch = None
    if ct is not None:
        volume = CTVolume(np.full((9, 9, 9), ct, np.int16), np.eye(4))
        patch = lesion_patch(volume, LesionBox([4, 4, 4], [3, 3, 3]))
    return CaseEntry(case, np.array(vector, float), None, patch)


@pytest.fixture
def library(tmp_path):
    with CaseLibrary.create(tmp_path / "cases.lesionlib", model=MODEL, dimension=3) as library:
        library.add_many([entry("there", [1, 2, 3]), entry("with-ct", [3, 2, 1], ct=40)], model_sha256=MODEL.sha256)
        yield library


def refused(library, *entries) -> str:
    with pytest.raises(CaseLibraryError) as caught:
        require_new(library, entries, model_sha256=MODEL.sha256)
    return str(caught.value)


def test_the_same_lesion_is_refused_with_the_case_that_it_is(library):
    assert "in the library already, as case there (cyst); nothing was added" in refused(library, entry("x", [1, 2, 3]))
    assert "with another answer" in refused(library, entry("x", [1, 2, 3], label="metastasis"))


def test_the_last_bits_of_another_machine_do_not_matter(library):
    assert "as case there" in refused(library, entry("x", np.array([1, 2, 3]) * (1 + 3e-8)))


def test_a_lesion_that_is_only_alike_is_new(library):
    require_new(library, [entry("x", [1, 2, 3.02])], model_sha256=MODEL.sha256)


def test_where_both_have_their_ct_that_decides(library):
    require_new(library, [entry("x", [3, 2, 1], ct=41)], model_sha256=MODEL.sha256)
    assert "as case with-ct" in refused(library, entry("x", [3, 2, 1], ct=40))
    assert "as case with-ct" in refused(library, entry("x", [3, 2, 1]))


def test_two_of_the_same_in_one_call_are_refused(library):
    assert "(a and c)" in refused(library, entry("a", [0, 1, 0]), entry("b", [0, 0, 1]), entry("c", [0, 2, 0]))


def test_an_empty_library_holds_nothing_twice(tmp_path):
    with CaseLibrary.create(tmp_path / "empty.lesionlib", model=MODEL, dimension=3) as empty:
        assert same_lesion(empty, entry("a", [1, 0, 0]), model_sha256=MODEL.sha256) is None


def test_of_lesions_in_their_order_one_that_comes_again_is_told_from_new_ones():
    repeats, found = Repeats(), {}
    given = [entry("a", [1, 0, 0]), entry("b", [0, 1, 0], ct=1), entry("c", [1, 0, 0]), entry("d", [0, 1, 0], ct=2)]
    for one in given:
        digests = LesionDigests.of(one)
        found[one.case.case_id] = repeats.earlier(digests)
        if found[one.case.case_id] is None:
            repeats.take(one.case.case_id, digests)
    assert found == {"a": None, "b": None, "c": "a", "d": None}
