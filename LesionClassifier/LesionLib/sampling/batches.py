"""Boxes cut and put together: the patches of several lesions go through a network at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import takewhile
from threading import Event

import numpy as np
import torch
from torch import Tensor

from LesionLib.geometry import CTVolume, LesionBox
from LesionLib.networks import LesionNet
from LesionLib.sampling.inputs import Sample, Spec, crop_sample, network_input
from LesionLib.sampling.planes import PlaneSample, shared_slices

# More makes a CPU no faster, and a run is cancelled between two batches.
_MAX_PATCHES = {"cpu": 16, "cuda": 128}
_PATCH_VALUES = 3 * 224 * 224  # what counts as one patch of network input; larger ones count as several


@dataclass(frozen=True, eq=False)
class Lesion:
    """One box as a network sees it. ``patches``: float32, (patch, channel, [slice,] row, column)."""

    box: LesionBox
    sample: Sample
    patches: np.ndarray


def first_alike(batch: Sequence[Lesion]) -> list[int]:
    """For every lesion of a batch the first one that a network cannot tell from it: as a rule itself."""
    found: dict[bytes | int, int] = {}
    keys = (lesion.sample.in_common if isinstance(lesion.sample, PlaneSample) else None for lesion in batch)
    return [found.setdefault(number if key is None else key, number) for number, key in enumerate(keys)]


def crop_lesion(volume: CTVolume, box: LesionBox, spec: Spec) -> Lesion:
    """Cut one box. Raises `BoxError` for a box outside, or one without the segment that the model looks at."""
    sample = crop_sample(volume, box, spec)
    return Lesion(box, sample, network_input(sample, spec))


def batches(
    volume: CTVolume, boxes: Iterable[LesionBox], spec: Spec, *, device: torch.device, max_lesions: int | None = None
) -> Iterator[list[Lesion]]:
    """The boxes in their order, as many in a batch as ``device`` takes well at once, and at least one.

    While one batch is with whoever asked for it, a thread cuts the next; what goes wrong there is raised in its turn.
    """
    max_patches = _MAX_PATCHES.get(device.type, _MAX_PATCHES["cpu"])
    given_up = Event()
    wanted = takewhile(lambda _box: not given_up.is_set(), boxes)
    cut = _batches(volume, wanted, spec, max_patches=max_patches, max_lesions=max_lesions)
    thread = ThreadPoolExecutor(1, thread_name_prefix="LesionLens boxes")
    try:
        coming = thread.submit(next, cut, None)
        while (batch := coming.result()) is not None:
            coming = thread.submit(next, cut, None)
            yield batch
    finally:  # whoever cancels does not wait for what nobody wants any more
        given_up.set()
        thread.shutdown(wait=False, cancel_futures=True)


def _batches(
    volume: CTVolume, boxes: Iterable[LesionBox], spec: Spec, *, max_patches: int, max_lesions: int | None
) -> Iterator[list[Lesion]]:
    batch: list[Lesion] = []
    with shared_slices(volume):
        for box in boxes:
            lesion = crop_lesion(volume, box, spec)
            if batch and _work([*batch, lesion]) > max_patches:
                yield batch
                batch = []
            batch.append(lesion)
            if len(batch) == max_lesions:
                yield batch
                batch = []
    if batch:
        yield batch


def _work(batch: Sequence[Lesion]) -> float:
    """What a network does for a batch, in patches; what it need not look at again is nothing."""
    return sum(_weight(batch[number]) for number in set(first_alike(batch)))


def lesions_at_once(lesion: Lesion, device: str = "cpu") -> int:
    """How many like this one go through a network at once, at least one."""
    return max(1, int(_MAX_PATCHES[device] / _weight(lesion)))


def stacked(batch: list[Lesion], device: torch.device) -> Tensor:
    """The patches of all lesions of a batch, one after the other, on ``device``, channels last."""
    patches = torch.from_numpy(np.concatenate([lesion.patches for lesion in batch]))
    return in_channels_last(patches.to(device, non_blocking=True))


def in_channels_last(patches: Tensor) -> Tensor:
    """The same numbers in the order in which convolutions are fastest on CPUs and GPUs alike."""
    return patches.contiguous(memory_format=torch.channels_last_3d if patches.ndim == 5 else torch.channels_last)


def network_in_channels_last(network: LesionNet) -> LesionNet:
    """The network with its weights in the order of `in_channels_last`, in place."""
    is_3d = any(parameter.ndim == 5 for parameter in network.parameters())
    return network.to(memory_format=torch.channels_last_3d if is_3d else torch.channels_last)


def _weight(lesion: Lesion) -> float:
    work = 0.5 if lesion.patches.ndim == 5 else 1.0  # of a cube a network sees some planes, or it reduces it quickly
    return max(len(lesion.patches), work * lesion.patches.size / _PATCH_VALUES)
