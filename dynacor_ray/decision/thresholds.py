"""From signals to a score per row, and from the score to flags and a quality (§4.4, Eq. 4; scores and cuts of our own).

The ranking that dynamics give is good, the cut at `q_noisy > q_clean` (Eq. 4) is not where few labels are wrong. The
cuts here take any score: at the share of wrong labels that the training estimates (`noise_rate`), or where a
chosen share of the planted errors is caught (§4.2). Scores are low for likely errors. The default score is the sum of
two margins that err differently, each in units of its own spread: of the network while it learns, and of a ridge
regression that leaves the row out.

Deviations from the paper: `threshold="paper"` is Eq. 4, everything else here is not in it.

Cost: one sort of the sampled scores; the rest is a comparison per row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from dynacor_ray.core.errors import ConfigError, expected_got
from dynacor_ray.decision.gaussian_mixture import cut_of_mixture

RankingScore = Literal[
    "label_noise", "combined_margin", "early_margin", "mean_margin", "leave_one_out", "soft_assignment"
]
FlagRule = Literal["label_noise_model", "noise_rate", "corrupted_recall", "mixture", "paper"]
SCORES: tuple[str, ...] = get_args(RankingScore)
THRESHOLDS: tuple[str, ...] = get_args(FlagRule)
TARGET_RECALL = 0.92
"""Share of the planted errors that "corrupted_recall" catches by default."""
MOST_RECALL = 0.98
"""Share of the planted errors beyond which "noise_rate" flags no more. With early margins it changed nothing on the 50
label sets that the estimate was made with; it keeps an unsure classifier from having all rows flagged."""


@dataclass(frozen=True, kw_only=True)
class RowSignals:
    """What is known of n rows (§4.3, §4.4), aligned.

    margins: float (n, E), Eq. 1; q_noisy: float32 (n,), Eq. 3; leave_one_out: float32 (n,), the margin of
    `method.ridge`, all 0 where there is none.
    """

    margins: NDArray[np.floating[Any]]
    q_noisy: NDArray[np.float32]
    leave_one_out: NDArray[np.float32]
    log_odds: NDArray[np.float64] | None = None

    def of(self, rows: NDArray[np.bool_]) -> RowSignals:
        """Those of some rows. rows: bool (n,)."""
        return RowSignals(
            margins=self.margins[rows],
            q_noisy=self.q_noisy[rows],
            leave_one_out=self.leave_one_out[rows],
            log_odds=None if self.log_odds is None else self.log_odds[rows],
        )


@dataclass(frozen=True, kw_only=True)
class DecisionThreshold:
    """Where a score is cut (§4.4): rows below `value` are flagged. scale: unit of the score, > 0, for the quality.

    `value` None is Eq. 4 itself, `q_noisy > 1/2`, and needs the score "soft_assignment". weight: as in `row_score`.
    """

    score: str
    value: float | None
    scale: float = 1.0
    weight: float = 0.0

    def apply(self, signals: RowSignals) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """Flags bool (n,) and label quality float64 (n,) in [0, 1], below 1/2 exactly where flagged (Eq. 4).

        Among rows of one cut the quality ranks as the score does.
        """
        score = row_score(self.score, signals, self.weight)
        if self.value is None:
            return signals.q_noisy > 0.5, score
        distance = (score - self.value) / self.scale
        quality = 0.5 + 0.5 * distance / (1.0 + np.abs(distance))
        return score < self.value, np.where(score < self.value, np.minimum(quality, np.nextafter(0.5, 0)), quality)


def row_score(name: str, signals: RowSignals, weight: float = 0.0) -> NDArray[np.float64]:
    """A score of SCORES, low = likely wrong (§4.3), float64 (n,).

    "early_margin": mean logit margin over the first half of the epochs, when right labels are known and wrong ones not
    yet memorized; "mean_margin": over all (AUM, Pleiss et al. 2020); "leave_one_out": the margin of a ridge
    regression without the row; "combined_margin": early margin plus `weight` (of `common_unit`) times that;
    "soft_assignment": `assignment_quality`. Raises ConfigError for another name.
    """
    if name not in SCORES:
        raise ConfigError(expected_got(f"a score among {', '.join(SCORES)}", repr(name), "pass one of these"))
    if name == "label_noise":
        if signals.log_odds is None:
            raise ConfigError(expected_got("the log odds of a label noise model", "none", "fit one, or another score"))
        return -signals.log_odds
    margins, left_out = signals.margins, signals.leave_one_out.astype(np.float64)
    if name == "soft_assignment":
        return assignment_quality(signals.q_noisy, margins.astype(np.float32).mean(axis=1))
    if name == "leave_one_out":
        return left_out
    kept = margins if name == "mean_margin" else margins[:, : max(1, margins.shape[1] // 2)]
    mean: NDArray[np.float64] = kept.astype(np.float64).mean(axis=1)
    return mean + weight * left_out if name == "combined_margin" else mean


def common_unit(signals: RowSignals) -> float:
    """How many units of the early margin one of the leave-one-out margin is: the ratio of their interquartile ranges.

    signals: those of (a sample of) the originals (§4.3). 0 where the leave-one-out margin does not vary.
    """
    early, left_out = (_spread(row_score(name, signals)) for name in ("early_margin", "leave_one_out"))
    return early / left_out if left_out > 0 else 0.0


def _spread(values: NDArray[np.float64]) -> float:
    low, high = np.quantile(values, (0.25, 0.75))
    return float(high - low)


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


def choose_threshold(
    threshold: str,
    score: str,
    originals: RowSignals,
    copies: RowSignals,
    *,
    noise_rate: float | None = None,
    target_recall: float = TARGET_RECALL,
    most_recall: float = MOST_RECALL,
    log_odds_cut: float | None = None,
) -> DecisionThreshold:
    """The cut of a policy of THRESHOLDS (§4.2, Eq. 4) on a score of SCORES, from (a sample of) both sets.

    "noise_rate" flags that share of the originals, or fewer if that is enough to catch `most_recall` of the copies;
    "corrupted_recall" catches `target_recall` of the copies; "mixture" is `cut_of_mixture`; "paper" is Eq. 4. Raises
    ConfigError for another policy or score, for "noise_rate" without an estimate, for "leave_one_out" where all are 0,
    or for "paper" with another score than "soft_assignment".
    """
    if threshold not in THRESHOLDS:
        raise ConfigError(
            expected_got(f"a threshold among {', '.join(THRESHOLDS)}", repr(threshold), "pass one of these")
        )
    if threshold == "paper":
        if score != "soft_assignment":
            raise ConfigError(
                expected_got("the score soft_assignment for Eq. 4", repr(score), "choose another threshold")
            )
        return DecisionThreshold(score=score, value=None)
    if score == "leave_one_out" and not originals.leave_one_out.any():
        remedy = "choose another score, or reduce the features"
        raise ConfigError(expected_got("leave-one-out margins", "none, as with more than 4,096 features", remedy))
    weight = common_unit(originals) if score == "combined_margin" else 0.0
    scores = row_score(score, originals, weight)
    if threshold == "label_noise_model":
        if log_odds_cut is None or score != "label_noise":
            remedy = "fit a label noise model, or choose another rule"
            raise ConfigError(expected_got("its cut, and the score label_noise", repr(score), remedy))
        value = float(np.nextafter(-log_odds_cut, np.inf))
    elif threshold == "corrupted_recall":
        value = quantile_threshold(row_score(score, copies, weight), target_recall)
    elif threshold == "mixture":
        value = cut_of_mixture(scores)
    elif noise_rate is None:
        raise ConfigError(expected_got("an estimate of the noise rate", "none", "train for two epochs or more"))
    else:
        enough = quantile_threshold(row_score(score, copies, weight), most_recall)
        value = min(quantile_threshold(scores, noise_rate), enough)
    spread = float(np.abs(scores - np.median(scores)).mean(axis=0))
    return DecisionThreshold(score=score, value=value, scale=spread if spread > 0 else 1.0, weight=weight)


def quantile_threshold(scores: NDArray[np.float64], share: float) -> float:
    """A value with `share` of the scores below it (§4.2), half-way between two scores. float64 (N,), N >= 1.

    >>> quantile_threshold(np.array([3.0, 1.0, 2.0, 9.0]), share=0.5)
    2.5
    """
    ordered = np.sort(scores)
    below = round(share * len(ordered))
    if below == 0:
        return float(np.nextafter(ordered[0], -np.inf))
    if below == len(ordered):
        return float(np.nextafter(ordered[-1], np.inf))
    return float(ordered[below - 1] / 2 + ordered[below] / 2)
