"""NT-Xent, the loss of SimCLR, over two views of each picture."""

from __future__ import annotations

import torch
from pytorch_metric_learning.losses import NTXentLoss, SelfSupervisedLoss
from pytorch_metric_learning.utils.distributed import DistributedLossWrapper
from torch import Tensor, nn


class ViewLoss(nn.Module):
    """Chen et al., ICML 2020, eq. 1; over the views of all processes where there are several.

    The paper of Lesion Search gives no temperature; .1 is that of the library its code used.
    """

    def __init__(self, *, temperature: float = 0.1) -> None:
        super().__init__()
        self.one = SelfSupervisedLoss(NTXentLoss(temperature=temperature))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """``first``, ``second``: projections (picture, d) of the two views, of any length."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return DistributedLossWrapper(self.one)(first, ref_emb=second)
        return self.one(first, second)
