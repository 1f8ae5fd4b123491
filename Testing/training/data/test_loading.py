"""What an epoch shows: pairs as the papers say, the same again for the same seed, images changed within their range."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from lesiontraining.data.augment import Augmentation, Augmenter
from lesiontraining.data.lesions import LesionDataset
from lesiontraining.data.loading import (
    AheadLoader,
    EpochSampler,
    FlatImages,
    Items,
    balanced_images,
    every_image,
    lesion_loader,
    pairs,
    training_loader,
    triplets,
)
from torch.utils.data import DataLoader, Dataset

# DMRN's slices by class (papers 1.1).
DMRN_SLICES = np.repeat(np.arange(5), [1707, 245, 1047, 350, 716])


def lesion_dataset(counts, labels):
    """Lesions with images of two rows and columns, each full of its own number."""
    n, start = len(counts), np.cumsum([0, *counts])
    images = tuple(
        (np.arange(start[i], start[i + 1], dtype=np.float32) / 100)[:, None, None, None]
        * np.ones((1, 1, 2, 2), np.float32)
        for i in range(n)
    )
    names, nan = np.array([f"l{i}" for i in range(n)]), np.full(n, np.nan)
    return LesionDataset(
        images, np.array(labels), ("a", "b"), names, names, names, np.zeros(n, int), np.ones((n, 3)), nan, nan,
        np.ones((n, 3)), np.full((n, 4), np.nan),
    )  # fmt: skip


def test_uniform_partners_keep_the_imbalance_and_make_few_alike_pairs():
    items = np.array(pairs(DMRN_SLICES, mode="uniform")(np.random.default_rng(0)))
    alike = (DMRN_SLICES[items[:, 0]] == DMRN_SLICES[items[:, 1]]).mean()
    assert alike == pytest.approx(0.287, abs=0.02)  # the sum of squared class shares
    assert (np.bincount(DMRN_SLICES[items[:, 0]]) == np.bincount(DMRN_SLICES)).all()
    assert (items[:, 0] != items[:, 1]).all()


def test_balanced_pairs_show_every_class_as_often_and_half_alike():
    items = np.array(pairs(DMRN_SLICES, mode="balanced", count=20_000)(np.random.default_rng(0)))
    shares = np.bincount(DMRN_SLICES[items].ravel()) / items.size
    np.testing.assert_allclose(shares, 0.2, atol=0.02)
    assert (DMRN_SLICES[items[:, 0]] == DMRN_SLICES[items[:, 1]]).mean() == pytest.approx(0.5, abs=0.02)


def test_balanced_pictures_draw_the_class_first():
    items = np.array(balanced_images(DMRN_SLICES, count=10_000)(np.random.default_rng(0)))[:, 0]
    np.testing.assert_allclose(np.bincount(DMRN_SLICES[items]) / 10_000, 0.2, atol=0.02)


def test_a_triplet_has_another_lesion_of_its_class_and_one_of_another_class():
    labels, lesions = np.repeat([0, 0, 1, 1], 3), np.repeat(np.arange(4), 3)
    items = np.array(triplets(labels, lesions)(np.random.default_rng(0)))
    assert sorted(items[:, 0]) == list(range(12))
    assert (labels[items[:, 0]] == labels[items[:, 1]]).all()
    assert (lesions[items[:, 0]] != lesions[items[:, 1]]).all()
    assert (labels[items[:, 0]] != labels[items[:, 2]]).all()


def test_pairs_of_one_class_alone_are_refused():
    with pytest.raises(ValueError, match="at least two classes"):
        pairs(np.zeros(5, int), mode="balanced")
    with pytest.raises(ValueError, match="not 'clever'"):
        pairs(DMRN_SLICES, mode="clever")


def test_an_epoch_is_the_same_again_and_another_epoch_is_not():
    sampler = EpochSampler(every_image(50), seed=3)
    first, again = list(sampler), list(sampler)
    sampler.set_epoch(1)
    assert first == again
    assert list(sampler) != first
    assert sorted(item for (item,), _ in sampler) == list(range(50))


def test_the_processes_of_several_gpus_share_an_epoch(monkeypatch):
    shares = []
    for rank in range(3):
        monkeypatch.setattr("lesiontraining.data.loading._place", lambda rank=rank: (rank, 3))
        shares.append([item for (item,), _ in EpochSampler(every_image(50), seed=0)])
    assert {len(share) for share in shares} == {16}
    assert len({i for share in shares for i in share}) == 48


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 12, 12, 12)])
def test_a_picture_is_changed_the_same_way_for_the_same_seed(shape):
    everything = Augmentation(
        flips=True, rotate_degrees=15, shift_pixels=3, zoom=0.1, brightness=0.2, contrast=0.2, blur_pixels=1
    )
    change = Augmenter(everything, dimensions=len(shape) - 1)
    image = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32))
    one, again, other = change(image, 5), change(image, 5), change(image, 6)
    assert one.shape == image.shape
    assert one.abs().max() <= 1
    torch.testing.assert_close(one, again)
    assert not torch.equal(one, other)
    assert type(one) is torch.Tensor


def test_flips_alone_keep_every_value():
    image = torch.arange(12.0).reshape(1, 3, 4) / 12
    change = Augmenter(Augmentation(flips=True), dimensions=2)
    seen = {tuple(change(image, seed).flatten().tolist()) for seed in range(40)}
    assert len(seen) == 4
    assert all(sorted(values) == sorted(image.flatten().tolist()) for values in seen)


def test_exchanged_axes_and_whole_pixels_keep_every_value():
    image = torch.arange(9.0).reshape(1, 3, 3) / 9
    turned = Augmenter(Augmentation(exchange_axes=True), dimensions=2)
    assert {tuple(turned(image, seed).flatten().tolist()) for seed in range(20)} == {
        tuple(image.flatten().tolist()), tuple(image[0].T.flatten().tolist()),
    }  # fmt: skip
    rolled = Augmenter(Augmentation(roll_pixels=1), dimensions=2)
    seen = {tuple(rolled(image, seed).flatten().tolist()) for seed in range(120)}
    assert len(seen) == 9
    assert all(sorted(values) == image.flatten().tolist() for values in seen)


def test_batches_hold_the_pictures_and_labels_of_their_items():
    flat = FlatImages(lesion_dataset([2, 3, 1, 4], [0, 1, 0, 1]))
    assert flat.labels.tolist() == [0, 0, 1, 1, 1, 0, 1, 1, 1, 1]
    loader = training_loader(
        flat, every_image(10), batch_size=4, workers=0, seed=0, augmentation=Augmentation(), copies=2
    )
    batches = list(loader)
    assert [len(batch["y"]) for batch in batches] == [4, 4]  # the last, smaller one is left out
    for batch in batches:
        assert batch["x"].shape == (4, 2, 1, 2, 2)
        numbers = (batch["x"][:, 0, 0, 0, 0] * 100).round().int()
        assert batch["y"][:, 0].tolist() == [int(flat.labels[i]) for i in numbers]


def test_validation_lesions_come_whole_and_in_order():
    images = lesion_dataset([2, 3, 1, 4], [0, 1, 0, 1])
    first, second = lesion_loader(images, lesions_at_once=3, workers=0)
    assert first["counts"] == [2, 3, 1]
    assert second["counts"] == [4]
    assert first["x"].shape == (6, 1, 2, 2)
    assert torch.cat([first["y"], second["y"]]).tolist() == [0, 1, 0, 1]


def test_a_set_with_other_labels_is_still_the_same_pictures():
    images = lesion_dataset([1, 1], [0, 1])
    assert FlatImages(replace(images, labels=np.array([1, 0]))).labels.tolist() == [1, 0]


def test_the_next_batch_is_made_while_the_network_learns_and_is_the_same():
    class Slow(Dataset):
        def __init__(self):
            self.threads = []

        def __len__(self):
            return 6

        def __getitem__(self, index):
            self.threads.append(threading.current_thread())
            return torch.rand(2), index

    torch.manual_seed(0)
    plain = [(float(x.sum()), y.tolist()) for x, y in DataLoader(Slow(), batch_size=2)]
    torch.manual_seed(0)
    batches = iter(AheadLoader(data := Slow(), batch_size=2))
    data.threads.clear()
    found = [next(batches)]
    ends = time.monotonic() + 10
    while len(data.threads) < 4 and time.monotonic() < ends:  # nobody has asked for the second one yet
        time.sleep(0.01)
    assert len(data.threads) == 4
    assert threading.main_thread() not in data.threads
    found += batches
    assert [(float(x.sum()), y.tolist()) for x, y in found] == plain


def test_what_goes_wrong_with_a_batch_is_raised_where_it_is_asked_for():
    class Broken(Dataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            if index:
                raise ValueError("image 1")
            return torch.zeros(1)

    batches = iter(AheadLoader(Broken(), batch_size=1))
    next(batches)
    with pytest.raises(ValueError, match="image 1"):
        next(batches)


def test_a_change_is_drawn_as_monai_draws_it_for_the_seed():
    everything = Augmentation(
        flips=True, rotate_degrees=20, shift_pixels=2, zoom=0.1, brightness=0.1, contrast=0.1, blur_pixels=1.0,
        exchange_axes=True, roll_pixels=2,
    )  # fmt: skip
    for shape in ((2, 12, 12), (1, 9, 9, 9)):
        change, image = Augmenter(everything, dimensions=len(shape) - 1), torch.rand(shape) * 2 - 1
        for seed in (0, 7, 2**31 - 1):
            found = change(image, seed)
            change.transform.set_random_state(seed=seed)
            expected = torch.as_tensor(change.transform(image)).as_subclass(torch.Tensor).clamp(-1, 1)
            assert torch.equal(found, expected)


def test_the_first_batch_of_an_epoch_is_made_while_the_last_one_before_is_learned_from(monkeypatch):
    made = []
    original = Items._made
    monkeypatch.setattr(Items, "_made", lambda self, key: made.append(key) or original(self, key))

    def epochs(loader: DataLoader, wanted: range) -> list[list[torch.Tensor]]:
        found = []
        for epoch in wanted:
            loader.sampler.set_epoch(epoch)
            found.append([batch["x"] for batch in loader])
        return found

    def loader() -> AheadLoader:
        flat = FlatImages(lesion_dataset([2] * 7, [0, 1] * 3 + [0]))
        change = Augmentation(flips=True, shift_pixels=1.0)
        return training_loader(flat, every_image(len(flat)), batch_size=4, workers=0, seed=3, augmentation=change)

    together = epochs(ahead := loader(), range(3))
    first = list(ahead.sampler.of_epoch(1))[:4]
    assert all(made.count(key) == 1 for key in first)
    assert len(ahead.dataset._ready) == 4  # of the epoch that does not come
    alone = [epochs(loader(), range(epoch, epoch + 1))[0] for epoch in range(3)]
    for here, there in zip(together, alone, strict=True):
        assert len(here) == len(there) > 1
        assert all(torch.equal(a, b) for a, b in zip(here, there, strict=True))
