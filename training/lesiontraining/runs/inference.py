"""What a network says of lesions, as in use: images through the network, probabilities and directions averaged.

Also of a network that only compares, and the fit of the support vector machine of DMRN and of ResGLNet.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from LesionLib.metric import COSINE, EUCLIDEAN, points_of, similarity_at
from LesionLib.networks import LesionNet
from LesionLib.networks.base import device_of
from LesionLib.networks.svm import SVMNet, fill_from_sklearn
from LesionLib.sampling.batches import in_channels_last
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.utils.class_weight import compute_sample_weight
from torch import Tensor

from lesiontraining.data.lesions import LesionDataset
from lesiontraining.evaluation.retrieval import squared_distances
from lesiontraining.runs.uncertainty import best_temperature

_IMAGES_AT_ONCE = 64
_MIN_FOR_TEMPERATURE = 20
_NO_LENGTH = 1e-12


def lesion_features(
    network: LesionNet, images: Sequence[np.ndarray], *, at_once: int = _IMAGES_AT_ONCE
) -> tuple[list[Tensor], np.ndarray]:
    """Logits (image, class) of each lesion, and the embeddings (n, d), L2-normalised, float64.

    ``images``: float32 (image, channel, [slice,] row, column) each. As `LesionLib.inference.classifier.Classifier` does, lesions
    stay whole in a batch.
    """
    logits, embeddings = [], []
    with torch.inference_mode():
        for features, counts in _feature_maps(network, images, at_once):
            logits += [part.float().cpu() for part in network.head(features).split(counts)]
            embeddings += [embedding_of(part) for part in _descriptors(network, features, counts)]
    return logits, np.stack(embeddings).astype(np.float64)


def lesion_descriptors(
    network: LesionNet, images: Sequence[np.ndarray], *, at_once: int = _IMAGES_AT_ONCE
) -> list[np.ndarray]:
    """The descriptors (image, d) of each lesion, float32, not normalised; ``images`` as in `lesion_features`."""
    with torch.inference_mode():
        batches = _feature_maps(network, images, at_once)
        return [part for features, counts in batches for part in _descriptors(network, features, counts)]


def embedding_of(descriptors: np.ndarray) -> np.ndarray:
    """A lesion's embedding (d,) of its images' descriptors (image, d): the mean of their directions, normalised."""
    unit = descriptors / np.maximum(np.linalg.norm(descriptors, axis=1, keepdims=True), _NO_LENGTH)
    mean = unit.mean(axis=0)
    return mean / max(np.linalg.norm(mean), _NO_LENGTH)


def lesion_probabilities(network: LesionNet, logits: Sequence[Tensor], temperature: float = 1.0) -> np.ndarray:
    """The mean of the images' probabilities, (n, class), float64. ``logits``: (image, class) each."""
    device = device_of(network)
    with torch.inference_mode():
        together = network.probabilities(torch.cat(list(logits)).to(device), temperature).double().cpu()
    return np.stack([part.mean(dim=0).numpy() for part in together.split([len(part) for part in logits])])


def fit_temperature(network: LesionNet, logits: Sequence[Tensor], labels: np.ndarray) -> float | None:
    """The temperature with the least log loss of the lesion probabilities; None for fewer than 20 lesions.

    ``logits``: (image, class) each; ``labels``: class indices, (n,), all known.
    """
    if len(labels) < _MIN_FOR_TEMPERATURE:
        return None
    return best_temperature(lambda temperature: lesion_probabilities(network, logits, temperature), labels)


def _feature_maps(network: LesionNet, images: Sequence[np.ndarray], at_once: int) -> Iterator[tuple[Tensor, list[int]]]:
    """Feature maps of a batch of whole lesions, and how many images each has."""
    network.eval()
    for batch in _batches(images, at_once):
        counts = [len(lesion) for lesion in batch]
        x = in_channels_last(torch.from_numpy(np.concatenate(batch)).to(device_of(network)))
        yield network.features_of_lesions(x, counts), counts


def _descriptors(network: LesionNet, features: Tensor, counts: list[int]) -> list[np.ndarray]:
    return [part.cpu().numpy() for part in network.descriptor(features).float().split(counts)]


