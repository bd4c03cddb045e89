"""Rankings of baselines with the thresholds of this package, which separates ranking from cutting. Ours.

A published detector is a score and a rule where to cut it. With one and the same cut, the remaining difference in F1
is a difference in ranking. One cut flags as many as the training estimates to be wrong, the other a chosen share of
the corrupted copies. AUM's copies are its threshold samples. For votes of neighbors every instance is given each wrong
label in turn, which is what uniformly corrupted labels are on average.

Cost: a sort of the scores.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dynacor_ray.core.errors import ConfigError, expected_got
from dynacor_ray.decision.thresholds import TARGET_RECALL, quantile_threshold
from dynacor_ray.detectors.aum import aum, corrupted_aum
from dynacor_ray.detectors.evidence import Evidence, Verdict
from dynacor_ray.detectors.simifeat import nearest, votes, wrong_label_votes


def at_noise_rate(judge: Callable[[Evidence], Verdict]) -> Callable[[Evidence], Verdict]:
    """The same detector, flagging as many instances as the DynaCor run estimates to be wrong (`decision.noise_rate`).

    Of instances with equal scores none is flagged unless all are, so they may be fewer. The detector's evidence must
    include "dynamics".

    Raises:
        ConfigError: as the detector, or without an estimate.
    """

    def rethresholded(evidence: Evidence) -> Verdict:
        score = judge(evidence).score
        if evidence.noise_rate is None:
            remedy = "gather what the detector reads first"
            raise ConfigError(expected_got("an estimate of the noise rate", "none", remedy))
        return Verdict(score < quantile_threshold(score, evidence.noise_rate), score)

    return rethresholded


def aum_corrupted_recall(evidence: Evidence) -> Verdict:
    """AUM's ranking, cut where 92% of its threshold samples are flagged (their own rule: 99%). Raises as `aum` does."""
    score = aum(evidence).score
    return Verdict(score < quantile_threshold(corrupted_aum(evidence), TARGET_RECALL), score)


def simifeat_corrupted_recall(evidence: Evidence) -> Verdict:
    """SimiFeat-R's score, the vote for the given label, cut where 92% of all wrong labels would be flagged.

    Takes any number of classes. Raises ConfigError for fewer than 10 neighbors.
    """
    score, _ = votes(evidence.given_label, *nearest(evidence))
    return Verdict(score < _cut_above_zero(*wrong_label_votes(evidence), TARGET_RECALL), score)


def _cut_above_zero(values: NDArray[np.float64], zeros: int, share: float) -> float:
    """`quantile_threshold` of the positive `values` and as many `zeros`, without creating these."""
    below = round(share * (len(values) + zeros)) - zeros
    if below <= 0:  # zeros are equal: all are caught, or none
        return float(values.min(initial=1.0)) / 2
    return quantile_threshold(values, below / len(values))
