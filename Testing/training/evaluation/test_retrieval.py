"""Retrieval figures against the worked example, plain loops and scikit-learn; who may answer whom."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from LesionLib.metric import embeddings_of
from lesiontraining.evaluation import retrieval
from lesiontraining.evaluation.comparisons import RECALL_LEVELS, list_figures
from lesiontraining.evaluation.intervals import PatientDraws, interval
from lesiontraining.evaluation.retrieval import FIGURES, retrieve
from lesiontraining.runs.inference import neighbour_probabilities
from sklearn.metrics import average_precision_score

hit_lists = hnp.arrays(bool, st.tuples(st.integers(1, 6), st.integers(1, 25)))


def test_the_worked_example_in_all_four_definitions():
    hits = np.array([[1, 0, 1, 0, 0, 1, 0, 0, 0, 0]], dtype=bool)
    figures = list_figures(hits, k=10, relevant=np.array([50]))
    assert figures.ap_a[0] == pytest.approx((1 + 2 / 3 + 3 / 6) / 10) == pytest.approx(0.217, abs=5e-4)
    assert figures.ap_b[0] == pytest.approx((1 + 2 / 3 + 3 / 6) / 3) == pytest.approx(0.722, abs=5e-4)
    assert figures.ap_c[0] == pytest.approx((1 + 2 / 3 + 3 / 6) / 50) == pytest.approx(0.043, abs=5e-4)
    p = [1, 1 / 2, 2 / 3, 2 / 4, 2 / 5, 3 / 6, 3 / 7, 3 / 8, 3 / 9, 3 / 10]
    assert figures.ap_d[0] == pytest.approx(np.mean(p)) == pytest.approx(0.500, abs=5e-4)
    assert (figures.p_at_k[0], figures.p_at_1[0], figures.reciprocal_rank[0]) == (0.3, 1.0, 1.0)


@given(hit_lists, st.integers(1, 12), st.integers(0, 30))
def test_figures_of_a_list_agree_with_plain_loops(hits, k, beyond):
    relevant = hits.sum(axis=1) + beyond
    figures = list_figures(hits, k=k, relevant=relevant)
    for row, rel in enumerate(hits):
        r, k_eff = int(relevant[row]), min(k, len(rel))
        if r == 0:
            assert np.isnan([getattr(figures, name)[row] for name in FIGURES]).all()
            continue
        precision = [rel[: i + 1].mean() for i in range(len(rel))]
        at_hits = sum(precision[i] for i in range(k_eff) if rel[i])
        top = rel[:k_eff].sum()
        line = sum(((rel[:i].mean() if i else 1.0) + precision[i]) / 2 for i in range(len(rel)) if rel[i])
        expected = {
            "p_at_1": float(rel[0]),
            "p_at_k": top / k_eff,
            "ap_a": at_hits / min(r, k),
            "ap_b": at_hits / top if top else 0.0,
            "ap_c": at_hits / r,
            "ap_d": np.mean(precision[:k_eff]),
            "ap": sum(precision[i] for i in range(len(rel)) if rel[i]) / r,
            "ap_trapezoid": line / r,
            "reciprocal_rank": 1 / (rel.argmax() + 1) if rel.any() else 0.0,
        }
        assert {name: getattr(figures, name)[row] for name in FIGURES} == pytest.approx(expected)
        recall = np.cumsum(rel) / r
        for level, value in zip(RECALL_LEVELS, figures.precision_at_recall[row], strict=True):
            beyond_it = [
                p for p, reached, hit in zip(precision, recall, rel, strict=True) if hit and reached >= level - 1e-9
            ]
            assert value == pytest.approx(max(beyond_it, default=0.0))


@given(hit_lists, st.integers(1, 12), st.integers(0, 30))
def test_a_is_at_most_p_at_k_where_at_least_k_are_relevant_and_never_above_b(hits, k, beyond):
    relevant = hits.sum(axis=1) + beyond
    figures = list_figures(hits, k=k, relevant=relevant)
    enough = (relevant >= k) & (figures.k_eff == k)
    assert (figures.ap_a[enough] <= figures.p_at_k[enough] + 1e-12).all()
    some = relevant > 0
    assert (figures.ap_c[some] <= figures.ap_a[some] + 1e-12).all()
    assert (figures.ap_a[some] <= figures.ap_b[some] + 1e-12).all()
    assert (figures.ap_trapezoid[some] <= 1 + 1e-12).all()


def test_padding_behind_a_short_list_counts_for_nothing():
    short = list_figures(np.array([[True, False, True]]), k=10)
    padded = list_figures(np.array([[True, False, True, True, True]]), k=10, candidates=np.array([3]))
    for name in (*FIGURES, "k_eff", "relevant", "precision_at_recall"):
        np.testing.assert_array_equal(getattr(short, name), getattr(padded, name))
    assert short.k_eff[0] == 3
    assert short.p_at_k[0] == pytest.approx(2 / 3)


@pytest.fixture
def lesions():
    """60 lesions of 15 patients and 4 classes; neighbours in the plane are often of one class."""
    rng = np.random.default_rng(3)
    labels = rng.integers(4, size=60)
    embeddings = rng.normal(size=(60, 5)) + 1.5 * np.eye(5)[labels]
    patients = np.array([f"p{i}" for i in rng.integers(15, size=60)])
    return embeddings, labels, patients


def _by_loops(embeddings, labels, patients, rule, k):
    """{query: (P@k, AP@k in definition A, AP, reciprocal rank)} of queries with a relevant candidate."""
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    found = {}
    for q in range(len(unit)):
        allowed = {"all": np.full(len(unit), True), "same": patients == patients[q], "cross": patients != patients[q]}[
            rule
        ]
        gallery = [g for g in np.flatnonzero(allowed) if g != q]
        ranked = sorted(gallery, key=lambda g: -float(unit[q] @ unit[g]))
        rel = np.array([labels[g] == labels[q] for g in ranked], dtype=bool)
        if rel.any():
            precision = np.cumsum(rel) / np.arange(1, len(rel) + 1)
            ap = average_precision_score(rel, -np.arange(len(rel)))
            a = (precision * rel)[:k].sum() / min(rel.sum(), k)
            found[q] = (rel[:k].mean(), a, ap, 1 / (rel.argmax() + 1))
    return found


@pytest.mark.parametrize("rule", retrieval.PATIENT_RULES)
@pytest.mark.parametrize("at_once", [1, 100, 1 << 22])
def test_every_patient_rule_agrees_with_a_loop_over_sorted_galleries(lesions, rule, at_once, monkeypatch):
    monkeypatch.setattr(retrieval, "SIMILARITIES_AT_ONCE", at_once)
    expected = _by_loops(*lesions, rule, 5)
    got = retrieve(*lesions, rule=rule, k=5)
    assert got.query.tolist() == list(expected)
    names = ("p_at_k", "ap_a", "ap", "reciprocal_rank")
    np.testing.assert_allclose(np.stack([got.per_query(n) for n in names], axis=1), list(expected.values()))
    np.testing.assert_array_equal(got.labels, lesions[1][got.query])
    np.testing.assert_array_equal(got.patients, lesions[2][got.query])


@settings(max_examples=20)
@given(st.randoms(use_true_random=False), st.sampled_from(retrieval.PATIENT_RULES))
def test_the_order_of_the_table_and_the_length_of_embeddings_change_nothing(random, rule):
    rng = np.random.default_rng(4)
    embeddings, labels = rng.normal(size=(30, 4)), rng.integers(3, size=30)
    patients = rng.integers(6, size=30)
    order = np.array(random.sample(range(30), 30))
    first = retrieve(embeddings, labels, patients, rule=rule, k=3)
    second = retrieve(embeddings[order] * rng.uniform(0.1, 9, (30, 1)), labels[order], patients[order], rule=rule, k=3)
    place = np.argsort(order[second.query])
    for name in FIGURES:
        np.testing.assert_allclose(first.per_query(name), second.per_query(name)[place], atol=1e-12)


def test_a_query_never_answers_itself_though_it_is_most_like_itself():
    embeddings = np.eye(4)
    got = retrieve(embeddings, np.array([0, 0, 1, 1]), np.arange(4), k=1)
    assert (got.figures.candidates == 3).all()
    assert (got.figures.relevant == 1).all()


def test_cross_patient_leaves_out_own_patient_and_a_shared_study(lesions):
    embeddings, labels, patients = lesions
    got = retrieve(embeddings, labels, patients, rule="cross")
    own = np.array([(patients == p).sum() for p in got.patients])
    np.testing.assert_array_equal(got.figures.candidates, 60 - own)
    studies = np.array(["shared" if i < 10 else f"s{i}" for i in range(60)])
    fewer = retrieve(embeddings, labels, patients, rule="cross", studies=studies)
    left = [((patients != patients[q]) & (studies != studies[q])).sum() for q in fewer.query]
    np.testing.assert_array_equal(fewer.figures.candidates, left)
    assert min(left) < min(got.figures.candidates)


def test_same_patient_has_short_galleries_and_says_so():
    labels, patients = np.array([0, 0, 1, 0, 1, 0]), np.array([1, 1, 1, 2, 2, 3])
    embeddings = np.random.default_rng(0).normal(size=(6, 3))
    got = retrieve(embeddings, labels, patients, rule="same", k=10)
    assert got.query.tolist() == [0, 1]  # the others have no lesion of their class beside them
    assert got.no_candidate == 1
    assert got.unanswerable == 3
    assert got.figures.k_eff.tolist() == [2, 2]
    assert got.chance_mean("p_at_k") == 0.5
    zero = retrieve(embeddings, labels, patients, rule="same", k=10, unanswerable="zero")
    assert zero.query.tolist() == [0, 1, 2, 3, 4]
    assert all(zero.per_query(name)[2:].tolist() == [0, 0, 0] for name in FIGURES)
    assert zero.chance["p_at_k"][2:].tolist() == [0, 0, 0]


def test_a_collapsed_embedding_scores_chance_whatever_the_order_of_the_table():
    labels = np.repeat([0, 1, 2], [100, 60, 40])
    got = retrieve(np.ones((200, 3)), labels, np.arange(200), k=10)
    assert got.mean("p_at_k") == pytest.approx(got.chance_mean("p_at_k"), abs=0.1)
    assert got.mean("ap") == pytest.approx(got.chance_mean("ap"), abs=0.05)
    again = retrieve(np.ones((200, 3)), labels, np.arange(200), k=10)
    np.testing.assert_array_equal(got.per_query("ap"), again.per_query("ap"))


def test_macro_means_weigh_classes_and_micro_means_queries(lesions):
    got = retrieve(*lesions, k=5)
    values = got.per_query("ap_a")
    assert got.mean("ap_a") == pytest.approx(values.mean())
    assert got.mean("ap_a", macro=True) == pytest.approx(np.mean([values[got.labels == c].mean() for c in range(4)]))
    assert np.isnan(got.statistic("ap_a", macro=True)(np.flatnonzero(got.labels == 0)))


def test_retrieval_figures_take_a_bootstrap_over_patients(lesions):
    got = retrieve(*lesions, k=5)
    estimate = interval(got.statistic("p_at_k"), PatientDraws(got.patients, draws=200, seed=0))
    assert estimate.low < estimate.value < estimate.high
    assert estimate.value == got.mean("p_at_k")


def test_what_cannot_be_ranked_is_refused(lesions):
    embeddings, labels, patients = lesions
    with pytest.raises(ValueError, match="row 2 of the embeddings is zero"):
        retrieve(np.where(np.arange(60)[:, None] == 2, 0, embeddings), labels, patients)
    with pytest.raises(ValueError, match="finite"):
        retrieve(embeddings * np.nan, labels, patients)
    with pytest.raises(ValueError, match="labels must have one value"):
        retrieve(embeddings, labels[:5], patients)
    with pytest.raises(ValueError, match="one of all, same, cross"):
        retrieve(embeddings, labels, patients, rule="none")
    with pytest.raises(ValueError, match="more hits"):
        list_figures(np.ones((1, 3), dtype=bool), relevant=np.array([2]))
    with pytest.raises(ValueError, match="no retrieval figure"):
        retrieve(embeddings, labels, patients).mean("map")


def test_nobody_to_ask_gives_no_figures_instead_of_an_error():
    got = retrieve(np.eye(3), np.arange(3), np.arange(3), rule="same")
    assert len(got.query) == 0
    assert got.no_candidate == 3
    assert np.isnan(got.mean("p_at_k"))


def test_classes_along_one_direction_are_found_by_distance_and_not_by_cosine():
    """A scale of grades whose class is how far out a lesion lies: what a Siamese network without normalisation may learn."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 10)
    points = np.outer(1.0 + labels, [0.6, 0.8]) + rng.normal(0, 0.05, (40, 2))
    by_distance = retrieve(embeddings_of(points), labels, np.arange(40), metric="euclidean")
    by_cosine = retrieve(points, labels, np.arange(40))
    assert by_distance.mean("ap") == 1.0
    assert by_cosine.mean("ap") < 0.6


def test_distances_in_blocks_are_those_of_a_loop(monkeypatch):
    monkeypatch.setattr(retrieval, "SIMILARITIES_AT_ONCE", 50)
    rng = np.random.default_rng(1)
    points, labels = rng.normal(size=(30, 5)) * rng.uniform(0.1, 9, (30, 1)), rng.integers(3, size=30)
    got = retrieve(embeddings_of(points), labels, np.arange(30), metric="euclidean")
    first = [np.linalg.norm(points - point, axis=1).argsort()[1] for point in points]
    np.testing.assert_array_equal(got.per_query("p_at_1")[:], (labels[first] == labels)[got.query])


def test_a_network_that_compares_by_distance_votes_by_distance():
    known = embeddings_of(np.array([[1.0, 0.0], [5.0, 0.0], [5.2, 0.0]]))
    p = neighbour_probabilities(
        embeddings_of(np.array([[4.9, 0.0]])), known, np.array([0, 1, 1]), 2, k=1, metric="euclidean"
    )
    assert p[0, 1] > 0.6
