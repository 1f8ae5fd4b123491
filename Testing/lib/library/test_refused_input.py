"""What may not enter a library, or be asked of it."""

import numpy as np
import pytest
from case_libraries import MODEL, a_case, search
from LesionLib.errors import CaseLibraryError


@pytest.mark.parametrize(
    ("vector", "reason"),
    [
        (np.zeros(4), "all zero"),
        ([1, np.nan, 0, 0], "not finite"),
        ([1, np.inf, 0, 0], "not finite"),
        (np.ones(3), r"shape \(3,\); give 4"),
        (np.ones((1, 4)), r"shape \(1, 4\)"),
        (["a", "b", "c", "d"], "real numbers"),
        ([[1], [1, 2]], "cannot be read as numbers"),
        (np.ones(4, bool), "bool"),
    ],
)
def test_a_vector_that_cannot_be_used_is_refused(library, vector, reason):
    for call in (search, lambda lib, v: lib.add(a_case(), v, model_sha256=MODEL.sha256)):
        with pytest.raises(CaseLibraryError, match=reason):
            call(library, vector)
    assert len(library) == 0


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_the_length_of_a_vector_does_not_matter(library, scale):
    library.add(a_case(), np.array([3.0, 0, 4, 0]) * scale, model_sha256=MODEL.sha256)
    assert search(library)[0].similarity == pytest.approx(0.6)


@pytest.mark.parametrize(
    "changes",
    [
        {"case_id": "scan of Mrs. Doe"},
        {"case_id": "../elsewhere"},
        {"case_id": ".."},
        {"case_id": "1.2.840.113619.2.55.3"},
        {"case_id": 7},
        {"patient_hash": "0012345678"},
        {"patient_hash": None},
        {"study_hash": "1.2.840.113619.2.55.3"},
        {"label": ""},
        {"label_source": "two\nlines"},
        {"organ": "liv\ud800er"},
        {"attributes": {"sizes": [1, 2]}},
        {"attributes": {"size": float("nan")}},
        {"attributes": {"text": "x" * 201}},
        {"attributes": {"PatientID": "0012345678"}},
        {"attributes": {"series": "see 1.2.840.113619.2.55.3"}},
        {"attributes": {3: "a"}},
        {"attributes": "size=3"},
        {"note": "x" * 2001},
    ],
)
def test_a_case_that_may_not_enter_is_refused_in_one_line(changes):
    with pytest.raises(CaseLibraryError) as caught:
        a_case(**changes)
    assert "\n" not in str(caught.value)
    assert "0012345678" not in str(caught.value)


def test_numpy_scalars_are_kept_as_plain_ones():
    attributes = a_case(attributes={"size": np.float32(2.5), "n": np.int64(3), "b": np.bool_(True)}).attributes
    assert attributes == {"size": 2.5, "n": 3, "b": True}
    assert [type(value) for value in attributes.values()] == [float, int, bool]


@pytest.mark.parametrize(
    "thumbnails",
    [
        {"oblique": np.zeros((2, 2), np.uint8)},
        {"axial": np.zeros((2, 2))},
        {"axial": np.zeros((2, 2, 3), np.uint8)},
        {"axial": np.zeros((0, 2), np.uint8)},
        {"axial": [[1, 2]]},
        [np.zeros((2, 2), np.uint8)],
    ],
)
def test_pictures_other_than_uint8_grey_planes_are_refused(library, thumbnails):
    with pytest.raises(CaseLibraryError):
        library.add(a_case(), np.ones(4), model_sha256=MODEL.sha256, thumbnails=thumbnails)
    assert len(library) == 0


@pytest.mark.parametrize("k", [0, -1, 2.5, "9", True, None])
def test_k_is_a_whole_number_of_cases(library, k):
    with pytest.raises(CaseLibraryError, match="whole number"):
        search(library, k=k)


def test_the_same_case_id_is_refused_the_second_time(library):
    library.add(a_case(label="cyst"), np.ones(4), model_sha256=MODEL.sha256)
    with pytest.raises(CaseLibraryError, match="in the library already"):
        library.add(a_case(), np.ones(4), model_sha256=MODEL.sha256)
    assert library.labels() == {"cyst": 1}
