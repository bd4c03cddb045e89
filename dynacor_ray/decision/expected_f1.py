"""From P(wrong) of every row to the rows that are flagged: those that make the expected F1 largest (ours).

If each of N labels is wrong with its own probability p_i, flagging the k largest has the expected F1

    2 (sum of the k largest) / (k + sum of all)

up to terms of order 1/N (Lewis 1995), and its maximum flags the rows above half of that maximum. Where another reading
says that more labels are wrong than the sum, all log odds are raised by one number until the sum agrees: the ranking
stays, the cut moves.

Cost: one sort of a sample; by block, a comparison per row.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_FARTHEST = 60.0
"""Largest shift of log odds; beyond it every probability is 0 or 1."""


def best_cut(probability: NDArray[np.float64]) -> tuple[float, float]:
    """P(wrong) from which on rows are flagged, and the expected F1 of that. float64 (N,), N >= 1 -> two floats.

    Nothing is flagged (cut above 1, F1 0) where every probability is 0.
    """
    ordered = np.sort(probability)[::-1]
    total = float(ordered.sum())
    if total <= 0.0:
        return 2.0, 0.0
    expected = 2.0 * np.cumsum(ordered) / (np.arange(1, len(ordered) + 1) + total)
    best = int(np.argmax(expected))
    return float(ordered[best]), float(expected[best])


def shift_to_rate(log_odds: NDArray[np.float64], rate: float) -> float:
    """What to add to the log odds of P(wrong), float64 (N,), so that their mean probability is `rate` in [0, 1]."""
    from scipy.optimize import brentq  # where it is needed: it loads for half a second

    if rate <= 0.0 or rate >= 1.0:
        return -_FARTHEST if rate <= 0.0 else _FARTHEST

    def excess(shift: float) -> float:
        return float(wrong_probability(log_odds + shift).mean(axis=0)) - rate

    if excess(-_FARTHEST) >= 0.0 or excess(_FARTHEST) <= 0.0:
        return -_FARTHEST if excess(-_FARTHEST) >= 0.0 else _FARTHEST
    return float(brentq(excess, -_FARTHEST, _FARTHEST, xtol=1e-6))


def wrong_probability(log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
    """P(wrong) of log odds: float64 (N,) in [0, 1]."""
    probability: NDArray[np.float64] = np.exp(-np.logaddexp(0.0, -log_odds))
    return probability
