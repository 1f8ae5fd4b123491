"""Which classes cannot be ruled out: split conformal prediction sets; and shares of lesions with their interval.

Torch is met only where sets are stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import sqrt
from typing import TYPE_CHECKING

import numpy as np

from LesionLib.errors import BundleError

if TYPE_CHECKING:
    from torch import Tensor


_PREFIX = "conformal."
_QUANTILE, _ALPHA, _COUNTS, _BY_CLASS = (
    _PREFIX + name for name in ("quantile", "alpha", "counts", "class_conditional")
)
_EDGES, _BANDS = _PREFIX + "band_edges_mm", _PREFIX + "band_quantiles"
_MAX_BANDS = 16
_SUM_TOLERANCE = 1e-3
_NORMAL_97_5 = 1.959963984540054  # the standard normal's quantile: 95 % lie within as many standard deviations


@dataclass(frozen=True, eq=False)
class ConformalQuantile:
    """What a prediction set needs: class c belongs to the set where 1 - p_c <= ``scores[c]``.

    ``scores``: float64, shape (class,); all the same unless ``class_conditional``. ``alpha``: the share of misses that is
    allowed. ``counts``: calibration lesions of each class, shape (class,). ``band_edges_mm``, rising, (band - 1,), and
    ``band_scores``, (band, class): scores of their own for lesions by the shortest edge of their box, where a model has them;
    an edge belongs to the band below it.
    """

    scores: np.ndarray
    alpha: float
    counts: np.ndarray
    class_conditional: bool = False
    band_edges_mm: np.ndarray = field(default_factory=lambda: np.empty(0))
    band_scores: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))

    def of_size(self, shortest_mm: float) -> ConformalQuantile:
        """The quantile of lesions of this size; the same for all sizes where the model has one for all."""
        if not len(self.band_scores):
            return self
        band = int(np.searchsorted(self.band_edges_mm, shortest_mm, side="left"))
        return replace(self, scores=self.band_scores[band], band_edges_mm=np.empty(0), band_scores=np.empty((0, 0)))

    def to_tensors(self) -> dict[str, Tensor]:
        """Tensors for a bundle's safetensors, their names beginning with "conformal."."""
        import torch

        bands = {}
        if len(self.band_scores):
            bands = {
                _EDGES: torch.tensor(self.band_edges_mm, dtype=torch.float64),
                _BANDS: torch.tensor(self.band_scores, dtype=torch.float64),
            }
        return {
            _QUANTILE: torch.tensor(self.scores, dtype=torch.float64),
            _ALPHA: torch.tensor([self.alpha], dtype=torch.float64),
            _COUNTS: torch.tensor(self.counts, dtype=torch.int64),
            _BY_CLASS: torch.tensor([int(self.class_conditional)], dtype=torch.int64),
            **bands,
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], *, classes: int) -> ConformalQuantile | None:
        """What a bundle holds; None where it holds none. Raises `BundleError` for what is no conformal quantile."""
        named = {name: tensor for name, tensor in tensors.items() if name.startswith(_PREFIX)}
        if not named:
            return None
        shapes = {_QUANTILE: (classes,), _ALPHA: (1,), _COUNTS: (classes,), _BY_CLASS: (1,)}
        if _EDGES in named or _BANDS in named:
            edges = min(named[_EDGES].numel(), _MAX_BANDS) if _EDGES in named else 0
            shapes |= {_EDGES: (edges,), _BANDS: (edges + 1, classes)}
        found = {name: tuple(tensor.shape) for name, tensor in named.items()}
        if found != shapes:
            msg = f"the model's conformal tensors are {found}, expected {shapes}; get the model again."
            raise BundleError(msg)
        scores, counts = (named[name].double().cpu().numpy() for name in (_QUANTILE, _COUNTS))
        alpha, by_class = float(named[_ALPHA][0]), bool(named[_BY_CLASS][0])
        edges, bands = np.empty(0), np.empty((0, 0))
        if _BANDS in named:
            edges, bands = (named[name].double().cpu().numpy() for name in (_EDGES, _BANDS))
        in_range = all(((part >= 0) & (part <= 1)).all() for part in (scores, bands))
        if not (
            0 < alpha < 1 and in_range and (counts >= 0).all() and (np.diff(edges) > 0).all() and (edges > 0).all()
        ):
            msg = "the model's conformal tensors hold values outside their range; get the model again."
            raise BundleError(msg)
        return cls(scores, alpha, counts.astype(np.int64), by_class, edges, bands)


