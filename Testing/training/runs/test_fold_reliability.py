"""What a fold's model says of its own reliability is fitted on validation lesions and checked on test lesions."""

from __future__ import annotations

import numpy as np
import pytest
from lesiontraining.evaluation.predictions import Predictions, PredictionsError, joined
from lesiontraining.runs.reliability import fold_reliability


def predictions(counts: dict[str, int], *, seed: int = 0, first: int = 0) -> Predictions:
    """Three classes, probabilities that are right on average, embeddings around one direction a class."""
    rng = np.random.default_rng(seed)
    n = sum(counts.values())
    probabilities = rng.dirichlet([1.0, 1.0, 1.0], n)
    labels = np.array([rng.choice(3, p=row) for row in probabilities])
    embeddings = np.eye(8)[labels] + rng.normal(0, 0.1, (n, 8))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    ids = np.array([f"line {first + i}" for i in range(n)])
    return Predictions(
        class_names=("a", "b", "c"), lesion_ids=ids, patients=ids, studies=ids, folds=np.zeros(n, int),
        split=np.repeat(list(counts), list(counts.values())), labels=labels, probabilities=probabilities,
        embeddings=embeddings, size_mm=np.full((n, 3), 10.0), volume_mm3=np.ones(n), mean_hu=np.zeros(n), spacing_mm=np.ones((n, 3)),
    )  # fmt: skip


def test_sets_and_distances_keep_their_promise_on_lesions_that_took_no_part():
    found = fold_reliability(predictions({"train": 300, "val": 300, "test": 600}), classifies=True)
    assert found.conformal.class_conditional
    assert found.notes == ()
    assert set(found.figures) == {
        "prediction sets, test lesions of this fold",
        "warned of as unlike training, test lesions of this fold",
    }
    shares = [float(text.split("%")[0].split()[-1]) for text in found.figures.values()]
    assert shares[0] == pytest.approx(90, abs=4)
    assert shares[1] == pytest.approx(5, abs=3)
    assert {name.split(".")[0] for name in found.tensors()} == {"conformal", "ood"}


def test_what_could_not_be_fitted_is_said():
    found = fold_reliability(predictions({"train": 30, "val": 6, "test": 10}), classifies=True)
    assert found.tensors() == {}
    assert any("too few" in note for note in found.notes)
    assert len(found.notes) == 3


def test_a_network_without_classes_gets_no_sets():
    found = fold_reliability(predictions({"train": 100, "val": 100, "test": 10}), classifies=False)
    assert found.conformal is None
    assert found.ood is not None


def test_predictions_come_back_from_their_file_and_folds_are_joined_once(tmp_path):
    one, other = (predictions({"test": 5}, first=first) for first in (0, 5))
    one.save(tmp_path / "p.npz")
    back = Predictions.load(tmp_path / "p.npz")
    np.testing.assert_array_equal(back.probabilities, one.probabilities)
    assert list(joined([back, other]).lesion_ids) == [f"line {i}" for i in range(10)]
    with pytest.raises(PredictionsError, match="line 0 is answered twice"):
        joined([back, one])
    (tmp_path / "bad.npz").write_bytes(b"no archive")
    with pytest.raises(PredictionsError, match="does not hold predictions"):
        Predictions.load(tmp_path / "bad.npz")
