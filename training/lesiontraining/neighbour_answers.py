"""What a network that only compares says of a class: the share of it among the most similar training lesions."""

from __future__ import annotations

import numpy as np

NEIGHBOURS = 9


def neighbour_probabilities(
    embeddings: np.ndarray, known: np.ndarray, labels: np.ndarray, classes: int, *, k: int = NEIGHBOURS
) -> np.ndarray:
    """Probabilities (n, class): each of the ``k`` most similar votes with 1 + cosine, and every class has one vote of 1 / k.

    The last keeps a class that no neighbour has from being impossible. ``embeddings``: (n, d), ``known``: (m, d),
    L2-normalised; ``labels``: (m,), class indices. Equally similar ones come in the order given.
    """
    if not len(known):
        msg = "no training lesion has a label; without one there is nothing to compare with"
        raise ValueError(msg)
    similarity = embeddings @ known.T
    nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    weight = 1.0 + np.take_along_axis(similarity, nearest, axis=1)
    votes = np.full((len(embeddings), classes), 1.0 / k)
    for c in range(classes):
        votes[:, c] += np.where(labels[nearest] == c, weight, 0.0).sum(axis=1)
    return votes / votes.sum(axis=1, keepdims=True)
