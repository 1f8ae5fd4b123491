"""Lesion Search: pre-training on two views of each lesion, then triplets or types (papers 1.4).

The Frangi filter is part of the input (``data.input.frangi``): what is learned from is what is looked at later.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from lesiontraining.data.augment import Augmentation
from lesiontraining.data.lesions import LesionDataset
from lesiontraining.data.loading import (
    FlatImages,
    Plan,
    balanced_images,
    every_image,
    lesion_loader,
    triplets,
)
from lesiontraining.losses import ViewLoss, triplet_loss
from lesiontraining.optim import LARS, parameter_groups, sgd, with_cosine
from lesiontraining.tasks.base import LesionTask, TrainingError, TwoViewsTask

_PROJECTION = 128
_COMPARED_AT_ONCE = 64  # validation lesions that triplets are made of: of a few there may be none
_VIEWS = Augmentation(flips=True, shift_pixels=4.0, zoom=0.2, brightness=0.2, contrast=0.4, blur_pixels=1.0)

_AUGMENTATION = Augmentation(flips=True)


class SimCLRTask(TwoViewsTask):
    """Without labels: two changed views of an image attract, all others of the batch repel; LARS, cosine.

    ``lr_scaling``: the rate times the root of the batch ("sqrt"), times batch / 256 ("linear"), or as it is. The
    projection (512, 512, 128, batch norm) is thrown away after the training.
    """

    classifies = False
    needs_labels = False

    def __init__(
        self,
        *,
        class_names: list[str],
        network: str = "lesionsearch",
        arguments: dict[str, Any] | None = None,
        weights: Path | None = None,
        temperature: float = 0.1,
        batch_size: int = 512,
        epoch_size: int | None = None,
        lr_base: float = 0.05,
        lr_scaling: Literal["none", "sqrt", "linear"] = "none",
        weight_decay: float = 1e-5,
        warmup_epochs: int = 10,
        augmentation: Augmentation = _VIEWS,
    ) -> None:
        super().__init__(
            class_names=class_names, network=network, arguments=arguments or {}, weights=weights,
            batch_size=batch_size, epoch_size=epoch_size, augmentation=augmentation,
        )  # fmt: skip
        with torch.no_grad():
            channels = next(p for p in self.network.parameters() if p.ndim == 4).shape[1]
            size = self.network.descriptor(self.network.features(torch.zeros(1, channels, 64, 64))).shape[1]
        self.projection = nn.Sequential(
            nn.Linear(size, size),
            nn.BatchNorm1d(size),
            nn.ReLU(),
            nn.Linear(size, _PROJECTION),
            nn.BatchNorm1d(_PROJECTION),
        )
        self.views = ViewLoss(temperature=temperature)
        scale = {"none": 1.0, "sqrt": batch_size**0.5, "linear": batch_size / 256}[lr_scaling]
        self.lr, self.weight_decay, self.warmup_epochs = lr_base * scale, weight_decay, warmup_epochs

    def plan(self, flat: FlatImages) -> Plan:
        """All images."""
        return every_image(len(flat))

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """NT-Xent of the projections; ``y`` is not looked at."""
        first, second = self.projected(x).view(len(x), 2, -1).unbind(dim=1)
        return self.views(first, second)

    def configure_optimizers(self) -> dict[str, Any]:
        """LARS, cosine after a warm-up."""
        optimizer = LARS(parameter_groups(self), self.lr, weight_decay=self.weight_decay)
        return with_cosine(optimizer, self.trainer, warmup_epochs=self.warmup_epochs)


class LesionSearchTask(LesionTask):
    """Fine-tuning from a pre-trained network: ``objective`` "triplet" for search, "types" for classification.

    Triplet loss with margin .8 on cosine distance (eq. 2 with d = 1 - cosine), SGD .01, momentum .9, cosine.
    """

    def __init__(
        self,
        *,
        class_names: list[str],
        network: str = "lesionsearch",
        arguments: dict[str, Any] | None = None,
        weights: Path | None = None,
        objective: Literal["triplet", "types"] = "triplet",
        margin: float = 0.8,
        batch_size: int = 64,
        epoch_size: int | None = None,
        lr: float = 0.01,
        weight_decay: float = 1e-5,
        augmentation: Augmentation = _AUGMENTATION,
    ) -> None:
        super().__init__(
            class_names=class_names, network=network, arguments=arguments or {}, weights=weights,
            batch_size=batch_size, epoch_size=epoch_size, augmentation=augmentation,
        )  # fmt: skip
        self.classifies = objective == "types"
        self.margin, self.lr, self.weight_decay = margin, lr, weight_decay

    def require_usable(self, train: LesionDataset, val: LesionDataset) -> None:
        """Whether validation lesions make a triplet, too: the best epoch is chosen by them."""
        super().require_usable(train, val)
        counts = np.bincount(val.labels[val.labels >= 0])
        if not self.classifies and (counts.max() < 2 or (counts > 0).sum() < 2):
            msg = (
                f"the {int(counts.sum())} validation lesions make no triplet: two of one class and one of another are needed; "
                "set more aside (data.validation)."
            )
            raise TrainingError(msg)

    def plan(self, flat: FlatImages) -> Plan:
        """Triplets, or images with each type as often."""
        if self.classifies:
            return balanced_images(flat.labels, count=self.epoch_size)
        return triplets(flat.labels, flat.lesions, count=self.epoch_size)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Triplet loss on the descriptors, or cross-entropy of the types."""
        if self.classifies:
            return functional.cross_entropy(self.network(x[:, 0]), y[:, 0])
        descriptors = self.network.descriptor(self.network.features(x.flatten(0, 1)))
        return triplet_loss(*descriptors.view(len(x), 3, -1).unbind(dim=1), margin=self.margin)

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        """Types: as every classifier. Triplets: every one that whole lesions of the batch make."""
        if self.classifies:
            super().validation_step(batch, index)
            return
        parts = self.network.descriptor(self.network.features(batch["x"])).split(batch["counts"])
        d = functional.normalize(torch.stack([functional.normalize(p, dim=1).mean(dim=0) for p in parts]), dim=1)
        similarity, y = d @ d.T, batch["y"]
        alike = (y[:, None] == y[None]) & ~torch.eye(len(y), dtype=torch.bool, device=y.device)
        other = y[:, None] != y[None]
        a, p, n = torch.nonzero(alike[:, :, None] & other[:, None, :], as_tuple=True)
        if len(a):
            loss = (self.margin - similarity[a, p] + similarity[a, n]).clamp(min=0).mean() / 2
            self._log_validation(loss, len(a))

    def val_loader(self, images: LesionDataset, *, workers: int) -> DataLoader:
        """For triplets in a shuffled order, always the same: neighbours in a table are often of one class."""
        if self.classifies:
            return super().val_loader(images, workers=workers)
        known = self._usable(images)
        order = torch.randperm(len(known), generator=torch.Generator().manual_seed(0)).numpy()
        return lesion_loader(known.at(order), lesions_at_once=_COMPARED_AT_ONCE, workers=workers)

    def configure_optimizers(self) -> dict[str, Any]:
        """SGD, cosine."""
        return with_cosine(sgd(self.network, lr=self.lr, weight_decay=self.weight_decay), self.trainer)
