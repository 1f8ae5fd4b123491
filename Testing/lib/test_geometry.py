"""Boxes and lattices: what is refused, and how far away things are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from LesionLib.errors import BoxError, VolumeError
from LesionLib.geometry import (
    CTVolume,
    LesionBox,
    distance_outside_mm,
    is_outside,
    require_overlap,
    transformed_points,
)
from scipy.spatial import cKDTree


def turned(axis: tuple[float, float, float], degrees: float) -> np.ndarray:
    unit = np.array(axis) / np.linalg.norm(axis)
    cross = -np.cross(np.eye(3), unit)
    angle = np.deg2rad(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def volume(axes: np.ndarray | None = None, spacing=(1.0, 1.0, 2.0), size=(20, 30, 10)) -> CTVolume:
    matrix = np.eye(4)
    matrix[:3, :3] = (np.eye(3) if axes is None else axes) @ np.diag(spacing)
    return CTVolume(np.zeros(size[::-1], np.int16), matrix)


def test_the_distance_of_a_parallel_box_is_exact():
    # The volume ends half a voxel beyond its last voxel centre: at 19.5 mm along i.
    assert distance_outside_mm(volume(), LesionBox([30, 10, 5], [4, 4, 4])) == pytest.approx(30 - 2 - 19.5, abs=1e-6)
    assert distance_outside_mm(volume(), LesionBox([24.5, 35.5, 5], [4, 4, 4])) == pytest.approx(
        np.hypot(3, 4), abs=1e-6
    )


def test_a_box_that_touches_or_overlaps_has_no_distance():
    assert distance_outside_mm(volume(), LesionBox([21.5, 10, 5], [4, 4, 4])) == 0
    assert distance_outside_mm(volume(), LesionBox([10, 10, 5], [400, 4, 4])) == 0
    require_overlap(volume(), LesionBox([19, 10, 5], [4, 4, 4]))


@pytest.mark.parametrize("seed", range(6))
def test_the_distance_of_turned_boxes_agrees_with_a_search(seed):
    rng = np.random.default_rng(seed)
    ct = volume(turned(tuple(rng.normal(size=3)), 40))
    box = LesionBox(rng.normal(0, 40, 3) + [0, 60, 0], rng.uniform(5, 15, 3), turned(tuple(rng.normal(size=3)), 70))
    steps = np.stack(np.meshgrid(*[np.linspace(-0.5, 0.5, 9)] * 3, indexing="ij"), -1).reshape(-1, 3)
    in_box = transformed_points(box.boxToRAS, steps * box.sizeMm)
    inside = np.clip(transformed_points(ct.rasToIJK, in_box), -0.5, np.array(ct.sizeIJK) - 0.5)
    for _ in range(200):  # alternate between the two nearest points until they settle
        in_ct = transformed_points(ct.ijkToRAS, inside)
        on_box = np.clip((in_ct - box.centerRAS) @ box.axesRAS, -box.sizeMm / 2, box.sizeMm / 2)
        in_box = transformed_points(box.boxToRAS, on_box)
        inside = np.clip(transformed_points(ct.rasToIJK, in_box), -0.5, np.array(ct.sizeIJK) - 0.5)
    found = np.linalg.norm(in_box - transformed_points(ct.ijkToRAS, inside), axis=1).min()
    assert distance_outside_mm(ct, box) == pytest.approx(found, abs=0.02)


def test_a_box_outside_the_volume_is_refused_with_its_distance():
    with pytest.raises(BoxError, match=r"'far' lies outside the volume by 8\.5 mm"):
        require_overlap(volume(), LesionBox([30, 10, 5], [4, 4, 4], name="far"))


@pytest.mark.parametrize("size", [[0, 1, 1], [1, -1, 1], [1, 1, 0.01]])
def test_a_box_without_size_is_refused(size):
    with pytest.raises(BoxError, match="draw it around the lesion"):
        LesionBox([0, 0, 0], size)


@pytest.mark.parametrize(
    ("center", "size"), [([0, 0, np.nan], [1, 1, 1]), ([0, 0], [1, 1, 1]), ([0, 0, 0], [1, np.inf, 1])]
)
def test_a_box_that_is_not_three_numbers_is_refused(center, size):
    with pytest.raises(BoxError, match="finite numbers"):
        LesionBox(center, size)


def test_axes_that_are_not_at_right_angles_are_refused():
    with pytest.raises(BoxError, match="right angles"):
        LesionBox([0, 0, 0], [1, 1, 1], [[1, 0.2, 0], [0, 1, 0], [0, 0, 1]])


def test_a_volume_that_cannot_be_a_ct_is_refused():
    with pytest.raises(VolumeError, match="4 dimensions"):
        CTVolume(np.zeros((2, 2, 2, 2)), np.eye(4))
    with pytest.raises(VolumeError, match="1 voxels are NaN"):
        CTVolume(np.array([[[0.0, np.nan]]]), np.eye(4))
    with pytest.raises(VolumeError, match="geometry is broken"):
        CTVolume(np.zeros((2, 2, 2)), np.diag([1.0, 1.0, 0.0, 1.0]))


def test_slices_of_a_tilted_gantry_are_measured_along_their_normal():
    matrix = np.eye(4)
    matrix[:3, 2] = [0, 1.2, 2.5]  # the stack leans, its slices stay upright
    ct = CTVolume(np.zeros((4, 5, 6), np.int16), matrix)
    np.testing.assert_allclose(ct.sliceNormalRAS, [0, 0, 1])
    assert ct.sliceDistanceMm == pytest.approx(2.5)
    assert ct.spacingMm[2] == pytest.approx(np.hypot(1.2, 2.5))


def test_the_normal_of_a_left_handed_lattice_points_the_way_k_grows():
    ct = CTVolume(np.zeros((4, 5, 6), np.int16), np.diag([1.0, 1.0, -2.0, 1.0]))
    np.testing.assert_allclose(ct.sliceNormalRAS, [0, 0, -1])
    assert ct.sliceDistanceMm == pytest.approx(2.0)


numbers = st.floats(-200, 200)


@settings(max_examples=60, deadline=None)
@given(st.tuples(numbers, numbers, numbers), st.tuples(*[st.floats(0.2, 100)] * 3), st.floats(-180, 180))
def test_corners_lie_half_a_size_from_the_centre_along_the_axes(center, size, degrees):
    box = LesionBox(center, size, turned((1, 2, 3), degrees))
    in_box = (box.cornersRAS - box.centerRAS) @ box.axesRAS
    np.testing.assert_allclose(np.abs(in_box), np.tile(np.array(size) / 2, (8, 1)), atol=1e-9)
    np.testing.assert_allclose(box.cornersRAS.mean(axis=0), center, atol=1e-9)


def test_jitter_is_seeded_and_stays_within_its_bounds():
    box = LesionBox([5, 6, 7], [10, 12, 14])
    drawn = [box.jittered(np.random.default_rng(3), shift_mm=2, grow_mm=3, turn_degrees=15) for _ in range(2)]
    np.testing.assert_array_equal(drawn[0].centerRAS, drawn[1].centerRAS)
    rng = np.random.default_rng(0)
    for _ in range(200):
        other = box.jittered(rng, shift_mm=2, grow_mm=3, turn_degrees=15)
        assert (np.abs(other.centerRAS - box.centerRAS) <= 2).all()
        assert ((other.sizeMm >= box.sizeMm) & (other.sizeMm <= box.sizeMm + 6)).all()
        assert other.axesRAS[0, 0] >= np.cos(np.deg2rad(15)) - 1e-12
    np.testing.assert_array_equal(box.grown(2).sizeMm, [14, 16, 18])


def test_a_box_turned_in_its_place_keeps_its_exact_distance_to_a_face():
    # Turned by 45 degrees about z, a square of 4 x 4 mm reaches 2 * sqrt(2) from its centre.
    box = LesionBox([30, 10, 5], [4, 4, 4], turned((0, 0, 1), 45))
    assert distance_outside_mm(volume(), box) == pytest.approx(30 - 2 * np.sqrt(2) - 19.5, abs=1e-6)


@pytest.mark.parametrize("seed", range(8))
def test_the_distance_to_a_sheared_or_left_handed_volume_agrees_with_dense_sampling(seed):
    rng = np.random.default_rng(seed)
    sheared = np.eye(3)
    sheared[1, 2] = 0.4
    ct = volume(turned(tuple(rng.normal(size=3)), 50) @ sheared, spacing=(1.0, 1.0, -2.0 if seed % 2 else 2.0))
    away = rng.normal(size=3)
    center = transformed_points(ct.ijkToRAS, [9.5, 14.5, 4.5]) + 45 * away / np.linalg.norm(away)
    box = LesionBox(center, rng.uniform(4, 12, 3), turned(tuple(rng.normal(size=3)), 65))
    unit = np.stack(np.meshgrid(*[np.linspace(0, 1, 31)] * 3, indexing="ij"), -1)
    surface = unit[((unit == 0) | (unit == 1)).any(axis=-1)]
    in_ct = transformed_points(ct.ijkToRAS, surface * ct.sizeIJK - 0.5)
    on_box = transformed_points(box.boxToRAS, (surface - 0.5) * box.sizeMm)
    found = cKDTree(in_ct).query(on_box)[0].min()
    distance = distance_outside_mm(ct, box)
    assert distance <= found + 1e-6
    assert distance == pytest.approx(found, abs=0.5)  # the samples on the volume are up to 1 mm apart


def test_boxes_anywhere_inside_a_large_oblique_volume_are_not_outside():
    rng = np.random.default_rng(0)
    axes = turned((1, 2, 3), 33)
    array = np.broadcast_to(np.int16(0), (600, 512, 512))
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = axes @ np.diag([-0.7, -0.7, 1.0]), [900, -400, 250]
    ct = CTVolume(array, matrix)
    for _ in range(60):
        center = transformed_points(matrix, rng.uniform(0, 1, 3) * ct.sizeIJK - 0.5)
        box = LesionBox(center, rng.uniform(0.2, 60, 3), turned(tuple(rng.normal(size=3)), rng.uniform(0, 180)))
        assert distance_outside_mm(ct, box) == 0


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((0, 3, 3)), "is empty"),
        (np.full((2, 2, 2), np.inf), "8 voxels are NaN or infinite"),
        (np.zeros((2, 2, 2), np.complex64), "complex64"),
        (np.zeros((2, 2, 2), bool), "type bool"),
    ],
)
def test_an_array_that_is_no_ct_is_refused_by_the_name_of_its_volume(array, said):
    with pytest.raises(VolumeError, match=f"my scan: .*{said}"):
        CTVolume(array, np.eye(4), name="my scan")


@pytest.mark.parametrize("matrix", [np.eye(3), np.full((4, 4), np.nan), np.zeros((4, 4))])
def test_a_geometry_that_is_no_invertible_affine_is_refused(matrix):
    with pytest.raises(VolumeError, match="geometry is broken"):
        CTVolume(np.zeros((2, 2, 2)), matrix)


@pytest.mark.parametrize("stack_step", [2.5, -2.5])
@pytest.mark.parametrize("row_sign", [1, -1])
def test_the_normal_of_a_sheared_lattice_is_that_of_its_slices_whatever_its_handedness(stack_step, row_sign):
    turn = turned((3, 1, 2), 35)
    matrix = np.eye(4)
    matrix[:3, :3] = turn @ np.array([[0.7, 0, 0.3], [0, row_sign * 0.7, -1.1], [0, 0, stack_step]])
    ct = CTVolume(np.zeros((4, 5, 6), np.int16), matrix)
    np.testing.assert_allclose(ct.sliceNormalRAS, turn[:, 2] * np.sign(stack_step), atol=1e-12)
    assert ct.sliceDistanceMm == pytest.approx(2.5)
    np.testing.assert_allclose(ct.rasToIJK @ ct.ijkToRAS, np.eye(4), atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.tuples(numbers, numbers, numbers), st.tuples(*[st.floats(0.2, 100)] * 3), st.floats(-180, 180))
def test_corners_go_to_box_millimetres_and_back(center, size, degrees):
    box = LesionBox(center, size, turned((3, -1, 2), degrees))
    in_box = transformed_points(np.linalg.inv(box.boxToRAS), box.cornersRAS)
    np.testing.assert_allclose(np.ptp(in_box, axis=0), size, atol=1e-9)
    np.testing.assert_allclose(transformed_points(box.boxToRAS, in_box), box.cornersRAS, atol=1e-9)
    assert len(np.unique(np.round(np.sign(in_box)), axis=0)) == 8


def test_jitter_moves_and_turns_along_the_box_s_own_axes():
    axes = turned((1, 1, 0), 50)
    box = LesionBox([5, 6, 7], [10, 12, 14], axes, name="L1")
    moved = box.jittered(np.random.default_rng(1), shift_mm=2, grow_mm=3, turn_degrees=15)
    np.testing.assert_allclose(moved.axesRAS[:, 2], axes[:, 2], atol=1e-12)
    assert (np.abs(axes.T @ (moved.centerRAS - box.centerRAS)) <= 2).all()
    assert moved.name == "L1"
    still = box.jittered(np.random.default_rng(1))
    np.testing.assert_array_equal(still.cornersRAS, box.cornersRAS)


def test_a_box_is_outside_just_where_its_distance_says_so():
    ct, rng = volume(), np.random.default_rng(5)
    outside = []
    for _ in range(150):
        box = LesionBox(rng.uniform(-20, 60, 3), rng.uniform(1, 40, 3), name="L").jittered(rng, turn_degrees=90)
        outside.append(is_outside(ct, box))
        axes, edges = box.axesRAS * box.sizeMm, ct.ijkToRAS[:3, :3] * np.array(ct.sizeIJK)
        start = transformed_points(ct.ijkToRAS, [-0.5, -0.5, -0.5])
        shares = rng.uniform(-0.5, 0.5, (4000, 3)) @ axes.T + box.centerRAS
        inside = (
            (np.linalg.solve(edges, (shares - start).T) >= 0) & (np.linalg.solve(edges, (shares - start).T) <= 1)
        ).all(axis=0)
        assert not (outside[-1] and inside.any())
        assert (distance_outside_mm(ct, box) > 0) == outside[-1]
    assert 20 < sum(outside) < 130
