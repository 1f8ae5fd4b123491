"""A network as it answers: every batch norm that follows a convolution is folded into the convolution's weights.

In evaluation mode a batch norm multiplies and adds constants, as the convolution before it could do itself: the answers are the
same to rounding, and a pass over the map is saved. Networks that learn on keep their batch norms.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import pairwise

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.fusion import fuse_conv_bn_eval

from LesionLib.networks import LesionNet


def folded(network: LesionNet) -> LesionNet:
    """A copy of ``network``, in evaluation mode, without the batch norms that follow a convolution.

    Which those are is said by their places in a `torch.nn.Sequential`, or by their names, as the networks here have them:
    ``conv`` and ``bn``, ``conv1`` and ``bn1``.
    """
    fast = copy.deepcopy(network).eval()
    for module in list(fast.modules()):
        for convolution, norm in _pairs(module):
            fused = fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm))
            setattr(module, convolution, fused.requires_grad_(requires_grad=False))
            setattr(module, norm, nn.Identity())
    return fast


def _pairs(module: nn.Module) -> Iterator[tuple[str, str]]:
    """The names of a convolution and of the batch norm that follows it."""
    children = dict(module.named_children())
    if isinstance(module, nn.Sequential):
        named = list(pairwise(children))
    else:
        named = [(name, name.replace("conv", "bn")) for name in children if name.startswith("conv")]
    for first, second in named:
        if isinstance(children[first], _ConvNd) and isinstance(children.get(second), _BatchNorm):
            yield first, second
