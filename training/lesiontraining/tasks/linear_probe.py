"""A linear classifier on what a frozen network sees: no weight of the network is changed, scikit-learn fits the head.

This is DMRN's last step (descriptor -> linear classifier -> mean over the slices) with logistic loss in the SVM's place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from LesionLib.networks import LesionNet
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from torch import Tensor, nn
from torch.nn import functional

from lesiontraining.data.augment import Augmentation
from lesiontraining.data.lesions import LesionDataset
from lesiontraining.data.loading import FlatImages, Plan, every_image
from lesiontraining.evaluation.classification import macro_auc
from lesiontraining.runs.inference import lesion_descriptors
from lesiontraining.tasks.base import LesionTask, TrainingError

Descriptors = Sequence[np.ndarray]  # of each lesion (slice, d)
STRENGTHS = (1e-3, 3e-3, 1e-2)
_INNER_FOLDS = 4
_MAX_ITERATIONS = 500
_SAME = 1e-3  # logits by the network and by the head, relative to the largest


@dataclass(frozen=True, eq=False)
class LinearHead:
    """``weight`` (class, d), ``bias`` (class,), float64; ``strength``: the C of scikit-learn it was fitted with.

    Of two classes the logits are minus and plus half of the log-odds.
    """

    weight: np.ndarray
    bias: np.ndarray
    strength: float

    def logits(self, descriptors: Descriptors) -> list[np.ndarray]:
        """Logits (slice, class) of each lesion."""
        of_classes = list(zip(self.weight, self.bias, strict=True))
        return [np.stack([of_lesion @ w + b for w, b in of_classes], axis=1) for of_lesion in descriptors]

    def fill(self, network: LesionNet) -> None:
        """Into the network's last linear layer, in place. Raises `TrainingError` where that layer has another size."""
        linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
        if not linear or linear[-1].weight.shape != self.weight.shape:
            found = tuple(linear[-1].weight.shape) if linear else "none"
            msg = f"the network's last linear layer is {found}, the head needs {self.weight.shape}; choose another network."
            raise TrainingError(msg)
        with torch.no_grad():
            linear[-1].weight.copy_(torch.from_numpy(self.weight).float())
            linear[-1].bias.copy_(torch.from_numpy(self.bias).float())

    def check(self, network: LesionNet, images: torch.Tensor, descriptors: np.ndarray) -> None:
        """The filled network says what the head says. ``images``: (slice, channel, ...) whose ``descriptors`` are given.

        Raises `TrainingError` for a network whose head is more than one linear layer on its descriptor.
        """
        with torch.inference_mode():
            there = network(images).double().cpu().numpy()
        (here,) = self.logits([descriptors])
        if not np.allclose(there, here, rtol=0, atol=_SAME * max(1.0, np.abs(here).max())):
            msg = "the network's head is no single linear layer on its descriptor; choose another network."
            raise TrainingError(msg)


def fit_head(
    drawings: Sequence[Descriptors],
    labels: np.ndarray,
    patients: np.ndarray,
    *,
    classes: int,
    strengths: Sequence[float],
) -> LinearHead:
    """Fit on several drawings of the same lesions; C is chosen by inner folds that no patient crosses.

    The first drawing (the boxes as given) weighs as much as all others together, so that neither way to draw a box is
    favoured; every lesion weighs the same in a class, and every class. ``labels``: class indices, ``patients``: (lesion,)
    each. Raises `TrainingError` where a class has no lesion.
    """
    counts = np.bincount(labels, minlength=classes)
    if not counts.all():
        msg = f"{np.flatnonzero(counts == 0).tolist()}: no training lesion is of these classes (counted from 0)."
        raise TrainingError(msg)
    if len(strengths) == 1:
        return _fit(drawings, labels, counts, strengths[0])
    scores = np.zeros(len(strengths))
    people = len(np.unique(patients))
    if people < 2:
        msg = "there is one patient only; at least two are needed to choose how strongly the head is held back."
        raise TrainingError(msg)
    for rest, held_out in GroupKFold(min(_INNER_FOLDS, people)).split(labels, labels, patients):
        of_rest = np.bincount(labels[rest], minlength=classes)
        for index, strength in enumerate(strengths):
            head = _fit([_at(drawing, rest) for drawing in drawings], labels[rest], of_rest, strength)
            for drawing in drawings:
                logits = head.logits(_at(drawing, held_out))
                score = macro_auc(labels[held_out], np.stack([of_lesion.mean(axis=0) for of_lesion in logits]))
                scores[index] += np.nan_to_num(score)  # no figure without all classes, for no strength
    return _fit(drawings, labels, counts, strengths[int(scores.argmax())])


