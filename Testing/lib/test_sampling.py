"""From a box to pictures: the right values at the right place, and nothing hidden."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from LesionLib.errors import BoxError
from LesionLib.geometry import CTVolume, LesionBox, transformed_points
from LesionLib.readers import LPS_TO_RAS
from LesionLib.sampling import AxialStackSpec, axial_stack, resample, windowed
from scipy import ndimage


def turned(axis: tuple[float, float, float], degrees: float) -> np.ndarray:
    unit = np.array(axis) / np.linalg.norm(axis)
    cross = -np.cross(np.eye(3), unit)
    angle = np.deg2rad(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


LATTICES = {
    "straight": np.diag([-0.7, -0.7, 1.25]),
    "thick slices": np.diag([-0.8, -0.8, 5.0]),
    "oblique": turned((1, 2, 3), 25) @ np.diag([-0.7, -0.8, 1.5]),
    "left-handed": np.diag([-0.7, -0.7, -1.25]),
    "gantry tilt": np.array([[-0.7, 0, 0], [0, -0.7, 0.9], [0, 0, 2.0]]),
}


@pytest.fixture(params=sorted(LATTICES))
def ct(request) -> CTVolume:
    rng = np.random.default_rng(1)
    array = ndimage.gaussian_filter(rng.normal(-600, 900, (30, 64, 60)), 1.0).astype(np.int16)
    matrix = np.eye(4)
    matrix[:3, :3] = LATTICES[request.param]
    matrix[:3, 3] = [12.0, -30.0, 55.0]
    return CTVolume(array, matrix, name=request.param)


def middle(ct: CTVolume) -> np.ndarray:
    return transformed_points(ct.ijkToRAS, (np.array(ct.sizeIJK) - 1) / 2)


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
