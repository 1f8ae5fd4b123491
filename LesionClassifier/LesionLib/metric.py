"""What "near" means between the embeddings of a model: the cosine of two directions, or the Euclidean distance of two points.

Every embedding is a vector of length 1. That of a model whose metric is Euclidean is a point x in homogeneous coordinates:
(x, `HEIGHT`) divided by its length. So it travels, is stored and is checked as every other embedding, and is a point again
wherever two are compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

COSINE, EUCLIDEAN = "cosine", "euclidean"
METRICS = (COSINE, EUCLIDEAN)
# Points whose length is of the order of a contrastive margin lie in a narrow cone there: directions in nearly the same order.
HEIGHT = 8.0
_LOWEST = 1e-6  # of the last coordinate: what no point of a network reaches


def points_of(embeddings: np.ndarray) -> np.ndarray:
    """The points (..., d), float64, of embeddings (..., d + 1). Raises ValueError for what is no point's."""
    values = np.asarray(embeddings, dtype=np.float64)
    heights = values[..., -1:]
    if values.shape[-1] < 2 or not (heights > _LOWEST).all():
        msg = "embeddings of a Euclidean model end in a number above 0; these are of another model"
        raise ValueError(msg)
    return HEIGHT * values[..., :-1] / heights


def embeddings_of(points: np.ndarray) -> np.ndarray:
    """The inverse of `points_of`: points (..., d) as vectors (..., d + 1) of length 1, float64."""
    points = np.asarray(points, dtype=np.float64)
    lifted = np.concatenate([points, np.full((*points.shape[:-1], 1), HEIGHT)], axis=-1)
    return lifted / np.linalg.norm(lifted, axis=-1, keepdims=True)


def similarity_at(distance: np.ndarray) -> np.ndarray:
    """What is shown as similarity: 1 / (1 + distance squared), 1 for the same point, towards 0 far away."""
    return 1.0 / (1.0 + np.square(distance))


def least_cosine_within(distance: float, query: np.ndarray) -> float:
    """No embedding of a point within ``distance`` of ``query`` (d,) has a smaller cosine to it; -1 where any may have."""
    share = distance / float(np.hypot(np.linalg.norm(query), HEIGHT))
    return float(np.sqrt(1.0 - share**2)) if share < 1.0 else -1.0


def metric_of(manifest: Mapping[str, Any]) -> str:
    """The metric of a model by its manifest; models made before it was stored are compared by cosine."""
    return manifest["lesionlens"].get("metric", COSINE)
