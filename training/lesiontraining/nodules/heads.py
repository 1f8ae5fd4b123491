"""Linear heads on what a frozen network sees: principal directions, ridge regression, and the way back into the network.

Everything is closed-form, so that every choice can be made again inside every fold. The ridge has a second penalty: how far
its answer moves between two drawings of the same lesion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.utils.extmath import randomized_svd

_EPS = 1e-6
_CALIBRATION_PENALTY = 1e-3


@dataclass(frozen=True, eq=False)
class Space:
    """An affine map from what is seen, (n, number), to fewer numbers: ``(x - mean) @ matrix``."""

    mean: np.ndarray
    matrix: np.ndarray

    def of(self, seen: np.ndarray) -> np.ndarray:
        """(n, number) -> (n, d)."""
        return (seen - self.mean) @ self.matrix


def fit_space(
    seen: Sequence[np.ndarray], *, places: int, components: int, measures_weight: float, seed: int = 0
) -> Space:
    """Principal directions of the first ``places`` numbers, all drawings together, and the measures behind them as they are.

    Places and measures are standardised; all places together have variance 1, all measures ``measures_weight``.
    """
    rows = np.concatenate(seen)
    mean, scale = rows.mean(axis=0), rows.std(axis=0) + _EPS
    numbers = rows.shape[1]
    share = np.where(np.arange(numbers) < places, 1.0 / places, measures_weight / max(1, numbers - places))
    factor = np.sqrt(share) / scale
    standard = ((rows - mean) * factor)[:, :places]
    count = min(components, *standard.shape)
    _, _, directions = randomized_svd(standard, n_components=count, random_state=seed)
    matrix = np.zeros((numbers, count + numbers - places))
    matrix[:places, :count] = factor[:places, None] * directions.T
    matrix[places:, count:] = np.diag(factor[places:])
    return Space(mean, matrix)


@dataclass(frozen=True, eq=False)
class Linear:
    """``x @ weight + bias``: weight (d, output), bias (output,)."""

    weight: np.ndarray
    bias: np.ndarray

    def of(self, x: np.ndarray) -> np.ndarray:
        """(n, d) -> (n, output)."""
        return x @ self.weight + self.bias

    def then(self, after: Linear) -> Linear:
        """Both in one."""
        return Linear(self.weight @ after.weight, self.bias @ after.weight + after.bias)

    def on_seen(self, space: Space) -> Linear:
        """The same on what is seen, before ``space``."""
        weight = space.matrix @ self.weight
        return Linear(weight, self.bias - space.mean @ weight)


def fit_ridge(
    drawings: Sequence[np.ndarray],
    targets: np.ndarray,
    *,
    penalty: float,
    steadiness: float,
    weights: np.ndarray | None = None,
) -> Linear:
    """Least squares on all drawings, (lesion, d) each, the first of which counts as much as all others together.

    ``targets``: (lesion, output); ``weights``: (lesion,). ``penalty``: of the coefficients; ``steadiness``: of the squared
    difference between the answers to the first drawing and to each other one, as a multiple of the squared error.
    """
    n = len(targets)
    of_lesion = np.full(n, 1.0 / n) if weights is None else weights / weights.sum()
    shares = [1.0] if len(drawings) == 1 else [0.5] + [0.5 / (len(drawings) - 1)] * (len(drawings) - 1)
    w = np.concatenate([share * of_lesion for share in shares])
    x, y = np.concatenate(drawings), np.concatenate([targets] * len(drawings))
    x_mean, y_mean = w @ x, w @ y
    centered = x - x_mean
    gram = centered.T @ (centered * w[:, None])
    for other in drawings[1:]:
        moved = other - drawings[0]
        gram += steadiness / (len(drawings) - 1) * (moved.T @ (moved * of_lesion[:, None]))
    gram[np.diag_indices(len(gram))] += penalty
    weight = cho_solve(cho_factor(gram), centered.T @ ((y - y_mean) * w[:, None]))
    return Linear(weight, y_mean - x_mean @ weight)


def fit_calibration(outputs: np.ndarray, labels: np.ndarray, *, classes: int) -> Linear:
    """From what a ridge says, (n, output), to logits, (n, class): logistic regression in which every class weighs the same.

    Of two classes the logits are minus and plus half of the log-odds.
    """
    mean, scale = outputs.mean(axis=0), outputs.std(axis=0) + _EPS
    x = (outputs - mean) / scale
    counts = np.bincount(labels, minlength=classes)
    weight = 1.0 / (classes * counts[labels])
    truth = np.eye(classes)[labels]

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        b = values.reshape(x.shape[1] + 1, classes)
        log_p = log_softmax(x @ b[1:] + b[0], axis=1)
        residual = (np.exp(log_p) - truth) * weight[:, None]
        gradient = np.vstack([residual.sum(axis=0), x.T @ residual + _CALIBRATION_PENALTY * b[1:]])
        penalty = 0.5 * _CALIBRATION_PENALTY * (b[1:] ** 2).sum()
        return float(-(weight[:, None] * truth * log_p).sum() + penalty), gradient.ravel()

    start = np.zeros((x.shape[1] + 1) * classes)
    b = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 500}).x.reshape(-1, classes)
    b -= b.mean(axis=1, keepdims=True)
    matrix = b[1:] / scale[:, None]
    return Linear(matrix, b[0] - mean @ matrix)


def settings(choices: Mapping[str, Sequence[float]]) -> list[dict[str, float]]:
    """All combinations of the values of each name."""
    return [dict(zip(choices, values, strict=True)) for values in product(*choices.values())]


def unit(vectors: np.ndarray) -> np.ndarray:
    """L2-normalised rows."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