def out_of_fold_logits(
    drawings: Sequence[Descriptors],
    tested: Sequence[Descriptors],
    labels: np.ndarray,
    patients: np.ndarray,
    folds: np.ndarray,
    *,
    classes: int,
    strengths: Sequence[float],
) -> list[list[np.ndarray]]:
    """For each of ``tested``: logits (slice, class) of every lesion by the head that never saw its patient.

    ``labels``: class indices, ``patients``, ``folds`` (patients never across): (lesion,) each.
    """
    answers: list[list[np.ndarray]] = [[np.empty(0)] * len(labels) for _ in tested]
    for fold in np.unique(folds):
        rest, here = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        head = fit_head(
            [_at(drawing, rest) for drawing in drawings],
            labels[rest],
            patients[rest],
            classes=classes,
            strengths=strengths,
        )
        for answer, drawing in zip(answers, tested, strict=True):
            for index, logits in zip(here, head.logits(_at(drawing, here)), strict=True):
                answer[index] = logits
    return answers


def _at(descriptors: Descriptors, rows: np.ndarray) -> list[np.ndarray]:
    return [descriptors[row] for row in rows]


def _fit(drawings: Sequence[Descriptors], labels: np.ndarray, counts: np.ndarray, strength: float) -> LinearHead:
    shares = [1.0] if len(drawings) == 1 else [0.5] + [0.5 / (len(drawings) - 1)] * (len(drawings) - 1)
    of_class = len(labels) / ((counts > 0).sum() * np.maximum(counts, 1))
    rows = [
        (descriptors, label, share / len(descriptors) * of_class[label])
        for share, drawing in zip(shares, drawings, strict=True)
        for descriptors, label in zip(drawing, labels, strict=True)
    ]
    x = np.concatenate([descriptors for descriptors, _, _ in rows]).astype(np.float64)
    y, weight = (np.concatenate([np.full(len(row[0]), row[n]) for row in rows]) for n in (1, 2))
    mean, scale = x.mean(axis=0), x.std(axis=0) + 1e-6
    model = LogisticRegression(C=strength, max_iter=_MAX_ITERATIONS)
    model.fit((x - mean) / scale, y, sample_weight=weight)
    of_class = np.zeros((len(counts), x.shape[1]))
    bias = np.full(len(counts), -np.inf)
    if len(model.classes_) == 2:
        # One log-odds, halved to either side.
        of_first, of_second = model.classes_
        odds = model.coef_[0] / scale
        offset = model.intercept_[0] - odds @ mean
        of_class[of_first], of_class[of_second] = -odds / 2, odds / 2
        bias[of_first], bias[of_second] = -offset / 2, offset / 2
    else:
        of_class[model.classes_] = model.coef_ / scale
        bias[model.classes_] = model.intercept_ - of_class[model.classes_] @ mean
    return LinearHead(of_class, bias, strength)


class LinearProbeTask(LesionTask):
    """The head on the boxes of the table, as one recipe beside the others; ``trainer.max_epochs`` is 0.

    A model that is shipped is cross-validated and fitted on everything, with its boxes drawn again: `lesiontrain probe`.
    """

    def __init__(
        self,
        *,
        class_names: list[str],
        network: str = "mobilenet_v2",
        arguments: dict[str, Any] | None = None,
        weights: Path | None = None,
        strengths: list[float] | None = None,
        batch_size: int = 32,
    ) -> None:
        super().__init__(
            class_names=class_names, network=network, arguments=arguments or {}, weights=weights,
            batch_size=batch_size, epoch_size=None, augmentation=Augmentation(),
        )  # fmt: skip
        self.strengths = strengths or list(STRENGTHS)

    def on_fit_start(self) -> None:
        """No epoch may change the network."""
        if self.trainer.max_epochs != 0:
            msg = "this recipe changes no weight of the network; set trainer.max_epochs to 0."
            raise TrainingError(msg)

    def plan(self, flat: FlatImages) -> Plan:
        """All images; none is shown in no epoch."""
        return every_image(len(flat))

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Cross-entropy of single images."""
        return functional.cross_entropy(self.network(x[:, 0]), y[:, 0])

    def configure_optimizers(self) -> None:
        """None: scikit-learn fits."""

    def fitted(self, train: LesionDataset) -> None:
        """Fit the head on the descriptors of the training lesions' images."""
        super().fitted(train)
        known = self._usable(train)
        head = fit_head(
            [lesion_descriptors(self.network, known.images)],
            known.labels,
            known.patients,
            classes=len(self.class_names),
            strengths=self.strengths,
        )
        head.fill(self.network)
