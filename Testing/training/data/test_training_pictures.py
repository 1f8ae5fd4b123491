"""A network is trained on the very pictures that it answers on, whatever kind of input they are."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
import yaml
from LesionLib.model.folder import golden_case
from LesionLib.sampling.inputs import KINDS, crop_sample, network_input
from lesiontraining.data.augment import Augmentation, Augmenter
from lesiontraining.data.crops import input_spec, photograph_input, value_range
from lesiontraining.data.lesions import LesionDataset
from lesiontraining.data.loading import FlatImages, training_loader
from recipe_tasks import CONFIGS, task_of

FLIPS = Augmentation(flips=True)
EVERYTHING = Augmentation(
    rotate_degrees=20.0, shift_pixels=3.0, zoom=0.1, brightness=0.3, contrast=0.4, blur_pixels=1.0
)
WINDOWS = [[-1000.0, 400.0], [-160.0, 240.0]]
OF_CT = {
    "axial_stack": {"size": 32, "windows_hu": WINDOWS},
    "slice_with_neighbours": {"size": 32},
    "orthogonal_planes": {"rows": 40, "columns": 32},
    "orthogonal_planes, box": {"rows": 40, "columns": 32, "margin_mm": 2.0, "normalise": "box"},
    "orthogonal_planes, windows": {"rows": 40, "columns": 32, "normalise": "windows", "windows_hu": WINDOWS},
    "key_slice": {"size": 32, "windows_hu": WINDOWS},
    "key_slice, frangi": {"size": 32, "frangi": "blob"},
    "isotropic_cube": {"voxels": 16},
    "isotropic_cube, box": {"voxels": 16, "margin_mm": [3.0, 3.0, 3.0], "box_channel": True},
    "shape_mask": {"voxels": 16},
}  # fmt: skip
OTHERS = {
    "photograph": {"size": 32},
    "photograph, graham": {"size": 32, "preparation": "graham"},
    "stored_cube": {"voxels": 16},
}


def answering_pictures(name: str):
    """The input's spec and what a network is given of a lesion when it is asked, float32 (image, channel, ...)."""
    return pictures_of({"kind": name.split(",", maxsplit=1)[0], **(OF_CT | OTHERS)[name]})


def pictures_of(section: dict):
    """The same of a recipe's ``input`` section."""
    spec = input_spec(section)
    if section["kind"] in KINDS:
        return spec, network_input(crop_sample(*golden_case(), spec), spec)
    if section["kind"] == "stored_cube":
        cube = np.random.default_rng(0).integers(0, 256, (16, 16, 16))
        return spec, cube[None, None].astype(np.float32) / 127.5 - 1.0
    rgb = np.random.default_rng(0).integers(120, 180, (48, 60, 3)).astype(np.uint8)
    return spec, photograph_input(rgb, spec)


def one_lesion(spec, pictures: np.ndarray) -> LesionDataset:
    """As the data module gives it to a recipe."""
    name, nan = np.array(["lesion"]), np.full(1, np.nan)
    return LesionDataset(
        (pictures,), np.array([0]), ("a", "b"), name, name, name, np.zeros(1, int), np.ones((1, 3)), nan, nan,
        np.ones((1, 3)), np.full((1, 4), np.nan), value_range(spec),
    )  # fmt: skip


def training_pictures(lesions: LesionDataset, augmentation: Augmentation, *, seed: int) -> torch.Tensor:
    """Those of one epoch in their order, (image, channel, ...): every picture is an item of a plan without a draw."""
    flat = FlatImages(lesions)
    in_order = lambda _rng: [(i,) for i in range(len(flat))]  # noqa: E731
    (batch,) = training_loader(flat, in_order, batch_size=len(flat), workers=0, seed=seed, augmentation=augmentation)
    return batch["x"][:, 0]


def test_every_kind_of_input_is_asked_here():
    assert {name.split(",")[0] for name in OF_CT} == set(KINDS)


@pytest.mark.parametrize("name", [*OF_CT, *OTHERS])
def test_a_training_picture_without_a_drawn_change_is_the_answering_picture(name):
    spec, pictures = answering_pictures(name)
    lesions = one_lesion(spec, pictures[:1])
    unchanged = [
        seed for seed in range(60) if np.array_equal(training_pictures(lesions, FLIPS, seed=seed).numpy(), pictures[:1])
    ]
    assert unchanged  # one flip in two along two or three axes: as a rule one seed in four or eight draws none
    values = np.sort(pictures[:1], axis=None)
    for seed in range(6):
        assert np.array_equal(np.sort(training_pictures(lesions, FLIPS, seed=seed).numpy(), axis=None), values)


def without_amounts(augmentation: Augmentation) -> Augmentation:
    """Every change of the recipe is carried out, none of them by an amount that could be seen."""
    amounts = {name: 1e-9 for name, value in asdict(augmentation).items() if type(value) is float and value}
    return replace(augmentation, **amounts, flips=False, exchange_axes=False, roll_pixels=0)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_of_every_recipe_a_training_picture_without_a_drawn_change_is_the_answering_picture(path):
    recipe = yaml.safe_load(path.read_text())
    augmentation = task_of(recipe, ["a", "b"]).augmentation
    spec, pictures = pictures_of(recipe["data"]["input"])
    lesions = one_lesion(spec, pictures[len(pictures) // 2 :][:1])
    for seed in range(2):
        shown = training_pictures(lesions, without_amounts(augmentation), seed=seed)
        np.testing.assert_allclose(shown.numpy(), lesions.images[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", [*OF_CT, *OTHERS])
def test_a_changed_picture_stays_within_what_pictures_of_its_kind_hold(name):
    spec, pictures = answering_pictures(name)
    bounds = value_range(spec)
    changed = [training_pictures(one_lesion(spec, pictures[:1]), EVERYTHING, seed=seed).numpy() for seed in range(4)]
    if bounds is None:
        assert max(np.abs(pictures).max(), *(np.abs(x).max() for x in changed)) > 1.5
        return
    low, high = bounds
    assert all(low <= x.min() and x.max() <= high for x in (pictures, *changed))


def test_a_picture_of_unit_deviation_keeps_it_in_training():
    spec, pictures = answering_pictures("orthogonal_planes")
    shown = training_pictures(one_lesion(spec, pictures), FLIPS, seed=1)
    assert shown.std(dim=(2, 3), correction=0).flatten().tolist() == pytest.approx([1.0] * 3, abs=0.01)


def test_a_part_of_a_set_keeps_the_range_of_its_pictures():
    spec, pictures = answering_pictures("shape_mask")
    lesions = one_lesion(spec, pictures)
    assert lesions.at([0]).value_range == FlatImages(lesions.at([True])).value_range == (0.0, 1.0)
    assert replace(lesions, value_range=None).at([0]).value_range is None


def test_without_a_range_nothing_is_cut_off():
    image = torch.linspace(-3, 3, 12).reshape(1, 3, 4)
    assert set(Augmenter(FLIPS, dimensions=2, value_range=None)(image, 0).flatten().tolist()) == set(
        image.flatten().tolist()
    )
    assert Augmenter(FLIPS, dimensions=2)(image, 0).abs().max() == 1.0
