"""Architectures by name. A model's manifest names one of these; it never names code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..errors import BundleError
from .base import LesionNet
from .mobilenet_v2 import MobileNetV2

ARCHITECTURES: Mapping[str, Callable[..., LesionNet]] = {"mobilenet_v2": MobileNetV2}


def build_network(name: str, arguments: Mapping[str, Any]) -> LesionNet:
    """The network ``name`` with random weights, in evaluation mode. Raises `BundleError` for what is not known here."""
    if name not in ARCHITECTURES:
        msg = f"unknown architecture {name!r}; this version knows {', '.join(sorted(ARCHITECTURES))}. Update LesionLens."
        raise BundleError(msg)
    try:
        return ARCHITECTURES[name](**arguments).eval()
    except (TypeError, ValueError) as error:
        msg = f"architecture {name!r} does not take the arguments {dict(arguments)!r}: {error}."
        raise BundleError(msg) from error


__all__ = ["ARCHITECTURES", "LesionNet", "build_network"]
