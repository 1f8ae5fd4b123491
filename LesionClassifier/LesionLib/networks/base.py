"""What every network promises: features, head, embedding; a layer that more than one architecture uses; what makes any faster."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from LesionLib.metric import COSINE


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


class LesionNet(nn.Module, ABC):
    """``forward(x) = head(features(x))``: Grad-CAM then differentiates the head alone.

    ``x``: float32, shape (batch, channel, row, column), or (batch, channel, slice, row, column) for 3-D networks.
    """

    metric: str = COSINE
    """How two descriptors are compared; see `LesionLib.metric`."""
    mapped_channels: int | None = None
    """How many of the map's channels, the first, belong to places; the others say what belongs to none. None: all."""
    costly: str = "features"
    """The method that takes most of the time, one tensor in, one or several out; another engine may compute it."""

    @property
    def cell_centres(self) -> tuple[float, float] | None:
        """Where the cells of the map look, along each axis of a patch: the sample that the receptive field of the first is centred
        on, and how many samples farther that of the next; None: spread evenly over the patch, as pooling by two does.

        A ``trunk`` says it for its last map. Araujo, Norris and Sim, "Computing receptive fields of convolutional neural networks",
        Distill 2019, equations 3 and 8.
        """
        return getattr(getattr(self, "trunk", None), "cell_centres", None)

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """The map that Grad-CAM weighs, or what `weighted_map` makes it of: (batch, feature, h, w) or (batch, feature, d, h, w)."""

    @abstractmethod
    def head(self, f: Tensor) -> Tensor:
        """Logits (batch, class) from a feature map; for a model with scores (batch, class + score), see `parted_output`."""

    @abstractmethod
    def descriptor(self, f: Tensor) -> Tensor:
        """What is compared in retrieval, (batch, d), from a feature map; not normalised."""

    def weighted_map(self, f: Tensor, weights: Tensor) -> Tensor:
        """The channels of a map that belong to places, each times its weight, added up: (batch, h, w) or (batch, d, h, w).

        ``weights``: (batch, channel), of those channels.
        """
        maps = f[:, : self.mapped_channels]
        # A product of matrices: the weighted channels themselves would be as large as the map.
        return (weights[:, None] @ maps.flatten(2)).view(len(f), *f.shape[2:])

    def training_likeness(self, f: Tensor, descriptor: Tensor) -> Tensor:
        """What is compared with the lesions of the training to tell what is unlike them, (batch, n), not normalised: the
        ``descriptor`` of ``f``, unless that holds too little.
        """
        return descriptor

    def features_of_lesions(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        """`features` of the patches of several lesions, ``counts[i]`` of the i-th; for networks that must tell them apart."""
        return self.features(x)

    def reference_values(self, f: Tensor) -> Tensor:
        """What must be the same on every machine, (batch, n), continuous in the features: the logits."""
        return self.head(f)

    def embed(self, x: Tensor) -> Tensor:
        """L2-normalised descriptor, (batch, d)."""
        return functional.normalize(self.descriptor(self.features(x)), dim=1)

    def probabilities(self, logits: Tensor, temperature: float = 1.0) -> Tensor:
        """Class probabilities (batch, class) from what `head` returns."""
        return (logits / temperature).softmax(dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (batch, class)."""
        return self.head(self.features(x))


def parted_output(output: Tensor, scores: int) -> tuple[Tensor, Tensor]:
    """What `LesionNet.head` returns, (batch, class + score), as logits (batch, class) and scores (batch, score)."""
    classes = output.shape[1] - scores
    return (output[:, :classes], output[:, classes:]) if scores else (output, output[:, :0])


def device_of(network: nn.Module) -> torch.device:
    """Where the network's weights are."""
    return next(network.parameters()).device


def folded(network: LesionNet) -> LesionNet:
    """A copy of ``network``, in evaluation mode, whose convolutions do what the batch norms after them did; see `fold`."""
    return fold(copy.deepcopy(network))


def fold(network: LesionNet) -> LesionNet:
    """The network itself, in evaluation mode for good, with the batch norms folded into the convolutions before them.

    Those multiply and add constants: the answers are the same to rounding, and a pass over the map is saved. Networks that
    learn on keep theirs. Which norms follow a convolution is said by their places in a `torch.nn.Sequential`, or by their names, as
    the networks here have them: ``conv`` and ``bn``, ``conv1`` and ``bn1``.
    """
    from torch.nn.utils.fusion import fuse_conv_bn_weights

    for module in list(network.eval().modules()):
        for first, second in _pairs(module):
            convolution, norm = getattr(module, first), getattr(module, second)
            weight, bias = fuse_conv_bn_weights(
                convolution.weight, convolution.bias,
                norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias,
            )  # fmt: skip
            convolution.weight, convolution.bias = (
                nn.Parameter(values.detach(), requires_grad=False) for values in (weight, bias)
            )
            setattr(module, second, nn.Identity())
    return network


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
