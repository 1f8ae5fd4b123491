"""Boxes cut and put together: the pictures of several lesions go through a network at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from LesionLib.geometry import CTVolume, LesionBox
from LesionLib.networks import LesionNet
from LesionLib.sampling.inputs import Sample, Spec, cut, network_input

# More makes a CPU no faster, and a run is cancelled between two batches.
_MOST_PICTURES = {"cpu": 16, "cuda": 128}
_PICTURE_VALUES = 3 * 224 * 224  # what counts as one picture of network input; larger ones count as several


@dataclass(frozen=True, eq=False)
class Lesion:
    """One box as a network sees it. ``pictures``: float32, (picture, channel, [slice,] row, column)."""

    box: LesionBox
    sample: Sample
    pictures: np.ndarray


def cut_lesion(volume: CTVolume, box: LesionBox, spec: Spec) -> Lesion:
    """Cut one box. Raises `BoxError` for a box outside, or one without the segment that the model looks at."""
    sample = cut(volume, box, spec)
    return Lesion(box, sample, network_input(sample, spec))


def batches(
    volume: CTVolume, boxes: Iterable[LesionBox], spec: Spec, *, device: torch.device, most_lesions: int | None = None
) -> Iterator[list[Lesion]]:
    """The boxes in their order, as many in a batch as ``device`` takes well at once, and at least one."""
    most_pictures = _MOST_PICTURES.get(device.type, _MOST_PICTURES["cpu"])
    batch: list[Lesion] = []
    for box in boxes:
        lesion = cut_lesion(volume, box, spec)
        if batch and sum(map(_weight, [*batch, lesion])) > most_pictures:
            yield batch
            batch = []
        batch.append(lesion)
        if len(batch) == most_lesions:
            yield batch
            batch = []
    if batch:
        yield batch


def stacked(batch: list[Lesion], device: torch.device) -> Tensor:
    """The pictures of all lesions of a batch, one after the other, on ``device``, channels last."""
    pictures = torch.from_numpy(np.concatenate([lesion.pictures for lesion in batch]))
    return in_channels_last(pictures.to(device, non_blocking=True))


def in_channels_last(pictures: Tensor) -> Tensor:
    """The same numbers in the order in which convolutions are fastest on CPUs and GPUs alike."""
    return pictures.contiguous(memory_format=torch.channels_last_3d if pictures.ndim == 5 else torch.channels_last)


def network_in_channels_last(network: LesionNet) -> LesionNet:
    """The network with its weights in the order of `in_channels_last`, in place."""
    is_3d = any(parameter.ndim == 5 for parameter in network.parameters())
    return network.to(memory_format=torch.channels_last_3d if is_3d else torch.channels_last)


def _weight(lesion: Lesion) -> float:
    return max(len(lesion.pictures), lesion.pictures.size / _PICTURE_VALUES)
