"""What a person's answers on an audit sample say of all rows: noise rate, precision, recall, and a better cut (ours).

With t the log odds of a row's rank, P(wrong) is taken for a smooth curve over the ranking,

    logit P(wrong | t) = m(t) + w_0 + w_1 (t - t_cut) + sum_k v_k max(0, t - t_k),   w, v normal with mean 0.

Two curves m compete: what the run said of its rows, from which answers lead away by little, and a
falling line that knows nothing, from which they lead away by much. The answers weigh the two by how well either
predicts them (evidence, by Laplace's approximation). So few answers move a good model little, and a model that is
blind to the errors, as to those of labeling rules, is given up.

From draws of the posterior everything follows: the rate is the mean of a curve, precision and recall those of a cut,
each with a 95% interval; and the cut moves to the one with the largest mean F1 (`expected_f1`) where most draws agree.

The chance to be asked depends on the rank alone (`audit_sample`), so the fit needs no weights (Rubin 1976).

Cost: a few Newton steps on as many rows as there are answers, then `DRAWS` curves over some 1,000 groups of ranks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from dynacor_ray.decision.audit_sample import RankGroups, first_density

DRAWS = 400
KNOTS, CUT_KNOTS = (-4.0, -2.5, -1.0, 0.5, 2.0), (-0.5, 0.0, 0.5)
"""Log odds of a rank at which a curve may bend: 2%, 8%, 27%, 62% and 88% of the rows, and around the cut."""
CUT_SPREAD = 1.0
"""Standard deviation of the bends around the cut, where a good ranking falls from 1 to 0 within few rows."""
MODEL_SPREAD = (1.0, 0.3, 0.3)
"""Standard deviations of level, slope and bends around what the run said: log odds of P(wrong)."""
BLANK_SPREAD = (2.0, 0.7, 0.7)
"""The same around the line that knows nothing."""
MODEL_CHANCE = 0.9
"""Chance before any answer that what the run said is the better start of the two."""
BLANK_LEVEL, BLANK_SLOPE = 0.2, -0.5
"""That line: P(wrong) in the middle of the ranking, and its slope in log odds per log odds of the rank."""
LEAST = 0.02
"""P(wrong) that the run's own curve is kept from 0 and, twice that, from 1: no model is that sure."""
LEAST_ANSWERS = 40
"""Answers from which on the cut is moved. In simulations a run whose cut was the best lost 0.5 points of F1 by 20
answers, 0.3 by 40 and 0.2 by 100; without BETTER 1.2, 0.7 and 0.3."""
BETTER = 0.8
"""Share of the draws by which another cut must be better than that of the run."""
RATE_SLOPE = -2.0
"""Slope of P(wrong) in log odds per log odds of the rank, where a run gave no probabilities."""
_STEPS, _FARTHEST = 50, 60.0