def _batches(images: Sequence[np.ndarray], at_once: int) -> list[list[np.ndarray]]:
    batches: list[list[np.ndarray]] = [[]]
    for lesion in images:
        if batches[-1] and sum(map(len, batches[-1])) + len(lesion) > at_once:
            batches.append([])
        batches[-1].append(lesion)
    return batches


NEIGHBOURS = 9


def neighbour_probabilities(
    embeddings: np.ndarray,
    known: np.ndarray,
    labels: np.ndarray,
    classes: int,
    *,
    k: int = NEIGHBOURS,
    metric: str = COSINE,
) -> np.ndarray:
    """What a network that only compares says of a class: the share of it among the most similar training lesions.

    Probabilities (n, class): each of the ``k`` most similar votes with 1 + cosine (of a Euclidean ``metric`` with what is shown
    as similarity, see `LesionLib.metric`), and every class has one vote of 1 / k.

    The last keeps a class that no neighbour has from being impossible. ``embeddings``: (n, d), ``known``: (m, d),
    L2-normalised; ``labels``: (m,), class indices. Equally similar ones come in the order given.
    """
    if not len(known):
        msg = "no training lesion has a label; without one there is nothing to compare with"
        raise ValueError(msg)
    if metric == EUCLIDEAN:
        similarity = similarity_at(np.sqrt(squared_distances(points_of(embeddings), points_of(known))))
    else:
        similarity = 1.0 + embeddings @ known.T
    nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    weight = np.take_along_axis(similarity, nearest, axis=1)
    votes = np.full((len(embeddings), classes), 1.0 / k)
    for c in range(classes):
        votes[:, c] += np.where(labels[nearest] == c, weight, 0.0).sum(axis=1)
    return votes / votes.sum(axis=1, keepdims=True)


_MAX_PARTS = 5


def require_two_patients(train: LesionDataset) -> None:
    """Raises ValueError where a class has lesions of fewer than two patients; all of ``train`` labelled."""
    of_class = [len(np.unique(train.patients[train.labels == k])) for k in range(len(train.class_names))]
    if min(of_class) < 2:
        few = ", ".join(f"{name} {n}" for name, n in zip(train.class_names, of_class, strict=True) if n < 2)
        msg = f"every class needs lesions of at least two patients in the training folds; there are of {few}"
        raise ValueError(msg)


def fit_support_vectors(network: SVMNet, train: LesionDataset, *, c: float, class_weight: str | None) -> None:
    """The linear support vector machine of a network that has one: fitted by scikit-learn, kept as the network's tensors.

    Fit and calibrate on every image of ``train`` (all labelled), and copy the numbers into ``network.svm``.

    ``CalibratedClassifierCV(SVC(kernel="linear"), ensemble=False)`` on standardised descriptors; the images that calibrate
    are of other patients than those the inner machine saw. With ``class_weight`` they are weighted as the machine is: calibrated
    to how often the classes come, its answers would be those of the most frequent class again. Raises ValueError where a class
    has a single patient.
    """
    counts = [len(images) for images in train.images]
    labels = np.repeat(train.labels, counts)
    patients = np.repeat(train.patients, counts)
    require_two_patients(train)
    fewest = min(len(np.unique(train.patients[train.labels == k])) for k in np.unique(labels))
    parts = StratifiedGroupKFold(min(_MAX_PARTS, fewest), shuffle=True, random_state=0)
    descriptors = np.concatenate(lesion_descriptors(network, train.images)).astype(np.float64)
    splits = list(parts.split(descriptors, labels, patients))
    machine = make_pipeline(StandardScaler(), SVC(kernel="linear", C=c, class_weight=class_weight))
    weights = None if class_weight is None else compute_sample_weight(class_weight, labels)
    with warnings.catch_warnings():
        # The machine weighs its classes itself; the weights are for the calibration alone, which scikit-learn warns of.
        warnings.filterwarnings("ignore", message=".*sample weights will only be used for the calibration")
        fitted = CalibratedClassifierCV(machine, ensemble=False, cv=splits).fit(
            descriptors, labels, sample_weight=weights
        )
    fill_from_sklearn(network.svm, fitted)
