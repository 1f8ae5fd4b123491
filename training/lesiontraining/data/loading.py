"""Picture sets as data loaders: training items by plan, validation lesions whole.

A plan says which images an epoch shows, and with which other; it is drawn anew for every epoch from its own seed: a
function from a random generator to a list of items; an item is a tuple of image indices. The same seed and epoch give the
same items, so that a training that was interrupted goes on as if it had not been.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.distributed
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from lesiontraining.data.augment import Augmentation, Augmenter
from lesiontraining.data.lesions import LesionDataset

Item = tuple[int, ...]
Plan = Callable[[np.random.Generator], list[Item]]
PAIR_MODES = ("uniform", "balanced")


class EpochSampler(Sampler):
    """(item, seed) after (item, seed): those of ``plan`` for the epoch, of several processes each its share."""

    def __init__(self, plan: Plan, *, seed: int) -> None:
        self.plan = plan
        self.seed = seed
        self.epoch = 0
        self.length = len(plan(np.random.default_rng([seed, 0])))

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before every epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[tuple[Item, int]]:
        return self.of_epoch(self.epoch)

    def of_epoch(self, epoch: int) -> Iterator[tuple[Item, int]]:
        """What is shown in any one epoch."""
        rng = np.random.default_rng([self.seed, epoch])
        items = self.plan(rng)
        seeds = rng.integers(2**31, size=len(items))
        rank, processes = _place()
        whole = len(items) - len(items) % processes  # every process the same number of steps
        for index in range(rank, whole, processes):
            yield items[index], int(seeds[index])

    def __len__(self) -> int:
        return self.length // _place()[1]


def every_image(count: int) -> Plan:
    """All images, in random order."""
    return lambda rng: [(int(i),) for i in rng.permutation(count)]


def balanced_images(labels: np.ndarray, *, count: int | None = None) -> Plan:
    """``count`` images (default: as many as there are), each class as often: the class is drawn, then the image."""
    of_class = _by_class(labels)

    def plan(rng: np.random.Generator) -> list[Item]:
        classes = rng.integers(len(of_class), size=count or len(labels))
        return [(int(rng.choice(of_class[c])),) for c in classes]

    return plan


def pairs(labels: np.ndarray, *, mode: str = "balanced", count: int | None = None) -> Plan:
    """Pairs of images, as many as there are images unless ``count`` is given.

    "uniform" (DMRN's text): each image with any other one; the pairs are then as imbalanced as the classes, and mostly of
    different classes. "balanced": the first's class is drawn, then with probability .5 a partner of the same class, else of
    another, whose class is drawn too.
    """
    if mode not in PAIR_MODES:
        msg = f"pairs are {' or '.join(PAIR_MODES)}, not {mode!r}"
        raise ValueError(msg)
    return _uniform_pairs(len(labels), count) if mode == "uniform" else _balanced_pairs(labels, count)


def triplets(labels: np.ndarray, lesions: np.ndarray, *, count: int | None = None) -> Plan:
    """(anchor, positive, negative): every image as anchor, an image of another lesion of its class, one of another class.

    ``labels``: class indices, ``lesions``: of which lesion an image is, (image,) each.
    """
    of_class = _by_class(labels)
    index = {int(labels[members[0]]): members for members in of_class}

    def plan(rng: np.random.Generator) -> list[Item]:
        anchors = rng.permutation(len(labels)) if count is None else rng.integers(len(labels), size=count)
        return [_triplet(int(anchor), rng) for anchor in anchors]

    def _triplet(anchor: int, rng: np.random.Generator) -> Item:
        alike = index[int(labels[anchor])]
        others = alike[lesions[alike] != lesions[anchor]]
        positive = rng.choice(others if len(others) else alike)
        other_class = [members for members in of_class if labels[members[0]] != labels[anchor]]
        negative = rng.choice(other_class[rng.integers(len(other_class))])
        return anchor, int(positive), int(negative)

    return plan


def _uniform_pairs(images: int, count: int | None) -> Plan:
    def plan(rng: np.random.Generator) -> list[Item]:
        first = rng.permutation(images) if count is None else rng.integers(images, size=count)
        step = rng.integers(1, images, size=len(first))
        return [(int(i), int((i + s) % images)) for i, s in zip(first, step, strict=True)]

    return plan


def _balanced_pairs(labels: np.ndarray, count: int | None) -> Plan:
    of_class = _by_class(labels)
    if len(of_class) < 2:
        msg = "pairs need lesions of at least two classes"
        raise ValueError(msg)

    def plan(rng: np.random.Generator) -> list[Item]:
        return [_pair(rng) for _ in range(count or len(labels))]

    def _pair(rng: np.random.Generator) -> Item:
        one = int(rng.integers(len(of_class)))
        shift = 0 if rng.random() < 0.5 else int(rng.integers(1, len(of_class)))
        members, partners = of_class[one], of_class[(one + shift) % len(of_class)]
        first = int(rng.choice(members))
        rest = partners[partners != first]
        return first, int(rng.choice(rest if len(rest) else partners))

    return plan


def _by_class(labels: np.ndarray) -> Sequence[np.ndarray]:
    labels = np.asarray(labels)
    return [np.flatnonzero(labels == c) for c in np.unique(labels)]


def _place() -> tuple[int, int]:
    """Rank and number of processes."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


class FlatImages:
    """The images of all lesions in one row: ``labels`` and ``lesions`` (index in the set), one entry an image."""

    def __init__(self, images: LesionDataset) -> None:
        counts = [len(of_lesion) for of_lesion in images.images]
        self.images = [image for of_lesion in images.images for image in of_lesion]
        self.lesions = np.repeat(np.arange(len(images)), counts)
        self.labels = images.labels[self.lesions]
        self.value_range = images.value_range

    def __len__(self) -> int:
        return len(self.images)

    @property
    def dimensions(self) -> int:
        """2, or 3 for cubes."""
        return self.images[0].ndim - 1


class Items(Dataset):
    """(item, seed) -> the item's images (member, channel, [slice,] row, column) and labels (member,).

    ``copies`` shows each image so many times, each changed in its own way: two for contrastive views.
    """

    def __init__(self, flat: FlatImages, augmentation: Augmentation, *, copies: int = 1) -> None:
        self.flat = flat
        self.copies = copies
        self.augmenter = None
        if not augmentation.does_nothing:
            self.augmenter = Augmenter(augmentation, dimensions=flat.dimensions, value_range=flat.value_range)
        self._ready: dict[tuple[Item, int], dict[str, Tensor]] = {}

    def __getitem__(self, key: tuple[Item, int]) -> dict[str, Tensor]:
        return self._ready.pop(key, None) or self._made(key)

    def make_ready(self, keys: Iterable[tuple[Item, int]]) -> None:
        """Make these now, and hold them until they are asked for; what was held before is let go."""
        self._ready = {}
        self._ready |= {key: self._made(key) for key in keys}

    def _made(self, key: tuple[Item, int]) -> dict[str, Tensor]:
        item, seed = key
        members = [member for member in item for _ in range(self.copies)]
        seeds = np.random.default_rng(seed).integers(2**31, size=len(members))
        return {
            "x": torch.stack([self._image(m, int(s)) for m, s in zip(members, seeds, strict=True)]),
            "y": torch.as_tensor(self.flat.labels[members]),
        }

    def _image(self, member: int, seed: int) -> Tensor:
        image = torch.from_numpy(self.flat.images[member])
        return image if self.augmenter is None else self.augmenter(image, seed)


class Lesions(Dataset):
    """A lesion's images, all of them, and its label."""

    def __init__(self, images: LesionDataset) -> None:
        self.set = images

    def __len__(self) -> int:
        return len(self.set)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.from_numpy(self.set.images[index]), int(self.set.labels[index])


class AheadLoader(DataLoader):
    """Makes the next batch while the network learns from this one; without worker processes, in a thread.

    While it learns from the last one of an epoch, the items of the next epoch's first batch are made.
    """

    def __iter__(self) -> Iterator[Any]:
        batches = super().__iter__()  # now: it draws from torch's own numbers
        return batches if self.num_workers else self._one_ahead(batches)

    def _one_ahead(self, batches: Iterator[Any]) -> Iterator[Any]:
        with ThreadPoolExecutor(1, thread_name_prefix="lesiontrain batches") as thread:
            coming = thread.submit(self._following, batches)
            while (batch := coming.result()) is not None:
                coming = thread.submit(self._following, batches)
                yield batch

    def _following(self, batches: Iterator[Any]) -> Any:
        """The next batch; None behind the last one."""
        batch = next(batches, None)
        if batch is None and isinstance(self.sampler, EpochSampler) and isinstance(self.dataset, Items):
            self.dataset.make_ready(islice(self.sampler.of_epoch(self.sampler.epoch + 1), self.batch_size))
        return batch


def training_loader(
    flat: FlatImages,
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
    return AheadLoader(
        Items(flat, augmentation, copies=copies),
        batch_size=batch_size,
        sampler=sampler,
        drop_last=len(sampler) > batch_size,
        **_worker_options(workers),
    )


def lesion_loader(images: LesionDataset, *, lesions_at_once: int, workers: int) -> DataLoader:
    """Whole lesions, in order: ``x`` (image, ...) of all together, ``counts`` and ``y`` one a lesion."""
    return DataLoader(Lesions(images), batch_size=lesions_at_once, collate_fn=_together, **_worker_options(workers))


def _together(lesions: Sequence[tuple[Tensor, int]]) -> dict[str, Any]:
    return {
        "x": torch.cat([images for images, _ in lesions]),
        "counts": [len(images) for images, _ in lesions],
        "y": torch.tensor([label for _, label in lesions]),
    }


def _worker_options(workers: int) -> dict[str, Any]:
    # "spawn": forked workers hang once the parent has used threads.
    start = {"multiprocessing_context": "spawn", "persistent_workers": True} if workers else {}
    return {"num_workers": workers, "pin_memory": torch.cuda.is_available(), **start}
