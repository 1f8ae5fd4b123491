"""Layers that more than one architecture uses."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GeM(nn.Module):
    """Generalised mean over the positions of a map: (mean x^p)^(1/p), one learned p for all channels.

    Radenovic et al., "Fine-tuning CNN image retrieval with no human annotation", TPAMI 2019, eq. 3; p starts at 3 and
    values below ``eps`` count as ``eps``, both as in the authors' code. p = 1 is the average, large p nears the maximum.
    Raises ValueError for p or eps that is not above 0.
    """

    def __init__(self, p: float = 3.0, *, eps: float = 1e-6) -> None:
        super().__init__()
        for name, value in (("p", p), ("eps", eps)):
            if not value > 0:
                msg = f"{name} of a generalised mean must be above 0, not {value}"
                raise ValueError(msg)
        self.p = nn.Parameter(torch.full((1,), float(p)))
        self.eps = eps

    def forward(self, f: Tensor) -> Tensor:
        """(batch, feature, h, w) or (batch, feature, d, h, w) -> (batch, feature); at least ``eps``."""
        x = f.flatten(2).clamp_min(self.eps)
        # Twice the values give twice the mean, so any divisor leaves values and gradients as they are. Divided by the
        # largest, no power overflows, and no mean is 0, where the root has no gradient.
        largest = x.detach().amax(dim=2, keepdim=True)
        return largest.squeeze(2) * (x / largest).pow(self.p).mean(dim=2).pow(1 / self.p)
