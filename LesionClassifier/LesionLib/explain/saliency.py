"""Why, and why alike: Grad-CAM without hooks, and which part of a lesion makes its descriptor resemble another lesion's.

`heat_map.resample_to_ct` lays both back over the CT.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from LesionLib.networks import LesionNet


def grad_cam(network: LesionNet, features: Tensor, class_index: int | Tensor) -> Tensor:
    """Grad-CAM of each patch, not normalised: (batch, h, w) or (batch, d, h, w), at least 0.

    ``features`` is ``network.features(x)``, (batch, feature, h, w) or (batch, feature, d, h, w); only the head is
    differentiated. ``class_index``: one class for all patches, or one for each, (batch,). Selvaraju et al., ICCV 2017, eq. 1
    and 2.
    """
    with torch.enable_grad():
        f = features.detach().requires_grad_()
        logits = network.head(f)
        classes = torch.as_tensor(class_index, device=logits.device).expand(len(logits))
        (gradient,) = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), f)
    return _weighted_sum(network, gradient, f)


def _weighted_sum(network: LesionNet, gradient: Tensor, f: Tensor) -> Tensor:
    """Each channel that belongs to places, weighted by its mean gradient; what speaks against is cut to 0."""
    weights = gradient[:, : network.mapped_channels].flatten(2).mean(dim=2)
    return functional.relu(network.weighted_map(f.detach(), weights))


_VANISHED = 1e-4  # of the gradient before its part along the descriptor is taken away: what float32 rounding leaves
_UNIT_TOLERANCE = 1e-3


def similarity_map(
    network: LesionNet, features: Tensor, other: Tensor | np.ndarray, *, length_is_fixed: bool = False
) -> Tensor:
    """What in each patch speaks for its cosine similarity to ``other``, not normalised, at least 0.

    ``features``: ``network.features(x)``, (batch, feature, h, w) or (batch, feature, d, h, w); the map has their shape
    without the feature axis. ``other``: the other lesion's L2-normalised embedding, (d,).

    Grad-CAM's weighting (Selvaraju et al., ICCV 2017, eq. 1 and 2) with <descriptor / |descriptor|, other> in the place
    of a class score; only the descriptor is differentiated. The map asks which places would make the two *more* alike:
    where they are the same lesion nothing would, and the map is zero. With ``length_is_fixed`` the division by
    |descriptor| is not differentiated. Then, where the descriptor is an average of the features, the map before its
    negative part is cut adds up to the cosine similarity itself: each place's share of it (Stylianou et al., WACV
    2019); it asks which places *are* alike, and does not vanish. Raises ValueError where ``other`` does not fit.
    """
    with torch.enable_grad():
        f = features.detach().requires_grad_()
        descriptor = network.descriptor(f)
        target = _unit_vector(other, descriptor)
        length = descriptor.detach().norm(dim=1, keepdim=True).clamp_min(1e-12)
        (gradient,) = torch.autograd.grad((descriptor / length @ target).sum(), f)
        if not length_is_fixed:
            gradient = _along_the_sphere(gradient, network, f, target)
    return _weighted_sum(network, gradient, f)


def _along_the_sphere(fixed: Tensor, network: LesionNet, f: Tensor, target: Tensor) -> Tensor:
    """The gradient of the cosine; zero where all that is left of it is rounding, which painting would blow up to 1."""
    unit = functional.normalize(network.descriptor(f), dim=1)
    (gradient,) = torch.autograd.grad((unit @ target).sum(), f)
    norms = gradient.flatten(1).norm(dim=1)
    vanished = norms <= _VANISHED * fixed.flatten(1).norm(dim=1)
    return gradient.masked_fill(vanished.view(-1, *[1] * (gradient.ndim - 1)), 0.0)


def _unit_vector(other: Tensor | np.ndarray, descriptor: Tensor) -> Tensor:
    vector = torch.as_tensor(other).detach().to(descriptor)
    if vector.shape != descriptor.shape[1:]:
        msg = f"the other embedding has shape {tuple(vector.shape)}; this network's have {tuple(descriptor.shape[1:])}"
        raise ValueError(msg)
    length = float(vector.norm())
    if not abs(length - 1.0) <= _UNIT_TOLERANCE:
        msg = f"the other embedding has length {length:g}, expected 1; give what embed() returns"
        raise ValueError(msg)
    return vector
