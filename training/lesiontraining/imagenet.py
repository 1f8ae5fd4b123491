"""Start from published ImageNet weights, and say what matched."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from LesionLib.networks import LesionNet


@dataclass(frozen=True)
class WeightReport:
    """Which tensors were taken, which of ours stay random, which of the file's were not used."""

    taken: tuple[str, ...]
    left_random: tuple[str, ...]
    unused: tuple[str, ...]


def load_imagenet(network: LesionNet, path: Path) -> WeightReport:
    """Copy every tensor of a published state dict whose name and shape fit. Raises ValueError if the trunk is not whole.

    ``torch.load`` is used with ``weights_only=True``, here in training alone; models travel as safetensors.
    """
    published = torch.load(path, map_location="cpu", weights_only=True)
    published = {_our_name(name): tensor for name, tensor in published.items()}
    own = network.state_dict()
    taken = {name: published[name] for name in own if name in published and published[name].shape == own[name].shape}
    left = tuple(name for name in own if name not in taken)
    if any(not name.startswith("classifier.") for name in left):
        msg = f"{path}: the trunk does not match; missing {', '.join(left[:5])}. Give the weights of this architecture."
        raise ValueError(msg)
    network.load_state_dict({**own, **taken})
    return WeightReport(tuple(taken), left, tuple(name for name in published if name not in taken))


def _our_name(name: str) -> str:
    return name.replace("features.", "features_.", 1) if name.startswith("features.") else name
