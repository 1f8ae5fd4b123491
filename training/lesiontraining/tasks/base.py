"""What every recipe is: a network, what a batch is, a loss, and what comes out after the fit."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from LesionLib.errors import LesionLensError
from LesionLib.networks import LesionNet, build_network
from LesionLib.networks.weights import load_pretrained
from lightning import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lesiontraining.data.augment import Augmentation
from lesiontraining.data.lesions import LesionDataset
from lesiontraining.data.loading import FlatImages, Plan, lesion_loader, training_loader
from lesiontraining.runs.inference import (
    lesion_features,
    lesion_probabilities,
    neighbour_probabilities,
    require_two_patients,
)

_LESIONS_AT_ONCE = 8


class TrainingError(LesionLensError):
    """Training that cannot go on, such as a loss that is no number."""


def require_support_vectors(train: LesionDataset) -> None:
    """Before the training, what `fit_support_vectors` needs after it. Raises `TrainingError`."""
    try:
        require_two_patients(train.at(train.labels >= 0))
    except ValueError as error:
        msg = f"the support vector machine cannot be fitted after the training: {error}; give more lesions, or fewer folds."
        raise TrainingError(msg) from error


class LesionTask(LightningModule):
    """A recipe. ``class_names`` come from the data.

    ``network`` and ``arguments`` are those of `LesionLib.networks.build_network`; ``weights``: a file to start from (ImageNet
    weights under their usual names, or a run's ``network.safetensors``). ``epoch_size``: items an epoch shows (default: as many
    as there are images). ``classifies``: whether the network itself has classes; else `answers` asks the neighbours. ``has_network``:
    False for a comparator that is fitted without training, whose `answers_of_sets` is all there is to it.
    """

    classifies: ClassVar[bool] = True
    knows_classes: ClassVar[bool] = True  # whether the network takes ``classes``
    copies: ClassVar[int] = 1
    needs_labels: ClassVar[bool] = True
    has_network: ClassVar[bool] = True

    def __init__(
        self,
        *,
        class_names: list[str],
        network: str,
        arguments: dict[str, Any],
        weights: Path | None,
        batch_size: int,
        epoch_size: int | None,
        augmentation: Augmentation,
    ) -> None:
        super().__init__()
        self.class_names = tuple(class_names)
        if self.needs_labels and len(self.class_names) < 2:
            msg = f"the lesions are of {len(self.class_names)} class(es); at least two are needed. Is it the right label column?"
            raise TrainingError(msg)
        self.architecture = network
        self.arguments = {**arguments, **({"classes": max(2, len(class_names))} if self.knows_classes else {})}
        if self.has_network:
            self.network: LesionNet = build_network(network, self.arguments).train()
        if weights is not None:
            load_pretrained(self.network, Path(weights))
        self.batch_size, self.epoch_size, self.augmentation = batch_size, epoch_size, augmentation
        self._train: LesionDataset | None = None

    @abstractmethod
    def plan(self, flat: FlatImages) -> Plan:
        """Which images an epoch shows."""

    @abstractmethod
    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Of a batch: ``x`` (batch, member, channel, ...), ``y`` (batch, member)."""

    def require_usable(self, train: LesionDataset, val: LesionDataset) -> None:
        """Say before the first epoch what would be missing in it or after the last. Raises `TrainingError`."""
        if not self.needs_labels:
            return
        for name, images, needed in (("training", train, 2), ("validation", val, 1)):
            labels = images.labels[images.labels >= 0]
            if len(np.unique(labels)) < needed:
                msg = (
                    f"{len(labels)} of {len(images)} {name} lesions have a label, of {len(np.unique(labels))} class(es); "
                    f"{type(self).__name__} needs at least {needed} there. Fill the label column or divide the table otherwise "
                    "(data.folds; for DeepLesion as released: typed), or take a recipe that needs none (lesionsearch-pretrain, vae)."
                )
                raise TrainingError(msg)

    def train_loader(self, images: LesionDataset, *, workers: int, seed: int) -> DataLoader:
        """Training batches of ``images``; lesions without a label are left out where the recipe needs one."""
        flat = FlatImages(self._usable(images))
        return training_loader(
            flat,
            self.plan(flat),
            batch_size=self.batch_size,
            workers=workers,
            seed=seed,
            augmentation=self.augmentation,
            copies=self.copies,
        )

    def val_loader(self, images: LesionDataset, *, workers: int) -> DataLoader:
        """Validation lesions, whole."""
        return lesion_loader(self._usable(images), lesions_at_once=_LESIONS_AT_ONCE, workers=workers)

    def on_train_epoch_start(self) -> None:
        """Dropout and draws of an epoch depend on the seed and the epoch alone, so that a resumed training is the same."""
        seed = int(os.environ.get("PL_GLOBAL_SEED", "0"))
        torch.manual_seed((seed * 100_003 + self.current_epoch) * 1_009 + self.global_rank)

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        """The loss, which must be a number."""
        loss = self.loss(batch["x"], batch["y"])
        if not torch.isfinite(loss):
            msg = (
                f"the loss is {float(loss)} in epoch {self.current_epoch}, step {index}; lower the learning rate, or look for "
                "damaged images. The state of the last whole epoch is kept."
            )
            raise TrainingError(msg)
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(batch["y"]))
        return loss

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        """Log loss and accuracy of whole lesions, by the mean probability of their images."""
        counts = batch["counts"]
        features = self.network.features_of_lesions(batch["x"], counts)
        p = self.network.probabilities(self.network.head(features).float())
        p = torch.stack([part.mean(dim=0) for part in p.split(counts)])
        right = p.gather(1, batch["y"][:, None]).clamp(min=1e-7)
        self._log_validation(-right.log().mean(), len(counts))
        accuracy = (p.argmax(dim=1) == batch["y"]).float().mean()
        self.log("val_accuracy", accuracy, prog_bar=True, batch_size=len(counts), sync_dist=True)

    def fitted(self, train: LesionDataset) -> None:
        """What is fitted after the training, on training lesions alone; here only kept for `answers`."""
        self._train = train

    def answers(self, images: LesionDataset) -> tuple[np.ndarray, np.ndarray]:
        """Class probabilities (n, class) and embeddings (n, d), L2-normalised.

        Of a network without classes: the share of each class among the nearest training lesions, weighted by similarity;
        equal shares where no training lesion has a label.
        """
        logits, embeddings = lesion_features(self.network, images.images)
        if self.classifies:
            return lesion_probabilities(self.network, logits), embeddings
        if self._train is None:
            msg = "fitted() comes before answers()"
            raise RuntimeError(msg)
        labels = self._train.labels
        if not (labels >= 0).any():
            return np.full((len(embeddings), len(self.class_names)), 1 / max(1, len(self.class_names))), embeddings
        _, known = lesion_features(self.network, self._train.images)
        return neighbour_probabilities(
            embeddings, known[labels >= 0], labels[labels >= 0], len(self.class_names), metric=self.network.metric
        ), embeddings

    def answers_of_sets(self, sets: Sequence[LesionDataset]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Probabilities and embeddings of each set, the training lesions first, where `fitted` was not called before."""
        self.fitted(sets[0])
        return [self.answers(images) for images in sets]

    def figures(self, val: LesionDataset, test: LesionDataset) -> dict[str, Any]:
        """What else the recipe measures on test lesions, with choices made on validation lesions; plain JSON."""
        return {}

    def examples(self, test: LesionDataset, figures: dict[str, Any]) -> dict[str, np.ndarray]:
        """What can be looked at of a few test lesions, for the report: arrays of one length, with ``lesion``, rows of ``test``."""
        return {}

    def bundle_parts(self) -> tuple[str, dict[str, Any], LesionNet]:
        """Architecture, arguments and the network as it answers: for `export`."""
        return self.architecture, dict(self.arguments), self.network.eval()

    def _log_validation(self, loss: Tensor, count: int) -> None:
        self.log("val_loss", loss, prog_bar=True, batch_size=count, sync_dist=True)

    def _usable(self, images: LesionDataset) -> LesionDataset:
        return images.at(images.labels >= 0) if self.needs_labels else images


class TwoViewsTask(LesionTask):
    """A recipe whose loss compares two changed views of each picture, by a `projection` that is thrown away afterwards."""

    copies = 2
    projection: nn.Module

    def val_loader(self, images: LesionDataset, *, workers: int) -> DataLoader:
        """Two views of validation pictures too: the loss has no other meaning."""
        flat = FlatImages(self._usable(images))
        return training_loader(
            flat, self.plan(flat), batch_size=self.batch_size, workers=workers, seed=0,
            augmentation=self.augmentation, copies=2,
        )  # fmt: skip

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        """The same loss."""
        self._log_validation(self.loss(batch["x"], batch["y"]), len(batch["y"]))

    def projected(self, x: Tensor) -> Tensor:
        """(batch, 2, channel, ...) -> (2 x batch, n), both views of a picture one after the other."""
        return self.projection(self.network.descriptor(self.network.features(x.flatten(0, 1))))
