"""Inception networks compute what the published implementations compute: names and counts alone would not tell.

The expected numbers come from torchvision 0.29.2 (Mixed_7c) and pretrainedmodels 0.7.4 (features), run once on the very
weights and patch that are made here.
"""

from __future__ import annotations

import pytest
import torch
from LesionLib.networks.inception_resnet_v2 import InceptionResNetV2Trunk
from LesionLib.networks.inception_v3 import InceptionV3Trunk


def _bank():
    n = (torch.arange(1_000_003) * 2654435761 + 12345) % 2**32
    for _ in range(2):
        n = ((n ^ (n >> 16)) * 0x45D9F3B) % 2**32
    return ((n ^ (n >> 16)).double() / 2**31 - 1).float()


BANK = _bank()


def numbers(key, shape):
    """Numbers between -1 and 1 that look random and are the same with every version and on every machine."""
    count = torch.Size(shape).numel()
    return BANK.roll(key * 7919).repeat(count // len(BANK) + 1)[:count].reshape(shape)


def weights(key, name, tensor):
    """As spread as after a training: no map fades, no batch norm is neutral."""
    if tensor.ndim == 0:
        return torch.tensor(1)
    made = numbers(key, tensor.shape)
    if tensor.ndim > 1:
        return made * (6 / tensor[0].numel()) ** 0.5
    return 1 + made / 2 if name.endswith(("running_var", "bn.weight")) else made / 5


@pytest.mark.parametrize(
    ("trunk_class", "mean", "deviation", "step", "left_column"),
    [
        (
            InceptionV3Trunk,
            *(0.572799, 0.970880, 256),
            [
                *([0.120254, 0.841457], [0, 0], [2.279618, 1.580344], [1.578737, 3.367078]),
                *([0, 0.374983], [0, 0.360742], [0.086165, 0], [0, 0.108926]),
            ],
        ),
        (
            InceptionResNetV2Trunk,
            *(8.251768, 12.988155, 192),
            [
                *([0, 0], [0, 0], [5.665378, 8.182958], [0, 0]),
                *([57.540272, 58.853302], [0, 0], [18.246981, 3.731947], [46.396091, 45.009815]),
            ],
        ),
    ],
)
def test_the_last_map_is_that_of_the_published_implementation(trunk_class, mean, deviation, step, left_column):
    trunk = trunk_class().eval()
    state = trunk.state_dict()
    trunk.load_state_dict({name: weights(key, name, state[name]) for key, name in enumerate(sorted(state))})
    with torch.no_grad():
        f = trunk(numbers(999, (1, 3, 110, 96)))
    assert f.shape[2:] == (2, 1)
    torch.testing.assert_close(f[0, ::step, :, 0], torch.tensor(left_column, dtype=torch.float32), rtol=1e-3, atol=1e-3)
    assert f.mean().item() == pytest.approx(mean, rel=1e-3)
    assert f.std().item() == pytest.approx(deviation, rel=1e-3)
