"""On what a network computes: the processor, or one of the GPUs that torch finds."""

from __future__ import annotations

import re

import torch

from LesionLib.inference.messages import RunnerError


def best_device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name(device: torch.device) -> str:
    """How a device is named in results."""
    return f"cuda: {torch.cuda.get_device_name(device)}" if device.type == "cuda" else device.type


def chosen_device(preference: str) -> torch.device:
    """The device for "auto", "cpu", "cuda" or "cuda:1". Raises `RunnerError` for a GPU that is not there."""
    asked = re.fullmatch(r"auto|cpu|cuda(?::(\d{1,3}))?", preference)
    if asked is None:
        msg = f"unknown device {preference!r}; choose 'auto', 'cpu', 'cuda', or one of several GPUs as 'cuda:1'."
        raise RunnerError(msg)
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if preference.startswith("cuda") and int(asked[1] or 0) >= gpus:
        found = f"finds {gpus or 'no'} NVIDIA GPU{'s' if gpus > 1 else ''} here"
        msg = f"{preference}: torch {torch.__version__} {found}; choose the device 'auto' or 'cpu'."
        raise RunnerError(msg)
    if preference == "auto":
        return torch.device("cuda" if gpus else "cpu")
    return torch.device(preference)
