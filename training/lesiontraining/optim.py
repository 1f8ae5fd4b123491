"""Optimizers and schedules that several recipes share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import cos, pi
from typing import Any

import torch
from lightning import Trainer
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

_EPSILON = 1e-8


class LARS(Optimizer):
    """LARS: a step as large as the weights of a layer allow (You, Gitman and Ginsburg 2017).

    SGD with momentum, whose rate in each tensor is scaled by trust * ||w|| / (||g|| + decay * ||w||).

    Groups with ``adapt`` False (biases, batch norm: see `parameter_groups`) take plain steps without decay, as SimCLR does.
    """

    def __init__(
        self,
        groups: Iterable,
        lr: float,
        *,
        momentum: float = 0.9,
        weight_decay: float = 1e-5,
        trust: float = 1e-3,
    ) -> None:
        if lr < 0 or weight_decay < 0 or not 0 <= momentum < 1:
            msg = f"lr {lr}, weight_decay {weight_decay}: not negative; momentum {momentum}: 0 to below 1"
            raise ValueError(msg)
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust, "adapt": True}
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """One step on the gradients that are there."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._step(weight, group)
        return loss

    def _step(self, weight: Tensor, group: dict) -> None:
        gradient = weight.grad
        if group["adapt"]:
            size, slope = weight.norm(), gradient.norm()
            gradient = gradient + group["weight_decay"] * weight
            # On the device: a comparison here would make a GPU wait for every tensor.
            rate = group["trust"] * size / (slope + group["weight_decay"] * size + _EPSILON)
            gradient = gradient * torch.where((size > 0) & (slope > 0), rate, torch.ones_like(rate))
        momentum = self.state[weight].setdefault("momentum", torch.zeros_like(weight))
        momentum.mul_(group["momentum"]).add_(gradient)
        weight.add_(momentum, alpha=-group["lr"])


def parameter_groups(network: nn.Module) -> list[dict]:
    """Weights that LARS adapts, and those it leaves: biases and norms, all of one dimension."""
    weights = [p for p in network.parameters() if p.requires_grad]
    return [
        {"params": [p for p in weights if p.ndim > 1], "adapt": True},
        {"params": [p for p in weights if p.ndim <= 1], "adapt": False},
    ]


def adamw(network: nn.Module, *, lr: float, weight_decay: float) -> Optimizer:
    """AdamW on what is trained."""
    return AdamW(_trained(network), lr=lr, weight_decay=weight_decay)


def sgd(network: nn.Module, *, lr: float, weight_decay: float) -> Optimizer:
    """SGD with momentum .9 on what is trained."""
    return SGD(_trained(network), lr=lr, momentum=0.9, weight_decay=weight_decay)


def with_cosine(optimizer: Optimizer, trainer: Trainer, *, warmup_epochs: int = 0) -> dict[str, Any]:
    """The optimizer with a rate that rises over ``warmup_epochs`` and falls to 0 along a cosine by the last epoch."""
    epochs = max(1, trainer.max_epochs or 1)

    def factor(epoch: int) -> float:
        if epoch < warmup_epochs:
            return (epoch + 1) / warmup_epochs
        return (1 + cos(pi * min(1.0, (epoch - warmup_epochs) / max(1, epochs - warmup_epochs)))) / 2

    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": LambdaLR(optimizer, factor), "interval": "epoch"}}


def _trained(network: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in network.parameters() if parameter.requires_grad]
