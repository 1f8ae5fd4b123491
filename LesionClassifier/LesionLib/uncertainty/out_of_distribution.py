"""Whether a lesion looks like those the model learned from: a distance of its embedding. Torch is met only for storage.

The default is the Mahalanobis distance to the nearest class mean under one shared covariance (Lee et al., NeurIPS 2018).
Why: it knows which directions vary among lesions and which never do, where a cosine weighs all alike; what is stored are
means and a covariance, not embeddings of patients; and its size does not grow with the training set. The shrinkage makes
it work with fewer lesions than dimensions. ``method="neighbours"`` is the distance to the k-th nearest training lesion
(Sun et al., ICML 2022): for classes of several clusters, at the price of every training embedding in the bundle.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from LesionLib.errors import BundleError

if TYPE_CHECKING:
    from torch import Tensor


_PREFIX = "ood."
_MEANS, _WHITENING, _EMBEDDINGS, _NEIGHBOURS, _THRESHOLD, _QUANTILE = (
    _PREFIX + name for name in ("means", "whitening", "embeddings", "neighbours", "threshold", "quantile")
)
_UNIT_TOLERANCE = 1e-3
_AT_ONCE = 256  # lesions whose distances to all training lesions are in memory


class Distance(Protocol):
    """How far embeddings lie from the training lesions."""

    @property
    def size(self) -> int:
        """d of the embeddings."""

    def of(self, embeddings: np.ndarray) -> np.ndarray:
        """(n, d) -> (n,); larger is stranger."""

    def arrays(self) -> dict[str, np.ndarray]:
        """What is stored."""


@dataclass(frozen=True, eq=False)
class Mahalanobis:
    """Distance to the nearest of ``means`` (class, d); ``whitening`` (d, d) times its transpose is the precision."""

    means: np.ndarray
    whitening: np.ndarray

    @property
    def size(self) -> int:
        """d of the embeddings."""
        return self.means.shape[1]

    def of(self, embeddings: np.ndarray) -> np.ndarray:
        """(n, d) -> (n,), in standard deviations."""
        # Stored as its factor: a float32 precision matrix can lose its positive definiteness, a square cannot.
        white, centers = embeddings @ self.whitening, self.means @ self.whitening
        return np.min([np.linalg.norm(white - center, axis=1) for center in centers], axis=0)

    def arrays(self) -> dict[str, np.ndarray]:
        """Means and whitening as float32."""
        return {_MEANS: self.means.astype(np.float32), _WHITENING: self.whitening.astype(np.float32)}


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Euclidean distance to the ``k``-th nearest of ``embeddings`` (lesion, d)."""

    embeddings: np.ndarray
    k: int

    @property
    def size(self) -> int:
        """d of the embeddings."""
        return self.embeddings.shape[1]

    def of(self, embeddings: np.ndarray) -> np.ndarray:
        """(n, d) -> (n,), 0 to 2."""
        parts = [embeddings[i : i + _AT_ONCE] for i in range(0, len(embeddings), _AT_ONCE)]
        cosines = [np.partition(part @ self.embeddings.T, -self.k, axis=1)[:, -self.k] for part in parts]
        return np.sqrt(np.maximum(2.0 - 2.0 * np.concatenate(cosines), 0.0))

    def arrays(self) -> dict[str, np.ndarray]:
        """Embeddings as float32, and k."""
        return {_EMBEDDINGS: self.embeddings.astype(np.float32), _NEIGHBOURS: np.array([self.k], dtype=np.int64)}


