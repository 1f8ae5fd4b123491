"""Why: Grad-CAM without hooks. `heat_map` paints it back into the CT."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from .networks import LesionNet


def grad_cam(network: LesionNet, features: Tensor, class_index: int) -> Tensor:
    """Grad-CAM of each picture, not normalised: (batch, h, w), at least 0.

    Selvaraju et al., ICCV 2017, eq. 1 and 2. Only the head is differentiated; ``features`` is ``network.features(x)``.
    """
    with torch.enable_grad():
        f = features.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(network.head(f)[:, class_index].sum(), f)
    weights = gradient.mean(dim=tuple(range(2, gradient.ndim)), keepdim=True)
    return functional.relu((weights * f.detach()).sum(dim=1))
