"""From a box to patches: the right values at the right place, and nothing hidden."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from lattices import LATTICES, middle, noise_ct, turned
from LesionLib.errors import BoxError
from LesionLib.geometry import LPS_TO_RAS, CTVolume, LesionBox, transformed_points
from LesionLib.sampling import resample as resample_module
from LesionLib.sampling.resample import AxialStackSpec, axial_stack, resample, windowed
from scipy import ndimage


@pytest.fixture(params=sorted(LATTICES))
def ct(request) -> CTVolume:
    return noise_ct(request.param)


def lattice_at(ct: CTVolume, axes: np.ndarray, step: float, size: int) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = axes * step
    matrix[:3, 3] = middle(ct) - matrix[:3, :3] @ np.full(3, (size - 1) / 2)
    return matrix


def by_scipy(ct: CTVolume, sample_to_ras: np.ndarray, size: int) -> np.ndarray:
    index = np.stack(np.meshgrid(*[np.arange(size)] * 3, indexing="ij"), -1)[..., ::-1]
    ijk = transformed_points(ct.rasToIJK @ sample_to_ras, index)
    return ndimage.map_coordinates(ct.array.astype(float), np.moveaxis(ijk[..., ::-1], -1, 0), order=1, mode="nearest")


def test_interpolation_agrees_with_scipy_on_every_lattice(ct):
    to_ras = lattice_at(ct, turned((0.3, 1, 0.2), 33), 0.6, 16)
    hu, inside = resample(ct, to_ras, (16, 16, 16))
    np.testing.assert_allclose(hu[inside], by_scipy(ct, to_ras, 16)[inside], atol=0.01)
    assert hu.dtype == np.float32


def test_interpolation_agrees_with_simpleitk_s_own_geometry(ct):
    if ct.name == "gantry tilt":  # a SimpleITK image cannot hold a shear: scipy alone is asked, above
        return
    lps = LPS_TO_RAS @ ct.ijkToRAS
    image = sitk.GetImageFromArray(ct.array.astype(np.float32))
    image.SetSpacing(ct.spacingMm.tolist())
    image.SetDirection((lps[:3, :3] / ct.spacingMm).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    to_ras = lattice_at(ct, turned((1, 0, 0), 20), 0.5, 16)
    wanted = LPS_TO_RAS @ to_ras
    reference = sitk.Image(16, 16, 16, sitk.sitkFloat32)
    reference.SetSpacing([0.5] * 3)
    reference.SetDirection((wanted[:3, :3] / 0.5).ravel().tolist())
    reference.SetOrigin(wanted[:3, 3].tolist())
    expected = sitk.GetArrayFromImage(sitk.Resample(image, reference, sitk.Transform(), sitk.sitkLinear, -5000.0))
    hu, inside = resample(ct, to_ras, (16, 16, 16))
    compared = inside & (expected > -4999)
    assert compared.mean() > 0.2
    np.testing.assert_allclose(hu[compared], expected[compared], atol=0.01)


def test_the_far_edge_is_repeated_and_reported_as_outside(ct):
    to_ras = lattice_at(ct, np.eye(3), 0.5, 8)
    to_ras[:3, 3] = transformed_points(ct.ijkToRAS, [-40, 10, 10])
    hu, inside = resample(ct, to_ras, (4, 4, 4))
    assert not inside.any()
    assert np.isfinite(hu).all()


def test_a_parallel_box_gets_the_ct_s_own_slices_unblurred():
    rng = np.random.default_rng(2)
    array = rng.integers(-1000, 400, (20, 80, 80)).astype(np.int16)
    ct = CTVolume(array, np.diag([0.625, 0.625, 2.5, 1.0]))
    center = np.array([39.5 * 0.625, 39.5 * 0.625, 23.1])
    stack = axial_stack(ct, LesionBox(center, [20, 20, 10.0]), AxialStackSpec(margin_mm=10.0))
    np.testing.assert_allclose(stack.hu, array[8:12, 8:72, 8:72], atol=1e-2)
    np.testing.assert_allclose(stack.sampleToRAS[2, 3] + 2.5 * np.arange(4), [20, 22.5, 25, 27.5])


def test_a_tilted_box_is_cut_along_its_own_axis():
    ct = CTVolume(np.zeros((40, 60, 60), np.int16), np.diag([1.0, 1.0, 1.5, 1.0]))
    axes = turned((1, 0, 0), 30)
    stack = axial_stack(ct, LesionBox([30, 30, 30], [12, 12, 9], axes), AxialStackSpec())
    np.testing.assert_allclose(stack.sampleToRAS[:3, 2] / 1.5, axes[:, 2], atol=1e-9)
    assert len(stack.hu) == 6


@pytest.mark.parametrize(
    ("height", "most", "expected"), [(40, 16, 14), (40, 5, 5), (3, 16, 1), (0.2, 16, 1), (400, 8, 8)]
)
def test_there_is_at_least_one_slice_and_never_more_than_allowed(height, most, expected):
    ct = CTVolume(np.zeros((60, 40, 40), np.int16), np.diag([1.0, 1.0, 3.0, 1.0]))
    box = LesionBox([20, 20, 88.4], [10, 10, height])
    stack = axial_stack(ct, box, AxialStackSpec(max_slices=most))
    assert abs(len(stack.hu) - expected) <= 1
    assert len(stack.hu) <= most
    positions = stack.sampleToRAS[2, 3] + stack.slice_step_mm * np.arange(len(stack.hu))
    assert abs(positions.mean() - 88.4) <= stack.slice_step_mm
    assert np.allclose(positions % 3.0, 0) or np.allclose(positions % 3.0, 3.0)


def test_a_large_box_is_shown_coarser_and_never_cropped(ct):
    box = LesionBox(middle(ct), [120.0, 30.0, 10.0])
    stack = axial_stack(ct, box, AxialStackSpec())
    assert stack.pixel_mm == pytest.approx((120 + 6) / 64)
    corners = transformed_points(np.linalg.inv(stack.sampleToRAS), box.cornersRAS)
    assert (corners[:, :2] >= -0.5).all()
    assert (corners[:, :2] <= 63.5).all()


def test_what_lies_beyond_the_margin_is_filled(ct):
    spec = AxialStackSpec(fill_hu=-777.0)
    stack = axial_stack(ct, LesionBox(middle(ct), [10.0, 6.0, 10.0]), spec)
    assert (stack.hu[:, ~stack.region] == -777.0).all()
    rows, columns = np.nonzero(stack.region)
    assert np.ptp(columns) * stack.pixel_mm == pytest.approx(10 + 6, abs=stack.pixel_mm)
    assert np.ptp(rows) * stack.pixel_mm == pytest.approx(6 + 6, abs=stack.pixel_mm)


@pytest.mark.parametrize("degrees", [0, 50])
def test_a_bright_voxel_is_found_again_in_ras(ct, degrees):
    index = np.array([28, 30, 14])
    array = np.full(ct.array.shape, -900, np.int16)
    array[index[2], index[1], index[0]] = 3000
    target = transformed_points(ct.ijkToRAS, index)
    box = LesionBox(target + [1.0, -1.5, 0.5], [14, 14, 12], turned((0.1, 0.2, 1), degrees))
    stack = axial_stack(replace(ct, array=array), box, AxialStackSpec())
    k, row, column = np.unravel_index(stack.hu.argmax(), stack.hu.shape)
    found = transformed_points(stack.sampleToRAS, [column, row, k])
    assert np.linalg.norm(found - target) < 0.9 * max(ct.spacingMm)


def test_the_share_outside_the_volume_is_told(ct):
    inside = axial_stack(ct, LesionBox(middle(ct), [6, 6, 6]), AxialStackSpec())
    assert inside.outside_share == 0
    edge = transformed_points(ct.ijkToRAS, [-0.5, (ct.sizeIJK[1] - 1) / 2, (ct.sizeIJK[2] - 1) / 2])
    half = axial_stack(ct, LesionBox(edge, [6, 6, 2]), AxialStackSpec())
    assert half.outside_share == pytest.approx(0.5, abs=0.12)


def test_a_box_outside_is_refused(ct):
    with pytest.raises(BoxError, match="outside the volume"):
        axial_stack(ct, LesionBox([900, 0, 0], [5, 5, 5]), AxialStackSpec())


def test_windows_become_channels_from_minus_one_to_one():
    hu = np.array([[[-2000.0, -1000.0, -300.0, 400.0, 3000.0]]])
    x = windowed(hu, ((-1000.0, 400.0), (-300.0, 400.0)))
    assert x.shape == (1, 2, 1, 5)
    np.testing.assert_allclose(x[0, 0, 0], [-1, -1, 0, 1, 1])
    np.testing.assert_allclose(x[0, 1, 0], [-1, -1, -1, 1, 1])


def test_the_crop_gives_the_values_that_the_whole_volume_gives(ct):
    """Also beyond the volume's edge, where the nearest voxel is repeated."""
    image = sitk.GetImageFromArray(ct.array.astype(np.float32))
    for seed in range(4):
        rng = np.random.default_rng(seed)
        to_ras = lattice_at(ct, turned(tuple(rng.normal(size=3)), rng.uniform(0, 180)), 0.9, 12)
        to_ras[:3, 3] += ct.ijkToRAS[:3, :3] @ (rng.uniform(-0.6, 0.6, 3) * ct.sizeIJK)
        between = ct.rasToIJK @ to_ras
        whole = sitk.ResampleImageFilter()
        whole.SetSize((12, 12, 12))
        whole.SetTransform(sitk.AffineTransform(between[:3, :3].ravel().tolist(), between[:3, 3].tolist()))
        whole.SetInterpolator(sitk.sitkLinear)
        whole.SetUseNearestNeighborExtrapolator(True)
        hu, _ = resample(ct, to_ras, (12, 12, 12))
        np.testing.assert_allclose(hu, sitk.GetArrayFromImage(whole.Execute(image)), atol=0.01)


