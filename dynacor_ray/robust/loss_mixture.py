"""Two Gaussians on the losses of all rows: the lower one is that of right labels (DivideMix, Li et al., ICLR 2020).

The mixture is fitted to counts of the losses in equal bins, not to the losses: counts of several workers add up, so
the fit is the same for any number of them and takes no more memory for more rows. A bin is a ninetieth of the smallest
standard deviation that the floor of the variance allows. `decision.gaussian_mixture`, which sorts the values and runs
to convergence with another floor, is therefore of no use here.

Deviations from the paper: it does not say how the mixture is started. Here by two-means, started at the mean. Losses
are averaged over epochs before they are scaled.

Cost: a pass over the losses, and some dozens over the bins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BINS = 4096
ITERATIONS, TOLERANCE, VARIANCE_FLOOR = 10, 1e-2, 5e-4
"""Of the EM, as published; the tolerance is of the mean log-likelihood."""
_TWO_MEANS_ITERATIONS = 100


def count_losses(losses: Tensor, low: float, high: float) -> Tensor:
    """How many losses lie in each of BINS equal bins of [low, high] (DivideMix's min-max scaling).

    Args:
        losses: float (n,), in [low, high].
        low: the smallest loss of all rows.
        high: the largest.

    Returns:
        int64 (BINS,), which adds up over rows and workers.
    """
    scaled = _scaled(losses, low, high)
    return torch.bincount((scaled * BINS).long().clamp(0, BINS - 1), minlength=BINS)


def _scaled(losses: Tensor, low: float, high: float) -> Tensor:
    return (losses.double() - low) / (high - low) if high > low else torch.zeros_like(losses, dtype=torch.float64)


@dataclass(frozen=True)
class LossMixture:
    """Two Gaussians on losses scaled to [0, 1] (DivideMix). weights, means, variances: of two, by mean.

    Attributes:
        low, high: the losses that are scaled to 0 and 1.
    """

    low: float
    high: float
    weights: tuple[float, float]
    means: tuple[float, float]
    variances: tuple[float, float]

    @classmethod
    def fit(cls, counts: NDArray[np.int64], low: float, high: float) -> LossMixture | None:
        """By EM with the published settings. counts: int64 (BINS,). None where all losses are equal."""
        if not high > low or int(counts.sum(axis=0)) < 2:
            return None
        centers = (np.arange(BINS) + 0.5) / BINS
        share = counts / counts.sum(axis=0)
        upper = _two_means(centers, share)
        parameters = _maximized(centers, share, np.stack([~upper, upper]).astype(np.float64))
        before = -np.inf
        for _ in range(ITERATIONS):
            joint = _log_joint(centers, *parameters)
            evidence = np.logaddexp(joint[0], joint[1])
            parameters = _maximized(centers, share, np.exp(joint - evidence))
            likelihood = float((share * evidence).sum(axis=0))
            if abs(likelihood - before) < TOLERANCE:
                break
            before = likelihood
        order = np.argsort(parameters[1], kind="stable")
        weights, means, variances = (tuple(one[order].tolist()) for one in parameters)
        return cls(low, high, weights, means, variances)

    def posterior(self, losses: Tensor) -> Tensor:
        """P(lower mean | loss), the probability that a label is right (DivideMix). float (n,) -> float32 (n,)."""
        scaled = _scaled(losses, self.low, self.high)
        rows = zip(self.weights, self.means, self.variances, strict=True)
        joint = [np.log(w) - 0.5 * np.log(v) - (scaled - m) ** 2 / (2.0 * v) for w, m, v in rows]
        return torch.sigmoid(joint[0] - joint[1]).float()


def _two_means(centers: NDArray[np.float64], share: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which bins are nearer to the upper of two means, bool (BINS,)."""
    upper: NDArray[np.bool_] = centers > (share * centers).sum(axis=0)
    for _ in range(_TWO_MEANS_ITERATIONS):
        middle = sum(float((share * centers)[one].sum(axis=0) / share[one].sum(axis=0)) for one in (upper, ~upper)) / 2
        nearer = centers > middle
        if np.array_equal(nearer, upper):
            break
        upper = nearer
    return upper


def _maximized(centers: NDArray[np.float64], share: NDArray[np.float64], posterior: NDArray[np.float64]) -> list[Any]:
    """Weights, means and variances, float64 (2,) each. posterior: float64 (2, BINS)."""
    weighted = posterior * share
    weights = weighted.sum(axis=1) + 10 * np.finfo(np.float64).eps
    means = weighted @ centers / weights
    variances = (weighted * (centers - means[:, None]) ** 2).sum(axis=1) / weights + VARIANCE_FLOOR
    return [weights / weights.sum(axis=0), means, variances]


def _log_joint(
    centers: NDArray[np.float64], weights: NDArray[np.float64], means: NDArray[np.float64], variances: NDArray[Any]
) -> NDArray[np.float64]:
    """log(weight * density) but for a constant, float64 (2, BINS)."""
    squares = (centers - means[:, None]) ** 2 / (2.0 * variances[:, None])
    joint: NDArray[np.float64] = np.log(weights)[:, None] - 0.5 * np.log(2 * np.pi * variances)[:, None] - squares
    return joint
