"""A large library keeps its vectors rounded in a file beside it: the same cases are found, and the file is never trusted blindly."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from LesionLib.errors import CaseLibraryError
from LesionRetrievalLib.library import store
from LesionRetrievalLib.library.cases import Case, ModelIdentity
from LesionRetrievalLib.library.intake import write_library
from LesionRetrievalLib.library.search import rounded
from LesionRetrievalLib.library.search.exact import SearchIndex
from LesionRetrievalLib.library.search.rounded import RoundedIndex, vector_file_of
from LesionRetrievalLib.library.store import CaseLibrary

MODEL = ModelIdentity("embedder", "1", "a" * 64)
COUNT, SIZE = 2500, 33  # an odd size: the last word of a vector is half empty


@pytest.fixture(scope="module", autouse=True)
def a_small_library_is_a_large_one():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "MIN_VECTORS_IN_A_FILE", 100)
        yield


def entries(vectors):
    for i, vector in enumerate(vectors):
        attributes = {"size": float(i % 50)} | ({"phase": "venous"} if i % 2 else {})
        # Ids against the order in which the cases come.
        hashed = f"{i // 3:032x}"
        organ = ("lung", "liver")[i % 2]
        case = Case(f"c{len(vectors) - i:05}", f"label {i % 5}", "histology", organ, hashed, hashed, attributes)
        yield case, vector


@pytest.fixture(scope="module")
def vectors():
    """Of three clusters, every tenth twice, so that there are ties, and many nearly the same."""
    rng = np.random.default_rng(0)
    found = rng.standard_normal((3, SIZE))[rng.integers(3, size=COUNT)] + 0.02 * rng.standard_normal((COUNT, SIZE))
    found[1::10] = found[::10]
    return found.astype(np.float32)


@pytest.fixture(scope="module")
def made(tmp_path_factory, vectors):
    path = tmp_path_factory.mktemp("made") / "cases.lesionlib"
    with CaseLibrary.create(path, model=MODEL, dimension=SIZE) as library:
        library.add_many(entries(vectors), model_sha256=MODEL.sha256)
    return path


@pytest.fixture
def path(tmp_path, made):
    """A copy with its file, as a folder is copied that keeps the times."""
    for file in (made, vector_file_of(made)):
        shutil.copy2(file, tmp_path)
    return tmp_path / made.name


def found(path, query, *, takes_rounded=True, **filters):
    """What a search says, and by which index."""
    with CaseLibrary.open(path) as library:
        library._takes_rounded = takes_rounded
        neighbours = library.search(query, k=9, model_sha256=MODEL.sha256, **filters)
        return neighbours, type(library._index)


FILTERS = [
    {},
    {"scope": "cross-patient", "patient": f"{7:032x}"},
    {"scope": "same-patient", "patient": f"{7:032x}"},
    {"label": "label 2", "organ": "liver"},
    {"attributes": {"size": (10, 20), "phase": "venous"}},
    {"exclude_case": "c02500"},
    {"attributes": {"unknown": 1}},
]


@pytest.mark.parametrize("filters", FILTERS, ids=str)
def test_rounded_vectors_find_the_same_cases_with_the_same_similarities(path, vectors, filters):
    rng = np.random.default_rng(1)
    queries = [vectors[0], vectors[20], vectors[7] + 0.01 * rng.standard_normal(SIZE), rng.standard_normal(SIZE)]
    for query in queries:
        rounded, index = found(path, query, **filters)
        exact, whole = found(path, query, takes_rounded=False, **filters)
        assert (index, whole) == (RoundedIndex, SearchIndex)
        assert rounded == exact


def test_more_cases_than_there_are_come_back_in_order(path, vectors):
    with CaseLibrary.open(path) as library:
        neighbours = library.search(vectors[0], k=COUNT + 5, model_sha256=MODEL.sha256)
    assert len(neighbours) == COUNT
    assert neighbours == sorted(neighbours, key=lambda case: (-case.similarity, case.case_id))


def test_the_file_is_half_as_large_as_the_vectors_and_its_owners_only(path, vectors):
    file = vector_file_of(path)
    assert file.stat().st_size == 4096 + COUNT * (8 + 2 * (SIZE + 1))
    assert file.stat().st_mode & 0o077 == 0
    error = json.loads(file.read_bytes()[:4096])["error"]
    assert 0 < error < 2**-8  # half of the last of bfloat16's eight digits


def test_reading_writes_no_file_and_finds_without_one(path, vectors):
    vector_file_of(path).unlink()
    assert found(path, vectors[3])[1] is SearchIndex
    assert not vector_file_of(path).exists()


def test_a_write_takes_the_file_away_at_once_and_closing_brings_it_back(path, vectors):
    with CaseLibrary.open(path, read_only=False) as library:
        first = library.search(vectors[3], k=1, model_sha256=MODEL.sha256)[0].case_id
        library.remove(first)
        assert not vector_file_of(path).exists()
        assert library.search(vectors[3], k=1, model_sha256=MODEL.sha256)[0].case_id != first
    neighbours, index = found(path, vectors[3])
    assert index is RoundedIndex
    assert first not in {case.case_id for case in neighbours}


def test_a_file_of_an_earlier_state_or_of_another_library_is_not_used(path, vectors, tmp_path):
    old = tmp_path / "old"
    shutil.copy2(vector_file_of(path), old)
    with CaseLibrary.open(path, read_only=False) as library:
        library.remove("c00001")
    shutil.copy2(old, vector_file_of(path))
    neighbours, index = found(path, vectors[-1])
    assert index is SearchIndex
    assert "c00001" not in {case.case_id for case in neighbours}


def test_a_file_of_other_vectors_that_says_it_is_this_library_s_is_seen_to_be_wrong(path, vectors, monkeypatch):
    exact, _ = found(path, vectors[3], takes_rounded=False)
    for other in (np.roll(vectors, 5, axis=0), np.full_like(vectors, np.nan)):
        wrong = rounded._rounded(other / np.linalg.norm(other, axis=1, keepdims=True))
        with monkeypatch.context() as patch:
            whole = RoundedIndex.open.__func__

            def swapped(cls, *args, whole=whole, wrong=wrong, **given):
                index = whole(cls, *args, **given)
                object.__setattr__(index, "words", rounded._words(wrong))
                return index

            patch.setattr(RoundedIndex, "open", classmethod(swapped))
            assert found(path, vectors[3]) == (exact, SearchIndex)


def test_a_library_that_changes_while_it_is_open_is_read_again(path, vectors):
    with CaseLibrary.open(path) as reader:
        (first,) = reader.search(vectors[3], k=1, model_sha256=MODEL.sha256)
        with CaseLibrary.open(path, read_only=False) as writer:
            writer.remove(first.case_id)
        (second,) = reader.search(vectors[3], k=1, model_sha256=MODEL.sha256)
    assert second.case_id != first.case_id


@pytest.mark.parametrize("damage", ["vectors", "one bit", "rows", "short", "header", "empty"])
def test_a_damaged_file_is_left_alone(path, vectors, damage):
    exact, _ = found(path, vectors[3], takes_rounded=False)
    file = vector_file_of(path)
    content = bytearray(file.read_bytes())
    if damage == "vectors":
        content[4096 + 8 * COUNT :] = np.random.default_rng(2).bytes(len(content) - 4096 - 8 * COUNT)
    elif damage == "one bit":
        content[-5] ^= 4
    elif damage == "rows":
        content[4096 : 4096 + 8 * COUNT] = np.arange(COUNT, 0, -1).astype("<i8").tobytes()
    elif damage == "header":
        content[:4096] = b"[" * 4096
    file.write_bytes({"short": content[:-3], "empty": b""}.get(damage, content))
    neighbours, index = found(path, vectors[3])
    assert neighbours == exact
    assert index is SearchIndex


def test_a_library_written_in_one_go_has_its_file_and_a_small_one_has_none(tmp_path, vectors):
    large, small = tmp_path / "large.lesionlib", tmp_path / "small.lesionlib"
    write_library(large, MODEL, (store.CaseEntry(*entry) for entry in entries(vectors)))
    write_library(small, MODEL, (store.CaseEntry(*entry) for entry in entries(vectors[:99])))
    assert found(large, vectors[3])[1] is RoundedIndex
    assert sorted(file.name for file in tmp_path.iterdir()) == [large.name, f"{large.name}.vectors", small.name]


def test_a_library_of_points_is_searched_as_before(tmp_path, vectors):
    model = ModelIdentity("points", "1", "b" * 64, metric="euclidean")
    path = tmp_path / "points.lesionlib"
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    points = np.append(vectors, 1.0 + 0 * lengths, axis=1)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    with CaseLibrary.create(path, model=model, dimension=SIZE + 1) as library:
        library.add_many(entries(points), model_sha256=model.sha256)
    assert not vector_file_of(path).exists()
    with CaseLibrary.open(path) as library:
        assert library.search(points[4], k=1, model_sha256=model.sha256)[0].distance == pytest.approx(0, abs=1e-3)


def test_a_damaged_vector_is_named_and_leaves_no_file(path, vectors):
    import sqlite3

    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE vectors SET vector = zeroblob(132) WHERE case_id = 'c00005'")
    connection.close()
    with CaseLibrary.open(path, read_only=False) as library:
        library.set_property("a", "b")
    assert not vector_file_of(path).exists()
    with pytest.raises(CaseLibraryError, match="c00005"):
        found(path, vectors[3])


def test_rounding_is_to_the_nearest():
    exact = np.array([[1.0, -1.0, 0.0, 1 + 2**-9, 1 + 3 * 2**-8, 0.1, -0.3, 2**-130]], np.float32)
    back = rounded._exact(rounded._rounded(exact))
    assert back[0, :4].tolist() == [1.0, -1.0, 0.0, 1.0]
    assert (np.abs(back - exact) <= np.maximum(np.abs(exact) * 2.0**-8, 1e-38)).all()
