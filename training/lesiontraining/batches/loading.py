"""Picture sets as data loaders: training items by plan, validation lesions whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..data.picture_set import PictureSet
from .augment import Augmentation, Augmenter
from .plans import EpochSampler, Item, Plan


class FlatPictures:
    """The pictures of all lesions in one row: ``labels`` and ``lesions`` (index in the set), one entry a picture."""

    def __init__(self, pictures: PictureSet) -> None:
        counts = [len(of_lesion) for of_lesion in pictures.pictures]
        self.pictures = [picture for of_lesion in pictures.pictures for picture in of_lesion]
        self.lesions = np.repeat(np.arange(len(pictures)), counts)
        self.labels = pictures.labels[self.lesions]

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def dimensions(self) -> int:
        """2, or 3 for cubes."""
        return self.pictures[0].ndim - 1


class Items(Dataset):
    """(item, seed) -> the item's pictures (member, channel, [slice,] row, column) and labels (member,).

    ``copies`` shows each picture so many times, each changed in its own way: two for contrastive views.
    """

    def __init__(self, flat: FlatPictures, augmentation: Augmentation, *, copies: int = 1) -> None:
        self.flat = flat
        self.copies = copies
        self.augmenter = None if augmentation.does_nothing else Augmenter(augmentation, dimensions=flat.dimensions)

    def __getitem__(self, key: tuple[Item, int]) -> dict[str, Tensor]:
        item, seed = key
        members = [member for member in item for _ in range(self.copies)]
        seeds = np.random.default_rng(seed).integers(2**31, size=len(members))
        return {
            "x": torch.stack([self._picture(m, int(s)) for m, s in zip(members, seeds, strict=True)]),
            "y": torch.as_tensor(self.flat.labels[members]),
        }

    def _picture(self, member: int, seed: int) -> Tensor:
        picture = torch.from_numpy(self.flat.pictures[member])
        return picture if self.augmenter is None else self.augmenter(picture, seed)


class Lesions(Dataset):
    """A lesion's pictures, all of them, and its label."""

    def __init__(self, pictures: PictureSet) -> None:
        self.set = pictures

    def __len__(self) -> int:
        return len(self.set)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.from_numpy(self.set.pictures[index]), int(self.set.labels[index])


def training_loader(
    flat: FlatPictures,
    plan: Plan,
    *,
    batch_size: int,
    workers: int,
    seed: int,
    augmentation: Augmentation,
    copies: int = 1,
) -> DataLoader:
    """Batches of ``batch_size`` items, drawn anew every epoch; the last, smaller one is left out where there are others."""
    sampler = EpochSampler(plan, seed=seed)
    return DataLoader(
        Items(flat, augmentation, copies=copies),
        batch_size=batch_size,
        sampler=sampler,
        drop_last=len(sampler) > batch_size,
        **_worker_options(workers),
    )


def lesion_loader(pictures: PictureSet, *, lesions_at_once: int, workers: int) -> DataLoader:
    """Whole lesions, in order: ``x`` (picture, ...) of all together, ``counts`` and ``y`` one a lesion."""
    return DataLoader(Lesions(pictures), batch_size=lesions_at_once, collate_fn=_together, **_worker_options(workers))


def _together(lesions: Sequence[tuple[Tensor, int]]) -> dict[str, Any]:
    return {
        "x": torch.cat([pictures for pictures, _ in lesions]),
        "counts": [len(pictures) for pictures, _ in lesions],
        "y": torch.tensor([label for _, label in lesions]),
    }


def _worker_options(workers: int) -> dict[str, Any]:
    # "spawn": forked workers hang once the parent has used threads.
    start = {"multiprocessing_context": "spawn", "persistent_workers": True} if workers else {}
    return {"num_workers": workers, "pin_memory": torch.cuda.is_available(), **start}
