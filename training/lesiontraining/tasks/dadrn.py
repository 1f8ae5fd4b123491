"""DADRN: dual attention on a dilated ResNet, on whole slices; Grad-CAM as a weak localiser (papers 1.2)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from LesionLib.explain.localisation import LocalisationCase, choose_threshold, localisation
from LesionLib.explain.saliency import grad_cam
from LesionLib.networks.base import device_of
from LesionLib.sampling.batches import in_channels_last
from torch import Tensor
from torch.nn import functional

from lesiontraining.data.augment import Augmentation
from lesiontraining.data.lesions import LesionDataset
from lesiontraining.data.loading import FlatImages, Plan, balanced_images, every_image
from lesiontraining.optim import sgd, with_cosine
from lesiontraining.tasks.base import LesionTask, TrainingError

_AUGMENTATION = Augmentation(flips=True, rotate_degrees=15.0)


class DADRNTask(LesionTask):
    """Cross-entropy on slices. All variants of its tables are ``arguments`` of the network "dadrn".

    The paper gives no optimiser, rate or schedule: SGD 1e-3, momentum .9 and a cosine are ours. ``without_lesion``: classes of
    slices that hold no lesion; where the map lies is measured on the others, as the paper does.
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
        self.without_lesion = tuple(without_lesion or ())
        if unknown := sorted(set(self.without_lesion) - set(class_names)):
            msg = f"without_lesion names {', '.join(unknown)}; the classes are {', '.join(class_names)}."
            raise TrainingError(msg)

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
        """Where its Grad-CAM lies: the localisation score on test slices, its threshold from validation slices."""
        choosing, measured = self._cases(val), self._cases(test)
        if not choosing or not measured:
            return {"localisation": "not measured: no box is known in the images of validation or test lesions"}
        threshold = choose_threshold(choosing)
        found = localisation(measured, threshold=threshold)
        shares = {
            "gt_known_iou_50": found.all_cases.gt_known,
            "top_1": found.all_cases.top_1,
            "pointing": found.all_cases.pointing,
        }
        return {
            "localisation": {
                "threshold": threshold,
                "mean_over_classes": round(found.mean_gt_known, 4),
                **{name: {"hits": s.hits, "n": s.n, "low": s.low, "high": s.high} for name, s in shares.items()},
                "pointing_by_chance": round(float(np.mean([case.truth.mean() for case in measured])), 4),
            }
        }

    def _cases(self, images: LesionDataset) -> list[LocalisationCase]:
        """One a labelled lesion whose box is known, of its middle image."""
        with_lesion = [c for c, name in enumerate(self.class_names) if name not in self.without_lesion]
        known = np.isfinite(images.targets).all(axis=1) & np.isin(images.labels, with_lesion)
        return [case for row in np.flatnonzero(known) if (case := self._case(images, int(row))) is not None]

    def _case(self, images: LesionDataset, row: int) -> LocalisationCase | None:
        of_lesion = images.images[row]
        x = in_channels_last(torch.from_numpy(of_lesion[len(of_lesion) // 2][None]).to(device_of(self.network)))
        label = int(images.labels[row])
        with torch.no_grad():
            features = self.network.features(x)
            predicted = int(self.network.head(features).argmax())
        cam = grad_cam(self.network, features, torch.tensor([label])).cpu().numpy()[0]
        top, left, rows, columns = images.targets[row]
        truth = np.zeros(of_lesion.shape[-2:], dtype=bool)
        first_row, first_column = max(0, round(top)), max(0, round(left))
        truth[
            first_row : max(first_row + 1, round(top + rows)),
            first_column : max(first_column + 1, round(left + columns)),
        ] = True
        if not truth.any():
            return None
        return LocalisationCase(np.squeeze(cam), truth, self.class_names[label], self.class_names[predicted])
