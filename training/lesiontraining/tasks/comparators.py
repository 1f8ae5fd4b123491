"""Comparators that need a loss of their own: synergic and supervised contrastive learning beside DMRN, ResGLNet beside DADRN."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pytorch_metric_learning.losses import SupConLoss
from torch import Tensor, nn
from torch.nn import functional

from lesiontraining.data.augment import Augmentation
from lesiontraining.data.lesions import LesionDataset
from lesiontraining.data.loading import FlatImages, Plan, balanced_images, pairs
from lesiontraining.optim import adamw, sgd, with_cosine
from lesiontraining.runs.inference import fit_support_vectors, lesion_descriptors
from lesiontraining.tasks.base import LesionTask, TwoViewsTask, require_support_vectors
from lesiontraining.tasks.cross_entropy import CrossEntropyTask
from lesiontraining.tasks.linear_probe import STRENGTHS, fit_head

_AUGMENTATION = Augmentation(flips=True, rotate_degrees=15.0)
_PROJECTION = 128


class SDLTask(LesionTask):
    """Pairs: one picture to each of two networks, and a third tells whether they are of one class.

    The loss is the sum of both cross-entropies and ``synergic`` times the third's. Rate, decay and the pairs, balanced, are ours.
    """

    def __init__(
        self,
        *,
        class_names: list[str],
        arguments: dict[str, Any] | None = None,
        weights: Path | None = None,
        synergic: float = 3.0,
        batch_size: int = 10,
        epoch_size: int | None = None,
        lr: float = 1e-3,
        weight_decay: float = 1e-4,
        augmentation: Augmentation = _AUGMENTATION,
    ) -> None:
        super().__init__(
            class_names=class_names, network="sdl", arguments=arguments or {}, weights=weights,
            batch_size=batch_size, epoch_size=epoch_size, augmentation=augmentation,
        )  # fmt: skip
        self.synergic, self.lr, self.weight_decay = synergic, lr, weight_decay

    def plan(self, flat: FlatImages) -> Plan:
        """Balanced pairs."""
        return pairs(flat.labels, mode="balanced", count=self.epoch_size)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Of all three."""
        one, other, same = self.network.training_logits(x[:, 0], x[:, 1])
        alike = (y[:, 0] == y[:, 1]).float()
        own = functional.cross_entropy(one, y[:, 0]) + functional.cross_entropy(other, y[:, 1])
        return own + self.synergic * functional.binary_cross_entropy_with_logits(same, alike)

    def configure_optimizers(self) -> dict[str, Any]:
        """SGD, cosine."""
        return with_cosine(sgd(self.network, lr=self.lr, weight_decay=self.weight_decay), self.trainer)


class SupConTask(TwoViewsTask):
    """Supervised contrastive learning (Khosla et al., NeurIPS 2020): two views of class-balanced pictures, then a linear head.

    Every picture of a class attracts every other of the batch. The head is fitted by scikit-learn on the descriptors of the training
    lesions, as `LinearProbeTask` does; the projection is thrown away.
    """

    def __init__(
        self,
        *,
        class_names: list[str],
        network: str = "resnet",
        arguments: dict[str, Any] | None = None,
        weights: Path | None = None,
        temperature: float = 0.1,
        batch_size: int = 32,
        epoch_size: int | None = None,
        lr: float = 1e-3,
        weight_decay: float = 1e-4,
        augmentation: Augmentation = _AUGMENTATION,
    ) -> None:
        super().__init__(
            class_names=class_names, network=network, arguments=arguments or {}, weights=weights,
            batch_size=batch_size, epoch_size=epoch_size, augmentation=augmentation,
        )  # fmt: skip
        size = [module for module in self.network.modules() if isinstance(module, nn.Linear)][-1].in_features
        self.projection = nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, _PROJECTION))
        self.views = SupConLoss(temperature=temperature)
        self.lr, self.weight_decay = lr, weight_decay

    def plan(self, flat: FlatImages) -> Plan:
        """Each class as often."""
        return balanced_images(flat.labels, count=self.epoch_size)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Of the projections of all views of the batch."""
        return self.views(self.projected(x), y.flatten())

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW, cosine."""
        return with_cosine(adamw(self, lr=self.lr, weight_decay=self.weight_decay), self.trainer)

    def fitted(self, train: LesionDataset) -> None:
        """Fit the head on the descriptors of the training lesions' pictures."""
        super().fitted(train)
        known = self._usable(train)
        described = [lesion_descriptors(self.network, known.images)]
        head = fit_head(
            described, known.labels, known.patients, classes=len(self.class_names), strengths=list(STRENGTHS)
        )
        head.fill(self.network)


class LabelMapTask(CrossEntropyTask):
    """ResGLNet: every place of a lesion's picture has the lesion's label, by cross-entropy; then a linear support vector machine on
    the shares of the labels, fitted on training lesions only (C = 1, ours)."""

    def require_usable(self, train: LesionDataset, val: LesionDataset) -> None:
        """What the support vector machine will need, too."""
        super().require_usable(train, val)
        require_support_vectors(train)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Mean over all places."""
        return self._of_places(x[:, 0], y[:, 0])

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        """The loss of whole lesions; the support vector machine is not there yet."""
        y = torch.repeat_interleave(batch["y"], torch.tensor(batch["counts"], device=batch["y"].device))
        self._log_validation(self._of_places(batch["x"], y), len(batch["counts"]))

    def fitted(self, train: LesionDataset) -> None:
        """Fit the support vector machine on the shares of the training lesions' pictures."""
        super().fitted(train)
        fit_support_vectors(self.network, train.at(train.labels >= 0), c=1.0, class_weight=None)

    def _of_places(self, x: Tensor, y: Tensor) -> Tensor:
        logits = self.network.label_map(self.network.features(x))
        labels = y[:, None, None].expand(-1, *logits.shape[2:])
        return functional.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
