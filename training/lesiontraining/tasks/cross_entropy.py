"""Plain cross-entropy with any network: the control that every recipe stands beside."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor
from torch.nn import functional

from lesiontraining.data.augment import Augmentation
from lesiontraining.data.lesions import LesionDataset
from lesiontraining.data.loading import FlatImages, Plan, balanced_images, every_image
from lesiontraining.optim import adamw, sgd, with_cosine
from lesiontraining.runs.localising import Localiser, classes_without_lesion
from lesiontraining.tasks.base import LesionTask, TrainingError

_AUGMENTATION = Augmentation(flips=True)


class CrossEntropyTask(LesionTask):
    """Pictures one by one. ``balanced``: each class as often (papers 4.5: the control to beat).

    ``localises``: where its Grad-CAM lies is measured as DADRN's is, for a comparator on whole slices; its classes
    ``without_lesion`` likewise.
    """

    def __init__(
        self,
        *,
        class_names: list[str],
        network: str = "resnet",
        arguments: dict[str, Any] | None = None,
        weights: Path | None = None,
        balanced: bool = False,
        label_smoothing: float = 0.0,
        batch_size: int = 32,
        epoch_size: int | None = None,
        optimizer: Literal["adamw", "sgd"] = "adamw",
        lr: float = 1e-3,
        weight_decay: float = 1e-4,
        warmup_epochs: int = 0,
        augmentation: Augmentation = _AUGMENTATION,
        localises: bool = False,
        without_lesion: list[str] | None = None,
    ) -> None:
        super().__init__(
            class_names=class_names, network=network, arguments=arguments or {}, weights=weights,
            batch_size=batch_size, epoch_size=epoch_size, augmentation=augmentation,
        )  # fmt: skip
        self.balanced, self.label_smoothing = balanced, label_smoothing
        self.localises = localises
        try:
            self.without_lesion = classes_without_lesion(class_names, without_lesion)
        except ValueError as error:
            raise TrainingError(str(error)) from error
        self.optimizer_name, self.lr, self.weight_decay, self.warmup_epochs = optimizer, lr, weight_decay, warmup_epochs

    def plan(self, flat: FlatImages) -> Plan:
        """All images, or each class as often."""
        if self.balanced or self.epoch_size is not None:
            return balanced_images(flat.labels, count=self.epoch_size)
        return every_image(len(flat))

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Cross-entropy of single images."""
        return functional.cross_entropy(self.network(x[:, 0]), y[:, 0], label_smoothing=self.label_smoothing)

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW or SGD, cosine."""
        make = adamw if self.optimizer_name == "adamw" else sgd
        optimizer = make(self.network, lr=self.lr, weight_decay=self.weight_decay)
        return with_cosine(optimizer, self.trainer, warmup_epochs=self.warmup_epochs)

    def figures(self, val: LesionDataset, test: LesionDataset) -> dict[str, Any]:
        """Where its map lies, where that is asked for."""
        return self._localiser().figures(val, test) if self.localises else {}

    def examples(self, test: LesionDataset, figures: dict[str, Any]) -> dict[str, np.ndarray]:
        """Slices with their maps."""
        return self._localiser().examples(test, figures) if self.localises else {}

    def _localiser(self) -> Localiser:
        return Localiser(self.network, self.class_names, self.without_lesion)
