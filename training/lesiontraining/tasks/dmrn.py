"""DMRN: pairs compared at four scales, then a linear support vector machine on the last descriptor (papers 1.1)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from LesionLib.networks import LesionNet, build_network
from torch import Tensor

from lesiontraining.data.augment import Augmentation
from lesiontraining.data.lesions import LesionDataset
from lesiontraining.data.loading import FlatImages, Plan, balanced_images, pairs
from lesiontraining.losses import all_pairs, contrastive_loss
from lesiontraining.optim import sgd, with_cosine
from lesiontraining.runs.inference import fit_support_vectors
from lesiontraining.tasks.base import LesionTask, require_support_vectors

_AUGMENTATION = Augmentation(flips=True, rotate_degrees=15.0)


class DMRNTask(LesionTask):
    """Hadsell's loss at every supervised stage, summed (eq. 1 to 5; the scales are "combined" by the sum).

    ``pairs``: "balanced", "uniform" (the paper's text), or "in_batch": every pair inside class-balanced batches, which learns
    far faster (papers 4.5). ``arguments``: ``supervised_stages`` 1 is the ablation without multi-scale. The support vector
    machine is fitted after the training, on training lesions only; learning rate, decay and ``svm_c`` are ours.
    """

    def __init__(
        self,
        *,
        class_names: list[str],
        arguments: dict[str, Any] | None = None,
        weights: Path | None = None,
        pairs: Literal["balanced", "uniform", "in_batch"] = "balanced",
        margin: float = 1.0,
        batch_size: int = 10,
        epoch_size: int | None = None,
        lr: float = 1e-3,
        weight_decay: float = 1e-4,
        svm_c: float = 1.0,
        svm_class_weight: Literal["balanced"] | None = None,
        augmentation: Augmentation = _AUGMENTATION,
    ) -> None:
        super().__init__(
            class_names=class_names, network="dmrn", arguments=arguments or {}, weights=weights,
            batch_size=batch_size, epoch_size=epoch_size, augmentation=augmentation,
        )  # fmt: skip
        self.pairs, self.margin, self.lr, self.weight_decay = pairs, margin, lr, weight_decay
        self.svm_c, self.svm_class_weight = svm_c, svm_class_weight

    def require_usable(self, train: LesionDataset, val: LesionDataset) -> None:
        """What the support vector machine will need, too."""
        super().require_usable(train, val)
        require_support_vectors(train)

    def plan(self, flat: FlatImages) -> Plan:
        """Pairs, or images of which the batch makes all pairs."""
        if self.pairs == "in_batch":
            return balanced_images(flat.labels, count=self.epoch_size)
        return pairs(flat.labels, mode=self.pairs, count=self.epoch_size)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Summed over the stages."""
        members = x.shape[1]
        descriptors = self.network.stage_descriptors(x.flatten(0, 1))
        if members == 1:
            first, second, different = all_pairs(y[:, 0])
        else:
            first = torch.arange(0, y.numel(), 2, device=y.device)
            second, different = first + 1, (y[:, 0] != y[:, 1]).float()
        return sum(contrastive_loss(d[first], d[second], different, margin=self.margin) for d in descriptors)

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        """The loss over all pairs of whole lesions; the support vector machine is not there yet."""
        y = torch.repeat_interleave(batch["y"], torch.tensor(batch["counts"], device=batch["y"].device))
        self._log_validation(self.loss(batch["x"][:, None], y[:, None]), len(batch["counts"]))

    def configure_optimizers(self) -> dict[str, Any]:
        """SGD, cosine."""
        return with_cosine(sgd(self.network, lr=self.lr, weight_decay=self.weight_decay), self.trainer)

    def fitted(self, train: LesionDataset) -> None:
        """Fit the support vector machine on the descriptors of the training lesions' images."""
        super().fitted(train)
        fit_support_vectors(self.network, train.at(train.labels >= 0), c=self.svm_c, class_weight=self.svm_class_weight)

    def bundle_parts(self) -> tuple[str, dict[str, Any], LesionNet]:
        """The weights that an answer reads: of four units one, where the last descriptor is all."""
        if self.arguments.get("descriptor", "last") == "concat":
            return super().bundle_parts()
        arguments = {**self.arguments, "supervised_stages": 1}
        network = build_network(self.architecture, arguments)
        network.load_state_dict({k: v.cpu() for k, v in self.network.inference_state().items()}, strict=True)
        return self.architecture, arguments, network.eval()
