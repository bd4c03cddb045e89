"""What a person's answers on a few rows say about all of them: noise rate, precision, recall, and a better cut (ours).

Rows are ranked, likely errors first. Half of the sample is spread evenly over the whole ranking, half over the ranks
near the cut, one row drawn at random from each stretch, so that a row's chance to be drawn depends on its rank alone.
With t the log odds of a rank (log of rows before it over rows after it), P(wrong) is taken for a logistic curve

    P(wrong | t) = sigmoid(a + b (t - t_cut)),

whose fit needs no weights for that reason. The label-free estimate enters as a normal prior on (a, b): few answers move
it little. From the curve's posterior (Laplace's approximation) everything follows: the rate is its mean over all ranks,
precision and recall those of a cut, each with a 95% interval, and the cut that makes the expected F1 largest.

Cost: nothing to speak of; the curve is read at `_GRID` ranks, whatever N.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dynacor_ray.core.errors import ConfigError, expected_got

_GRID, _DRAWS, _STEPS = 2000, 1000, 50
NEAR = 1.0
"""Log odds of the rank on both sides of the cut from which the second half of a sample is drawn."""
PRIOR_LEVEL, PRIOR_SLOPE = 1.0, 0.5
"""Standard deviations of the prior: of the log odds at the cut, and of the slope as a share of it."""


@dataclass(frozen=True)
class Measured:
    """An estimate with the ends of its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Audit:
    """What the answers say. cut: share of the ranking to flag; the other figures are of that cut."""

    rate: Measured
    precision: Measured
    recall: Measured
    cut: float


def draw_ranks(num_rows: int, cut: float, count: int, seed: int) -> NDArray[np.int64]:
    """Ranks to show a person, ascending and distinct: int64 (n,), n <= count. Rank 0 is the likeliest error.

    cut: share of the rows that is flagged. A second round with another seed and a moved cut may repeat ranks; leave
    those out. Raises ConfigError for a count below 2 or no row.
    """
    if count < 2 or num_rows < 1:
        got = f"{count} of {num_rows} rows"
        raise ConfigError(expected_got("a sample of 2 rows or more", got, "pass e.g. --sample 100"))
    rng = np.random.default_rng(seed)
    middle = _logit(np.array([_inside(cut, num_rows)]))[0]
    low, high = (1.0 / (1.0 + np.exp(-(middle + side * NEAR))) for side in (-1.0, 1.0))
    everywhere = _one_in_each(0.0, 1.0, count - count // 2, rng)
    near = _one_in_each(float(low), float(high), count // 2, rng)
    ranks = np.floor(np.concatenate([everywhere, near]) * num_rows).astype(np.int64)
    return np.unique(np.clip(ranks, 0, num_rows - 1))


def audit(
    ranks: NDArray[np.int64],
    is_wrong: NDArray[np.bool_],
    num_rows: int,
    expected: NDArray[np.float64],
    cut: float,
    seed: int = 0,
) -> Audit:
    """What answers say of all rows.

    ranks: int64 (n,), answered, from `draw_ranks`; is_wrong: bool (n,), the answers; num_rows: N; expected: float64
    (G,), the label-free P(wrong) at G ranks spread evenly, likeliest first; cut: share that is flagged so far.
    """
    middle = float(_logit(np.array([_inside(cut, num_rows)]))[0])
    grid = (np.arange(_GRID) + 0.5) / _GRID
    axis = _columns(grid, middle)
    prior = _prior(expected, middle)
    answered = _columns((ranks + 0.5) / num_rows, middle)
    scale = np.array([PRIOR_LEVEL, max(PRIOR_SLOPE * abs(prior[1]), 0.1)])
    mode, covariance = _posterior(answered, is_wrong.astype(np.float64), prior, scale)
    curve = _sigmoid(axis @ mode)
    moved = _best_share(curve)
    draws = np.random.default_rng(seed).multivariate_normal(mode, covariance, _DRAWS)
    curves = _sigmoid(draws @ axis.T)
    flagged = grid <= moved
    figures = (
        lambda p: p.mean(axis=-1),
        lambda p: p[..., flagged].mean(axis=-1),
        lambda p: p[..., flagged].sum(axis=-1) / p.sum(axis=-1),
    )
    rate, precision, recall = (
        Measured(float(of(curve)), *(float(end) for end in np.quantile(of(curves), (0.025, 0.975)))) for of in figures
    )
    return Audit(rate, precision, recall, moved)


def _prior(expected: NDArray[np.float64], middle: float) -> NDArray[np.float64]:
    """The logistic curve nearest to the label-free P(wrong), by cross-entropy: float64 (2,)."""
    at = _columns((np.arange(len(expected)) + 0.5) / len(expected), middle)
    mode, _ = _posterior(at, expected, np.array([0.0, -1.0]), np.array([10.0, 10.0]))
    return np.array([mode[0], min(mode[1], -0.2)])


def _posterior(
    columns: NDArray[np.float64], target: NDArray[np.float64], prior: NDArray[np.float64], scale: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mode and covariance of a logistic regression with a normal prior, by Newton's steps."""
    precision, mode = np.diag(1.0 / scale**2), prior.copy()
    for _ in range(_STEPS):
        probability = _sigmoid(columns @ mode)
        gradient = columns.T @ (target - probability) - precision @ (mode - prior)
        weight = np.maximum(probability * (1.0 - probability), 1e-9)
        hessian = (columns * weight[:, None]).T @ columns + precision
        step = np.linalg.solve(hessian, gradient)
        mode = mode + np.clip(step, -2.0, 2.0)
        if np.abs(step).max() < 1e-8:
            break
    return mode, np.linalg.inv(hessian)


def _best_share(curve: NDArray[np.float64]) -> float:
    """Share of the ranking with the largest expected F1."""
    size = np.arange(1, len(curve) + 1)
    expected = 2.0 * np.cumsum(curve) / (size + curve.sum())
    return float((np.argmax(expected) + 1) / len(curve))


def _columns(share: NDArray[np.float64], middle: float) -> NDArray[np.float64]:
    return np.stack([np.ones(len(share)), _logit(share) - middle], axis=1)


def _one_in_each(low: float, high: float, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """One number from each of `count` equal stretches between two shares."""
    return low + (high - low) * (np.arange(count) + rng.random(count)) / max(count, 1)


def _inside(share: float, num_rows: int) -> float:
    return min(max(share, 0.5 / num_rows), 1.0 - 0.5 / num_rows)


def _logit(share: NDArray[np.float64]) -> NDArray[np.float64]:
    value: NDArray[np.float64] = np.log(share) - np.log1p(-share)
    return value


def _sigmoid(value: NDArray[np.float64]) -> NDArray[np.float64]:
    probability: NDArray[np.float64] = np.exp(-np.logaddexp(0.0, -value))
    return probability
