"""Architectures by name. A model's manifest names one of these; it never names code."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from ..errors import BundleError
from .base import LesionNet

# Name -> file of this folder and class in it. Imported when asked for: some need MONAI, which takes seconds.
ARCHITECTURES: Mapping[str, tuple[str, str]] = {
    "dadrn": ("dadrn", "DADRN"),
    "dmrn": ("dmrn", "DMRN"),
    "mobilenet_v2": ("mobilenet_v2", "MobileNetV2"),
    "resnet": ("resnet", "ResNet"),
    "resnet3d": ("resnet3d", "ResNet3D"),
    "se_resnet50": ("resnet", "SEResNet50"),
    "siamese": ("siamese", "SiameseNet"),
}


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
    except (TypeError, ValueError, RuntimeError) as error:
        msg = f"architecture {name!r} does not take the arguments {dict(arguments)!r}: {error}."
        raise BundleError(msg) from error


__all__ = ["ARCHITECTURES", "LesionNet", "build_network"]
