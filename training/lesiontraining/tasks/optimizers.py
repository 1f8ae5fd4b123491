"""Optimizers and schedules that several recipes share."""

from __future__ import annotations

from math import cos, pi
from typing import Any

from lightning import Trainer
from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR


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
