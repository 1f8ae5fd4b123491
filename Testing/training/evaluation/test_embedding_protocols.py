"""Neighbours, a linear probe and a few shots see nothing of the patient that they answer for."""

from __future__ import annotations

import numpy as np
import pytest
from lesiontraining.evaluation.classification import macro_auc
from lesiontraining.evaluation.embedding_protocols import (
    Lesions,
    few_shot_scores,
    jitter_stability,
    neighbour_scores,
    probe_scores,
)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def lesions():
    """Two lesions of each of 60 patients, whole patients in 5 folds, a class a patient."""
    patients = np.repeat(np.arange(60), 2)
    return Lesions(patients % 3, patients, patients // 3 % 5, 3)


def embeddings_of(lesions, *, skill, by_patient=0.0, seed=0):
    """``by_patient``: how far the embedding knows who it is, which tells the class of a patient that was seen."""
    rng = np.random.default_rng(seed)
    of_class = np.eye(3)[lesions.labels] @ rng.normal(size=(3, 24))
    of_patient = rng.normal(size=(60, 24))[lesions.patients]
    return unit(skill * of_class + by_patient * of_patient + rng.normal(size=(len(lesions.labels), 24)))


def of_protocol(name, embeddings, lesions):
    if name == "few shots":
        return few_shot_scores(embeddings, lesions, shots=5, repeats=1)[0]
    return {"neighbours": neighbour_scores, "probe": probe_scores}[name](embeddings, lesions)


@pytest.mark.parametrize("protocol", ["neighbours", "probe", "few shots"])
def test_an_embedding_that_knows_the_class_is_told_from_one_that_knows_the_patient_only(protocol, lesions):
    good = macro_auc(lesions.labels, of_protocol(protocol, embeddings_of(lesions, skill=2.0), lesions))
    knows_patients = embeddings_of(lesions, skill=0.0, by_patient=3.0)
    bad = macro_auc(lesions.labels, of_protocol(protocol, knows_patients, lesions))
    assert good > 0.9
    assert abs(bad - 0.5) < 0.15


@pytest.mark.parametrize("protocol", ["neighbours", "probe", "few shots"])
def test_the_answers_of_a_fold_do_not_depend_on_its_labels(protocol, lesions):
    embeddings, held_out = embeddings_of(lesions, skill=1.0), lesions.folds == 2
    swapped = Lesions(np.where(held_out, (lesions.labels + 1) % 3, lesions.labels), lesions.patients, lesions.folds, 3)
    one, other = (of_protocol(protocol, embeddings, which)[held_out] for which in (lesions, swapped))
    np.testing.assert_allclose(one, other, atol=1e-12)


def test_a_patient_in_two_folds_is_refused(lesions):
    leaky = Lesions(lesions.labels, lesions.patients, np.arange(120) % 5, 3)
    with pytest.raises(ValueError, match="in two folds"):
        neighbour_scores(embeddings_of(lesions, skill=1.0), leaky)


def test_more_shots_are_better_and_a_class_with_fewer_lesions_gives_all_it_has(lesions):
    embeddings = embeddings_of(lesions, skill=0.8)
    of_shots = [
        np.mean([macro_auc(lesions.labels, s) for s in few_shot_scores(embeddings, lesions, shots=n)]) for n in (1, 10)
    ]
    assert of_shots[1] > of_shots[0] + 0.05
    all_of_them = few_shot_scores(embeddings, lesions, shots=1000, repeats=2)
    np.testing.assert_allclose(all_of_them[0], all_of_them[1])


def test_what_does_not_move_is_stable_and_what_becomes_another_is_not(lesions):
    embeddings = embeddings_of(lesions, skill=1.0)
    same = jitter_stability(embeddings, [embeddings, embeddings])
    assert (same.cosine.min(), same.found_itself.min()) == (pytest.approx(1.0), 1.0)
    other = jitter_stability(embeddings, [np.roll(embeddings, 1, axis=0)])
    assert other.found_itself.max() == 0.0
