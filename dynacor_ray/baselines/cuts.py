"""Any detector's ranking, cut where the training's estimate of the noise rate says (§3): ranking apart from cutting.

A published detector is a score and a rule where to cut it. With one and the same cut, what is left of a difference in
F1 is a difference in ranking.

Cost: a sort of the scores.
"""

from __future__ import annotations

from collections.abc import Callable

from dynacor_ray.baselines.base import Evidence, Verdict
from dynacor_ray.errors import ConfigError, explain
from dynacor_ray.method.thresholds import cut_at_share


def at_noise_rate(judge: Callable[[Evidence], Verdict]) -> Callable[[Evidence], Verdict]:
    """The same detector, which flags as many instances as the DynaCor run estimates to be wrong (`method.noise_rate`).

    Of instances with equal scores, none is flagged unless all are: they may then be fewer. The detector's evidence must
    include "dynamics". Raises ConfigError as the detector does, or without an estimate.
    """

    def judged(evidence: Evidence) -> Verdict:
        score = judge(evidence).score
        if evidence.noise_rate is None:
            raise ConfigError(explain("an estimate of the noise rate", "none", "gather what the detector reads first"))
        return Verdict(score < cut_at_share(score, evidence.noise_rate), score)

    return judged
