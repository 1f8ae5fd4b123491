"""Siamese ResNet: pairs attract or repel, for retrieval (papers 1.5)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lesiontraining.data.augment import Augmentation
from lesiontraining.data.loading import FlatImages, Plan, pairs
from lesiontraining.losses import all_pairs, contrastive_loss
from lesiontraining.optim import adamw, with_cosine
from lesiontraining.tasks.base import LesionTask

_AUGMENTATION = Augmentation(flips=True, rotate_degrees=180.0, blur_pixels=1.0)


class SiameseTask(LesionTask):
    """As many pairs of one class as of two; margin, descriptor length, rate and batch are ours, the paper gives none.

    With ``arguments.normalize`` distances stay below 2, the paper does not normalise.
    """

    classifies = False
    knows_classes = False

    def __init__(
        self,
        *,
        class_names: list[str],
        arguments: dict[str, Any] | None = None,
        weights: Path | None = None,
        margin: float = 1.0,
        batch_size: int = 32,
        epoch_size: int | None = None,
        lr: float = 1e-4,
        weight_decay: float = 0.0,
        augmentation: Augmentation = _AUGMENTATION,
    ) -> None:
        super().__init__(
            class_names=class_names, network="siamese", arguments=arguments or {}, weights=weights,
            batch_size=batch_size, epoch_size=epoch_size, augmentation=augmentation,
        )  # fmt: skip
        self.margin, self.lr, self.weight_decay = margin, lr, weight_decay

    def plan(self, flat: FlatImages) -> Plan:
        """Balanced pairs."""
        return pairs(flat.labels, mode="balanced", count=self.epoch_size)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Hadsell's."""
        first, second = self.network(x.flatten(0, 1)).view(len(x), 2, -1).unbind(dim=1)
        return contrastive_loss(first, second, y[:, 0] != y[:, 1], margin=self.margin)

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        """The loss over all pairs of whole lesions."""
        y = torch.repeat_interleave(batch["y"], torch.tensor(batch["counts"], device=batch["y"].device))
        first, second, different = all_pairs(y)
        d = self.network(batch["x"])
        if len(first):
            self._log_validation(contrastive_loss(d[first], d[second], different, margin=self.margin), len(first))

    def configure_optimizers(self) -> dict[str, Any]:
        """Adam (without decay AdamW is Adam), cosine."""
        return with_cosine(adamw(self.network, lr=self.lr, weight_decay=self.weight_decay), self.trainer)
