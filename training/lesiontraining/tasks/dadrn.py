"""DADRN: dual attention on a dilated ResNet, on whole slices; Grad-CAM as a weak localiser (papers 1.2)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import functional

from lesiontraining.data.augment import Augmentation
from lesiontraining.data.lesions import LesionDataset
from lesiontraining.data.loading import FlatImages, Plan, balanced_images, every_image
from lesiontraining.optim import sgd, with_cosine
from lesiontraining.runs.localising import Localiser, classes_without_lesion
from lesiontraining.tasks.base import LesionTask, TrainingError

_AUGMENTATION = Augmentation(flips=True, rotate_degrees=15.0)


class DADRNTask(LesionTask):
    """Cross-entropy on slices. All variants of its tables are ``arguments`` of the network "dadrn".

    The paper gives no optimiser, rate or schedule: SGD 1e-3, momentum .9 and a cosine are ours. ``without_lesion``: classes of
    slices that hold no lesion (default: one called normal); where the map lies is measured on the others, as the paper does.
    """

    def __init__(
        self,
        *,
        class_names: list[str],
        arguments: dict[str, Any] | None = None,
        weights: Path | None = None,
        balanced: bool = False,
        batch_size: int = 16,
        epoch_size: int | None = None,
        lr: float = 1e-3,
        weight_decay: float = 1e-4,
        augmentation: Augmentation = _AUGMENTATION,
        without_lesion: list[str] | None = None,
    ) -> None:
        super().__init__(
            class_names=class_names, network="dadrn", arguments=arguments or {}, weights=weights,
            batch_size=batch_size, epoch_size=epoch_size, augmentation=augmentation,
        )  # fmt: skip
        self.balanced, self.lr, self.weight_decay = balanced, lr, weight_decay
        try:
            self.without_lesion = classes_without_lesion(class_names, without_lesion)
        except ValueError as error:
            raise TrainingError(str(error)) from error

    def plan(self, flat: FlatImages) -> Plan:
        """All slices, or each class as often."""
        if self.balanced or self.epoch_size is not None:
            return balanced_images(flat.labels, count=self.epoch_size)
        return every_image(len(flat))

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Cross-entropy."""
        return functional.cross_entropy(self.network(x[:, 0]), y[:, 0])

    def configure_optimizers(self) -> dict[str, Any]:
        """SGD, cosine."""
        return with_cosine(sgd(self.network, lr=self.lr, weight_decay=self.weight_decay), self.trainer)

    def figures(self, val: LesionDataset, test: LesionDataset) -> dict[str, Any]:
        """Where its Grad-CAM lies: by class, on test slices with a lesion, the threshold from validation slices."""
        return self._localiser().figures(val, test)

    def examples(self, test: LesionDataset, figures: dict[str, Any]) -> dict[str, np.ndarray]:
        """Slices with their maps."""
        return self._localiser().examples(test, figures)

    def _localiser(self) -> Localiser:
        return Localiser(self.network, self.class_names, self.without_lesion)
