"""DMRN's support vector machine where classes are unequal: what its weights do to its answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from LesionLib.networks.dmrn import DMRN
from lesiontraining.data.lesions import LesionDataset
from lesiontraining.runs import inference
from sklearn.metrics import balanced_accuracy_score

COUNTS = (120, 20, 20)


def unequal_lesions(network: DMRN, monkeypatch: pytest.MonkeyPatch) -> tuple[LesionDataset, torch.Tensor]:
    """Lesions of one picture and one patient each, whose descriptors overlap; the descriptors stand for what was learned."""
    rng = np.random.default_rng(0)
    labels, size = np.repeat(np.arange(len(COUNTS)), COUNTS), network.svm.mean.numel()
    descriptors = rng.normal(size=(len(labels), size))
    descriptors[np.arange(len(labels)), labels] += 1.2
    n, names = len(labels), np.array([f"l{i}" for i in range(len(labels))])
    pictures = tuple(np.zeros((1, 1, 1, 1), np.float32) for _ in labels)
    lesions = LesionDataset(
        pictures, labels, ("a", "b", "c"), names, names, names, np.zeros(n, int), np.ones((n, 3)), np.ones(n), np.ones(n),
        np.ones((n, 3)), np.ones((n, 4)), (-1.0, 1.0),
    )  # fmt: skip
    monkeypatch.setattr(inference, "lesion_descriptors", lambda network, images: [d[None] for d in descriptors])
    return lesions, torch.from_numpy(descriptors)


def test_a_weighted_machine_answers_rare_classes_too_after_its_calibration(monkeypatch):
    network = DMRN(depth=18, width="tiny", classes=3).double().eval()
    lesions, descriptors = unequal_lesions(network, monkeypatch)
    found = {}
    for weight in (None, "balanced"):
        inference.fit_support_vectors(network, lesions, c=1.0, class_weight=weight)
        answers = network.svm.probabilities(network.svm(descriptors), 1.0).argmax(dim=1).numpy()
        found[weight] = balanced_accuracy_score(lesions.labels, answers)
    assert found["balanced"] > found[None] + 0.15
    assert found["balanced"] > 0.6
