"""Architectures are known by name, built from plain arguments, and keep the protocol."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from LesionLib.errors import BundleError
from LesionLib.explain.heat_map import cells_along
from LesionLib.networks import ARCHITECTURES, EXAMPLE_INPUTS, LesionNet, Unfilled, build_network, sizes_of

SMALL = {
    "arl": {"width": "tiny"},
    "cnn3d": {},
    "dadrn": {"width": "tiny"},
    "dmrn": {"depth": 18, "width": "tiny"},
    "lesionsearch": {"width": "tiny"},
    "mobilenet_v2": {"width": 0.25},
    "nodule": {"space": 8},
    "orthopatch": {"width": "tiny"},
    "ra_resnet50": {"width": "tiny"},
    "resglnet": {"width": "tiny"},
    "resnet": {"depth": 18, "width": "tiny"},
    "resnet3d": {"width": "tiny", "stem_stride": 2},
    "sdl": {"width": "tiny"},
    "se_resnet50": {"width": "tiny"},
    "shape": {"width": 4},
    "siamese": {"depth": 18, "width": "tiny"},
    "single_cnn": {"depth": 18, "width": "tiny"},
    "vae_encoder": {"width": "tiny"},
    "vgg19": {"width": "tiny"},
}


def patch(name: str) -> torch.Tensor:
    torch.manual_seed(0)
    if name == "nodule":
        box = torch.zeros(2, 1, 84, 84, 84)
        box[:, :, 30:54, 34:50, 28:56] = 1.0
        return torch.cat([torch.rand(2, 1, 84, 84, 84) * box - 1, box], dim=1)
    side = 96 if name == "orthopatch" else 64
    return (
        torch.rand(2, 1, 28, 28, 28)
        if name in ("cnn3d", "resnet3d", "shape")
        else torch.rand(2, EXAMPLE_INPUTS[name][0], side, side)
    )


def test_every_architecture_has_a_small_form_here():
    assert set(SMALL) == set(ARCHITECTURES)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_every_architecture_keeps_the_protocol(name):
    torch.manual_seed(0)
    network = build_network(name, SMALL[name])
    assert isinstance(network, LesionNet)
    assert not network.training
    x = patch(name)
    with torch.no_grad():
        f = network.features(x)
        torch.testing.assert_close(network(x), network.head(f))
        embedding = network.embed(x)
    assert embedding.ndim == 2
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(2))


@pytest.mark.parametrize("name", sorted(set(ARCHITECTURES) - {"siamese"}))
def test_probabilities_add_up_to_one(name):
    network = build_network(name, SMALL[name])
    with torch.no_grad():
        p = network.probabilities(network(patch(name)))
    torch.testing.assert_close(p.sum(dim=1), torch.ones(2))
    assert (p >= 0).all()


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_a_network_that_is_built_without_drawing_and_filled_answers_bit_for_bit_the_same(name):
    torch.manual_seed(0)
    drawn = build_network(name, SMALL[name])
    with Unfilled():
        filled = build_network(name, SMALL[name])
    for tensor in (*filled.parameters(), *filled.state_dict().values()):  # what would not be filled shows
        tensor.data.fill_(float("nan") if tensor.is_floating_point() else -1)
    filled.load_state_dict(drawn.state_dict(), strict=True)
    assert [each.requires_grad for each in filled.parameters()] == [each.requires_grad for each in drawn.parameters()]
    for (one, ours), (other, theirs) in zip(filled.named_buffers(), drawn.named_buffers(), strict=True):
        assert one == other
        assert torch.equal(ours, theirs), one
    for (one, ours), (other, theirs) in zip(filled.named_parameters(), drawn.named_parameters(), strict=True):
        assert one == other
        assert torch.equal(ours, theirs), one
    if name not in ("dmrn", "nodule", "vae_encoder"):  # of the others their numbers say it
        return
    with torch.no_grad():
        f, x = drawn.features(patch(name)), patch(name)
        assert torch.equal(filled.features(x), f)
        assert torch.equal(filled.head(f), drawn.head(f))
        assert torch.equal(filled.descriptor(f), drawn.descriptor(f))


@pytest.mark.parametrize("kind", ["Linear", "Conv2d"])
def test_outside_of_it_weights_are_drawn_as_ever(kind):
    def layer() -> torch.nn.Module:
        return torch.nn.Linear(8, 8) if kind == "Linear" else torch.nn.Conv2d(8, 8, 3)

    torch.manual_seed(0)
    first = layer()
    with Unfilled():
        layer()
    torch.manual_seed(0)
    assert torch.equal(layer().weight, first.weight)
    assert not torch.equal(layer().weight, first.weight)


@pytest.mark.parametrize(("name", "arguments"), [("os", {}), ("__init__", {}), ("resnet.ResNet", {}), ("", {})])
def test_what_is_not_in_the_table_is_refused(name, arguments):
    with pytest.raises(BundleError, match="unknown architecture"):
        build_network(name, arguments)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("resnet", {"depth": 19}),
        ("mobilenet_v2", {"stem_stride": 3}),
        ("mobilenet_v2", {"path": "x"}),
        ("dadrn", {"attention": "both"}),
        ("dmrn", {"descriptor": 3}),
    ],
)
def test_arguments_an_architecture_does_not_take_are_refused(name, arguments):
    with pytest.raises(BundleError, match="does not take the arguments"):
        build_network(name, arguments)


def test_mobilenet_v2_has_the_published_size_and_a_finer_map_on_demand():
    with torch.device("meta"):
        published = build_network("mobilenet_v2", {"classes": 1000})
        assert sum(p.numel() for p in published.parameters()) == 3_504_872
        x = torch.empty(1, 3, 64, 64)
        for stem, stride, size in ((2, 32, 2), (2, 16, 4), (2, 8, 8), (1, 8, 8), (1, 16, 4)):
            fine = build_network("mobilenet_v2", {"stem_stride": stem, "output_stride": stride})
            assert fine.features(x).shape == (1, 1280, size, size)


def test_a_network_without_monai_does_not_load_it():
    code = """import sys
