"""DynaCor and the decisions of this package as detectors, to stand beside the baselines (§4.4, Table 4).

All read the dynamics of one training: `dynacor` is what `detect` does by default, `dynacor_paper` is Eq. 3-9 as
printed, the rest are the other thresholds on the same ranking, and Table 4's ablations.
"""

from __future__ import annotations

from dynacor_ray.decision.thresholds import RowSignals, assignment_quality, choose_threshold, row_score
from dynacor_ray.detectors.evidence import Evidence, Verdict


def decided(evidence: Evidence, threshold: str, score: str) -> Verdict:
    """A threshold of `method.thresholds` on one of its scores (§4.4). Raises ConfigError as `choose_threshold` does."""
    originals, copies = _signals(evidence, ""), _signals(evidence, "copy_")
    rate = evidence.noise_rate
    cut = choose_threshold(threshold, score, originals, copies, noise_rate=rate)
    return Verdict(cut.apply(originals)[0], row_score(score, originals, cut.weight))


def _signals(evidence: Evidence, prefix: str) -> RowSignals:
    margins, q_noisy, left_out = (evidence.part(prefix + name) for name in ("margins", "q_noisy", "leave_one_out"))
    return RowSignals(margins=margins, q_noisy=q_noisy, leave_one_out=left_out)


def dynacor(evidence: Evidence) -> Verdict:
    """The default of `detect`: as many rows as the training estimates to be wrong, by both margins."""
    return decided(evidence, "noise_rate", "combined_margin")


def early_margin(evidence: Evidence) -> Verdict:
    """As the default, by early margins alone."""
    return decided(evidence, "noise_rate", "early_margin")


def leave_one_out(evidence: Evidence) -> Verdict:
    """As the default, by the margins of a ridge regression alone, which leaves out the row that it judges."""
    return decided(evidence, "noise_rate", "leave_one_out")


def dynacor_paper(evidence: Evidence) -> Verdict:
    """Eq. 3-9 as printed."""
    return decided(evidence, "paper", "soft_assignment")


def corrupted_recall(evidence: Evidence) -> Verdict:
    """The default's ranking, cut where 92% of the planted errors are caught."""
    return decided(evidence, "corrupted_recall", "combined_margin")


def mixture(evidence: Evidence) -> Verdict:
    """The default's ranking, cut between two Gaussians."""
    return decided(evidence, "mixture", "combined_margin")


def dynacor_at_noise_rate(evidence: Evidence) -> Verdict:
    """The paper's ranking by q (Eq. 3), cut at the estimated noise rate."""
    return decided(evidence, "noise_rate", "soft_assignment")


def untrained(evidence: Evidence) -> Verdict:
    """Table 4 without both losses: initial centroids, untrained encoder, Eq. 4."""
    return _ablated(evidence, "q_untrained")


def clustering_only(evidence: Evidence) -> Verdict:
    """Table 4 without the alignment loss (alpha 0), Eq. 4."""
    return _ablated(evidence, "q_clustering_only")


def _ablated(evidence: Evidence, name: str) -> Verdict:
    q_noisy = evidence.part(name)
    quality = assignment_quality(q_noisy, evidence.part("margins").astype("float32").mean(axis=1))
    return Verdict(q_noisy > 0.5, quality)