def test_a_lattice_of_one_point_at_a_voxel_gives_that_voxel(ct):
    for index in ((0, 0, 0), (59, 63, 29), (17, 5, 22)):
        to_ras = np.eye(4)
        to_ras[:3, 3] = transformed_points(ct.ijkToRAS, index)
        hu, inside = resample(ct, to_ras, (1, 1, 1))
        assert hu.item() == pytest.approx(ct.array[index[::-1]], abs=0.01)
        assert inside.all()


@pytest.mark.parametrize(("height", "most"), [(81.0, 16), (81.0, 7), (49.0, 16), (51.0, 16), (81.0, 1), (81.0, 2)])
@pytest.mark.parametrize("degrees", [0, 180, 40])
def test_slices_are_evenly_spaced_and_as_centred_as_the_ct_s_own_allow(height, most, degrees):
    ct = CTVolume(np.zeros((60, 40, 40), np.int16), np.diag([1.0, 1.0, 3.0, 1.0]))
    box = LesionBox([20, 20, 88.4], [10, 10, height], turned((1, 0, 0), degrees))
    stack = axial_stack(ct, box, AxialStackSpec(max_slices=most))
    count = len(stack.hu)
    assert 1 <= count <= most
    along = (stack.sampleToRAS[:3, 3] - box.centerRAS) @ box.axesRAS[:, 2] + stack.slice_step_mm * np.arange(count)
    assert (np.abs(along) <= height / 2 + 1e-6).all()
    assert count == 1 or stack.slice_step_mm % 3.0 == pytest.approx(0, abs=1e-6)
    # What is left out is shared fairly between both ends.
    below, above = along[0] + height / 2, height / 2 - along[-1]
    assert abs(below - above) <= 2 * 3.0
    if count > 1:
        assert max(below, above) < stack.slice_step_mm + 3.0


