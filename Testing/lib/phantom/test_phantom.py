"""The phantom is a chest, the same every time, and its truth is true."""

from __future__ import annotations

import time

import numpy as np
import pytest
from LesionLib.geometry import transformed_points
from LesionLib.phantom.chest import chest_phantom
from LesionLib.phantom.nodules import KINDS, nodule_patch
from LesionLib.sampling.resample import lattice_points

COARSE = (2.0, 2.0, 3.0)


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


@pytest.fixture(scope="module")
def empty_chest():
    return chest_phantom(seed=0, spacing_mm=COARSE, kinds=())


def in_box(phantom, box, margin_mm: float = 0.0) -> np.ndarray:
    """Which voxels have their centre in the box; bool, (k, j, i)."""
    to_box = np.linalg.inv(box.boxToRAS) @ phantom.volume.ijkToRAS
    points = transformed_points(to_box, lattice_points(phantom.volume.sizeIJK))
    return (np.abs(points) <= box.sizeMm / 2 + margin_mm).all(axis=-1)


def test_without_its_nodules_the_same_chest_has_lung_there(chest, empty_chest):
    assert empty_chest.nodules == ()
    for nodule in chest.nodules:
        place = in_box(chest, nodule.box)
        assert np.median(empty_chest.volume.array[place]) < -700, nodule.kind
        assert np.percentile(chest.volume.array[place], 95) > (-760 if nodule.kind == "ground-glass" else -70), (
            nodule.kind
        )


def test_a_nodule_changes_the_ct_in_its_box_and_nowhere_far_from_it(chest, empty_chest):
    """The box is tight: what the nodules added lies in the boxes, but for soft edges, strands and noise."""
    added = chest.volume.array.astype(int) - empty_chest.volume.array
    boxes = np.any([in_box(chest, n.box) for n in chest.nodules], axis=0)
    near = np.any([in_box(chest, n.box, margin_mm=14.0) for n in chest.nodules], axis=0)
    dense = added > 450  # more than half of lung to soft tissue, far above the noise
    assert (dense & ~near).sum() == 0
    assert (dense & boxes).sum() / dense.sum() > 0.97
    for nodule in chest.nodules:
        if nodule.kind == "ground-glass":
            continue
        where = np.argwhere(dense & in_box(chest, nodule.box, margin_mm=6.0))
        extent = (np.ptp(where, axis=0)[::-1] + 1) * chest.volume.spacingMm
        assert (np.abs(extent - nodule.box.sizeMm) <= 4 * chest.volume.spacingMm).all(), nodule.kind


@pytest.mark.parametrize("seed", [1, 2])
def test_nodules_lie_in_lung_and_inside_the_ct_for_other_seeds_too(seed):
    phantom, empty = (chest_phantom(seed=seed, spacing_mm=COARSE, kinds=kinds) for kinds in (KINDS, ()))
    size = np.array(phantom.volume.sizeIJK)
    for nodule in phantom.nodules:
        corners = transformed_points(phantom.volume.rasToIJK, nodule.box.cornersRAS)
        assert ((corners >= -0.5) & (corners <= size - 0.5)).all()
        assert np.median(empty.volume.array[in_box(empty, nodule.box)]) < -650, nodule.kind
        assert nodule.box.sizeMm.max() <= 1.8 * nodule.diameter_mm + 2 * max(COARSE)


def test_the_turned_chest_is_the_same_ct_elsewhere_in_space(chest):
    oblique = chest_phantom(seed=0, spacing_mm=COARSE, oblique_degrees=20)
    turn = oblique.volume.ijkToRAS @ chest.volume.rasToIJK
    np.testing.assert_allclose(turn[:3, :3] @ turn[:3, :3].T, np.eye(3), atol=1e-12)
    assert np.rad2deg(np.arccos((np.trace(turn[:3, :3]) - 1) / 2)) == pytest.approx(20)
    near = np.any([in_box(chest, n.box, margin_mm=12.0) for n in chest.nodules], axis=0)
    np.testing.assert_array_equal(oblique.volume.array[~near], chest.volume.array[~near])
    for turned, straight in zip(oblique.nodules, chest.nodules, strict=True):
        moved = transformed_points(turn, straight.box.centerRAS)
        # Lobes and strands grow along the patient's axes, so that the tight box may differ by some voxels.
        assert np.linalg.norm(turned.box.centerRAS - moved) < 0.3 * straight.diameter_mm, straight.kind
        np.testing.assert_allclose(turned.box.axesRAS, turn[:3, :3] @ straight.box.axesRAS, atol=1e-12)
        hu = oblique.volume.array[in_box(oblique, turned.box)]
        assert np.percentile(hu, 95) > (-760 if turned.kind == "ground-glass" else -70), turned.kind


def test_an_unknown_kind_in_a_chest_is_refused_with_the_list():
    with pytest.raises(ValueError, match="kind is 'square'; it must be one of round, lobulated, spiculated"):
        chest_phantom(spacing_mm=(4, 4, 6), kinds=("round", "square"))


def test_two_nodules_of_one_kind_get_two_places():
    phantom = chest_phantom(spacing_mm=(3, 3, 5), kinds=("round", "round"))
    first, second = phantom.nodules
    assert [first.name, second.name] == ["N1 round", "N2 round"]
    assert np.linalg.norm(first.box.centerRAS - second.box.centerRAS) > 30


def test_more_nodules_than_the_lungs_hold_are_refused():
    with pytest.raises(ValueError, match="no room for 60 nodules"):
        chest_phantom(spacing_mm=(4, 4, 6), kinds=("ground-glass",) * 60)


def test_the_chest_is_a_ct_of_whole_hu_whose_middle_is_the_origin(chest):
    volume = chest.volume
    assert volume.array.dtype == np.int16
    assert volume.array.min() >= -1024
    assert volume.array.max() <= 3071
    middle = transformed_points(volume.ijkToRAS, (np.array(volume.sizeIJK) - 1) / 2)
    np.testing.assert_allclose(middle, 0, atol=1e-9)
    assert np.linalg.det(volume.ijkToRAS[:3, :3]) > 0


def test_a_patch_is_the_same_for_the_same_seed_and_differs_for_another():
    patches = [nodule_patch(kind="spiculated", diameter_mm=12, seed=seed) for seed in (3, 3, 4)]
    (one, truth), (again, same), (other, _) = patches
    assert one.array.tobytes() == again.array.tobytes()
    np.testing.assert_array_equal(truth.box.cornersRAS, same.box.cornersRAS)
    assert one.array.tobytes() != other.array.tobytes()
