"""The mixture that divides rows by their losses: recovery, scikit-learn's fit, and counts that add up."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dynacor_ray.robust.loss_mixture import BINS, ITERATIONS, TOLERANCE, VARIANCE_FLOOR, LossMixture, count_losses


def losses_of(right: int = 700, wrong: int = 300) -> torch.Tensor:
    random = np.random.default_rng(0)
    values = np.concatenate([random.gamma(1.5, 0.2, right), random.normal(4.0, 0.8, wrong)])
    return torch.from_numpy(values.astype(np.float32))


def fitted(losses: torch.Tensor) -> LossMixture:
    low, high = float(losses.min()), float(losses.max())
    mixture = LossMixture.fit(count_losses(losses, low, high).numpy(), low, high)
    assert mixture is not None
    return mixture


def test_the_lower_component_is_that_of_right_labels() -> None:
    mixture = fitted(losses_of())
    clean = mixture.posterior(losses_of())
    assert mixture.weights[0] == pytest.approx(0.7, abs=0.02)
    assert mixture.means[0] < mixture.means[1]
    assert float((clean[:700] >= 0.5).float().mean()) > 0.97
    assert float((clean[700:] < 0.5).float().mean()) > 0.99


def test_it_is_what_scikit_learn_fits_to_the_losses_themselves() -> None:
    from sklearn.mixture import GaussianMixture  # takes seconds

    losses = losses_of()
    scaled = ((losses - losses.min()) / (losses.max() - losses.min())).double().numpy()[:, None]
    other = GaussianMixture(2, max_iter=ITERATIONS, tol=TOLERANCE, reg_covar=VARIANCE_FLOOR, random_state=0).fit(scaled)
    expected = other.predict_proba(scaled)[:, int(np.argmin(other.means_[:, 0]))]
    assert fitted(losses).posterior(losses).numpy() == pytest.approx(expected, abs=0.02)


def test_two_values_by_hand() -> None:
    """Three at 0 and one at 1: far apart, so that each component has its own."""
    losses = torch.tensor([2.0, 2.0, 6.0, 2.0])
    mixture = fitted(losses)
    assert mixture.weights == pytest.approx((0.75, 0.25))
    assert mixture.means == pytest.approx((0.5 / BINS, 1 - 0.5 / BINS))
    assert mixture.variances == pytest.approx((VARIANCE_FLOOR,) * 2)
    assert mixture.posterior(losses).tolist() == pytest.approx([1.0, 1.0, 0.0, 1.0])


def test_counts_of_workers_add_up() -> None:
    losses = losses_of()
    low, high = float(losses.min()), float(losses.max())
    parts = sum(count_losses(part, low, high) for part in losses[torch.randperm(1000)].split(137))
    assert torch.equal(torch.as_tensor(parts), count_losses(losses, low, high))
    assert int(count_losses(losses, low, high).sum()) == 1000
    assert not count_losses(losses[:0], low, high).any(), "a worker may have no row"


def test_equal_losses_divide_nothing() -> None:
    losses = torch.full((5,), 0.25)
    assert LossMixture.fit(count_losses(losses, 0.25, 0.25).numpy(), 0.25, 0.25) is None
