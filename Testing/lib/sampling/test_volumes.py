"""Cubes of voxels: the right values at the right place, and the shape of a segment as it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from lattices import middle, turned
from LesionLib.errors import BoxError
from LesionLib.geometry import CTVolume, LesionBox, transformed_points
from LesionLib.sampling.volumes import IsotropicCubeSpec, ShapeMaskSpec, isotropic_cube, shape_mask
from scipy import ndimage

SHAPES = [ShapeMaskSpec(edge_mm=24.0, voxels=24, interpolation=how) for how in ("nearest", "linear")]


@pytest.fixture(params=SHAPES, ids=lambda spec: spec.interpolation)
def shape_spec(request) -> ShapeMaskSpec:
    return request.param


def places(to_ras: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    return transformed_points(to_ras, np.moveaxis(np.indices(shape)[::-1], 0, -1))


def by_scipy(volume: CTVolume, points: np.ndarray, order: int) -> np.ndarray:
    kji = np.moveaxis(transformed_points(volume.rasToIJK, points)[..., ::-1], -1, 0)
    return ndimage.map_coordinates(volume.array.astype(float), kji, order=order, mode="nearest")


def ball_mask(ct: CTVolume, center: np.ndarray, radius: float) -> CTVolume:
    inside = np.linalg.norm(places(ct.ijkToRAS, ct.array.shape) - center, axis=-1) < radius
    return CTVolume(inside.astype(np.uint8), ct.ijkToRAS, "ball")


@pytest.mark.parametrize("axes", [np.eye(3), turned((0.3, 1, 0.2), 33)], ids=["upright", "turned"])
def test_a_cube_s_values_are_scipy_s_at_the_places_it_names(ct, axes):
    spec = IsotropicCubeSpec(edge_mm=16.0, voxels=20)
    sample = isotropic_cube(ct, LesionBox(middle(ct) + [1.3, -0.4, 0.6], [8, 9, 7], axes), spec)
    cube = sample.hu[0, 0]
    np.testing.assert_allclose(cube, by_scipy(ct, places(sample.sampleToRAS, cube.shape), 1), atol=0.01)
    assert sample.hu.shape == (1, 1, 20, 20, 20)
    assert sample.hu.dtype == np.float32
    assert sample.outside_share == 0
    assert sample.padded_share == 0


def test_a_cube_s_values_are_those_of_simpleitk_between_indices(ct):
    """Index to index, so that a sheared lattice can be asked too; the whole volume, not a crop."""
    sample = isotropic_cube(ct, LesionBox(middle(ct), [9, 9, 9], turned((1, 0, 1), 20)), IsotropicCubeSpec(16.0, 16))
    between = ct.rasToIJK @ sample.sampleToRAS
    resample = sitk.ResampleImageFilter()
    resample.SetSize((16, 16, 16))
    resample.SetTransform(sitk.AffineTransform(between[:3, :3].ravel().tolist(), between[:3, 3].tolist()))
    image = sitk.GetImageFromArray(ct.array.astype(np.float32))
    np.testing.assert_allclose(sample.hu[0, 0], sitk.GetArrayFromImage(resample.Execute(image)), atol=0.01)


def test_a_cube_has_its_edge_in_mm_and_stands_in_the_axes_of_the_box(ct):
    axes = turned((2, 1, 1), 50)
    box = LesionBox(middle(ct), [10, 12, 14], axes)
    sample = isotropic_cube(ct, box, IsotropicCubeSpec(edge_mm=30.0, voxels=12))
    assert sample.pixel_mm == pytest.approx(2.5)
    np.testing.assert_allclose(sample.sampleToRAS[:3, :3], axes * 2.5, atol=1e-9)
    np.testing.assert_allclose(transformed_points(sample.sampleToRAS, [5.5] * 3), box.centerRAS, atol=1e-9)


def test_a_larger_lesion_is_shown_coarser_and_never_cropped(ct, shape_spec):
    box = LesionBox(middle(ct), [30.0, 70.0, 40.0], turned((0.1, 0.2, 1), 40))
    cubes = [
        isotropic_cube(ct, box, IsotropicCubeSpec(edge_mm=24.0, voxels=24)),
        shape_mask(ct, box, shape_spec, mask=ball_mask(ct, middle(ct), 8.0)),
    ]
    for sample in cubes:
        corners = transformed_points(np.linalg.inv(sample.sampleToRAS), box.cornersRAS)
        assert (corners > -0.5 - 1e-6).all()
        assert (corners < 23.5 + 1e-6).all()
        assert sample.pixel_mm == pytest.approx(70 / 24)


@pytest.mark.parametrize("turn", [(0, 0, 1, 0), (0, 0, 1, 35), (2, -1, 1, 70)])
def test_a_bright_ball_s_voxels_map_back_to_its_place_within_a_voxel(ct, turn):
    target = middle(ct) + [1.3, -0.8, 0.4]
    width = 2.0 if ct.sliceDistanceMm < 4 else 4.0
    distance = np.linalg.norm(places(ct.ijkToRAS, ct.array.shape) - target, axis=-1)
    hu = np.round(1500 * np.exp(-((distance / width) ** 2)) - 1000).astype(np.int16)
    axes = turned(turn[:3], turn[3])
    box = LesionBox(target + axes @ [1.0, 2.0, -1.5], [12.0, 12.0, 12.0], axes)
    sample = isotropic_cube(replace(ct, array=hu), box, IsotropicCubeSpec(edge_mm=26.0, voxels=32))
    weights = np.clip(sample.hu[0, 0] + 990, 0, None)
    found = (places(sample.sampleToRAS, weights.shape) * weights[..., None]).sum(axis=(0, 1, 2)) / weights.sum()
    assert np.linalg.norm(found - target) < sample.pixel_mm


def test_a_box_half_outside_gives_half_a_share_and_the_edge_repeated():
    ct = CTVolume(np.full((30, 60, 60), -500, np.int16), np.diag([1.0, 1.0, 2.0, 1.0]))
    sample = isotropic_cube(ct, LesionBox([-0.5, 30, 30], [10, 10, 10]), IsotropicCubeSpec(20.0, 20))
    assert sample.outside_share == pytest.approx(0.5)
    np.testing.assert_array_equal(sample.hu, -500)


@pytest.mark.parametrize("axes", [np.eye(3), turned((0.3, 1, 0.2), 33)], ids=["upright", "turned"])
def test_a_shape_is_scipy_s_interpolation_of_the_mask(ct, shape_spec, axes):
    mask = ball_mask(ct, middle(ct) + [1, 0, -1], 7.0)
    sample = shape_mask(ct, LesionBox(middle(ct) + [0.31, 0.17, 0.23], [14, 14, 14], axes), shape_spec, mask=mask)
    shape = sample.hu[0, 0]
    order = 0 if shape_spec.interpolation == "nearest" else 1
    value = by_scipy(mask, places(sample.sampleToRAS, shape.shape), order)
    sure = np.abs(value - 0.5) > 1e-4  # a point exactly between two voxels may fall either way
    np.testing.assert_array_equal(shape[sure], value[sure] >= 0.5)
    assert sure.mean() > 0.95
    assert set(np.unique(shape)) == {0.0, 1.0}
    assert sample.hu.dtype == np.float32


def test_a_shape_keeps_the_segment_s_volume_and_place(ct, shape_spec):
    target = middle(ct) + [1.0, -1.0, 0.5]
    mask = ball_mask(ct, target, 8.0)
    sample = shape_mask(ct, LesionBox(middle(ct), [20, 20, 20], turned((1, 1, 0), 30)), shape_spec, mask=mask)
    shape = sample.hu[0, 0] > 0
    true_mm3 = mask.array.sum() * abs(np.linalg.det(ct.ijkToRAS[:3, :3]))
    assert shape.sum() * sample.pixel_mm**3 == pytest.approx(true_mm3, rel=0.08)
    truth = places(ct.ijkToRAS, ct.array.shape)[mask.array > 0].mean(axis=0)
    found = places(sample.sampleToRAS, shape.shape)[shape].mean(axis=0)
    assert np.linalg.norm(found - truth) < sample.pixel_mm


def test_a_label_map_cropped_to_its_segment_ends_where_it_ends(ct, shape_spec):
    block = CTVolume(np.ones((4, 8, 10), np.uint8), np.diag([1.0, 1.0, 1.5, 1.0]))
    to_ras = block.ijkToRAS.copy()
    to_ras[:3, 3] = middle(ct) - [4.5, 3.5, 2.25]
    mask = replace(block, ijkToRAS=to_ras)
    sample = shape_mask(ct, LesionBox(middle(ct), [10, 8, 6]), shape_spec, mask=mask)
    assert sample.hu.sum() == 10 * 8 * 6
    assert sample.outside_share == 0


def test_outside_means_outside_the_ct_not_outside_the_label_map(shape_spec):
    ct = CTVolume(np.zeros((30, 60, 60), np.int16), np.diag([1.0, 1.0, 2.0, 1.0]))
    mask = ball_mask(ct, np.array([4.0, 30.0, 30.0]), 4.0)
    sample = shape_mask(ct, LesionBox([5.5, 30, 30], [10, 10, 10]), shape_spec, mask=mask)
    assert sample.outside_share == pytest.approx(6 / 24)


def test_a_missing_empty_or_many_labelled_segment_is_refused(ct, shape_spec):
    box = LesionBox(middle(ct), [10, 10, 10])
    mask = ball_mask(ct, middle(ct), 6.0)
    with pytest.raises(BoxError, match="shape of a segment"):
        shape_mask(ct, box, shape_spec, mask=None)
    with pytest.raises(BoxError, match="nothing in it"):
        shape_mask(ct, box, shape_spec, mask=replace(mask, array=mask.array * 0))
    with pytest.raises(BoxError, match="other than 0 and 1"):
        shape_mask(ct, box, shape_spec, mask=replace(mask, array=mask.array * 2))


def test_a_box_outside_is_refused(ct, shape_spec):
    box = LesionBox([900, 0, 0], [5, 5, 5])
    with pytest.raises(BoxError, match="outside the volume"):
        isotropic_cube(ct, box, IsotropicCubeSpec())
    with pytest.raises(BoxError, match="outside the volume"):
        shape_mask(ct, box, shape_spec, mask=ball_mask(ct, middle(ct), 5.0))
