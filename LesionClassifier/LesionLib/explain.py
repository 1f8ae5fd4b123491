"""Why: Grad-CAM without hooks. `heat_map` paints it back into the CT."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from .networks import LesionNet


def grad_cam(network: LesionNet, features: Tensor, class_index: int | Tensor) -> Tensor:
    """Grad-CAM of each picture, not normalised: (batch, h, w) or (batch, d, h, w), at least 0.

    ``class_index``: one class for all pictures, or one for each, (batch,). ``features`` is ``network.features(x)``; only
    the head is differentiated. Selvaraju et al., ICCV 2017, eq. 1 and 2.
    """
    with torch.enable_grad():
        f = features.detach().requires_grad_()
        logits = network.head(f)
        classes = torch.as_tensor(class_index, device=logits.device).expand(len(logits))
        (gradient,) = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), f)
    weights = gradient.mean(dim=tuple(range(2, gradient.ndim)), keepdim=True)
    return functional.relu((weights * f.detach()).sum(dim=1))