def test_a_box_turned_by_half_a_degree_still_gets_the_ct_s_own_slices_at_its_centre():
    ct = CTVolume(np.random.default_rng(0).integers(-900, 200, (12, 60, 60)).astype(np.int16), np.diag([1, 1, 4.0, 1]))
    box = LesionBox([30, 30, 21.0], [8, 8, 14], turned((1, 0, 0), 0.5))
    stack = axial_stack(ct, box, AxialStackSpec(size=33, spacing_mm=1.0, margin_mm=0.0))
    positions = transformed_points(stack.sampleToRAS, [[16, 16, k] for k in range(len(stack.hu))])
    np.testing.assert_allclose(positions[:, 2], [16, 20, 24, 28], atol=1e-6)


@pytest.mark.parametrize(("center", "expected"), [(21.9, 7), (22.6, 8), (-1.4, 0), (58.4, 19)])
def test_a_box_between_two_slices_gets_the_nearest_one_unblurred(center, expected):
    array = np.random.default_rng(2).integers(-1000, 400, (20, 40, 40)).astype(np.int16)
    ct = CTVolume(array, np.diag([1.0, 1.0, 3.0, 1.0]))
    box = LesionBox([19.5, 19.5, center], [10, 10, 0.5])
    stack = axial_stack(ct, box, AxialStackSpec(size=16, spacing_mm=1.0))
    assert stack.hu.shape == (1, 16, 16)
    assert stack.slice_step_mm == 3.0
    np.testing.assert_allclose(stack.hu[0], array[expected, 12:28, 12:28], atol=0.01)


