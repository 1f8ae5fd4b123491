"""Exact search: its order, its filters, its cost."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from case_libraries import MODEL, OTHER_SHA256, PSEUDONYMISER, a_case, a_library_at, ids, search
from hypothesis import given, settings
from hypothesis import strategies as st
from LesionLib.errors import CaseLibraryError
from LesionRetrievalLib.library.store import CaseLibrary


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(0, 60),
    dimension=st.integers(1, 40),
    k=st.integers(1, 70),
    levels=st.sampled_from([2, 3, 1000]),
)
def test_search_gives_the_order_of_a_full_stable_sort(seed, count, dimension, k, levels):
    random = np.random.default_rng(seed)
    # Few levels make many equal vectors, that is, ties.
    vectors = random.integers(1, levels, size=(count, dimension), endpoint=True).astype(np.float32)
    query = random.integers(1, levels, size=dimension, endpoint=True).astype(float)
    names = [f"c{i}" for i in random.permutation(count)]
    with tempfile.TemporaryDirectory() as folder, a_library_at(Path(folder) / "l", dimension) as library:
        pairs = zip(names, vectors, strict=True)
        library.add_many(((a_case(name), v) for name, v in pairs), model_sha256=MODEL.sha256)
        found = search(library, query, k=k)
    assert ids(found) == ids_by_full_sort(names, vectors, query)[:k]


def ids_by_full_sort(names, vectors, query) -> list[str]:
    unit_query = query / np.abs(query).max()
    unit_query /= np.linalg.norm(unit_query)
    scored = []
    for name, vector in zip(names, vectors.astype(float), strict=True):
        unit = vector / np.abs(vector).max()
        unit = (unit / np.linalg.norm(unit)).astype(np.float32).astype(float)
        scored.append((-min(1.0, (unit * unit_query).sum()), name))
    return [name for _, name in sorted(scored)]


@pytest.mark.parametrize("sign", [1, -1])
def test_equal_vectors_come_in_the_order_of_their_ids_wherever_they_lie(path, sign):
    # 39 rows: a fast float32 product sums the rows left over after the blocks in another order.
    vector, query = np.random.default_rng(0).standard_normal((2, 37))
    names = [f"c{number:02}" for number in range(39)]
    with a_library_at(path, 37) as library:
        entries = [(a_case(name), vector) for name in reversed(names)]
        library.add_many(entries, model_sha256=MODEL.sha256)
        for k in (1, 7, 38):
            found = search(library, sign * query, k=k)
            assert ids(found) == names[:k]
            assert len({neighbour.similarity for neighbour in found}) == 1


def test_filters_leave_out_the_patient_and_the_case_and_keep_label_and_organ(library):
    for name, patient, label, organ in [
        ("a", "P1", "cyst", "liver"),
        ("b", "P1", "metastasis", "liver"),
        ("c", "P2", "cyst", "kidney"),
        ("d", "P3", "cyst", "liver"),
    ]:
        case = a_case(name, patient=patient, label=label, organ=organ)
        library.add(case, np.ones(4), model_sha256=MODEL.sha256)
    assert ids(search(library)) == ["a", "b", "c", "d"]
    assert ids(search(library, exclude_patient=PSEUDONYMISER.hash("P1"))) == ["c", "d"]
    assert ids(search(library, exclude_case="a")) == ["b", "c", "d"]
    assert ids(search(library, label="cyst", organ="liver")) == ["a", "d"]
    assert search(library, label="adenoma") == []
    with pytest.raises(CaseLibraryError, match="salted hash"):
        search(library, exclude_patient="P1")


@pytest.fixture
def four(library):
    """Two cases of patient P1 in two studies, one of P2, one of P3 whose study bears P1's number."""
    for name, patient, study, attributes in [
        ("a", "P1", "S1", {"size": 5.0, "contrast": True, "phase": "venous"}),
        ("b", "P1", "S2", {"size": 10, "contrast": False}),
        ("c", "P2", "S3", {"size": 15.0, "phase": None}),
        ("d", "P3", "S1", {"size": True}),
    ]:
        study_hash = PSEUDONYMISER.hash(study, domain="study")
        case = a_case(name, patient=patient, study_hash=study_hash, attributes=attributes)
        library.add(case, np.ones(4), model_sha256=MODEL.sha256)
    return library


@pytest.mark.parametrize(("scope", "found"), [("all", "bcd"), ("same-patient", "b"), ("cross-patient", "cd")])
def test_the_scopes_of_the_paper_leave_out_the_query_and_keep_whom_they_say(four, scope, found):
    patient = PSEUDONYMISER.hash("P1")
    assert ids(search(four, scope=scope, patient=patient, exclude_case="a")) == list(found)


