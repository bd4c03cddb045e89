"""Mean margin and Avg.Encoder: the level of the dynamics instead of their shape (Kim et al., CVPR 2024, Tables 1, 2).

Both rank by the logit margin (Eq. 1) averaged over epochs, which is the area under the margin of Pleiss et al. (2020)
without its extra class. One cuts it at 0, the other between two Gaussians (`decision.gaussian_mixture`).

Deviations from the paper: none known.

Cost: one mean per instance; for Avg.Encoder that of the mixture.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dynacor_ray.decision.gaussian_mixture import fit_mixture
from dynacor_ray.detectors.evidence import Evidence, Verdict


def mean_margin(evidence: Evidence) -> Verdict:
    """Mean margin (Pleiss et al. 2020): flags a negative one.

    Args:
        evidence: margins, float (N, E).

    Returns:
        Score: the mean margin.
    """
    score = _mean_over_epochs(evidence)
    return Verdict(score < 0, score)


def avg_encoder(evidence: Evidence) -> Verdict:
    """Avg.Encoder (Table 1): flags what the lower of two Gaussians on the mean margin explains better.

    Score and posterior agree except where the variances differ much: a wide lower component also claims the largest
    margins, a wide upper one the smallest. These flags are kept, since they are the published rule.

    Args:
        evidence: margins, float (N, E).

    Returns:
        Score: the mean margin. Nothing is flagged when all are equal.
    """
    score = _mean_over_epochs(evidence)
    fitted = fit_mixture(score)
    flags = np.zeros(len(score), np.bool_) if fitted is None else fitted.log_odds(score) < 0
    return Verdict(flags, score)


def _mean_over_epochs(evidence: Evidence) -> NDArray[np.float64]:
    # margins are stored in half precision, whose sum over epochs would be rounded
    mean: NDArray[np.float64] = evidence.part("margins").mean(axis=1, dtype=np.float64)
    return mean
