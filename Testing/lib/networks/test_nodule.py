"""The network that reads nodules: what it sees adds up over its map, and a box drawn larger changes little of the lesion."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from LesionLib.errors import BundleError
from LesionLib.explain.saliency import grad_cam
from LesionLib.geometry import LesionBox
from LesionLib.model.folder import golden_case
from LesionLib.networks import build_network
from LesionLib.networks.nodule import MEASURES, NoduleNet, box_edges, lesion_map
from LesionLib.sampling.batches import crop_lesion
from LesionLib.sampling.volumes import IsotropicCubeSpec

SPEC = IsotropicCubeSpec(
    edge_mm=42.0, voxels=84, windows_hu=((-1000.0, 1600.0),), margin_mm=(3.0, 3.0, 0.0), box_channel=True
)


@pytest.fixture(scope="module")
def network() -> NoduleNet:
    torch.manual_seed(0)
    return build_network("nodule", {"classes": 2, "scores": 3, "space": 8})


def cube(grow_mm: float = 0.0, shift_mm: float = 0.0) -> torch.Tensor:
    volume, box = golden_case()
    box = replace(box, sizeMm=box.sizeMm + 2 * grow_mm, centerRAS=box.centerRAS + shift_mm)
    return torch.from_numpy(crop_lesion(volume, box, SPEC).patches)


def parts(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return (x[:, 0] + 1.0) * 1300.0 - 1000.0, x[:, 1]


def measure(network: NoduleNet, x: torch.Tensor, name: str) -> float:
    with torch.inference_mode():
        return float(network.seen(x)[0, network.mapped_channels + MEASURES.index(name)])


def in_space(f: torch.Tensor) -> torch.Tensor:
    """Every channel that belongs to places, spread along the normals of its planes: (batch, channel, 14, 14, 14)."""
    z, y, x = f[:, -1, 0, :3].unbind(dim=1)
    axial, coronal, sagittal = f[:, : NoduleNet.mapped_channels].unbind(dim=2)
    spread = axial[:, :, None] * z[:, None, :, None, None]
    spread += coronal[:, :, :, None] * y[:, None, None, :, None]
    return spread + sagittal[..., None] * x[:, None, None, None, :]


def test_what_is_seen_is_the_sum_of_the_map_over_its_places(network):
    x = torch.cat([cube(), cube(2.0)])
    network.center.uniform_(-1, 1)
    with torch.inference_mode():
        f, seen = network.features(x), network.seen(x)
        torch.testing.assert_close(f[:, :-1].sum(dim=(2, 3, 4)), seen, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(network(x), network.classifier(seen), rtol=1e-4, atol=1e-4)
        of_places = in_space(f)
        network.center.zero_()
    assert of_places.shape == (2, network.mapped_channels, 14, 14, 14)
    of_seen = seen[:, : network.mapped_channels]
    torch.testing.assert_close(of_places.sum(dim=(2, 3, 4)), of_seen, rtol=1e-4, atol=1e-4)


def test_a_sum_of_channels_is_spread_as_each_of_them_would_be(network):
    weights = torch.randn(2, network.mapped_channels, generator=torch.Generator().manual_seed(3))
    classes = network.classifier.weight[[1, 0], : network.mapped_channels]
    with torch.no_grad():
        f = network.features(torch.cat([cube(), cube(2.0)]))
        maps = in_space(f)
        whole, of_classes = (torch.einsum("bc,bczyx->bzyx", w, maps) for w in (weights, classes))
    torch.testing.assert_close(network.weighted_map(f, weights), whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(grad_cam(network, f, torch.tensor([1, 0])), of_classes.relu(), rtol=1e-4, atol=1e-5)


def test_the_scores_stand_behind_the_classes_and_are_no_probabilities(network):
    with torch.inference_mode():
        logits = network(cube())
        p = network.probabilities(logits)
    assert logits.shape == (1, 5)
    assert p.shape == (1, 2)
    assert float(p.sum()) == pytest.approx(1.0)


def test_without_classes_it_only_compares():
    torch.manual_seed(1)
    compares = build_network("nodule", {"classes": 0, "scores": 0, "space": 8})
    with torch.inference_mode():
        f = compares.features(cube())
        torch.testing.assert_close(compares.head(f), compares.descriptor(f))
    assert not [name for name in compares.state_dict() if name.startswith("classifier")]


def test_likeness_is_told_by_the_descriptor_or_by_numbers_of_its_own(network):
    torch.manual_seed(2)
    apart = build_network("nodule", {"classes": 0, "space": 4, "likeness": 6})
    with torch.inference_mode():
        f = apart.features(cube())
        descriptor = apart.descriptor(f)
        likeness = apart.training_likeness(f, descriptor)
        torch.testing.assert_close(likeness, apart.likeness(apart.seen(cube())), rtol=1e-4, atol=1e-4)
        assert (descriptor.shape, likeness.shape) == ((1, 4), (1, 6))
        assert network.training_likeness(f, descriptor) is descriptor


def test_a_lesion_s_answer_does_not_depend_on_its_neighbours_in_the_batch(network):
    x = torch.cat([cube(), cube(3.0), cube(1.0, 1.5)])
    with torch.inference_mode():
        together, alone = network.seen(x), torch.cat([network.seen(one[None]) for one in x])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-3)


def test_the_edges_of_the_box_are_read_off_its_channel():
    _, box = golden_case()
    edges = box_edges(parts(cube())[1])[0] * SPEC.edge_mm
    np.testing.assert_allclose(edges.numpy(), box.sizeMm, atol=1e-3)


def test_the_lesion_is_found_in_its_box(network):
    volume, box = golden_case()
    true_mm3 = float(box.segment.array.sum()) * abs(np.linalg.det(volume.ijkToRAS[:3, :3]))
    # The threshold lies below half of the contrast, as readers' outlines do: half a millimetre of the soft edge is in.
    assert 1.0 < np.exp(measure(network, cube(), "volume")) / true_mm3 < 1.3


@pytest.mark.parametrize("grow_mm", [1.0, 3.0])
def test_a_box_drawn_larger_changes_the_box_and_hardly_the_lesion(network, grow_mm):
    tight, loose = cube(), cube(grow_mm)
    assert measure(network, loose, "box_x") > measure(network, tight, "box_x") + 0.1
    assert measure(network, loose, "volume") == pytest.approx(measure(network, tight, "volume"), abs=0.15)
    assert measure(network, loose, "mean_hu") == pytest.approx(measure(network, tight, "mean_hu"), abs=0.15)


def test_what_is_not_connected_to_the_middle_is_no_lesion():
    hu = torch.full((1, 84, 84, 84), -850.0)
    hu[:, 36:48, 36:48, 36:48] = 40.0
    box = torch.zeros_like(hu)
    box[:, 22:62, 22:62, 22:62] = 1.0
    edges = box_edges(box)
    alone = lesion_map(hu, edges)
    hu[:, 40:44, 40:44, 54:59] = 40.0  # a vessel inside the box's ellipsoid
    assert float(lesion_map(hu, edges).sum()) == pytest.approx(float(alone.sum()), rel=0.01)
    assert float(lesion_map(hu, edges)[0, 20:22, 20:22, 28:29].max()) < 0.15


def test_a_map_tells_of_places_only(network):
    with torch.no_grad():
        f = network.features(cube())
    weight = torch.zeros_like(network.classifier.weight)
    weight[1, network.mapped_channels :] = 1.0  # volume, HU and the box alone
    shown = build_network("nodule", {"classes": 2, "scores": 3, "space": 8})
    shown.load_state_dict({**network.state_dict(), "classifier.weight": weight})
    assert float(grad_cam(shown, f, 1).max()) == 0.0
    assert float(grad_cam(network, f, 1).max()) > 0.0


@pytest.mark.parametrize(
    "arguments", [{"classes": -1}, {"space": 0}, {"likeness": -1}, {"edge_mm": 0.0}, {"low_hu": 10.0, "high_hu": 10.0}]
)
def test_arguments_without_sense_are_refused(arguments):
    with pytest.raises(BundleError, match="does not take the arguments"):
        build_network("nodule", arguments)


def test_a_box_larger_than_the_cube_is_answered(network):
    volume, box = golden_case()
    large = LesionBox(box.centerRAS, [70.0, 30.0, 30.0], box.axesRAS, box.name)
    with torch.inference_mode():
        assert torch.isfinite(network(torch.from_numpy(crop_lesion(volume, large, SPEC).patches))).all()
