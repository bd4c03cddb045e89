"""DynaCor and the decision rules of this package as detectors, to compare with the baselines (§4.4, Table 4).

`dynacor_paper` and the ablations of Table 4 have a training of their own, as printed (Table 5). All others read the
dynamics of the training that the experiment is told of: `dynacor` is the default of `detect`, `eq_4` the paper's rule
on them, the rest are other thresholds and rankings.
"""

from __future__ import annotations

import functools

import numpy as np

from dynacor_ray.decision.thresholds import (
    MOST_RECALL,
    TARGET_RECALL,
    RowSignals,
    assignment_quality,
    choose_threshold,
    row_score,
)
from dynacor_ray.detectors.evidence import Evidence, Verdict


def decided(evidence: Evidence, threshold: str, score: str) -> Verdict:
    """A threshold of `decision.thresholds` on one of its scores, with a network as `detect` has it there.

    Raises ConfigError as `choose_threshold` does.
    """
    originals, copies = _signals(evidence, ""), _signals(evidence, "copy_")
    most = MOST_RECALL if evidence.leave_one_out is not None else TARGET_RECALL
    rate, log_odds_cut = evidence.noise_rate, evidence.log_odds_cut
    cut = choose_threshold(
        threshold, score, originals, copies, noise_rate=rate, most_recall=most, log_odds_cut=log_odds_cut
    )
    return Verdict(cut.apply(originals)[0], row_score(score, originals, cut.weight))


def _signals(evidence: Evidence, prefix: str) -> RowSignals:
    margins, q_noisy = evidence.part(prefix + "margins"), evidence.part(prefix + "q_noisy")
    left_out, log_odds = getattr(evidence, prefix + "leave_one_out"), getattr(evidence, prefix + "log_odds")
    left_out = np.zeros(len(margins), np.float32) if left_out is None else left_out
    return RowSignals(margins=margins, q_noisy=q_noisy, leave_one_out=left_out, log_odds=log_odds)


def dynacor(evidence: Evidence) -> Verdict:
    """The default of `detect`: the label noise model; without its class scores, the margins at the estimated rate."""
    if evidence.log_odds is None:
        return by_margin(evidence, "noise_rate")
    return decided(evidence, "label_noise_model", "label_noise")


def by_margin(evidence: Evidence, threshold: str) -> Verdict:
    """A threshold on the best margin that there is: both, with a network its mean."""
    return decided(evidence, threshold, "mean_margin" if evidence.leave_one_out is None else "combined_margin")


combined_margin = functools.partial(decided, threshold="noise_rate", score="combined_margin")
"""As many rows as the training estimates to be wrong, by both margins."""
early_margin = functools.partial(decided, threshold="noise_rate", score="early_margin")
"""The default's threshold on early margins alone."""
leave_one_out = functools.partial(decided, threshold="noise_rate", score="leave_one_out")
"""The default's threshold on the margins of a ridge regression that leaves out the row it scores."""
eq_4 = functools.partial(decided, threshold="paper", score="soft_assignment")
"""The paper's clustering and flags (Eq. 3-9) on the training that all share."""
corrupted_recall = functools.partial(by_margin, threshold="corrupted_recall")
"""The default's ranking, cut where 92% of the corrupted copies are flagged."""
mixture = functools.partial(by_margin, threshold="mixture")
"""The default's ranking, cut between two Gaussians."""
dynacor_at_noise_rate = functools.partial(decided, threshold="noise_rate", score="soft_assignment")
"""The paper's ranking by q (Eq. 3), cut at the estimated noise rate."""


def _published(evidence: Evidence, name: str) -> Verdict:
    q_noisy = evidence.part(name)
    return Verdict(q_noisy > 0.5, assignment_quality(q_noisy, evidence.part("published_margin")))


dynacor_paper = functools.partial(_published, name="q_published")
"""Eq. 2-9 as printed, trained as printed."""
untrained = functools.partial(_published, name="q_untrained")
"""Table 4 without both losses: initial centroids, untrained encoder, Eq. 4."""
clustering_only = functools.partial(_published, name="q_clustering_only")
"""Table 4 without the alignment loss (alpha 0), Eq. 4."""