@pytest.mark.parametrize("tilt", [0.0, 0.5])
def test_a_parallel_box_gets_the_exact_slices_of_an_oblique_or_sheared_ct(tilt):
    """The patch's pixels are laid on the voxels of the middle slice; the others are shifted by the shear."""
    axes = turned((1, 2, 3), 40)
    array = np.random.default_rng(3).integers(-1000, 400, (9, 40, 40)).astype(np.int16)
    matrix = np.eye(4)
    matrix[:3, :3] = axes @ np.array([[0.7, 0, 0], [0, 0.7, tilt * 2.0], [0, 0, 2.0]])
    ct = CTVolume(array, matrix)
    box = LesionBox(transformed_points(matrix, [19.5, 19.5, 4]), [8, 8, 9], axes)
    stack = axial_stack(ct, box, AxialStackSpec(size=24, spacing_mm=0.7, margin_mm=4.4))
    assert len(stack.hu) == 5
    np.testing.assert_allclose(stack.hu[2], array[4, 8:32, 8:32], atol=0.02)
    index = transformed_points(ct.rasToIJK @ stack.sampleToRAS, [[0, 0, k] for k in range(5)])
    np.testing.assert_allclose(index[:, 2], [2, 3, 4, 5, 6], atol=1e-9)


@pytest.mark.parametrize("tilt", [(0, 0, 1, 35), (1, 0, 0, 30), (2, -1, 1, 70)])
def test_a_soft_ball_is_found_at_its_true_place_within_a_pixel(ct, tilt):
    target = middle(ct) + [1.3, -0.8, 0.4]
    points = transformed_points(ct.ijkToRAS, np.moveaxis(np.indices(ct.array.shape)[::-1], 0, -1))
    width = 2.0 if ct.sliceDistanceMm < 4 else 4.0
    ball = 1500 * np.exp(-((np.linalg.norm(points - target, axis=-1) / width) ** 2)) - 1000
    axes = turned(tilt[:3], tilt[3])
    box = LesionBox(target + axes @ [1.0, 2.0, -0.7], [24, 24, 24], axes)
    spec = AxialStackSpec(size=80, spacing_mm=0.5, margin_mm=2.0, max_slices=64)
    stack = axial_stack(replace(ct, array=np.round(ball).astype(np.int16)), box, spec)
    weight = np.where(stack.region, np.clip(stack.hu + 990, 0, None), 0)
    index = np.moveaxis(np.indices(stack.hu.shape)[::-1], 0, -1)
    center = (index * weight[..., None]).sum(axis=(0, 1, 2)) / weight.sum()
    assert np.linalg.norm(transformed_points(stack.sampleToRAS, center) - target) < stack.pixel_mm


def test_pixels_beyond_the_volume_but_in_the_region_repeat_its_edge_and_are_not_fill():
    array = np.full((5, 20, 20), -500, np.int16)
    ct = CTVolume(array, np.eye(4))
    stack = axial_stack(ct, LesionBox([-0.5, 10, 2], [8, 8, 3]), AxialStackSpec(size=32, spacing_mm=1.0, fill_hu=77.0))
    np.testing.assert_array_equal(stack.hu[:, stack.region], -500)
    np.testing.assert_array_equal(stack.hu[:, ~stack.region], 77)
    assert stack.outside_share == pytest.approx(0.5)


def test_the_volume_is_not_changed_and_any_number_type_will_do(ct):
    box = LesionBox(middle(ct), [10, 10, 8])
    before = ct.array.copy()
    expected = axial_stack(ct, box, AxialStackSpec()).hu
    np.testing.assert_array_equal(ct.array, before)
    for dtype in (np.int32, np.float32, np.float64, ">i2"):
        got = axial_stack(replace(ct, array=ct.array.astype(dtype)), box, AxialStackSpec()).hu
        np.testing.assert_array_equal(got, expected)
    got = axial_stack(replace(ct, array=np.asfortranarray(ct.array)), box, AxialStackSpec()).hu
    np.testing.assert_array_equal(got, expected)