from LesionLib.networks import build_network
build_network("mobilenet_v2", {}), build_network("dmrn", {"depth": 18, "width": "tiny"})
print("monai" in sys.modules)"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.strip() == "False"


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_every_architecture_tells_its_sizes_without_taking_memory(name):
    sizes = sizes_of(name)
    assert sizes.parameters > 1_000_000
    assert len(sizes.map) == len(EXAMPLE_INPUTS[name])
    assert len(sizes.descriptor) == 1


def seen_by_the_middle_cell(network: LesionNet, shape: tuple[int, ...]) -> list[tuple[float, int, int]]:
    """Along each axis: the centroid of what changes the middle cell of a map, which cell that is, and how many there are."""
    x = torch.rand(1, *shape, requires_grad=True)
    f = network.features(x)
    middle = tuple(size // 2 for size in f.shape[2:])
    cell, moved = f[(0, slice(network.mapped_channels), *middle)], torch.zeros(shape[1:])
    for _ in range(4):
        (gradient,) = torch.autograd.grad((torch.randn_like(cell) * cell).sum(), x, retain_graph=True)
        moved += gradient[0].square().sum(dim=0)
    found = []
    for axis, size in enumerate(shape[1:]):
        along = moved.sum(dim=[other for other in range(moved.ndim) if other != axis])
        found.append((float((along * torch.arange(size)).sum() / along.sum()), middle[axis], f.shape[2 + axis]))
    return found


# The nodule's map lies in space already. DADRN's attention looks at the whole patch: without it its trunk is seen.
@pytest.mark.parametrize("name", sorted(ARCHITECTURES.keys() - {"nodule"}))
def test_the_cells_of_a_map_look_where_it_is_said(name):
    shape = (1, 56, 56, 56) if len(EXAMPLE_INPUTS[name]) == 4 else (EXAMPLE_INPUTS[name][0], 224, 224)
    arguments = SMALL[name] | {"dadrn": {"attention": "none"}, "cnn3d": {"width": "tiny"}}.get(name, {})
    off = []
    for seed in range(3):
        torch.manual_seed(seed)
        network = build_network(name, arguments)
        for axis, (centroid, cell, cells) in enumerate(seen_by_the_middle_cell(network, shape)):
            first, step = cells_along(cells, shape[1 + axis], network.cell_centres)
            off.append((centroid - first - step * cell) / step)
    assert abs(sum(off)) / len(off) < 0.2  # of a cell; spread evenly over the patch they would be .4 to .5 off