@dataclass(frozen=True)
class Measured:
    """An estimate with the ends of its 95% interval, in [0, 1]."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Figures:
    """The noise rate of all rows; precision, recall and F1 of a cut, answered rows flagged as they were answered."""

    rate: Measured
    precision: Measured
    recall: Measured
    f1: Measured


@dataclass(frozen=True)
class _Curve:
    """One of the competing curves: float64 (G,) at the groups, and the spread of its coefficients, (K,)."""

    middle: NDArray[np.float64]
    spread: NDArray[np.float64]


@dataclass(frozen=True)
class Posterior:
    """What is known of P(wrong) over the ranking.

    Attributes:
        groups: Of the ranks.
        curves: P(wrong) per draw and group, float64 (DRAWS, G).
        num_open: Rows without an answer per group, int64 (G,).
        num_wrong: Answers that say wrong.
        model_weight: How far the answers bear out what the run said, in [0, 1].
    """

    groups: RankGroups
    curves: NDArray[np.float64]
    num_open: NDArray[np.int64]
    num_wrong: int
    model_weight: float

    @property
    def probability(self) -> NDArray[np.float64]:
        """P(wrong) of a row of each group, float64 (G,) in [0, 1]."""
        mean: NDArray[np.float64] = self.curves.mean(axis=0)
        return mean

    def best_cut(self) -> int:
        """How many rows to flag, from the first on: the end of a group with the largest mean F1; 0 where none helps."""
        return int(self.groups.edges[np.argmax(self._f1().mean(axis=0))])

    def moved_cut(self, num_flagged: int) -> int:
        """The best cut, where at least BETTER of the draws have a larger F1 there, else that after `num_flagged` rows.

        A run's cut is often the best already, and a hundred answers would lead away from it by chance.
        """
        f1 = self._f1()
        best, now = int(np.argmax(f1.mean(axis=0))), int(np.abs(self.groups.edges - num_flagged).argmin())
        better = (f1[:, best] > f1[:, now]).mean() >= BETTER
        return int(self.groups.edges[best]) if better else num_flagged

    def figures(self, num_flagged: int, seed: int = 0) -> Figures:
        """Of a cut after `num_flagged` rows, or at the end of a group next to it.

        The intervals hold for these rows, not only for their probabilities: the labels of each draw are drawn, too,
        by normal approximation. seed: of that.
        """
        before = np.arange(len(self.num_open)) < np.abs(self.groups.edges - num_flagged).argmin()
        rng = np.random.default_rng(seed)
        found, missed = (self._wrong(side, rng) for side in (before, ~before))
        found += self.num_wrong
        flagged, total = self.num_open[before].sum() + self.num_wrong, np.maximum(found + missed, 1e-9)
        return Figures(
            rate=_measured(total / self.groups.num_rows),
            precision=_measured(found / flagged if flagged else np.ones_like(found)),
            recall=_measured(found / total),
            f1=_measured(2.0 * found / (flagged + total)),
        )

    def next_density(self) -> NDArray[np.float64]:
        """Share of the next sample per group, float64 (G,), sums to 1: where answers tell most.

        Half is spread as in a first sample around the cut of now; half over rows that some draws flag and others do
        not, so that it is as wide as the cut is uncertain.
        """
        ends, cut = self.groups.edges[np.argmax(self._f1(), axis=1)], self.best_cut()
        flips = np.abs((self.groups.edges[1:, None] <= ends).mean(axis=1) - (self.groups.edges[1:] <= cut))
        flips = flips * self.groups.sizes
        first = first_density(self.groups, cut)
        return first if not flips.any() else 0.5 * first + 0.5 * flips / flips.sum()

    def _f1(self) -> NDArray[np.float64]:
        """F1 of every cut per draw, float64 (DRAWS, G + 1)."""
        start = np.zeros((len(self.curves), 1))
        found = self.num_wrong + np.concatenate([start, np.cumsum(self.curves * self.num_open, axis=1)], axis=1)
        flagged = self.num_wrong + np.concatenate([[0], np.cumsum(self.num_open)])
        f1: NDArray[np.float64] = 2.0 * found / np.maximum(flagged + found[:, -1:], 1e-9)
        return f1

    def _wrong(self, side: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.float64]:
        """Wrong labels among the open rows of some groups per draw, float64 (DRAWS,)."""
        curves, rows = self.curves[:, side], self.num_open[side]
        spread = np.sqrt((curves * (1.0 - curves)) @ rows)
        drawn = curves @ rows + spread * rng.standard_normal(len(curves))
        clipped: NDArray[np.float64] = np.clip(drawn, 0.0, rows.sum())
        return clipped


def expected_from_quality(quality: NDArray[np.float64], cut: float, scale: float) -> NDArray[np.float64]:
    """P(wrong) that a label noise model gave to rows, from their label quality, float64 (n,) in [0, 1].

    cut, scale: `RunSummary.quality_log_odds`. Inverse of `thresholds.DecisionThreshold.apply`.
    """
    signed = 2.0 * np.clip(quality, 1e-12, 1.0 - 1e-12) - 1.0
    probability: NDArray[np.float64] = expit(cut - scale * signed / (1.0 - np.abs(signed)))
    return probability


def expected_from_rate(groups: RankGroups, rate: float) -> NDArray[np.float64]:
    """P(wrong) per group where only a noise rate is known, float64 (G,): a line in log odds, whose mean is `rate`."""
    line = RATE_SLOPE * groups.log_odds
    shares = groups.sizes / groups.num_rows
    low, high = -_FARTHEST, _FARTHEST
    for _ in range(_STEPS):
        level = (low + high) / 2.0
        low, high = (level, high) if shares @ expit(line + level) < rate else (low, level)
    probability: NDArray[np.float64] = expit(line + level)
    return probability


def fit_answers(
    groups: RankGroups,
    expected: NDArray[np.float64] | None,
    num_flagged: int,
    ranks: NDArray[np.int64],
    is_wrong: NDArray[np.bool_],
    seed: int = 0,
) -> Posterior:
    """The posterior of the curve.

    Args:
        groups: Of all ranks.
        expected: What the run said: P(wrong) in the middle of each group, float64 (G,); None where it said nothing.
        num_flagged: By the run.
        ranks: Of the answered rows, int64 (n,), n >= 0; their chance to be asked is a function of the rank.
        is_wrong: The answers, bool (n,).
        seed: Of the draws.
    """
    log_odds = groups.log_odds
    middle = groups.cut_log_odds(num_flagged)
    bends = np.maximum(0.0, log_odds[:, None] - np.array([*KNOTS, *(middle + knot for knot in CUT_KNOTS)]))
    basis = np.column_stack([np.ones(len(log_odds)), log_odds - middle, bends])
    blank = float(logit(BLANK_LEVEL)) + BLANK_SLOPE * log_odds
    curves = [_Curve(blank, _spread(BLANK_SPREAD))]
    if expected is not None:
        curves.append(_Curve(logit(np.clip(expected, LEAST, 1.0 - 2.0 * LEAST)), _spread(MODEL_SPREAD)))
    at = groups.at(ranks)
    fits = [_fit(curve, basis[at], curve.middle[at], is_wrong.astype(np.float64)) for curve in curves]
    chances = (1.0 - MODEL_CHANCE, MODEL_CHANCE)
    evidence = np.array([fit[2] + np.log(chance) for fit, chance in zip(fits, chances, strict=False)])
    weights = np.exp(evidence - evidence.max())
    weights /= weights.sum()
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(DRAWS, weights) if len(weights) > 1 else np.array([DRAWS])
    parts = [
        expit(curve.middle + rng.multivariate_normal(mode, covariance, count, method="cholesky") @ basis.T)
        for curve, (mode, covariance, _), count in zip(curves, fits, drawn, strict=True)
        if count
    ]
    num_open = groups.sizes - np.bincount(at, minlength=len(groups.sizes))
    weight = float(weights[1]) if expected is not None else 0.0
    return Posterior(groups, np.concatenate(parts), num_open, int(is_wrong.sum()), weight)


def _fit(
    curve: _Curve, basis: NDArray[np.float64], middle: NDArray[np.float64], target: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Mode and covariance of the coefficients by Newton's steps, and the log evidence. float64 (K,), (K, K)."""
    precision, mode = np.diag(1.0 / curve.spread**2), np.zeros(len(curve.spread))

    def log_posterior(at: NDArray[np.float64]) -> float:
        value = middle + basis @ at
        return float(-np.logaddexp(0.0, np.where(target > 0.5, -value, value)).sum() - 0.5 * at @ precision @ at)

    for _ in range(_STEPS):
        probability = expit(middle + basis @ mode)
        gradient = basis.T @ (target - probability) - precision @ mode
        step = np.linalg.solve(_hessian(basis, probability, precision), gradient)
        while log_posterior(mode + step) < log_posterior(mode) - 1e-9:
            step = step / 2.0
        mode = mode + step
        if np.abs(step).max() < 1e-8:
            break
    hessian = _hessian(basis, expit(middle + basis @ mode), precision)
    evidence = log_posterior(mode) - np.log(curve.spread).sum() - 0.5 * np.linalg.slogdet(hessian)[1]
    covariance = np.linalg.inv(hessian).astype(np.float64)
    return mode, covariance, float(evidence)


def _hessian(
    basis: NDArray[np.float64], probability: NDArray[np.float64], precision: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Minus the second derivatives of the log posterior, (K, K)."""
    return (basis * (probability * (1.0 - probability))[:, None]).T @ basis + precision


def _spread(of: tuple[float, float, float]) -> NDArray[np.float64]:
    level, slope, bend = of
    return np.array([level, slope, *[bend] * len(KNOTS), *[CUT_SPREAD] * len(CUT_KNOTS)])


def _measured(values: NDArray[np.float64]) -> Measured:
    low, high = np.quantile(values, (0.025, 0.975))
    return Measured(float(values.mean()), float(low), float(high))