def test_windowed_input_is_float32_and_finite_for_extreme_values():
    hu = np.array([[[-32768.0, 32767.0]]], np.float32)
    x = windowed(hu, AxialStackSpec().windows_hu)
    assert x.dtype == np.float32
    assert x.shape == (1, 3, 1, 2)
    np.testing.assert_array_equal(x[0, :, 0], [[-1, 1]] * 3)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_volume_reaches_half_a_voxel_beyond_its_outermost_voxel_centres(ct, axis):
    last = np.array(ct.sizeIJK) - 1
    for end, outward in ((0, -1), (last[axis], 1)):
        for beyond, expected in ((0.49, True), (0.51, False)):
            index = last / 2
            index[axis] = end + outward * beyond
            to_ras = np.eye(4)
            to_ras[:3, 3] = transformed_points(ct.ijkToRAS, index)
            assert resample(ct, to_ras, (1, 1, 1))[1].item() is expected


def scaled_lesion(edge_mm: float) -> tuple[CTVolume, LesionBox]:
    """One picture, larger or smaller: HU depend on the place in the box alone, beyond the box they are the CT's own."""
    voxel = edge_mm / 40
    i = np.indices((9, 60, 60))[2] - 29.5
    j = np.indices((9, 60, 60))[1] - 29.5
    hu = 10.0 * np.abs(i) + 5.0 * j
    ct = CTVolume(hu.astype(np.int16), np.diag([voxel, voxel, 1.0, 1.0]))
    return ct, LesionBox([29.5 * voxel, 29.5 * voxel, 4.0], [edge_mm, 0.7 * edge_mm, 4.0])


def test_a_fitted_box_fills_its_picture_and_tells_nothing_of_its_size():
    spec = AxialStackSpec(size=32, fit_box=True)
    small, large = (axial_stack(*scaled_lesion(edge), spec) for edge in (12.0, 90.0))
    np.testing.assert_allclose(small.hu, large.hu, atol=1e-2)
    assert small.region.all()
    assert not (small.hu == spec.fill_hu).any()
    framed = [axial_stack(*scaled_lesion(edge), AxialStackSpec(size=32, spacing_mm=1.0)) for edge in (12.0, 20.0)]
    assert framed[0].region.sum() < framed[1].region.sum()  # a fixed spacing's frame tells


def test_a_fitted_box_goes_from_edge_to_edge_of_its_picture():
    ct, box = scaled_lesion(20.0)
    stack = axial_stack(ct, box, AxialStackSpec(size=32, fit_box=True))
    edges = transformed_points(stack.sampleToRAS, [[-0.5, -0.5, 0], [31.5, 31.5, 0]])
    np.testing.assert_allclose(np.abs(np.diff(edges[:, :2], axis=0))[0], box.sizeMm[:2])
    assert stack.pixel_mm == pytest.approx(20.0 / 32)


@pytest.mark.parametrize("seed", range(12))
def test_a_plane_along_the_voxels_axes_has_the_values_that_any_other_way_gives(monkeypatch, seed):
    rng = np.random.default_rng(seed)
    array = rng.normal(0, 500, rng.integers(1, 30, 3)).astype([np.int16, np.float32][seed % 2])
    to_ras, plane = np.eye(4), np.eye(4)
    for matrix, finest, coarsest in ((to_ras, 0.5, 3.0), (plane, 0.3, 2.0)):
        steps = np.diag(rng.uniform(finest, coarsest, 3) * rng.choice([-1, 1], 3))
        matrix[:3, :3] = steps[:, rng.permutation(3)]
    ct = CTVolume(array, to_ras)
    reach = (ct.spacingMm * ct.sizeIJK).max() / 4
    plane[:3, 3] = middle(ct) + rng.uniform(-reach, reach, 3) - plane[:3, :3] @ [12, 15, 0]  # a part of it lies outside
    found, inside = resample(ct, plane, (25, 31, 1))
    monkeypatch.setattr(resample_module, "_axes_of_plane", lambda *_: None)
    expected, also_inside = resample(ct, plane, (25, 31, 1))
    np.testing.assert_allclose(found, expected, atol=1e-3)
    np.testing.assert_array_equal(inside, also_inside)


def test_a_tilted_plane_or_several_are_none_along_the_axes():
    upright, turned_plane = np.diag([2.0, 0.5, 1.0, 1.0]), np.eye(4)
    turned_plane[:3, :3] = turned((0, 0, 1), 0.01)
    assert resample_module._axes_of_plane(upright, (64, 64, 1)) == (0, 1)
    assert resample_module._axes_of_plane(upright[[1, 2, 0, 3]], (64, 64, 1)) == (2, 0)
    assert resample_module._axes_of_plane(upright, (64, 64, 2)) is None
    assert resample_module._axes_of_plane(turned_plane, (64, 64, 1)) is None
