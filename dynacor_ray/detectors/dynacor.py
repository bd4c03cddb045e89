"""DynaCor and the decision rules of this package as detectors, to compare with the baselines (§4.4, Table 4).

All read the dynamics of one training: `dynacor` is the default of `detect`, `dynacor_paper` is Eq. 3-9 as printed, the
rest are the other thresholds on the same ranking and the ablations of Table 4.
"""

from __future__ import annotations

import functools

from dynacor_ray.decision.thresholds import RowSignals, assignment_quality, choose_threshold, row_score
from dynacor_ray.detectors.evidence import Evidence, Verdict


def decided(evidence: Evidence, threshold: str, score: str) -> Verdict:
    """A threshold of `decision.thresholds` on one of its scores. Raises ConfigError as `choose_threshold` does."""
    originals, copies = _signals(evidence, ""), _signals(evidence, "copy_")
    rate = evidence.noise_rate
    cut = choose_threshold(threshold, score, originals, copies, noise_rate=rate)
    return Verdict(cut.apply(originals)[0], row_score(score, originals, cut.weight))


def _signals(evidence: Evidence, prefix: str) -> RowSignals:
    margins, q_noisy, left_out = (evidence.part(prefix + name) for name in ("margins", "q_noisy", "leave_one_out"))
    return RowSignals(margins=margins, q_noisy=q_noisy, leave_one_out=left_out)


dynacor = functools.partial(decided, threshold="noise_rate", score="combined_margin")
"""The default of `detect`: as many rows as the training estimates to be wrong, by both margins."""
early_margin = functools.partial(decided, threshold="noise_rate", score="early_margin")
"""The default's threshold on early margins alone."""
leave_one_out = functools.partial(decided, threshold="noise_rate", score="leave_one_out")
"""The default's threshold on the margins of a ridge regression that leaves out the row it scores."""
dynacor_paper = functools.partial(decided, threshold="paper", score="soft_assignment")
"""Eq. 3-9 as printed."""
corrupted_recall = functools.partial(decided, threshold="corrupted_recall", score="combined_margin")
"""The default's ranking, cut where 92% of the corrupted copies are flagged."""
mixture = functools.partial(decided, threshold="mixture", score="combined_margin")
"""The default's ranking, cut between two Gaussians."""
dynacor_at_noise_rate = functools.partial(decided, threshold="noise_rate", score="soft_assignment")
"""The paper's ranking by q (Eq. 3), cut at the estimated noise rate."""


def _ablated(evidence: Evidence, name: str) -> Verdict:
    q_noisy = evidence.part(name)
    quality = assignment_quality(q_noisy, evidence.part("margins").astype("float32").mean(axis=1))
    return Verdict(q_noisy > 0.5, quality)


untrained = functools.partial(_ablated, name="q_untrained")
"""Table 4 without both losses: initial centroids, untrained encoder, Eq. 4."""
clustering_only = functools.partial(_ablated, name="q_clustering_only")
"""Table 4 without the alignment loss (alpha 0), Eq. 4."""