def test_a_study_is_left_out_whoever_it_is_of(four):
    study = PSEUDONYMISER.hash("S1", domain="study")
    assert ids(search(four, exclude_study=study)) == ["b", "c"]
    assert ids(search(four, scope="cross-patient", patient=PSEUDONYMISER.hash("P1"), exclude_study=study)) == ["c"]


@pytest.mark.parametrize(
    ("attributes", "found"),
    [
        ({"size": 5}, "a"),
        ({"size": (5, 10)}, "ab"),
        ({"size": (None, 14.9)}, "ab"),
        ({"size": (10, None)}, "bc"),
        ({"size": True}, "d"),
        ({"contrast": True}, "a"),
        ({"contrast": 1}, ""),
        ({"phase": None}, "c"),
        ({"phase": "venous", "size": (0, 100)}, "a"),
        ({"absent": None}, ""),
        ({}, "abcd"),
    ],
)
def test_attributes_are_met_by_value_or_by_range(four, attributes, found):
    assert ids(search(four, attributes=attributes)) == list(found)


@pytest.mark.parametrize(
    ("filters", "reason"),
    [
        ({"scope": "other"}, "all, same-patient, cross-patient"),
        ({"scope": "same-patient"}, "needs the patient's hash"),
        ({"scope": "cross-patient"}, "needs the patient's hash"),
        ({"patient": "P1"}, "salted hash"),
        ({"exclude_study": "1.2.840.1"}, "salted hash"),
        ({"exclude_case": "../x"}, "case id"),
        ({"label": 3}, "label is a int"),
        ({"attributes": ["size"]}, "mapping"),
        ({"attributes": {"size": (1, 2, 3)}}, "range"),
        ({"attributes": {"size": ("a", "b")}}, "range"),
        ({"attributes": {"size": [1]}}, "cannot be compared"),
    ],
)
def test_a_filter_that_would_not_filter_is_refused(four, filters, reason):
    with pytest.raises(CaseLibraryError, match=reason):
        search(four, **filters)


def test_another_model_is_refused_and_both_are_named(library):
    for call in (
        lambda: library.require_model(OTHER_SHA256),
        lambda: library.search(np.ones(4), model_sha256=OTHER_SHA256),
        lambda: library.add(a_case(), np.ones(4), model_sha256=OTHER_SHA256),
    ):
        with pytest.raises(CaseLibraryError, match=r"made with orthopatch 1\.2\.0 .*aaaa.* bbbb.*build the lib"):
            call()


def test_a_reader_sees_what_another_connection_wrote_meanwhile(library):
    with CaseLibrary.open(library.path) as reader:
        assert search(reader) == []
        library.add(a_case(), np.ones(4), model_sha256=MODEL.sha256)
        assert ids(search(reader)) == ["case-1"]
        library.remove("case-1")
        assert search(reader) == []


TIMER = """
import sys, time
import numpy as np
from LesionRetrievalLib.library.cases import Case, ModelIdentity
from LesionRetrievalLib.library.store import CaseLibrary
model = ModelIdentity("orthopatch", "1.2.0", "a" * 64)
matrix = np.random.default_rng(0).standard_normal((32735, 512), dtype=np.float32)
query = np.random.default_rng(1).standard_normal(512).astype(np.float32)
library = CaseLibrary.create(sys.argv[1], model=model, dimension=512)
cases = (Case(f"c{i:05}", "cyst", "histology", "liver", f"{i:032}", "1" * 32) for i in range(len(matrix)))
library.add_many(zip(cases, matrix), model_sha256=model.sha256)
def seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
def best_of_both(rounds):
    pairs = [
        (
            seconds(lambda: np.argpartition(-(matrix @ query), 9)[:9]),
            seconds(lambda: library.search(query, model_sha256=model.sha256)),
        )
        for _ in range(rounds)
    ]
    return np.min(pairs, axis=0)
best_of_both(3)
print(*best_of_both(40))
library.close()
def open_and_ask():
    with CaseLibrary.open(sys.argv[1]) as reader:
        reader.search(query, model_sha256=model.sha256)
print(min(seconds(open_and_ask) for _ in range(3)))
"""


def test_deeplesion_is_opened_in_a_second_and_searched_in_three_times_the_bare_matrix_product(path):
    # On one thread: the threads of the product wait for each other, for milliseconds where cores are shared.
    with a_process(TIMER, path, OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1") as timer:
        bare, ours = map(float, timer.stdout.readline().split())
        opening = float(timer.stdout.readline())
    assert ours < 3 * bare, f"search {1e3 * ours:.2f} ms, bare product {1e3 * bare:.2f} ms"
    assert opening < 1.0


def a_process(script, path, **variables) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **variables}
    return subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True, env=environment
    )
