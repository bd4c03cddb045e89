"""From a score per row to flags and a quality: where to cut the ranking (§4.4, Eq. 4; and two cuts of our own).

The ranking that dynamics give is good, the cut at `q_noisy > q_clean` (Eq. 4) is not where few labels are wrong. The
cuts here take any score: at the share of wrong labels that the training estimates (`noise_rate`), or where a
chosen share of the planted errors is caught (§4.2). Scores are low for likely errors.

Deviations from the paper: `threshold="paper"` is Eq. 4, everything else here is not in it.

Cost: one sort of the sampled scores; the rest is a comparison per row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynacor_ray.errors import ConfigError, explain

SCORES = ("early_margin", "mean_margin", "soft_assignment")
THRESHOLDS = ("noise_rate", "planted_recall", "mixture", "paper")
_MIXTURE_ROWS = 100_000


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Where a score is cut (§4.4): rows below `value` are flagged. scale: unit of the score, > 0, for the quality.

    `value` None is Eq. 4 itself, `q_noisy > 1/2`, and needs the score "soft_assignment".
    """

    score: str
    value: float | None
    scale: float = 1.0

    def apply(
        self, margins: NDArray[np.floating[Any]], q_noisy: NDArray[np.float32]
    ) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """Flags bool (n,) and label quality float64 (n,) in [0, 1], below 1/2 exactly where flagged (Eq. 4).

        margins: float (n, E); q_noisy: float32 (n,), Eq. 3. Among rows of one cut the quality ranks as the score does.
        """
        score = row_score(self.score, margins, q_noisy)
        if self.value is None:
            return q_noisy > 0.5, score
        distance = (score - self.value) / self.scale
        quality = 0.5 + 0.5 * distance / (1.0 + np.abs(distance))
        return score < self.value, np.where(score < self.value, np.minimum(quality, np.nextafter(0.5, 0)), quality)


def row_score(name: str, margins: NDArray[np.floating[Any]], q_noisy: NDArray[np.float32]) -> NDArray[np.float64]:
    """A score of SCORES, low = likely wrong (§4.3). margins: float (n, E); q_noisy: float32 (n,). Returns float64 (n,).

    "early_margin": mean logit margin over the first half of the epochs, when right labels are known and wrong ones not
    yet learnt by heart; "mean_margin": over all (AUM, Pleiss et al. 2020); "soft_assignment": `assignment_quality`.
    Raises ConfigError for another name.
    """
    if name not in SCORES:
        raise ConfigError(explain(f"a score among {', '.join(SCORES)}", repr(name), "pass one of these"))
    if name == "soft_assignment":
        return assignment_quality(q_noisy, margins.astype(np.float32).mean(axis=1))
    epochs = margins.shape[1]
    kept = margins[:, : max(1, epochs // 2)] if name == "early_margin" else margins
    mean: NDArray[np.float64] = kept.astype(np.float64).mean(axis=1)
    return mean


def assignment_quality(
    q_noisy: NDArray[np.floating[Any]], mean_margin: NDArray[np.floating[Any]]
) -> NDArray[np.float64]:
    """1 - q_noisy (Eq. 3) in [0, 1], low = bad; rows of equal q are ordered by mean margin. (N,) x 2 -> float64 (N,).

    Sign dynamics repeat, so q ties often. A margin raises the quality by at most half the distance to the next smaller
    float32: it never changes the order of two different q, and quality < 0.5 says the same as q > 0.5.
    """
    q, margin = np.asarray(q_noisy, np.float32), np.asarray(mean_margin, np.float64)
    gap = q.astype(np.float64) - np.nextafter(q, np.float32(-1.0))
    share = 0.5 + 0.5 * margin / (1.0 + np.abs(margin))
    quality: NDArray[np.float64] = 1.0 - (q - 0.5 * gap * share)
    return quality


def choose_cut(
    threshold: str,
    score: str,
    originals: NDArray[np.float64],
    copies: NDArray[np.float64],
    *,
    noise_rate: float | None = None,
    target_recall: float = 0.92,
) -> Cut:
    """The cut of a policy of THRESHOLDS (§4.2, Eq. 4), from the scores of (a sample of) both sets.

    originals: float64 (N,), copies: float64 (M,), scores of `score`. "noise_rate" flags that share of the originals;
    "planted_recall" catches `target_recall` of the copies; "mixture" is `cut_of_mixture`; "paper" is Eq. 4. Raises
    ConfigError for another policy, for "noise_rate" without an estimate, or for "paper" with another score than
    "soft_assignment".
    """
    if threshold not in THRESHOLDS:
        raise ConfigError(explain(f"a threshold among {', '.join(THRESHOLDS)}", repr(threshold), "pass one of these"))
    if threshold == "paper":
        if score != "soft_assignment":
            raise ConfigError(explain("the score soft_assignment for Eq. 4", repr(score), "choose another threshold"))
        return Cut(score=score, value=None)
    spread = float(np.abs(originals - np.median(originals)).mean(axis=0))
    scale = spread if spread > 0 else 1.0
    if threshold == "planted_recall":
        return Cut(score=score, value=cut_at_share(copies, target_recall), scale=scale)
    if threshold == "mixture":
        return Cut(score=score, value=cut_of_mixture(originals), scale=scale)
    if noise_rate is None:
        raise ConfigError(explain("an estimate of the noise rate", "none", "train for two epochs or more"))
    return Cut(score=score, value=cut_at_share(originals, noise_rate), scale=scale)


def cut_at_share(scores: NDArray[np.float64], share: float) -> float:
    """A value with `share` of the scores below it (§4.2), half-way between two scores. float64 (N,), N >= 1."""
    ordered = np.sort(scores)
    below = round(share * len(ordered))
    if below == 0:
        return float(np.nextafter(ordered[0], -np.inf))
    if below == len(ordered):
        return float(np.nextafter(ordered[-1], np.inf))
    return float(ordered[below - 1] / 2 + ordered[below] / 2)


def cut_of_mixture(scores: NDArray[np.float64]) -> float:
    """Where two Gaussians fitted to the scores are equally likely, between their means (§5.1, as Avg.Encoder does).

    float64 (N,), N >= 2. Where one of them is the likelier at both means, the cut lies at the other's mean. Of very
    many scores an evenly spread part is fitted.
    """
    kept = np.sort(scores)[:: -(-len(scores) // _MIXTURE_ROWS)]
    if kept[0] == kept[-1]:
        return float(np.nextafter(kept[0], -np.inf))
    from sklearn.mixture import GaussianMixture  # its import takes a second, which every process would pay

    fitted = GaussianMixture(2, random_state=0, reg_covar=1e-6 * float(kept.var(axis=0))).fit(kept[:, None])
    means = fitted.means_[:, 0]
    lower = int(means.argmin())
    between = np.linspace(means[lower], means[1 - lower], 1001)
    likely = fitted.predict_proba(between[:, None])[:, lower] >= 0.5
    return float(between[-1] if likely.all() else between[int(np.argmin(likely))])
