"""The map of what makes two lesions alike: the gradient of their cosine, found without hooks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from LesionLib.explain.heat_map import resample_to_ct
from LesionLib.explain.saliency import similarity_map
from LesionLib.geometry import CTVolume, LesionBox
from LesionLib.inference.classifier import Classifier
from LesionLib.model.bundle import load_bundle
from LesionLib.networks import LesionNet, build_network
from LesionLib.sampling.batches import crop_lesion
from LesionLib.sampling.resample import AxialStackSpec, axial_stack, windowed
from torch import Tensor
from torch.nn import functional

NETWORKS = {
    "mobilenet_v2": {"width": 0.25, "stem_stride": 1, "output_stride": 8},
    "resnet3d": {"width": "tiny"},
    "dmrn": {"depth": 18, "width": "tiny", "classes": 3},
    "siamese": {"depth": 18, "width": "tiny", "descriptor_size": 16},
    "dadrn": {"width": "tiny"},
}
LAST = {
    "mobilenet_v2": lambda n: n.features_[-1],
    "resnet3d": lambda n: n.trunk.layer4,
    "dmrn": lambda n: n.trunk.layer4,
    "siamese": lambda n: n.trunk.layer4,
    "dadrn": lambda n: n.attention,
}


def network_and_pictures(name: str) -> tuple[LesionNet, Tensor, Tensor]:
    """The network, two patches, and the embedding of a third."""
    torch.manual_seed(0)
    network = build_network(name, NETWORKS[name])
    x = torch.rand(3, 1, 16, 24, 24) if name == "resnet3d" else torch.rand(3, 3, 64, 64)
    with torch.no_grad():
        return network, x[:2], network.embed(x[2:])[0]


def with_hooks(network: LesionNet, last: torch.nn.Module, x: Tensor, other: Tensor) -> Tensor:
    """Grad-CAM of the cosine similarity the usual way, through the whole network."""
    kept = {}
    handles = [
        last.register_forward_hook(lambda _m, _i, out: kept.update(f=out)),
        last.register_full_backward_hook(lambda _m, _i, out: kept.update(g=out[0])),
    ]
    functional.cosine_similarity(network.descriptor(network.features(x.requires_grad_())), other[None]).sum().backward()
    for handle in handles:
        handle.remove()
    weights = kept["g"].flatten(2).mean(dim=2)
    return functional.relu(torch.einsum("bc,bc...->b...", weights, kept["f"])).detach()


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_it_equals_one_computed_with_hooks(name):
    # In double precision: random networks find all patches nearly alike, and float32 would compare rounding.
    network, x, _ = network_and_pictures(name)
    network, x = network.double(), x.double()
    with torch.no_grad():
        features = network.features(x)
        other = network.embed(x.flip(0)[:1] ** 3)[0]
    found = similarity_map(network, features, other)
    reference = with_hooks(network, LAST[name](network), x, other)
    assert found.shape == features.shape[:1] + features.shape[2:]
    assert reference.max() > 0
    torch.testing.assert_close(found / reference.max(), reference / reference.max(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet3d"])
def test_with_a_fixed_length_the_map_adds_up_to_the_similarity_itself(name):
    network, x, other = network_and_pictures(name)
    with torch.no_grad():
        features = network.features(x).abs()
    # Average-pooled descriptors of features above 0 and an `other` above 0: no part is negative, nothing is cut.
    other = functional.normalize(other.abs(), dim=0)
    cosine = functional.normalize(network.descriptor(features), dim=1) @ other
    found = similarity_map(network, features, other, length_is_fixed=True)
    torch.testing.assert_close(found.flatten(1).sum(dim=1), cosine)


def test_nothing_would_make_a_picture_more_like_itself():
    network, x, _ = network_and_pictures("mobilenet_v2")
    with torch.no_grad():
        features = network.features(x[:1])
        itself = functional.normalize(network.descriptor(features), dim=1)[0]
    assert similarity_map(network, features, itself).abs().max() == 0
    assert similarity_map(network, features, itself, length_is_fixed=True).max() > 0


def test_one_picture_s_map_does_not_depend_on_the_others():
    network, x, other = network_and_pictures("mobilenet_v2")
    with torch.no_grad():
        features = network.features(x)
    together = similarity_map(network, features, other)
    alone = torch.cat([similarity_map(network, features[i : i + 1], other) for i in range(2)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-9)


class DirectionNet(LesionNet):
    """Its descriptor is known: how much bright (feature 0) and how much dark (feature 1) there is."""

    def features(self, x: Tensor) -> Tensor:
        return functional.avg_pool2d(torch.cat([functional.relu(x[:, :1]), functional.relu(-x[:, :1])], dim=1), 4)

    def descriptor(self, f: Tensor) -> Tensor:
        return f.mean(dim=(2, 3))

    def head(self, f: Tensor) -> Tensor:
        return self.descriptor(f)


@pytest.mark.parametrize("length_is_fixed", [False, True])
def test_the_map_lies_where_the_likeness_is(length_is_fixed):
    x = torch.zeros(1, 1, 32, 32)
    x[0, 0, 4:8, 20:24], x[0, 0, 24:28, 4:8] = 1.0, -1.0
    network = DirectionNet().eval()
    for other, place in ((torch.tensor([1.0, 0.0]), (1, 5)), (torch.tensor([0.0, 1.0]), (6, 1))):
        (found,) = similarity_map(network, network.features(x), other, length_is_fixed=length_is_fixed)
        assert np.unravel_index(int(found.argmax()), found.shape) == place
        assert (found > 0).sum() == 1


def test_painted_into_an_oblique_ct_it_lies_on_the_ball_that_both_lesions_have():
    spec = AxialStackSpec()
    angle = np.deg2rad(20)
    ijk_to_ras = np.eye(4)
    ijk_to_ras[:3, :3] = [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1.5]]
    ijk_to_ras[:3, 3] = [10, -20, 30]
    k, j, i = np.meshgrid(np.arange(24), np.arange(50), np.arange(50), indexing="ij")
    ball = np.array([30, 20, 14])
    hu = np.where((i - ball[0]) ** 2 + (j - ball[1]) ** 2 + (1.5 * (k - ball[2])) ** 2 < 9, 300.0, -900.0)
    volume = CTVolume(hu.astype(np.float32), ijk_to_ras)
    center, ball_ras = ((ijk_to_ras @ [*p, 1])[:3] for p in ((25, 25, 12), ball))
    box = LesionBox(center, [24, 24, 18])
    stack = axial_stack(volume, box, spec)
    network = DirectionNet().eval()
    features = network.features(torch.from_numpy(windowed(stack.hu, spec.windows_hu)))
    cam = similarity_map(network, features, np.array([1.0, 0.0], dtype=np.float32)).numpy()
    heat = resample_to_ct(cam, stack, box, volume, "similar")
    assert np.linalg.norm(heat.peakRAS - ball_ras) < 4.0


def test_the_shipped_model_s_embedding_fits_as_the_other_lesion():
    shipped = load_bundle("lung-nodule-malignancy")
    hu = np.random.default_rng(0).normal(-700, 150, (12, 40, 40)).astype(np.float32)
    volume = CTVolume(hu, np.eye(4))
    box = LesionBox([20, 20, 6], [16, 16, 6])
    other = Classifier(shipped, volume).embed(LesionBox([14, 24, 6], [10, 10, 4]))
    with torch.no_grad():
        features = shipped.network.features(torch.from_numpy(crop_lesion(volume, box, shipped.spec).patches))
    found = similarity_map(shipped.network, features, other)
    assert found.shape == (1, 14, 14, 14)
    assert torch.isfinite(found).all()
    assert found.max() > 0


@pytest.mark.parametrize(
    ("other", "said"), [(torch.ones(3) / 3**0.5, "shape"), (torch.ones(320), "length"), (torch.zeros(320), "length")]
)
def test_an_embedding_that_does_not_fit_is_refused(other, said):
    network, x, embedding = network_and_pictures("mobilenet_v2")
    other = other if said == "shape" else other[:1].expand(embedding.shape)
    with torch.no_grad():
        features = network.features(x)
    with pytest.raises(ValueError, match=said):
        similarity_map(network, features, other)
