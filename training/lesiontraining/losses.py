"""The losses of the recipes: contrastive, evidence lower bound, triplet, and NT-Xent over views.

Hadsell's contrastive loss is for pairs (DMRN eq. 1 to 5, Siamese) and for all pairs of a batch.
"""

from __future__ import annotations

import torch
from pytorch_metric_learning.losses import NTXentLoss, SelfSupervisedLoss
from pytorch_metric_learning.utils.distributed import DistributedLossWrapper
from torch import Tensor, nn
from torch.nn import functional

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


def negative_evidence(x: Tensor, rebuilt: Tensor, mean: Tensor, log_variance: Tensor, *, weight: float = 1.0) -> Tensor:
    """What a variational autoencoder is trained with: the evidence lower bound, negative.

    Squared error of the rebuilt image and ``weight`` times the divergence from a unit normal, by image, mean over the batch.

    Kingma and Welling, ICLR 2014, eq. 10 with a Gaussian decoder of unit variance. ``x``, ``rebuilt``: (batch, ...); ``mean``,
    ``log_variance``: (batch, d).
    """
    error = functional.mse_loss(rebuilt, x, reduction="none").flatten(1).sum(dim=1) / 2
    divergence = -(1 + log_variance - mean.pow(2) - log_variance.exp()).sum(dim=1) / 2
    return (error + weight * divergence).mean()


def triplet_loss(anchor: Tensor, positive: Tensor, negative: Tensor, *, margin: float = 0.8) -> Tensor:
    """The triplet loss of Lesion Search, with the distance that its equation 3 means.

    Mean of max(0, margin + d(a, p) - d(a, n)) / 2 with d = 1 - cosine; all (triplet, n).

    The paper's d (eq. 3) is a similarity, which as printed would push alike lesions apart.
    """
    near = functional.cosine_similarity(anchor, positive, dim=1)
    far = functional.cosine_similarity(anchor, negative, dim=1)
    return (margin - near + far).clamp(min=0).mean() / 2


class ViewLoss(nn.Module):
    """NT-Xent, the loss of SimCLR, over two views of each image.

    Chen et al., ICML 2020, eq. 1; over the views of all processes where there are several.

    The paper of Lesion Search gives no temperature; .1 is that of the library its code used.
    """

    def __init__(self, *, temperature: float = 0.1) -> None:
        super().__init__()
        self.one = SelfSupervisedLoss(NTXentLoss(temperature=temperature))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """``first``, ``second``: projections (image, d) of the two views, of any length."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return DistributedLossWrapper(self.one)(first, ref_emb=second)
        return self.one(first, second)
