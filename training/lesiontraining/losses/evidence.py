"""What a variational autoencoder is trained with: the evidence lower bound."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def negative_evidence(x: Tensor, rebuilt: Tensor, mean: Tensor, log_variance: Tensor, *, weight: float = 1.0) -> Tensor:
    """Squared error of the rebuilt picture and ``weight`` times the divergence from a unit normal, by picture, mean over the batch.

    Kingma and Welling, ICLR 2014, eq. 10 with a Gaussian decoder of unit variance. ``x``: (batch, ...); ``mean``,
    ``log_variance``: (batch, d).
    """
    error = functional.mse_loss(rebuilt, x, reduction="none").flatten(1).sum(dim=1) / 2
    divergence = -(1 + log_variance - mean.pow(2) - log_variance.exp()).sum(dim=1) / 2
    return (error + weight * divergence).mean()
