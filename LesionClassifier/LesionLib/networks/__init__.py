"""Architectures by name. A model's manifest names one of these; it never names code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from LesionLib.errors import BundleError
from LesionLib.networks.base import LesionNet

# Name -> file of this folder and class in it. Imported when asked for: some need MONAI, which takes seconds.
ARCHITECTURES: Mapping[str, tuple[str, str]] = {
    "arl": ("dmrn", "ARL"),
    "cnn3d": ("dmrn", "CNN3D"),
    "dadrn": ("dadrn", "DADRN"),
    "dmrn": ("dmrn", "DMRN"),
    "lesionsearch": ("lesionsearch", "LesionSearchNet"),
    "mobilenet_v2": ("mobilenet_v2", "MobileNetV2"),
    "nodule": ("nodule", "NoduleNet"),
    "orthopatch": ("orthopatch", "OrthoPatch"),
    "ra_resnet50": ("dadrn", "RAResNet50"),
    "resglnet": ("dadrn", "ResGLNet"),
    "resnet": ("resnet", "ResNet"),
    "resnet3d": ("resnet", "ResNet3D"),
    "sdl": ("dmrn", "SDL"),
    "se_resnet50": ("resnet", "SEResNet50"),
    "shape": ("resnet", "ShapeNet"),
    "siamese": ("siamese", "SiameseNet"),
    "single_cnn": ("siamese", "SingleCNN"),
    "vae_encoder": ("vae", "VAEEncoder"),
    "vgg19": ("dmrn", "VGG19"),
}

# What each is made for; (channel, row, column) or (channel, slice, row, column).
EXAMPLE_INPUTS: Mapping[str, tuple[int, ...]] = {
    "arl": (3, 224, 224),
    "cnn3d": (1, 64, 64, 64),
    "dadrn": (3, 224, 224),
    "dmrn": (3, 224, 224),
    "lesionsearch": (1, 64, 64),
    "mobilenet_v2": (3, 224, 224),
    "nodule": (2, 84, 84, 84),
    "orthopatch": (3, 252, 210),
    "ra_resnet50": (3, 224, 224),
    "resglnet": (3, 224, 224),
    "resnet": (3, 224, 224),
    "resnet3d": (1, 28, 28, 28),
    "sdl": (3, 224, 224),
    "se_resnet50": (3, 224, 224),
    "shape": (1, 28, 28, 28),
    "siamese": (3, 224, 224),
    "single_cnn": (3, 224, 224),
    "vae_encoder": (1, 64, 64),
    "vgg19": (3, 224, 224),
}


@dataclass(frozen=True)
class Sizes:
    """Of an architecture with its default arguments: number of parameters, shapes of map and descriptor without batch."""

    parameters: int
    map: tuple[int, ...]
    descriptor: tuple[int, ...]


def sizes_of(name: str) -> Sizes:
    """Found without memory for weights, in a moment."""
    with torch.device("meta"), torch.no_grad(), Unfilled():
        network = build_network(name, {})
        features = network.features(torch.zeros(1, *EXAMPLE_INPUTS[name]))
        descriptor = network.descriptor(features)
    count = sum(parameter.numel() for parameter in network.parameters())
    return Sizes(count, tuple(features.shape[1:]), tuple(descriptor.shape[1:]))


class Unfilled(TorchFunctionMode):
    """Within it, networks are built without drawing their random weights, whose values are then any: for who fills them all.

    Drawing takes longer than all else: half a second for a ResNet-50. What is computed rather than drawn stays as it is.
    """

    _DRAWS = frozenset({"kaiming_uniform_", "normal_", "uniform_"})  # what all of `torch.nn.init` draws by

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(function, "__name__", None) in self._DRAWS:
            return args[0] if args else kwargs["tensor"]
        return function(*args, **(kwargs or {}))


def build_network(name: str, arguments: Mapping[str, Any]) -> LesionNet:
    """The network ``name`` with random weights, in evaluation mode. Raises `BundleError` for what is not known here."""
    if name not in ARCHITECTURES:
        msg = (
            f"unknown architecture {name!r}; this version knows {', '.join(sorted(ARCHITECTURES))}. Update LesionLens."
        )
        raise BundleError(msg)
    module, class_name = ARCHITECTURES[name]
    network_class = getattr(import_module(f".{module}", __package__), class_name)
    try:
        return network_class(**arguments).eval()
    except (TypeError, ValueError, RuntimeError, ArithmeticError, LookupError, AttributeError) as error:
        msg = f"architecture {name!r} does not take the arguments {dict(arguments)!r}: {error}."
        raise BundleError(msg) from error


__all__ = ["ARCHITECTURES", "EXAMPLE_INPUTS", "LesionNet", "Sizes", "Unfilled", "build_network", "sizes_of"]
