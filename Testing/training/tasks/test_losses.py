"""The five systems' losses against their formulas, by hand and against other implementations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lesiontraining.losses import ViewLoss, all_pairs, contrastive_loss, negative_evidence, triplet_loss
from lesiontraining.optim import LARS, parameter_groups
from lesiontraining.tasks import LabelMapTask, OrthoPatchTask
from torch import nn
from torch.distributions import Normal, kl_divergence
from torch.nn import functional


def test_pairs_of_one_class_attract_and_others_repel_up_to_the_margin():
    first = torch.zeros(4, 2)
    second = torch.tensor([[0.6, 0.8], [0.3, 0.4], [0.3, 0.4], [3.0, 4.0]])  # distances 1, .5, .5, 5
    each = [0.5 * 1, 0.5 * 0.25, 0.5 * 0.25, 0.0]
    for row, (different, expected) in enumerate(zip([0, 0, 1, 1], each, strict=True)):
        found = contrastive_loss(first[row : row + 1], second[row : row + 1], torch.tensor([different]))
        assert float(found) == pytest.approx(expected, abs=1e-6)
    together = contrastive_loss(first, second, torch.tensor([0, 0, 1, 1]))
    assert float(together) == pytest.approx(np.mean(each), abs=1e-6)


def test_the_gradient_of_two_equal_descriptors_is_a_number():
    x = torch.zeros(1, 3, requires_grad=True)
    contrastive_loss(x, torch.zeros(1, 3), torch.tensor([1])).backward()
    assert torch.isfinite(x.grad).all()


def test_every_pair_of_a_batch_occurs_once():
    first, second, different = all_pairs(torch.tensor([0, 0, 1]))
    assert {tuple(sorted(p)) for p in zip(first.tolist(), second.tolist(), strict=True)} == {(0, 1), (0, 2), (1, 2)}
    assert different.tolist() == [0, 1, 1]


def test_the_triplet_loss_is_equation_2_with_the_distance_that_equation_3_means():
    torch.manual_seed(0)
    a, p, n = (torch.randn(16, 8) for _ in range(3))
    d = lambda x, y: 1 - functional.cosine_similarity(x, y)  # noqa: E731
    expected = (0.5 * torch.clamp(0.8 + d(a, p) - d(a, n), min=0)).mean()
    torch.testing.assert_close(triplet_loss(a, p, n), expected)
    assert triplet_loss(a, a, -a) == 0
    assert triplet_loss(a, -a, a) == pytest.approx(1.4)


def test_nt_xent_agrees_with_its_formula():
    torch.manual_seed(0)
    first, second = torch.randn(6, 5), torch.randn(6, 5)
    z = functional.normalize(torch.cat([first, second]), dim=1).double()
    similarity = (z @ z.T / 0.1).fill_diagonal_(-torch.inf)
    partner = torch.cat([torch.arange(6, 12), torch.arange(6)])
    expected = functional.cross_entropy(similarity, partner)
    assert float(ViewLoss(temperature=0.1)(first, second)) == pytest.approx(float(expected), rel=1e-5)


def test_the_evidence_is_squared_error_and_divergence_by_torch():
    torch.manual_seed(0)
    x, rebuilt = torch.rand(3, 1, 4, 4), torch.rand(3, 1, 4, 4)
    mean, log_variance = torch.randn(3, 5), torch.randn(3, 5)
    divergence = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum(dim=1)
    error = ((x - rebuilt) ** 2).flatten(1).sum(dim=1) / 2
    found = negative_evidence(x, rebuilt, mean, log_variance, weight=2.0)
    torch.testing.assert_close(found, (error + 2.0 * divergence).mean())


def test_lars_takes_the_steps_of_its_paper():
    torch.manual_seed(0)
    layer = nn.Linear(4, 3).double()
    w, b = layer.weight.detach().numpy().copy(), layer.bias.detach().numpy().copy()
    optimizer = LARS(parameter_groups(layer), lr=0.5, momentum=0.9, weight_decay=0.01, trust=0.02)
    velocity_w, velocity_b = np.zeros_like(w), np.zeros_like(b)
    x = torch.randn(8, 4, dtype=torch.float64)
    for _ in range(3):
        optimizer.zero_grad()
        layer(x).pow(2).sum().backward()
        g, gb = layer.weight.grad.numpy().copy(), layer.bias.grad.numpy().copy()
        optimizer.step()
        rate = 0.02 * np.linalg.norm(w) / (np.linalg.norm(g) + 0.01 * np.linalg.norm(w))
        velocity_w = 0.9 * velocity_w + rate * (g + 0.01 * w)
        velocity_b = 0.9 * velocity_b + gb  # biases: neither decay nor adaptation
        w, b = w - 0.5 * velocity_w, b - 0.5 * velocity_b
        np.testing.assert_allclose(layer.weight.detach().numpy(), w, rtol=1e-6)
        np.testing.assert_allclose(layer.bias.detach().numpy(), b, rtol=1e-6)


def test_lars_leaves_weights_that_are_zero_or_have_no_slope():
    weight = nn.Parameter(torch.zeros(2, 2))
    optimizer = LARS([{"params": [weight], "adapt": True}], lr=0.1)
    weight.grad = torch.ones(2, 2)
    optimizer.step()
    torch.testing.assert_close(weight.detach(), torch.full((2, 2), -0.1))
    weight.grad = torch.zeros(2, 2)
    optimizer.step()
    assert torch.isfinite(weight).all()


def test_the_rate_is_halved_after_exactly_ten_epochs_without_gain_and_may_fall_to_its_floor():
    task = OrthoPatchTask(class_names=["a", "b"], arguments={"width": "tiny"})
    made = task.configure_optimizers()
    schedule, rates = made["lr_scheduler"]["scheduler"], []
    for _ in range(21):
        schedule.step(0.8)  # the first is the best
        rates.append(made["optimizer"].param_groups[0]["lr"])
    assert rates[:10] == [1e-3] * 10
    assert rates[10:20] == [5e-4] * 10
    assert rates[20] == 2.5e-4
    for _ in range(400):
        schedule.step(0.8)
    assert made["optimizer"].param_groups[0]["lr"] == 1e-10


def test_resglnet_is_learned_place_by_place_and_its_machine_afterwards():
    task = LabelMapTask(class_names=["a", "b"], network="resglnet", arguments={"width": "tiny", "channels": 1})
    x, y = torch.rand(4, 1, 1, 64, 64), torch.tensor([[0], [1], [1], [0]])
    logits = task.network.label_map(task.network.eval().features(x[:, 0]))
    each = -logits.log_softmax(dim=1)[torch.arange(4), y[:, 0]]
    torch.testing.assert_close(task.loss(x, y), each.mean())
    assert not any(name.startswith("svm.") for name, _ in task.network.named_parameters())
