"""What a network says of lesions, as in use: pictures through the network, probabilities and directions averaged."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from LesionLib.batches import in_channels_last
from LesionLib.networks import LesionNet
from LesionLib.networks.base import device_of
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional

_PICTURES_AT_ONCE = 64
_FEWEST_FOR_TEMPERATURE = 20
_TEMPERATURES = (0.05, 20.0)


def lesion_features(
    network: LesionNet, pictures: Sequence[np.ndarray], *, at_once: int = _PICTURES_AT_ONCE
) -> tuple[list[Tensor], np.ndarray]:
    """Logits (picture, class) of each lesion, and the embeddings (n, d), L2-normalised, float64.

    ``pictures``: float32 (picture, channel, [slice,] row, column) each. As `LesionLib.classify.Classifier` does, lesions
    stay whole in a batch.
    """
    logits, embeddings = [], []
    network.eval()
    with torch.inference_mode():
        for batch in _batches(pictures, at_once):
            counts = [len(lesion) for lesion in batch]
            x = in_channels_last(torch.from_numpy(np.concatenate(batch)).to(device_of(network)))
            features = network.features_of_lesions(x, counts)
            logits += [part.float().cpu() for part in network.head(features).split(counts)]
            directions = functional.normalize(network.descriptor(features).float(), dim=1).split(counts)
            embeddings += [functional.normalize(d.mean(dim=0), dim=0).cpu().double().numpy() for d in directions]
    return logits, np.stack(embeddings)


def lesion_probabilities(network: LesionNet, logits: Sequence[Tensor], temperature: float = 1.0) -> np.ndarray:
    """The mean of the pictures' probabilities, (n, class), float64. ``logits``: (picture, class) each."""
    device = device_of(network)
    with torch.inference_mode():
        together = network.probabilities(torch.cat(list(logits)).to(device), temperature).double().cpu()
    return np.stack([part.mean(dim=0).numpy() for part in together.split([len(part) for part in logits])])


def fit_temperature(network: LesionNet, logits: Sequence[Tensor], labels: np.ndarray) -> float | None:
    """The temperature with the least log loss of the lesion probabilities; None for fewer than 20 lesions.

    Guo et al., ICML 2017, applied after the mean over pictures. ``labels``: class indices, (n,), all known.
    """
    if len(labels) < _FEWEST_FOR_TEMPERATURE:
        return None
    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        p = lesion_probabilities(network, logits, float(np.exp(log_temperature)))
        return float(-np.log(np.clip(p[rows, labels], 1e-7, 1.0)).mean())

    bounds = tuple(np.log(_TEMPERATURES))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))


def _batches(pictures: Sequence[np.ndarray], at_once: int) -> list[list[np.ndarray]]:
    batches: list[list[np.ndarray]] = [[]]
    for lesion in pictures:
        if batches[-1] and sum(map(len, batches[-1])) + len(lesion) > at_once:
            batches.append([])
        batches[-1].append(lesion)
    return batches
