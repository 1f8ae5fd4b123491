"""Hadsell's contrastive loss, for pairs (DMRN eq. 1 to 5, Siamese) and for all pairs of a batch."""

from __future__ import annotations

import torch
from torch import Tensor

_EPSILON = 1e-12  # inside the root: its gradient at 0 is infinite


def distances(first: Tensor, second: Tensor) -> Tensor:
    """Euclidean distance of each pair, (pair,); ``first``, ``second``: (pair, d)."""
    return ((first - second).pow(2).sum(dim=1) + _EPSILON).sqrt()


def contrastive_loss(first: Tensor, second: Tensor, different: Tensor, *, margin: float = 1.0) -> Tensor:
    """Mean over pairs of (1 - Y) D^2 / 2 + Y max(0, margin - D)^2 / 2; ``different``: Y, (pair,), 1 for two classes.

    Hadsell, Chopra and LeCun, CVPR 2006, eq. 4. The DMRN paper sums over the pairs; the mean makes the learning rate
    independent of how many there are.
    """
    d, y = distances(first, second), different.to(first.dtype)
    return ((1 - y) * d.pow(2) + y * (margin - d).clamp(min=0).pow(2)).mean() / 2


def all_pairs(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Every pair of a batch once: rows of the first, rows of the second, and 1 where their labels differ."""
    first, second = torch.triu_indices(len(labels), len(labels), offset=1, device=labels.device)
    return first, second, (labels[first] != labels[second]).to(torch.float32)
