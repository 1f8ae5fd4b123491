"""What every case library promises, kept by one in a file and by one on a real server alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from LesionLib.errors import CaseLibraryError
from LesionLib.metric import embeddings_of, similarity_at
from LesionRetrievalLib.libraries import transfer
from LesionRetrievalLib.library.cases import Case, CaseEntry, CaseStore, ModelIdentity
from LesionRetrievalLib.library.store import CaseLibrary
from LesionRetrievalLib.server import search as on_server
from LesionRetrievalLib.server.library import MilvusLibrary
from LesionRetrievalLib.server.records import Collection

pytestmark = [pytest.mark.server, pytest.mark.timeout(300)]
MODEL = ModelIdentity("tested", "1.0.0", "a" * 64)
SHA = MODEL.sha256
COUNT = 60


@pytest.fixture(scope="module", params=["file", "server"])
def place(request, tmp_path_factory):
    """A new library of the kind, by name."""
    if request.param == "file":
        path = tmp_path_factory.mktemp("file") / "contract.lesionlib"
        return lambda: CaseLibrary.create(path, model=MODEL, dimension=12)
    server = request.getfixturevalue("shared_server")()
    return lambda: MilvusLibrary.create(server.address("contract"), model=MODEL, dimension=12)


@pytest.fixture(scope="module")
def store(place, entries):
    with place() as library:
        assert library.add_many(entries(COUNT), model_sha256=SHA) == COUNT
        yield library


@pytest.fixture(scope="module")
def truth(entries):
    """Unit vectors and cases, for loops over everything."""
    given = entries(COUNT)
    vectors = np.array([e.vector / np.linalg.norm(e.vector) for e in given])
    return [e.case for e in given], vectors.astype(np.float32).astype(np.float64)


def expected(truth, query, keep) -> list[str]:
    cases, vectors = truth
    similarity = vectors @ (query / np.linalg.norm(query))
    rows = [i for i, case in enumerate(cases) if keep(case)]
    return [cases[i].case_id for i in sorted(rows, key=lambda i: (-round(similarity[i], 9), cases[i].case_id))]


def test_it_is_a_case_store(store):
    assert isinstance(store, CaseStore)
    assert len(store) == COUNT
    assert store.model == MODEL
    (model,) = store.models()
    assert (model.identity, model.dimension, model.cases, model.unfinished) == (MODEL, 12, COUNT, False)


def test_cases_come_back_field_for_field(store, truth):
    assert store.cases() == truth[0]
    assert store.case("c0007") == truth[0][7]
    assert store.labels() == {"benign": 30, "malignant": 30}
    assert set(store.created()) == {case.case_id for case in truth[0]}


def test_vectors_pictures_and_patches_come_back_number_for_number(store, entries):
    for entry in entries(COUNT)[:41:5]:
        case_id = entry.case.case_id
        unit = entry.vector / np.abs(entry.vector).max()
        np.testing.assert_array_equal(
            store.vector(case_id, model_sha256=SHA), (unit / np.linalg.norm(unit)).astype(np.float32)
        )
        np.testing.assert_array_equal(store.thumbnails(case_id)["axial"], entry.thumbnails["axial"])
        back = store.patch(case_id)
        assert (back is None) == (entry.patch is None)
        if back is not None:
            np.testing.assert_array_equal(back.volume.array, entry.patch.volume.array)
            np.testing.assert_array_equal(back.volume.ijkToRAS, entry.patch.volume.ijkToRAS)
            np.testing.assert_array_equal(back.box.centerRAS, entry.patch.box.centerRAS)
    contents = store.contents()
    assert contents["c0000"] == ("pictures", "patch")
    assert contents["c0005"] == ("pictures",)
    assert contents["c0001"] == ()


def test_pictures_and_patches_of_many_cases_are_those_of_each_and_asked_for_together(store, truth, monkeypatch):
    ids = [case.case_id for case in truth[0]]
    asked, page = [], Collection._page
    monkeypatch.setattr(Collection, "_page", lambda self, *given: asked.append(self.name) or page(self, *given))
    pictures, patches = store.thumbnails_of(ids), store.patches_of(ids)
    assert len(asked) < 10
    assert list(pictures) == list(patches) == ids
    for case_id in ("c0000", "c0001", "c0005", "c0040"):
        assert pictures[case_id].keys() == store.thumbnails(case_id).keys()
        for plane, grey in store.thumbnails(case_id).items():
            np.testing.assert_array_equal(pictures[case_id][plane], grey)
    assert [i for i in ids if patches[i] is not None] == ["c0000", "c0040"]
    np.testing.assert_array_equal(patches["c0040"].volume.array, store.patch("c0040").volume.array)
    for read in (store.thumbnails_of, store.patches_of):
        with pytest.raises(CaseLibraryError, match="'nobody' is not in this library"):
            read(["c0000", "nobody"])


def size(case: Case) -> float:
    return case.attributes["size"]


@pytest.mark.parametrize(
    ("filters", "keep"),
    [
        ({}, lambda c: True),
        ({"label": "benign"}, lambda c: c.label == "benign"),
        ({"organ": "liver", "exclude_case": "c0003"}, lambda c: c.organ == "liver" and c.case_id != "c0003"),
        ({"exclude_patient": f"{1:032x}"}, lambda c: c.patient_hash != f"{1:032x}"),
        ({"exclude_study": f"{10:032x}"}, lambda c: c.study_hash != f"{10:032x}"),
        ({"scope": "same-patient", "patient": f"{1:032x}"}, lambda c: c.patient_hash == f"{1:032x}"),
        ({"scope": "cross-patient", "patient": f"{1:032x}"}, lambda c: c.patient_hash != f"{1:032x}"),
        ({"attributes": {"size": (3.0, 8.0)}, "label": "malignant"}, lambda c: 3 <= size(c) <= 8 and c.label == "malignant"),
        ({"attributes": {"phase": "arterial", "size": (None, 10)}}, lambda c: c.attributes["phase"] == "arterial" and size(c) <= 10),
        ({"attributes": {"unknown": 1}}, lambda c: False),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)  # fmt: skip
def test_search_is_the_order_of_a_full_sort_under_every_filter(store, truth, filters, keep):
    query = truth[1][9]  # a vector that two cases have
    found = store.search(query, k=12, model_sha256=SHA, **filters)
    assert [n.case_id for n in found] == expected(truth, query, keep)[:12]
    for neighbour in found[:2]:
        case = store.case(neighbour.case_id)
        assert (neighbour.label, neighbour.attributes, neighbour.note) == (case.label, case.attributes, case.note)


def test_equal_cases_come_by_their_ids_also_at_the_last_place(store, truth):
    query = truth[1][9]
    assert [n.case_id for n in store.search(query, k=2, model_sha256=SHA)] == ["c0008", "c0009"]
    assert [n.case_id for n in store.search(query, k=1, model_sha256=SHA)] == ["c0008"]


def test_another_model_is_refused_with_both_names(store):
    with pytest.raises(CaseLibraryError, match=r"made with tested 1\.0\.0 .* not with the model sha256 bbbbbbbbbbbb"):
        store.search(np.ones(12), model_sha256="b" * 64)
    with pytest.raises(CaseLibraryError, match="not with the model"):
        store.add(Case("x", "l", "s", "o", "0" * 32, "0" * 32), np.ones(12), model_sha256="b" * 64)


@pytest.mark.parametrize("k", [0, -1, 2.5, True])
def test_an_impossible_number_of_answers_is_refused(store, k):
    with pytest.raises(CaseLibraryError, match="k is"):
        store.search(np.ones(12), k=k, model_sha256=SHA)


def test_several_cases_are_added_all_or_none(store, entries):
    more = entries(3, seed=5, prefix="new")
    with pytest.raises(CaseLibraryError, match="'c0004' is in the library already"):
        store.add_many([*more, entries(5)[4]], model_sha256=SHA)
    assert len(store) == COUNT
    with pytest.raises(CaseLibraryError, match="vector"):
        store.add_many([*more[:2], more[2]._replace(vector=np.ones(11))], model_sha256=SHA)
    assert len(store) == COUNT


def test_a_case_is_added_found_and_removed_with_all_that_belongs_to_it(store, entries):
    (entry,) = entries(1, seed=6, prefix="one")
    store.add(entry.case, entry.vector, model_sha256=SHA, thumbnails=entry.thumbnails, patch=entry.patch)
    assert store.search(entry.vector, k=1, model_sha256=SHA)[0].case_id == "one0000"
    store.remove("one0000")
    assert store.search(entry.vector, k=1, model_sha256=SHA)[0].case_id != "one0000"
    for asked in (store.case, store.thumbnails, store.patch, store.remove):
        with pytest.raises(CaseLibraryError, match="not in this library"):
            asked("one0000")
    assert len(store) == COUNT


def test_a_case_found_by_cosine_has_no_distance(store, truth):
    assert store.model.metric == "cosine"
    assert store.search(truth[1][0], k=1, model_sha256=SHA)[0].distance is None


BY_DISTANCE = ModelIdentity("siamese", "1.0.0", "e" * 64, metric="euclidean")
DISTANT = 40


@pytest.fixture(scope="module")
def points() -> np.ndarray:
    """Of every length, a few much longer than the rest: what a direction alone could not put in order."""
    rng = np.random.default_rng(5)
    return rng.normal(size=(DISTANT, 4)) * np.geomspace(0.1, 40.0, DISTANT)[:, None]


@pytest.fixture(scope="module", params=["file", "server"])
def by_distance(request, tmp_path_factory, entries, points):
    """A library whose model compares by Euclidean distance, opened anew after it was written."""
    if request.param == "file":
        address = tmp_path_factory.mktemp("file") / "euclidean.lesionlib"
        make, reopen = CaseLibrary.create, CaseLibrary.open
    else:
        address = request.getfixturevalue("shared_server")().address("euclidean")
        make, reopen = MilvusLibrary.create, MilvusLibrary.open
    given = [CaseEntry(e.case, v) for e, v in zip(entries(DISTANT), embeddings_of(points), strict=True)]
    with make(address, model=BY_DISTANCE, dimension=5) as library:
        library.add_many(given, model_sha256=BY_DISTANCE.sha256)
    with reopen(address) as library:
        yield library


@pytest.mark.parametrize("asked", [0, 12, 30, DISTANT - 1])
@pytest.mark.parametrize("k", [1, 9, DISTANT])
def test_a_euclidean_model_is_searched_by_distance(by_distance, points, asked, k, monkeypatch):
    monkeypatch.setattr(on_server, "_SPARE", 1)  # the server is asked again and again
    query = points[asked] + 0.05
    found = by_distance.search(embeddings_of(query), k=k, model_sha256=BY_DISTANCE.sha256)
    distance = np.linalg.norm(points - query, axis=1)
    order = np.argsort(distance)[:k]
    assert [case.case_id for case in found] == [f"c{i:04}" for i in order]
    np.testing.assert_allclose([case.distance for case in found], distance[order], atol=1e-4)
    np.testing.assert_allclose([case.similarity for case in found], similarity_at(distance[order]), atol=1e-4)


def test_a_library_keeps_the_metric_of_its_model_and_takes_it_along(by_distance, tmp_path):
    assert by_distance.model.metric == by_distance.models()[0].identity.metric == "euclidean"
    assert by_distance.require_model(BY_DISTANCE.sha256).metric == "euclidean"
    with CaseLibrary.create(tmp_path / "copy.lesionlib", model=by_distance.model, dimension=5) as copy:
        transfer(by_distance, copy)
        assert copy.model.metric == "euclidean"
        copy.export(tmp_path / "given.lesionlib")
    with CaseLibrary.open(tmp_path / "given.lesionlib") as given:
        assert given.model.metric == "euclidean"
        assert given.search(embeddings_of(np.ones(4)), k=1, model_sha256=BY_DISTANCE.sha256)[0].distance > 0


def test_a_vector_that_is_no_point_is_refused(by_distance):
    with pytest.raises(CaseLibraryError, match="embed the lesion with the model of the library"):
        by_distance.search([1.0, 0.0, 0.0, 0.0, -1.0], k=1, model_sha256=BY_DISTANCE.sha256)


def test_a_changed_case_is_searched_by_what_it_says_now_and_its_history_is_kept(store):
    case = Case("edited", "benign", "histology", "lung", "0" * 32, "1" * 32, {"size": 3.0})
    store.add(case, np.eye(12)[3], model_sha256=SHA, by="reader7")
    assert store.update(replace(case, label="cyst", organ="liver", attributes={}), by="reader8") == (
        "label, organ, attribute size"
    )
    found = store.search(np.eye(12)[3], k=1, model_sha256=SHA, label="cyst", organ="liver")
    assert [(n.case_id, dict(n.attributes)) for n in found] == [("edited", {})]
    assert "edited" not in [n.case_id for n in store.search(np.eye(12)[3], k=60, model_sha256=SHA, organ="lung")]
    store.remove("edited", by="reader7")
    assert [(c.by, c.what) for c in store.changes("edited")] == [
        ("reader7", "added"),
        ("reader8", "label, organ, attribute size"),
        ("reader7", "removed"),
    ]
    store.note_changes(store.changes())
    assert len(store.changes("edited")) == 3
    assert store.properties() == {}
