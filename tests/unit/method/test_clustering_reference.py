"""The fit against an independent one, written from the paper's text: one embedding per row, no patterns, no counts."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dynacor_ray.core.eager_optimizer import eager
from dynacor_ray.core.rng import derive_seed
from dynacor_ray.method.clustering import batch_order, fit, preset
from dynacor_ray.method.dynamics_encoder import initial_encoder_state

ALPHAS = {"released": 2.0, "paper": 0.5}
OPTIONS = {"batch_size": 128, "learning_rate": 2e-4, "epochs": 3, "seed": 5}


@dataclass
class Reference:
    """What the slow loop found: q_noisy of every row and Eq. 9 after each epoch, epoch 0 first."""

    q: list[np.ndarray]
    metric: list[float]


def network(num_epochs: int, seed: int) -> nn.Sequential:
    layers = nn.Sequential(
        nn.Conv1d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv1d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv1d(32, 32, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * num_epochs, 512),
    )
    values = initial_encoder_state(num_epochs, derive_seed(seed, 0)).values()
    layers.load_state_dict(dict(zip(layers.state_dict(), values, strict=True)))
    return layers


def assignment(z: Tensor, centroids: Tensor, euclidean: bool) -> Tensor:
    """Student kernel of the distances to (noisy, clean), normalized; returns (B, 2)."""
    if euclidean:
        distance = ((z[:, None, :] - centroids[None, :, :]) ** 2).sum(dim=2)
    else:
        distance = 1 - nn.functional.cosine_similarity(z[:, None, :], centroids[None, :, :], dim=2)
    kernel = 1 / (1 + distance)
    return kernel / kernel.sum(dim=1, keepdim=True)


def row_loss(z: Tensor, corrupted: Tensor, centroids: Tensor, alpha: float, batchmean: bool) -> Tensor:
    q = assignment(z, centroids, euclidean=False)
    weight = q.detach() ** 2 / q.detach().sum(dim=0)
    p = weight / weight.sum(dim=1, keepdim=True)
    loss = nn.functional.kl_div(q.log(), p, reduction="batchmean" if batchmean else "sum")
    noisy = q[:, 0] > q[:, 1]
    for group in (noisy, ~noisy):
        original, copy = z[group & ~corrupted], z[group & corrupted]
        if len(original) and len(copy):
            between = nn.functional.cosine_similarity(original.mean(dim=0), copy.mean(dim=0), dim=0)
            loss = loss + alpha * 0.5 * (1 - between)
    return loss


@functools.cache
def reference_fit(released: bool, alpha: float) -> Reference:
    margins, is_corrupted, has_copy = simulated()
    x = torch.from_numpy(np.where(margins >= 0, 1.0, -1.0).astype(np.float32))
    corrupted = torch.from_numpy(is_corrupted)
    net = network(margins.shape[1], OPTIONS["seed"])
    z = net(x[:, None, :]).detach()
    centroids = nn.Parameter(torch.stack((z[corrupted].mean(dim=0), z[~corrupted].mean(dim=0))))
    decay = 1e-4 if released else 5e-4
    adam = eager(torch.optim.Adam)([*net.parameters(), centroids], lr=OPTIONS["learning_rate"], weight_decay=decay)
    canonical = np.lexsort((is_corrupted, *x.numpy().T[::-1]))
    found = Reference([], [])
    for epoch in range(int(OPTIONS["epochs"]) + 1):
        order = canonical[batch_order(len(x), int(OPTIONS["seed"]), epoch).numpy()] if epoch else []
        for start in range(0, len(order), int(OPTIONS["batch_size"])):
            rows = torch.from_numpy(order[start : start + int(OPTIONS["batch_size"])])
            adam.zero_grad()
            row_loss(net(x[rows][:, None, :]), corrupted[rows], centroids, alpha, batchmean=released).backward()
            adam.step()
        with torch.no_grad():
            q = assignment(net(x[:, None, :]), centroids, euclidean=released)[:, 0].numpy().astype(np.float64)
        second = ~is_corrupted & has_copy if released else ~is_corrupted
        found.q.append(q)
        groups = q[is_corrupted & (q > 0.5)], q[second & (q <= 0.5)]
        found.metric.append((groups[0].mean() - groups[1].mean()) ** 2 if len(groups[0]) and len(groups[1]) else 0.0)
    return found


def simulated() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """660 rows of 8 epochs in 10 kinds of difficulty; 60 are copies. Many rows share their signs, many do not."""
    generator = np.random.default_rng(7)
    is_corrupted = np.arange(660) >= 600
    wrong = is_corrupted | (generator.random(660) < 0.35)
    level = np.where(wrong, -1.0, 1.0) * generator.gamma(2.0, 0.7, 660)
    drift = np.where(wrong, generator.gamma(1.0, 1.5, 660), 0.0)[:, None] * np.linspace(0, 1, 8)
    margins = level[:, None] + drift + generator.normal(size=(660, 8))
    order = generator.permutation(660)
    return margins[order].astype(np.float32), is_corrupted[order], (np.arange(660) < 60)[order]


@pytest.mark.parametrize(("variant", "alpha"), ALPHAS.items())
def test_the_fit_is_that_of_a_plain_loop_over_rows(variant: str, alpha: float) -> None:
    margins, is_corrupted, has_copy = simulated()
    expected = reference_fit(variant == "released", alpha)
    options = OPTIONS | {"alpha": alpha}
    untrained = fit(margins, is_corrupted, has_copy, preset(variant, **options | {"epochs": 0}))
    np.testing.assert_allclose(untrained.assign(margins), expected.q[0], rtol=0, atol=1e-5)
    trained = fit(margins, is_corrupted, has_copy, preset(variant, **options, epoch_choice="last"))
    q = trained.assign(margins)
    np.testing.assert_allclose(q, expected.q[-1], rtol=0, atol=1e-5)
    assert np.array_equal(q > 0.5, expected.q[-1] > 0.5)
    metric = [record.validation_metric for record in trained.records]
    np.testing.assert_allclose(metric, expected.metric, rtol=1e-4)
    chosen = fit(margins, is_corrupted, has_copy, preset(variant, **options))
    assert chosen.epoch == int(np.argmax(expected.metric))


def test_the_comparison_is_not_trivial() -> None:
    """Training moves q by far more than the tolerance, changes flags, and the variants disagree."""
    found, other = (reference_fit(variant == "released", alpha) for variant, alpha in ALPHAS.items())
    for one in (found, other):
        assert np.abs(one.q[-1] - one.q[0]).max() > 0.02
        assert ((one.q[-1] > 0.5) != (one.q[0] > 0.5)).sum() > 3
    assert np.abs(found.q[-1] - other.q[-1]).max() > 0.02
