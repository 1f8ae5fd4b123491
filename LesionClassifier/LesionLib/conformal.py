"""Which classes cannot be ruled out: split conformal prediction sets. Torch is met only where sets are stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from .errors import BundleError
from .proportion import Proportion, proportion

if TYPE_CHECKING:
    from torch import Tensor

_PREFIX = "conformal."
_QUANTILE, _ALPHA, _COUNTS, _BY_CLASS = (
    _PREFIX + name for name in ("quantile", "alpha", "counts", "class_conditional")
)
_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class ConformalQuantile:
    """What a prediction set needs: class c belongs to the set where 1 - p_c <= ``scores[c]``.

    ``scores``: float64, shape (class,); all the same unless ``class_conditional``. ``alpha``: the share of misses that is
    allowed. ``counts``: calibration lesions of each class, shape (class,).
    """

    scores: np.ndarray
    alpha: float
    counts: np.ndarray
    class_conditional: bool = False

    def to_tensors(self) -> dict[str, Tensor]:
        """Tensors for a bundle's safetensors, their names beginning with "conformal."."""
        import torch

        return {
            _QUANTILE: torch.tensor(self.scores, dtype=torch.float64),
            _ALPHA: torch.tensor([self.alpha], dtype=torch.float64),
            _COUNTS: torch.tensor(self.counts, dtype=torch.int64),
            _BY_CLASS: torch.tensor([int(self.class_conditional)], dtype=torch.int64),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], *, classes: int) -> ConformalQuantile | None:
        """What a bundle holds; None where it holds none. Raises `BundleError` for what is no conformal quantile."""
        named = {name: tensor for name, tensor in tensors.items() if name.startswith(_PREFIX)}
        if not named:
            return None
        shapes = {_QUANTILE: (classes,), _ALPHA: (1,), _COUNTS: (classes,), _BY_CLASS: (1,)}
        found = {name: tuple(tensor.shape) for name, tensor in named.items()}
        if found != shapes:
            msg = f"the model's conformal tensors are {found}, expected {shapes}; get the model again."
            raise BundleError(msg)
        scores, counts = (named[name].double().cpu().numpy() for name in (_QUANTILE, _COUNTS))
        alpha, by_class = float(named[_ALPHA][0]), bool(named[_BY_CLASS][0])
        if not (0 < alpha < 1 and ((scores >= 0) & (scores <= 1)).all() and (counts >= 0).all()):
            msg = "the model's conformal tensors hold values outside their range; get the model again."
            raise BundleError(msg)
        return cls(scores, alpha, counts.astype(np.int64), by_class)


@dataclass(frozen=True)
class Coverage:
    """In how many lesions the set held the true class, beside what was ``promised``; ``mean_size``: classes in a set."""

    covered: Proportion
    mean_size: float
    promised: float

    def __str__(self) -> str:
        """One sentence for a model card."""
        share = self.covered
        return (
            f"The set held the true class in {share.hits} of {share.n} lesions, {share.value:.1%} "
            f"(95 % interval {share.low:.1%} to {share.high:.1%}; promised {self.promised:.0%}); "
            f"it held {self.mean_size:.2f} classes on average."
        )


def fit_quantile(
    probabilities: np.ndarray, labels: np.ndarray, alpha: float, *, class_conditional: bool = False
) -> ConformalQuantile:
    """The quantile of 1 - p(true class) over calibration lesions that the model and its temperature never saw.

    LAC (Sadinle, Lei and Wasserman, JASA 2019) with the finite-sample correction of split conformal prediction
    (Angelopoulos and Bates 2021, section 1): the ceil((n + 1)(1 - alpha))-th smallest score. A set then holds the true
    class with probability of at least 1 - ``alpha`` for a new lesion that comes from where the n came from.
    ``class_conditional``: one quantile for each class (Mondrian; Vovk 2012), so that the promise holds for the rare too.
    ``probabilities``: (n, class); ``labels``: (n,), class indices. Several lesions of one patient are not exchangeable
    with those of a new one: give one lesion a patient where that matters. Raises ValueError where n is too small.
    """
    p, y = _checked(probabilities, labels)
    if not 0 < alpha < 1:
        msg = f"alpha must lie between 0 and 1, not {alpha!r}"
        raise ValueError(msg)
    missed = 1.0 - p[np.arange(len(y)), y]
    counts = np.bincount(y, minlength=p.shape[1])
    if class_conditional:
        scores = np.array([_corrected(missed[y == c], alpha, f"class {c}") for c in range(p.shape[1])])
    else:
        scores = np.full(p.shape[1], _corrected(missed, alpha, "calibration"))
    return ConformalQuantile(scores, float(alpha), counts, class_conditional)


def smallest_n(alpha: float) -> int:
    """The fewest calibration lesions (of a class, where class-conditional) with which 1 - ``alpha`` can be promised."""
    return max(1, ceil(1 / alpha - 1 - 1e-9))


def prediction_set(
    probabilities: np.ndarray, quantile: ConformalQuantile, *, never_empty: bool = True
) -> tuple[int, ...]:
    """Indices of the classes that cannot be ruled out for one lesion, the likeliest first. ``probabilities``: (class,).

    ``never_empty``: the likeliest class belongs to the set in any case; this can only raise the coverage.
    """
    p = np.asarray(probabilities, dtype=np.float64)[None]
    (held,) = prediction_sets(p, quantile, never_empty=never_empty)
    return tuple(int(c) for c in np.argsort(-p[0], kind="stable") if held[c])


def prediction_sets(probabilities: np.ndarray, quantile: ConformalQuantile, *, never_empty: bool = True) -> np.ndarray:
    """The same for n lesions at once: (n, class) -> bool, (n, class)."""
    p, _ = _checked(probabilities, None)
    if p.shape[1] != len(quantile.scores):
        msg = f"{p.shape[1]} probabilities were given; the quantile was fitted for {len(quantile.scores)} classes"
        raise ValueError(msg)
    held = 1.0 - p <= quantile.scores
    if never_empty:
        held[np.arange(len(p)), p.argmax(axis=1)] = True
    return held


def coverage(
    probabilities: np.ndarray, labels: np.ndarray, quantile: ConformalQuantile, *, never_empty: bool = True
) -> Coverage:
    """The empirical coverage on lesions that took no part in the fit, e.g. of one class where their labels are all it."""
    p, y = _checked(probabilities, labels)
    held = prediction_sets(p, quantile, never_empty=never_empty)
    covered = int(held[np.arange(len(y)), y].sum())
    return Coverage(proportion(covered, len(y)), float(held.sum(axis=1).mean()), 1.0 - quantile.alpha)


def _corrected(scores: np.ndarray, alpha: float, of: str) -> float:
    n = len(scores)
    rank = ceil((n + 1) * (1.0 - alpha) - 1e-9)  # 10 * (1 - 0.1) must not be 9.000000000000002
    if n == 0 or rank > n:
        msg = (
            f"{of}: {n} lesions are too few for alpha {alpha:g}; at least {smallest_n(alpha)} are needed. "
            "Give more, or a larger alpha"
        )
        raise ValueError(msg)
    return float(np.sort(scores)[max(rank, 1) - 1])


def _checked(probabilities: np.ndarray, labels: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
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
