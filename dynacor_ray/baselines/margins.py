"""Mean margin and Avg.Encoder: the level of the dynamics instead of their shape (Kim et al., CVPR 2024, Tables 1, 2).

Both rank by the logit margin (Eq. 1) averaged over epochs, which is the area under the margin of Pleiss et al. (2020)
without its extra class; one cuts it at 0, the other between two Gaussians. `fit_mixture` also serves FM-SRM.

Deviations from the paper: none known; the paper does not say how the mixture is started. Here it is fitted to sorted
values from a constant seed, so the order of instances cannot matter, and of very many values to an evenly spread part.

Cost: one mean per instance; for Avg.Encoder a sort, and about twenty passes over at most a million numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.mixture import GaussianMixture

from dynacor_ray.baselines.base import Evidence, Verdict

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
    """Two Gaussians by expectation maximisation (Table 1, Avg.Encoder). float (N,) -> None if all values are equal.

    Starts from k-means with a constant seed; the same for any order of the values.
    """
    ordered = np.sort(np.asarray(values, np.float64))
    if len(ordered) < 2 or ordered[0] == ordered[-1]:
        return None
    kept = ordered[:: -(-len(ordered) // _FITTED_ROWS)]
    floor = _VARIANCE_FLOOR * max(float(kept.var(axis=0)), float(np.finfo(np.float64).tiny))
    fitted = GaussianMixture(2, random_state=0, reg_covar=floor, max_iter=1000).fit(kept[:, None])
    order = np.argsort(fitted.means_[:, 0], kind="stable")
    return Mixture(fitted.weights_[order], fitted.means_[order, 0], fitted.covariances_[order, 0, 0])


def mean_margin(evidence: Evidence) -> Verdict:
    """Flags a negative mean margin (Eq. 1; Pleiss et al. 2020). Score: the mean margin.

    Reads margins, float (N, E).
    """
    score = _mean_over_epochs(evidence)
    return Verdict(score < 0, score)


def avg_encoder(evidence: Evidence) -> Verdict:
    """Avg.Encoder (Table 1): flags what the lower of two Gaussians on the mean margin explains better.

    Reads margins, float (N, E). Score: the mean margin, not the posterior. The two agree except where the variances are
    far apart: a wide lower component also claims the largest margins, a wide upper one the smallest. Those flags are
    kept as the mixture gives them, since they are the published rule. Nothing is flagged when all means are equal.
    """
    score = _mean_over_epochs(evidence)
    fitted = fit_mixture(score)
    flags = np.zeros(len(score), np.bool_) if fitted is None else fitted.log_odds(score) < 0
    return Verdict(flags, score)


def _mean_over_epochs(evidence: Evidence) -> NDArray[np.float64]:
    # margins are stored in half precision, whose sum over epochs would be rounded
    mean: NDArray[np.float64] = evidence.part("margins").mean(axis=1, dtype=np.float64)
    return mean
