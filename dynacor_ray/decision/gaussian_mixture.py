"""Two Gaussians in one dimension: where scores of likely wrong labels end (§5.1; Table 1, Avg.Encoder).

Deviations from the paper: it does not say how the mixture is started. Here it is fitted to sorted values from a
constant seed, so the order of instances cannot matter, and of very many values to an evenly spread part.

Cost: a sort, and about twenty passes over at most a million numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_FITTED_ROWS = 1_000_000
# Relative to the spread, so that values of any unit are treated alike; sklearn's own constant supposes a spread near 1.
_VARIANCE_FLOOR = 1e-6


@dataclass(frozen=True)
class Mixture:
    """Two Gaussians in one dimension (Table 1, Avg.Encoder). weights, means, variances: float64 (2,), by mean."""

    weights: NDArray[np.float64]
    means: NDArray[np.float64]
    variances: NDArray[np.float64]

    def log_odds(self, values: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """log P(upper | value) - log P(lower | value), finite where values are. float (N,) -> float64 (N,).

        Not monotone when the variances differ: far out on either side the component with the larger one is likelier.
        """
        distance = (np.asarray(values, np.float64)[:, None] - self.means) ** 2
        joint = np.log(self.weights) - 0.5 * np.log(self.variances) - distance / (2.0 * self.variances)
        odds: NDArray[np.float64] = joint[:, 1] - joint[:, 0]
        return odds


def fit_mixture(values: NDArray[np.floating[Any]]) -> Mixture | None:
    """Two Gaussians by expectation maximization (§5.1, Avg.Encoder). float (N,) -> None if all values are equal.

    Starts from k-means with a constant seed; the same for any order of the values.
    """
    from sklearn.mixture import GaussianMixture  # its import takes a second, which every process would pay

    ordered = np.sort(np.asarray(values, np.float64))
    if len(ordered) < 2 or ordered[0] == ordered[-1]:
        return None
    kept = ordered[:: -(-len(ordered) // _FITTED_ROWS)]
    floor = _VARIANCE_FLOOR * max(float(kept.var(axis=0)), float(np.finfo(np.float64).tiny))
    fitted = GaussianMixture(2, random_state=0, reg_covar=floor, max_iter=1000).fit(kept[:, None])
    order = np.argsort(fitted.means_[:, 0], kind="stable")
    return Mixture(fitted.weights_[order], fitted.means_[order, 0], fitted.covariances_[order, 0, 0])


def cut_of_mixture(scores: NDArray[np.floating[Any]]) -> float:
    """Where two Gaussians fitted to the scores are equally likely, between their means (§5.1, as Avg.Encoder does).

    float (N,), N >= 1. Where one of them is the likelier at both means, the cut lies at the other's mean; where all
    scores are equal, below them.
    """
    fitted = fit_mixture(scores)
    if fitted is None:
        return float(np.nextafter(np.min(scores), -np.inf))
    between = np.linspace(fitted.means[0], fitted.means[1], 1001)
    lower = fitted.log_odds(between) <= 0
    return float(between[-1] if lower.all() else between[int(np.argmin(lower))])
