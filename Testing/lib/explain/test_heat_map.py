"""Grad-CAM: the right formula, and in the right place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from LesionLib.explain import heat_map
from LesionLib.explain.heat_map import resample_to_ct
from LesionLib.explain.saliency import grad_cam
from LesionLib.geometry import CTVolume, LesionBox, transformed_points
from LesionLib.inference.classifier import Classifier
from LesionLib.model.bundle import Bundle, load_bundle
from LesionLib.networks import LesionNet, build_network
from LesionLib.phantom.nodules import paint_nodule
from LesionLib.sampling.resample import AxialStackSpec, axial_stack, lattice_points
from torch import Tensor, nn
from torch.nn import functional

STACK = AxialStackSpec()


class BrightnessNet(LesionNet):
    """Its evidence is known: class 1 is the mean brightness above -0.2, seen on a map four times smaller."""

    def __init__(self, direction: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[0.0], [direction]]))

    def features(self, x: Tensor) -> Tensor:
        return functional.avg_pool2d(functional.relu(x[:, :1] + 0.2), 4)

    def descriptor(self, f: Tensor) -> Tensor:
        return f.mean(dim=(2, 3))

    def head(self, f: Tensor) -> Tensor:
        return self.descriptor(f) @ self.weight.T


def turned(axis: tuple[float, float, float], degrees: float) -> np.ndarray:
    unit = np.array(axis) / np.linalg.norm(axis)
    cross = -np.cross(np.eye(3), unit)
    angle = np.deg2rad(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    return load_bundle("lung-nodule-malignancy")


def with_network(shipped: Bundle, network: LesionNet) -> Bundle:
    """The shipped classes on another network, which is shown the slices of a box."""
    return replace(shipped, network=network.eval(), spec=STACK, temperature=1.0, conformal=None, ood=None)


def oblique_ct(center: np.ndarray, *, spacing: tuple[float, float, float] = (0.8, 0.8, 1.5)) -> CTVolume:
    """Empty lung on a lattice that is turned about two axes, with RAS ``center`` in its middle."""
    size = np.array([90, 80, 60])
    ijk_to_ras = np.eye(4)
    ijk_to_ras[:3, :3] = turned((1, 0.3, 0.1), 17) @ turned((0, 0, 1), 24) @ np.diag(np.array(spacing) * [-1, -1, 1])
    ijk_to_ras[:3, 3] = center - ijk_to_ras[:3, :3] @ ((size - 1) / 2)
    return CTVolume(np.full(tuple(size[::-1]), -860.0, dtype=np.float32), ijk_to_ras)


def with_ball(volume: CTVolume, center: np.ndarray, radius: float) -> CTVolume:
    distance = np.linalg.norm(transformed_points(volume.ijkToRAS, lattice_points(volume.sizeIJK)) - center, axis=-1)
    return replace(volume, array=np.where(distance < radius, 100.0, volume.array).astype(np.float32))


@pytest.mark.parametrize("corner", [(-1, -1, -1), (1, -1, 1), (-1, 1, 1), (1, 1, -1)])
@pytest.mark.parametrize("box_degrees", [0.0, 35.0])
def test_known_evidence_in_a_corner_of_a_box_is_hot_at_its_place_in_ras(shipped, corner, box_degrees):
    middle = np.array([23.0, -41.0, 64.0])
    axes = turned((0.2, 0.1, 1.0), box_degrees)
    box = LesionBox(middle, [30.0, 26.0, 24.0], axes, name="corner")
    ball = middle + axes @ (np.array(corner) * [10.0, 8.0, 7.0])
    volume = with_ball(oblique_ct(middle), ball, 4.0)
    heat = Classifier(with_network(shipped, BrightnessNet()), volume).classify(box, class_name="malignant").heat_map
    # One cell of the map is 2.5 mm, one slice 1.5 mm: the peak lies inside the ball.
    assert np.linalg.norm(heat.peakRAS - ball) < 3.0
    assert heat.array.max() == pytest.approx(1.0)


def test_the_shipped_model_finds_most_of_its_evidence_around_the_nodule_in_the_corner_of_a_box_on_an_oblique_ct(
    shipped,
):
    middle = np.array([-12.0, 30.0, -75.0])
    volume = oblique_ct(middle, spacing=(0.7, 0.7, 1.25))
    hu = volume.array.astype(float)
    nodule = middle + np.array([6.0, -5.0, 4.0])
    paint_nodule(hu, volume.ijkToRAS, kind="spiculated", centerRAS=nodule, diameter_mm=14.0, seed=3, name="corner")
    box = LesionBox(middle, [34.0, 32.0, 28.0], turned((0, 0, 1), 20), name="corner")
    result = Classifier(shipped, replace(volume, array=hu.astype(np.float32))).classify(box, class_name="malignant")
    heat = result.heat_map
    points = transformed_points(heat.ijkToRAS, lattice_points(heat.array.shape[::-1]))
    near = np.linalg.norm(points - nodule, axis=-1) < 14.0
    # Its hottest point often lies at the nodule's rim or beyond (see its card); the bulk of the heat must not.
    assert heat.array[near].sum() > 0.5 * heat.array.sum()
    assert heat.array[near].sum() / heat.array.sum() > 1.2 * near[heat.array > 0].mean()


def test_the_map_lies_on_voxels_of_the_ct_itself(shipped):
    middle = np.array([5.0, 6.0, 7.0])
    volume = with_ball(oblique_ct(middle), middle, 5.0)
    box = LesionBox(middle, [20.0, 20.0, 20.0], turned((1, 1, 0), 40))
    heat = Classifier(with_network(shipped, BrightnessNet()), volume).classify(box).heat_map
    np.testing.assert_allclose(heat.ijkToRAS[:3, :3], volume.ijkToRAS[:3, :3])
    offset = volume.rasToIJK @ heat.ijkToRAS[:, 3]
    np.testing.assert_allclose(offset, np.round(offset), atol=1e-6)


def test_heat_stays_inside_the_box_and_its_margin(shipped):
    middle = np.zeros(3)
    volume = replace(oblique_ct(middle), array=np.full((60, 80, 90), 100.0, dtype=np.float32))
    box = LesionBox(middle, [16.0, 12.0, 9.0], turned((0, 0, 1), 30))
    heat = Classifier(with_network(shipped, BrightnessNet()), volume).classify(box, class_name="malignant").heat_map
    points = transformed_points(heat.ijkToRAS, lattice_points(heat.array.shape[::-1]))
    in_box = np.abs((points - middle) @ box.axesRAS)[heat.array > 0]
    assert (in_box[:, :2] <= box.sizeMm[:2] / 2 + STACK.margin_mm + STACK.spacing_mm / 2).all()
    assert (in_box[:, 2] <= box.sizeMm[2] / 2 + volume.sliceDistanceMm).all()


def test_an_empty_map_is_said_plainly(shipped):
    middle = np.zeros(3)
    volume = with_ball(oblique_ct(middle), middle, 5.0)
    box = LesionBox(middle, [20.0, 20.0, 20.0])
    against = with_network(shipped, BrightnessNet(direction=-1.0))
    result = Classifier(against, volume).classify(box, class_name="malignant")
    assert result.heat_map.is_empty
    assert any("Grad-CAM is empty" in warning for warning in result.warnings)


def test_grad_cam_equals_one_computed_with_hooks():
    torch.manual_seed(0)
    network = build_network("mobilenet_v2", {"stem_stride": 1, "output_stride": 8})
    x = torch.rand(3, 3, 64, 64) * 2 - 1
    kept = {}
    last = network.features_[-1]
    handles = [
        last.register_forward_hook(lambda _m, _i, out: kept.update(f=out)),
        last.register_full_backward_hook(lambda _m, _i, out: kept.update(g=out[0])),
    ]
    network(x)[:, 1].sum().backward()
    for handle in handles:
        handle.remove()
    reference = functional.relu((kept["g"].mean(dim=(2, 3), keepdim=True) * kept["f"]).sum(dim=1)).detach()
    with torch.no_grad():
        features = network.features(x)
    torch.testing.assert_close(grad_cam(network, features, 1), reference, rtol=1e-5, atol=1e-8)


def test_painting_puts_the_centre_of_a_map_cell_where_its_pixels_were():
    volume = oblique_ct(np.zeros(3), spacing=(0.5, 0.5, 1.0))
    box = LesionBox(np.zeros(3), [30.0, 30.0, 10.0], turned((0, 0, 1), 10))
    stack = axial_stack(volume, box, AxialStackSpec())
    cam = np.zeros((len(stack.hu), 8, 8), dtype=np.float32)
    cam[len(cam) // 2, 5, 2] = 1.0
    heat = resample_to_ct(cam, stack, box, volume, "any")
    column, row = 2 * 8 + 3.5, 5 * 8 + 3.5
    expected = transformed_points(stack.sampleToRAS, [column, row, len(cam) // 2])
    assert np.linalg.norm(heat.peakRAS - expected) < 1.0


@pytest.mark.parametrize("first", [0.0, 2.0, 5.0])
def test_a_cell_is_painted_where_its_receptive_field_is_centred(first):
    volume = CTVolume(np.full((20, 90, 90), -800.0, np.float32), np.diag([-0.5, -0.5, 1.0, 1.0]))
    box = LesionBox(transformed_points(volume.ijkToRAS, [45.0, 45.0, 10.0]), [30.0, 30.0, 10.0])
    stack = axial_stack(volume, box, AxialStackSpec())
    cam = np.zeros((len(stack.hu), 8, 8), dtype=np.float32)
    cam[len(cam) // 2, 5, 2] = 1.0
    heat = resample_to_ct(cam, stack, box, volume, "any", cell_centres=(first, 8.0))
    expected = transformed_points(stack.sampleToRAS, [2 * 8 + first, 5 * 8 + first, len(cam) // 2])
    assert np.abs(heat.peakRAS - expected)[:2].max() <= 0.25 + 1e-6  # half a voxel


@pytest.mark.parametrize("seed", range(12))
def test_a_map_along_the_axes_of_the_ct_is_that_of_the_general_way(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    cells = rng.random(tuple(rng.integers(1, 6, 3))).astype(np.float32)
    region = rng.random(np.array(cells.shape) * rng.integers(1, 4, 3)) > 0.2
    pane_to_ras, ijk_to_ras, turn = np.eye(4), np.eye(4), np.eye(4)
    pane_to_ras[:3, :3] = np.eye(3)[rng.permutation(3)] * rng.choice([-1, 1], 3) * rng.uniform(0.5, 2, 3)
    pane_to_ras[:3, 3], ijk_to_ras[:3, 3] = rng.uniform(-3, 3, (2, 3))
    ijk_to_ras[:3, :3] = np.diag(rng.uniform(0.4, 1.5, 3))
    turn[:3, :3] = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    places = tuple(
        (float(first), float(step)) for first, step in zip(rng.uniform(-1, 3, 3), rng.uniform(0.5, 3, 3), strict=True)
    )
    pane = heat_map._Pane(cells, turn @ pane_to_ras, region, places)
    shape = tuple(rng.integers(3, 12, 3))
    fast = heat_map._resampled(pane, turn @ ijk_to_ras, shape)
    monkeypatch.setattr(heat_map, "_along_axes", None)
    monkeypatch.setattr(heat_map, "_PARALLEL", -1.0)
    assert fast.shape == shape
    np.testing.assert_allclose(fast, heat_map._resampled(pane, turn @ ijk_to_ras, shape), atol=1e-6)