def prediction_set(
    probabilities: np.ndarray, quantile: ConformalQuantile, *, never_empty: bool = True
) -> tuple[int, ...]:
    """Indices of the classes that cannot be ruled out for one lesion, the likeliest first. ``probabilities``: (class,).

    ``never_empty``: the likeliest class belongs to the set in any case; this can only raise the coverage.
    """
    p = np.asarray(probabilities, dtype=np.float64)[None]
    (in_set,) = prediction_sets(p, quantile, never_empty=never_empty)
    return tuple(int(c) for c in np.argsort(-p[0], kind="stable") if in_set[c])


def prediction_sets(probabilities: np.ndarray, quantile: ConformalQuantile, *, never_empty: bool = True) -> np.ndarray:
    """The same for n lesions at once: (n, class) -> bool, (n, class)."""
    p, _ = checked_probabilities(probabilities, None)
    if p.shape[1] != len(quantile.scores):
        msg = f"{p.shape[1]} probabilities were given; the quantile was fitted for {len(quantile.scores)} classes"
        raise ValueError(msg)
    in_set = 1.0 - p <= quantile.scores
    if never_empty:
        in_set[np.arange(len(p)), p.argmax(axis=1)] = True
    return in_set


def checked_probabilities(probabilities: np.ndarray, labels: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays, (n, class) and (n,); zeros where there are no labels. Raises ValueError for what is neither."""
    p = np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 2 or p.shape[1] < 2 or not len(p):
        msg = f"probabilities must have shape (lesion, class) with at least 1 and 2 of them, not {p.shape}"
        raise ValueError(msg)
    if not (np.isfinite(p).all() and (p >= 0).all() and np.abs(p.sum(axis=1) - 1).max() <= _SUM_TOLERANCE):
        msg = "probabilities must be finite, not negative, and add up to 1 in each lesion"
        raise ValueError(msg)
    y = np.zeros(len(p), dtype=int) if labels is None else np.asarray(labels)
    if y.shape != (len(p),) or y.dtype.kind not in "iu" or y.min() < 0 or y.max() >= p.shape[1]:
        msg = f"labels must be {len(p)} whole numbers from 0 to {p.shape[1] - 1}"
        raise ValueError(msg)
    return p, y


@dataclass(frozen=True)
class Proportion:
    """A share of lesions: ``hits`` of ``n`` with Wilson's 95 % interval.

    The interval takes the n to be independent; slices of a patient are not.
    """

    hits: int
    n: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """hits / n."""
        return self.hits / self.n

    def __str__(self) -> str:
        """``0.599 (0.515-0.677, n = 137)``."""
        return f"{self.value:.3f} ({self.low:.3f}-{self.high:.3f}, n = {self.n})"


def proportion(hits: int, n: int) -> Proportion:
    """``hits`` of ``n``. Raises ValueError unless n is at least 1 and hits are from 0 to n."""
    hits, n = int(hits), int(n)
    if not 0 <= hits <= n or n < 1:
        msg = f"{hits} of {n} is no proportion: hits are from 0 to n, and n is at least 1"
        raise ValueError(msg)
    # Newcombe, "Two-sided confidence intervals for the single proportion", Statistics in Medicine 1998, as scipy.stats has it;
    # that takes most of a second to import, which whoever scores a quiz would wait for.
    p, z = hits / n, _NORMAL_97_5
    twice = 2 * (n + z**2)
    middle, half = (2 * n * p + z**2) / twice, z / twice * sqrt(4 * n * p * (1 - p) + z**2)
    return Proportion(hits, n, middle - half if hits > 0 else 0.0, middle + half if hits < n else 1.0)
