"""The triplet loss of Lesion Search, with the distance that its equation 3 means."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def triplet_loss(anchor: Tensor, positive: Tensor, negative: Tensor, *, margin: float = 0.8) -> Tensor:
    """Mean of max(0, margin + d(a, p) - d(a, n)) / 2 with d = 1 - cosine; all (triplet, n).

    The paper's d (eq. 3) is a similarity, which as printed would push alike lesions apart.
    """
    near = functional.cosine_similarity(anchor, positive, dim=1)
    far = functional.cosine_similarity(anchor, negative, dim=1)
    return (margin - near + far).clamp(min=0).mean() / 2