@dataclass(frozen=True, eq=False)
class OutOfDistribution:
    """The distance, and from where on it is unusual: a share of at most 1 - ``quantile`` of lesions like those of the
    validation lies beyond ``threshold``.
    """

    distance: Distance
    threshold: float
    quantile: float

    def score(self, embedding: np.ndarray) -> float:
        """The distance of one lesion; ``embedding`` is L2-normalised, (d,). Raises ValueError where it does not fit."""
        return float(self.distance.of(checked_embeddings(np.asarray(embedding)[None], size=self.distance.size))[0])

    def is_out_of_distribution(self, embedding: np.ndarray) -> bool:
        """Whether the lesion lies beyond the threshold."""
        return self.score(embedding) > self.threshold

    def warning(self, embedding: np.ndarray) -> str | None:
        """The sentence for the reader, or None where the lesion is usual."""
        score = self.score(embedding)
        if score <= self.threshold:
            return None
        return (
            f"To the model this lesion looks unlike those it learned from (distance {score:.3g}; {self.quantile:.0%} of its "
            f"validation lesions lie within {self.threshold:.3g}): it may be of a kind it does not know."
        )

    def to_tensors(self) -> dict[str, Tensor]:
        """Tensors for a bundle's safetensors, their names beginning with "ood."."""
        import torch

        numbers = {_THRESHOLD: np.array([self.threshold]), _QUANTILE: np.array([self.quantile])}
        return {
            name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in (self.distance.arrays() | numbers).items()
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], *, size: int | None = None) -> OutOfDistribution | None:
        """What a bundle holds; None where it holds none. ``size``: the network's d. Raises `BundleError`."""
        arrays = {name: t.double().cpu().numpy() for name, t in tensors.items() if name.startswith(_PREFIX)}
        if not arrays:
            return None
        _check_stored(arrays, size)
        if _WHITENING in arrays:
            distance: Distance = Mahalanobis(arrays[_MEANS], arrays[_WHITENING])
        else:
            distance = Neighbours(arrays[_EMBEDDINGS], int(arrays[_NEIGHBOURS][0]))
        return cls(distance, float(arrays[_THRESHOLD][0]), float(arrays[_QUANTILE][0]))


def checked_embeddings(embeddings: np.ndarray, *, size: int | None = None) -> np.ndarray:
    """As float64, (lesion, d). Raises ValueError where they are not L2-normalised or of another ``size``."""
    e = np.asarray(embeddings, dtype=np.float64)
    if e.ndim != 2 or not e.size or (size is not None and e.shape[1] != size):
        msg = f"embeddings must have shape (lesion, {'d' if size is None else size}), not {e.shape}"
        raise ValueError(msg)
    if not (np.abs(np.linalg.norm(e, axis=1) - 1.0) <= _UNIT_TOLERANCE).all():
        msg = "embeddings must be L2-normalised and finite; give what embed() returns"
        raise ValueError(msg)
    return e


def _check_stored(arrays: Mapping[str, np.ndarray], size: int | None) -> None:
    names = set(arrays) - {_THRESHOLD, _QUANTILE}
    shapes = {name: array.shape for name, array in arrays.items()}
    first = shapes.get(_MEANS, shapes.get(_EMBEDDINGS, ()))
    d = first[-1] if size is None and first else size
    fits = (
        names in ({_MEANS, _WHITENING}, {_EMBEDDINGS, _NEIGHBOURS})
        and len(first) == 2
        and first[0] > 0
        and first[1] == d
        and shapes.get(_WHITENING, (d, d)) == (d, d)
        and all(shapes.get(name, (1,)) == (1,) for name in (_NEIGHBOURS, _THRESHOLD, _QUANTILE))
        and {_THRESHOLD, _QUANTILE} <= set(arrays)
    )
    if not fits:
        msg = f"the model's out-of-distribution tensors are {shapes}, which do not fit; get the model again."
        raise BundleError(msg)
    in_range = all(np.isfinite(array).all() for array in arrays.values())
    in_range = in_range and 0 < arrays[_QUANTILE][0] < 1 and arrays[_THRESHOLD][0] >= 0
    if not (in_range and 1 <= arrays.get(_NEIGHBOURS, np.ones(1))[0] <= max(first[0], 1)):
        msg = "the model's out-of-distribution tensors hold values outside their range; get the model again."
        raise BundleError(msg)
