"""The phantom is a chest, the same every time, and its truth is true."""

from __future__ import annotations

import time

import numpy as np
import pytest
from LesionLib.geometry import transformed_points
from LesionLib.phantom.chest import chest_phantom
from LesionLib.phantom.nodules import KINDS, nodule_patch
from LesionLib.sampling import lattice_points

COARSE = (1.6, 1.6, 2.5)


@pytest.fixture(scope="module")
def chest():
    return chest_phantom(seed=0, spacing_mm=COARSE)


def hu_at(phantom, ras) -> float:
    i, j, k = np.round(transformed_points(phantom.volume.rasToIJK, ras)).astype(int)
    return float(phantom.volume.array[k, j, i])


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(chest):
    again = chest_phantom(seed=0, spacing_mm=COARSE)
    assert again.volume.array.tobytes() == chest.volume.array.tobytes()
    other = chest_phantom(seed=1, spacing_mm=COARSE)
    assert (other.volume.array != chest.volume.array).mean() > 0.5


@pytest.mark.parametrize(
    ("place", "low", "high"),
    [
        ((158, 0, 0), -1024, -940),  # air beside the body
        ((145, 0, 0), -170, -40),  # fat
        ((133, 0, 0), -20, 120),  # muscle
        ((70, 0, 40), -960, -780),  # right lung
        ((60, 0, -90), 20, 110),  # liver
        ((-23, 18, -42), 0, 100),  # heart
        ((0, -10, 60), -1024, -930),  # trachea
        ((0, -66, 0.0), 90, 700),  # vertebra
    ],
)
def test_tissues_are_where_and_what_they_should_be(chest, place, low, high):
    assert low <= hu_at(chest, place) <= high


def test_there_is_bone_around_the_lungs(chest):
    assert chest.volume.array.max() > 500


def test_every_kind_of_nodule_lies_in_lung_and_is_as_dense_as_its_kind(chest):
    assert [nodule.kind for nodule in chest.nodules] == list(KINDS)
    expected = {"ground-glass": (-760, -430), "calcified": (250, 900)}
    for nodule in chest.nodules:
        low, high = expected.get(nodule.kind, (-70, 130))
        assert low <= hu_at(chest, nodule.box.centerRAS) <= high, nodule.kind
        points = transformed_points(chest.volume.ijkToRAS, lattice_points(chest.volume.sizeIJK))
        distance = np.linalg.norm(points - nodule.box.centerRAS, axis=-1)
        reach = 0.75 * nodule.box.sizeMm.max()
        shell = chest.volume.array[(distance > reach) & (distance < reach + 5)]
        assert np.median(shell) < -750, nodule.kind


def test_nodules_keep_their_distance(chest):
    centers = np.array([nodule.box.centerRAS for nodule in chest.nodules])
    distances = np.linalg.norm(centers[:, None] - centers[None], axis=-1)[~np.eye(5, dtype=bool)]
    assert distances.min() > 30


def test_the_truth_moves_with_an_oblique_lattice():
    oblique = chest_phantom(seed=0, spacing_mm=COARSE, oblique_degrees=20)
    for nodule in oblique.nodules:
        if nodule.kind == "calcified":
            assert hu_at(oblique, nodule.box.centerRAS) > 250
    assert np.abs(oblique.volume.ijkToRAS[0, 1]) > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_the_box_is_tight_around_what_was_painted(kind):
    volume, nodule = nodule_patch(kind=kind, diameter_mm=14.0, seed=5)
    points = transformed_points(
        np.linalg.inv(nodule.box.boxToRAS), transformed_points(volume.ijkToRAS, lattice_points(volume.sizeIJK))
    )
    threshold = -790 if kind == "ground-glass" else -620
    inside = (np.abs(points) <= nodule.box.sizeMm / 2).all(axis=-1)
    assert (volume.array[inside] > threshold).mean() > (0.08 if kind == "spiculated" else 0.35)
    for axis in range(3):  # each face of the box has nodule right behind it
        face = np.abs(np.abs(points[..., axis]) - nodule.box.sizeMm[axis] / 2) < volume.spacingMm[axis]
        assert (volume.array[face & inside] > threshold).any()


def test_an_unknown_kind_and_a_nodule_without_room_are_refused():
    with pytest.raises(ValueError, match="kind is 'square'; it must be one of round, lobulated"):
        nodule_patch(kind="square", diameter_mm=10, seed=0)
    with pytest.raises(ValueError, match="reaches beyond the lattice"):
        nodule_patch(kind="round", diameter_mm=80, seed=0)


def test_a_patch_is_made_quickly():
    start = time.perf_counter()
    for seed in range(3):
        nodule_patch(kind="round", diameter_mm=10, seed=seed)
    assert time.perf_counter() - start < 5


def test_progress_is_told_from_none_to_all():
    told = []
    chest_phantom(
        seed=0, spacing_mm=(3, 3, 5), kinds=("round",), progress=lambda share, what: told.append((share, what))
    )
    assert told[0][0] == 0.0
    assert told[-1] == (1.0, "done")
    assert [share for share, _ in told] == sorted(share for share, _ in told)
